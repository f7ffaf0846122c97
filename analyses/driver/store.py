"""A run on disk: what was asked (``run.json``), finished units (``shards/`` + ``manifest.jsonl``), results, report.

A unit of work is one safetensors file that holds its tensors and, in its header, its rows of results. A killed run
continues with the units that are missing and ends with the same bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors
from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor

from cos_interp.analyses.driver.facts import COMMON, Facts
from cos_interp.interp.files import digest, write_atomic

Row = dict[str, Any]
FORMAT = 2  # of a run folder: a run of another is not read


class RunError(RuntimeError):
    """A run folder that cannot be used as asked."""


class RunStore:
    """One run folder. ``open`` continues a run of the same configuration, or starts a new one.

    ``kinds``: the records of facts that its units may hold beside the common ones.
    """

    def __init__(self, folder: Path, kinds: Sequence[type[Facts]] = ()):
        self.folder = folder
        self.kinds: dict[str, type[Facts]] = {kind.__name__: kind for kind in (*COMMON, *kinds)}

    @classmethod
    def open(cls, folder: Path, facts: dict[str, Any], fresh: bool = False, kinds: Sequence[type[Facts]] = ()) -> RunStore:
        """``facts`` say what the run computes; RunError when the folder holds a run of other facts, unless ``fresh``."""
        store = cls(folder, kinds)
        try:
            if fresh and (folder / "run.json").is_file():
                shutil.rmtree(folder)
            folder.mkdir(parents=True, exist_ok=True)
            held = store.facts()
            if held is None and any(folder.iterdir()):
                raise RunError(f"{folder} is not empty and holds no run: choose another --out")
            if held is not None and {**held, "status": ""} != {**facts, "status": ""}:
                changed = sorted(k for k in {*held, *facts} - {"status"} if held.get(k) != facts.get(k))
                raise RunError(
                    f"{folder} holds a run with other settings ({', '.join(changed)}): choose another --out, or --fresh"
                )
            (folder / "shards").mkdir(exist_ok=True)
            (folder / "media").mkdir(exist_ok=True)
            if held is None or held["status"] != "complete":
                store.write_json("run.json", {**facts, "status": "running"})
        except OSError as error:
            raise RunError(f"cannot write to {folder}: {error.strerror}") from error
        return store

    def facts(self) -> dict[str, Any] | None:
        """What ``run.json`` says of the run; None where there is none. RunError when it is damaged, or another program's."""
        path = self.folder / "run.json"
        try:
            held = json.loads(path.read_bytes()) if path.is_file() else None
        except (ValueError, RecursionError) as error:
            raise RunError(f"{path} is damaged ({error}); start again with --fresh") from error
        if held is not None and not (isinstance(held, dict) and isinstance(held.get("status"), str)):
            raise RunError(f"{path} is no run's: it holds {_shortly(held)}, and no object with a status; give a run folder")
        return held

    def write_json(self, name: str, value: Any) -> None:
        self.write(name, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())

    def write(self, name: str, data: bytes) -> None:
        """Write a file of the run; RunError names the file when the disk refuses."""
        try:
            write_atomic(self.folder / name, data)
        except OSError as error:
            raise RunError(f"cannot write {self.folder / name}: {error.strerror}; the run can be continued") from error

    # --- units -------------------------------------------------------------------------------------------------

    def unit_path(self, unit: str) -> Path:
        return self.folder / "shards" / f"{unit}.safetensors"

    def add_unit(self, unit: str, rows: list[Row], tensors: dict[str, Tensor], facts: Facts) -> None:
        """Store a finished unit: one file, complete or absent."""
        said = {"rows": rows, "kind": type(facts).__name__, "facts": facts.model_dump(mode="json")}
        header = {"unit": json.dumps(said)}  # one key: the order of several is not fixed
        packed = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        self.write(f"shards/{unit}.safetensors", save(packed, metadata=header))

    def unit(self, unit: str) -> tuple[list[Row], Facts] | None:
        """Rows and facts of a finished unit; None when it is missing or damaged (it will be computed again).

        RunError for facts of a kind, or with fields, that this version does not have.
        """
        path = self.unit_path(unit)
        if not path.is_file():
            return None
        try:
            with safetensors.safe_open(path, "pt") as handle:
                held = json.loads(handle.metadata()["unit"])
            rows, kind, facts = held["rows"], held["kind"], held["facts"]
        except (safetensors.SafetensorError, KeyError, TypeError, json.JSONDecodeError):
            path.unlink()
            return None
        return rows, self._facts(unit, kind, facts)

    def finished(self, unit: str) -> tuple[list[Row], Facts]:
        """Rows and facts of a unit that must be there. RunError when it is missing or damaged."""
        found = self.unit(unit)
        if found is None:
            raise RunError(f"unit {unit} of {self.folder} is missing or damaged: run the same command again")
        return found

    def _facts(self, unit: str, kind: str, held: Any) -> Facts:
        again = "run the same command again with --fresh"
        if kind not in self.kinds:
            raise RunError(f"unit {unit} of {self.folder} holds {kind}, and can hold {', '.join(self.kinds)}: {again}")
        try:
            return self.kinds[kind].model_validate(held)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or kind}: {e['msg']}" for e in error.errors())
            raise RunError(f"unit {unit} of {self.folder} does not hold what {kind} says ({wrong}): {again}") from error

    def tensors(self, unit: str) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        return load_file(self.unit_path(unit))

    # --- the end -----------------------------------------------------------------------------------------------

    def write_results(self, rows: pd.DataFrame) -> None:
        self.write("results.parquet", rows.to_parquet(index=False))

    def complete(self, facts: dict[str, Any]) -> None:
        """List every file with its digest, then mark the run complete, in this order."""
        self.write("manifest.jsonl", "".join(json.dumps(line) + "\n" for line in self._manifest()).encode())
        self.write_json("run.json", {**facts, "status": "complete"})

    def _manifest(self) -> list[dict[str, Any]]:
        lines = []
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            name = path.relative_to(self.folder).as_posix()
            if name in {"run.json", "manifest.jsonl", "log.jsonl"} or path.name.startswith("."):
                continue
            line: dict[str, Any] = {"file": name, "sha256": digest(path), "bytes": path.stat().st_size}
            if path.suffix == ".safetensors":
                with safetensors.safe_open(path, "pt") as handle:
                    parts = {key: handle.get_slice(key) for key in handle.keys()}  # noqa: SIM118
                    axes = json.loads(handle.metadata()["unit"])["facts"]["axes"]
                    line["tensors"] = {
                        k: {"dtype": v.get_dtype(), "shape": v.get_shape(), "axes": axes.get(k)} for k, v in parts.items()
                    }
            lines.append(line)
        return lines

    def verify(self) -> list[str]:
        """Problems with the run's files; empty when every digest holds and the run is complete."""
        facts = self.facts()
        if facts is None:
            return [f"{self.folder} holds no run"]
        if facts["status"] != "complete":
            return [f"the run is {facts['status']}: continue it with the same command"]
        try:
            lines = [json.loads(line) for line in (self.folder / "manifest.jsonl").read_bytes().splitlines()]
            listed = [(str(line["file"]), line["sha256"]) for line in lines]
        except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
            return [f"manifest.jsonl is missing or damaged: {error!r}"]
        return [problem for name, sha256 in listed if (problem := self._problem(name, sha256))]

    def _problem(self, name: str, sha256: str) -> str | None:
        """What is wrong with a listed file; None when it is as it was."""
        try:
            path = (self.folder / name).resolve()
        except ValueError:
            return f"{name!r} is no file's name"
        if not path.is_relative_to(self.folder.resolve()):
            return f"{name} leads out of the run folder"
        if not path.is_file():
            return f"{name} is missing"
        return None if digest(path) == sha256 else f"{name} has been changed since the run"


def _shortly(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:80]}..."
