"""Which calls of which blocks may be skipped, taken from the step before, or computed in few bits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from pydantic import Field, field_validator

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import Facts, RunFacts, Showing
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import SuiteConfig
from cos_interp.interp.limits import MOST_STEPS

Method = Literal["cache", "skip", "round"]
Call = tuple[int, int, str]  # a block's call: step, layer, branch
DECIDES = 0.25  # of all block calls: the saving nearest to it is judged


def judged(savings: Iterable[float]) -> float:
    """The saving that is judged, of those that were tried.

    >>> judged((0.125, 0.3, 0.5))
    0.3
    """
    return min(savings, key=lambda saving: abs(saving - DECIDES))


class AccelerationConfig(SuiteConfig):
    """A map of what each call of a block is needed for, and a schedule made of it."""

    items: int = Field(16, ge=2, le=125, description="Items of cos-500 of each task; half of them choose. 125 are all.")
    num_inference_steps: int = Field(10, ge=4, le=MOST_STEPS, description="Denoising steps of every run.")
    methods: tuple[Method, ...] = Field(
        ("cache", "skip", "round"),
        min_length=1,
        description="cache: what its parts gave last; skip: nothing; round: in few bits.",
    )
    bands: int = Field(3, ge=1, description="Spans of steps that are told apart in the map.")
    interval: int = Field(2, ge=2, description="Of cache: of so many steps one is computed.")
    bits: int = Field(4, ge=2, le=16, description="Of round: bits of what a block reads and writes, with one scale a token.")
    asked: tuple[str, ...] = Field(
        (), description="May these be saved? Layers at steps, saved together on every item: 3@10:21 (10 to 20), 0+3@1:5."
    )
    by: Method = Field("cache", description="The method of the schedule.")
    savings: tuple[float, ...] = Field(
        (0.125, 0.25, 0.375),
        min_length=1,
        description="Shares of all block calls that schedules save; the one nearest .25 decides.",
    )
    draws: int = Field(3, ge=1, description="Random schedules of equal cost.")
    batch: int = Field(8, ge=2, description="Rows in one forward.")

    @field_validator("savings")
    @classmethod
    def _shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < share < 1 for share in value):
            raise ValueError(f"{value}: give shares of all block calls, between 0 and 1")
        return tuple(sorted(set(value)))

    @field_validator("asked")
    @classmethod
    def _places(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            places(one)
        return tuple(dict.fromkeys(value))


def places(asked: str) -> tuple[tuple[int, ...], range]:
    """Layers and steps of what is asked about. ValueError for what says none.

    >>> places("3@10:21"), places("0+3@4")
    (((3,), range(10, 21)), ((0, 3), range(4, 5)))
    """
    found = re.fullmatch(r"(\d+(?:\+\d+)*)@(\d+)(?::(\d+))?", asked)
    steps = range(int(found[2]), int(found[3] or int(found[2]) + 1)) if found else range(0)
    if found is None or not steps:
        raise ValueError(
            f"{asked!r}: give layers and steps, the last step excluded: 3@10:21 for layer 3 at steps 10 to 20, 0+3@4"
        )
    return tuple(map(int, found[1].split("+"))), steps


Spans = dict[str, tuple[int, int]]  # of each expert its first step, and the one after its last


class MapFacts(RunFacts):
    """Of an item that chooses. ``experts``: which ran when."""

    experts: Spans


class ScheduleFacts(Facts):
    """The schedules that half of the items chose: by the share of block calls that was asked for, the calls that are saved.
    ``modules``: by layer, the modules that diffusers' caches hold; ``unfit``: why there are none."""

    chosen: dict[float, tuple[Call, ...]]
    steps: int
    layers: int
    branches: tuple[str, ...]
    experts: Spans = Field(default_factory=dict)
    modules: tuple[tuple[str, ...], ...] = ()
    unfit: str = "the run does not say how its model's blocks are called"


class TestedFacts(Showing):
    """Of an item of the test. ``prompt``: what the model was told."""

    prompt: str


ENTRY = Entry(
    "acceleration",
    AccelerationConfig,
    "Which steps of which layers may be skipped, cached or rounded without changing verified answers.",
    (
        "cos analyze acceleration",
        "cos analyze acceleration --tasks maze --items 40 --num-steps 20 --bands 5 --methods cache --out runs/cache",
        "cos analyze acceleration --num-steps 30 --asked 3@10:21 --methods skip,cache --out runs/layer-3",
    ),
    seconds=240,
    facts=(MapFacts, ScheduleFacts, TestedFacts),
    compared=(
        Measured("Distance when a block is taken from an earlier step", "distance", ("layer",), {"method": "cache"}, ("band",)),
    ),
)
