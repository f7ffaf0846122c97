"""What autograd keeps for a sweep: nothing for weights, and of the loop its own copies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def frozen(modules: Sequence[nn.Module]) -> Iterator[None]:
    """For the length of a block no gradient is asked for weights, which would take the memory of all their inputs."""
    asked = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
    for weight in asked:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in asked:
            weight.requires_grad_(True)


def copies_saved(modules: Sequence[nn.Module]) -> contextlib.AbstractContextManager[None]:
    """For the length of a block what a gradient needs later is copied: pipelines write into their latents (Kandinsky 5).

    Weights, which a control network in the loop has, stay as they are.
    """
    weights = {weight.untyped_storage().data_ptr() for module in modules for weight in module.parameters()}
    kept = lambda saved: saved if saved.untyped_storage().data_ptr() in weights else saved.clone()

    def handed_back(saved: Tensor) -> Tensor:
        return saved

    return torch.autograd.graph.saved_tensors_hooks(kept, handed_back)
