"""The page on exported activations: its command runs, and its Python, each library where it is installed."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/activations.md").read_text()


@pytest.mark.slow
def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [command] = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(ROOT / "cli.py"), *shlex.split(command)[1:]]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        if "sae_lens" not in block or importlib.util.find_spec("sae_lens") is not None:
            exec(compile(block, "activations.md", "exec"), found)
    assert len(found["rows"]) == 4 * 125 and len(found["batch"]["x"]) == 64 and len(found["scores"]) == 3
    assert "x [width], " + ", ".join(list(found["rows"][0])[1:]) in PAGE
    assert "features" not in found or found["features"].shape == (500, 4 * found["rows"].width)
