"""Does what a model solves hold for items longer than any that it was trained on?"""

from __future__ import annotations

from pydantic import Field, model_validator

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import RunFacts
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import TasksConfig
from cos_interp.interp.limits import MOST_STEPS

TASKS = ("maze", "bounce")  # of which there are longer items
BEYOND, WITHIN, TRAINED = "beyond", "within", "trained"  # the videos of a scene
TRAINED_FRAMES = 9  # pixel frames of the videos that the organism was trained on


class LengthsConfig(TasksConfig):
    """Items longer than trained, in longer videos, each beside one of the same scene that is not."""

    tasks: tuple[str, ...] = Field(TASKS, min_length=1, description=f"Of {', '.join(TASKS)}.")
    items: int = Field(30, ge=1, le=500, description="Scenes of each task.")
    num_inference_steps: int = Field(10, ge=2, le=MOST_STEPS, description="Denoising steps of every run.")
    frames: int = Field(13, ge=TRAINED_FRAMES + 4, le=33, description="Pixel frames of the longer videos: 13, 17, 21, ...")

    @model_validator(mode="after")
    def _known(self) -> LengthsConfig:
        if unknown := [task for task in self.tasks if task not in TASKS]:
            raise ValueError(f"tasks {unknown[0]}: there are longer items of {', '.join(TASKS)}")
        if (self.frames - 1) % 4:
            raise ValueError(f"frames {self.frames}: these models make 1 + 4 n frames: give 13, 17, 21, ...")
        return self


class PairFacts(RunFacts):
    """Of a scene. ``length``: moves of the long item, ``short``: of the other."""

    length: int
    short: int


ENTRY = Entry(
    "lengths",
    LengthsConfig,
    "Accuracy by length of the item, beyond the trained lengths and within them.",
    (
        "cos analyze lengths",
        "cos analyze lengths --tasks maze --items 100 --frames 17 --out runs/longer-mazes",
    ),
    seconds=16,
    facts=(PairFacts,),
    compared=(Measured("Solved, by what is longer", "solved", ("video",)),),
)
