"""From a video to the noise that the model makes it of: the ordinary differential equation of its flow, backwards.

A flow's velocity ``v(x, sigma) = (x - x0hat(x)) / sigma`` moves a state from noise to a video, ``x' = x + (sigma' - sigma) v(x)``
from a noise level to the next lower one. Backwards, ``x`` stands on both sides: ``x = x' + (sigma - sigma') v(x)``. The first
guess takes ``v`` at ``x'`` (Song et al. 2010.02502); each refinement takes it at the last guess, which is the fixed point of
AIDI (Pan et al. 2309.04907) and ReNoise (Garibi et al. 2403.14602).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cos_interp.interp.denoising import Denoiser
from cos_interp.interp.encoding import encode
from cos_interp.interp.errors import InterpError
from cos_interp.interp.families.contract import takes
from cos_interp.interp.hooking import FwdHook
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.clock import Hook
from cos_interp.interp.run.prediction import is_flow
from cos_interp.interp.scalars import whole
from cos_interp.interp.trajectory import Run

REFINEMENTS = 3
NOISY = ("FlowMatchLCMScheduler",)  # samplers that draw noise in every step: no equation leads back through them


@dataclass(frozen=True, eq=False)
class Inversion:
    """A video on the way of a model. :func:`invert` makes it.

    ``clean``: latents of the video ``[1, channel, frame, row, col]``; frames that the pipeline gives are its own. ``states``:
    the state before every step that leads to it, the first one is the noise. ``left``: for every step, how far its state is from
    being led to the next one by the model's own velocity, as a share of that one's norm. ``call``: keywords with which the model
    goes that way. ``run``: what its own sampler makes of the noise; ``error``: how far that is from ``clean``, as a share of its
    norm.
    """

    clean: Tensor
    states: tuple[Tensor, ...]
    left: tuple[float, ...]
    call: Mapping[str, Any]
    run: Run

    @property
    def noise(self) -> Tensor:
        return self.states[0]

    @property
    def error(self) -> float:
        return _apart(self.run.latents, self.clean)

    def hooks(self, steps: slice = slice(None)) -> list[FwdHook]:
        """Edits with which a run of the ``call`` goes through the states of these steps: ``model.hooks(found.hooks())`` around a
        ``run_with_cache`` reads activations on the way of the video itself, whatever the sampler would make of its noise."""
        return [(f"hook_x_t @ step={k}", _put(self.states[k])) for k in range(len(self.states))[steps]]


def invert(model: HookedVideoPipeline, video: np.ndarray, /, refine: int = REFINEMENTS, **call: Any) -> Inversion:
    """Find the noise from which a model makes a video, by its flow's own velocity, and go back from there.

    ``video``: uint8 ``[pixel frame, height, width, 3]``. ``call``: keywords of the pipeline (``prompt``,
    ``num_inference_steps``, ...); size and length are the video's, and where the pipeline takes a picture and neither that nor
    a video is given it is the video's first frame. Every step costs ``2 + refine`` evaluations of the model. The error falls with
    the number of steps: look at ``error`` and ``left``.

    Raises InterpError for models that are no flow or whose sampler draws noise, that denoise something beside the video (sound),
    or whose autoencoder's latents of a video are not to be had; for a video of a size that the model does not make.
    """
    if (rounds := whole(refine)) is None or rounds < 0:
        raise InterpError(f"refine={refine!r}: give a whole number of refinements from 0 on")
    _check(model)
    clean = encode(model, np.asarray(video)[None])
    denoiser = Denoiser(model, **told(model, np.asarray(video), call))
    clean = with_given(denoiser, clean)
    state, states, left = clean, list[Tensor](), list[float]()
    for step in reversed(range(denoiser.steps)):
        by = denoiser.sigmas[step] - denoiser.sigmas[step + 1]
        state, after = backwards(partial(denoiser.velocity, step), state, by, rounds)
        left.append(after)
        states.append(state)
    with model.hooks([("hook_x_t @ step=0", _put(state))]):
        run = model.run(**denoiser.call)
    return Inversion(clean, tuple(reversed(states)), tuple(reversed(left)), denoiser.call, run)


def backwards(velocity: Callable[[Tensor], Tensor], after: Tensor, by: float, refine: int) -> tuple[Tensor, float]:
    """The state that a step of length ``by`` down in noise leads to ``after``, and how far the step from it misses that, as a
    share of its norm: ``x = after + by v(x)``, by ``refine`` rounds of fixed point.

    >>> x, left = backwards(lambda x: 0.5 * x, torch.tensor([1.0]), 0.5, 8)
    >>> round(float(x), 3), left < 1e-4  # x - 0.5 * 0.5 x = 1
    (1.333, True)
    """
    best, least = after, float("inf")
    guess = after + by * velocity(after)
    for _ in range(refine + 1):
        found = after + by * velocity(guess)
        if (left := _apart(guess + after - found, after)) < least:
            best, least = guess, left
        guess = found
    return best, least


def _apart(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def _put(state: Tensor) -> Callable[[Tensor, Hook], Tensor]:
    return lambda x_t, hook: state.to(x_t)


def _check(model: HookedVideoPipeline) -> None:
    scheduler = model.pipe.scheduler
    name, stochastic = type(scheduler).__name__, bool(scheduler.config.get("stochastic_sampling", False))
    if not is_flow(scheduler):
        raise InterpError(f"a video is inverted by a flow's velocity, and {name} samples no flow: take a flow-matching model")
    if name in NOISY or stochastic:
        raise InterpError(f"{name} draws noise in every step, so that no one noise leads to a video: load a FlowMatchEuler one")


def told(model: HookedVideoPipeline, video: np.ndarray, call: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of a call about a video: size and length are its own, and so is the picture where neither that nor a video (Cosmos
    2.5, which takes one of them) is given."""
    sizes = dict(zip(("num_frames", "height", "width"), video.shape[:3], strict=True))
    own: dict[str, Any] = {name: size for name, size in sizes.items() if takes(type(model.pipe).__call__, name)}
    if model.takes_image and call.get("video") is None:
        own["image"] = Image.fromarray(video[0])
    return {"seed": 0, **own, **model.adapter.needs, **call}


def with_given(denoiser: Denoiser, clean: Tensor) -> Tensor:
    """The latents of a video in a call's type, with the frames that the pipeline gives, of its picture, and that no step moves.

    InterpError for latents of another size than the call makes.
    """
    if denoiser.start.shape != clean.shape:
        made, given, kind = list(denoiser.start.shape), list(clean.shape), type(denoiser.model.pipe).__name__
        raise InterpError(
            f"the video has latents {given} [batch, channel, frame, row, col], and {kind} denoises {made} in this call: give a "
            "video of a size and length that it makes, and one prompt"
        )
    last, clean = denoiser.steps - 1, clean.to(denoiser.start)
    moved = denoiser.asked(last, clean).v[last].abs().amax((0, 1, 3, 4), keepdim=True) > 0
    return torch.where(moved, clean, denoiser.start)
