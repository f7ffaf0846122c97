"""Where two models part, and which of their layers make the difference."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import RunFacts
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import SuiteConfig
from cos_interp.interp.limits import MOST_STEPS
from cos_interp.interp.placing import Dtype

What = Literal["weights", "activations"]


class DiffConfig(SuiteConfig):
    """Two models on the same inputs, and parts of the one put into the other."""

    items: int = Field(8, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    num_inference_steps: int = Field(10, ge=2, le=MOST_STEPS, description="Denoising steps of every run.")
    against: str | None = Field(None, description="The other model, named as --model is; the same one with --against-lora alone.")
    against_lora: tuple[str, ...] = Field((), description="LoRA weights of the other model, PATH or PATH:scale, with commas.")
    against_dtype: Dtype = Field("auto", description="What the other model computes in, as --dtype.")
    against_digest: str | None = Field(None, description="Content that the other model must have; a run fills it in.")
    what: tuple[What, ...] = Field(
        ("weights", "activations"), min_length=1, description="What is put into the first model: weights, activations."
    )
    steps: tuple[int, ...] | None = Field(None, description="Steps at which activations are compared. Spread ones by default.")


class DiffFacts(RunFacts):
    """Of a problem. ``against``: the other model. ``kept_apart``: why its weights cannot be put into the first; None where
    they can."""

    against: str
    kept_apart: str | None = None


ENTRY = Entry(
    "diff",
    DiffConfig,
    "Where two models part (LoRA, checkpoint, distilled), and which layers make the difference.",
    (
        "cos analyze diff --model organism --against organism:young",
        "cos analyze diff --model ./base --against-lora mine.safetensors:0.8 --prompts my.jsonl --out runs/my-lora",
    ),
    seconds=180,
    facts=(DiffFacts,),
    compared=(
        Measured("Effect of the other model's weights in one layer", "effect", ("layer",), {"what": "weights", "unit": "layer"}),
        Measured("Difference of a block on the same input", "delta", ("step", "layer"), {"kind": "apart", "inputs": "given"}),
    ),
    given=("against", "against_lora"),
)
