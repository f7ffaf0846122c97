"""The notebooks of examples/ run as they stand, and what is kept in them is what they show: small, and of nobody's machine."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("nbclient", reason="nbclient is not installed: pip install 'cos-interp[test]'")
from notebooks import NOTEBOOKS, ROOT, executed, read

LARGEST = 600_000  # bytes


def kinds(notebook) -> list[list[str]]:
    """What every cell with code shows: the kinds of its outputs."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [[kind for out in cell.outputs for kind in sorted(out.get("data", {out.output_type: 0}))] for cell in code]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept_is_small_and_of_nobodys_machine(path):
    text = path.read_text()
    assert len(text) < LARGEST and not re.search(r"/(home|root|tmp|work|Users)/", text)
    assert any("text/html" in shown for shown in kinds(read(path))), "not executed: make notebooks"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_and_show_what_is_kept(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    assert kinds(executed(path, tmp_path)) == kinds(read(path))
