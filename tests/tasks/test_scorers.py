"""Scorers: what they return, what they are told, and that nothing they do ends a run."""

from __future__ import annotations

import re
import sys
import time

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import shift

from cos_interp.analyses.kit.screening import majority_of, voted
from cos_interp.interp.errors import InterpError
from cos_interp.tasks import TASKS, Case, Verdict
from cos_interp.tasks.impostors import backwards, crossfade, frozen, jump
from cos_interp.tasks.scorer import answer_of, as_verdict, case_of, is_graded, same_answer, score, solved_of
from cos_interp.tasks.scorers import scorer_of, vbvr
from cos_interp.tasks.scorers.command import command_scorer
from cos_interp.tasks.scorers.pictures import regions, ssim
from cos_interp.tasks.scorers.template import errors
from cos_interp.tasks.video import encode_mp4, read_mp4

ITEM = TASKS["place"].sample(2)
CASE = case_of(ITEM)


# --- what a scorer may return ----------------------------------------------------------------------------------------


def test_forms_of_an_answer():
    assert as_verdict({"status": "wrong", "answer": 3}).answer == "3"
    assert is_graded(as_verdict({"a": 0.5, "b": 2})) and as_verdict({"readings": {"a": 1}}).readings == {"a": 1.0}
    assert not is_graded(as_verdict(None)) and as_verdict(np.True_).solved
    assert (
        as_verdict({"error": "dark"}) == Verdict("undecided", "dark")
        and as_verdict({"status": "solved", "answer": 0}).answer == "0"
    )
    number = as_verdict({"answer": "left", "readings": {"x": np.float32(0.5), "n": np.array(3)}})
    assert is_graded(number) and number.answer == "left" and number.readings == {"x": 0.5, "n": 3.0}


@pytest.mark.parametrize(
    ("found", "message"),
    [("good", "the status 'good'"), ([1], "returned list"), ({"status": "solved", "more": 1}, "the key 'more'"),
     ({"x": float("nan")}, "x = nan"), ({"x": "a"}, "x = 'a'"), (float("inf"), "score = inf"),
     ({}, "returned {}: give a status (solved, wrong, undecided), readings, or None"), ({"readings": {}}, "give a status"),
     ({"answer": "left"}, "give a status"), ({"status": None}, "give a status"),
     ({"status": False}, "the status False: the statuses are solved, wrong, undecided; or return True or False alone"),
     ({"status": ["solved"]}, "the status ['solved']"), ({"status": ""}, "the status ''"),
     ({"solved": True}, "solved = True: readings are numbers; a verdict is the status 'solved' or 'wrong'"),
     ({"status": "solved", "readings": {"x": np.False_}}, "readings are numbers; a verdict is"),
     ({"readings": {"x": "0.5"}}, "x = '0.5': readings are numbers"), ({"readings": {"x": b"1"}}, "readings are numbers"),
     ({"status": "solved", "readings": [1]}, "the readings [1]: give a dict")],
)  # fmt: skip
def test_what_is_no_answer_is_undecided_with_the_reason(found, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        as_verdict(found)
    verdict = score(lambda video, case: found, ITEM.video, CASE)
    assert verdict.status == "undecided" and message in verdict.error and not is_graded(verdict)


def test_a_scorer_that_fails_or_writes_into_the_video_harms_nothing():
    def bad(video, case):
        video[:] = 0
        raise KeyError("x")

    def ends(video, case):
        raise SystemExit(3)

    video = ITEM.video.copy()
    assert score(ends, video, CASE) == Verdict("undecided", "scorer failed: SystemExit: 3")
    assert score(bad, video, CASE) == Verdict("undecided", "scorer failed: KeyError: 'x'")
    assert np.array_equal(video, ITEM.video)


def test_who_says_nothing_of_a_video_says_neither_solved_nor_not():
    fails = lambda video, case: 1 / 0
    graded, failed = (score(scorer, ITEM.video, CASE) for scorer in (lambda video, case: 0.7, fails))
    read = [Verdict("solved"), Verdict("wrong"), Verdict("undecided", "a blend")]
    assert [solved_of(verdict) for verdict in (None, graded, failed, *read)] == [None, None, None, 1, 0, 0]
    assert [answer_of(verdict) for verdict in (None, failed, *read)] == [None, None, "solved", "wrong", None]


def test_answers_without_a_name_are_alike_where_both_are_right():
    right, wrong, unread = Verdict("solved"), Verdict("wrong"), Verdict("undecided")
    left, up = Verdict("wrong", answer="left"), Verdict("wrong", answer="up")
    assert same_answer(right, right) is True and same_answer(right, wrong) is False and same_answer(unread, right) is False
    assert same_answer(wrong, wrong) is None and same_answer(left, wrong) is None and same_answer(None, right) is None
    assert same_answer(Verdict("solved", "", "x"), Verdict("wrong", "late", "x")) is True
    assert same_answer(unread, unread) is False and same_answer(Verdict("wrong", "not moved"), unread) is False
    assert same_answer(left, left) is True and same_answer(left, up) is False
    votes = [(answer_of(verdict), verdict.solved) for verdict in (wrong, wrong, right)]
    assert voted(votes) is False and majority_of(votes, 3) == 0  # best of three would be right


def test_a_scorer_cannot_change_what_the_next_one_is_told(tmp_path):
    """The true video of a file is read once for many; a case serves every step."""
    (tmp_path / "true.mp4").write_bytes(encode_mp4(ITEM.video))
    image = ITEM.first_frame
    case = Case("a", "p", image, {"boxes": [1, 2]}, reference=tmp_path / "true.mp4")
    own = Case("b", "p", video=ITEM.video)

    def changing(video, told):
        told.expected["boxes"].append(3)
        return {"readings": {"boxes": len(told.expected["boxes"])}}

    for _ in range(2):
        assert score(changing, ITEM.video, case).readings == {"boxes": 3.0}
    truth = read_mp4(tmp_path / "true.mp4")
    for told, name in ((case, "truth"), (case, "image"), (own, "truth"), (own, "video")):
        verdict = score(lambda video, asked, name=name: getattr(asked, name).fill(0), ITEM.video, told)
        assert "scorer failed" in verdict.error and "read-only" in verdict.error
    assert np.array_equal(case.truth, truth) and image.any() and own.video.any() and case.expected == {"boxes": [1, 2]}
    assert image.flags.writeable  # it is the user's own


# --- the ready-made ones ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(TASKS))
def test_the_reference_accepts_its_own_video_and_refuses_impostors(name, tmp_path):
    judge = scorer_of("reference")
    for seed in range(4):
        item, other = TASKS[name].sample(seed), TASKS[name].sample(seed + 100)
        path = tmp_path / "made.mp4"
        path.write_bytes(encode_mp4(item.video))
        case = case_of(item)
        assert score(judge, item.video, case).solved and score(judge, read_mp4(path), case).solved  # compressed, twice the size
        for make in (frozen, jump, crossfade, backwards):
            assert score(judge, make(item.video), case).status == "wrong"
        assert score(judge, other.video, case).error == "first frame changed"
        assert score(judge, frozen(item.video), case).error in ("wrong end", "wrong way")


@pytest.mark.parametrize(
    ("video", "message"),
    [(ITEM.video[:5], "5 frames, the reference 9"), (np.zeros((9, 90, 80, 3), np.uint8), "no whole multiple|one must be")],
)
def test_what_cannot_be_compared_is_undecided(video, message):
    verdict = score(scorer_of("reference"), video, CASE)
    assert verdict.status == "undecided" and re.search(message, verdict.error)
    assert "no reference video" in score(scorer_of("reference"), ITEM.video, Case("a", "p")).error


def test_structural_similarity_against_its_formula():
    rng = np.random.default_rng(0)
    one = rng.random((24, 20, 3))
    assert ssim(one, one) == pytest.approx(1) and ssim(one, 1 - one) < 0
    flat, darker = np.full((16, 16, 3), 0.8), np.full((16, 16, 3), 0.4)
    c1 = 0.01**2  # without structure only the means count
    assert ssim(flat, darker) == pytest.approx((2 * 0.8 * 0.4 + c1) / (0.8**2 + 0.4**2 + c1))
    assert regions(one, 2)[0, 1] == pytest.approx(one[:12, 10:].mean((0, 1)))


def test_motion():
    judge = scorer_of("motion")
    assert score(judge, ITEM.video, CASE).solved and score(judge, frozen(ITEM.video), CASE).error == "frozen"
    noisy = np.clip(frozen(ITEM.video) + np.random.default_rng(0).normal(0, 6, ITEM.video.shape), 0, 255).astype(np.uint8)
    assert score(judge, noisy, CASE).error == "frozen"  # grain does not move
    assert score(judge, ITEM.video[:1], CASE).status == "undecided"
    assert score(judge, ITEM.video, Case("a", "p", expected={"least": 2})).error == "frozen"


def test_an_object_is_found_where_it_is(tmp_path):
    rng = np.random.default_rng(1)
    picture = rng.random((40, 50, 3))
    template = picture[10:18, 30:36]
    found = errors(picture, template)
    by_hand = np.sqrt(((picture[3:11, 7:13] - template) ** 2).mean())
    assert np.unravel_index(found.argmin(), found.shape) == (10, 30) and found[3, 7] == pytest.approx(by_hand)
    video = np.round(np.stack([shift(picture, (0, -2 * k, 0), order=0) for k in range(4)]) * 255).astype(np.uint8)
    Image.fromarray(video[0, 10:18, 30:36]).save(tmp_path / "thing.png")
    case = lambda **asked: Case("a", "p", expected={"template": "thing.png", **asked}, folder=tmp_path)
    judge = scorer_of("template")
    last = score(judge, video, case(at=[25, 12, 29, 16]))
    assert last.solved and last.answer == "27,14"
    assert score(judge, video, case(at=[0.5, 0.3, 0.6, 0.4])).solved  # shares of the picture
    assert score(judge, video, case(at=[25, 12, 29, 16], frame=0)).error == "elsewhere"
    assert score(judge, np.zeros_like(video), case(at=[0, 0, 9, 9])).error == "not seen"
    for asked in ({}, {"at": [1, 2]}):
        assert "give expected like" in score(judge, video, case(**asked)).error


# --- a command line --------------------------------------------------------------------------------------------------

JUDGE = """
import json, sys
import numpy as np
told = json.loads(sys.stdin.readline())
video = np.load(told["frames"])
print("a line of talk")
print(json.dumps({"status": "solved" if told["expected"]["x"] == 1 else "wrong", "answer": told["prompt"],
                  "readings": {"mean": float(video.mean()), "frames": len(video)}}))
"""


def test_a_command_is_told_and_answers(tmp_path):
    (tmp_path / "judge.py").write_text(JUDGE)
    judge = command_scorer(f"{sys.executable} {tmp_path / 'judge.py'}", 60)
    verdict = score(judge, ITEM.video, Case("a", "go left", expected={"x": 1}))
    assert verdict.solved and verdict.answer == "go left"
    assert verdict.readings == {"mean": pytest.approx(ITEM.video.mean()), "frames": 9}
    (tmp_path / "ball.txt").write_text("a ball")
    (tmp_path / "reads.py").write_text(
        "import json, os\ntold = json.loads(input())\n"
        "print(open(os.path.join(told['folder'], told['expected']['file'])).read() == 'a ball' and 'true' or 'false')\n"
    )
    judge = command_scorer(f"{sys.executable} {tmp_path / 'reads.py'}", 60)
    assert score(judge, ITEM.video, Case("a", "p", expected={"file": "ball.txt"}, folder=tmp_path)) == Verdict("solved")


@pytest.mark.parametrize(
    ("code", "message"),
    [("print('hello')", "no JSON"), ("raise SystemExit(3)", "exit code 3"), ("raise ValueError('bad')", "ValueError: bad"),
     ("import time; time.sleep(60)", "longer than 1.5 s"), ("", "no JSON")],
)  # fmt: skip
def test_a_command_that_goes_wrong_is_undecided(code, message, tmp_path):
    (tmp_path / "judge.py").write_text(code)
    judge = command_scorer(f"{sys.executable} {tmp_path / 'judge.py'}", 1.5 if "sleep" in code else 60)
    verdict = score(judge, ITEM.video, CASE)
    assert verdict.status == "undecided" and message in verdict.error


@pytest.mark.parametrize(
    ("command", "message"),
    [(" ", "is empty"), ("/nowhere/judge", "no program /nowhere/judge"), ("judge 'of mine", "No closing quotation")],
)  # fmt: skip
def test_a_command_that_is_none_is_said_before_anything_runs(command, message):
    with pytest.raises(InterpError, match=message):
        command_scorer(command, 5)


DAEMON = "import subprocess, sys; subprocess.Popen(['sleep', '30'], start_new_session=True); print('\"solved\"')"


@pytest.mark.parametrize("more", ["", "; sys.stdout.flush(); import time; time.sleep(60)"])
def test_what_a_command_leaves_behind_is_not_waited_for(more, tmp_path):
    """A process of another session holds its output open."""
    (tmp_path / "judge.py").write_text(DAEMON + more)
    judge, began = command_scorer(f"{sys.executable} {tmp_path / 'judge.py'}", 5), time.monotonic()
    assert score(judge, ITEM.video, CASE).status == ("undecided" if more else "solved")
    assert time.monotonic() - began < 25


def test_the_end_of_a_long_output_is_read(tmp_path):
    (tmp_path / "judge.py").write_text("print('talk' * 10**6)\nprint('true')")
    assert score(command_scorer(f"{sys.executable} {tmp_path / 'judge.py'}", 60), ITEM.video, CASE).solved


# --- the benchmark's own ---------------------------------------------------------------------------------------------


def test_the_benchmarks_scorer_is_asked_where_it_is_installed(tmp_path):
    case = Case("a", "p", folder=tmp_path, group="O-39_maze_data-generator")
    try:
        from vbvr_bench.evaluators import get_evaluator
    except ImportError:
        told = score(scorer_of("vbvr"), ITEM.video, case).error
        assert (
            "needs the package vbvr_bench" in told and "pip install 'cos-interp[vbvr]', then pip install --no-deps git+" in told
        )
        return
    assert "lacks first_frame.png" in score(scorer_of("vbvr"), ITEM.video, case).error
    Image.fromarray(ITEM.video[0]).save(tmp_path / "first_frame.png")
    Image.fromarray(ITEM.video[-1]).save(tmp_path / "final_frame.png")
    file = tmp_path / "ground_truth.mp4"
    file.write_bytes(encode_mp4(ITEM.video))
    at = {"gt_first_frame": tmp_path / "first_frame.png", "gt_final_frame": tmp_path / "final_frame.png", "gt_video_path": file}
    told = {"video_path": str(file), "gt_path": str(tmp_path), "prompt": "p", **{key: str(path) for key, path in at.items()}}
    theirs = get_evaluator(case.group, "cpu").evaluate(told)
    ours = score(scorer_of("vbvr"), ITEM.video, Case("a", "p", folder=tmp_path, group=case.group, file=file))
    assert is_graded(ours) and ours.readings["score"] == theirs["score"]
    assert "has no scorer for the task 'chess'" in score(scorer_of("vbvr"), ITEM.video, Case("a", "p", group="chess")).error


@pytest.mark.parametrize(
    "line", ["raise RuntimeError('no display')", "raise SystemExit(3)", "import nothing_of_this_name", "1 +"]
)
def test_a_benchmark_that_cannot_be_imported_is_said_and_ends_nothing(line, tmp_path, monkeypatch):
    (tmp_path / "vbvr_bench/evaluators").mkdir(parents=True)
    (tmp_path / "vbvr_bench/__init__.py").write_text(line + "\n")
    (tmp_path / "vbvr_bench/evaluators/__init__.py").write_text("")
    for name in [name for name in sys.modules if name.partition(".")[0] == "vbvr_bench"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    verdict = score(scorer_of("vbvr"), ITEM.video, Case("a", "p", folder=tmp_path, group="O-39_maze_data-generator"))
    assert verdict.status == "undecided" and "needs the package vbvr_bench" in verdict.error
    assert vbvr.category("O-39_maze_data-generator") == "" and vbvr.content() == {}


def test_names_of_scorers():
    with pytest.raises(InterpError, match=r"unknown scorer 'nobody'; there are reference"):
        scorer_of("nobody")
