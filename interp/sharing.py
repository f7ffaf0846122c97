"""What patched runs of one recording have in common: calls whose result does not depend on how the run came there.

A patch of all tokens of the residual stream leaves nothing of the latent in what follows the patched block: the result of the
call is that of the donor, the layer and the step, whatever was patched in the steps before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from cos_interp.interp.cache_plan import DEFAULT_BUDGET, checked_budget
from cos_interp.interp.run.engine import ExpertEngine, streams


class Shared:
    """Results of such calls, for the patched runs of one recording on one model: give the same one to each replay.

    ``max_bytes``: how much is kept; what does not fit runs again where it is needed. ``saved`` counts the blocks that did not run
    because their result was here.
    """

    def __init__(self, max_bytes: int = DEFAULT_BUDGET):
        self.left, self.saved = checked_budget(max_bytes), 0
        self._held: dict[Hashable, tuple[Tensor, ...]] = {}

    def found(self, key: Hashable, blocks: int, run: Callable[[], Any]) -> Any:
        """What a transformer returned in a call, which ``run()`` makes with so many blocks where it is not here."""
        if key in self._held:
            self.saved += blocks
            return self._held[key]
        made = streams(run())
        size = sum(stream.numel() * stream.element_size() for stream in made)
        if size <= self.left:
            self.left -= size
            self._held[key] = made
        return made


def is_all(engine: ExpertEngine, layer: int) -> bool:
    """Whether ``hook_resid_post`` of a block is all that the block hands on: no text, audio or history beside it."""
    return layer in engine.sole_streams


def conditions(kwargs: Mapping[str, Any]) -> str:
    """A digest of what a transformer is told beside the latents: time, text, picture, the output of a control network."""
    total = hashlib.sha256()
    _update(total, {key: value for key, value in kwargs.items() if key != "hidden_states"})
    return total.hexdigest()


def _update(total: Any, value: Any) -> None:
    if isinstance(value, Mapping):
        value = [part for key in sorted(value) for part in (key, value[key])]
    if isinstance(value, Tensor):
        total.update(f"{value.dtype} {tuple(value.shape)}".encode())
        total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, (list, tuple)):
        for part in value:
            _update(total, part)
    else:
        total.update(repr(value).encode())
