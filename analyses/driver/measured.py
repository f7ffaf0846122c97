"""What of an experiment's rows is laid beside the same of another run. Light: experiments declare it in their ``__init__``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Measured:
    """A column by which runs are compared, item by item.

    ``value``: the column; with ``counts`` the share of rows that have this reading in it. ``along``: columns of steps
    (aligned by their noise level) and ``layer`` (by relative depth); none where there is one number a part. ``where``: what the
    rows that count have in other columns, None for nothing; ``final``: only those of the last step. ``by``: columns that are
    kept apart.
    """

    title: str
    value: str
    along: tuple[str, ...] = ("step",)
    where: Mapping[str, str | None] = field(default_factory=dict)
    by: tuple[str, ...] = ()
    counts: str | None = None
    final: bool = False
