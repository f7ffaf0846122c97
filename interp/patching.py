"""Replaying a recorded run with patched activations, at the exact minimum of transformer blocks.

Up to the first patched step nothing runs: the pipeline's loop is fed the recorded model outputs, so the scheduler (with
its history) arrives in the same state bit for bit. In the first patched step a branch without a patch is fed from the
recording too, and a patched branch starts at the patched layer from the recorded residual stream.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cos_interp.interp.cache import ActivationCache
from cos_interp.interp.errors import InterpError, unknown_hook
from cos_interp.interp.hooking import kind_of
from cos_interp.interp.identity import glance
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.clock import Call, Step
from cos_interp.interp.run.director import Director, When
from cos_interp.interp.run.engine import ExpertEngine, Skip, Visitor, streams
from cos_interp.interp.selecting import numbers, spread, token_mask, words
from cos_interp.interp.trajectory import Run
from cos_interp.interp.views import AXES, GRID, axes_of

Donor = Callable[[int, str], Tensor]  # (step, branch) -> activation [1, ...] with named axes


@dataclass(frozen=True)
class Recording:
    """A run of one video with the residual stream after every block, from which patched runs start: see :func:`record`."""

    run: Run
    cache: ActivationCache

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

    def donor(self, site: str) -> Donor:
        """This recording's own activation at a site (a whole hook name), as a donor. InterpError where it was not recorded."""
        if site == "hook_x_t":
            return lambda step, branch: self.run.x_t[step]
        if site not in self.cache.axes:
            pattern = re.sub(r"^blocks\.\d+\.", "blocks.*.", site)
            raise InterpError(f"{site} was not recorded: record it with record(model, names=[{pattern!r}], ...)")
        return lambda step, branch: self.cache[site, step, branch]


@dataclass(frozen=True)
class Patch:
    """One row of a patched batch: put the donor's activation at a site, in some steps, branches, tokens and heads.

    Activation patching as Meng et al. 2202.05262 and Wang et al. 2211.00593 do it, with a denoising step as one more axis.
    ``site`` is a whole hook name (``blocks.3.hook_resid_post``, ``hook_x_t``). ``donor(step, branch)`` gives an activation
    ``[1, ...]`` with the axes and the shape of the site; :meth:`Recording.donor` makes one of a recorded run. ``tokens`` selects
    as in ``run_with_cache``; a bool mask may be over latent cells where the site is a latent. ``hook_x_t`` has no branch:
    ``branches`` does not matter. ``broadcast``: a donor with axes of size 1 (a mean, a direction) is put everywhere along them.
    """

    site: str
    steps: Any  # what selecting.numbers takes; a tuple of numbers once a replay has resolved it
    donor: Donor
    branches: tuple[str, ...] = ("cond",)
    tokens: Any = None  # what selecting.token_mask takes; None: all
    heads: Any = None  # what selecting.numbers takes; None: all
    broadcast: bool = False

    def __repr__(self) -> str:
        parts = [f"step={_few(self.steps)}", f"branch={_few(self.branches)}"]
        if isinstance(self.tokens, Tensor):
            parts.append(f"{int(self.tokens.sum())} of {self.tokens.numel()} tokens")
        elif self.tokens is not None:
            parts.append(f"tokens {self.tokens}")
        if self.heads is not None:
            parts.append(f"heads {_few(self.heads)}")
        return f"Patch({self.site} @ {', '.join(parts)})"

    @property
    def first_step(self) -> int:
        """The step before which the run is that of the recording."""
        return min(self.steps)

    def touches(self, call: Call) -> bool:
        """Whether something inside a call is patched."""
        return self.site != "hook_x_t" and call.step in self.steps and call.branch in self.branches

    def apply(self, act: Tensor, step: int, branch: str, axes: tuple[str, ...]) -> Tensor:
        """``act`` of one row ``[1, ...]``, whose axes have these names, with the donor's values where the patch says."""
        given = self._given(act, step, branch)
        mask = torch.ones([1] * act.ndim, dtype=torch.bool, device=act.device)
        if self.tokens is not None and "frame" in axes:
            shape = [size if axis in GRID else 1 for axis, size in zip(axes, act.shape, strict=True)]
            frames, rows, cols = (size for axis, size in zip(axes, act.shape, strict=True) if axis in GRID)
            mask = mask & spread(self.tokens, (frames, rows, cols)).to(act.device).view(shape)
        if self.heads is not None:
            count = act.shape[axes.index("head")]
            chosen = torch.zeros(count, dtype=torch.bool, device=act.device)
            chosen[list(numbers(self.heads, count, "head"))] = True
            mask = mask & chosen.view([-1 if axis == "head" else 1 for axis in axes])
        return torch.where(mask, given, act)

    def _given(self, act: Tensor, step: int, branch: str) -> Tensor:
        """The donor's activation. InterpError where it has not the shape of what it replaces."""
        try:
            given = self.donor(step, branch)
        except (KeyError, IndexError) as error:
            raise InterpError(f"the donor of {self} has nothing for step {step}, branch {branch!r}: {error.args[0]}") from error
        if not isinstance(given, Tensor):
            raise InterpError(f"the donor of {self} gave {type(given).__name__} for step {step}, not a tensor")
        if not given.is_floating_point():
            raise InterpError(f"the donor of {self} gave numbers of {given.dtype} for step {step}: give floats")
        fits = given.ndim == act.ndim and all(have in (1, want) for have, want in zip(given.shape, act.shape, strict=True))
        if given.shape != act.shape and not (self.broadcast and fits):
            raise InterpError(
                f"the donor of {self} has the shape {tuple(given.shape)}, what it replaces {tuple(act.shape)}: record both with "
                "the same keywords, or say broadcast=True where axes of size 1 are meant for all"
            )
        return given.to(act)


Row = Patch | Sequence[Patch]  # of a patched batch


def _few(values: Any) -> str:
    """Several values, the first and the last of many; any other selection as it was written."""
    if not isinstance(values, (tuple, list)):
        return str(values)
    return "/".join(map(str, values if len(values) < 4 else (values[0], "..", values[-1])))


def resolved(model: HookedVideoPipeline, target: Recording, patch: Patch) -> Patch:
    """A patch with its steps and tokens as the target's run has them. InterpError, or UnknownHook, for what it does not have."""
    if patch.site == "hook_x0hat":
        raise InterpError(f"{patch}: a replay does not patch hook_x0hat: patch hook_model_out, from which it is computed")
    if patch.site not in model.hook_names:
        raise unknown_hook(patch.site, model.hook_names)
    if not callable(patch.donor):
        how = "give a function of (step, branch), as recording.donor(site) does"
        raise InterpError(f"{patch}: the donor is {type(patch.donor).__name__}, not a function: {how}")
    run, axes = target.run, AXES[kind_of(model.engines, patch.site)]
    branches = ("cond",) if patch.site == "hook_x_t" else words(patch.branches, f"{patch.site}: branches", run.branches)
    if patch.heads is not None and "head" not in axes:
        raise InterpError(f"{patch}: {patch.site} has the axes {', '.join(axes)}, and no heads")
    return replace(
        patch, steps=numbers(patch.steps, run.steps, "step"), branches=branches, tokens=_tokens(model, run, patch, axes)
    )


def _tokens(model: HookedVideoPipeline, run: Run, patch: Patch, axes: tuple[str, ...]) -> Tensor | None:
    if patch.tokens is None:
        return None
    if "frame" not in axes:
        raise InterpError(f"{patch}: {patch.site} has the axes {', '.join(axes)}, and no tokens of the video: patch all of it")
    cells = tuple(run.x_t[0].shape[2:])
    mask = patch.tokens
    if "channel" in axes and isinstance(mask, Tensor) and mask.dtype == torch.bool and tuple(mask.shape) == cells:
        return mask
    return token_mask(patch.tokens, model.token_grid(run.x_t[0]).shape)


def record(model: HookedVideoPipeline, names: str | Sequence[str] = (), **kwargs: Any) -> Recording:
    """Run one video and keep what patching needs: the residual streams at every step, and the sites ``names``.

    ``names`` may hold ``*``. Other keywords are those of ``model.run_with_cache``: ``prompt``, ``seed``, ... for the pipeline,
    ``max_bytes`` for the memory. Raises UnknownHook for a name that the model does not have, and BudgetExceeded before the first
    transformer call when more would be kept than ``max_bytes``.
    """
    names = [names] if isinstance(names, str) else names
    kept = {*names, *(name for name in model.hook_names if ".hook_resid_post" in name)} - {"hook_x_t"}
    run, cache = model.run_with_cache(names=sorted(kept), **kwargs)
    run.maker, run.edited = maker_of(model), model.has_hooks
    return Recording(run, cache)


def maker_of(model: HookedVideoPipeline) -> str:
    """What a replay must have in common with its recording."""
    return glance(model.pipe, {name: engine.module for name, engine in model.engines.items()})


def restart(model: HookedVideoPipeline, run: Run | Recording, step: int, latents: Tensor) -> Run:
    """Finish a run or recording of one video from other latents ``[rows, channel, frame, row, col]`` before a step, a row each.

    The steps before are fed from the recording, so the scheduler's history is that of the recorded run. Row i of every tensor
    of the new run belongs to row i of ``latents``; given back the recorded ``run.x_t[step]`` alone, it ends with the same bits.
    Raises InterpError for a run of several videos, and for one that drew noise from PyTorch's global generator.
    """
    if not isinstance(run, (Run, Recording)) or not isinstance(latents, Tensor) or not latents.is_floating_point():
        raise InterpError(f"restart takes (model, run, step, latents), got {_kinds(run, step, latents)}")
    run = run.run if isinstance(run, Recording) else run
    recording = Recording(run, ActivationCache())
    return replay_run(model, recording, [Patch("hook_x_t", (step,), _always(row)) for row in latents.split(1)])


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


def minimal_blocks(model: HookedVideoPipeline, target: Recording, row: Row) -> int:
    """Transformer blocks that a patched run cannot avoid: the rest of the patched calls of its first step, then all.

    Where both branches run in one forward, both count: a forward of half the batch would round differently.
    """
    patches = _of_row(row)
    calls, first = target.run.calls, first_step(patches)
    later = sum(call.step > first for call in calls) * model.layers
    at_first = [call for call in calls if call.step == first]
    forwards = [[call for call in at_first if call.forward == number] for number in sorted({c.forward for c in at_first})]
    starts = [start_of(model, patches, forward) for forward in forwards]
    return later + sum(
        len(forward) * (model.layers - start) for forward, start in zip(forwards, starts, strict=True) if start is not None
    )


def _of_row(row: Row) -> tuple[Patch, ...]:
    return (row,) if isinstance(row, Patch) else tuple(row)


def first_step(patches: Sequence[Patch]) -> int:
    """The step before which a row with these patches is the recording."""
    return min(patch.first_step for patch in patches)


def start_of(model: HookedVideoPipeline, patches: Sequence[Patch], calls: Sequence[Call]) -> int | None:
    """The first block that a forward must run in the first step of a row; None where the row's patches do not touch it."""
    if any(patch.site == "hook_x_t" and calls[0].step in patch.steps for patch in patches):
        return 0
    starts = [start_layer(model, patch) for patch in patches if any(patch.touches(call) for call in calls)]
    return min(starts, default=None)


def replay(model: HookedVideoPipeline, target: Recording, patches: Patch | Sequence[Row]) -> Tensor:
    """Final latents ``[len(patches), channel, frame, row, col]`` of the target's run, row i with patch i.

    A row may have several patches at once, as a sequence; of those at one site, later ones act on what earlier ones left. All
    rows must start at the same step. One row gives, bit for bit, what plain forward hooks give; several rows
    differ from that by rounding, because matrix kernels depend on the batch. ``model.decode`` makes pixels of the latents.
    Raises InterpError for rows that start at several steps, for a recording of several videos, and for a run that drew
    noise from PyTorch's global generator.
    """
    return replay_run(model, target, patches).latents


def replay_run(model: HookedVideoPipeline, target: Recording, patches: Patch | Sequence[Row]) -> Run:
    """As :func:`replay`, with the trajectory: row i of every tensor belongs to row i of the patches."""
    asked = [patches] if isinstance(patches, Patch) else list(patches)
    several = all(isinstance(row, (Patch, list, tuple)) for row in asked)
    if not isinstance(target, Recording) or not several or not all(isinstance(p, Patch) for row in asked for p in _of_row(row)):
        raise InterpError(f"replay takes (model, recording, patches), as record() makes it, got {_kinds(target, *asked)}")
    _check_made(model, target.run)
    rows = [tuple(resolved(model, target, patch) for patch in _of_row(row)) for row in asked]
    if not all(rows) or not rows:
        raise InterpError("no patch was given: a replay has a row for each")
    firsts = {first_step(row) for row in rows}
    if len(firsts) != 1:
        raise InterpError(f"patches of one batch must start at one step, these start at {sorted(firsts)}: split them")
    if len(target.run.latents) != 1:
        count = len(target.run.latents)
        raise InterpError(f"a replay starts from the recording of one video, this one has {count}: record each alone")
    if len(rows) > 1 and model.adapter.one_video(model.pipe, target.run.kwargs):
        return stacked([replay_run(model, target, [row]) for row in rows])
    director = _Replay(model, target, rows, firsts.pop())
    return model.play(director, **replay_arguments(target.run, len(rows)))


def _check_made(model: HookedVideoPipeline, run: Run) -> None:
    """InterpError for a recording that this model would not make again."""
    if run.edited:
        raise InterpError(
            "the target was recorded inside model.hooks(...), whose edits a replay does not make: record it outside"
        )
    if run.maker and run.maker != maker_of(model):
        raise InterpError(
            "the target was recorded with another model, other weights or another scheduler than this one's: record it again"
        )


def stacked(runs: Sequence[Run]) -> Run:
    """The same run of several videos, in one batch."""
    joined = lambda tensors: [torch.cat(rows) for rows in zip(*tensors, strict=True)]
    outputs = [tuple(joined(rows)) for rows in zip(*(run.outputs for run in runs), strict=True)]
    x_t, v = joined([run.x_t for run in runs]), joined([run.v for run in runs])
    return replace(runs[0], x_t=x_t, v=v, outputs=outputs, latents=torch.cat([run.latents for run in runs]))


def repeated(value: Any, rows: int) -> Any:
    """Everything of one video, in lists and tuples, repeated for a batch."""
    if isinstance(value, Tensor):
        return value.repeat(rows, *[1] * (value.ndim - 1)) if value.ndim and value.shape[0] == 1 else value
    if isinstance(value, (list, tuple)):
        return type(value)(repeated(item, rows) for item in value)
    return value


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
    for name in ("prompt", "negative_prompt", "prompt_2", "negative_prompt_2"):
        if isinstance(kwargs.get(name), (str, list)):
            text = kwargs[name] if isinstance(kwargs[name], str) else kwargs[name][0]
            kwargs[name] = [text] * rows if rows > 1 else text
    for name, value in kwargs.items():
        if "embeds" in name or "attention_mask" in name:
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


def _applied(patches: Sequence[Patch], act: Tensor, call: Call, axes: tuple[str, ...]) -> Tensor:
    """``act`` of one row after its patches, in their order."""
    for patch in patches:
        act = patch.apply(act, call.step, call.branch, axes)
    return act


class _Replay(Director):
    """Feeds a recording to the pipeline, and runs from it what the patches of a batch change."""

    def __init__(self, model: HookedVideoPipeline, target: Recording, rows: Sequence[tuple[Patch, ...]], first: int):
        self.model, self.target, self.patches, self.first = model, target, list(rows), first

    def encode(self, place: int, encode: Callable[[], Any]) -> Any:
        return repeated(self.target.run.encoded[place], len(self.patches))

    def prepare(self, prepare: Callable[[], Any]) -> Any:
        found = repeated(self.target.run.prepared, len(self.patches))
        return found if len(found) > 1 else found[0]

    def generator_states(self, when: When) -> Sequence[Tensor]:
        return self.target.run.generators.get(when, ())

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
        if step > self.first:
            return engine((), kwargs, self._visits(engine, calls, everyone))
        recorded = [self.target.run.outputs[call.index] for call in calls]
        each = lambda part: part.repeat(len(everyone), *[1] * (part.ndim - 1))
        out = tuple(torch.cat([each(part) for part in stream]) for stream in zip(*recorded, strict=True))
        if step < self.first:
            return returned(engine, out)
        start = [start_of(self.model, row, calls) for row in self.patches]
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
        """Run the rows that start at a layer and put their results in place."""
        visits, skip = self._visits(engine, calls, rows), None
        if layer > 0:
            visits = {name: visit for name, visit in visits.items() if not name.startswith(f"blocks.{layer - 1}.hook_resid_post")}
            skip = Skip(layer, self._residuals(engine, calls, rows, layer - 1))
        where = self._places(calls, rows)
        put_rows(out, where, engine((), batch_rows(engine, kwargs, where), visits, skip))

    def _residuals(self, engine: ExpertEngine, calls: tuple[Call, ...], rows: list[int], layer: int) -> dict[str, Tensor]:
        """The recorded residual streams after a block by site, patched where a row says so."""
        made = {}
        for site in (s for s in engine.adapter.blocks(engine.module)[layer][1] if s.name.startswith("hook_resid_post")):
            name, parts = f"blocks.{layer}.{site.name}", []
            for call in calls:
                stream = self.target.stream(site.name, layer, call.step, call.branch)
                if stream is None:
                    continue
                for row in rows:
                    mine = [patch for patch in self.patches[row] if patch.site == name and patch.touches(call)]
                    parts.append(_applied(mine, stream, call, AXES[site.kind]))
            if parts:
                made[site.name] = torch.cat(parts)
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
