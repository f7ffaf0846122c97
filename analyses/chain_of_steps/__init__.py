"""Accuracy of the clean estimate at every step; steps against frames."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import RunFacts
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import SuiteConfig


class ChainOfStepsConfig(SuiteConfig):
    """Accuracy of the clean estimate of every step, of runs made here or of decoded steps that another program left."""

    FILES = ("prompts", "from_steps", "truth", "labels")
    INSTEAD = ("prompts", "from_steps")
    # without part in files
    OF_RUNS: ClassVar[tuple[str, ...]] = ("tasks", "items", "noises", "sweep_items", "fewer_items", "confirm", "twins")

    from_steps: str | None = Field(None, description="A folder of decoded steps, scored without a model (docs/own-videos.md).")
    truth: str | None = Field(None, description="With --from-steps: <split>/<task>/<00000>/ground_truth.mp4, and prompt.txt.")
    labels: str | None = Field(None, description="With --from-steps: verdicts by people, a CSV file: video,status,answer.")
    any_rate: bool = Field(False, description="With --from-steps: judge videos of any frame rate, frame by frame.")
    items: int = Field(40, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    noises: int = Field(1, ge=1, description="Noises an item; from 2 on the entropy over seeds is reported.")
    sweep_items: int = Field(5, ge=0, le=125, description="Items of each task run with 1 to 50 steps, too; 0: none.")
    fewer_items: int = Field(10, ge=0, le=125, description="Items of each task made in fewer frames, too; 0: none.")

    @model_validator(mode="after")
    def _of_files(self) -> ChainOfStepsConfig:
        if self.from_steps is None and (self.truth or self.labels or self.any_rate):
            raise ValueError("truth, labels and any_rate are of the videos of from_steps: give that, too")
        if self.from_steps is not None:
            fields = type(self).model_fields
            set_too = [n for n in (*self.OF_RUNS, "prompts") if getattr(self, n) != fields[n].default]
            if set_too:
                raise ValueError(f"from_steps makes no runs: leave out {' and '.join(set_too)}, or from_steps")
        if self.labels is not None and self.scored:
            raise ValueError("labels are verdicts already: leave out the scorer, or labels")
        return self


class StepsFacts(RunFacts):
    """Of a run whose frames are kept. ``answers``: the candidates of its ``weights``; empty where there are none."""

    answers: tuple[str, ...] = ()


class SampleFacts(RunFacts):
    """Of decoded steps that another program left. ``lacking``: what of them is not there, in words."""

    lacking: str = ""


ENTRY = Entry(
    "chain-of-steps",
    ChainOfStepsConfig,
    "Accuracy of the clean estimate at every step; steps against frames.",
    (
        "cos analyze chain-of-steps",
        "cos analyze chain-of-steps --from-steps outputs/steps --truth VBVR-Bench --scorer reference --out runs/theirs",
        "cos analyze chain-of-steps --items 125 --noises 1 --out runs/full",
    ),
    seconds=60,
    facts=(StepsFacts, SampleFacts),
    compared=(
        Measured("Solved, read from the clean estimate", "status", where={"kind": "steps"}, by=("unique",), counts="solved"),
        Measured("Distance of the clean estimate from the final latent", "distance", where={"kind": "steps"}),
    ),
)
