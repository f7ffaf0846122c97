"""Kept activations, addressed by (name, step, branch)."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, MutableMapping, Sequence, ValuesView
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from cos_interp.interp import cache_file
from cos_interp.interp.address import BRANCHES, AddressError, layer_of, parse_index
from cos_interp.interp.cache_plan import CachePlan
from cos_interp.interp.errors import InterpError
from cos_interp.interp.places import Place
from cos_interp.interp.selecting import spread, whole
from cos_interp.interp.views import GRID, axes_of

if TYPE_CHECKING:
    import pandas as pd


Steps = slice | str | Sequence[int] | np.ndarray | Tensor  # several step numbers


class OverSteps(NamedTuple):
    """One name's activations at several steps: ``values`` ``[step, ...]``, the names of its axes, and which steps they are."""

    values: Tensor
    axes: tuple[str, ...]
    steps: tuple[int, ...]


def _parts(key: Any) -> tuple[str, int | slice | tuple[int, ...], str | None]:
    """Name, step or several, and branch of a key. KeyError, which says what to write, for anything else."""
    if isinstance(key, str):
        raise KeyError(f"{key!r} alone: write cache[{key!r}, step], or cache[{key!r}, :] for all kept steps")
    name, step, *rest = key if isinstance(key, tuple) and len(key) in (2, 3) else (None, None)
    number = step if isinstance(step, slice) else whole(step) if (one := _several(step)) is None else one
    branch = rest[0] if rest else "cond"
    ends = (number.start, number.stop, number.step) if isinstance(number, slice) else ()
    if any(end is not None and whole(end) is None for end in ends):
        raise KeyError(f"{key!r}: steps are whole numbers: write a range like cache[{name!r}, 0:8]")
    if not isinstance(name, str) or number is None or branch not in (*BRANCHES, None):
        raise KeyError(f"{key!r}: write cache[name, step] or cache[name, step, branch], as in cache['hook_x_t', 4]")
    if isinstance(number, int) and number < 0:
        raise KeyError(f"step {number}: a cache counts steps from the start, give a number from 0 on")
    return name, number, branch


def _several(steps: Any) -> slice | tuple[int, ...] | None:
    """A text like ``"0:8"`` or ``"0,4"``, a list, a range, an array as a slice or numbers; None for what is none of these."""
    if isinstance(steps, str):
        try:
            steps = parse_index(steps, "step")
        except AddressError:
            return None
        return steps if isinstance(steps, slice) else tuple(steps)
    if isinstance(steps, (list, tuple, range, np.ndarray, Tensor)) and np.ndim(steps) == 1:
        found = [whole(one) for one in steps]
        return None if None in found else tuple(one for one in found if one is not None)
    return None


def _written(steps: slice | tuple[int, ...]) -> str:
    """Steps as they are written in a key."""
    if not isinstance(steps, slice):
        return str(list(steps))
    return ":".join("" if end is None else str(end) for end in (steps.start, steps.stop))


@dataclass(eq=False)
class ActivationCache:
    """``cache[name, step]`` or ``cache[name, step, "uncond"]``; ``cache.axes[name]`` names the axes.

    A mapping from (name, step, branch) to tensors; the branch is None for the trajectory's own names (``hook_x_t``), and
    ``cond`` where none is given. ``cache[name, 2:8]`` stacks the kept steps of a range.

    Shapes are those of the name's kind: ``[batch, frame, row, col, d_model]`` for the residual stream, with ``head, d_head`` at
    the end for ``attn.hook_z``; ``[batch, head, frame, row, col, key]`` for a pattern, ``[batch, channel, frame, row, col]`` for
    latents. With chosen ``tokens`` one axis ``token`` stands for frame, row and col, in row-major order. Values are copies in the
    model's own dtype, on its device; ``store`` may keep them elsewhere, see
    :mod:`cos_interp.interp.places`. Raises KeyError, which says what the cache holds, for what was not kept.
    """

    store: MutableMapping[tuple[str, int, str | None], Tensor] = field(default_factory=dict)
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @overload
    def __getitem__(self, key: tuple[str, int] | tuple[str, int, str | None]) -> Tensor: ...

    @overload
    def __getitem__(self, key: tuple[str, Steps] | tuple[str, Steps, str | None]) -> OverSteps: ...

    def __getitem__(self, key: tuple[str, int | Steps] | tuple[str, int | Steps, str | None]) -> Tensor | OverSteps:
        name, step, branch = _parts(key)
        if not isinstance(step, int):
            return self.stack(name, step, branch)
        for candidate in ((name, step, branch), (name, step, None)):
            if candidate in self.store:
                return self.store[candidate]
        steps = sorted({s for n, s, _ in self.store if n == name})
        held = f"steps {steps}, branches {self.branches(name)}" if steps else f"names {sorted(self.axes)}"
        raise KeyError(f"{name!r} at step {step}, branch {branch!r} was not kept; the cache holds {held}")

    def __contains__(self, key: tuple[str, int] | tuple[str, int, str | None]) -> bool:
        try:
            name, step, branch = _parts(key)
        except KeyError:
            return False
        if not isinstance(step, int):
            return False
        return (name, step, branch) in self.store or (name, step, None) in self.store

    def __iter__(self) -> Iterator[tuple[str, int, str | None]]:
        return iter(self.store)

    def __len__(self) -> int:
        return len(self.store)

    def __repr__(self) -> str:
        names, steps = list(self.axes), sorted({step for _, step, _ in self.store})
        shown = ", ".join(names if len(names) < 3 else (names[0], "..", names[-1]))
        span = f"{len(steps)} steps ({steps[0]} to {steps[-1]})" if steps else "0 steps"
        branches = "/".join(sorted({b for _, _, b in self.store if b is not None}))
        return f"ActivationCache({len(names)} names: {shown}; {span}; {branches or 'no branch'}; {self.nbytes / 1e6:.1f} MB)"

    def get(self, key: Any, default: Tensor | None = None) -> Tensor | OverSteps | None:
        """``cache[key]``, or the default where it was not kept."""
        try:
            return self[key]
        except KeyError:
            return default

    def keys(self) -> KeysView[tuple[str, int, str | None]]:
        """All (name, step, branch)."""
        return self.store.keys()

    def values(self) -> ValuesView[Tensor]:
        """All activations."""
        return self.store.values()

    def items(self) -> ItemsView[tuple[str, int, str | None], Tensor]:
        """All ((name, step, branch), activation)."""
        return self.store.items()

    def branches(self, name: str) -> list[str | None]:
        """The branches in which a name was kept; ``[None]`` for the trajectory's own names."""
        return sorted({b for n, _, b in self.store if n == name}, key=str)

    @property
    def nbytes(self) -> int:
        """Bytes of all activations."""
        return self.store.nbytes if isinstance(self.store, Place) else sum(act.nbytes for act in self.store.values())

    def stack(self, name: str, steps: Steps = slice(None), branch: str | None = "cond") -> OverSteps:
        """One name at all kept steps, those of a range of step numbers, or several that must all be there, ``[step, ...]``
        with named axes.

        Raises KeyError, which says what there is, for a name, branch, range or step of which nothing was kept, and InterpError
        for what counts from the end, since a cache does not know how many steps its run had, and for what is no range.
        """
        everything = steps is None or (isinstance(steps, str) and steps == "all")
        one, given = whole(steps), slice(None) if everything else steps
        asked = given if isinstance(given, slice) else _several(given) if one is None else (one,)
        if branch not in (*BRANCHES, None):
            raise InterpError(f"branch={branch!r}: give one of {', '.join(BRANCHES)}")
        if asked is None:
            raise InterpError(
                f"steps={steps!r}: give a range like 0:8 or slice(0, 8), or numbers like [0, 4]; branch= is the third"
            )
        ends = (asked.start or 0, asked.stop or 0, asked.step or 0) if isinstance(asked, slice) else asked
        if min(ends, default=0) < 0:
            raise InterpError(f"steps {steps!r}: a cache counts steps from the start, give numbers from 0 on")
        mine = self.branches(name)
        kept = sorted(s for n, s, b in self.store if n == name and b == (branch if branch in mine else None))
        wanted = [s for s in kept if s in range(*asked.indices(kept[-1] + 1))] if kept and isinstance(asked, slice) else []
        if not isinstance(asked, slice):
            wanted = list(asked) if set(asked) <= set(kept) else []
        if not wanted:
            held = f"{name!r} has branches {mine}, steps {kept}" if mine else f"the cache holds the names {sorted(self.axes)}"
            raise KeyError(f"{name!r}, branch {branch!r} was not kept at steps {_written(asked)}; {held}")
        values = torch.stack([self.store[name, s, branch if branch in mine else None] for s in wanted])
        return OverSteps(values, ("step", *self.axes[name]), tuple(wanted))

    def to_dataframe(self) -> pd.DataFrame:
        """A row a (name, step, branch): ``norm`` (L2, of all its numbers), ``mean``, ``std`` and ``max`` (of absolute values)."""
        import pandas as pd

        rows = []
        for (name, step, branch), act in self.store.items():
            layer = layer_of(name)
            if act.is_complex():
                raise InterpError(f"{name!r} holds {act.dtype}, of which the table has no numbers: reduce it to real ones")
            of = act.double()
            numbers = {"norm": of.norm(), "mean": of.mean(), "std": of.std(correction=0), "max": of.abs().max()}
            where = {"name": name, "layer": layer, "step": step, "branch": branch}
            rows.append(where | {key: float(value) for key, value in numbers.items()})
        columns = ["name", "layer", "step", "branch", "norm", "mean", "std", "max"]
        return pd.DataFrame(rows, columns=columns).astype({"layer": "Int64"})

    def to(self, device: str | torch.device) -> ActivationCache:
        """Move all activations to a device, in place; returns the cache. InterpError for what is no device."""
        try:
            device = torch.device(device)
        except (RuntimeError, TypeError) as error:
            raise InterpError(f"{device!r} is no device: give one like 'cpu' or 'cuda'") from error
        self.store = {key: act.to(device) for key, act in self.store.items()}
        return self

    def save(self, path: str | Path) -> None:
        """Write the cache to one safetensors file, with its axes and a digest in the header."""
        cache_file.write(Path(path), self.store, self.axes)

    @classmethod
    def load(cls, path: str | Path) -> ActivationCache:
        """Read what :meth:`save` wrote, onto the CPU. InterpError for a file that is damaged, or is no cache."""
        return cls(*cache_file.read(Path(path)))

    def keep(self, name: str, kind: str, step: int, branch: str | None, act: Tensor, plan: CachePlan, kept: int = 0) -> int:
        """Select, reduce, copy; returns the bytes of what was added to those that were ``kept``. BudgetExceeded for more than the
        plan's, before it is added."""
        act, axes = selected(act, axes_of(kind, act), plan, name)
        plan.check_kept(kept + act.nbytes, name, step)
        key, act = (name, step, branch), act.detach()
        if key in self.store:
            self.store[key] = joined_rows(self.store[key], act)
        else:
            self.store[key] = act if isinstance(self.store, Place) else act.clone()
        self.axes[name] = axes
        return act.nbytes


def selected(act: Tensor, axes: tuple[str, ...], plan: CachePlan, name: str) -> tuple[Tensor, tuple[str, ...]]:
    """What a plan keeps of an activation with these axes: chosen tokens on one axis ``token``, reduced."""
    if plan.tokens is not None and all(a in axes for a in GRID):
        start = axes.index("frame")
        frames, rows, cols = act.shape[start : start + 3]
        kept = spread(plan.tokens, (frames, rows, cols)).flatten().nonzero()[:, 0]
        act = act.flatten(start, start + 2).index_select(start, kept.to(act.device))
        axes = (*axes[:start], "token", *axes[start + 3 :])
    if plan.reduce is not None:
        act, axes = plan.reduce(act.clone(), axes, name)  # a function of the user's may write into what it gets
    return act, axes


def joined_rows(above: Tensor, below: Tensor) -> Tensor:
    """Rows of one batch that came one by one (Mochi's attention); the shorter one's last axis (keys) is filled with 0."""
    width = max(above.shape[-1], below.shape[-1])
    return torch.cat([torch.nn.functional.pad(rows, (0, width - rows.shape[-1])) for rows in (above, below)])
