"""One clip: as it is asked for, as target functions see it, and as probes keep it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cos_interp.interp.trajectory import Run
from cos_interp.probes.errors import ProbeError
from cos_interp.tasks import Item, Task, Verdict, get_task, reader

Shape = tuple[int, int, int]  # token grid: frames, rows, cols


@dataclass(frozen=True)
class Source:
    """One clip to generate: the pipeline's keywords with their seed, and the task item where there is one."""

    name: str
    call: dict[str, Any]
    item: Any = None


@dataclass(frozen=True)
class Clip:
    """One generated video, as target functions see it. ``item`` is None for prompts of the user's own."""

    name: str
    run: Run
    item: Item | None
    grid: Shape

    @cached_property
    def frames(self) -> np.ndarray:
        """The final video, uint8 ``[pixel frame, height, width, 3]``."""
        return self.run.decode()[0]

    @cached_property
    def cells(self) -> np.ndarray:
        """The final video as cell classes ``[pixel frame, row, col]``, -1 where unreadable."""
        return reader.read(self.frames)

    @cached_property
    def task(self) -> Task:
        """The task of the item. ProbeError for a prompt of the user's own."""
        return get_task(self._item.task)

    @property
    def _item(self) -> Item:
        if self.item is None:
            raise ProbeError(
                f"clip {self.name} is a prompt of your own: without a task it has no verdict and no labels; use final_latent"
            )
        return self.item

    @cached_property
    def verdict(self) -> Verdict:
        return self.task.verify(self._item, self.frames)

    @cached_property
    def told(self) -> Item | None:
        """The item with the answer that this run gives: where several answers are right, the run's own one; None when
        the run took none of them, because then there is no fact of which of them it worked on."""
        if self._item.unique:
            return self._item
        return self.task.with_answer(self._item, self.verdict.answer) if self.verdict.solved else None

    def label(self, name: str) -> np.ndarray | None:
        """One of the task's labels: of :attr:`told`, unless the first frame decides it; None where there is none."""
        found = next((label for label in self.task.readable if label.name == name), None)
        item = self.item if found is not None and found.given else self.told
        return None if found is None or item is None else found.read(item)

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """All of the task's labels for :attr:`told`; empty without one."""
        return {} if self.told is None else self.task.labels(self.told)


@dataclass(frozen=True)
class ClipData:
    """What one run leaves: activations ``[step, token, d_model]`` by hook name, labels ``[token]`` (or ``[token, k]``) by target,
    inputs ``x_t [step, token, k]`` and ``first frame [token, k]`` (or None), positions ``[token, 3]``."""

    name: str
    task: str
    activations: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    x_t: np.ndarray
    first: np.ndarray | None
    position: np.ndarray
    steps: tuple[int, ...]
    sigmas: tuple[float, ...]
    grid: Shape

    def digest(self) -> bytes:
        """sha256 of what the model computed: clips of one content have one, whatever they are called."""
        total = hashlib.sha256()
        for values in (self.x_t, self.position, *(self.activations[name] for name in sorted(self.activations))):
            total.update(np.ascontiguousarray(values).view(np.uint8).tobytes())
        return total.digest()
