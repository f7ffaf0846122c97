"""Errors of the instrument: what was asked, what was found, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InterpError(ValueError):
    """Something was asked that this model or run cannot give. The message says what was found instead, and what to do."""


class UnknownHook(InterpError):
    """A hook name, or a pattern, that names nothing in the model. The message holds the nearest names."""


class BudgetExceeded(InterpError):
    """A cache would hold more bytes than allowed; raised before the first transformer call, with what would fit."""


class NotFinite(InterpError):
    """A number that is NaN or infinite, where every later one would be, too."""


def unknown_hook(name: str, known: Iterable[str]) -> UnknownHook:
    """The error for a name, with the nearest known ones."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.3)
    return UnknownHook(
        f"no hook matches {name!r}; the nearest of {len(known)} names: {', '.join(near) or 'none'}. "
        "List all with model.hook_names"
    )
