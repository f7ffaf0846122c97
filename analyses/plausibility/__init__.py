"""Is an impossible video more surprising than the possible one that it matches?"""

from __future__ import annotations

from pydantic import Field, model_validator

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import RunFacts
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import TasksConfig

TASKS = ("bounce", "occlusion")  # of which there are impossible clips


class PlausibilityConfig(TasksConfig):
    """Surprise of possible and impossible clips: the denoising loss of both at the same noise."""

    FILES = ("clips",)

    tasks: tuple[str, ...] = Field(TASKS, min_length=1, description=f"Of {', '.join(TASKS)}.")
    items: int = Field(20, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    clips: str | None = Field(
        None, description="Own pairs: a folder with possible/NAME.mp4, impossible/NAME.mp4, and NAME.txt with the prompt."
    )
    steps: tuple[int, ...] | None = Field(None, description="Steps at whose noise is measured. Six spread ones by default.")
    noises: int = Field(2, ge=1, description="Noises of each pair, the same for both clips.")

    @model_validator(mode="after")
    def _known_pairs(self) -> PlausibilityConfig:
        if self.clips is None and (unknown := [task for task in self.tasks if task not in TASKS]):
            raise ValueError(f"tasks {unknown[0]}: there are impossible clips of {', '.join(TASKS)}; give clips of your own")
        if self.clips is not None and (self.tasks, self.items) != (TASKS, type(self).model_fields["items"].default):
            raise ValueError("clips stand in the place of the tasks' items: leave out tasks and items, or clips")
        return self


class PairFacts(RunFacts):
    """``broken``: what is impossible, in words. ``steps``: those at whose noise was measured."""

    broken: str
    steps: tuple[int, ...]


ENTRY = Entry(
    "plausibility",
    PlausibilityConfig,
    "Is an impossible video more surprising than the possible one that it matches?",
    (
        "cos analyze plausibility",
        "cos analyze plausibility --clips clips --num-steps 20 --out runs/own-clips",
    ),
    seconds=15,
    facts=(PairFacts,),
    compared=(Measured("Loss of the impossible clip beyond the possible one's", "more", where={"kind": "model"}),),
)
