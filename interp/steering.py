"""Steering: one vector, added at a place in some steps of any generation, also of a plain diffusers pipeline."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import BaseOutput
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from cos_interp.interp.address import Address, Index, as_index, index_text, shown
from cos_interp.interp.batch import described
from cos_interp.interp.errors import InterpError
from cos_interp.interp.families.sites import EXPERTS
from cos_interp.interp.files import BLANK, is_intact, sealed, write_atomic
from cos_interp.interp.hooking import FwdHook
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.clock import Hook
from cos_interp.interp.run.standins import Proxy
from cos_interp.interp.scalars import finite, has_numbers
from cos_interp.interp.selecting import HOW_TOKENS, as_array, token_mask

FORMAT = "cos-interp steering vector 1"
HOOK_NAME = re.compile(r"[A-Za-z0-9_.]+")
CELLS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)  # dtypes that count
LATENTS = ("hook_x_t", "hook_x0hat", "hook_model_out")
STEERED = "_steered_by"  # where the class of a steered pipeline keeps its hooked model


@dataclass(frozen=True)
class Steer:
    """A vector ``[d_model]`` that is added at a hook with tokens, ``dose`` times (activation addition, 2308.10248).

    ``where``: a whole hook name, ``blocks.1.hook_resid_post``. ``span``: the denoising steps, in any form that
    :func:`~cos_interp.interp.selecting.numbers` takes, None for all. ``tokens``: how much each token gets, ``[frame, row, col]``,
    negative to turn it round, or what :func:`~cos_interp.interp.selecting.token_mask` takes, for 0 and 1; None for 1 everywhere.
    ``branch``: of guidance, None for both. ``card``: what the vector is, for whoever loads it. InterpError for what is none of
    these, and for what would steer nothing but for its dose.
    """

    vector: Tensor
    where: str
    span: Any = None
    tokens: Any = None
    dose: float = 1.0
    branch: str | None = None
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_vector(self.vector)
        span = as_index(self.span, "span")
        if span == ():
            raise InterpError(f"span={shown(self.span)} holds no step: give steps, or None for all")
        object.__setattr__(self, "span", span)
        object.__setattr__(self, "tokens", _tokens(self.tokens))
        if not isinstance(self.where, str) or not HOOK_NAME.fullmatch(self.where):
            raise InterpError(
                f"where={self.where!r}: give one whole hook name, like 'blocks.1.hook_resid_post', without * and selectors; "
                "steps are span=, branches branch=, tokens tokens=, and several places are several Steer"
            )
        if self.where in LATENTS:
            raise InterpError(f"where={self.where!r} holds latents and no tokens of d_model: give a hook of a block")
        self._at()  # whose errors name the branch
        if finite(self.dose) is None:
            raise InterpError(f"dose={self.dose!r}: give a finite number")
        if not isinstance(self.card, Mapping):
            raise InterpError(f"card={self.card!r}: give a dictionary of what JSON can hold, or leave it out")

    def __repr__(self) -> str:
        steps = "all steps" if self.span is None else f"steps {index_text(self.span)}"
        return f"Steer({len(self.vector)} numbers of norm {self.vector.norm():.3g}, {self.where}, {steps}, dose {self.dose:g})"

    def __mul__(self, dose: float) -> Steer:
        """The same at another dose: ``steer * -1`` turns it round."""
        if finite(dose) is None:
            raise InterpError(f"dose {dose!r}: a steering is multiplied by a finite number")
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
        return act + self._weights((act.shape[1], act.shape[2], act.shape[3])).to(act)[None, ..., None] * moved

    def _weights(self, grid: tuple[int, int, int]) -> Tensor:
        """How much each token of a grid gets, ``[frame, row, col]``."""
        given = self.tokens
        if isinstance(given, Mapping) or given.ndim == 2:  # axes, or cells
            given = token_mask(given, grid)
        if given.shape != grid:
            raise InterpError(f"{self} has weights for {list(given.shape)} tokens, the run has {list(grid)}")
        return given

    def _at(self) -> Address:
        return Address(self.where, step=self.span, branch=self.branch)

    def hooks(self) -> list[FwdHook]:
        """As edits, for ``model.run_with_hooks(fwd_hooks=steer.hooks(), ...)`` and ``model.hooks``."""

        def edit(act: Tensor, hook: Hook) -> Tensor:
            return self.added(act)

        return [(str(self._at()), edit)]

    # --- files ---------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """As one safetensors file, with the card, sealed with its own digest. Written whole or not at all."""
        given = {"vector": self.vector, "tokens": self.tokens}
        tensors = {name: value.detach().contiguous() for name, value in given.items() if isinstance(value, Tensor)}
        about: dict[str, Any] = {"where": self.where, "span": _json(self.span), "dose": float(self.dose), "branch": self.branch}
        if isinstance(self.tokens, Mapping):
            about["tokens"] = {axis: _json(index) for axis, index in self.tokens.items()}
        try:
            card = json.dumps(dict(self.card))
        except (TypeError, ValueError) as error:
            raise InterpError(f"the card cannot be written ({error}): give what JSON can hold") from error
        told = {"seal": BLANK, "format": FORMAT, "about": json.dumps(about), "card": card}
        write_atomic(Path(path), sealed(save(tensors, {"steer": json.dumps(told)})))  # one key: the order of several is not fixed

    @classmethod
    def load(cls, path: str | Path) -> Steer:
        """What :meth:`save` wrote. InterpError for a file that is none, or that has changed since."""
        data = _bytes(Path(path))
        try:
            with safe_open(str(path), "pt") as file:
                told = file.metadata() or {}
            told = json.loads(told["steer"]) if "steer" in told else told
            tensors = load(data)
        except SafetensorError as error:
            raise InterpError(f"{path} is no safetensors file ({error})") from error
        if told.get("format") != FORMAT:
            raise InterpError(f"{path} holds no steering vector: give a file that Steer.save has written")
        if not is_intact(data):
            raise InterpError(f"{path} has changed since it was written: make it again")
        about = {"tokens": tensors.get("tokens"), **json.loads(told["about"])}
        return cls(tensors["vector"], card=json.loads(told["card"]), **about)


def _json(index: Index | None) -> list[int] | str | None:
    return index_text(index) if isinstance(index, slice) else index if index is None else list(index)


def _check_vector(vector: Any) -> None:
    if not has_numbers(vector) or vector.ndim != 1 or not vector.is_floating_point():
        raise InterpError(f"a steering vector is one row of floats [d_model], {described(vector)} was given")
    if not bool(vector.isfinite().all()):
        raise InterpError("a steering vector has finite numbers, this one has not")
    if not bool(vector.any()):
        raise InterpError("a steering vector of zeros steers nothing: give one that is not; dose=0 is the run as it was")


def _tokens(asked: Any) -> Tensor | dict[str, Index | None] | None:
    """Tokens as weights ``[frame, row, col]``, as cells ``[cell, 3]``, or along axes; a grid of a run decides on the last two."""
    if asked is None or (isinstance(asked, str) and asked == "all"):
        return None
    if isinstance(asked, Mapping):
        return {str(axis): as_index(index, str(axis)) for axis, index in asked.items()}
    if not has_numbers(asked):
        array = as_array(asked)
        if array.dtype.kind not in "biuf":
            raise InterpError(f"tokens={shown(asked)}: {HOW_TOKENS}, or weights [frame, row, col]")
        asked = torch.from_numpy(array.copy())
    if asked.ndim == 2 and asked.shape[1] == 3 and len(asked) and asked.dtype in CELLS:
        return asked
    if asked.ndim != 3 or asked.is_complex():
        raise InterpError(f"tokens are weights [frame, row, col], these have the shape {list(asked.shape)}: {HOW_TOKENS}")
    if not bool(asked.isfinite().all()) or not bool(asked.any()):
        what = "are all 0, which steers nothing" if not bool(asked.any()) else "are not all finite"
        raise InterpError(f"tokens: the weights {what}: {HOW_TOKENS}, or finite weights of which one at least is not 0")
    return asked


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

    ``with steer(pipe, vector): video = pipe(prompt=..., image=image).frames[0]``. Several add up, in their order, and so do
    blocks in each other. Raises InterpError for a place that the model does not have, in the call where tokens or steps do not
    fit the run, and where another hooked model runs the pipeline in the block.
    """
    if not steers or not all(isinstance(one, Steer) for one in steers):
        raise InterpError("steer takes a pipeline and one Steer or more: steer(pipe, Steer(vector, 'blocks.1.hook_resid_post'))")
    outer = getattr(type(pipe), STEERED, None)
    model = outer or HookedVideoPipeline.from_pipeline(pipe)
    with model.hooks([hook for one in steers for hook in one.hooks()]):
        if model is pipe or outer:
            yield pipe
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

    @functools.wraps(plain.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if any(type(getattr(self, name, None)) is Proxy for name in EXPERTS):  # not isinstance: a proxy passes for its module
            raise InterpError(
                "another hooked model runs this pipeline while it is steered: steer that one, `with steer(model, ...)`, or call "
                "the pipeline itself in the block"
            )
        given = {name: value for name, value in signature.bind(self, *args, **kwargs).arguments.items() if name != "self"}
        steered, self.__class__ = type(self), plain
        try:
            frames = model.run(**given).frames
        finally:
            self.__class__ = steered
        return SteeredOutput(frames=frames) if given.get("return_dict", True) else (frames,)

    own = {"__call__": torch.no_grad()(call), "__module__": plain.__module__, STEERED: model}
    return type(plain.__name__, (plain,), own)
