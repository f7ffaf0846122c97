"""A noise that leads to a wanted video: the plan of a run is in its seed, and one direction of the noise decides it.

Two clean latents ``own`` and ``other`` and a state ``x_t = alpha x0 + sigma noise`` of either: an ideal observer holds them
equally likely on the plane half way between them, ``<x_t, d> = alpha (|other|^2 - |own|^2) / 2`` with ``d = other - own``. Where
a state stands along ``d``, in standard deviations of its noise, is one number; moving the state changes that number and nothing
across ``d``. At the first step of flow matching ``alpha`` is 0: the noise alone leans to one of the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from cos_interp.interp.batch import described, rows_of
from cos_interp.interp.encoding import encode
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.latents import canonical, native
from cos_interp.interp.run.prediction import signal
from cos_interp.interp.scalars import finite, has_numbers
from cos_interp.interp.trajectory import Run

ALIKE = 1e-3  # two latents nearer to each other than this share of their norm are one


@dataclass(frozen=True)
class ChosenSeed:
    """A noise that leans to a wanted video. :func:`choose_seed` makes it.

    ``latents``: as the pipeline takes them, ``pipe(..., latents=chosen.latents)``. ``noise``: the same as ``run.x_t[0]``,
    ``[1, channel, frame, row, col]``, and ``sampled`` the one that the seed draws. ``distance`` between them, in standard
    deviations of the noise; ``share`` of the sampled one's norm. ``before`` and ``after``: where they stand along the direction,
    0 half way, positive on the wanted side. ``run``: from the chosen noise; ``sampled_run``: from the seed's own.
    """

    latents: Tensor
    noise: Tensor
    sampled: Tensor
    distance: float
    share: float
    before: float
    after: float
    run: Run
    sampled_run: Run

    def __repr__(self) -> str:
        return (
            f"ChosenSeed({self.before:+.2f} to {self.after:+.2f} SD, {self.distance:.2f} SD away, {self.share:.1%} of the norm)"
        )


def direction(own: Tensor, other: Tensor) -> Tensor:
    """Unit vector from one clean latent to another, float64 on the CPU, in their shape. InterpError where they are one."""
    start, end = (one.detach().cpu().double() for one in (own, other))
    away = end - start
    if alike(start, end):
        raise InterpError("the two latents coincide: there is no direction from one to the other; give another video")
    return away / away.norm()


def alike(first: Tensor, second: Tensor) -> bool:
    """Whether two latents are one, but for rounding."""
    return bool((first - second).norm() <= ALIKE * max(float(first.norm()), float(second.norm())))


def along(x_t: Tensor, own: Tensor, other: Tensor, sigma: float, alpha: float) -> float:
    """Where a state stands between two clean latents, in standard deviations of its noise: 0 half way, above 0 for ``other``."""
    way = direction(own, other)
    start, end = (one.detach().cpu().double() for one in (own, other))
    half_way = alpha / 2 * float(end.square().sum() - start.square().sum()) / float((end - start).norm())
    return (float((x_t.detach().cpu().double().view_as(end) * way).sum()) - half_way) / sigma


def moved(x_t: Tensor, way: Tensor, by: float, sigma: float) -> Tensor:
    """A state ``by`` standard deviations of its noise further along a unit vector of its shape."""
    return (x_t.detach().cpu().double() + by * sigma * way.view_as(x_t)).to(x_t)


def choose_seed(
    model: Any, call: Mapping[str, Any], toward: np.ndarray | Tensor, away: np.ndarray | Tensor | None = None, to: float = 2.0
) -> ChosenSeed:
    """A noise from which a call gives the wanted video rather than its own, at a stated distance from the sampled noise.

    The noise that the call's ``seed`` draws is moved along one direction alone, (latent of ``toward`` - latent of ``away``),
    until it stands ``to`` standard deviations on the wanted side. ``model``: a :class:`HookedVideoPipeline`, or a diffusers
    pipeline; ``call``: its keywords for one video, with a ``seed``. ``toward`` is what the model could have made of this call
    (another right answer, the video of another seed): a clip uint8 ``[pixel frame, height, width, 3]`` of the call's size, or
    latents ``[1, channel, frame, row, col]`` like ``run.latents``; ``away`` likewise, by default the video of the call itself.

    Makes two runs. That the wanted video comes is not promised: look at ``chosen.run``. Raises InterpError for a call of several
    videos or without a seed, clips of another size, latents that coincide, and a pipeline that does not start from ``latents``.
    """
    if finite(to) is None:
        raise InterpError(f"to={to!r}: give a finite number of standard deviations of the noise")
    for what, given in (("toward", toward), ("away", away)):
        _check_numbers(given, what)
    _check_call(call)
    model, call = HookedVideoPipeline.from_pipeline(model), dict(call)
    first = model.run(**call)
    start, sigma = first.x_t[0], first.sigmas[0]
    alpha = signal(model.pipe.scheduler, first.sigmas)[0]
    other = _clean(model, toward, first, "toward")
    own = first.latents if away is None else _clean(model, away, first, "away")
    before = along(start, own, other, sigma, alpha)
    latents = _native(model, first, moved(start, direction(own, other), to - before, sigma))
    run = _from_latents(model, call, latents)
    after, apart = along(run.x_t[0], own, other, sigma, alpha), float((run.x_t[0] - start).norm())
    if abs(after - to) > 0.01 + 0.01 * abs(to):
        raise _starts_elsewhere(model, f"the noise then stands at {after:.2f} and not at {to:g}")
    return ChosenSeed(latents, run.x_t[0], start, apart / sigma, apart / float(start.norm()), before, after, run, first)


def _from_latents(model: HookedVideoPipeline, call: Mapping[str, Any], latents: Tensor) -> Run:
    try:
        return model.run(**{**call, "latents": latents})
    except (ValueError, TypeError, RuntimeError, NameError) as error:  # pipelines whose keyword has another meaning
        raise _starts_elsewhere(model, str(error)) from error


def _starts_elsewhere(model: HookedVideoPipeline, why: str) -> InterpError:
    return InterpError(
        f"{type(model.pipe).__name__} does not start from latents that it is given ({why}): move the first state of a run, "
        "restart(model, run, 0, moved(run.x_t[0], way, by, run.sigmas[0])), see cos_interp.interp.choosing"
    )


def _check_numbers(given: Any, what: str) -> None:
    """InterpError for latents without numbers, or with some that are not finite."""
    if isinstance(given, Tensor) and not (has_numbers(given) and bool(given.isfinite().all())):
        problem = ", of which some numbers are NaN or infinite" if has_numbers(given) else ""
        raise InterpError(f"{what}: {described(given)}{problem}: give latents with a finite number in every place")


def _check_call(call: Any) -> None:
    if not isinstance(call, Mapping):
        raise InterpError(f"call={call!r}: give the keywords of one run, {{'prompt': ..., 'seed': 0}}")
    if rows_of(call) != 1:
        raise InterpError(f"a call of {rows_of(call)} videos: a noise is chosen for one at a time")
    if call.get("seed") is None:
        raise InterpError("the call has no seed: say from which noise to start, choose_seed(model, {..., 'seed': 0}, ...)")
    if call.get("latents") is not None:
        raise InterpError("the call has latents of its own, which are its noise: leave them out and give a seed")


def _clean(model: HookedVideoPipeline, given: np.ndarray | Tensor, run: Run, what: str) -> Tensor:
    """A clip, or latents, as latents like those of a run. InterpError for another size."""
    if isinstance(given, np.ndarray):
        given = encode(model, given[None])
    wanted = tuple(run.latents.shape)
    if not isinstance(given, Tensor) or not given.is_floating_point() or tuple(given.shape) != wanted:
        raise InterpError(
            f"{what}: {described(given)} as latents, and those of the call have the shape {list(wanted)}: give a clip uint8 "
            "[pixel frame, height, width, 3] of the size that the call makes, or latents of that shape"
        )
    return given.to(run.latents)


def _native(model: HookedVideoPipeline, run: Run, state: Tensor) -> Tensor:
    """A first state as the keyword ``latents`` of the pipeline, which scales it as it scales noise."""
    layout, drawn = model.adapter.layout, run.prepared[0]
    seen = canonical(drawn, layout, run.dims).shape[2]
    made = native(state[:, :, state.shape[2] - seen :], drawn, layout)
    return made.contiguous() / float(getattr(model.pipe.scheduler, "init_noise_sigma", 1.0))
