"""Runs that are laid beside each other: their names, their items, and which items of two runs are the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.loaded import LoadedRun
from cos_interp.analyses.driver.registry import entries

ITEMS = ("pair", "problem")  # columns that name the items of a run
OF_AN_ITEM = ("prompt", "prompts", "donor_prompt", "item_seed", "tried")  # facts of a pair by which it is known
FOUND = ("item_seed", "tried")  # of these, what says which pair was found


@dataclass(frozen=True)
class Side:
    """One run with a short name of its own."""

    name: str
    run: LoadedRun
    _keys: dict[str, str | None] = field(default_factory=dict, repr=False)

    @property
    def item(self) -> str | None:
        """The column of its rows that names the items; None where they have none."""
        return next((name for name in ITEMS if name in self.run.rows and self.run.rows[name].notna().any()), None)

    @cached_property
    def sigmas(self) -> dict[int, float]:
        """Noise level of every step that its rows are about."""
        rows = self.run.rows
        if not {"step", "sigma"} <= set(rows):
            return {}
        known = rows[["step", "sigma"]].dropna().drop_duplicates("step")
        return {int(step): float(sigma) for step, sigma in zip(known.step, known.sigma, strict=True)}

    @cached_property
    def layers(self) -> int | None:
        """How many layers the model has, by which a layer has a relative depth; None where the run does not say."""
        rows, said = self.run.rows, self.run.facts["model"].get("layers")
        if said is None and "layers" in rows and rows.layers.notna().any():
            said = rows.layers.max()
        if said is None and "layer" in rows and rows.layer.notna().any() and getattr(self.run.config, "layers", None) is None:
            said = rows.layer.max() + 1  # all were measured
        return None if said is None else int(said)

    def key(self, item: str) -> str | None:
        """What an item is, so that two runs have the same one where this is equal; None where it is not known."""
        if item not in self._keys:
            self._keys[item] = self._key(item)
        return self._keys[item]

    def _key(self, item: str) -> str | None:
        facts = self.run.facts
        given = [getattr(self.run.config, "confirm", False), facts.get("inputs", {}), facts.get("code", {})]
        if not self._searched(item):
            return json.dumps([*given, item], sort_keys=True)
        found = dict(self._of_pair(item))
        if not set(found) & set(FOUND):
            return None
        return json.dumps([*given, item, self.run.config.seed, sorted(found.items())], sort_keys=True)

    def _searched(self, item: str) -> bool:
        """Whether an item is a pair that was looked for among many, so that another model may have found another."""
        config = self.run.config
        if getattr(config, "pair_file", None) is not None:
            return False
        return self.item == "pair" or hasattr(config, "pair_kinds") or item.rpartition("-")[0] not in self._tasks

    @cached_property
    def _tasks(self) -> set[str]:
        """What the names of items begin with that are the same in every run: of a task, and of the user's own prompts."""
        rows = self.run.rows
        return {"prompt", *getattr(self.run.config, "tasks", ()), *(rows.task.dropna() if "task" in rows else ())}

    def _of_pair(self, item: str) -> Iterator[tuple[str, str]]:
        """What the facts of a pair's unit say of it, by where they say it."""
        for unit in (item, f"{item}-pair"):
            if unit in self.run.units:
                yield from _gathered(self.run.facts_of(unit).model_dump(mode="json"))


def _gathered(facts: Any, at: str = "") -> Iterator[tuple[str, str]]:
    for name, value in facts.items() if isinstance(facts, Mapping) else ():
        if name in OF_AN_ITEM and value is not None:
            yield f"{at}{name}", json.dumps(value)
        yield from _gathered(value, f"{at}{name}.")


def sides(runs: Sequence[LoadedRun]) -> list[Side]:
    """Runs of one experiment, named by as much of their folders as tells them apart. RunError for fewer than two, for one run
    twice, for dossiers, and for runs of several experiments."""
    if len(runs) < 2:
        raise RunError("one run is nothing to compare: give two or more run folders")
    if len({run.name for run in runs}) > 1:
        said = ", ".join(f"{run.folder} is of {run.name}" for run in runs)
        raise RunError(f"runs of one experiment can be compared ({said})")
    if runs[0].name not in entries():
        raise RunError(f"{runs[0].folder} is a dossier: compare the runs in it, like {runs[0].folder}/recovery")
    folders = [run.folder.resolve() for run in runs]
    if twice := next((folder for place, folder in enumerate(folders) if folder in folders[:place]), None):
        raise RunError(f"{twice} is given twice")
    return [Side(name, run) for name, run in zip(names(folders), runs, strict=True)]


def names(folders: Sequence[Path]) -> list[str]:
    """The last parts of some folders, as few as tell them all apart.

    >>> names([Path("/a/x/noise"), Path("/a/y/noise")]), names([Path("/a/base"), Path("/a/young")])
    (['x/noise', 'y/noise'], ['base', 'young'])
    """
    parts = 1
    while len(set(found := ["/".join(folder.parts[-parts:]) for folder in folders])) < len(folders):
        parts += 1
    return found
