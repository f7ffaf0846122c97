"""What a probe may be asked to read: targets in three families, from the task's labels or from the model's own video."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from cos_interp.interp.errors import InterpError
from cos_interp.interp.selecting import words
from cos_interp.probes.arrays import plain
from cos_interp.probes.clip import Clip
from cos_interp.probes.errors import ProbeError
from cos_interp.probes.inputs import as_tokens
from cos_interp.tasks import TASKS, Label, grid
from cos_interp.tasks.labels import FAMILIES, Family

Form = Literal["classes", "values"]
CLASSIFY: Form = "classes"
REGRESS: Form = "values"
LARGEST = 2**53  # a class number that every type holds


@dataclass(frozen=True)
class Target:
    """``label(clip)`` gives ``[frame, row, col]``, a scalar for the whole clip, or for values also ``[frame, row, col, k]``;
    None or -1 (NaN for values): no label. ``tasks``: where it exists; None for every video, also without an item."""

    name: str
    family: Family
    about: str
    label: Callable[[Clip], Any]
    tasks: tuple[str, ...] | None = None
    form: Form = CLASSIFY
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            words((self.name,), "a target's name", "a text")
            words((self.form,), f"target {self.name!r}: form", get_args(Form))
            words((self.family,), f"target {self.name!r}: family", FAMILIES)
            tasks = None if self.tasks is None else words(self.tasks, f"target {self.name!r}: tasks", "names of tasks, or None")
            empty = isinstance(self.names, tuple | list) and not self.names
            names = () if empty else words(self.names, f"target {self.name!r}: names", "names of classes")
        except InterpError as error:
            raise ProbeError(str(error)) from error
        if isinstance(self.names, str) or len(set(names)) < len(names):
            raise ProbeError(f"target {self.name!r}: names={self.names!r}: give several names, one a class and each once")
        if not callable(self.label):
            raise ProbeError(f"target {self.name!r}: label={self.label!r}: give a function of a Clip")
        object.__setattr__(self, "tasks", tasks)  # one task may be said as a text
        object.__setattr__(self, "names", names)

    def read(self, clip: Clip) -> np.ndarray:
        """Labels ``[frame, row, col]`` (or ``[..., k]``) of a clip; all missing where the target does not exist."""
        exists = self.tasks is None or (clip.item is not None and clip.item.task in self.tasks)
        found = self.label(clip) if exists else None
        values = self._classes(plain(found)) if self.form == CLASSIFY else self._values(plain(found))
        if values.ndim == 0:
            return np.full(clip.grid, values)
        further = values.ndim - 3  # values may have several a token, a class is one
        if values.shape[:3] != clip.grid or further not in ((0,) if self.form == CLASSIFY else (0, 1)):
            raise ProbeError(
                f"target {self.name!r}: labels of shape {values.shape} for tokens {clip.grid}; give [frame, row, col]"
            )
        return values

    def _classes(self, found: Any) -> np.ndarray:
        """Class numbers; names of classes become their places in ``names``. ProbeError for what is neither."""
        values = np.asarray(-1 if found is None else found)
        if values.dtype.kind in "US":
            unknown = sorted(set(values.ravel().tolist()) - set(self.names))
            if unknown:
                said = f"names={self.names}" if self.names else "names=(...), one a class"
                raise ProbeError(
                    f"target {self.name!r} gave the class {unknown[0]!r}: say Target({said}) with it, or give numbers"
                )
            return np.vectorize(self.names.index, otypes=[np.int64])(values)
        if (values.dtype.kind == "f" and (values == np.round(values)).all()) or values.dtype.kind in "iub":
            if outside := [value for value in values.ravel().tolist() if not -1 <= value <= LARGEST]:
                raise ProbeError(f"target {self.name!r} gave the class {outside[0]!r}: classes count from 0, and -1 is no label")
            return values.astype(np.int64)
        raise ProbeError(
            f"target {self.name!r} gave {values.ravel()[0]!r}, which is no class: give whole numbers, names of classes, or say "
            f"form={REGRESS!r} for values"
        )

    def _values(self, found: Any) -> np.ndarray:
        """Numbers; None and NaN are no label. ProbeError for inf, and for what is no number."""
        given = np.asarray(np.nan if found is None else found)
        try:
            values = given.astype(np.float64) if given.dtype.kind in "fiubO" else None
        except (TypeError, ValueError):
            values = None
        if values is None or np.isinf(values).any():
            wrong = next(iter(given.ravel().tolist()), found) if values is None else "inf"
            raise ProbeError(f"target {self.name!r} gave {wrong!r:.80}, which is no value: give finite numbers; NaN is no label")
        return values


OWN: dict[str, Target] = {}  # registered by users


def known() -> dict[str, Target]:
    """All targets by name: the tasks' labels, what a clip's own final video shows, and those that users registered."""
    return {t.name: t for t in (*_labels_of_tasks(), *_final(tuple(TASKS)))} | OWN


def register(target: Target) -> Target:
    """Make a target known by its name, for ``collect`` and the command line. ProbeError for a name that is taken."""
    if not isinstance(target, Target):
        raise ProbeError(f"register takes a probes.Target, and {target!r:.80} is none")
    if known().get(target.name, target) is not target:
        raise ProbeError(f"there is a target {target.name!r} already: choose another name")
    OWN[target.name] = target
    return target


def resolve(targets: Iterable[str | Target]) -> list[Target]:
    """Targets by name or as they are, each once. ProbeError for none, and for two of one name."""
    there, out = known(), dict[str, Target]()
    several = isinstance(targets, Iterable) and not isinstance(targets, str)
    for target in targets if several else [targets]:
        if not isinstance(target, Target) and not (isinstance(target, str) and target in there):
            raise ProbeError(f"unknown target {target!r}; there are {', '.join(there)}, or pass a probes.Target of your own")
        found = there[target] if isinstance(target, str) else target
        if out.setdefault(found.name, found) is not found:
            raise ProbeError(f"two targets are called {found.name!r}: give each a name of its own")
    if not out:
        raise ProbeError(f"targets={targets!r} names nothing: give one or several of {', '.join(there)}, or a probes.Target")
    return list(out.values())


def _labels_of_tasks() -> list[Target]:
    """One target a label, families in order; tasks whose labels have one name share it."""
    having: dict[str, list[str]] = {}
    labels: dict[str, Label] = {}
    for task in TASKS.values():
        for label in task.readable:
            labels.setdefault(label.name, label)
            having.setdefault(label.name, []).append(task.name)
    ordered = sorted(labels.values(), key=lambda label: FAMILIES.index(label.family))
    return [Target(x.name, x.family, x.about, _reading(x.name), tuple(having[x.name]), names=x.names) for x in ordered]


def _reading(name: str) -> Callable[[Clip], np.ndarray | None]:
    return lambda clip: clip.label(name)


def changed(cells: np.ndarray) -> np.ndarray:
    """Classes of the last frame ``[row, col]`` where they are not those of the first one, -1 elsewhere: most cells never change,
    and what they show at the end is what was given, which is perception."""
    return np.where((cells[-1] != cells[0]) & (cells[0] >= 0), cells[-1], -1)


def _final(tasks: tuple[str, ...]) -> list[Target]:
    """What is read from the video that the model itself made."""
    return [
        Target("final_class", "consolidation", "what a cell that changes shows in the last frame of the model's own video",
               lambda clip: np.broadcast_to(changed(clip.cells), (grid.LATENT_FRAMES, grid.ROWS, grid.COLS)), tasks,
               names=grid.CLASSES),
        Target("solved", "consolidation", "did this run solve the problem (whole clip)", lambda clip: int(clip.verdict.solved),
               tasks, names=("no", "yes")),
        Target("final_latent", "consolidation", "the final latent of the token, by regression",
               lambda clip: as_tokens(clip.run.latents[0], clip.grid), None, REGRESS),
    ]  # fmt: skip
