"""Replaying a recorded run with patched activations, at the exact minimum of transformer blocks.

Up to the first patched step nothing runs: the pipeline's loop is fed the recorded model outputs, so the scheduler (with
its history) arrives in the same state bit for bit. In the first patched step a branch without a patch is fed from the
recording too, and a patched branch starts at the patched layer from the recorded residual stream.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from cos_interp.interp.cache import ActivationCache
from cos_interp.interp.errors import BudgetExceeded, InterpError
from cos_interp.interp.identity import glance
from cos_interp.interp.keeping import Keeping
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patches import Donor, Patch, Recorded, Row, first_step, of_row, resolved
from cos_interp.interp.recomputing import OF_THE_CACHE, hold, recorded_lean
from cos_interp.interp.rows import Fed, batch_rows, put_rows, replay_arguments, returned, stacked
from cos_interp.interp.run.clock import Call, Step
from cos_interp.interp.run.engine import ExpertEngine, Skip, Visitor
from cos_interp.interp.selecting import numbers, token_mask
from cos_interp.interp.sharing import Shared, conditions, is_all
from cos_interp.interp.trajectory import Run
from cos_interp.interp.views import AXES, axes_of


@dataclass(frozen=True, eq=False)
class Recording:
    """A run of one video with residual streams, from which patched runs start, and sites that it gives: see :func:`record`."""

    run: Run
    cache: ActivationCache
    passing: frozenset[str] = frozenset()  # names of which the cache holds one step at a time
    tokens: Tensor | None = None  # bool over the token grid: those that were kept; None: all

    def __repr__(self) -> str:
        return f"Recording({self.run}, {self.cache})"

    def residual(self, layer: int, step: int, branch: str) -> Tensor:
        """The residual stream after a block, ``[1, frame, row, col, d_model]``. KeyError for what the run does not have."""
        return self.cache[f"blocks.{layer}.hook_resid_post", step, branch]

    def stream(self, site: str, layer: int, step: int, branch: str) -> Tensor | None:
        """One of the streams after a block: ``hook_resid_post``, or text, audio or history where the family has them.

        Where nothing reads it after the block, it is the stream of the block before, which has the same shape; None
        where the family has no such stream.
        """
        names = (f"blocks.{n}.{site}" for n in range(layer, -1, -1))
        return next((self.cache[name, step, branch] for name in names if (name, step, branch) in self.cache), None)

    def donor(self, site: str) -> Recorded:
        """This recording's own activation at a site (a whole hook name), as a donor, to the same site or another of its shape.

        Of what is kept one step at a time a replay has the step that its patch acts in made again. InterpError where the site was
        not recorded.
        """
        if site != "hook_x_t" and site not in self.cache.axes and site not in self.passing:
            pattern = re.sub(r"^blocks\.\d+\.", "blocks.*.", site)
            raise InterpError(f"{site} was not recorded: record it with record(model, names=[{pattern!r}], ...)")
        return Recorded(self.run, self.cache, site, self.passing, self.tokens)


def record(
    model: HookedVideoPipeline,
    names: str | Sequence[str] = (),
    recompute: bool = False,
    keeping: Keeping | None = None,
    **kwargs: Any,
) -> Recording:
    """Run one video and keep what patching needs: the residual streams at every step, and the sites ``names``.

    ``names`` may hold ``*``. Other keywords are those of the pipeline (``prompt``, ``seed``, ...), ``max_bytes`` for the memory,
    and ``steps``, in which alone replays can start then. ``keeping`` says what the recording is for, and so which streams and
    tokens it keeps, and where. ``recompute``: where what is to be kept of all steps does not fit, the residual streams (and of
    ``Keeping(single=True)`` the sites) of one step are kept at a time, and run again where a replay starts.
    Raises UnknownHook for a name that the model does not have, InterpError for keywords that would cut what replays start from,
    and BudgetExceeded before the first transformer call when more would be kept than ``max_bytes``.
    """
    names, keeping = [names] if isinstance(names, str) else names, Keeping() if keeping is None else keeping
    _check_record(model, recompute, keeping, kwargs)
    streams = keeping.streams(model.hook_names)
    asked, passing = set(model.matching(names) if names else ()) - {"hook_x_t"}, frozenset[str]()
    place = {"tokens": keeping.tokens, "place": keeping.place}
    try:
        run, cache = _kept(model, sorted(asked | streams), {**kwargs, **place})
    except BudgetExceeded:
        passing = frozenset(asked | streams if keeping.single else streams - asked)
        if not recompute or not passing:
            raise
        run, cache = recorded_lean(model, asked - passing, passing, keeping, kwargs)
    run.maker = maker_of(model)
    mask = None if keeping.tokens is None else token_mask(keeping.tokens, model.token_grid(run.x_t[0]).shape)
    return Recording(run, cache, passing, mask)


def _kept(model: HookedVideoPipeline, names: Sequence[str], kwargs: Mapping[str, Any]) -> tuple[Run, ActivationCache]:
    if names:
        return model.run_with_cache(names=names, **kwargs)
    return model.run(**{key: value for key, value in kwargs.items() if key not in OF_THE_CACHE}), ActivationCache()


def _check_record(model: Any, recompute: Any, keeping: Any, kwargs: Mapping[str, Any]) -> None:
    if not isinstance(model, HookedVideoPipeline):
        raise InterpError(f"record takes a HookedVideoPipeline, got {type(model).__name__}: wrap it with from_pipeline(pipe)")
    if not isinstance(recompute, bool):
        raise InterpError(f"recompute={recompute!r}: give True or False")
    if not isinstance(keeping, Keeping):
        raise InterpError(f"keeping={keeping!r}: give a Keeping(layers=..., tokens=..., place=...)")
    keeping.check(model.layers)
    if cut := [key for key in ("branches", "tokens", "reduce", "place") if kwargs.get(key) is not None]:
        raise InterpError(
            f"{cut[0]}: a recording keeps whole activations, from which replays start: leave it out, say it in a Patch, or say "
            "what the recording is for, with keeping="
        )


def maker_of(model: HookedVideoPipeline) -> str:
    """What a replay must have in common with its recording."""
    return glance(model.pipe, {name: engine.module for name, engine in model.engines.items()})


def restart(model: HookedVideoPipeline, run: Run | Recording, step: int, latents: Tensor) -> Run:
    """Finish a run or recording of one video from other latents ``[rows, channel, frame, row, col]`` before a step, a row each.

    The steps before are fed from the recording, so the scheduler's history is that of the recorded run. Row i of every tensor
    of the new run belongs to row i of ``latents``; given back the recorded ``run.x_t[step]`` alone, it ends with the same bits.
    Raises InterpError for a run of several videos, and for one that drew noise from PyTorch's global generator.
    """
    ours = isinstance(model, HookedVideoPipeline)
    if not ours or not isinstance(run, (Run, Recording)) or not isinstance(latents, Tensor):
        raise InterpError(f"restart takes (model, run, step, latents), got {_kinds(model, run, step, latents)}")
    run = run.run if isinstance(run, Recording) else run
    if latents.shape[1:] != run.latents.shape[1:] or latents.dtype != run.latents.dtype or not len(latents):
        wanted, given = (f"{one.dtype} {list(one.shape)}" for one in (run.latents, latents))
        raise InterpError(f"a restart of this run takes latents like its own, {wanted}, in any number of rows: got {given}")
    recording, at = Recording(run, ActivationCache()), numbers(step, run.steps, "step")
    return replay_run(model, recording, [Patch("hook_x_t", at, _always(row)) for row in latents.split(1)])


def _kinds(*given: Any) -> str:
    return ", ".join(type(one).__name__ for one in given)


def _always(activation: Tensor) -> Donor:
    return lambda step, branch: activation


def start_layer(model: HookedVideoPipeline, patch: Patch) -> int:
    """The first block that a patched call must run."""
    if patch.site == "hook_x_t":
        return 0
    point = next(e.points[patch.site] for e in model.engines.values())
    if point.layer is None:
        return model.layers if patch.site == "hook_model_out" else 0
    return point.layer + (".hook_resid_post" in patch.site)


def minimal_blocks(model: HookedVideoPipeline, target: Recording, row: Row, done: set[Hashable] | None = None) -> int:
    """Transformer blocks that a patched run cannot avoid: the rest of the patched calls of its first step, then all, but for what
    lies before a residual stream that is overwritten.

    Where both branches run in one forward, both count: a forward of half the batch would round differently. ``done``: keys of
    the calls that earlier rows with the same :class:`~cos_interp.interp.sharing.Shared` have run, to which this row's are added.
    """
    return Minimum(model, target, done).blocks(row)


class Minimum:
    """:func:`minimal_blocks` of many rows of one recording: what is alike in the place of their patches is worked out once."""

    def __init__(self, model: HookedVideoPipeline, target: Recording, done: set[Hashable] | None = None):
        self.model, self.target, self.done = model, target, done
        self._forwards = [tuple(calls) for _, calls in groupby(target.run.calls, key=lambda call: call.forward)]
        self._known: dict[Hashable, tuple[int, list[tuple[int, int, tuple[Call, ...]]]]] = {}

    def blocks(self, row: Row) -> int:
        """Transformer blocks that a row cannot avoid, after those that are ``done``, to which its own are added."""
        patches = of_row(row)
        if not all(isinstance(p.steps, tuple) and isinstance(p.branches, tuple) for p in patches):
            patches = self._resolved(patches)
        alike = tuple((type(p), p.site, p.steps, p.branches, p.tokens is None) for p in patches)
        if alike not in self._known:
            self._known[alike] = self._worked_out(self._resolved(patches))
        alone, common = self._known[alike]
        return alone + sum(blocks for blocks, which, calls in common if self._is_new(patches[which], calls))

    def _resolved(self, patches: Sequence[Patch]) -> tuple[Patch, ...]:
        return tuple(resolved(self.model, self.target.run, patch) for patch in patches)

    def _is_new(self, patch: Patch, calls: tuple[Call, ...]) -> bool:
        """Whether a forward that rows with a patch have in common must run for this one; the next one finds it done."""
        if self.done is None:
            return True
        before = len(self.done)
        self.done.add(_key(self.model, patch, calls))
        return len(self.done) > before

    def _worked_out(self, patches: Sequence[Patch]) -> tuple[int, list[tuple[int, int, tuple[Call, ...]]]]:
        """Blocks of the forwards that only this row has, and of each other one with the patch that decides its result."""
        first, acting = first_step(patches), {step for patch in patches for step in patch.steps}
        alone, common = 0, []
        for calls in self._forwards:
            if calls[0].step < first:
                continue
            if calls[0].step not in acting:
                alone += len(calls) * self.model.layers
                continue
            start = start_of(self.model, self.target, patches, calls)
            if start is None:
                continue
            blocks, patch = len(calls) * (self.model.layers - start), _deciding(self.model, patches, calls, start)
            if patch is None:
                alone += blocks
            else:
                common.append((blocks, patches.index(patch), calls))
        return alone, common


def start_of(model: HookedVideoPipeline, target: Recording, patches: Sequence[Patch], calls: Sequence[Call]) -> int | None:
    """The first block that a forward must run for a row; None where the row's first step feeds it from the recording."""
    step, first = calls[0].step, first_step(patches)
    reading = any(type(patch) is not Patch for patch in patches)  # of what is there, which then must be
    whole = [patch.site for patch in patches if not reading and _is_whole(model, patch, calls)]
    known = lambda site: site in target.passing or all((site, first, call.branch) in target.cache for call in calls)
    if found := [_layer(site) for site in whole if known(site)]:
        return max(found) + 1
    if step > first or any(patch.site == "hook_x_t" and step in patch.steps for patch in patches):
        return 0
    starts = [start_layer(model, patch) for patch in patches if any(patch.touches(call) for call in calls)]
    return min(starts, default=None)


def _is_whole(model: HookedVideoPipeline, patch: Patch, calls: Sequence[Call]) -> bool:
    """Whether a patch writes all that a block hands on, in every branch of a forward."""
    if patch.tokens is not None or not patch.site.endswith(".hook_resid_post") or type(patch) is not Patch:
        return False
    return all(map(patch.touches, calls)) and is_all(model.engines[calls[0].expert], _layer(patch.site))


def _layer(name: str) -> int:
    """The layer of a hook name; -1 outside the blocks."""
    return int(name.split(".")[1]) if name.startswith("blocks.") else -1


def shared_key(model: HookedVideoPipeline, patches: Sequence[Patch], calls: Sequence[Call], start: int) -> Hashable | None:
    """What decides the result of a forward beside its conditions, where the row's way there does not; None where it does."""
    patch = _deciding(model, patches, calls, start)
    return None if patch is None else _key(model, patch, calls)


def _deciding(model: HookedVideoPipeline, patches: Sequence[Patch], calls: Sequence[Call], start: int) -> Patch | None:
    """The patch that decides the result of a forward alone, whatever the row's way there was."""
    acting = [p for p in patches if any(map(p.touches, calls)) and not 0 <= _layer(p.site) < start - 1]
    engine = model.engines[calls[0].expert]
    if len(acting) != 1 or not _is_whole(model, acting[0], calls):
        return None
    if engine.adapter.rereads(engine.module, _layer(acting[0].site)):
        return None
    return acting[0]


def _key(model: HookedVideoPipeline, patch: Patch, calls: Sequence[Call]) -> Hashable:
    engine = model.engines[calls[0].expert]
    return (engine.name, calls[0].step, tuple(call.branch for call in calls), patch.site, patch.donor)


def replay(
    model: HookedVideoPipeline,
    target: Recording,
    patches: Patch | Sequence[Row],
    shared: Shared | None = None,
    *,
    compared: bool = False,
) -> Tensor:
    """Final latents ``[len(patches), channel, frame, row, col]`` of the target's run, row i with patch i.

    A row may have several patches at once, as a sequence; of those at one site, later ones act on what earlier ones left. All
    rows must start at the same step. One row gives, bit for bit, what plain forward hooks give; several rows
    differ from that by rounding, because matrix kernels depend on the batch. ``model.decode`` makes pixels of the latents.

    ``shared``: the same for several replays of this target with the same donors (the same functions, which give the same
    whenever they are asked): calls that these have in common run once. ``compared``: the caller has held the model against the
    recording itself (:func:`check_made`), as a grid of many replays does once: it reads every weight. Raises InterpError for rows
    that start at several steps, for a recording of several videos, and for a run that drew noise from PyTorch's global generator.
    """
    return replay_run(model, target, patches, shared, compared=compared).latents


def replay_run(
    model: HookedVideoPipeline,
    target: Recording,
    patches: Patch | Sequence[Row],
    shared: Shared | None = None,
    *,
    compared: bool = False,
) -> Run:
    """As :func:`replay`, with the trajectory: row i of every tensor belongs to row i of the patches."""
    asked = [patches] if isinstance(patches, Patch) or not isinstance(patches, Sequence) else list(patches)
    several = all(isinstance(row, (Patch, list, tuple)) for row in asked)
    ours = isinstance(model, HookedVideoPipeline) and isinstance(target, Recording)
    if not ours or not several or not all(isinstance(p, Patch) for row in asked for p in of_row(row)):
        raise InterpError(f"replay takes (model, recording, patches), as record() makes it, got {_kinds(model, target, *asked)}")
    if not compared:
        check_made(model, target.run)
    rows = [tuple(resolved(model, target.run, patch) for patch in of_row(row)) for row in asked]
    if not all(rows) or not rows:
        raise InterpError("no patch was given: a replay has a row for each")
    firsts = {first_step(row) for row in rows}
    if len(firsts) != 1:
        raise InterpError(f"patches of one batch must start at one step, these start at {sorted(firsts)}: split them")
    if len(target.run.latents) != 1:
        count = len(target.run.latents)
        raise InterpError(f"a replay starts from the recording of one video, this one has {count}: record each alone")
    if len(rows) > 1 and model.adapter.one_video(model.pipe, target.run.kwargs):
        return stacked([replay_run(model, target, [row], shared, compared=True) for row in rows])
    first = firsts.pop()
    hold_step(model, target, first)
    _hold_donors(model, target, [patch for row in rows for patch in row])
    director = _Replay(model, target, rows, first, shared)
    return model.play(director, **replay_arguments(target.run, len(rows)))


def hold_step(model: HookedVideoPipeline, target: Recording, step: int) -> None:
    """Have the residual streams of a step in a recording that keeps one step at a time, running them where they are not there."""
    if target.passing:
        hold(model, target.run, target.cache, target.passing, step, target.tokens)


def _hold_donors(model: HookedVideoPipeline, target: Recording, patches: Sequence[Patch]) -> None:
    """Have what donors give that keep one step at a time. InterpError where several steps are wanted of one."""
    wanted: dict[int, set[int]] = {id(target.cache): set()}
    givers: dict[int, Recorded] = {}
    for patch in patches:
        if isinstance(patch.donor, Recorded) and patch.donor.site in patch.donor.passing:
            givers[id(patch.donor.cache)] = patch.donor
            wanted.setdefault(id(patch.donor.cache), set()).update(patch.steps)
    if target.passing and wanted[id(target.cache)]:
        wanted[id(target.cache)].add(min(patch.first_step for patch in patches))
    for cache, giver in givers.items():
        if len(wanted[cache]) > 1:
            raise InterpError(
                f"{giver.site} is wanted at the steps {sorted(wanted[cache])} of a recording that keeps one step at a time: "
                f"record it with names=[{giver.site!r}] and without Keeping(single=True), or give it more max_bytes"
            )
        hold(model, giver.run, giver.cache, giver.passing, wanted[cache].pop(), giver.tokens)


def check_made(model: HookedVideoPipeline, run: Run) -> None:
    """InterpError for a recording that this model would not make again."""
    if run.edited:
        raise InterpError(
            "this run was made inside model.hooks(...), whose edits a replay or restart does not make: make it outside"
        )
    if run.maker and run.maker != maker_of(model):
        raise InterpError(
            "the target was recorded with another model, other weights or another scheduler than this one's: record it again"
        )


def _applied(patches: Sequence[Patch], act: Tensor, call: Call, axes: tuple[str, ...]) -> Tensor:
    """``act`` of one row after its patches, in their order."""
    for patch in patches:
        act = patch.apply(act, call.step, call.branch, axes)
    return act


class _Replay(Fed):
    """Feeds a recording to the pipeline, and runs from it what the patches of a batch change."""

    def __init__(
        self, model: HookedVideoPipeline, target: Recording, rows: Sequence[tuple[Patch, ...]], first: int, shared: Shared | None
    ):
        super().__init__(target.run, len(rows))
        self.model, self.target, self.patches, self.first, self.shared = model, target, list(rows), first, shared

    def edit_x_t(self, step: Step, x_t: Tensor) -> Tensor:
        acting = [(r, p) for r, row in enumerate(self.patches) for p in row if p.site == "hook_x_t" and step.index in p.steps]
        if not acting:
            return x_t
        out = x_t.clone()
        for row, patch in acting:
            out[row : row + 1] = patch.apply(out[row : row + 1], step.index, "cond", AXES["latent"])
        return out

    def call(self, calls: tuple[Call, ...], engine: ExpertEngine, kwargs: dict[str, Any]) -> Any:
        step, everyone = calls[0].step, range(len(self.patches))
        start = [None if step < self.first else start_of(self.model, self.target, row, calls) for row in self.patches]
        if step > self.first and not any(start):
            return engine((), kwargs, self._visits(engine, calls, everyone))
        out = self.outputs(calls)
        for layer in sorted({layer for layer in start if layer is not None}):
            self._resume(out, engine, calls, kwargs, [r for r in everyone if start[r] == layer], layer)
        return returned(engine, out)

    def _places(self, calls: tuple[Call, ...], rows: Sequence[int]) -> list[int]:
        """Where patched rows lie in the batch of a forward, which has one block of rows a branch."""
        return [branch * len(self.patches) + row for branch in range(len(calls)) for row in rows]

    def _resume(
        self,
        out: tuple[Tensor, ...],
        engine: ExpertEngine,
        calls: tuple[Call, ...],
        kwargs: dict[str, Any],
        rows: list[int],
        layer: int,
    ) -> None:
        """Put the results of the rows that start at a layer in place; what rows of other replays share runs alone, and once."""
        keys = {row: shared_key(self.model, self.patches[row], calls, layer) for row in rows} if self.shared is not None else {}
        together = [row for row in rows if keys.get(row) is None]
        for some in [[row] for row in rows if row not in together] + ([together] if together else []):
            where = self._places(calls, some)
            part = batch_rows(engine, kwargs, where)
            run = partial(self._run, engine, calls, part, some, layer)
            if self.shared is None or some is together:
                put_rows(out, where, run())
            else:
                blocks = len(where) * (self.model.layers - layer)
                put_rows(out, where, self.shared.found((keys[some[0]], conditions(part)), blocks, run))

    def _run(self, engine: ExpertEngine, calls: tuple[Call, ...], part: dict[str, Any], rows: list[int], layer: int) -> Any:
        """What the transformer returns for some rows that start at a layer, given the part of its arguments that is theirs."""
        visits, skip = self._visits(engine, calls, rows), None
        if layer > 0:
            visits = {name: visit for name, visit in visits.items() if not 0 <= _layer(name) < layer}
            skip = Skip(layer, self._residuals(engine, calls, rows, layer - 1))
        return engine((), part, visits, skip)

    def _residuals(self, engine: ExpertEngine, calls: tuple[Call, ...], rows: list[int], layer: int) -> dict[str, Tensor]:
        """The residual streams after a block by site, as recorded in the first step, patched where a row says so.

        In a later step patches leave nothing of them but their shape.
        """
        made = {}
        for site in (s for s in engine.adapter.blocks(engine.module)[layer][1] if s.name.startswith("hook_resid_post")):
            name, parts = f"blocks.{layer}.{site.name}", []
            for call in calls:
                stream = self.target.stream(site.name, layer, self.first, call.branch)
                if stream is None:
                    continue
                for row in rows:
                    mine = [patch for patch in self.patches[row] if patch.site == name and patch.touches(call)]
                    parts.append(_applied(mine, stream, call, AXES[site.kind]))
            if parts:
                made[site.name] = torch.cat(parts)
        if not made:
            raise InterpError(
                f"the recording keeps no residual streams of step {self.first}, from which this replay starts: record it with "
                "steps that hold it, or with all"
            )
        return made

    def _visits(self, engine: ExpertEngine, calls: tuple[Call, ...], rows: Sequence[int]) -> dict[str, Visitor]:
        """For each patched site of this forward: a visitor that edits the rows concerned (``rows`` are those in the batch)."""
        sites = {patch.site for row in rows for patch in self.patches[row] if any(patch.touches(call) for call in calls)}
        return {site: self._visitor(site, calls, rows, engine.points[site].kind) for site in sites}

    def _visitor(self, site: str, calls: tuple[Call, ...], rows: Sequence[int], kind: str) -> Visitor:
        edits: dict[int, tuple[list[Patch], Call]] = {}
        for branch, call in enumerate(calls):
            for place, row in enumerate(rows):
                if mine := [patch for patch in self.patches[row] if patch.site == site and patch.touches(call)]:
                    edits[branch * len(rows) + place] = (mine, call)

        def visit(act: Tensor, covered: slice) -> Tensor | None:
            first = covered.start or 0
            mine = {place - first: edit for place, edit in edits.items() if 0 <= place - first < act.shape[0]}
            if not mine:
                return None
            out = act.clone()
            for place, (patches, call) in mine.items():
                out[place : place + 1] = _applied(patches, act[place : place + 1], call, axes_of(kind, act))
            return out

        return visit
