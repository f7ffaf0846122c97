"""Inject a wrong answer at a step; is the right one back, and when?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import RunFacts, Showing
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import SuiteConfig

AT = (0.2, 0.5, 0.7, 0.8, 0.85, 0.9)  # shares of the steps; .2 is the paper's claim: injected at step 20 of 100


class RecoveryConfig(SuiteConfig):
    """Inject a wrong answer at step k; is the right one back, and when?"""

    items: int = Field(40, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    steps: tuple[int, ...] | None = Field(
        None, description="Injection steps. By default 0.2 and 0.5 of the run, and more in the last third."
    )
    donors: tuple[Literal["other", "prompt", "noise"], ...] = Field(
        ("other", "prompt", "noise"), min_length=1, description="Injected: another item, the same scene's other prompt, noise."
    )
    doses: tuple[float, ...] = Field((1.0,), min_length=1, description="Share of the injected latent: 1 replaces all of it.")
    batch: int = Field(12, ge=1, description="Injected runs in one forward.")

    @field_validator("doses")
    @classmethod
    def _shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < dose <= 1 for dose in value):
            raise ValueError("a share of the injected latent lies above 0 and at most at 1")
        return tuple(dict.fromkeys(value))


class RecoveryFacts(RunFacts, Showing):
    """``donor_prompts``: by donor; ``scheduler``: the name of its class."""

    donor_prompts: dict[str, str]
    scheduler: str


def label(row: Mapping[str, Any]) -> str:
    """What the video of a row is, in words."""
    if row["kind"] != "injected":
        return row["kind"] + (f": {row['donor']}" if row["donor"] else "")
    return f"{row['donor']} at step {row['injected']}"


ENTRY = Entry(
    "recovery",
    RecoveryConfig,
    "Inject a wrong answer at a step; is the right one back, and when?",
    (
        "cos analyze recovery",
        "cos analyze recovery --donors prompt --steps 0:20:2 --doses 1 --out runs/prompt",
    ),
    seconds=150,
    facts=(RecoveryFacts,),
    compared=(
        Measured(
            "The right answer in the final video after an injection",
            "whose",
            ("injected",),
            {"kind": "injected"},
            ("donor",),
            "target",
            final=True,
        ),
        Measured(
            "Effect of the injection on the final latent", "effect", ("injected",), {"kind": "injected"}, ("donor",), final=True
        ),
    ),
)
