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
from cos_interp.tasks.scorers import scorer_of

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
    assert len(found) >= 12 and all(one.passed for one in found)


@pytest.mark.parametrize(
    ("name", "checks"),
    [("Ends", {"end state, jumped to", "crossfade"}), ("Deaf", {"true video", "pairs are right"}),
     ("Alike", {"pairs differ", "pairs exclude each other"})],
)  # fmt: skip
def test_what_a_sloppy_task_lets_through_is_named(name, checks, file):
    assert failed(file, name) == checks
    assert {"names", "determinism"} & failed(file, "Random")


SLOPPY = {
    "set": ("yield from (Case(name, 'p', image, video=video) for name in {'a', 'b', 'c', 'd', 'e'})", "", {"other processes"}),
    "process": ("yield Case('a', 'p', image, os.getpid(), video)", "", {"other processes"}),
    "array": ("yield Case('a', 'p', image, np.arange(3), video)", "", set()),
    "fails": ("yield Case('a', 'p', image, video=video)", "assert np.array_equal(video[-1], case.truth[-1])",
              {"first frame, frozen", "backwards"}),
    "first": ("yield Case('a', 'p', image, video=video)", "return seen.append(0) or (len(seen) == 1 and 'solved' or 'wrong')",
              {"same verdict"}),
    "far": ("yield from (Case(c, 'p', image, video=video // (1 + i % 3)) for i, c in enumerate('abcdef'))",
            "return bool(video[-1].mean() == case.truth[-1].mean() or video.mean() < 0.4 * case.truth.mean())",
            {"another item's video"}),
}  # fmt: skip


@pytest.mark.parametrize("name", SLOPPY)
def test_what_differs_between_processes_calls_and_items_is_named(name, tmp_path):
    cases, judge, wrong = SLOPPY[name]
    (tmp_path / "odd.py").write_text(
        "import os\nimport numpy as np\nfrom cos_interp.tasks import Case, ClipTask\n\nseen = []\n"
        "video = np.random.default_rng(0).integers(255, size=(5, 8, 8, 3)).astype(np.uint8)\nimage = video[0]\n\n\n"
        f"class Odd(ClipTask):\n    name = 'odd'\n    def cases(self):\n        {cases}\n    def judge(self, video, case):\n"
        f"        {judge or 'pass'}\n        return bool(np.array_equal(video, case.truth))\n"
    )
    found = {one.name: one for one in check(f"{tmp_path}/odd.py:Odd", 6)}
    failed = {one.name for one in found.values() if one.passed is False}
    assert wrong <= failed and ("other processes" in failed) is ("other processes" in wrong), [
        one.line() for one in found.values()
    ]
    assert wrong or not failed
    if name == "fails":
        assert (
            "could not be judged, which refuses nothing" in found["backwards"].text
            and "AssertionError" in found["backwards"].text
        )


@pytest.mark.parametrize(
    ("body", "said"),
    [("raise KeyError('lost')", "KeyError: 'lost'"), ("return {'prompt': 'x'}", "it is dict, and must be a cos_interp")],
)  # fmt: skip
def test_a_counterfactual_that_fails_is_a_failed_check(body, said, file, tmp_path):
    (tmp_path / "mine.py").write_text(f"{TASK}\n\nclass Bad(Exact):\n    def counterfactual(self, case):\n        {body}\n")
    (pairs,) = [one for one in check(f"{file}:Bad", 2) if one.passed is False]
    assert pairs.name == "pairs" and said in pairs.text


def test_tasks_and_scorers_that_cannot_be_made_are_said_in_words(tmp_path):
    (tmp_path / "bad.py").write_text(
        f"{TASK}\n\nclass Broken(Exact):\n    def __init__(self):\n        raise OSError('no file')\n\n"
        "class Needs:\n    def __init__(self, least):\n        pass\n    def judge(self, video, case):\n        return True\n"
    )
    with pytest.raises(InterpError, match=r"bad.py:Broken cannot be made: OSError: no file"):
        check(f"{tmp_path}/bad.py:Broken", 2)
    with pytest.raises(InterpError, match=r"bad.py:Needs cannot be made without arguments .TypeError: .*least"):
        scorer_of(f"{tmp_path}/bad.py:Needs")


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
    listed = CliRunner().invoke(cli.app, ["tasks", "list"]).stdout
    assert "theirs: of an installed package (their_tasks:Exact)" in listed and "their_tasks" not in sys.modules
    task = task_of("theirs")
    assert isinstance(task, ClipTask) and task.name == "exact"
    assert set(outside.content("theirs", outside.TASK_GROUP)) == {"their-tasks 1.2", "their_tasks.py"}
