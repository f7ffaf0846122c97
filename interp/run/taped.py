"""A run whose loop is on autograd's tape: the pipeline's own, without the ``torch.no_grad`` that it is wrapped in."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from cos_interp.interp.errors import InterpError
from cos_interp.interp.run.prediction import Clean
from cos_interp.interp.run.stage import Stage


class TapedStage(Stage):
    """Records how guidance, solver (with what a multistep one remembers) and packing make each latent of the outputs before.

    A director that adds a zero to the clean estimate takes the gradient of what leads to it, with the latent held.
    """

    def _called(self, kwargs: dict[str, Any]) -> Any:
        with torch.enable_grad():
            return inspect.unwrap(type(self.pipe).__call__)(self.pipe, **kwargs)

    def _observe(self, k: int, arguments: dict[str, Any]) -> Clean:
        arguments["sample"] = arguments["sample"].clone()  # some pipelines write the next latents into the tensor that they give
        return super()._observe(k, arguments)

    def _led(self, clean: Clean, sample: Tensor, v: Tensor, estimate: Tensor, x0hat: Tensor) -> Tensor:
        if clean.b == 0:
            raise InterpError(f"hook_x0hat: sigma is {clean.sigma:g} there, so no model output leads to another x0hat")
        return v + (x0hat - estimate) / clean.b  # the numbers are those of v

    def _final(self, out: Tensor) -> Tensor:
        final, own = super()._final(out), self.view.whole(self.last)
        handed_out_detached = not final.requires_grad and final.shape == own.shape and torch.equal(final, own.detach())
        return own if handed_out_detached else final
