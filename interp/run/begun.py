"""Rows of one batch, each begun by itself: for pipelines that encode and prepare one picture a call.

A row is run up to its first forward, with its own picture and noise. The batch is given what the rows encoded and prepared, in
place of what the pipeline would make of several pictures, and is held against the rows: its first forward must be theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import torch
from torch import Tensor

from cos_interp.interp.batch import PICTURES, single_calls
from cos_interp.interp.errors import InterpError
from cos_interp.interp.rows import in_one_batch, same
from cos_interp.interp.run.clock import Call
from cos_interp.interp.run.director import Around, Director
from cos_interp.interp.run.engine import ExpertEngine
from cos_interp.interp.run.generators import kept_states, listed, restore

Play = Callable[[Director, dict[str, Any]], Any]
OWN = ("hidden_states", "timestep")  # of a forward: what differs from step to step


class Begun(Exception):
    """The first forward of a run, which is not made."""


class Beginning(Director):
    """Keeps what a run encodes and prepares, the states in which that leaves its generator, and what it gives its first forward,
    and ends it there."""

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator
        self.encoded: list[Any] = []
        self.made: Any = None  # by prepare_latents
        self.states: dict[int | None, list[Tensor]] = {}  # by the place of an encoder, None of prepare_latents
        self.given: Mapping[str, Any] = {}  # to the first forward
        self.branches = 1  # in it

    def encode(self, place: int, encode: Callable[[], Any]) -> Any:
        self.encoded.append(encode())
        self._drawn(place)
        return self.encoded[-1]

    def prepare(self, prepare: Callable[[], Any]) -> Any:
        found = prepare()
        self.made = _copied(found)  # some pipelines write into theirs
        self._drawn(None)
        return found

    def call(self, calls: tuple[Call, ...], engine: ExpertEngine, kwargs: dict[str, Any]) -> Any:
        self.given, self.branches = dict(kwargs), len(calls)
        raise Begun

    def _drawn(self, place: int | None) -> None:
        self.states[place] = [one.get_state() for one in listed(self.generator)]


def rows_begun(director: Director, call: dict[str, Any], play: Play, name: str) -> tuple[Director, dict[str, Any]]:
    """For a call of several videos the director of rows that are begun one by one, and the keywords of their batch.

    ``play`` runs the pipeline, called ``name``, with keywords. InterpError where it gives its transformer of several rows what is
    of one; what is wrong with a row is said as of that row alone.
    """
    calls = single_calls(call)
    rows = begun(calls, play)
    one = {key: calls[0][key] for key in PICTURES if key in call}
    try:
        return _together(director, rows, {**call, **one}, play)
    except (RuntimeError, ValueError) as error:
        why, said = error, str(error).splitlines()[0]
    with suppress(Exception):  # some pipelines take no lists, and fit rows that they are not told of
        return _together(director, rows, calls[0] | {"generator": call.get("generator")}, play)
    raise InterpError(f"{len(calls)} videos in one run: {name} makes one ({said}): make a run for each") from why


def begun(calls: Sequence[dict[str, Any]], play: Play) -> list[Beginning]:
    """The beginning of each call, in order; those that are equal share one. Generators of single rows are left as they were."""
    made: list[tuple[Mapping[str, Any], Beginning]] = []
    rows = []
    for call in calls:
        found = next((row for other, row in made if _equal(other, call)), None)
        if found is None:
            generator = call.get("generator")
            found = Beginning(generator)
            shared = sum(one.get("generator") is generator for one in calls) > 1
            with nullcontext() if shared else kept_states(generator):
                _begin(found, call, play)
            made.append((call, found))
        rows.append(found)
    return rows


def _begin(director: Director, call: dict[str, Any], play: Play) -> None:
    with suppress(Begun):
        play(director, call)


def _together(director: Director, rows: Sequence[Beginning], call: dict[str, Any], play: Play) -> tuple[Director, dict[str, Any]]:
    """As :func:`rows_begun`, with a batch of these keywords, whose own beginning is held against its rows'."""
    batch, generators = Beginning(), call.get("generator")
    with kept_states(generators):
        _begin(Rows(batch, rows, generators), call, play)
    return Rows(director, rows, generators, told(rows, batch)), call


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two calls are one but for the generator, which each has of its own, in the same state."""
    mine, theirs = one.get("generator"), other.get("generator")
    if mine is theirs or mine is None or theirs is None or not torch.equal(mine.get_state(), theirs.get_state()):
        return False
    plain = lambda value: isinstance(value, bool | int | float | str)
    return all(v is (o := other[name]) or (plain(v) and v == o) for name, v in one.items() if name != "generator")


class Rows(Around):
    """Another director, in a run whose rows were begun before, each by itself. ``generators``: of the run, one a row. ``told``:
    of the transformer's arguments those that the pipeline itself makes of one picture only."""

    def __init__(
        self, inner: Director, rows: Sequence[Beginning], generators: Any = None, told: Mapping[str, Tensor] | None = None
    ):
        super().__init__(inner)
        self.rows, self.generators, self.told = rows, listed(generators), dict(told or {})

    def encode(self, place: int, encode: Callable[[], Any]) -> Any:
        made = in_one_batch([row.encoded[place] for row in self.rows])
        self._drawn(place)
        return self.inner.encode(place, lambda: made)

    def prepare(self, prepare: Callable[[], Any]) -> Any:
        made = in_one_batch([row.made for row in self.rows])
        self._drawn(None)
        return self.inner.prepare(lambda: _copied(made))

    def call(self, calls: tuple[Call, ...], engine: ExpertEngine, kwargs: dict[str, Any]) -> Any:
        return self.inner.call(calls, engine, {**kwargs, **self.told})

    def _drawn(self, place: int | None) -> None:
        """Generators as the rows' own are after this: what a pipeline draws later, it draws as for each row alone."""
        if len(self.generators) == len(self.rows):
            restore(self.generators, [row.states[place][0] for row in self.rows])


def told(rows: Sequence[Beginning], batch: Beginning) -> dict[str, Tensor]:
    """The arguments of a batch's first forward that are not its rows' own, as they should be.

    InterpError where that cannot be mended: what the transformer gets of a picture beside the latents is then of one picture.
    """
    wanted = {name: _in_branches([row.given[name] for row in rows], batch.branches) for name in _tensors(rows)}
    differing = {
        name: value for name, value in wanted.items()
        if value is not None and not (isinstance(given := batch.given.get(name), Tensor) and torch.equal(given, value))
    }  # fmt: skip
    if set(differing) & set(OWN):
        raise InterpError("what it makes of the pictures reaches its transformer by ways that know of one only")
    return differing


def _tensors(rows: Sequence[Beginning]) -> list[str]:
    """The arguments that are tensors in which rows differ."""
    first, *others = [row.given for row in rows]
    return [
        name for name, value in first.items()
        if isinstance(value, Tensor) and not all(same(value, other.get(name)) for other in others)
    ]  # fmt: skip


def _in_branches(values: Sequence[Tensor], branches: int) -> Tensor | None:
    """Rows, each of so many branches, as a batch has them, branch by branch; None for what has no axis for them."""
    if any(value.shape != values[0].shape for value in values) or not values[0].ndim or values[0].shape[0] != branches:
        return None
    return torch.cat([value[branch : branch + 1] for branch in range(branches) for value in values])


def _copied(prepared: Any) -> Any:
    """First latents as they are, whatever is written into them later."""
    return (prepared[0].clone(), *prepared[1:]) if isinstance(prepared, tuple) else prepared.clone()
