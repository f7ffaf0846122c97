"""Steering: one vector, added at a place in some steps of any generation, also of a plain diffusers pipeline."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import BaseOutput
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from cos_interp.interp.errors import InterpError
from cos_interp.interp.files import BLANK, is_intact, sealed, write_atomic
from cos_interp.interp.hooking import FwdHook
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.clock import Hook

FORMAT = "cos-interp steering vector 1"


@dataclass(frozen=True)
class Steer:
    """A vector ``[d_model]`` that is added at a hook with tokens, ``dose`` times (activation addition, 2308.10248).

    ``where``: a whole hook name, ``blocks.1.hook_resid_post``. ``span``: the denoising steps, None for all. ``tokens``: how much
    each token gets, ``[frame, row, col]``, negative to turn it round, bool for 0 and 1; None for 1 everywhere. ``branch``: of
    guidance, None for both. ``card``: what the vector is, for whoever loads it. InterpError for a vector that is none.
    """

    vector: Tensor
    where: str
    span: Sequence[int] | None = None
    tokens: Tensor | None = None
    dose: float = 1.0
    branch: str | None = None
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.vector, Tensor) or self.vector.ndim != 1 or not self.vector.is_floating_point():
            raise InterpError("a steering vector is one row of floats [d_model]")
        if not bool(self.vector.isfinite().all()):
            raise InterpError("a steering vector has finite numbers, this one has not")
        if self.tokens is not None and self.tokens.ndim != 3:
            raise InterpError(f"tokens are weights [frame, row, col], these have the shape {list(self.tokens.shape)}")
        if self.span is not None and not list(self.span):
            raise InterpError("span=[] holds no step: give steps, or None for all")

    def __repr__(self) -> str:
        steps = "all steps" if self.span is None else f"steps {min(self.span)} to {max(self.span)}"
        return f"Steer({len(self.vector)} numbers of norm {self.vector.norm():.3g}, {self.where}, {steps}, dose {self.dose:g})"

    def __mul__(self, dose: float) -> Steer:
        """The same at another dose: ``steer * -1`` turns it round."""
        return dataclasses.replace(self, dose=self.dose * dose)

    def added(self, act: Tensor) -> Tensor:
        """An activation ``[row, frame, row, col, d_model]`` after it. InterpError where its shape does not fit."""
        if act.ndim != 5 or act.shape[-1] != len(self.vector):
            raise InterpError(
                f"{self} does not fit {self.where}, which is {list(act.shape)} here: [.., frame, row, col, d_model]"
            )
        moved = self.dose * self.vector.to(act)
        if self.tokens is None:
            return act + moved
        if self.tokens.shape != act.shape[1:4]:
            raise InterpError(f"{self} has weights for {list(self.tokens.shape)} tokens, the run has {list(act.shape[1:4])}")
        return act + self.tokens.to(act)[None, ..., None] * moved

    def hooks(self) -> list[FwdHook]:
        """As edits, for ``model.run_with_hooks(fwd_hooks=steer.hooks(), ...)`` and ``model.hooks``."""

        def edit(act: Tensor, hook: Hook) -> Tensor:
            return self.added(act)

        parts = [] if self.span is None else [f"step=[{','.join(map(str, self.span))}]"]
        parts += [] if self.branch is None else [f"branch={self.branch}"]
        return [(f"{self.where} @ {', '.join(parts)}" if parts else self.where, edit)]

    # --- files ---------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """As one safetensors file, with the card, sealed with its own digest. Written whole or not at all."""
        tensors = {"vector": self.vector.contiguous()} | ({} if self.tokens is None else {"tokens": self.tokens.contiguous()})
        about = {
            "where": self.where,
            "span": None if self.span is None else list(self.span),
            "dose": self.dose,
            "branch": self.branch,
        }
        told = {"seal": BLANK, "format": FORMAT, "about": json.dumps(about), "card": json.dumps(dict(self.card))}
        write_atomic(Path(path), sealed(save(tensors, told)))

    @classmethod
    def load(cls, path: str | Path) -> Steer:
        """What :meth:`save` wrote. InterpError for a file that is none, or that has changed since."""
        data = _bytes(Path(path))
        try:
            with safe_open(str(path), "pt") as file:
                told = file.metadata() or {}
            tensors = load(data)
        except SafetensorError as error:
            raise InterpError(f"{path} is no safetensors file ({error})") from error
        if told.get("format") != FORMAT:
            raise InterpError(f"{path} holds no steering vector: give a file that Steer.save has written")
        if not is_intact(data):
            raise InterpError(f"{path} has changed since it was written: make it again")
        return cls(tensors["vector"], tokens=tensors.get("tokens"), card=json.loads(told["card"]), **json.loads(told["about"]))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InterpError(f"{path} cannot be read: {error.strerror}") from error


# --- plain pipelines ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class SteeredOutput(BaseOutput):
    """``frames`` as the pipeline's own output has them; of ``output_type="latent"``: ``[batch, channel, frame, row, col]``."""

    frames: Any


@contextlib.contextmanager
def steer(pipe: Any, *steers: Steer) -> Iterator[Any]:
    """In the block every call of a diffusers pipeline, or run of a hooked one, is steered; afterwards it is as it was.

    ``with steer(pipe, vector): video = pipe(prompt=..., image=image).frames[0]``. Several add up, in their order. Raises
    InterpError for a place that the model does not have, and in the call where tokens or steps do not fit the run.
    """
    if not steers or not all(isinstance(one, Steer) for one in steers):
        raise InterpError("steer takes a pipeline and one Steer or more: steer(pipe, Steer(vector, 'blocks.1.hook_resid_post'))")
    model = HookedVideoPipeline.from_pipeline(pipe)
    with model.hooks([hook for one in steers for hook in one.hooks()]):
        if model is pipe:
            yield model
            return
        plain = type(pipe)
        pipe.__class__ = _steered(plain, model)
        try:
            yield pipe
        finally:
            pipe.__class__ = plain


def _steered(plain: type, model: HookedVideoPipeline) -> type:
    """The pipeline's class with a call that goes through the hooked model, inside of which it is the plain one."""
    signature = inspect.signature(plain.__call__)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = {name: value for name, value in signature.bind(self, *args, **kwargs).arguments.items() if name != "self"}
        steered, self.__class__ = type(self), plain
        try:
            frames = model.run(**given).frames
        finally:
            self.__class__ = steered
        return SteeredOutput(frames=frames) if given.get("return_dict", True) else (frames,)

    return type(plain.__name__, (plain,), {"__call__": torch.no_grad()(call), "__module__": plain.__module__})
