"""Ablation of blocks: what a block adds to the residual stream is replaced, in some layers and steps.

Many ablations of one problem run as rows of one batch, behind rows of other items that give the replacements; nothing has
to be stored, so that the size of the model does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.interp.batch import chunks, joined
from cos_interp.interp.hooking import FwdHook
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.clock import Hook

Kind = Literal["mean", "resample", "skip", "random", "own"]


@dataclass(frozen=True)
class Edit:
    """One ablated row: in ``layers`` and ``steps`` the block's update is replaced.

    ``mean``: by the mean of updates over tokens; ``resample``: by another item's update; ``skip``: by nothing;
    ``random``: by a random direction of the same norm, per token; ``own``: by itself (the control, which changes nothing).
    """

    kind: Kind
    layers: tuple[int, ...]
    steps: tuple[int, ...]


def token_mean(updates: Tensor) -> Tensor:
    """Mean over rows and tokens of ``[row, frame, row, col, d_model]``, as ``[1, 1, 1, 1, d_model]``."""
    return updates.mean(dim=(0, 1, 2, 3), keepdim=True)


def random_like(update: Tensor, seed: int) -> Tensor:
    """Random directions with the norm of each token's update, ``[frame, row, col, d_model]``; the same for a seed."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(update.shape, generator=generator).to(update)
    return drawn * (update.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True))


def replaced(before: Tensor, after: Tensor, update: Tensor) -> Tensor:
    """The state after a block whose update is ``update`` instead of its own, ``[..., d_model]``.

    Its own update given back leaves ``after`` exactly as it is, which ``before + update`` would not, by rounding.
    """
    return after + (update - (after - before))


@dataclass
class Ablation:
    """Hooks that ablate the rows of a batch after the first ``references`` ones, row by row as ``edits`` say.

    ``mean_over_items``: the mean is over the tokens of the references, else over the row's own tokens. ``seed`` picks the
    random directions; they do not depend on the batch.
    """

    edits: Sequence[Edit]
    references: int
    mean_over_items: bool
    seed: int
    _before: Tensor | None = field(default=None, init=False)

    def hooks(self) -> list[FwdHook]:
        layers = sorted({layer for edit in self.edits for layer in edit.layers})
        pairs = [(f"blocks.{layer}.hook_resid_pre", f"blocks.{layer}.hook_resid_post") for layer in layers]
        return [hook for pre, post in pairs for hook in ((pre, self._keep), (post, self._replace))]

    def _keep(self, act: Tensor, hook: Hook) -> None:
        self._before = act

    def _replace(self, act: Tensor, hook: Hook) -> Tensor | None:
        rows = [r for r, e in enumerate(self.edits, self.references) if hook.layer in e.layers and hook.step in e.steps]
        if not rows:
            return None
        out = act.clone()
        for row in rows:
            out[row] = self._after(act, row, hook)
        return out

    def _after(self, act: Tensor, row: int, hook: Hook) -> Tensor:
        """The state of a row after the ablated block, ``[frame, row, col, d_model]``."""
        assert self._before is not None  # the block's input came first
        kind, before, after = self.edits[row - self.references].kind, self._before[row], act[row]
        if kind == "skip":
            return before
        own = after - before
        if kind == "own":
            return replaced(before, after, own)
        if kind == "random":
            return replaced(before, after, random_like(own, seed_for("ablation", self.seed, hook.step, hook.block)))
        given = act[: self.references] - self._before[: self.references]
        if kind == "resample":
            return replaced(before, after, given[0])
        mean = token_mean(given if self.mean_over_items else own[None])[0]
        return replaced(before, after, mean.expand_as(own))


def thirds(count: int) -> dict[str, tuple[int, ...]]:
    """``early``, ``middle`` and ``late`` thirds of ``range(count)``, and ``all``.

    >>> thirds(8)["middle"]
    (3, 4)
    """
    cuts = [round(count * part / 3) for part in range(4)]
    named = {name: tuple(range(cuts[i], cuts[i + 1])) for i, name in enumerate(("early", "middle", "late"))}
    return {"all": tuple(range(count)), **named}


def ablate(
    model: HookedVideoPipeline, target: dict[str, Any], references: Sequence[dict[str, Any]], edits: Sequence[Edit],
    mean_over_items: bool = True, batch: int = 16,
) -> Tensor:  # fmt: skip
    """Final latents ``[edit, channel, frame, row, col]`` of the target's run, each under one edit.

    ``target`` and ``references`` are pipeline keywords of single videos; the references (at least one) give the updates.
    """
    out = []
    for part in chunks(edits, batch):
        state = Ablation(part, len(references), mean_over_items, int(target["seed"]))
        run = model.run_with_hooks(fwd_hooks=state.hooks(), **joined([*references, *[target] * len(part)]))
        out.append(run.latents[len(references) :])
    return torch.cat(out)


def identity(model: HookedVideoPipeline, target: dict[str, Any], layers: int, steps: int) -> Tensor:
    """Final latent of the target with every block given its own update, in a run by itself: exactly the plain run's."""
    state = Ablation([Edit("own", tuple(range(layers)), tuple(range(steps)))], 0, False, 0)
    return model.run_with_hooks(fwd_hooks=state.hooks(), **target).latents
