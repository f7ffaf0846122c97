"""Which directions carry the answer at the tokens that hold it, and does one of them steer without a donor?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field, field_validator

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import Facts, Showing
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import PairsConfig
from cos_interp.interp.limits import MOST_STEPS

VECTOR: Final = "vector"  # the unit that holds the directions
SHOWN = (("steer", 1.0), ("random direction", 1.0))  # ways whose videos are shown
FURTHEST = 100.0  # the largest dose: beyond it numbers overflow, and no more is learnt
PLACED = 4  # pairs on which the place is chosen


class SteeringConfig(PairsConfig):
    """Low-rank carriers of the answer, and one vector that steers without a donor."""

    pairs: int = Field(12, ge=2, description="Pairs that the directions are made of.")
    check_pairs: int = Field(24, ge=0, description="Further pairs that they are tested on; of --pair-file, at most so many.")
    unique: bool = Field(True, description="Pairs have one right answer on either side.")
    solved: bool = Field(True, description="Pairs are such as the model solves; without, whatever it makes of them.")
    pair_file: str | None = Field(
        None, description="Own pairs: a line {'clean': {...}, 'corrupt': {...}, 'boxes': {'ball': [left, top, right, bottom]}}."
    )
    layer: int | None = Field(None, ge=0, description="Block after which is steered. Chosen on the first pairs by default.")
    tokens: tuple[str, ...] | None = Field(None, min_length=1, description="Token groups, together. Chosen likewise.")
    frames: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None, min_length=1, description="Latent frames of these tokens. One, where it does as much as all, by default."
    )
    num_inference_steps: int = Field(8, ge=2, le=MOST_STEPS, description="Denoising steps of every run.")
    ranks: tuple[int, ...] = Field((1, 2, 4, 8), min_length=1, description="Ranks of the exchanged subspaces.")
    doses: tuple[float, ...] = Field((-1.0, 0.5, 1.0, 2.0), description="Doses of the vector beside 1.")
    batch: int = Field(12, ge=1, description="Patched rows in one forward; 1 is exact to the bit.")

    @field_validator("doses")
    @classmethod
    def _doses(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(abs(dose) > FURTHEST for dose in value):
            raise ValueError(f"{FURTHEST:g} times the vector is as far as a run is steered: give smaller doses")
        return value

    @field_validator("ranks")
    @classmethod
    def _ranks(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 1:
            raise ValueError(f"rank {min(value)}: a subspace has at least one direction")
        return tuple(sorted({1, *value}))


class VectorFacts(Facts):
    """Of the directions: where, of how many pairs, and how much of their differences each of the first ones has. ``frames``:
    latent frames of the tokens, () for all."""

    layer: int
    tokens: tuple[str, ...]
    frames: tuple[int, ...] = ()
    pairs: int
    norm: float
    shares: tuple[float, ...]


def label(row: Mapping[str, Any]) -> str | None:
    """What the video of a way is, of those that are shown; None for the others."""
    return f"{row['way']} {row['size']:g}" if (row["way"], row["size"]) in SHOWN else None


class CheckFacts(Showing):
    """Of a tested pair. ``tokens``: how many were steered; ``tried``: how many candidates it took to find it."""

    prompts: tuple[str, str]
    tokens: int
    tried: int | None = None


ENTRY = Entry(
    "steering",
    SteeringConfig,
    "Low-rank carriers of the answer, and one vector that steers without a donor.",
    (
        "cos analyze steering",
        "cos analyze steering --task place --layer 1 --tokens target_place,donor_place --out runs/steering-place",
        "cos analyze steering --model ./my-model --pair-file pairs.jsonl --num-steps 20 --out runs/own-steering",
    ),
    seconds=50,
    facts=(VectorFacts, CheckFacts),
    compared=(
        Measured("Effect on unseen pairs", "effect", (), {"table": "check"}, ("way", "size")),
        Measured("The donor's answer on unseen pairs", "outcome", (), {"table": "check"}, ("way", "size"), "donor"),
        Measured("How much of the donor's answer is shown", "donor_shown", (), {"table": "check"}, ("way", "size")),
        Measured("Effect of the residual stream at some tokens, all steps", "effect", ("layer",), {"table": "place"}, ("group",)),
    ),
)
