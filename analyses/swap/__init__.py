"""Swap the visual tokens of two runs at one step, from it on or throughout, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

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

    FILES = ("prompts", "pair_file")
    INSTEAD = ("prompts", "pair_file")
    OF_ITEMS = ("tasks", "pair_kinds")

    tasks: tuple[str, ...] = Field(("maze", "occlusion", "place"), min_length=1, description="Tasks, with commas.")
    items: int = Field(5, ge=1, le=125, description="Pairs of each task and kind, of the prompts, or of the pair file.")
    pair_file: str | None = Field(
        None, description="Own pairs: a line {'clean': {...}, 'corrupt': {...}, 'boxes': {'ball': [left, top, right, bottom]}}."
    )
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

    @model_validator(mode="after")
    def _one_file(self) -> SwapConfig:
        """Own pairs say which two runs are held together; of prompts each meets the next one."""
        set_too = [n for n in self.OF_ITEMS if getattr(self, n) != type(self).model_fields[n].default]
        if self.pair_file is not None and (self.prompts is not None or set_too):
            other = " and ".join(["prompts"] if self.prompts is not None else set_too)
            raise ValueError(f"own pairs stand in the place of {other}: leave out {other}, or pair_file")
        return self

    @property
    def own(self) -> bool:
        """Whether the runs are the user's own, of a pair file or of prompts."""
        return self.pair_file is not None or self.prompts is not None


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
        "cos analyze swap --model ./my-model --pair-file pairs.jsonl --scorer my.py:judge --items 40 --out runs/own-swap",
    ),
    seconds=210,
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
