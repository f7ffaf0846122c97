"""Which seeds are whose. A seed depends on what it is for and on nothing else: not on the order of tasks, items or workers.

Every seed of an experiment has its purpose in the bits from 48 up, so that two purposes never share one, and below them 48 bits
of a digest of the purpose and of what it is about: PyTorch's CPU generator reads the lower 32 bits alone, so these must tell
purposes apart as well. Seeds made elsewhere lie below 2**48 and meet none of these: the items of
cos-500 (tasks/suite.py), ``cos organism eval`` (its card says which), data sets of probes (probes/collect.py), training clips
(organism/data.py, from 1,000,000,000 on).
"""

from __future__ import annotations

import hashlib
import operator
from typing import SupportsIndex

PURPOSES = {
    "noise": 1,  # a problem's own: about the run's --seed, the task's name ("prompts" for the user's own), the item's index
    "further noise": 2,  # of the same problem: about its own seed and a number
    "renoising": 3,  # of a clean estimate: about the run's noise and a step
    "ablation": 4,  # random directions in place of a layer's update: about the run's noise, a step, a layer
    "disturbance": 5,  # noise that is put into a state: about a seed and the place in the run
    "pair item": 6,  # items that pairs are looked for among: about --seed, task, kind, index, attempt
    "pair noise": 7,  # of the sides of a pair: about the item's seed and a number
    "stranger": 8,  # the random donor, an item that has nothing to do with the pair, and its noise: about --seed, task, index
    "random circuit": 10,  # components drawn in the place of a circuit's: about the pair's noise and a draw
    "random direction": 11,  # in the place of a steering vector: about the pair's noise
    "same answer": 9,  # noises in which a second run with the same answer is looked for: about the run's noise and a number
    "other answer": 12,  # which of a problem's other answers its noise is moved to: about the run's noise
    "direction": 13,  # a random direction of a state: about the run's noise and a step
    "random schedule": 21,  # of block calls, in the place of a chosen one: about --seed, a draw
    "shuffled labels": 22,  # of runs, for a read-out that learns nothing: about --seed, a step, a half of the items
    "exact cells": 15,  # that a gradient map is held against: about --seed, the pair
    "random allocation": 24,  # of steps over noise levels: about --seed, a draw
    "long item": 25,  # an item longer than trained, with one that is not: about --seed, task, index, attempt
    "surprise": 23,  # how a clip is broken, and noises at which clips are denoised: about the problem's noise, a number
}
BITS = 48  # with the purpose 52: exact in a float64 column, too


def seed_for(purpose: str, *about: SupportsIndex | str) -> int:
    """A seed in [2**48, 2**52) for a purpose and what it is about: the run's seed, the task's name, an index, a draw.

    KeyError for an unknown purpose, TypeError for what is neither a whole number nor a text.

    >>> seed_for("noise", 0, "maze", 3) == seed_for("noise", 0, "maze", 3) != seed_for("noise", 0, "maze", 4)
    True
    """
    number = PURPOSES[purpose]
    digest = hashlib.sha256(repr((purpose, *map(_plain, about))).encode()).digest()
    return (number << BITS) | int.from_bytes(digest[: BITS // 8])


def _plain(value: SupportsIndex | str) -> int | str:
    """Numbers of any library as Python's own: the digest is of what they are written as."""
    if isinstance(value, str):
        return str(value)
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"a seed cannot be about {value!r}: give whole numbers and texts") from None
