"""The numbers behind a page of findings as one JSON file: read by other programs, and kept where the runs themselves are gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cos_interp.analyses.dossier.together import Told, joined
from cos_interp.analyses.driver.errors import RunError

FILE: TypeAdapter[list[Told]] = TypeAdapter(list[Told])


def read(path: Path) -> list[Told]:
    """What :func:`written` wrote; nothing where there is no file. RunError for a file of something else."""
    if not path.exists():
        return []
    try:
        return FILE.validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise RunError(f"{path} holds no numbers of findings: {str(error).splitlines()[0]}") from error


def written(dossiers: Sequence[Told]) -> bytes:
    """The file: a list of dossiers, each with its experiments and their findings, without the numbers of single items."""
    return FILE.dump_json([_whole(one) for one in dossiers], indent=1) + b"\n"


def _whole(one: Told) -> Told:
    short = {
        name: unit.model_copy(update={"findings": tuple(replace(found, items=()) for found in unit.findings)})
        for name, unit in one.units.items()
    }
    return replace(one, units=short)


def added(kept: Sequence[Told], now: Sequence[Told]) -> list[Told]:
    """What was kept, in its order, with the experiments of new dossiers in the place of the same ones of the same model."""
    again = {(one.label, name) for one in now for name in one.units}
    left = [_only(one, [name for name in one.units if (one.label, name) not in again]) for one in kept]
    order = {one.label: place for place, one in reversed(list(enumerate(kept)))}
    found = joined([one for one in left if one.units] + list(now))
    return sorted(found, key=lambda one: order.get(one.label, len(order)))


def _only(one: Told, names: Sequence[str]) -> Told:
    rules = {name: digest for name, digest in one.rules.items() if name in names}
    return replace(one, units={name: one.units[name] for name in names}, rules=rules)
