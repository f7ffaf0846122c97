"""Does the noise pick the plan? Moving it along one direction, and turning states at the boundary between two answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import RunFacts, Showing
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import ChoiceConfig

CLAIM_AT = 2.0  # standard deviations on the other answer's side
# the directions: towards the other answer, and those of the controls
WAYS = {"toward": "toward the other answer", "random": "random direction", "shifted": "shifted direction"}


class SeedChoiceConfig(ChoiceConfig):
    """Moving the initial noise towards another answer, and reflecting states at the boundary between two."""

    items: int = Field(40, ge=1, le=125, description="Items of cos-500 of each task; those with several answers are used.")
    doses: tuple[float, ...] = Field(
        (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0),
        min_length=2,
        description="Where the noise is put between both answers, SD; 0: half way.",
    )
    steps: tuple[int, ...] | None = Field(None, description="Steps at which states are reflected. Five spread ones by default.")
    batch: int = Field(8, ge=1, description="Runs in one forward.")

    @field_validator("doses")
    @classmethod
    def _in_order(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(abs(dose) > 10 for dose in value):
            raise ValueError("ten standard deviations are as far as a noise is moved")
        return tuple(sorted(set(value)))


def label(row: Mapping[str, Any]) -> str | None:
    """What the video of a row is, of those that are shown: untouched, and moved as far as the claim is about. None for others."""
    if row["kind"] == "noise":
        return "untouched"
    return WAYS[row["way"]] if row["kind"] == "dose" and row["dose"] == CLAIM_AT else None


class SeedChoiceFacts(RunFacts, Showing):
    """``own``: the untouched run's answer; ``target``: the one that its noise is moved to."""

    own: str
    target: str


ENTRY = Entry(
    "seed-choice",
    SeedChoiceConfig,
    "Does the noise pick the plan? It is moved along one direction; states are reflected at the boundary between two answers.",
    (
        "cos analyze seed-choice",
        "cos analyze seed-choice --prompts my.jsonl --candidates clips --model path/to/model --out runs/seed-choice-mine",
    ),
    seconds=70,
    facts=(SeedChoiceFacts,),
    compared=(
        Measured("The other answer, its noise moved", "is_target", (), {"kind": "dose"}, ("way", "dose")),
        Measured("Weight of the other answer, its noise moved", "weight", (), {"kind": "dose"}, ("way", "dose")),
        Measured("The other answer, its state reflected", "is_target", where={"kind": "reflected"}, by=("way",)),
        Measured("An ideal observer of x_t names the run's answer", "named", where={"kind": "reflected", "way": "toward"}),
    ),
)
