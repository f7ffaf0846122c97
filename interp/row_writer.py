"""Writing activations by token as shards of bounded size, so that a killed export goes on and ends with the same bytes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cos_interp.interp.errors import InterpError
from cos_interp.interp.files import digest, read_sealed_json, sealed_json, write_atomic
from cos_interp.interp.row_format import (
    FORMAT,
    INDEX,
    INDEX_BYTES,
    MANIFEST,
    index_of,
    item_path,
    packed,
    read,
    said_of,
    shard_path,
)  # fmt: skip
from cos_interp.interp.streaming import Rows

Position = tuple[int, int]  # item, row among all rows of that item


@dataclass
class _Held:
    """Rows of one name that wait for their shard."""

    values: list[Tensor] = field(default_factory=list)
    index: list[Tensor] = field(default_factory=list)


class RowWriter:
    """Cuts a stream of rows into shards of at most ``size`` bytes of values and columns, which is all that waits in memory.

    Begin an item with :meth:`begin`, give its rows to :meth:`take` in the order of computing, end it with :meth:`end`; then
    :meth:`finish`. ``items`` are those that need to run: what the shards of an earlier, killed writer hold is not written again.
    """

    def __init__(self, folder: Path, size: int):
        self.folder, self.size = folder, size
        self.kinds: dict[str, dict[str, Any]] = {}  # name -> width, its axes and their sizes, type
        self.shards, self.start = _there(folder, self.kinds)
        self.held: dict[str, _Held] = {}
        self.bytes, self.item, self.seen = 0, 0, 0
        self.first = self.start  # of the next shard

    def items(self, count: int) -> Iterator[int]:
        """Numbers of the items that still have rows or a record to be written."""
        return (n for n in range(count) if n >= self.start[0] or not _intact(self.folder / item_path(n)))

    def begin(self, item: int) -> None:
        self.item, self.seen = item, 0

    def take(self, rows: Rows) -> None:
        """Rows of the item that was begun. InterpError for a name whose rows have another width or type than before."""
        kind = {"width": rows.values.shape[1], "axes": list(rows.axes), "sizes": list(rows.sizes)}
        kind |= {"dtype": str(rows.values.dtype).removeprefix("torch.")}
        if self.kinds.setdefault(rows.name, kind) != kind:
            raise InterpError(f"{rows.name} has rows of {kind}, and {self.kinds[rows.name]} in items before: export these apart")
        begin, self.seen = self.seen, self.seen + len(rows.values)
        there = self.start[1] if self.item == self.start[0] else self.seen if self.item < self.start[0] else 0
        place = min(max(there - begin, 0), len(rows.values))
        each = rows.values.shape[1] * rows.values.element_size() + INDEX_BYTES
        while place < len(rows.values):
            room = (self.size - self.bytes) // each
            if room < 1 and self.held:
                self._flush((self.item, begin + place))
                continue
            part = slice(place, place + max(room, 1))
            self._hold(rows, part, each)
            place = min(part.stop, len(rows.values))

    def _hold(self, rows: Rows, part: slice, each: int) -> None:
        mine = self.held.setdefault(rows.name, _Held())
        values = rows.values[part].to("cpu", copy=True)
        mine.values.append(values)
        mine.index.append(index_of(self.item, rows.step, rows.branch, rows.place[part]))
        self.bytes += len(values) * each

    def _flush(self, following: Position) -> None:
        tensors: dict[str, Tensor] = {}
        for name in sorted(self.held):
            mine = self.held.pop(name)
            tensors |= {name: torch.cat(mine.values), name + INDEX: torch.cat(mine.index)}
        rows = {name: len(values) for name, values in tensors.items() if name in self.kinds}
        said = {"first": list(self.first), "next": list(following), "rows": rows, "names": self.kinds}
        write_atomic(self.folder / shard_path(self.shards), packed(tensors, said))
        self.shards, self.first, self.bytes = self.shards + 1, following, 0

    def end(self, labels: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """The item that was begun is whole: keep its labels ``[frame, row, col]`` and what is said of it, with its ``schedule``,
        columns by step."""
        write_atomic(self.folder / item_path(self.item), packed(labels, about))

    def finish(self, count: int, about: Mapping[str, Any]) -> None:
        """Write the rows that wait, and the manifest of ``count`` items, which makes the export complete."""
        if self.held:
            self._flush((count, 0))
        names = [shard_path(n) for n in range(self.shards)] + [item_path(n) for n in range(count)]
        sizes = [(name, self.folder / name) for name in names]
        files = [{"name": name, "bytes": path.stat().st_size, "sha256": digest(path)} for name, path in sizes]
        schedules: list[Any] = []  # noise levels of the steps, which many items share
        items = [said_of(self.folder / item_path(n)) for n in range(count)]
        for item in items:
            schedule = item.pop("schedule")
            if schedule not in schedules:
                schedules.append(schedule)
            item["schedule"] = schedules.index(schedule)
        shards = [said_of(self.folder / shard_path(n)) for n in range(self.shards)]
        kinds = {name: kind for shard in shards for name, kind in shard["names"].items()}
        whole = {**about, "format": FORMAT, "names": kinds, "shards": [shard["rows"] for shard in shards], "items": items}
        write_atomic(self.folder / MANIFEST, sealed_json({**whole, "schedules": schedules, "files": files}))


def problems(folder: Path) -> list[str]:
    """What is wrong with the files of a finished export, in words. InterpError where there is none that is finished."""
    found = []
    for file in manifest(folder)["files"]:
        path = folder / file["name"]
        if not path.is_file():
            found.append(f"{file['name']} is missing")
        elif digest(path) != file["sha256"]:
            found.append(f"{file['name']} is not what was written")
    return found


def manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished export. InterpError where there is none, and for one that was changed."""
    path = Path(folder) / MANIFEST
    try:
        held = read_sealed_json(path.read_bytes())
    except FileNotFoundError:
        raise InterpError(f"{folder} holds no finished export of activations: run its command again until it is done") from None
    except (OSError, ValueError) as error:
        raise InterpError(f"{path} is damaged ({error}): run the export again into the same folder") from error
    if held.get("format") != FORMAT:
        raise InterpError(f"{path} is no manifest of exported activations")
    return held


def _there(folder: Path, kinds: dict[str, dict[str, Any]]) -> tuple[int, Position]:
    """How many shards an earlier writer left whole, and where in the stream they end; damaged ones, and those after them, go.
    ``kinds`` gets the names that they hold."""
    following: Position = (0, 0)
    paths = sorted((folder / shard_path(0)).parent.glob("*.safetensors"))
    for number, path in enumerate(paths):
        said = _intact(path) if path == folder / shard_path(number) else None
        if said is None or tuple(said["first"]) != following:
            warnings.warn(f"{path} is damaged or out of order: it and what follows it is computed again", stacklevel=3)
            for later in paths[number:]:
                later.unlink()
            return number, following
        following = (said["next"][0], said["next"][1])
        kinds |= said["names"]
    return len(paths), following


def _intact(path: Path) -> dict[str, Any] | None:
    """What is said of a file that is as it was written; None for another."""
    try:
        return read(path)[1]
    except InterpError:
        return None
