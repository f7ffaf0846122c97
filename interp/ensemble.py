"""Training-free ensemble of several seeds: merge a tensor of parallel runs in some steps, finish one of them (CoS section 6).

The paper does not print its recipe: which tensor, which steps, which layers and how they are merged are parameters here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from diffusers.utils import BaseOutput
from torch import Tensor

from cos_interp.interp.batch import joined, several_seeds
from cos_interp.interp.call import checked_output_type
from cos_interp.interp.errors import InterpError
from cos_interp.interp.hooking import FwdHook
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.rows import batch_rows, returned
from cos_interp.interp.run.clock import Call, Hook
from cos_interp.interp.run.director import Around, Director
from cos_interp.interp.run.engine import ExpertEngine, streams
from cos_interp.interp.selecting import known_layers, numbers
from cos_interp.interp.trajectory import Run

Merged = Literal["hidden", "v", "x0hat", "x_t"]
Combine = Literal["mean", "norm-matched"]


@dataclass(frozen=True)
class EnsembleRecipe:
    """``tensor`` is averaged over the members in ``steps`` (for hidden states: at ``layers``, by default the middle third).

    Steps and layers are what :func:`cos_interp.interp.selecting.numbers` takes. InterpError for an unknown tensor or combination.
    """

    tensor: Merged = "hidden"
    steps: Any = (0,)
    layers: Any = None
    combine: Combine = "mean"

    def __post_init__(self) -> None:
        for field, there in (("tensor", get_args(Merged)), ("combine", get_args(Combine))):
            if getattr(self, field) not in there:
                raise InterpError(f"{field}={getattr(self, field)!r}: there are {', '.join(there)}")

    def names(self, layers: int) -> list[str]:
        """The hooks that are merged in a model of so many layers."""
        if self.tensor != "hidden":
            if self.layers is not None:
                raise InterpError(f"layers are those of tensor='hidden': leave them out for {self.tensor!r}")
            return [{"v": "hook_model_out", "x0hat": "hook_x0hat", "x_t": "hook_x_t"}[self.tensor]]
        chosen = self.layers if self.layers is not None else range(layers // 3, layers - layers // 3)
        return [f"blocks.{layer}.hook_resid_post" for layer in known_layers(chosen, layers)]


def merge(members: Tensor, combine: Combine = "mean") -> Tensor:
    """Every member ``[member, ...]`` replaced by their mean; norm-matched: at each member's own norm.

    A plain mean of K independent noises has 1/K of their variance and lies off the model's data; matching the norm repairs
    that for pure noise.
    """
    mean = members.mean(0, keepdim=True)
    if combine == "mean":
        return mean.expand_as(members).clone()
    norms = members.flatten(1).norm(dim=1).view(-1, *[1] * (members.ndim - 1))
    return mean / mean.norm().clamp_min(1e-12) * norms


def ensemble_hooks(recipe: EnsembleRecipe, layers: int, steps: Sequence[int]) -> list[FwdHook]:
    """The edits that merge the rows of a batch in some steps."""

    def edit(act: Tensor, hook: Hook) -> Tensor:
        return merge(act, recipe.combine)

    at = f"step=[{','.join(map(str, steps))}]"
    return [(f"{name} @ {at}", edit) for name in recipe.names(layers)]


class _FirstRowLater(Around):
    """After the last merged step a forward runs the first of its members alone; the others' rows repeat what it gives."""

    def __init__(self, inner: Director, members: int, last_step: int):
        super().__init__(inner)
        self.members, self.last_step = members, last_step

    def call(self, calls: tuple[Call, ...], engine: ExpertEngine, kwargs: dict[str, Any]) -> Any:
        if calls[0].step <= self.last_step or kwargs["hidden_states"].shape[0] != self.members * len(calls):
            return self.inner.call(calls, engine, kwargs)
        first = [branch * self.members for branch in range(len(calls))]
        out = streams(self.inner.call(calls, engine, batch_rows(engine, kwargs, first)))
        return returned(engine, tuple(stream.repeat_interleave(self.members, 0) for stream in out))


def run_ensemble(model: HookedVideoPipeline, recipe: EnsembleRecipe, seeds: Sequence[int], **kwargs: Any) -> Run:
    """Run the members until the last merged step, then only the first one. Row 0 of the run is the result.

    Costs ``len(seeds)`` rows up to the last merged step and one row after it.
    """
    steps = numbers(recipe.steps, kwargs.get("num_inference_steps") or model.default("num_inference_steps"), "step")
    first_row_later = lambda inner: _FirstRowLater(inner, len(seeds), max(steps))
    with model.hooks(ensemble_hooks(recipe, model.layers, steps)):
        return model.run_directed(first_row_later, **joined([{**kwargs, "seed": seed} for seed in seeds]))


@dataclasses.dataclass
class EnsembleOutput(BaseOutput):
    """``frames`` as the pipeline's own output has them."""

    frames: Any


def _drawn(generator: Any, count: int) -> list[int]:
    """Seeds from a generator of the caller's. InterpError for a list of them, or anything else."""
    if not isinstance(generator, torch.Generator):
        raise InterpError(
            f"generator is a {type(generator).__name__}: an ensemble draws the seeds of its {count} members from one "
            "torch.Generator; for noises of your own choice leave it out and give EnsembleSampler(pipe, seeds=[...])"
        )
    return torch.randint(2**31, (count,), generator=generator, device=generator.device).tolist()


class EnsembleSampler:
    """A diffusers video pipeline with an ensemble inside: ``EnsembleSampler(pipe, seeds=3)(prompt=..., image=...)``.

    Runs of several noises share a tensor in some steps and one of them is finished (CoS section 6, which does not print its
    recipe). ``seeds``: a number of members or their noise seeds, two at least; a ``generator`` in the call draws them instead.
    ``recipe``: the fields of :class:`EnsembleRecipe`, that is ``tensor``, ``steps``, ``layers``, ``combine``. Everything else in
    the call goes to the pipeline, and the call returns what the pipeline returns: ``frames`` for an ``output_type`` of ``np``,
    ``pt`` or ``pil``, or final latents ``[1, channel, frame, row, col]`` for ``latent``.

    Raises InterpError for fewer than two different seeds, an unknown recipe, a ``seed`` or a batch of prompts in the call, or
    steps and layers that the run does not have.
    """

    def __init__(self, pipe: Any, seeds: int | Sequence[int] = 3, **recipe: Any):
        self.model = HookedVideoPipeline.from_pipeline(pipe)
        self.seeds = several_seeds(seeds, "an ensemble")
        known = [field.name for field in dataclasses.fields(EnsembleRecipe)]
        if unknown := [name for name in recipe if name not in known]:
            raise InterpError(f"an ensemble has no {unknown[0]!r}: its recipe has {', '.join(known)}")
        self.recipe = EnsembleRecipe(**recipe)
        self.recipe.names(self.model.layers)

    def __repr__(self) -> str:
        return f"EnsembleSampler({type(self.model.pipe).__name__}, seeds={self.seeds}, {self.recipe})"

    def __call__(self, *, output_type: str = "np", return_dict: bool = True, generator: Any = None, **kwargs: Any) -> Any:
        if isinstance(kwargs.get("prompt"), list):
            raise InterpError("the ensemble takes one prompt at a time: call it once a prompt")
        if "seed" in kwargs:
            raise InterpError(
                "seed: an ensemble has several, EnsembleSampler(pipe, seeds=[...]), or give a generator in the call"
            )
        output_type = checked_output_type(output_type)
        seeds = self.seeds
        if generator is not None:
            seeds = _drawn(generator, len(seeds))
        latents = run_ensemble(self.model, self.recipe, seeds, **kwargs).latents[:1]
        frames = latents if output_type == "latent" else self.model.frames(latents, output_type)
        return EnsembleOutput(frames=frames) if return_dict else (frames,)
