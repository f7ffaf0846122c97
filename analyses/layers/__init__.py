"""Token energy by layer, and ablation of layers by step."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import SuiteConfig
from cos_interp.analyses.kit.kinds import Ablation
from cos_interp.interp.limits import MOST_STEPS

Span = Literal["all", "early", "middle", "late"]


class LayersConfig(SuiteConfig):
    """Energy maps by layer, and ablation of layers by step."""

    items: int = Field(4, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    num_inference_steps: int = Field(10, ge=2, le=MOST_STEPS, description="Denoising steps of every run.")
    layers: tuple[int, ...] | None = Field(None, description="Layers ablated one by one: 0,3,7 or 0:8:2. All by default.")
    ablations: tuple[Ablation, ...] = Field(
        ("mean", "resample", "skip", "random"), description="Kinds: mean, resample, skip; random is their control."
    )
    spans: tuple[Span, ...] = Field(("all", "early", "middle", "late"), description="Thirds of the steps: all,early,middle,late.")
    mean_over: Literal["items", "run"] = Field("items", description="Mean of the update over other items' tokens, or this run's.")
    references: int = Field(2, ge=1, description="Other items that the mean is over; the first is the one for resample.")
    batch: int = Field(16, ge=1, description="Ablated rows in one forward.")


ENTRY = Entry(
    "layers",
    LayersConfig,
    "Token energy by layer, and ablation of layers by step.",
    (
        "cos analyze layers",
        "cos analyze layers --tasks maze --items 30 --layers 2,3,4 --ablations skip --out runs/skip",
    ),
    seconds=170,
    compared=(
        Measured(
            "Effect on the final latent of skipping a layer", "distance", ("layer",), {"kind": "skip", "unit": "layer"}, ("span",)
        ),
        Measured("Energy of things above background", "energy_own_contrast", ("step", "layer"), {"measure": "energy"}),
    ),
)
