"""Rows of one batch that are copies of one recorded video: making them, cutting a forward down to some of them, joining runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cos_interp.interp.batch import PROMPTS, of_texts
from cos_interp.interp.errors import InterpError
from cos_interp.interp.run.clock import Call
from cos_interp.interp.run.director import Director, When
from cos_interp.interp.run.engine import ExpertEngine, streams
from cos_interp.interp.trajectory import Run


def stacked(runs: Sequence[Run]) -> Run:
    """The same run of several videos, in one batch."""
    joined = lambda tensors: [torch.cat(rows) for rows in zip(*tensors, strict=True)]
    outputs = [tuple(joined(rows)) for rows in zip(*(run.outputs for run in runs), strict=True)]
    x_t, v = joined([run.x_t for run in runs]), joined([run.v for run in runs])
    return replace(runs[0], x_t=x_t, v=v, outputs=outputs, latents=torch.cat([run.latents for run in runs]))


def in_one_batch(values: Sequence[Any]) -> Any:
    """What was made for single videos, in lists and tuples, as made for a batch of them. InterpError where their forms differ."""
    first = values[0]
    if isinstance(first, (list, tuple)) and all(len(value) == len(first) for value in values):
        return type(first)(in_one_batch(parts) for parts in zip(*values, strict=True))
    if all(same(first, value) for value in values) and not (isinstance(first, Tensor) and first.shape[:1] == (1,)):
        return first
    if all(isinstance(value, Tensor) and value.shape[:1] == (1,) and value.shape == first.shape for value in values):
        return torch.cat(list(values))
    raise InterpError("what it encodes of one row has another form than of the next")


def same(one: Any, other: Any) -> bool:
    """Whether two values are one, tensors by their numbers."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one is other or (one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other))
    return one is other or (not isinstance(one, Tensor) and not isinstance(other, Tensor) and bool(one == other))


def repeated(value: Any, rows: int) -> Any:
    """Everything of one video, in lists and tuples, repeated for a batch."""
    return in_one_batch([value] * rows)


def replay_arguments(run: Run, rows: int) -> dict[str, Any]:
    """The pipeline's keywords for a batch of copies of a run, which draws the noise of its scheduler again.

    Raises InterpError for a run whose scheduler drew noise from PyTorch's global generator.
    """
    if run.unseeded:
        raise InterpError(
            "this run drew noise from PyTorch's global generator, so that no replay can be exact: give a seed, "
            "or where the pipeline does not pass it on, load a deterministic scheduler"
        )
    kwargs = {k: v for k, v in run.kwargs.items() if k not in ("generator", "latents", "callback_on_step_end")}
    if any(run.generators.values()):
        made = [torch.Generator("cpu") for _ in range(rows)]
        kwargs["generator"] = made if rows > 1 else made[0]  # some pipelines take no list
    for name in PROMPTS:
        if isinstance(kwargs.get(name), (str, list)):
            text = kwargs[name] if isinstance(kwargs[name], str) else kwargs[name][0]
            kwargs[name] = [text] * rows if rows > 1 else text
    for name, value in kwargs.items():
        if of_texts(name):
            kwargs[name] = repeated(value, rows)
    return kwargs


def batch_rows(engine: ExpertEngine, kwargs: Mapping[str, Any], where: list[int]) -> dict[str, Any]:
    """A forward's arguments restricted to some rows of its batch."""
    batch, whole = kwargs["hidden_states"].shape[0], engine.adapter.unbatched

    def cut(value: Any, dims: int = 1) -> Any:
        if isinstance(value, (list, tuple)):  # several texts, or residuals of a control network; rotary tables have 2 axes
            return type(value)(cut(item, 3) for item in value)
        return value[where] if isinstance(value, Tensor) and value.ndim >= dims and value.shape[0] == batch else value

    return {k: v if k in whole else cut(v) for k, v in kwargs.items()}


def returned(engine: ExpertEngine, out: tuple[Tensor, ...]) -> Any:
    """Model outputs, one tensor for every latent, in the form in which the transformer returns them."""
    return out[0] if engine.adapter.output_item is None else out


def put_rows(out: tuple[Tensor, ...], where: list[int], found: Any) -> None:
    """Write what a transformer returned for some rows of a batch into the whole batch's outputs."""
    for whole, part in zip(out, streams(found), strict=True):
        whole[where] = part


class Fed(Director):
    """Feeds a recorded run of one video to the pipeline, in so many rows: nothing is encoded, drawn or run."""

    def __init__(self, run: Run, rows: int):
        self.run, self.rows = run, rows

    def encode(self, place: int, encode: Callable[[], Any]) -> Any:
        return repeated(self.run.encoded[place], self.rows)

    def prepare(self, prepare: Callable[[], Any]) -> Any:
        found = repeated(self.run.prepared, self.rows)
        return found if len(found) > 1 else found[0]

    def generator_states(self, when: When) -> Sequence[Tensor]:
        return self.run.generators.get(when, ())

    def call(self, calls: tuple[Call, ...], engine: ExpertEngine, kwargs: dict[str, Any]) -> Any:
        return returned(engine, self.outputs(calls))

    def outputs(self, calls: tuple[Call, ...]) -> tuple[Tensor, ...]:
        """What the transformer returned in these calls, one tensor for every latent, in every row."""
        recorded = [self.run.outputs[call.index] for call in calls]
        each = lambda part: part.repeat(self.rows, *[1] * (part.ndim - 1))
        return tuple(torch.cat([each(part) for part in stream]) for stream in zip(*recorded, strict=True))
