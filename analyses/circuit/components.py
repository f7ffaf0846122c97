"""Components as patches: a set of them, everything but a set, and a random set of the same size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.circuit import HEADS, SITES, Component, Part
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patches import Patch
from cos_interp.interp.patching import Recording

Masks = Mapping[str, Tensor]  # token groups, bool [frame, row, col]


Spot = tuple[Part, int]  # a part of a block


def spots(model: HookedVideoPipeline) -> list[Spot]:
    """The parts that the model's blocks have, part by part; some families have blocks of two kinds."""
    names, parts = set(model.hook_names), get_args(Part)
    return [(part, n) for part in parts for n in range(model.layers) if f"blocks.{n}.{SITES[part]}" in names]


def has_heads(model: HookedVideoPipeline, part: str) -> bool:
    """Whether a part's result is had by the head, in every block that has the part."""
    names, layers = set(model.hook_names), [n for one, n in spots(model) if one == part]
    return part in HEADS and all(f"blocks.{n}.{HEADS[part]}" in names for n in layers)


def head_count(model: HookedVideoPipeline) -> int:
    """Attention heads of a block."""
    return model.adapter.width(next(iter(model.engines.values())).module)[1]


def patches(chosen: Sequence[Component], masks: Masks, donor: Recording, branches: tuple[str, ...]) -> list[Patch]:
    """The donor's values in the components; a group that these masks do not have, or have empty, takes no part."""
    out = []
    for one in chosen:
        mask = masks.get(one.group)
        if mask is not None and mask.any():
            out.append(_patch(one.part, one.layer, one.steps, mask, one.heads, donor, branches))
    return out


def _patch(
    part: str, layer: int, steps: Sequence[int], mask: Tensor, heads: tuple[int, ...] | None, donor: Recording,
    branches: tuple[str, ...],
) -> Patch:  # fmt: skip
    site = f"blocks.{layer}.{SITES[part] if heads is None else HEADS[part]}"
    return Patch(site, tuple(steps), donor.donor(site), branches, None if mask.all() else mask, heads)


def everything_but(
    chosen: Sequence[Component], masks: Masks, donor: Recording, branches: tuple[str, ...], there: Sequence[Spot], heads: int
) -> list[Patch]:
    """The donor's values in all that the parts of blocks ``there`` write, except in the chosen components."""
    out, shape = [], next(iter(masks.values())).shape
    for part, layer in there:
        mine = [c for c in chosen if (c.part, c.layer) == (part, layer) and masks.get(c.group) is not None]
        for step in range(donor.run.steps):
            out += list(_rest(part, layer, step, mine, masks, shape, donor, branches, heads))
    return _joined(out)


def _rest(
    part: str, layer: int, step: int, mine: Sequence[Component], masks: Masks, shape: Sequence[int], donor: Recording,
    branches: tuple[str, ...], heads: int,
) -> Iterator[Patch]:  # fmt: skip
    """Of one block's part in one step: the tokens without a chosen component, and of the others the heads that are none's."""
    now = [c for c in mine if step in c.steps]
    free = torch.ones(tuple(shape), dtype=torch.bool)
    for one in now:
        free &= ~masks[one.group]
    if free.any():
        yield _patch(part, layer, (step,), free, None, donor, branches)
    for one in now:
        others = tuple(h for h in range(heads) if one.heads is not None and h not in one.heads)
        if others and masks[one.group].any():
            yield _patch(part, layer, (step,), masks[one.group], others, donor, branches)


def _joined(patches: Sequence[Patch]) -> list[Patch]:
    """Patches that differ in their steps alone, as one."""
    out: dict[tuple[object, ...], Patch] = {}
    for patch in patches:
        tokens = None if patch.tokens is None else patch.tokens.numpy().tobytes()
        key = (patch.site, tokens, patch.heads)
        steps = (*out[key].steps, *patch.steps) if key in out else patch.steps
        out[key] = Patch(patch.site, steps, patch.donor, patch.branches, patch.tokens, patch.heads)
    return list(out.values())


def drawn(
    chosen: Sequence[Component], masks: Masks, there: Sequence[Spot], chance: np.random.Generator
) -> tuple[list[Component], dict[str, Tensor]]:
    """Equally many components of the same parts in other blocks, each at as many random tokens outside its own, and their masks.

    A component of a model of one block stays in it; one at all tokens, or at more than half of them, may keep some.
    """
    taken, made, groups = {(c.part, c.layer) for c in chosen}, [], {}
    for place, one in enumerate(chosen):
        same = [n for part, n in there if part == one.part]
        free = [n for n in same if (one.part, n) not in taken] or same
        mask = masks.get(one.group)
        layer = int(chance.choice(free))
        taken.add((one.part, layer))
        made.append(one.model_copy(update={"layer": layer, "group": f"random {place}"}))
        if mask is not None:
            groups[f"random {place}"] = _elsewhere(mask, chance)
    return made, groups


def _elsewhere(mask: Tensor, chance: np.random.Generator) -> Tensor:
    """As many tokens, outside a mask as far as there are such."""
    flat = mask.flatten().numpy()
    order = [*chance.permutation(np.flatnonzero(~flat)), *chance.permutation(np.flatnonzero(flat))]
    out = torch.zeros(flat.size, dtype=torch.bool)
    out[torch.tensor(order[: int(flat.sum())], dtype=torch.long)] = True
    return out.view(mask.shape)
