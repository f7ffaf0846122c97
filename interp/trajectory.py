"""What a run leaves: the latent, the guided velocity and the clean estimate at every step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from cos_interp.interp import notebook
from cos_interp.interp.errors import InterpError
from cos_interp.interp.families.decoding import to_uint8
from cos_interp.interp.families.layouts import Dims
from cos_interp.interp.run.clock import Call
from cos_interp.interp.run.prediction import Clean
from cos_interp.interp.selecting import numbers, whole


def clean_estimate(x_t: Tensor, v: Tensor, sigma: float | Tensor) -> Tensor:
    """``x0hat = x_t - sigma * v`` for flow matching, ``x_t = (1 - sigma) x0 + sigma noise`` (CoS section 3.1, eq. 2).

    Latents ``[batch, channel, frame, row, col]`` or any other one shape. ``Run.x0hat`` is right for every kind of prediction;
    this is the formula of flow alone.
    """
    return x_t - sigma * v


def _no_decoder(latents: Tensor, output_type: str) -> Any:
    raise InterpError("this run was not made by a model, so nothing can decode it: give its latents to model.decode(latents)")


@dataclass(eq=False)
class Run:
    """One generation. Tensors are ``[batch, channel, frame, row, col]`` in the latent space of the model.

    ``x_t[k]`` is the latent before step k, ``v[k]`` the model output after guidance (flow, v, epsilon or EDM, as the model
    predicts), ``latents`` the final latent; ``outputs`` holds every call's own result, in the pipeline's layout and one tensor
    for every latent (LTX-2: video and audio), from which the run can be replayed. ``lead`` are given latent frames that the
    pipeline puts before them when it decodes (FramePack: the picture), ``beside`` is what the pipeline returned after the
    latents (LTX-2: its audio latents, as the audio VAE takes them). ``sigmas`` are noise levels: the coefficient of the
    noise in ``x_t``.
    """

    sigmas: list[float] = field(default_factory=list)
    timesteps: list[float] = field(default_factory=list)
    clean: list[Clean] = field(default_factory=list)
    x_t: list[Tensor] = field(default_factory=list)
    v: list[Tensor] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    outputs: list[tuple[Tensor, ...]] = field(default_factory=list)
    latents: Tensor = field(default_factory=lambda: torch.empty(0))  # empty until the run is over
    lead: Tensor | None = None
    beside: tuple[Any, ...] = ()
    prepared: Any = None
    dims: Dims = (0, 0, 0)  # latent frames, rows, columns
    encoded: list[Any] = field(default_factory=list)  # what encode_prompt and Adapter.recalls returned, in order
    generators: dict[str, list[Tensor]] = field(default_factory=dict)  # states: prepared latents, first step of the scheduler
    unseeded: bool = False  # the pipeline or its scheduler drew noise from PyTorch's global generator
    prompt_embeds: tuple[Tensor | None, Tensor | None] = (None, None)  # cond, uncond
    kwargs: dict[str, Any] = field(default_factory=dict)
    decoder: Callable[[Tensor, str], Any] = _no_decoder  # latents and an output_type
    output_type: str = "np"
    maker: str = ""  # of a recording: what made it, see patching.maker_of
    edited: bool = False  # whether hooks of the model had a part in it

    def __deepcopy__(self, memo: dict[int, Any]) -> Run:
        """A copy with tensors of its own, which the same model decodes."""
        return replace(self, **{f.name: copy.deepcopy(getattr(self, f.name), memo) for f in fields(self) if f.name != "decoder"})

    def __getstate__(self) -> dict[str, Any]:
        """For pickling: without the model, so that a run that was read is decoded by ``model.decode(run.latents)``."""
        return {**self.__dict__, "decoder": _no_decoder}

    def __repr__(self) -> str:
        levels = f", sigma {self.sigmas[0]:.3f} to {self.sigmas[-1]:.3f}" if self.sigmas else ""
        experts = "/".join(dict.fromkeys(call.expert for call in self.calls))
        latents = list(self.latents.shape)
        return f"Run({self.steps} steps{levels}; branches {'/'.join(self.branches)}; {experts}; latents {latents})"

    def _repr_html_(self) -> str:
        """For notebooks: steps, noise levels, and of a small run the frames of some clean estimates."""
        small = 0 < self.latents.numel() <= notebook.SMALL and self.decoder is not _no_decoder
        return notebook.html(repr(self), self.sigmas, self.decode if small else None)

    @property
    def steps(self) -> int:
        """How many denoising steps were run."""
        return len(self.x_t)

    @property
    def branches(self) -> tuple[str, ...]:
        """Branches of a step in the order of their calls."""
        return tuple(c.branch for c in self.calls if c.step == 0)

    @property
    def x0hat(self) -> Sequence[Tensor]:
        """Clean estimate ``[batch, channel, frame, row, col]`` of every step, each computed when it is asked for.

        What a denoiser expects the clean video to be (CoS section 3.1, eq. 2), from ``x_t`` and ``v`` of the step.
        """
        return _Estimates(self)

    def decode(self, step: int | None = None) -> np.ndarray:
        """Pixels uint8 ``[batch, pixel frame, height, width, 3]`` of x0hat at a step, or of the final latent.

        Raises IndexError for a step that the run does not have.
        """
        if isinstance(step, slice):
            raise InterpError(f"step={step}: give one step, or None for the final latent")
        latents = self.latents if step is None else self.x0hat[step]
        return to_uint8(self.decoder(self.shown(latents), "np"))

    @property
    def frames(self) -> Any:
        """The video as the pipeline returns it with the ``output_type`` of the call, decoded when it is asked for. Allegro's
        keeps the frames that its pipeline crops.

        ``"np"`` (where the call said nothing): floats in [0, 1] ``[batch, pixel frame, height, width, 3]``; ``"pt"``: a tensor
        ``[batch, pixel frame, 3, height, width]``; ``"pil"``: for every video a list of pictures; ``"latent"``: :attr:`latents`.
        """
        return self.latents if self.output_type == "latent" else self.decoder(self.shown(self.latents), self.output_type)

    def shown(self, latents: Tensor) -> Tensor:
        """Latents ``[batch, channel, frame, row, col]`` of this run with the frames that the pipeline puts before them."""
        if self.lead is None:
            return latents
        return torch.cat([self.lead.to(latents).expand(len(latents), -1, -1, -1, -1), latents], dim=2)

    def call(self, step: int, branch: str = "cond") -> Call:
        """The call of a step and branch. InterpError where there was none."""
        number = whole(step)
        number = number + self.steps if number is not None and number < 0 else number
        found = next((c for c in self.calls if c.step == number and c.branch == branch), None)
        if found is None:
            had = f"steps 0 to {self.steps - 1}, branches {', '.join(self.branches)}"
            raise InterpError(f"there was no call at step {step}, branch {branch!r}: the run had {had}")
        return found


class _Estimates(Sequence[Tensor]):
    """The clean estimates of a run."""

    def __init__(self, run: Run):
        self.run = run

    def __len__(self) -> int:
        return self.run.steps

    @overload
    def __getitem__(self, step: int) -> Tensor: ...

    @overload
    def __getitem__(self, step: slice) -> list[Tensor]: ...

    def __getitem__(self, step: int | slice) -> Tensor | list[Tensor]:
        if isinstance(step, slice):
            return [self[k] for k in numbers(step, len(self), "step")]
        found = whole(step)
        if found is None or not -len(self) <= found < len(self):
            raise IndexError(f"step {step} was asked for; the run has steps 0 to {len(self) - 1}")
        return self.run.clean[found].estimate(self.run.x_t[found], self.run.v[found])
