"""Activations of many runs with labels, by clip: what probes are trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cos_interp.interp.address import layer_of
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.selecting import whole
from cos_interp.probes.asked import count, kept_step
from cos_interp.probes.clip import ClipData, Shape
from cos_interp.probes.collect import Progress, Tokens, collect_clips, model_facts, sources
from cos_interp.probes.errors import ProbeError
from cos_interp.probes.inputs import INPUTS, one_hot_position
from cos_interp.probes.storage import DEFAULT_BYTES, Storage
from cos_interp.probes.targets import CLASSIFY, Target, resolve


@dataclass
class ProbeDataset:
    """Rows are tokens; ``clip[row]`` says which run a row is from, ``position[row]`` which (frame, row, col).

    Build it with :meth:`collect` from a model, or with :func:`cos_interp.probes.dataset.assemble` from clips.
    """

    names: tuple[str, ...]
    steps: tuple[int, ...]
    sigmas: tuple[float, ...]
    grid: Shape
    targets: dict[str, Target]
    storage: Storage
    labels: dict[str, np.ndarray]
    clip: np.ndarray
    clips: tuple[str, ...]
    tasks: np.ndarray  # task of every row
    position: np.ndarray
    x_t: np.ndarray  # [step, row, k]
    first: np.ndarray | None  # [row, k]
    model: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def collect(
        cls,
        model: HookedVideoPipeline,
        suite: Iterable[Any],
        *,
        names: str | Sequence[str] = "blocks.*.hook_resid_post",
        steps: int | range | slice | Sequence[int] | str = "all",
        targets: Sequence[str | Target] = ("cell_class", "on_path", "goal"),
        tokens: Tokens = "all",
        n: int | None = None,
        seed: int = 0,
        max_bytes: int = DEFAULT_BYTES,
        folder: Path | None = None,
        progress: Progress = lambda done, total: None,
        **call: Any,
    ) -> ProbeDataset:
        """Generate ``n`` items of ``suite`` (tasks in turn) and keep their activations and labels.

        ``suite``: items with ``prompt``, ``first_frame``, ``task`` and ``seed``, or ``clip.Source`` objects. ``tokens``: "all",
        a number (so many a clip, drawn at random, the same draw at every layer and step), or a list of (frame, row, col).
        Over ``max_bytes`` the activations go to files in ``folder`` (a temporary one by default). ``call``: keywords of the
        pipeline, e.g. ``num_inference_steps``.
        """
        chosen = sources(model, suite, n, seed, call)
        found = resolve(targets)
        data = assemble(
            collect_clips(model, chosen, names, steps, found, tokens, seed, progress), len(chosen), found, max_bytes, folder
        )
        data.model = model_facts(model)
        return data

    # --- reading -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.clip)

    def name_of(self, layer: int | None = None, name: str | None = None) -> str:
        """The hook name that a layer or a name means. ProbeError lists what there is."""
        found = meant(self.names, layer, name)
        if len(found) != 1:
            raise ProbeError(
                f"layer={layer!r}, name={name!r} means {len(found)} of the kept activations; give name= one of "
                f"{', '.join(self.names)}"
            )
        return found[0]

    def at(self, step: int) -> int:
        """Place of a step among the kept ones."""
        return self.steps.index(kept_step(step, self.steps))

    def rows(self, target: str, task: str | None = None) -> np.ndarray:
        """Numbers of the rows that have a label (of one task). ProbeError without any."""
        labels = self.label(target)
        values = self.targets[target].form != CLASSIFY
        has = np.isfinite(labels).reshape(len(labels), -1).all(1) if values else labels >= 0
        if task is not None:
            has = has & (self.tasks == task)
        if not has.any():
            raise ProbeError(f"no clip has labels for target {target!r}" + (f" in task {task!r}" if task else ""))
        return np.flatnonzero(has)

    def label(self, target: str) -> np.ndarray:
        """The labels of a target, one a row: class numbers, or values ``[row, ...]``. ProbeError for one that is not there."""
        if not isinstance(target, str) or target not in self.labels:
            raise ProbeError(f"target {target!r} was not collected; this data has {', '.join(self.labels)}")
        return self.labels[target]

    def xy(
        self, target: str, layer: int | None = None, step: int | None = None, *, name: str | None = None, task: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """``X [row, d_model]`` and ``y [row]`` of the rows that have a label; ``groups(target)`` gives their clips."""
        rows, labels = self.rows(target, task), self.label(target)
        step = self.steps[0] if step is None and len(self.steps) == 1 else step
        if step is None:
            raise ProbeError(f"give a step; kept are {list(self.steps)}")
        return self.storage.read(self.name_of(layer, name), self.at(step), rows), labels[rows]

    def groups(self, target: str, task: str | None = None) -> np.ndarray:
        """The clip of every row of ``xy``: rows of one clip must not straddle a split."""
        return self.clip[self.rows(target, task)]

    def input(self, kind: str, step: int, rows: np.ndarray) -> np.ndarray | None:
        """A baseline's input for some rows: x_t, first frame, position; None where the model has none."""
        if kind == "x_t":
            return self.x_t[self.at(step)][rows]
        if kind == "first frame":
            return None if self.first is None else self.first[rows]
        if kind == "position":
            return one_hot_position(self.position[rows], self.grid)
        raise ProbeError(f"unknown input {kind!r}; there are {', '.join(INPUTS)}")

    def batches(
        self, target: str, layer: int | None = None, step: int = 0, *, name: str | None = None, rows: np.ndarray | None = None,
        size: int = 4096,
    ) -> Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]:  # fmt: skip
        """Passes over ``xy`` in batches, for :func:`cos_interp.probes.streaming.fit_stream`."""
        rows, size = self.rows(target) if rows is None else rows, count(size, "size", 1)
        name, labels, place = self.name_of(layer, name), self.label(target), self.at(step)

        def start() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for first in range(0, len(rows), size):
                part = rows[first : first + size]
                yield self.storage.read(name, place, part), labels[part]

        return start

    def balance(self, target: str) -> dict[str, int]:
        """Rows of every class (empty for values)."""
        if self.targets[target].form != CLASSIFY:
            return {}
        values, counts = np.unique(self.label(target)[self.rows(target)], return_counts=True)
        names = self.targets[target].names
        return {names[v] if v < len(names) else str(v): int(c) for v, c in zip(values, counts, strict=True)}


def meant(names: Iterable[str], layer: int | None, name: str | None) -> list[str]:
    """Those of the hook names that a layer and a name mean; all where neither is given.

    >>> meant(["blocks.1.hook_resid_post", "blocks.2.hook_resid_post"], 2, None), meant(["blocks.1.hook_z"], True, None)
    (['blocks.2.hook_resid_post'], [])
    """
    number = whole(layer)
    at = [n for n in names if layer is None or (number is not None and layer_of(n) == number)]
    return [n for n in at if name is None or n == name]


def assemble(
    clips: Iterable[ClipData], count: int, targets: Sequence[Target], max_bytes: int = DEFAULT_BYTES, folder: Path | None = None
) -> ProbeDataset:
    """One data set from ``count`` clips of one shape. The first clip settles whether activations stay in memory."""
    storage: Storage | None = None
    kept: list[ClipData] = []
    for clip in clips:
        first = kept[0] if kept else clip
        if storage is None:
            storage = Storage.open(clip.activations, len(clip.position), count, max_bytes, folder)
        if list(clip.activations) != list(first.activations) or clip.grid != first.grid or clip.steps != first.steps:
            raise ProbeError(f"clip {clip.name} has other names, tokens or steps than {first.name}: collect them alike")
        storage.add(clip.activations)
        kept.append(clip)
    if storage is None:
        raise ProbeError("there are no clips: the suite is empty")
    return _joined(kept, targets, storage)


def _numbers(kept: list[ClipData]) -> list[int]:
    """The number of every clip; one that came before has its number again, so that both lie on one side of every split."""
    seen: dict[bytes, int] = {}
    return [seen.setdefault(clip.digest(), place) for place, clip in enumerate(kept)]


def _joined(kept: list[ClipData], targets: Sequence[Target], storage: Storage) -> ProbeDataset:
    first = kept[0]
    sizes = [len(c.position) for c in kept]
    return ProbeDataset(
        names=tuple(first.activations),
        steps=first.steps,
        sigmas=first.sigmas,
        grid=first.grid,
        targets={t.name: t for t in targets},
        storage=storage,
        labels={t.name: np.concatenate([c.labels[t.name] for c in kept]) for t in targets},
        clip=np.repeat(_numbers(kept), sizes),
        clips=tuple(c.name for c in kept),
        tasks=np.repeat([c.task for c in kept], sizes),
        position=np.concatenate([c.position for c in kept]),
        x_t=np.concatenate([c.x_t for c in kept], 1),
        first=None if first.first is None else np.concatenate([c.first for c in kept]),
    )
