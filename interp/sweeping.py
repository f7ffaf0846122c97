"""Activation patching over a grid of sites, layers, steps and tokens, one replay a cell, as a tidy table."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from cos_interp.interp.batch import chunks
from cos_interp.interp.errors import InterpError, NotFinite, unknown_hook
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patches import Donor, Patch, Row, first_step, of_row, resolved
from cos_interp.interp.patching import Recording, check_made, replay
from cos_interp.interp.selecting import known_layers, numbers, whole, words
from cos_interp.interp.sharing import Shared

if TYPE_CHECKING:
    import pandas as pd

Metric = Callable[[Tensor], float | Mapping[str, float]]
Span = Literal["single", "from", "until"]
COLUMNS = ("site", "layer", "step", "sigma", "group", "span")
Cell = tuple[dict[str, Any], Patch]
Through = Callable[[Sequence[int], Callable[[], Tensor]], Tensor]  # see :func:`finished`


def sweep(
    model: HookedVideoPipeline,
    target: Recording,
    donor: Recording,
    *,
    metric: Metric,
    sites: str | Sequence[str] = "hook_resid_post",
    steps: Iterable[int] | None = None,
    layers: Iterable[int] | None = None,
    tokens: Mapping[str, Tensor | None] | None = None,
    span: Span = "single",
    branches: str | Sequence[str] = ("cond",),
    batch: int = 1,
) -> pd.DataFrame:
    """Put the donor's activations into the target's run, one cell of the grid at a time, and measure what comes out.

    ``sites`` are names inside a block (``attn.hook_z``) or whole ones outside (``hook_x_t``); ``steps`` and ``layers`` are all
    for None (those that have the site). ``tokens`` names groups of tokens, each a bool mask ``[frame, row, col]`` over the token
    grid or None for all. ``span``: a patch acts at its step alone, from it on, or until it, itself included. ``metric`` gets
    the final latents ``[1, channel, frame, row, col]`` of a cell; ``model.decode`` makes pixels of them.

    Returns a row a cell: ``site``, ``layer`` (missing outside the blocks), ``step``, ``sigma`` (noise level), ``group``, ``span``
    and ``value``, or a column for every key where the metric returns a mapping. At ``batch=1`` each equals a forward hook on the
    pipeline, bit for bit, and with the target as its own donor all are exactly the target; more rows a forward round otherwise.
    Raises InterpError for runs that do not fit, for what they do not have, and for a site that ``donor`` does not hold, and
    UnknownHook for a site that the model does not have.
    """
    import pandas as pd

    _check_runs(model, target, donor, metric)
    if tokens is not None and not isinstance(tokens, Mapping):
        raise InterpError("tokens: name the groups, as in tokens={'goal': mask}; the name is a column of the table")
    if (rows_each := whole(batch)) is None or rows_each < 1:
        raise InterpError(f"batch={batch!r}: give the number of cells in one forward, 1 or more")
    groups, chosen = {"all": None} if tokens is None else tokens, words(branches, "branches", target.run.branches)
    cells = [
        cell
        for site, layer, name in _places(model, words(sites, "sites", "names of sites"), layers)
        for given in [donor.donor(name)]
        for step in numbers(steps, target.run.steps, "step")
        for cell in _cells(model, target, given, (site, layer, name), step, groups, span, chosen)
    ]
    if not cells:
        raise InterpError(f"nothing to patch: sites={sites}, steps={steps}, layers={layers} select no cell")
    played = finished(model, target, [patch for _, patch in cells], batch, Shared())
    found = {place: _measured(metric, latents, cells[place][0]) for place, latents in played}
    if other := next((place for place in found if found[place].keys() != found[0].keys()), None):
        raise InterpError(
            f"the metric gave {', '.join(found[0])} in the first cell and {', '.join(found[other])} in another: it must give the "
            "same names in all"
        )
    rows = [where | found[place] for place, (where, _) in enumerate(cells)]
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def spanned(step: int, steps: int, span: Span) -> tuple[int, ...]:
    """The steps in which a patch of a step acts. InterpError for an unknown span."""
    found = {"single": (step,), "from": tuple(range(step, steps)), "until": tuple(range(step + 1))}
    if span not in found:
        raise InterpError(f"span={span!r}: there are {', '.join(found)}")
    return found[span]


def _check_runs(model: Any, target: Any, donor: Any, metric: Any) -> None:
    known = isinstance(model, HookedVideoPipeline) and isinstance(target, Recording) and isinstance(donor, Recording)
    if not known or not callable(metric):
        given = ", ".join(type(one).__name__ for one in (model, target, donor, metric))
        raise InterpError(f"sweep takes (model, target, donor, metric=function), recordings as record() makes them, got {given}")
    ours, theirs = (list(recording.run.x_t[0].shape) for recording in (target, donor))
    if ours != theirs:
        raise InterpError(f"the target has latents {ours}, the donor {theirs}: record both with the same keywords")


def _places(
    model: HookedVideoPipeline, sites: Sequence[str], layers: Iterable[int] | None
) -> Iterator[tuple[str, int | None, str]]:
    """(site, layer, hook name) of all places; UnknownHook for one that the model does not have."""
    known, asked = set(model.hook_names), known_layers(layers, model.layers)
    for site in dict.fromkeys(sites):
        if "*" in site:
            raise InterpError(f"sites={site!r}: give the name inside a block, like 'attn.hook_z', and layers=")
        if site in known:
            inside = re.match(r"blocks\.(\d+)\.", site)
            if inside and layers is not None:
                raise InterpError(f"sites={site!r} names its layer already: leave layers out, or give the name inside a block")
            yield site, int(inside[1]) if inside else None, site
            continue
        names = [(layer, f"blocks.{layer}.{site}") for layer in asked]
        found = [(layer, name) for layer, name in names if name in known]
        if not found or (layers is not None and len(found) < len(names)):
            raise unknown_hook(next(name for _, name in names if name not in known), model.hook_names)
        yield from ((site, layer, name) for layer, name in found)


def _cells(
    model: HookedVideoPipeline,
    target: Recording,
    given: Donor,
    place: tuple[str, int | None, str],
    step: int,
    tokens: Mapping[str, Tensor | None],
    span: Span,
    branches: tuple[str, ...],
) -> Iterator[Cell]:
    """The cells of one place and step, one a group of tokens."""
    site, layer, name = place
    steps = spanned(step, target.run.steps, span)
    for group, mask in tokens.items():
        where = {"site": site, "layer": layer, "step": step, "sigma": target.run.sigmas[step], "group": group, "span": span}
        yield where, resolved(model, target.run, Patch(name, steps, given, branches, mask))


def finished(
    model: HookedVideoPipeline,
    target: Recording,
    rows: Sequence[Row],
    batch: int,
    shared: Shared | None = None,
    through: Through | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Each row's place in the list and its final latents ``[1, channel, frame, row, col]``, as they come; rows that start at one
    step share forwards of ``batch``. ``shared``: see :func:`replay`. ``through``: is given the places of the rows of each forward
    and what makes their latents, and gives these, or what it reads in them, by row: made now, or kept from before."""
    check_made(model, target.run)
    first = lambda place: first_step(of_row(rows[place]))
    for _, together in groupby(sorted(range(len(rows)), key=first), key=first):
        for part in chunks(list(together), batch):
            make = partial(replay, model, target, [rows[place] for place in part], shared, compared=True)
            latents = make() if through is None else through(part, make)
            yield from zip(part, latents.split(1), strict=True)


def _measured(metric: Metric, latents: Tensor, where: Mapping[str, Any]) -> dict[str, float]:
    """What the metric says of a cell, which is at ``where``. InterpError for what is no finite number."""
    found = metric(latents)
    if not isinstance(found, Mapping):
        found = {"value": found}
    if not found:
        raise InterpError("the metric returns no number: give one, or a mapping of names to numbers")
    taken = [name for name in found if name in COLUMNS]
    if taken:
        raise InterpError(f"the metric returns {taken[0]!r}, which is a column of the grid: give it another name")
    numbers = {str(name): _number(value, name) for name, value in found.items()}
    if endless := [name for name, number in numbers.items() if not math.isfinite(number)]:
        cell = ", ".join(f"{key} {value}" for key, value in where.items() if value is not None)
        raise NotFinite(
            f"the metric gave {numbers[endless[0]]} for {endless[0]!r} in the cell {cell}: it must give a finite number in every "
            "cell; leave such cells out, or return another number for what it cannot measure"
        )
    return numbers


def _number(value: Any, name: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        said = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise InterpError(
            f"the metric gave {said} for {name!r}: it must give a number, or a mapping from names to numbers"
        ) from error
