"""Disturb one step and compare all later states (CKA)."""

from __future__ import annotations

from pydantic import Field, model_validator

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import RunFacts, Showing
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import SuiteConfig
from cos_interp.analyses.kit.kinds import Mode, known_dose


class PropagationConfig(SuiteConfig):
    """Perturb at one step, compare all later states."""

    items: int = Field(6, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    steps: tuple[int, ...] | None = Field(None, description="Disturbed steps. All by default.")
    mode: Mode = Field("renoise", description="Kind of noise: replace, add, renoise, shuffle.")
    dose: float = Field(1.0, gt=0, description="Amplitude of the noise.")
    layers: tuple[int, ...] | None = Field(None, description="Layers compared. First, middle and last by default.")
    debiased: bool = Field(True, description="Debiased CKA in figures and findings; both kinds are stored.")
    batch: int = Field(10, ge=1, description="Disturbed runs in one forward; the undisturbed one goes along.")

    @model_validator(mode="after")
    def _fitting_dose(self) -> PropagationConfig:
        known_dose(self.mode, self.dose)
        return self


class PropagationFacts(RunFacts, Showing):
    """``scheduler``: the name of its class; ``handoff``: the first step of another expert than before it, if there is one."""

    scheduler: str
    handoff: int | None


ENTRY = Entry(
    "propagation",
    PropagationConfig,
    "Disturb one step and compare all later states (CKA).",
    (
        "cos analyze propagation",
        "cos analyze propagation --mode add --layers 0,3,7 --out runs/add",
    ),
    seconds=65,
    facts=(PropagationFacts,),
    compared=(
        Measured(
            "Dissimilarity of the final state after a disturbance", "dissimilarity", ("disturbed",), by=("tensor",), final=True
        ),
    ),
)
