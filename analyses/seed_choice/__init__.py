"""Does the noise pick the plan? Moving it along one direction, and turning states at the boundary between two answers."""

from __future__ import annotations

from pydantic import Field, field_validator

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import RunFacts
from cos_interp.analyses.driver.settings import ChoiceConfig


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


class SeedChoiceFacts(RunFacts):
    """``own``: the untouched run's answer; ``target``: the one that its noise is moved to; ``shown``: what the kept clips are."""

    own: str
    target: str
    shown: tuple[str, ...] = ()


ENTRY = Entry(
    "seed-choice",
    SeedChoiceConfig,
    "Does the noise pick the plan? It is moved along one direction; states are reflected at the boundary between two answers.",
    (
        "cos analyze seed-choice",
        "cos analyze seed-choice --prompts my.jsonl --candidates clips --model path/to/model --out runs/seed-choice-mine",
    ),
    seconds=200,
    facts=(SeedChoiceFacts,),
)
