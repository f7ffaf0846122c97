"""Is a task fit to be used? The same items twice, the truth accepted, impostors refused, pairs that differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from cos_interp.tasks.base import PairKind, Task
from cos_interp.tasks.clips import ClipTask, cases_of, task_of
from cos_interp.tasks.impostors import backwards, crossfade, frozen, jump
from cos_interp.tasks.item import Verdict
from cos_interp.tasks.scorer import Case, case_of, score

Judge = Callable[[np.ndarray], Verdict]
KINDS: tuple[PairKind, ...] = ("prompt", "image")
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


def check(text: str, items: int = 20) -> list[Check]:
    """The checks of a task that is named as ``--tasks`` takes it, on its first ``items``. InterpError: there is none."""
    task = task_of(text)
    once, again = ([*_subjects(task, items)] for _ in range(2))
    if not once:
        return [Check("items", False, "it has none: cases() gave nothing")]
    known = [s for s in once if s.case.truth is not None]
    checks = [_names(once), _same(once, again)]
    if not known:
        why = "no case has a true video: give video or reference, and the judge itself can be checked"
        return [*checks, Check("true video", None, why)]
    checks += [_accepted(known), _judged_twice(known)]
    checks += [_refused(name, known, make) for name, make in (
        ("first frame, frozen", frozen), ("end state, jumped to", jump), ("crossfade", crossfade), ("backwards", backwards),
    )]  # fmt: skip
    return [*checks, _of_others(known), *_pairs(once)]


def _subjects(task: Task | ClipTask, items: int) -> Iterator[Subject]:
    if isinstance(task, Task):
        for seed in range(items):
            item = task.sample(seed)
            pair = [task.counterfactual(item, kind, np.random.default_rng(seed)) for kind in KINDS]
            other = next((found for found in pair if found is not None), None)
            beside = (None, None) if other is None else (case_of(other), partial(task.verify, other))
            yield Subject(case_of(item), partial(task.verify, item), *beside)
        return
    for case in cases_of(task, 0, items):
        partner = task.counterfactual(case) if hasattr(task, "counterfactual") else None
        yield Subject(case, _judge(task, case), partner, None if partner is None else _judge(task, partner))


def _judge(task: ClipTask, case: Case) -> Judge:
    return lambda video: score(task.judge, video, case)


def _names(found: Sequence[Subject]) -> Check:
    names = [s.case.name for s in found]
    doubled = sorted({name for name in names if names.count(name) > 1})
    return Check("names", not doubled, f"{doubled[0]} stands for several cases" if doubled else f"{len(names)} differ")


def _same(once: Sequence[Subject], again: Sequence[Subject]) -> Check:
    unlike = [a.case.name for a, b in zip(once, again, strict=False) if not _equal(a.case, b.case)]
    if len(once) != len(again):
        return Check("determinism", False, f"{len(once)} items, then {len(again)}")
    return _check("determinism", unlike, len(once), "are the same when they are made again", "changed")


def _equal(one: Case, other: Case) -> bool:
    """The same text, expectation, picture and true video."""
    same = one == other
    for a, b in ((one.image, other.image), (one.truth, other.truth)):
        same = same and (a is b or (a is not None and b is not None and np.array_equal(a, b)))
    return same


def _accepted(known: Sequence[Subject]) -> Check:
    verdicts = [(s.case.name, s.judge(_truth(s))) for s in known]
    bad = [f"{name} ({v.status} {v.error})" for name, v in verdicts if not v.solved]
    return _check("true video", bad, len(known), "are solved by their own true video", "not solved by their own true video")


def _judged_twice(known: Sequence[Subject]) -> Check:
    bad = [s.case.name for s in known if s.judge(_truth(s)) != s.judge(_truth(s))]
    return _check("same verdict", bad, len(known), "get the same verdict when they are judged again", "judged otherwise")


def _refused(name: str, known: Sequence[Subject], make: Callable[[np.ndarray], np.ndarray]) -> Check:
    """Impostors that are the true video itself (in which nothing moves, or that is its own mirror) say nothing."""
    asked = [(s, made) for s in known if not np.array_equal(made := make(_truth(s)), _truth(s))]
    if not asked:
        return Check(name, None, "it is the true video of every item")
    bad = [s.case.name for s, made in asked if s.judge(made).solved]
    return _check(name, bad, len(asked), "are not solved by it", "solved by it")


def _of_others(known: Sequence[Subject]) -> Check:
    asked = [(s, o) for s, o in zip(known, known[1:]) if not np.array_equal(_truth(s), _truth(o))]
    if not asked:
        return Check("another item's video", None, "there is one true video only")
    bad = [s.case.name for s, other in asked if s.judge(_truth(other)).solved]
    return _check("another item's video", bad, len(asked), "are not solved by it", "solved by it")


def _pairs(found: Sequence[Subject]) -> list[Check]:
    """A pair is two scenes or two prompts with two answers: the true video of each is wrong for the other."""
    pairs = [(s, s.other, s.other_judge) for s in found if s.other is not None and s.other_judge is not None]
    if not pairs:
        return [Check("pairs", None, "no item has a counterfactual")]
    alike = [s.case.name for s, other, _ in pairs if other.prompt == s.case.prompt and _same_picture(s.case, other)]
    checks = [_check("pairs differ", alike, len(pairs), "differ in prompt or first frame", "differ in nothing that is given")]
    known = [(s, other, judge) for s, other, judge in pairs if s.case.truth is not None and other.truth is not None]
    if known:
        own = [s.case.name for s, other, judge in known if not judge(np.asarray(other.truth)).solved]
        crossed = [s.case.name for s, other, _ in known if s.judge(np.asarray(other.truth)).solved]
        checks += [
            _check("pairs are right", own, len(known), "have another item that its own true video solves", "not solved"),
            _check("pairs exclude each other", crossed, len(known), "are not solved by the other's true video", "solved by it"),
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
