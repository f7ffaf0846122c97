"""What is asked of probes, settled before any work: seeds, folds, and the steps, names and targets among those that were kept.

All are ProbeErrors that say what was asked and what there is; selections are read by :mod:`cos_interp.interp.selecting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.utils import check_random_state

from cos_interp.interp.errors import InterpError
from cos_interp.interp.selecting import numbers, whole, words
from cos_interp.probes.errors import ProbeError


def count(value: Any, what: str, least: int) -> int:
    """A whole number of at least ``least``.

    >>> count(3, "folds", 2)
    3
    """
    if (found := whole(value)) is None or found < least:
        raise ProbeError(f"{what}={value!r}: give a whole number of at least {least}")
    return found


def random_state(value: Any) -> None:
    """Refuse what scikit-learn cannot draw from."""
    if isinstance(value, bool):
        raise ProbeError(f"random_state={value!r}: give a whole number from 0")
    try:
        check_random_state(value)
    except ValueError as error:
        raise ProbeError(f"random_state={value!r}: give a whole number from 0 to 2**32 - 1") from error


def kept_names(asked: Any, kept: Sequence[str]) -> tuple[str, ...]:
    """Those of the kept hook names that are meant, each once; all for None."""
    if asked is None:
        return tuple(kept)
    try:
        return tuple(dict.fromkeys(words(asked, "names", kept)))
    except InterpError as error:
        raise ProbeError(str(error)) from error


def kept_step(asked: Any, kept: Sequence[int]) -> int:
    """A step of the run that was kept."""
    if (step := whole(asked)) is None or step not in kept:
        raise ProbeError(f"step {asked!r} was asked for; kept are {list(kept)}")
    return step


def kept_steps(asked: Any, kept: Sequence[int]) -> tuple[int, ...]:
    """Those of the kept steps that are meant, each once; all for None and "all". Steps are those of the run, from 0: which one
    is the run's last is not known here, so that none counts from the end."""
    if asked is None or (isinstance(asked, str) and asked == "all"):
        return tuple(kept)
    size = max(kept) + 1
    try:
        found = numbers(asked, size, "step")
        from_the_end = set(found) - set(numbers(asked, 2 * size, "step"))  # only what counts from an end moves with it
    except InterpError as error:
        raise ProbeError(f"{error}; kept are {list(kept)}") from error
    if from_the_end or (missing := set(found) - set(kept)):
        what = "counts from the end" if from_the_end else f"there is no step {min(missing)}"
        raise ProbeError(f"steps={asked!r}: {what}; kept are {list(kept)}")
    return found
