"""Ablation of blocks: what a block adds to its streams is replaced, in some layers and steps.

Many ablations of one problem run as rows of one batch, behind rows of other items that give the replacements; nothing has
to be stored, so that the size of the model does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.analyses.kit.updates import POST, around, replaced
from cos_interp.interp.batch import chunks, joined
from cos_interp.interp.hooking import FwdHook
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.clock import Hook

Kind = Literal["mean", "resample", "skip", "random", "own"]


@dataclass(frozen=True)
class Edit:
    """One ablated row: in ``layers`` and ``steps`` the block's update is replaced, in each stream by one of that stream.

    ``mean``: by the mean of updates over tokens; ``resample``: by another item's update; ``skip``: by nothing;
    ``random``: by a random direction of the same norm, per token; ``own``: by itself (the control, which changes nothing).
    """

    kind: Kind
    layers: tuple[int, ...]
    steps: tuple[int, ...]


def token_mean(updates: Tensor) -> Tensor:
    """Mean over rows and tokens of ``[row, ..., d_model]``, as ``[1, ..., d_model]``."""
    return updates.mean(dim=tuple(range(updates.ndim - 1)), keepdim=True)


def random_like(update: Tensor, seed: int) -> Tensor:
    """Random directions with the norm of each token's update, ``[..., d_model]``; the same for a seed."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(update.shape, generator=generator).to(update)
    return drawn * (update.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True))


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

    def hooks(self, model: HookedVideoPipeline) -> list[FwdHook]:
        return around(model.hook_names, {layer for edit in self.edits for layer in edit.layers}, self._replace)

    def _replace(self, before: Tensor, after: Tensor, hook: Hook) -> Tensor | None:
        rows = [r for r, e in enumerate(self.edits, self.references) if hook.layer in e.layers and hook.step in e.steps]
        if not rows:
            return None
        out, updates = after.clone(), after - before
        for row in rows:
            update = self._update(updates, row, hook)
            out[row] = before[row] if update is None else replaced(before[row], after[row], update)
        return out

    def _update(self, updates: Tensor, row: int, hook: Hook) -> Tensor | None:
        """What stands in the place of a row's update, ``[..., d_model]``, None for nothing; ``updates`` are those of all rows."""
        kind, own, given = self.edits[row - self.references].kind, updates[row], updates[: self.references]
        if kind == "skip":
            return None
        if kind == "own":
            return own
        if kind == "random":
            stream = hook.name.partition(POST)[2]  # of another stream other directions
            return random_like(own, seed_for("ablation", self.seed, hook.step, hook.block, *[stream] * bool(stream)))
        if kind == "resample":
            return given[0]
        return token_mean(given if self.mean_over_items else own[None])[0].expand_as(own)


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
        run = model.run_with_hooks(fwd_hooks=state.hooks(model), **joined([*references, *[target] * len(part)]))
        out.append(run.latents[len(references) :])
    return torch.cat(out)


def identity(model: HookedVideoPipeline, target: dict[str, Any], layers: int, steps: int) -> Tensor:
    """Final latent of the target with every block given its own update, in a run by itself: exactly the plain run's."""
    state = Ablation([Edit("own", tuple(range(layers)), tuple(range(steps)))], 0, False, 0)
    return model.run_with_hooks(fwd_hooks=state.hooks(model), **target).latents
