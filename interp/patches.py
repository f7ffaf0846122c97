"""What a replay puts where: an activation at a site, in some steps, branches, tokens and heads, and who gives it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cos_interp.interp.cache import ActivationCache
from cos_interp.interp.errors import InterpError, unknown_hook
from cos_interp.interp.hooking import kind_of, unfit
from cos_interp.interp.keeping import widened
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.replacing import replacement
from cos_interp.interp.run.clock import Call
from cos_interp.interp.run.finite import check_finite
from cos_interp.interp.selecting import numbers, spread, token_mask, words
from cos_interp.interp.trajectory import Run
from cos_interp.interp.views import AXES, GRID

Donor = Callable[[int, str], Tensor]  # (step, branch) -> activation [1, ...] with named axes


@dataclass(frozen=True, eq=False)
class Recorded:
    """A recording's own activation at a site, as a donor to a run of the same model at the same noise levels.

    ``passing``: names of which the cache holds one step at a time; ``tokens``: bool over the token grid, those that were kept.
    """

    run: Run
    cache: ActivationCache
    site: str
    passing: Collection[str] = ()
    tokens: Tensor | None = None

    def __call__(self, step: int, branch: str) -> Tensor:
        if self.site == "hook_x_t":
            return self.run.x_t[step]
        kept = self.cache[self.site, step, branch]
        return kept if self.tokens is None else widened(kept, self.cache.axes[self.site], self.tokens)

    def check_tokens(self, asked: Tensor | None) -> None:
        """InterpError where tokens are asked for, bool over the token grid or None for all, that were not kept."""
        if self.tokens is None or self.site == "hook_x_t":
            return
        lacking = self.tokens.numel() - int(self.tokens.sum()) if asked is None else int((asked & ~self.tokens).sum())
        if lacking:
            raise InterpError(
                f"{self.site} was recorded at {int(self.tokens.sum())} of {self.tokens.numel()} tokens, and {lacking} others are "
                "asked for: record the donor with these, or with all"
            )

    def check_fits(self, target: Run, steps: Sequence[int]) -> None:
        """InterpError where the target's run is another model's, or meets other noise in these steps."""
        way = "a function of (step, branch) of your own is taken as it is"
        if self.run.maker and target.maker and self.run.maker != target.maker:
            raise InterpError(
                "the donor was recorded with another model, other weights or another scheduler than the target: record both with "
                f"one ({way})"
            )
        if self.run.steps != target.steps:
            raise InterpError(
                f"the donor has {self.run.steps} steps, the target {target.steps}: record both with the same keywords ({way})"
            )
        for step in steps:
            if not math.isclose(self.run.sigmas[step], target.sigmas[step], rel_tol=1e-6, abs_tol=1e-9):
                raise InterpError(
                    f"step {step} of the donor has the noise level {self.run.sigmas[step]:.6g}, of the target "
                    f"{target.sigmas[step]:.6g}: record both with the same keywords ({way})"
                )


@dataclass(frozen=True, eq=False)
class Patch:
    """One row of a patched batch: put the donor's activation at a site, in some steps, branches, tokens and heads.

    Activation patching as Meng et al. 2202.05262 and Wang et al. 2211.00593 do it, with a denoising step as one more axis.
    ``site`` is a whole hook name (``blocks.3.hook_resid_post``, ``hook_x_t``). ``donor(step, branch)`` gives an activation
    ``[1, ...]`` with the axes and the shape of the site; :meth:`Recording.donor` makes one of a recorded run. ``tokens`` selects
    as in ``run_with_cache``; a bool mask may be over latent cells where the site is a latent. ``hook_x_t`` has no branch:
    ``branches`` does not matter. ``broadcast``: a donor with axes of size 1 (a mean, a direction) is put everywhere along them.
    """

    site: str
    steps: Any  # what selecting.numbers takes; a tuple of numbers once a replay has resolved it
    donor: Donor
    branches: tuple[str, ...] = ("cond",)
    tokens: Any = None  # what selecting.token_mask takes; None: all
    heads: Any = None  # what selecting.numbers takes; None: all
    broadcast: bool = False

    def __repr__(self) -> str:
        parts = [f"step={_few(self.steps)}", f"branch={_few(self.branches)}"]
        if isinstance(self.tokens, Tensor):
            parts.append(f"{int(self.tokens.sum())} of {self.tokens.numel()} tokens")
        elif self.tokens is not None:
            parts.append(f"tokens {self.tokens}")
        if self.heads is not None:
            parts.append(f"heads {_few(self.heads)}")
        return f"Patch({self.site} @ {', '.join(parts)})"

    @property
    def first_step(self) -> int:
        """The step before which the run is that of the recording."""
        return min(self.steps)

    def touches(self, call: Call) -> bool:
        """Whether something inside a call is patched."""
        return self.site != "hook_x_t" and call.step in self.steps and call.branch in self.branches

    def apply(self, act: Tensor, step: int, branch: str, axes: tuple[str, ...]) -> Tensor:
        """``act`` of one row ``[1, ...]``, whose axes have these names, with the donor's values where the patch says."""
        given = self._given(act, step, branch)
        mask = torch.ones([1] * act.ndim, dtype=torch.bool, device=act.device)
        if self.tokens is not None and "frame" in axes:
            shape = [size if axis in GRID else 1 for axis, size in zip(axes, act.shape, strict=True)]
            frames, rows, cols = (size for axis, size in zip(axes, act.shape, strict=True) if axis in GRID)
            mask = mask & spread(self.tokens, (frames, rows, cols)).to(act.device).view(shape)
        if self.heads is not None:
            count = act.shape[axes.index("head")]
            chosen = torch.zeros(count, dtype=torch.bool, device=act.device)
            chosen[list(numbers(self.heads, count, "head"))] = True
            mask = mask & chosen.view([-1 if axis == "head" else 1 for axis in axes])
        out = torch.where(mask, given, act)
        if not out.isfinite().all() and act.isfinite().all():
            check_finite(out, f"what {self} leaves at step {step}")
        return out

    def check_donor(self) -> None:
        """InterpError for a donor that is no function of (step, branch)."""
        self._check_donor("(step, branch), as recording.donor(site) does", 2)

    def _check_donor(self, of: str, count: int) -> None:
        if not callable(self.donor):
            raise InterpError(f"{self}: the donor is {type(self.donor).__name__}, not a function: give a function of {of}")
        if misfit := unfit(self.donor, count):
            raise InterpError(f"{self}: the donor must be a function of {of}: {misfit}")

    def _asked(self, act: Tensor, step: int, branch: str) -> Tensor:
        return self.donor(step, branch)

    def _given(self, act: Tensor, step: int, branch: str) -> Tensor:
        """The donor's activation. InterpError where it has not the shape of what it replaces."""
        try:
            given = self._asked(act, step, branch)
        except (KeyError, IndexError) as error:
            raise InterpError(f"the donor of {self} has nothing for step {step}, branch {branch!r}: {error.args[0]}") from error
        return replacement(given, act, f"the donor of {self}, step {step},", self.broadcast)


Row = Patch | Sequence[Patch]  # of a patched batch


def _few(values: Any) -> str:
    """Several values, the first and the last of many; any other selection as it was written."""
    if not isinstance(values, (tuple, list)):
        return str(values)
    return "/".join(map(str, values if len(values) < 4 else (values[0], "..", values[-1])))


def resolved(model: HookedVideoPipeline, run: Run, patch: Patch) -> Patch:
    """A patch with its steps and tokens as the target's run has them. InterpError, or UnknownHook, for what it does not have."""
    if patch.site == "hook_x0hat":
        raise InterpError(f"{patch}: a replay does not patch hook_x0hat: patch hook_model_out, from which it is computed")
    if not isinstance(patch.site, str) or "@" in patch.site:
        raise InterpError(f"site={patch.site!r}: give a whole hook name; steps=, branches=, tokens= and heads= say the rest")
    if patch.site != "hook_x_t" and not any(patch.site in engine.points for engine in model.engines.values()):
        raise unknown_hook(patch.site, model.hook_names)
    if not isinstance(patch.broadcast, bool):
        raise InterpError(f"{patch}: broadcast={patch.broadcast!r}: give True or False")
    patch.check_donor()
    axes = AXES[kind_of(model.engines, patch.site)]
    branches = ("cond",) if patch.site == "hook_x_t" else words(patch.branches, f"{patch.site}: branches", run.branches)
    if patch.heads is not None and "head" not in axes:
        raise InterpError(f"{patch}: {patch.site} has the axes {', '.join(axes)}, and no heads")
    steps = numbers(patch.steps, run.steps, "step")
    if isinstance(patch.donor, Recorded):
        patch.donor.check_fits(run, steps)
    tokens = _tokens(model, run, patch, axes)
    if isinstance(patch.donor, Recorded):
        patch.donor.check_tokens(tokens)
    return replace(patch, steps=steps, branches=branches, tokens=tokens)


def _tokens(model: HookedVideoPipeline, run: Run, patch: Patch, axes: tuple[str, ...]) -> Tensor | None:
    if patch.tokens is None:
        return None
    if "frame" not in axes:
        raise InterpError(f"{patch}: {patch.site} has the axes {', '.join(axes)}, and no tokens of the video: patch all of it")
    cells = tuple(run.x_t[0].shape[2:])
    mask = patch.tokens
    if "channel" in axes and isinstance(mask, Tensor) and mask.dtype == torch.bool and tuple(mask.shape) == cells:
        if not mask.any():
            raise InterpError(f"{patch}: the mask names no cell of the latent {cells} (frame, row, col)")
        return mask
    return token_mask(patch.tokens, model.token_grid(run.x_t[0]).shape)


def of_row(row: Row) -> tuple[Patch, ...]:
    """The patches of a row, in their order."""
    return (row,) if isinstance(row, Patch) else tuple(row)


def first_step(patches: Sequence[Patch]) -> int:
    """The step before which a row with these patches is the recording."""
    return min(patch.first_step for patch in patches)
