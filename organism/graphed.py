"""A training step's forward and backward pass recorded once as a CUDA graph and replayed: one launch for some 2,000 kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

Batch = dict[str, torch.Tensor]
Loss = Callable[[nn.Module, Batch], torch.Tensor]
WARM = 3  # passes before the recording, in which libraries take their workspaces


class Graphed:
    """``graphed(batch)`` writes the gradients of ``loss(model, batch)`` and returns its value, on a CUDA device.

    Batches have the names, shapes and formats of the first. Gradients lie where the recording put them and are written over:
    they are never set to None between two passes. ``loss`` neither moves tensors to the device nor reads a value on the host.
    """

    def __init__(self, loss: Loss, model: nn.Module, batch: Batch):
        device = next(model.parameters()).device
        self.given = {name: value.to(device) for name, value in batch.items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM):
                model.zero_grad(set_to_none=True)
                loss(model, self.given).backward()
        torch.cuda.current_stream().wait_stream(stream)
        model.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # another thread pins memory
            self.value = loss(model, self.given)
            self.value.backward()

    def __call__(self, batch: Batch) -> torch.Tensor:
        for name, value in batch.items():
            self.given[name].copy_(value, non_blocking=True)
        self.graph.replay()
        return self.value.detach().clone()
