"""Weights of several models: their average, and one model with other weights. No pipeline runs here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from cos_interp.analyses.kit.other_models import weights
from cos_interp.interp.model import HookedVideoPipeline

Weights = Mapping[str, Mapping[str, Tensor]]  # by expert, by name


def weights_of(model: HookedVideoPipeline) -> Weights:
    """Of all its transformers. Not copied."""
    return {name: weights(engine.module) for name, engine in model.engines.items()}


def averaged(first: Weights, others: Iterable[Weights], count: int) -> Weights:
    """The mean of the weights of a model and of ``count`` others, asked for one after the other, in the type of the first.

    As ``w + sum (w_i - w) / (count + 1)``, so that equal ones give exactly their own; summed in float32 at least.
    """
    wide = lambda w: w.detach().to(torch.promote_types(w.dtype, torch.float32), copy=True)
    sums = {expert: {name: wide(w) for name, w in held.items()} for expert, held in first.items()}
    for other in others:
        for expert, held in other.items():
            for name, w in held.items():
                sums[expert][name] += (w.detach().double() - first[expert][name].detach().double()) / (count + 1)
    return {expert: {name: w.to(first[expert][name].dtype) for name, w in held.items()} for expert, held in sums.items()}


def apart(mine: Weights, theirs: Weights) -> float:
    """``|theirs - mine| / |mine|`` over all weights; exactly 0 for equal ones."""
    square = lambda tensors: sum(float(t.detach().double().square().sum()) for t in tensors)
    pairs = [(w, theirs[expert][name]) for expert, held in mine.items() for name, w in held.items()]
    return float((square(b.double() - a.double() for a, b in pairs) / square(a for a, _ in pairs)) ** 0.5)


@contextlib.contextmanager
def with_weights(model: HookedVideoPipeline, given: Weights) -> Iterator[None]:
    """In the block a model has other weights. No number is copied: tensors change hands."""
    mine = weights_of(model)
    kept = {expert: {name: w.data for name, w in held.items()} for expert, held in mine.items()}
    try:
        _put(mine, given)
        yield
    finally:
        _put(mine, kept)


def _put(into: Weights, given: Weights) -> None:
    for expert, held in into.items():
        for name, weight in held.items():
            weight.data = given[expert][name].data
