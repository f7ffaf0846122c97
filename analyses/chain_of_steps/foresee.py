"""What a chain-of-steps run takes."""

from __future__ import annotations

from cos_interp.analyses.chain_of_steps import ChainOfStepsConfig
from cos_interp.analyses.chain_of_steps.measure import SWEEP, pieces
from cos_interp.analyses.driver.outlook import Outlook, Use


def foresee(config: ChainOfStepsConfig, outlook: Outlook) -> list[Use]:
    """A generation an item and noise, every step of it decoded, and those of the sweep."""
    asked = [piece for piece, _ in pieces(config) if isinstance(piece, tuple)]
    whole = [(problem, noise) for what, problem, noise in asked if what == "steps"]
    shown = sum(problem.shown and noise == 0 for problem, noise in whole)
    clips = outlook.steps + 1
    found = [Use("runs, every step decoded", len(whole), decoded=clips, disk=shown * clips * outlook.shape.clip_bytes)]
    swept = sum(what == "sweep" for what, _, _ in asked)
    found += [Use(f"runs of {count} steps", swept, count, decoded=1) for count in SWEEP if swept]
    fewer = sum(what == "fewer" for what, _, _ in asked)  # the third of its runs is shorter; it counts as a whole one
    return found + [Use("runs whose first frames are read", 3 * fewer, decoded=1)] * bool(fewer)
