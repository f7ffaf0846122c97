"""Is a task fit to be used? The same items twice, the truth accepted, impostors refused, pairs that differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cos_interp.tasks import NAMES, outside
from cos_interp.tasks.base import PairKind, Task
from cos_interp.tasks.clips import ClipTask, cases_of, no_case, task_of
from cos_interp.tasks.fingerprints import digest, elsewhere
from cos_interp.tasks.impostors import backwards, crossfade, frozen, jump
from cos_interp.tasks.item import Item, Verdict
from cos_interp.tasks.scorer import FAILED, Case, case_of, score

Judge = Callable[[np.ndarray], Verdict]
KINDS: tuple[PairKind, ...] = ("prompt", "image")
HASH_SEEDS = (1, 2)  # of the other processes: two, since a small set may have the same order in one
MOST = 3  # examples that a failed check names


@dataclass(frozen=True)
class Check:
    """One thing that was asked of a task. ``passed`` is None where it could not be asked, with the reason in ``text``."""

    name: str
    passed: bool | None
    text: str

    def line(self) -> str:
        """For a terminal."""
        return f"{'not asked' if self.passed is None else 'ok' if self.passed else 'FAILED':9}  {self.name}: {self.text}"


@dataclass(frozen=True)
class Subject:
    """One item or case: its judge, and one with another answer, where there is one."""

    case: Case
    judge: Judge
    other: Case | None = None
    other_judge: Judge | None = None
    trouble: str = ""  # why there is no other one, where making it went wrong


def check(text: str, items: int = 20) -> list[Check]:
    """The checks of a task that is named as ``--tasks`` takes it, on its first ``items``. InterpError: there is none."""
    task = task_of(text)
    once, again = ([*_subjects(task, items)] for _ in range(2))
    if not once:
        return [Check("items", False, "it has none: cases() gave nothing")]
    known = [s for s in once if s.case.truth is not None]
    own = [digest(subject.case) for subject in once]
    checks = [_names(once), _same(once, own, again), _same_elsewhere(text, once, own, items)]
    if not known:
        why = "no case has a true video: give video or reference, and the judge itself can be checked"
        return [*checks, Check("true video", None, why)]
    first = [s.judge(_truth(s)) for s in known]
    checks.append(_accepted(known, first))
    checks += [_refused(name, known, make) for name, make in (
        ("first frame, frozen", frozen), ("end state, jumped to", jump), ("crossfade", crossfade), ("backwards", backwards),
    )]  # fmt: skip
    checks += [_of_others(known), *_pairs(once)]
    return [*checks, _judged_again(known, first)]


def _subjects(task: Task | ClipTask, items: int) -> Iterator[Subject]:
    if isinstance(task, Task):
        for seed in range(items):
            item = task.sample(seed)
            other, trouble = _made(partial(_partner, task, item, seed))
            case, judge = (None, None) if other is None else (case_of(other), partial(task.verify, other))
            yield Subject(case_of(item), partial(task.verify, item), case, judge, trouble)
        return
    for case in cases_of(task, 0, items):
        partner, trouble = _made(partial(task.counterfactual, case)) if hasattr(task, "counterfactual") else (None, "")
        if partner is not None and (wrong := no_case(partner)):
            partner, trouble = None, wrong
        yield Subject(case, _judge(task, case), partner, None if partner is None else _judge(task, partner), trouble)


def _partner(task: Task, item: Item, seed: int) -> Item | None:
    pair = (task.counterfactual(item, kind, np.random.default_rng(seed)) for kind in KINDS)
    return next((found for found in pair if found is not None), None)


def _made(make: Callable[[], Any]) -> tuple[Any, str]:
    """What was made, or why it was not, in words."""
    try:
        return make(), ""
    except (Exception, SystemExit) as error:
        return None, f"{type(error).__name__}: {error}"


def _judge(task: ClipTask, case: Case) -> Judge:
    return lambda video: score(task.judge, video, case)


def _names(found: Sequence[Subject]) -> Check:
    names = [s.case.name for s in found]
    doubled = sorted({name for name in names if names.count(name) > 1})
    return Check("names", not doubled, f"{doubled[0]} stands for several cases" if doubled else f"{len(names)} differ")


def _same(once: Sequence[Subject], own: Sequence[str], again: Sequence[Subject]) -> Check:
    unlike = [s.case.name for s, here, b in zip(once, own, again, strict=False) if here != digest(b.case)]
    if len(once) != len(again):
        return Check("determinism", False, f"{len(once)} items, then {len(again)}")
    return _check("determinism", unlike, len(once), "are the same when they are made again", "changed")


def _same_elsewhere(text: str, once: Sequence[Subject], own: Sequence[str], items: int) -> Check:
    """A run is continued, and shared out, by other processes, where the order of a set and the process's number are others."""
    name = "other processes"
    if not (outside.is_outside(text, outside.TASK_GROUP) or text in NAMES):
        return Check(name, None, "it was registered in this process, and no other one can make it")
    bad = dict[str, None]()
    for hash_seed in HASH_SEEDS:
        try:
            found = elsewhere(text, items, hash_seed)
        except ValueError as error:
            return Check(name, False, f"it cannot be made in another process: {error}")
        if len(found) != len(own):
            return Check(name, False, f"{len(own)} items here, {len(found)} in another process")
        bad |= {s.case.name: None for s, a, b in zip(once, own, found, strict=True) if a != b}
    return _check(name, list(bad), len(own), "are the same in other processes", "are others in another process")


def print_digests(text: str, items: int) -> None:
    """In such a process: what it finds, as its last line."""
    print("\n" + json.dumps([digest(subject.case) for subject in _subjects(task_of(text), items)]))


def _accepted(known: Sequence[Subject], verdicts: Sequence[Verdict]) -> Check:
    bad = [f"{s.case.name} ({v.status} {v.error})" for s, v in zip(known, verdicts, strict=True) if not v.solved]
    return _check("true video", bad, len(known), "are solved by their own true video", "not solved by their own true video")


def _judged_again(known: Sequence[Subject], first: Sequence[Verdict]) -> Check:
    """After all others were judged: a judge that counts, or keeps what it saw, says something else."""
    bad = [s.case.name for s, v in zip(known, first, strict=True) if any(s.judge(_truth(s)) != v for _ in range(2))]
    return _check("same verdict", bad, len(known), "get the same verdict when they are judged again", "judged otherwise")


def _refused(name: str, known: Sequence[Subject], make: Callable[[np.ndarray], np.ndarray]) -> Check:
    """Impostors that are the true video itself (in which nothing moves, or that is its own mirror) say nothing."""
    asked = [(s, made) for s in known if not np.array_equal(made := make(_truth(s)), _truth(s))]
    if not asked:
        return Check(name, None, "it is the true video of every item")
    return _not_solved(name, [(s, s.judge(made)) for s, made in asked])


def _not_solved(name: str, judged: Sequence[tuple[Subject, Verdict]], good: str = "are not solved by it") -> Check:
    """A judge that fails refuses nothing."""
    n = len({s.case.name for s, _ in judged})
    failed = {s.case.name: f"{s.case.name} ({v.error.removeprefix(FAILED)})" for s, v in judged if v.error.startswith(FAILED)}
    bad = dict.fromkeys(s.case.name for s, v in judged if v.solved)
    if failed and not bad:
        why = "could not be judged, which refuses nothing (return 'wrong', or 'undecided' with an error)"
        return _check(name, list(failed.values()), n, "", why)
    return _check(name, list(bad), n, good, "solved by it")


def _of_others(known: Sequence[Subject]) -> Check:
    """Of neighbours, which may be alike, and of items further away."""
    n, name = len(known), "another item's video"
    away = sorted({by % n for by in (1, 2, n // 3, n // 2, -1)} - {0})
    pairs = [(s, known[(i + by) % n]) for i, s in enumerate(known) for by in away]
    asked = [(s, o) for s, o in pairs if not np.array_equal(_truth(s), _truth(o))]
    if not asked:
        return Check(name, None, "there is one true video only")
    return _not_solved(name, [(s, s.judge(_truth(other))) for s, other in asked])


def _pairs(found: Sequence[Subject]) -> list[Check]:
    """A pair is two scenes or two prompts with two answers: the true video of each is wrong for the other."""
    pairs = [(s, s.other, s.other_judge) for s in found if s.other is not None and s.other_judge is not None]
    if troubled := [f"{s.case.name} ({s.trouble})" for s in found if s.trouble]:
        return [_check("pairs", troubled, len(found), "", "have no counterfactual, which failed")]
    if not pairs:
        return [Check("pairs", None, "no item has a counterfactual")]
    alike = [s.case.name for s, other, _ in pairs if other.prompt == s.case.prompt and _same_picture(s.case, other)]
    checks = [_check("pairs differ", alike, len(pairs), "differ in prompt or first frame", "differ in nothing that is given")]
    known = [(s, other, judge) for s, other, judge in pairs if s.case.truth is not None and other.truth is not None]
    if known:
        own = [s.case.name for s, other, judge in known if not judge(np.asarray(other.truth)).solved]
        crossed = [(s, s.judge(np.asarray(other.truth))) for s, other, _ in known]
        checks += [
            _check("pairs are right", own, len(known), "have another item that its own true video solves", "not solved"),
            _not_solved("pairs exclude each other", crossed, "are not solved by the other's true video"),
        ]
    return checks


def _same_picture(one: Case, other: Case) -> bool:
    if one.image is None or other.image is None:
        return one.image is other.image
    return np.array_equal(one.image, other.image)


def _truth(subject: Subject) -> np.ndarray:
    truth = subject.case.truth
    assert truth is not None  # asked of those that have one
    return truth


def _check(name: str, bad: Sequence[str], n: int, good: str, failed: str) -> Check:
    if not bad:
        return Check(name, True, f"{n} of {n} {good}")
    more = f" and {len(bad) - MOST} more" if len(bad) > MOST else ""
    return Check(name, False, f"{len(bad)} of {n} {failed}: {', '.join(bad[:MOST])}{more}")
