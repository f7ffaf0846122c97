"""Single numbers and tensors as people give them, of Python, numpy or torch: what is one, and what only looks like one."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor


def whole(value: Any) -> int | None:
    """A whole number of Python, numpy or torch; None for anything else, and for True and False, which are answers."""
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, (Tensor, np.ndarray)) and (value.ndim or not _counts(value))):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def finite(value: Any) -> float | None:
    """A finite real number of Python or numpy; None for anything else, and for True and False."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) else None


def has_numbers(value: Any) -> bool:
    """Whether something is a tensor with a number in every place: one on meta has none, a sparse one leaves most out, and of a
    quantised one they are codes."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta and not value.is_quantized


def lacking(value: Tensor) -> str:
    """Why a tensor has not a number in every place, in a word; empty where it has."""
    if has_numbers(value):
        return ""
    return "meta" if value.is_meta else "quantised" if value.is_quantized else "sparse"


def _counts(value: Tensor | np.ndarray) -> bool:
    """Whether an array holds whole numbers."""
    if isinstance(value, Tensor):
        return has_numbers(value) and not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
    return bool(np.issubdtype(value.dtype, np.integer))
