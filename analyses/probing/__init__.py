"""Linear probes by layer and step, with baselines, transfer, and a test of use."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import Facts
from cos_interp.analyses.driver.settings import AnalysisConfig, OneTaskConfig, SuiteConfig, TasksConfig

Kind = Literal["logistic", "ridge-classifier", "mean-difference", "linear-svm", "pca+logistic"]
KINDS = f"{', '.join(get_args(Kind))}."


class ProbesConfig(SuiteConfig):
    """Linear probes at every layer and step."""

    tasks: tuple[str, ...] = Field(("maze", "place"), min_length=1, description="Tasks, with commas.")
    items: int = Field(40, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    targets: tuple[str, ...] = Field(
        ("first_class", "on_path", "final_class"), min_length=1, description="What is read; cos probe targets lists them."
    )
    kind: Kind = Field("ridge-classifier", description=KINDS)
    site: str = Field("hook_resid_post", description="Site of every block that is probed.")
    layers: tuple[int, ...] | None = Field(None, description="Layers. All by default.")
    steps: tuple[int, ...] | None = Field(None, description="Steps. All by default.")
    probe_tokens: int = Field(12, ge=1, description="Tokens of each clip, drawn at random.")
    folds: int = Field(4, ge=2, description="Folds of the cross-validation; clips stay whole.")
    used_items: int = Field(28, ge=0, description="Pairs a task that exchange what a probe reads; 0: none.")
    used_doses: tuple[float, ...] = Field((0.5, 1.0, 2.0), min_length=1, description="How far: 1 is all the way to the other.")
    views: bool = Field(True, description="PCA and UMAP views of the probed activations.")


class TrainConfig(TasksConfig):
    """Probes that are kept: of one target, at layers and steps, with their card."""

    target: str = Field(description="What is read; cos probe targets lists them.")
    items: int = Field(40, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    kind: Kind = Field("logistic", description=KINDS)
    site: str = Field("hook_resid_post", description="Site of every block.")
    layers: tuple[int, ...] | None = Field(None, description="Layers: 0,4 or 0:8:2. All by default.")
    steps: tuple[int, ...] | None = Field(None, description="Steps: 0,10 or 0:20:5. All by default.")
    tokens: int = Field(25, ge=0, description="Tokens of each clip, drawn at random; 0: all.")
    folds: int = Field(5, ge=2, description="Folds of the cross-validation; clips stay whole.")


class EvalConfig(TasksConfig):
    """Saved probes, tested on clips that they were not trained on."""

    items: int = Field(20, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    skip: int = Field(100, ge=0, description="First item of each task, so that no trained clip is tested.")
    force: bool = Field(False, description="Use probes of a model with other weights.")


class ApplyConfig(OneTaskConfig):
    """A saved probe, drawn over one item's video, or over a clip."""

    item: int = Field(0, ge=0, lt=125, description="Number of the item of cos-500.")
    video: str | None = Field(None, description="A clip instead: it is inverted by the flow, and read on its way. With --prompt.")
    prompt: str | None = Field(None, description="What the clip shows, in the model's words. With --video.")
    layer: int | None = Field(None, description="Layer; with --step. The best probe by default.")
    step: int | None = Field(None, description="Step; with --layer.")
    force: bool = Field(False, description="Use probes of a model with other weights.")

    @model_validator(mode="after")
    def _one_source(self) -> ApplyConfig:
        if (self.video is None) != (self.prompt is None):
            raise ValueError("video and prompt belong together: give both for a clip, or neither for an item")
        if self.video is not None and (self.task, self.item) != ("maze", 0):
            raise ValueError("video stands in the place of an item: leave out task and item, or video")
        return self


class FollowConfig(AnalysisConfig):
    """A token of a clip, followed by matching queries to keys."""

    video: str = Field(description="The clip; it is inverted by the flow, and read on its way.")
    prompt: str = Field(description="What the clip shows, in the model's words.")
    cell: tuple[int, ...] = Field(description="Row and column of the token grid in the first frame, like 2,3.")
    layer: int = Field(description="Layer whose queries and keys are matched.")
    step: int = Field(description="Step, at whose noise they are.")

    @field_validator("cell")
    @classmethod
    def _cell(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) != 2 or min(value) < 0:
            raise ValueError("give a row and a column of the token grid, like 2,3")
        return value


class ClipFacts(Facts):
    """Of one clip. ``grid``: latent frames, rows and columns; ``steps``: those that are probed, ``sigmas`` theirs."""

    task: str
    grid: tuple[int, int, int]
    steps: tuple[int, ...]
    sigmas: tuple[float, ...]


class TransferFacts(Facts):
    """``cells``: the place of each row and column of the matrix, as name of the hook and step."""

    cells: tuple[tuple[str, int], ...]


ENTRY = Entry(
    "probes",
    ProbesConfig,
    "Linear probes by layer and step, with baselines, transfer, and a test of use.",
    (
        "cos analyze probes",
        "cos analyze probes --tasks maze --targets first_class,next_direction,solved --kind logistic --out runs/maze-probes",
    ),
    seconds=265,
    facts=(ClipFacts, TransferFacts),
)
