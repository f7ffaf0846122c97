"""The dossier: every experiment, and one page with the verdict on each claim."""

from __future__ import annotations

from pydantic import Field

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import Facts
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.settings import ScoredConfig


class DossierConfig(ScoredConfig):
    """Every experiment, at its own size or one that fits a time budget."""

    FILES = ("prompts",)

    budget: str = Field("none", description="Time for all together: 90s, 20m, 1h; sizes are chosen to fit. none: own sizes.")
    only: tuple[str, ...] | None = Field(None, description="These experiments only, with commas.")
    twins: int = Field(2, ge=0, le=8, description="Models of random weights beside it; 4 where a run takes under a minute.")
    like: str | None = Field(None, description="A dossier of another model: its sizes, and its twins where they are the same.")
    prompts: str | None = Field(None, description="Own inputs instead: a JSONL file, a line {'prompt': ..., 'image': path}.")


class ExperimentFacts(Facts):
    """Of one experiment of a dossier: as its page says it, with the command that made it. ``error``: why it could not run."""

    about: str
    command: str = ""
    items: int = 0
    lines: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    figure: str = ""
    error: str = ""
    seconds: float


ENTRY = Entry(
    "all",
    DossierConfig,
    "The dossier: every experiment, and one page with the verdict on each claim.",
    (
        "cos analyze all",
        "cos analyze all --twins 0",
        "cos analyze all --confirm --model organism:seed1 --out runs/seed1",
        "cos analyze all --model organism:seed2 --like runs/seed1 --out runs/seed2",
        "cos analyze all --budget 2h --model path/to/model --only chain-of-steps,commitment --out runs/mine",
    ),
    facts=(ExperimentFacts,),
)
