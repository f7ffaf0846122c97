"""Files that a reader can trust: written whole or not at all, and sealed with their own digest."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SEAL = "seal:"
BLANK = SEAL + "0" * 64  # what a file holds in place of its seal while its digest is taken
TEMPORARY = ".cos-{}.tmp"  # what an interrupted write leaves behind


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside under a name of its own, sync, rename, sync the folder. On any error the old file is intact and nothing is
    left behind; writers of one path do not disturb each other, and the last one stays."""
    temporary = path.with_name(TEMPORARY.format(secrets.token_hex(8)))
    try:
        with temporary.open("xb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the disk keep the names in a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, whose entries come into ``folder`` at the end of the block, folders before files; on an error in it
    none does. FileExistsError for one that is there already. What an interrupted block left in ``folder`` is taken away."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(TEMPORARY.format("*")):
        shutil.rmtree(left, ignore_errors=True)
    made = folder / TEMPORARY.format(secrets.token_hex(8))
    made.mkdir()
    try:
        yield made
        entries = sorted(made.iterdir(), key=lambda entry: (entry.is_file(), entry.name))
        if there := [entry.name for entry in entries if (folder / entry.name).exists()]:
            raise FileExistsError(f"{folder / there[0]} is there already")
        for entry in entries:
            entry.rename(folder / entry.name)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def is_leftover(path: Path) -> bool:
    """Whether a file is what a write that was killed left behind, or lies in a folder that is."""
    return any(part.match(TEMPORARY.format("*")) for part in map(Path, path.parts))


def read_regular(path: Path) -> bytes:
    """The bytes of a file. OSError for anything but a regular one: a pipe would block, a device never end."""
    _regular(path)
    return path.read_bytes()


def _regular(path: Path) -> None:
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


# --- seals ---------------------------------------------------------------------------------------------------------


def sealed(data: bytes) -> bytes:
    """``data`` with its own digest in place of the first ``BLANK`` in it. ValueError where it holds none."""
    place = data.index(BLANK.encode())
    return _stamped(data, place, hashlib.sha256(data).hexdigest())


def is_intact(data: bytes) -> bool:
    """Whether the bytes are those that were sealed: any changed, missing or added byte says no."""
    place = data.find(SEAL.encode())
    if place < 0:
        return False
    held = data[place + len(SEAL) : place + len(BLANK)]
    blank = _stamped(data, place, "0" * 64)
    return hashlib.sha256(blank).hexdigest().encode() == held


def _stamped(data: bytes, place: int, digits: str) -> bytes:
    return data[:place] + (SEAL + digits).encode() + data[place + len(BLANK) :]


def sealed_json(value: dict[str, Any]) -> bytes:
    """A JSON object as the bytes of a file, with its seal as the first key. ValueError for what JSON cannot hold (NaN too)."""
    ordered = {"seal": BLANK, **{key: value[key] for key in sorted(value) if key != "seal"}}
    return sealed((json.dumps(ordered, indent=1, allow_nan=False) + "\n").encode())


def read_sealed_json(data: bytes) -> dict[str, Any]:
    """The object in the bytes of :func:`sealed_json`, without its seal. ValueError when they are not what was sealed."""
    if not is_intact(data):
        raise ValueError("its seal does not fit its content: it was changed or cut, or another program wrote it")
    value = json.loads(data)
    del value["seal"]
    return value


def plain(value: Any) -> Any:
    """The value with None for numbers that JSON has no word for (NaN and the infinities)."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- digests -------------------------------------------------------------------------------------------------------


def digest(path: Path) -> str:
    """sha256 of a file. OSError for anything but a regular one."""
    _regular(path)
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def weights_digest(folder: Path) -> str:
    """sha256 over the names and contents of a model folder's weights and configs, in sorted order."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in {".safetensors", ".xz", ".json"}):
        if path.name != "card.json":
            total.update(f"{path.relative_to(folder).as_posix()} {digest(path)}\n".encode())
    return total.hexdigest()
