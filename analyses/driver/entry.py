"""What an experiment says about itself in its folder's ``__init__``, so that help costs no import of torch."""

from __future__ import annotations

from dataclasses import dataclass

from cos_interp.analyses.driver.facts import Facts
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import AnalysisConfig


@dataclass(frozen=True)
class Entry:
    """One experiment: its command, settings, a line about it, examples of use.

    ``seconds``: what its default size takes on two cores, its share of a dossier's budget. ``facts``: the records that its units
    leave beside rows and tensors, where the common ones of :mod:`driver.facts` do not say enough. ``compared``: what of its rows
    ``cos report compare`` lays beside the same of other runs. ``given``: settings without one of which it has nothing to do, so
    that a dossier leaves it out.
    """

    name: str
    config: type[AnalysisConfig]
    about: str
    examples: tuple[str, ...]
    seconds: int = 60
    facts: tuple[type[Facts], ...] = ()
    compared: tuple[Measured, ...] = ()
    given: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The package of the experiment: where its settings are declared."""
        return self.config.__module__
