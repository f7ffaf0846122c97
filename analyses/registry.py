"""The analyses by name: where each lives, its settings, and the help of its command. Light; loads nothing heavy."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analyses import settings

if TYPE_CHECKING:
    from analyses.experiment import Experiment


@dataclass(frozen=True)
class Entry:
    """One analysis. ``module`` holds an ``EXPERIMENT``."""

    name: str
    module: str
    config: type[settings.AnalysisConfig]
    about: str
    examples: tuple[str, ...]

    def load(self) -> Experiment:
        return importlib.import_module(f"analyses.{self.module}").EXPERIMENT


_ENTRIES = (
    Entry(
        "patching", "patching_run", settings.PatchingConfig,
        "Activation patching over steps, layers and token groups, with controls.",
        (
            "cos analyze patching",
            "cos analyze patching --task place --pair-kind prompt --pairs 8 --out runs/place",
            "cos analyze patching --sites attn.hook_z --heads 0,1,2,3 --steps 0:10:3 --tokens goals,donor_route",
            "cos analyze patching --range single --direction noising --out runs/single",
        ),
    ),
    Entry(
        "chain-of-steps", "chain_of_steps", settings.ChainOfStepsConfig,
        "Accuracy of the clean estimate at every step; steps against frames.",
        ("cos analyze chain-of-steps", "cos analyze chain-of-steps --items 125 --noises 1 --out runs/full"),
    ),
)  # fmt: skip
ENTRIES: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}
