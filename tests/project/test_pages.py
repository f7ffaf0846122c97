"""The Python on the pages and in examples/ runs as it stands."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/instrument.md", "docs/patching-from-python.md")


def python_of(page: str) -> str:
    """The Python blocks of a page, one after the other."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "page.py"  # nnsight reads the source of its blocks
    script.write_text(python_of(page))
    found = runpy.run_path(str(script))
    assert {"model", "target", "donor", "sweep", "replay"} <= set(found)
    if page == "docs/patching-from-python.md":
        assert len(found["table"]) == 2 * 2 * 2 and found["table"]["value"].notna().all()
        assert set(found["by_group"]["group"]) == {"all", *found["groups"]}
        assert found["item"].prompt == "move the green square left of the box"  # the page says so


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_examples_run(example, capsys):
    runpy.run_path(str(ROOT / "examples" / example))
    assert capsys.readouterr().out.strip()
