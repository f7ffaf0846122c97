"""Tasks from outside: found by file and name, executed once, checked; what a sloppy judge lets through is named."""

from __future__ import annotations

import re
import sys

import pytest
from typer.testing import CliRunner

from cos_interp import cli
from cos_interp.interp.errors import InterpError
from cos_interp.tasks import ClipTask, outside
from cos_interp.tasks.check import check
from cos_interp.tasks.clips import cases_of, grid_task, task_of

TASK = """
import numpy as np
from cos_interp.tasks import TASKS, Case, ClipTask

class Exact(ClipTask):
    name = "exact"

    def cases(self):
        for seed in range(6):
            yield self.case(TASKS["place"].sample(seed), seed)

    def case(self, item, seed):
        return Case(f"scene-{seed}", item.prompt, item.first_frame, seed, item.video)

    def judge(self, video, case):
        return bool(np.array_equal(video, case.truth))

    def counterfactual(self, case):
        item = TASKS["place"].sample(case.expected)
        other = TASKS["place"].counterfactual(item, "prompt", np.random.default_rng(0))
        return None if other is None else self.case(other, case.expected)

class Ends(Exact):
    def judge(self, video, case):
        return bool(np.array_equal(video[-1], case.truth[-1]))

class Random(Exact):
    def cases(self):
        for seed in np.random.default_rng().integers(1000, size=6):
            yield self.case(TASKS["place"].sample(int(seed)), int(seed))

class Deaf(Exact):
    def judge(self, video, case):
        return False

class Alike(Exact):
    def counterfactual(self, case):
        return case

class NotOne:
    name = "a"

class Argument(Exact):
    def __init__(self, x):
        pass
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "mine.py").write_text(TASK)
    return f"{tmp_path}/mine.py"


def failed(file, name):
    return {one.name for one in check(f"{file}:{name}", 6) if one.passed is False}


def test_a_careful_task_passes_every_check(file):
    found = check(f"{file}:Exact", 6)
    assert len(found) >= 11 and all(one.passed for one in found)


@pytest.mark.parametrize(
    ("name", "checks"),
    [("Ends", {"end state, jumped to", "crossfade"}), ("Deaf", {"true video", "pairs are right"}),
     ("Alike", {"pairs differ", "pairs exclude each other"})],
)  # fmt: skip
def test_what_a_sloppy_task_lets_through_is_named(name, checks, file):
    assert failed(file, name) == checks
    assert {"names", "determinism"} & failed(file, "Random")


def test_the_command(file):
    good = CliRunner().invoke(cli.app, ["tasks", "check", f"{file}:Exact", "--items", "4"])
    assert good.exit_code == 0 and "ok         crossfade: 4 of 4 are not solved by it" in good.stdout
    bad = CliRunner().invoke(cli.app, ["tasks", "check", f"{file}:Ends", "--items", "4", "--json"])
    assert bad.exit_code == 1 and '"check": "crossfade", "passed": false' in bad.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [("Nobody", "has no 'Nobody'; it defines Exact"), ("NotOne", r"is no task \(it has no cases\)"),
     ("Argument", "cannot be made without arguments")],
)  # fmt: skip
def test_what_is_no_task_is_refused(name, message, file):
    with pytest.raises(InterpError, match=message):
        task_of(f"{file}:{name}")
    with pytest.raises(InterpError, match="without cells and labels"):
        grid_task(f"{file}:Exact")


NO_CASES = {
    "raise RuntimeError('lost')": "cases() of bad failed: RuntimeError: lost", "raise SystemExit(2)": "failed: SystemExit: 2",
    "return []": "bad has no case from number 0 on", "return None": "failed: TypeError",
    "yield 3": "case 0 of bad: it is int, and must be a cos_interp.tasks.Case",
    "yield Case('a', None)": "its name and its prompt must be texts",
    "yield Case('a', 'p', np.zeros((8, 8, 3)))": r"its image is float64 [8, 8, 3], and must be uint8 [height, width, 3]",
    "yield Case('a', 'p', video=np.zeros((8, 8, 3), np.uint8))": "its video is uint8 [8, 8, 3], and must be uint8 [frame, height",
}  # fmt: skip


@pytest.mark.parametrize("body", NO_CASES)
def test_cases_that_are_none_are_said_by_the_checker_and_before_a_run(body, tmp_path):
    """Of an object that is no ClipTask and has what one has."""
    (tmp_path / "bad.py").write_text(
        "import numpy as np\nfrom cos_interp.tasks import Case\n\nclass Bad:\n    name = 'bad'\n"
        f"    def cases(self):\n        {body}\n    def judge(self, video, case):\n        return True\n"
    )
    text, said = f"{tmp_path}/bad.py:Bad", re.escape(NO_CASES[body])
    with pytest.raises(InterpError, match=said):
        check(text, 2)
    with pytest.raises(InterpError, match=said):
        list(cases_of(task_of(text), 0, 2))


def test_files_that_cannot_be_executed(tmp_path):
    for text, message in (("1 +", r"SyntaxError.*line 1"), ("1 / 0", "ZeroDivisionError")):
        (tmp_path / "bad.py").write_text(text)
        with pytest.raises(InterpError, match=message):
            outside.load(f"{tmp_path}/bad.py:X", outside.TASK_GROUP)
    with pytest.raises(InterpError, match="cannot be read"):
        outside.load(f"{tmp_path}/nowhere.py:X", outside.TASK_GROUP)


def test_a_file_is_executed_once_for_each_content_and_finds_what_lies_beside_it(tmp_path, monkeypatch):
    (tmp_path / "beside_it.py").write_text("VALUE = 1\n")
    (tmp_path / "once.py").write_text(
        "import beside_it\nimport sys\nsys.counted = getattr(sys, 'counted', 0) + 1\nX = beside_it.VALUE\n"
    )
    name = f"{tmp_path}/once.py:X"
    assert outside.load(name, outside.TASK_GROUP) == outside.load(name, outside.TASK_GROUP) == 1 and sys.counted == 1
    assert set(outside.content(name, outside.TASK_GROUP)) == {"beside_it.py", "once.py"}
    assert str(tmp_path) not in sys.path
    monkeypatch.chdir(tmp_path)  # modules whose __file__ is no path are not looked for here
    monkeypatch.setattr(sys.modules["beside_it"], "__file__", "nowhere.py")
    assert set(outside.content("once.py:X", outside.TASK_GROUP)) == {"once.py"}
    del sys.counted


def test_entry_points_of_an_installed_package(tmp_path, monkeypatch):
    (tmp_path / "their_tasks.py").write_text(TASK)
    info = tmp_path / "their_tasks-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-tasks\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[cos_interp.tasks]\ntheirs = their_tasks:Exact\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert outside.is_outside("theirs", outside.TASK_GROUP) and not outside.is_outside("theirs", outside.SCORER_GROUP)
    task = task_of("theirs")
    assert isinstance(task, ClipTask) and task.name == "exact"
    assert set(outside.content("theirs", outside.TASK_GROUP)) == {"their-tasks 1.2", "their_tasks.py"}
