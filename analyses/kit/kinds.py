"""Kinds that settings name and the kit carries out. Light: the command line reads them."""

from __future__ import annotations

from typing import Literal

PairKind = Literal["prompt", "image", "seed"]
Mode = Literal["replace", "add", "renoise", "shuffle"]
Ablation = Literal["mean", "resample", "skip", "random"]


def known_dose(mode: Mode, dose: float) -> None:
    """ValueError for an amplitude that a kind of noise cannot have."""
    if dose <= 0:
        raise ValueError(f"dose {dose}: give a number above 0")
    if dose > 1 and mode != "add":
        raise ValueError(f"dose {dose} with mode {mode}: 1 is all there is to {mode}; only 'add' takes more")
