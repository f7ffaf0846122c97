"""Does the average of several checkpoints' weights solve more than the last one?"""

from __future__ import annotations

from pydantic import Field

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import RunFacts
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import SuiteConfig
from cos_interp.interp.limits import MOST_STEPS

LAST, AVERAGE = "last", "average"
WEIGHTS = "weights"  # the unit, and the kind of rows, of how far the weights are apart


class AveragingConfig(SuiteConfig):
    """The last checkpoint, the average of several, and each of them alone, from the same noises."""

    items: int = Field(30, ge=2, le=125, description="Items of cos-500 of each task; 125 are all.")
    num_inference_steps: int = Field(10, ge=2, le=MOST_STEPS, description="Denoising steps of every run.")
    checkpoints: tuple[str, ...] = Field(
        (), description="Earlier ones, named as --model is, with commas; their weights are averaged with --model's, the last."
    )  # fmt: skip
    checkpoint_digests: tuple[str, ...] | None = Field(None, description="Content that they must have; a run fills it in.")

    @property
    def variants(self) -> list[str]:
        """Whose weights there are: the last one's, the average's, and the other checkpoints', numbered from 1."""
        return [LAST, AVERAGE, *(f"checkpoint {n}" for n in range(1, len(self.checkpoints) + 1))]


class AveragingFacts(RunFacts):
    """Of a run. ``variant``: whose weights it had."""

    variant: str


ENTRY = Entry(
    "averaging",
    AveragingConfig,
    "Whether the average of several checkpoints' weights solves more than the last checkpoint.",
    (
        "cos analyze averaging --model organism:seed1 --checkpoints organism:young",
        "cos analyze averaging --model run/checkpoint-3000 --checkpoints run/checkpoint-1000,run/checkpoint-2000 --items 125 "
        "--out runs/averaged",
    ),
    seconds=120,
    facts=(AveragingFacts,),
    compared=(Measured("Distance of the final latent from the last checkpoint's", "moved", ("variant",), {"kind": "run"}),),
    given=("checkpoints",),
)
