"""Swap the visual tokens of two runs at one step, from it on or throughout, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import RunFacts, Showing
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import SuiteConfig
from cos_interp.interp.limits import MOST_STEPS

SwapKind = Literal["prompt", "image"]
Swapped = Literal["block", "delta", "attention", "cross", "mlp"]
TokenSet = Literal["all", "object", "random"]
Lasting = Literal["single", "from", "all"]


class SwapConfig(SuiteConfig):
    """Swap the visual tokens of two runs at one step, from it on or throughout, layer by layer."""

    OF_ITEMS = ("tasks", "pair_kinds")

    tasks: tuple[str, ...] = Field(("maze", "occlusion", "place"), min_length=1, description="Tasks, with commas.")
    items: int = Field(4, ge=1, le=125, description="Pairs of each task and kind, or of the prompts.")
    num_inference_steps: int = Field(10, ge=2, le=MOST_STEPS, description="Denoising steps of every run.")
    pair_kinds: tuple[SwapKind, ...] = Field(("prompt", "image"), description="What differs in a pair: prompt, image.")
    steps: tuple[int, ...] | None = Field(None, description="Swapped steps. The first and the middle by default.")
    spans: tuple[Lasting, ...] = Field(
        ("single", "from", "all"), min_length=1, description="single: a step alone; from: it and all later ones; all: every step."
    )
    layers: tuple[int, ...] | None = Field(None, description="Layers, each swapped alone: 0,3,7 or 0:8:2. All by default.")
    variants: tuple[Swapped, ...] = Field(
        ("block", "delta"), min_length=1, description="block, delta (its update), attention, cross (text), mlp."
    )
    tokens: tuple[TokenSet, ...] = Field(("all", "object", "random"), description="all, object, random (as many others).")
    batch: int = Field(8, ge=1, description="Swapped rows in one forward; 1 is exact to the bit.")


WHEN: Mapping[str, str] = {"single": "at step {step} alone", "from": "from step {step} on", "all": "at every step"}
GIVES = {"pair": "swapped", "random item": "a random item's tokens"}


def label(row: Mapping[str, Any]) -> str | None:
    """What the video of a swap is, of all tokens at one step or at every step; None for the swaps that are not shown."""
    if row["group"] != "all" or row["donor"] not in GIVES or row["span"] == "from":
        return None
    return f"{GIVES[row['donor']]} {WHEN[row['span']].format(step=row['step'])}"


class SwapFacts(RunFacts, Showing):
    """Of one pair; sigmas and prompt are the target's. ``tried``: how many candidates it took to find the pair."""

    donor_prompt: str
    tried: int


ENTRY = Entry(
    "swap",
    SwapConfig,
    "Swap the visual tokens of two runs at one step, from it on or throughout, layer by layer.",
    (
        "cos analyze swap",
        "cos analyze swap --tasks place --pair-kind image --steps 0,4,8 --variants block,cross --out runs/swap-place",
    ),
    seconds=200,
    facts=(SwapFacts,),
    compared=(
        Measured(
            "The donor's answer after a swap",
            "flipped",
            ("layer",),
            {"donor": "pair", "variant": "block", "group": "all"},
            ("span",),
        ),
    ),
)
