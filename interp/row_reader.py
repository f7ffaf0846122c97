"""Exported activations as a data set of torch: a row a token, with its columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from torch.utils.data import Dataset

from cos_interp.interp.errors import InterpError
from cos_interp.interp.row_format import BRANCH_NUMBERS, COLUMNS, INDEX, item_path, read, shard_path
from cos_interp.interp.row_writer import manifest
from cos_interp.interp.scalars import whole

NO_LABEL = -1
HELD = 256  # items whose labels are held


MOST_TOLD = 20  # values of a column that an error names


def _several(wanted: Any) -> list[Any]:
    """One value, or several, as a list."""
    return [wanted] if isinstance(wanted, str) or np.ndim(wanted) == 0 else list(wanted)


class ActivationRows(Dataset[dict[str, Any]]):
    """The rows of one hook name in an export: ``rows[i]`` is a dictionary with ``x``, the activation ``[width]``, and the columns
    ``item`` (its number), ``clip`` (its name), ``task``, ``seed``, ``status`` (the verdict, empty without one), ``step``,
    ``sigma``, ``layer``, ``site``, ``branch``, ``frame``, ``row``, ``col``, and one for each of ``labels`` (-1: no label).

    ``where`` takes rows by their columns alone, each one value or several: ``{"step": [0, 5], "branch": "cond"}``. It is pickled
    without open files, so that workers of a DataLoader open them themselves. Every file is checked against its
    digest when a process first opens it; ``check=False`` trusts the disk. Raises InterpError for a folder without a finished
    export, for a name, column or label that it does not have, and for a damaged file.
    """

    def __init__(
        self,
        folder: str | Path,
        name: str,
        where: Mapping[str, Any] | None = None,
        labels: Sequence[str] = (),
        check: bool = True,
    ):
        self.folder, self.name, self.check = Path(folder), name, check
        self.manifest = manifest(self.folder)
        if name not in self.manifest["names"]:
            raise InterpError(f"{name!r} was not exported; there are {', '.join(self.manifest['names'])}")
        if unknown := [label for label in labels if label not in self.manifest["labels"]]:
            raise InterpError(f"no label {unknown[0]!r}; there are {', '.join(self.manifest['labels']) or 'none'}")
        self.labels = tuple(labels)
        parts = name.split(".")
        self.layer = int(parts[1]) if parts[0] == "blocks" else -1
        self.site = ".".join(parts[2:]) if parts[0] == "blocks" else name
        self._files: dict[int, Any] = {}
        self._items: dict[int, dict[str, np.ndarray]] = {}
        self.shards = [n for n, rows in enumerate(self.manifest["shards"]) if rows.get(name)]
        seen: dict[str, set[Any]] = {}
        self.chosen = [self._selected(shard, where or {}, seen) for shard in self.shards]
        for column, values in seen.items():
            if strange := [value for value in _several((where or {})[column]) if value not in values]:
                there = ", ".join(map(str, sorted(values)[:MOST_TOLD])) + (", ..." if len(values) > MOST_TOLD else "")
                raise InterpError(f"where: no row of {name} has {column} {strange[0]!r}; there are {there}")
        self.ends = np.cumsum([self._count(n) for n in range(len(self.shards))], dtype=int)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}, "_items": {}}

    def __repr__(self) -> str:
        return f"ActivationRows({self.name}: {len(self)} rows of {self.width} from {self.folder})"

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    @property
    def width(self) -> int:
        return self.manifest["names"][self.name]["width"]

    def __getitem__(self, place: int) -> dict[str, Any]:
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Several rows at once, as a DataLoader asks for them. IndexError for one that is not there."""
        values, columns = self.take(places)
        kept = {name: column.tolist() for name, column in columns.items()}
        return [{"x": values[i], **{name: kept[name][i] for name in kept}} for i in range(len(values))]

    def take(self, places: Sequence[int] | np.ndarray | slice) -> tuple[Tensor, dict[str, np.ndarray]]:
        """Activations ``[row, width]`` of some rows, in the order asked, and their columns, an array each."""
        asked = np.arange(len(self))[places] if isinstance(places, slice) else np.asarray([self._place(p) for p in places], int)
        shard = np.searchsorted(self.ends, asked, side="right")
        values, index = None, np.empty((len(asked), len(COLUMNS)), np.int64)
        for number in np.unique(shard):
            mine = np.flatnonzero(shard == number)
            found, index[mine] = self._read(number, asked[mine] - (self.ends[number] - self._count(number)))
            values = found.new_empty(len(asked), found.shape[1]) if values is None else values
            values[torch.from_numpy(mine)] = found
        return torch.empty(0, self.width) if values is None else values, self._columns(index)

    def batches(self, size: int, seed: int | None = None) -> Iterator[tuple[Tensor, dict[str, np.ndarray]]]:
        """All rows once, ``size`` at a time, in their order, or with a ``seed`` shuffled: shards in a random order, and rows
        within each, so that a file is read in one go."""
        if seed is None:
            order = [np.arange(len(self))]
        else:
            rng, begin = np.random.default_rng(seed), np.concatenate([[0], self.ends[:-1]])
            order = [rng.permutation(np.arange(begin[n], self.ends[n])) for n in rng.permutation(len(self.ends))]
        places = np.concatenate(order) if order else np.zeros(0, int)
        for start in range(0, len(places), size):
            yield self.take(places[start : start + size])

    # --- inside ----------------------------------------------------------------------------------------------------

    def _place(self, place: Any) -> int:
        number = whole(place)
        if number is None or not -len(self) <= number < len(self):
            raise IndexError(f"row {place!r} was asked for; there are {len(self)}")
        return number % len(self)

    def _count(self, number: int) -> int:
        """How many rows of a shard are chosen, of those that hold the name."""
        chosen = self.chosen[number]
        return self.manifest["shards"][self.shards[number]][self.name] if chosen is None else len(chosen)

    def _selected(self, shard: int, where: Mapping[str, Any], seen: dict[str, set[Any]]) -> np.ndarray | None:
        """The rows of a shard that ``where`` takes; None for all. Adds the values of these columns to what was ``seen``."""
        if not where:
            return None
        columns = self._columns(self._file(shard).get_tensor(self.name + INDEX).numpy().astype(np.int64))
        keep = np.ones(len(columns["item"]), bool)
        for name, wanted in where.items():
            if name not in columns:
                raise InterpError(f"where: there is no column {name!r}, only {', '.join(columns)}")
            keep &= np.isin(columns[name], np.asarray(_several(wanted)))
            seen.setdefault(name, set()).update(np.unique(columns[name]).tolist())
        return np.flatnonzero(keep)

    def _read(self, number: int, places: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """Values and columns of chosen rows of a shard, by their places among these."""
        chosen, file = self.chosen[number], self._file(self.shards[number])
        rows = places if chosen is None else chosen[places]
        low, high = int(rows.min()), int(rows.max()) + 1
        if high - low <= 4 * len(rows):  # near each other: in one go
            parts = [file.get_slice(key)[low:high][rows - low] for key in (self.name, self.name + INDEX)]
        else:
            cuts = [file.get_slice(key) for key in (self.name, self.name + INDEX)]
            parts = [torch.cat([cut[int(row) : int(row) + 1] for row in rows]) for cut in cuts]
        return parts[0], parts[1].numpy().astype(np.int64)

    def _file(self, shard: int) -> Any:
        if shard not in self._files:
            path = self.folder / shard_path(shard)
            if self.check:
                read(path)
            self._files[shard] = safe_open(path, "pt").__enter__()
        return self._files[shard]

    def _columns(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Columns ``[row]`` of rows of the index."""
        columns = dict(zip(COLUMNS, index.T, strict=True))
        numbers, at = np.unique(columns["item"], return_inverse=True)
        items = [self.manifest["items"][n] for n in numbers]
        steps = [np.asarray(self.manifest["schedules"][item["schedule"]]["sigma"], float) for item in items]
        sigma = np.array([steps[i][k] for i, k in zip(at, columns["step"], strict=True)])
        of_item = {"clip": "name", "task": "task", "seed": "seed", "status": "status"}
        found = {"item": columns["item"]} | {name: np.array([item[key] for item in items])[at] for name, key in of_item.items()}
        found |= {"step": columns["step"], "sigma": sigma, "layer": np.full(len(index), self.layer)}
        branches = {number: name or "" for name, number in BRANCH_NUMBERS.items()}
        found |= {"site": np.full(len(index), self.site), "branch": np.array([branches[b] for b in columns["branch"].tolist()])}
        return found | {axis: columns[axis] for axis in ("frame", "row", "col")} | self._labelled(columns, numbers)

    def _labelled(self, columns: Mapping[str, np.ndarray], items: np.ndarray) -> dict[str, np.ndarray]:
        """The labels of tokens ``[row]``; -1 for what has no place in the video."""
        if not self.labels:
            return {}
        found = {label: np.full(len(columns["item"]), NO_LABEL) for label in self.labels}
        for item in items.tolist():
            mine = np.flatnonzero((columns["item"] == item) & (columns["frame"] >= 0))
            place = tuple(columns[axis][mine] for axis in ("frame", "row", "col"))
            for label, values in self._of_item(item).items():
                found[label][mine] = values[place]
        return found

    def _of_item(self, item: int) -> dict[str, np.ndarray]:
        if item not in self._items:
            if len(self._items) >= HELD:
                self._items.clear()
            self._items[item] = {name: values.numpy() for name, values in read(self.folder / item_path(item))[0].items()}
        return {label: self._items[item][label] for label in self.labels}
