"""A run on disk: what was asked (``run.json``), finished units (``shards/``), results, page.

A unit of work is one safetensors file that holds its tensors and, in its header, its rows of results, sealed with its own
digest. A killed run continues with the units that are missing or damaged and ends with the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cos_interp.analyses.driver import identity, manifest, older
from cos_interp.analyses.driver.command import flag
from cos_interp.analyses.driver.drafts import FOLDER, Drafts, dropped
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.facts import COMMON, Facts
from cos_interp.analyses.driver.lock import Writer, is_lock
from cos_interp.analyses.driver.shard import Shard
from cos_interp.interp.files import (
    BLANK,
    TEMPORARY,
    is_intact,
    is_leftover,
    read_regular,
    read_sealed_json,
    sealed,
    sealed_json,
    write_atomic,
)

if TYPE_CHECKING:  # a run is listed, shown and verified without waiting for torch
    import pandas as pd
    from torch import Tensor

Row = dict[str, Any]
Status = str  # running, failed, complete
WHOLE = ("format", "config", "model", "versions", "status")  # what every run.json says


class RunStore:
    """One run folder. ``kinds``: the records of facts that its units may hold beside the common ones. ``parts``: runs inside.

    :meth:`open` continues a run of the same identity, or starts a new one, and is its only writer; a plain store reads.
    """

    def __init__(self, folder: Path, kinds: Sequence[type[Facts]] = (), writer: Writer | None = None, parts: Sequence[str] = ()):
        self.folder, self.writer, self.parts = folder, writer, parts
        self.kinds = {kind.__name__: kind for kind in (*COMMON, *kinds)}
        self._written: dict[str, Any] | None = None  # run.json as its writer wrote it
        self.before_unit: Callable[[], None] = lambda: None  # RunError where a unit must not be stored
        self.made: Mapping[str, str] = {}  # on what kind of processor, with how many threads: kept in every unit
        self.processes = 1  # that compute units here, and have this machine's memory between them

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, folder: Path, asked: Mapping[str, Any], fresh: bool = False, kinds: Sequence[type[Facts]] = (),
        accept_versions: bool = False, derived: Iterable[str] = (), parts: Sequence[str] = (), shard: Shard | None = None,
    ) -> Iterator[RunStore]:  # fmt: skip
        """The run of an identity (see :mod:`driver.identity`), as its only writer for the length of a block; with ``shard`` the
        only one of that shard.

        An error in the block is kept in ``run.json``. Raises RunError for a folder that holds something else, names what
        differs, and changes nothing there; ``fresh`` takes a run of ours away first. Taken where another process writes.
        ``derived``: units that are made of others, and so made again when the run has grown. ``parts``: names of runs inside.
        """
        with contextlib.ExitStack() as stack:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                writer = stack.enter_context(Writer(folder, shard).holding())
                store = cls(folder, kinds, writer, parts)
                with writer.beginning() as alone:
                    store._begin(asked, fresh, accept_versions, derived, alone)
            except OSError as error:
                raise RunError(f"cannot write to {folder}: {error.strerror} (cos runs show reads a run that is there)") from error
            try:
                yield store
            except Exception as error:
                with contextlib.suppress(OSError, RunError):  # what went wrong may be the disk
                    store.set_status("failed", error=f"{type(error).__name__}: {error}")
                raise
            finally:
                store._written = None
                shutil.rmtree(store._scratch, ignore_errors=True)

    @property
    def _scratch(self) -> Path:
        shard = None if self.writer is None else self.writer.shard
        return self.folder / TEMPORARY.format(f"scratch-{'run' if shard is None else shard.tag}")

    def scratch(self) -> Path:
        """A folder for what does not outlive the writer: it is gone when the run, or this shard, has ended, or when it begins
        again. RunError where the disk refuses."""
        try:
            self._scratch.mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot write to {self.folder}: {error.strerror}") from error
        return self._scratch

    def _begin(
        self, asked: Mapping[str, Any], fresh: bool, accept_versions: bool, derived: Iterable[str], alone: bool
    ) -> None:  # fmt: skip
        """``alone``: no other shard is being written, so that what one may be at can be taken away."""
        self._refuse_strangers(fresh)
        if fresh:
            self._clear()
        held = self.facts()
        changed = [] if held is None else identity.changes(held, asked, accept_versions)
        if held is not None and held["format"] == 1:
            changed = [older.REFUSAL]
        if held is not None and changed and alone and held.get("status") == "failed" and self._starts_anew(held, asked):
            warnings.warn(f"the run in {self.folder}, which failed, starts anew: {'; '.join(changed)}", stacklevel=4)
            self._clear()
            held, changed = None, []
        if changed:
            raise RunError(
                f"{self.folder} holds another run ({'; '.join(changed)}): choose another --out, or --fresh to start again there"
            )
        if held is not None and identity.grown(held["config"], asked["config"]):
            if not alone:
                raise RunError(f"{self.folder} cannot grow while another shard of it is being written: wait until it has ended")
            for unit in derived:
                self.unit_path(unit).unlink(missing_ok=True)
        for name in (manifest.UNITS, manifest.MEDIA):
            if (self.folder / name).is_symlink():
                raise RunError(f"{self.folder / name} is a link: a run writes into folders of its own, put the folder there")
            (self.folder / name).mkdir(exist_ok=True)
        self._drop_folders(TEMPORARY.format("*") if alone else self._scratch.name)
        for name in manifest.entries(self.folder) if alone else ():
            if is_leftover(Path(name)) and not self._is_draft(name):
                (self.folder / name).unlink()
        same = held is not None and held.get("status") == "complete" and {**held, **asked} == held
        self._written = held
        told = {**asked, **_earlier(held, asked), "parts": list(self.parts), **self._state(held)}
        if not same and told != held:
            self._write_facts(told)

    def _drop_folders(self, pattern: str) -> None:
        """Take away temporary folders of writers that are no more, but for the drafts, with which a run goes on."""
        for left in self.folder.glob(pattern):
            if left.is_dir() and not left.is_symlink() and left.name != FOLDER:
                shutil.rmtree(left, ignore_errors=True)

    def _is_draft(self, name: str) -> bool:
        return Path(name).parts[0] == FOLDER and not (self.folder / FOLDER).is_symlink()

    def _state(self, held: Mapping[str, Any] | None) -> dict[str, Any]:
        """A new writer's status. Of shards, what one has met holds until all is there: the others do not know of it."""
        if self.writer is None or self.writer.shard is None:
            return {"status": "running"}
        met = {} if held is None or held.get("status") != "failed" else {"status": "failed", "error": held.get("error")}
        return {"status": "running", "shards": self.writer.shard.count} | met

    def _starts_anew(self, held: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
        """Whether a run that failed loses nothing that another command could want: it has no units, or its input was repaired."""
        repaired = not identity.changes(held, {**asked, "inputs": held["inputs"], "code": held.get("code", {})})
        return repaired or not any((self.folder / manifest.UNITS).glob("*.safetensors"))

    def _refuse_strangers(self, fresh: bool) -> None:
        """RunError where the folder holds no run of ours, or, before it is cleared, something beside it."""
        path = self.folder / manifest.RUN
        foreign = manifest.strangers(self.folder, self.parts)
        if not path.is_file() and foreign:
            raise RunError(f"{self.folder} holds no run, but {foreign[0]}: choose another --out")
        held = read_regular(path) if path.is_file() else b""
        cut = not held.strip(b"\0 \r\n") and not foreign  # what a disk may leave of one
        if path.is_file() and not cut and not manifest.was_a_run(held):
            raise RunError(f"{path} was not written by this tool: choose another --out")
        if fresh and foreign:
            raise RunError(f"--fresh would delete {foreign[0]} in {self.folder}, which is not of the run: move it away")

    def _clear(self) -> None:
        self._drop_folders(TEMPORARY.format("*"))
        dropped(self.folder)
        for name in manifest.own(self.folder, self.parts):
            if not is_lock(name):  # which is held
                (self.folder / name).unlink()

    def remove(self) -> list[str]:
        """Delete the run: its own files, and its folders when they are empty then. Returns what is left, which is somebody
        else's. RunError where there is none, for a link to one, and where another process writes it."""
        if self.folder.is_symlink():
            raise RunError(f"{self.folder} is a link: give the folder itself, {self.folder.resolve()}")
        if not (self.folder / manifest.RUN).is_file():
            raise RunError(f"{self.folder} holds no run")
        with Writer(self.folder).holding():
            with contextlib.suppress(RunError):  # damaged: what it had inside stays
                self.parts = (self.facts() or {}).get("parts", ())
            self._refuse_strangers(fresh=False)
            self._clear()
        parts = [f"{part}/{name}" for part in self.parts for name in (manifest.UNITS, manifest.MEDIA, "")]
        for name in (*parts, manifest.UNITS, manifest.MEDIA, ""):
            with contextlib.suppress(OSError):  # something else is in it
                (self.folder / name).rmdir()
        return manifest.entries(self.folder)

    # --- what the run says of itself ---------------------------------------------------------------------------

    def facts(self) -> dict[str, Any] | None:
        """``run.json``: identity and status; None where there is none. RunError when it cannot be read or is damaged. Its writer
        knows what it wrote, whatever became of the file meanwhile."""
        if self._written is not None:
            return self._written
        path = self.folder / manifest.RUN
        try:
            data = read_regular(path)
            held = read_sealed_json(data) if not older.is_of_0_1(data) else older.facts(data)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise RunError(f"{path} is damaged ({error}): start again with --fresh") from error
        if lacking := [key for key in WHOLE if key not in held]:
            raise RunError(f"{path} is damaged (it has no {lacking[0]}): start again with --fresh")
        return held

    def set_status(self, status: Status, **more: Any) -> None:
        """Mark the run, with ``error`` or ``root`` beside the status."""
        held = self.facts() or {}
        gone = ("error", "root", *(("shards", "unmade") if status == "complete" else ()))  # how it was shared out decides nothing
        self._write_facts({k: v for k, v in held.items() if k not in gone} | {"status": status, **more})

    def note_unmade(self, part: str, why: str) -> None:
        """Say of a run inside that it cannot be made, so that nobody waits for it."""
        held = self.facts() or {}
        self._write_facts({**held, "unmade": {**held.get("unmade", {}), part: why}})

    def _write_facts(self, facts: dict[str, Any]) -> None:
        self.write(manifest.RUN, sealed_json(facts))
        self._written = facts

    def write(self, name: str, data: bytes) -> None:
        """Write a file of the run; RunError names the file when the disk refuses, Taken when another process took over."""
        try:
            if self.writer is not None:
                self.writer.check()
            write_atomic(self.folder / name, data)
        except OSError as error:
            raise RunError(f"cannot write {self.folder / name}: {error.strerror}; the run can be continued") from error

    # --- units -------------------------------------------------------------------------------------------------

    def unit_path(self, unit: str) -> Path:
        return self.folder / manifest.UNITS / f"{unit}.safetensors"

    def add_unit(self, unit: str, rows: list[Row], tensors: dict[str, Tensor], facts: Facts) -> None:
        """Store a finished unit: one file, complete or absent, sealed."""
        from safetensors.torch import save

        self.before_unit()
        said = {
            "seal": BLANK,
            "unit": unit,
            "run": self._run(),
            **({"made": dict(self.made)} if self.made else {}),
            "rows": rows,
            "kind": type(facts).__name__,
            "facts": facts.model_dump(mode="json"),
        }
        header = {"unit": json.dumps(said)}  # one key: the order of several is not fixed
        packed = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        self.write(f"{manifest.UNITS}/{unit}.safetensors", sealed(save(packed, metadata=header)))
        dropped(self.folder, unit)

    def drafts(self, unit: str) -> Drafts:
        """What is finished of a unit that is not whole."""
        about = {"unit": unit, **self.making()}
        return Drafts(self.folder / FOLDER / unit, about, partial(self.write_draft, unit))

    def write_draft(self, unit: str, name: str, data: bytes) -> None:
        """Write a file of a unit's drafts. RunError where the disk refuses."""
        there = self.folder / FOLDER
        try:
            if self.writer is not None:
                self.writer.check()
            if there.is_symlink():
                raise RunError(f"{there} is a link: a run writes into folders of its own, take it away")
            for folder in (there, there / unit):  # not their parents: a run folder that is gone stays so
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot write to {there}: {error.strerror}; the run can be continued") from error
        self.write(f"{FOLDER}/{unit}/{name}", data)

    def making(self) -> dict[str, Any]:
        """What decides the bytes of a unit, as JSON holds it: the run, the versions, the kind of processor and the threads."""
        return {"run": self._run(), "made": dict(self.made), "versions": dict((self.facts() or {}).get("versions", {}))}

    def refuse_others(self, units: Iterable[str]) -> None:
        """RunError where a unit lies in the folder that is none of these: the manifest would sign it."""
        wanted = set(units)
        for path in sorted((self.folder / manifest.UNITS).glob("*.safetensors")):
            if path.stem not in wanted and not is_leftover(path):
                raise RunError(f"{path} is no unit of this run: move it away")

    def damaged(self, units: Iterable[str]) -> list[str]:
        """The units, of these, that are there and are not what was written."""
        return [unit for unit in units if self.unit_path(unit).is_file() and self._intact(unit) is None]

    def damaged_results(self) -> str | None:
        """What is wrong with the results of a finished run, in words."""
        try:
            self.read(manifest.RESULTS)
        except RunError as error:
            return str(error)
        return None

    def unit(self, unit: str) -> tuple[list[Row], Facts] | None:
        """Rows and facts of a finished unit; None when it is missing or damaged (it will be computed again).

        RunError for facts of a kind, or with fields, that this version does not have.
        """
        data = self._intact(unit)
        if data is None:
            return None
        said = _said(data)
        if "kind" not in said:
            return said["rows"], older.facts_of(self.kinds.values(), said["facts"], f"unit {unit} of {self.folder}")
        return said["rows"], self._facts(unit, said["kind"], said["facts"])

    def finished(self, unit: str) -> tuple[list[Row], Facts]:
        """Rows and facts of a unit that must be there. RunError when it is missing or damaged."""
        found = self.unit(unit)
        if found is None:
            raise self._gone(unit)
        return found

    def tensors(self, unit: str) -> dict[str, Tensor]:
        """The tensors of a unit. RunError when it is missing or damaged."""
        from safetensors.torch import load

        data = self._intact(unit)
        if data is None:
            raise self._gone(unit)
        return load(data)

    def made_on(self, unit: str) -> tuple[str, str]:
        """The kind of processor and the number of threads that a unit was made with; "" where it does not say."""
        with self.unit_path(unit).open("rb") as file:
            size = file.read(8)
            made = _said(size + file.read(int.from_bytes(size, "little"))).get("made", {})
        return made.get("processor", ""), made.get("threads", "")

    def _gone(self, unit: str) -> RunError:
        return RunError(f"unit {unit} of {self.folder} is missing or damaged: run the same command again")

    def _run(self, unset: bool = False) -> str:
        """What the units of a run share: digest of all that decides their numbers. Items may grow, and versions be accepted.

        A setting that is not set is left out, so that one which a later version adds makes no unit another run's. ``unset``: with
        those, as the first units of 0.2 have it.
        """
        facts = self.facts() or {}
        inputs = facts.get("inputs", {})
        beside = (*identity.GROWING, *identity.ELSEWHERE)
        config = {k: v for k, v in facts.get("config", {}).items() if k not in beside and flag(k) not in inputs}
        config = {k: v for k, v in config.items() if unset or v is not None}
        about = [facts.get("analysis"), config, facts.get("model", {}).get("parts"), inputs]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def _own(self, unit: str, data: bytes) -> bool:
        """Whether an intact unit is that of this name, and of this run."""
        said = _said(data)
        return said.get("unit") == unit and (said.get("run") == self._run() or said.get("run") == self._run(unset=True))

    def _intact(self, unit: str) -> bytes | None:
        """The bytes of a unit, None where they are not those that were written here; of 0.1, the manifest has its digest."""
        try:
            data = read_regular(self.unit_path(unit))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunError(f"unit {unit} of {self.folder} cannot be read: {error.strerror}") from error
        if is_intact(data):
            return data if self._own(unit, data) else None
        return data if older.is_intact(self.folder, f"{manifest.UNITS}/{unit}.safetensors", data) else None

    def _facts(self, unit: str, kind: str, held: Any) -> Facts:
        again = "run the same command again with --fresh"
        if kind not in self.kinds:
            raise RunError(f"unit {unit} of {self.folder} holds {kind}, and can hold {', '.join(self.kinds)}: {again}")
        try:
            return self.kinds[kind].model_validate(held)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or kind}: {e['msg']}" for e in error.errors())
            raise RunError(f"unit {unit} of {self.folder} does not hold what {kind} says ({wrong}): {again}") from error

    # --- the end -----------------------------------------------------------------------------------------------

    def write_results(self, rows: pd.DataFrame) -> None:
        self.write(manifest.RESULTS, rows.to_parquet(index=False))

    def write_page(self, files: Mapping[str, bytes]) -> None:
        """Write a page and what belongs to it, by name; what an earlier page showed and this one does not is taken away."""
        before = manifest.page_files(self.folder)
        self.write(manifest.PAGE, manifest.page(self.folder, files))  # first: a file that is listed is ours
        for name, data in files.items():
            self.write(name, data)
        for name in set(before) - set(files):
            (self.folder / name).unlink(missing_ok=True)

    def judged_by(self, rules: str) -> None:
        """Say of a finished run by which rules it was judged last, by their digest; all else of ``run.json`` stays. One of 0.1
        stays whole: its list has no seal to renew."""
        held = self.facts() or {}
        if not older.is_of_0_1(read_regular(self.folder / manifest.RUN)) and held["versions"].get("rules") != rules:
            self._write_facts(held | {"versions": held["versions"] | {"rules": rules}})

    def complete(self, **more: Any) -> None:
        """List units and results with their digests, then mark the run complete, in this order."""
        lines = manifest.made(self.folder, self.parts)
        self.write(manifest.MANIFEST, lines)
        dropped(self.folder)
        self.set_status("complete", root=manifest.root(lines), **more)

    def read(self, name: str) -> bytes:
        """A file of a finished run that its lists name. RunError when it is missing or not what was written."""
        try:
            wanted = manifest.digest_of(self.folder, name)
        except RunError as error:
            raise RunError(f"{self.folder}: {error}") from error
        try:
            data = read_regular(self.folder / name)
        except OSError as error:
            raise RunError(f"{self.folder / name} cannot be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != wanted:
            raise RunError(f"{self.folder / name} has been changed since it was written: see cos runs verify {self.folder}")
        return data

    def verify(self) -> list[str]:
        """Problems with the run's files; empty when the run is complete and everything in it is as it was written."""
        return manifest.problems(self.folder)


def _earlier(held: Mapping[str, Any] | None, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The versions that a run was begun with, where it goes on with others: its units may be of either."""
    known = [*asked.get("earlier", []), *([] if held is None else [*held.get("earlier", []), held["versions"]])]
    others = [versions for n, versions in enumerate(known) if versions != asked["versions"] and versions not in known[:n]]
    return {"earlier": others} if others else {}


def _said(data: bytes) -> dict[str, Any]:
    """Rows and facts in the header of a unit's safetensors file: its length in 8 bytes, then JSON."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["unit"])
