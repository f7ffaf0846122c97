"""A dossier like another one: of another model at the same sizes, with the twins that both have taken over and not run again.

Twins are drawn by number, not by model (analyses/driver/twins.py): seeds of one recipe, which share autoencoder, text encoder and
architecture, have the same ones.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from cos_interp.analyses.dossier import DossierConfig
from cos_interp.analyses.driver import identity, twins
from cos_interp.analyses.driver.command import flag
from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.analyses.driver.store import RunStore
from cos_interp.interp import identity as content
from cos_interp.interp.model import HookedVideoPipeline

OF_THE_MODEL = (*identity.ELSEWHERE, "vae_tiling", "decode_steps")
ITS_OWN = {*OF_THE_MODEL, "budget", "only", "twins", "like"}


@dataclass(frozen=True)
class Like:
    """Another dossier. ``same``: the names of its twins that are those of this model, weight for weight."""

    folder: Path
    config: DossierConfig
    same: tuple[str, ...]

    def sized(self, entry: Entry) -> AnalysisConfig | None:
        """An experiment's settings there, for the model here; None where it did not run there."""
        held = RunStore(self.folder / entry.name).facts()
        if held is None:
            return None
        own = {name: getattr(self.config, name) for name in OF_THE_MODEL if name in entry.config.model_fields}
        return entry.config(**held["config"] | own)

    def take_twins(self, entry: Entry, folder: Path) -> None:
        """Copy the finished runs of the same twins, where this experiment has none of its own yet."""
        for name in self.same:
            theirs = self.folder / entry.name / name
            held = RunStore(theirs).facts()
            if held is not None and held["status"] == "complete" and not (folder / name).exists():
                shutil.copytree(theirs, folder / name)


def like(config: DossierConfig, model: HookedVideoPipeline) -> Like | None:
    """The dossier that another is to be like; None where none is named. ValueError where none is there, or one of other items."""
    if config.like is None:
        return None
    folder = Path(config.like)
    held = RunStore(folder).facts()
    if held is None or held["analysis"] != "all":
        raise ValueError(f"--like {folder}: no dossier is there; give the folder of a cos analyze all")
    here = config.model_dump(mode="json")
    for name in sorted(here.keys() - ITS_OWN):
        if here[name] != held["config"].get(name):
            raise ValueError(
                f"--like {folder}: it has {flag(name)} {held['config'].get(name)} and this one {here[name]}: give the same"
            )
    return Like(folder, config, tuple(_same(folder, model)))


def _same(folder: Path, model: HookedVideoPipeline) -> list[str]:
    found = []
    for number, name in enumerate(twins.names(8)):
        held = [facts for run in folder.glob(f"*/{name}") if (facts := RunStore(run).facts()) is not None]
        if not held:
            break
        digest = content.whole(twins.twin_of(model, number).pipe)
        if all(facts["model"]["digest"] == digest for facts in held):
            found.append(name)
    return found
