"""The page for strangers: every file on it is written as it stands, every command run in order."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from cos_interp.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/own-videos.md").read_text()


@pytest.mark.slow
def test_a_stranger_scores_by_the_page(tmp_path):
    files = re.findall(r"^`([\w.]+)`\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in files] == ["judge.py", "prompts.jsonl", "blobs.py"]
    for name, text in files:
        (tmp_path / name).write_text(text)
    Image.fromarray(TASKS["place"].sample(0).first_frame).save(tmp_path / "scene.png")
    commands = [
        line for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()
    ]
    assert len(commands) == 5
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    said = []
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "cos"
        done = subprocess.run(
            [sys.executable, str(ROOT / "cli.py"), *words], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        said.append(done.stdout)
    assert said[1].count("ok ") == 13 and "FAILED" not in said[1]
    assert "6 videos written to theirs" in said[3]
    assert (tmp_path / "runs/theirs/report.html").read_text().count("frozen") > 0


def test_the_page_names_every_ready_made_scorer():
    from cos_interp.tasks.scorers import READY

    assert set(re.findall(r"^\| `(\w+)` \|", PAGE.split("## A task")[0].split("`--scorer`")[1], re.MULTILINE)) == set(READY)
