"""Shards that were made in folders of their own, by other processes or on other machines, put together in one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cos_interp.analyses.driver import identity, manifest
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.loaded import facts_of
from cos_interp.analyses.driver.store import RunStore
from cos_interp.interp.files import digest, is_intact, is_leftover, read_regular


@dataclass(frozen=True)
class Merged:
    """``units``: of the run and of its twins. ``copied``: of them, those that were not there before."""

    folder: Path
    units: int
    copied: int


def merge(sources: Sequence[Path], out: Path) -> Merged:
    """Put the units of several folders of one run into ``out``, which may be one of them, or hold some already.

    A damaged unit is named and left out. RunError, before anything is written, for folders of other settings, models, inputs,
    rules or versions, and for a unit that two folders hold with other bytes; each is named.
    """
    folders = list(dict.fromkeys([*([out] if (out / manifest.RUN).is_file() else []), *sources]))
    held = [facts_of(folder) for folder in folders]
    _one_run(folders, held)
    parts = sorted({part for facts in held for part in facts.get("parts", ())})
    inner = {part: [folder / part for folder in folders if (folder / part / manifest.RUN).is_file()] for part in parts}
    for part in parts:
        _one_run(inner[part], [facts_of(folder) for folder in inner[part]])
    found = {"": _units(folders), **{part: _units(inner[part]) for part in parts}}
    main = _put(found[""], held, out, parts)
    twins = [_put(found[part], [facts_of(one) for one in inner[part]], out / part, ()) for part in parts if inner[part]]
    every = [main, *twins]
    return Merged(out, sum(one.units for one in every), sum(one.copied for one in every))


def _one_run(folders: Sequence[Path], held: Sequence[Mapping[str, Any]]) -> None:
    """RunError for folders that are not of one run, with what differs."""
    for folder, facts in zip(folders, held, strict=True):
        if facts["format"] == 1:
            raise RunError(f"{folder} holds a run of version 0.1, which is not joined to others")
        for here, there in ((held[0], facts), (facts, held[0])):  # items may grow, but only one way
            if changed := identity.changes(here, there):
                raise RunError(f"{folder} holds another run than {folders[0]} ({'; '.join(changed)}): merge those of one command")


def _units(folders: Sequence[Path]) -> dict[str, Path]:
    """A file of every unit that one of some folders holds. RunError for one that two hold with other bytes."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in _intact(folder):
            first = found.setdefault(path.stem, path)
            if first != path and digest(first) != digest(path):
                raise RunError(_differs(first, path))
    return found


def _intact(folder: Path) -> Iterator[Path]:
    store = RunStore(folder)
    paths = [path for path in sorted((folder / manifest.UNITS).glob("*.safetensors")) if not is_leftover(path)]
    damaged = set(store.damaged(path.stem for path in paths))
    for path in paths:
        if path.stem in damaged:
            warnings.warn(f"{path} is damaged, or of another run: it is left out", stacklevel=4)
        else:
            yield path


def _differs(one: Path, other: Path) -> str:
    made = [RunStore(path.parent.parent).made_on(path.stem) for path in (one, other)]
    told = [f"{kind or 'a processor that was not noted'}, {threads or '?'} threads" for kind, threads in made]
    why = f"they were made on {told[0]} and {told[1]}" if made[0] != made[1] else f"both were made on {told[0]}"
    return f"unit {one.stem} lies in {one} and in {other} with other bytes ({why}): delete the one that is not to count"


def _put(units: Mapping[str, Path], held: Sequence[Mapping[str, Any]], out: Path, parts: Sequence[str]) -> Merged:
    """Copy what ``out`` does not have. It is then a run that is not finished, shared out as the last folder was."""
    earlier = [versions for facts in held for versions in facts.get("earlier", [])]
    asked = {key: held[0][key] for key in identity.KEYS if key in held[0]} | ({"earlier": earlier} if earlier else {})
    shards = [facts["shards"] for facts in held if "shards" in facts]
    with RunStore.open(out, asked, parts=parts) as store:
        new = [unit for unit in units if units[unit] != store.unit_path(unit)]
        copied = [unit for unit in new if not store.unit_path(unit).is_file()]
        for unit in copied:
            data = read_regular(units[unit])
            if not is_intact(data):
                raise RunError(f"{units[unit]} was changed while it was copied: merge again")
            store.write(f"{manifest.UNITS}/{unit}.safetensors", data)
        if copied or (store.facts() or {}).get("status") != "complete":
            state = {key: facts[key] for facts in held if facts.get("status") == "failed" for key in ("status", "error")}
            unmade = {part: why for facts in held for part, why in facts.get("unmade", {}).items()}
            more = ({"shards": shards[-1]} if shards else {}) | ({"unmade": unmade} if unmade else {})
            store.set_status(**({"status": "running"} | state), **more)
    return Merged(out, len(units), len(copied))
