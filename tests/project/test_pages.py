"""The Python on the pages and in examples/ runs as it stands."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
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


# what a page of several parts takes for granted by its place: a model, a call of it, what an earlier command left
GRANTED = """
import torch
from PIL import Image
from cos_interp import HookedVideoPipeline, Steer
from cos_interp.tasks import get_task
model = HookedVideoPipeline.from_pretrained("organism")
item = get_task("maze").sample(seed=8, difficulty=5, unique=False, split="test")
pipe, prompt, image = model.pipe, item.prompt, Image.fromarray(item.first_frame)
call = dict(prompt=prompt, image=image, seed=0, num_inference_steps=8)
"""
STEERING = """
import pathlib
pathlib.Path("runs/steering/media").mkdir(parents=True)
width = model.run_with_cache(names="blocks.1.hook_resid_post", steps=[0], **call)[1]["blocks.1.hook_resid_post", 0].shape[-1]
Steer(torch.ones(width), where="blocks.1.hook_resid_post").save("runs/steering/media/steering.safetensors")
"""
USED = """
calls = [call]
judge = lambda i, run: float(get_task("maze").verify(item, run.decode()[0]).solved)
given = model.run_with_cache(names="blocks.4.hook_resid_post", steps=[6], **call | {"seed": 1})[1]["blocks.4.hook_resid_post", 6]
tokens = torch.ones(given.shape[1:4], dtype=torch.bool)
"""


def played(text: str, folder: Path, monkeypatch) -> dict:
    """What a script leaves, run in a folder from a file, since nnsight reads the source of its blocks."""
    monkeypatch.chdir(folder)
    script = folder / "page.py"
    script.write_text(text)
    return runpy.run_path(str(script))


def test_the_quick_start_runs(tmp_path, monkeypatch):
    found = played(python_of("docs/quick-start.md"), tmp_path, monkeypatch)
    assert found["result"].findings[0].verdict == "not testable" and "at least" in found["result"].findings[0].why
    assert (tmp_path / "runs/first/report.html").exists()


@pytest.mark.slow
def test_the_python_of_the_experiments_runs(tmp_path, monkeypatch):
    found = played(GRANTED + STEERING + python_of("docs/experiments.md"), tmp_path, monkeypatch)
    assert found["result"].name == "recovery" and len(found["video"]) == 9 and found["one"].where == "blocks.1.hook_resid_post"


@pytest.mark.slow
def test_the_python_of_the_probes_runs(tmp_path, monkeypatch):
    found = played(GRANTED + USED + python_of("docs/probes.md"), tmp_path, monkeypatch)
    scores = found["grid"].scores
    assert {"score", "low", "high", "majority", "shuffled", "control", "selectivity", "x_t", "first frame", "position"} <= set(
        scores
    )
    assert {row["edit"] for row in found["rows"]} >= {"none", "erase", "leace"} and callable(found["control"])


# what the file and the line come to inside the repository: a module of the package, and its name in NAMES
INSIDE = """
from cos_interp import tasks
tasks.__path__.append({folder!r})
tasks.NAMES = (*tasks.NAMES, "fall")
from cos_interp.probes.targets import resolve
from cos_interp.tasks import get_task, suite
assert resolve(["height"])[0].tasks == ("fall",) and "fall" in resolve(["first_colour"])[0].tasks
assert all(get_task("fall").verify(item, item.video).solved for item in suite.task_items("fall"))
assert len(suite.load()) == 500
import pytest
assert pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-k", "fall or export or own or several", {tests!r}]) == 0
"""


@pytest.mark.slow
@pytest.mark.parametrize("inside", [False, True])
def test_a_stranger_adds_a_task(inside, tmp_path):
    """In a process of its own, since a task that is known stays known."""
    page = python_of("docs/adding-a-task.md")
    if inside:
        (tmp_path / "fall.py").write_text(page[: page.index("from cos_interp.tasks import get_task, register")])
        subprocess.run([sys.executable, "-m", "ruff", "check", "--select", "F", tmp_path / "fall.py"], check=True)
        page = INSIDE.format(folder=str(tmp_path), tests=str(ROOT / "tests/tasks/test_tasks.py"))
    script = tmp_path / "page.py"
    script.write_text(page)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert inside or "(375, 128)" in done.stdout


@pytest.mark.slow
def test_a_stranger_adds_an_experiment_by_the_page(tmp_path):
    """The files of the page in a copy of the tree, its line in the list, its command in a process of its own."""
    page, tree = (ROOT / "docs/adding-an-experiment.md").read_text(), tmp_path / "tree"
    for room in ("analyses", "interp", "organism", "probes", "reports", "src", "tasks"):
        shutil.copytree(ROOT / room, tree / room, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "cli.py", tree)
    files = re.findall(r"^`(analyses/settling/\w+\.py)`.*?^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert [Path(name).name for name, _ in files] == ["__init__.py", "measure.py", "report.py"]
    (tree / "analyses/settling").mkdir()
    for name, text in files:
        (tree / name).write_text(text)
    (rule,) = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    with (tree / "analyses/rules.toml").open("a", encoding="utf-8") as rules:
        rules.write(rule)
    registry = tree / "analyses/driver/registry.py"
    ((old, new),) = re.findall(r"^-(.*)\n\+(.*)\n", page, re.MULTILINE)
    assert registry.read_text().count(f"{old}\n") == 1
    registry.write_text(registry.read_text().replace(old, new))

    (command,) = re.findall(r"^cos (analyze settling .*)$", page, re.MULTILINE)
    env = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    run = [sys.executable, str(tree / "cli.py"), *shlex.split(command)]
    done = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "Nothing is decided (2 of at least 12 items" in done.stdout, (
        done.stderr
    )  # two items decide nothing
    report = (tmp_path / "runs/settling/report.html").read_text()
    assert "still from step" in report and "maze-001" in report and "The clean estimate settles early" in report


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_examples_run(example, capsys):
    runpy.run_path(str(ROOT / "examples" / example))
    assert capsys.readouterr().out.strip()
