"""Activation patching over (step, layer, site, token group) between counterfactual pairs, with controls.

For each pair the *clean* run's activations are put into the *corrupt* run (denoising) or the other way round (noising),
and the run is finished. Effect 0: nothing changed; 1: the clean run's final latent is restored along the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import Unit
from cos_interp.analyses.driver.facts import Facts, LeftOut
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit import pair_file
from cos_interp.analyses.kit.grid import EVERYWHERE
from cos_interp.analyses.kit.pairs import NoPair, Pair, Recorder, find_pair
from cos_interp.analyses.kit.problems import Problem, arguments, fits_tasks, item_call
from cos_interp.analyses.kit.rows import settled, stated
from cos_interp.analyses.patching import HEAD_SITES, PatchingConfig, StepFacts, blocks, gradient_map
from cos_interp.analyses.patching.cells import REST, sites_of
from cos_interp.analyses.patching.foresee import use_of
from cos_interp.analyses.patching.pair_grid import PairGrid
from cos_interp.analyses.patching.pieces import OWN, Part, Piece, needs, pieces, steps_of, units_of
from cos_interp.analyses.patching.recordings import recorder
from cos_interp.interp.errors import InterpError
from cos_interp.interp.gradient.playing import refuse_offloaded
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.tasks import get_task
from cos_interp.tasks.grid import LATENT_FRAMES

__all__ = ["check", "finish", "needs", "pieces", "settle", "work"]


def find(recorder: Recorder, config: PatchingConfig, piece: Piece) -> Pair:
    """The recorded pair of a piece; NoPair when the model does not solve one, or makes one video of both sides of a file's."""
    if piece.kind != OWN:
        return find_pair(recorder, config.task_name, piece.kind, piece.index, config.unique, config.solved)
    assert piece.sides is not None  # a pair of a file has them
    return pair_file.recorded(recorder, piece.sides, config.solved)


def work(model: HookedVideoPipeline, config: PatchingConfig, store: RunStore, part: Part) -> Iterator[str]:
    """Do what is missing of one piece; yields the name of each unit as it is on disk."""
    piece = part.pair
    for name, make in _units(config, store, part):
        if store.unit(name) is None:
            made = _prepared(model, config, store, piece)
            unit = make(made) if not isinstance(made, str) else _lacking(made, name == piece.unit())
            store.add_unit(name, unit.rows, unit.tensors, unit.facts)
        yield name
    if all(store.unit_path(name).is_file() for name in units_of(config, piece)):
        _AT_WORK.pop(store, None)


def _units(config: PatchingConfig, store: RunStore, part: Part) -> Iterator[tuple[str, Callable[[PairGrid], Unit]]]:
    """The units of a piece by name, and how each is made of the pair's grid."""
    piece, step = part.pair, part.step
    gradient, coarse = config.method == "gradient", config.coarse is not None
    if step is None or not (gradient or coarse or step != steps_of(config, piece)[0]):
        yield piece.unit(), PairGrid.about
    if step is None:
        yield (piece.map_unit, gradient_map.mapped) if gradient else (piece.blocks_unit, blocks.measured)
        return

    def of_step(made: PairGrid) -> Unit:
        if gradient or coarse:
            made = gradient_map.held(made, store, piece) if gradient else blocks.refined(made, store)
        return made.at(step, store.drafts(piece.unit(step)))

    yield piece.unit(step), of_step


def _lacking(reason: str, pair: bool) -> Unit:
    """A unit of a pair that is not there, the one of the pair itself with the reason."""
    return Unit([], facts=LeftOut(reason=reason) if pair else Facts())


# the pair that a process works at, with its recordings: its steps are pieces of their own
_AT_WORK: WeakKeyDictionary[RunStore, tuple[str, PairGrid | str]] = WeakKeyDictionary()


def _prepared(model: HookedVideoPipeline, config: PatchingConfig, store: RunStore, piece: Piece) -> PairGrid | str:
    """A pair's grid, or the reason why there is none; recorded once as long as a process stays with the pair."""
    if _AT_WORK.get(store, ("",))[0] != piece.name:
        _AT_WORK.pop(store, None)  # gone before the next one is recorded
        _AT_WORK[store] = piece.name, _recorded(model, config, store, piece)
    return _AT_WORK[store][1]


def _recorded(model: HookedVideoPipeline, config: PatchingConfig, store: RunStore, piece: Piece) -> PairGrid | str:
    made = recorder(model, config, store, piece, lambda outlook: use_of(config, outlook, [piece]))
    try:
        pair = find(made, config, piece)
    except NoPair as error:
        return str(error)
    return PairGrid.of(made, config, piece, pair)


def possible_groups(task: str) -> list[str]:
    """Group names that the task ever uses (an item may lack some)."""
    names: dict[str, None] = {EVERYWHERE: None}
    made = get_task(task)
    for seed in range(40):
        item = made.sample(seed)
        other = made.counterfactual(item, "prompt", np.random.default_rng(seed))
        names |= dict.fromkeys(made.groups(item, other or item))
    return list(names)


def check(config: PatchingConfig, model: HookedVideoPipeline) -> None:
    """InterpError when token groups, layers, heads or frames were asked for that there are not."""
    _known_groups(config)
    _goes_back(config, model)
    if config.pair_file is None:
        fits_tasks(model, "--pair-file FILE, or another model")
    else:
        pair_file.check_model(Path(config.pair_file), config, model)
    _, heads = model.adapter.width(next(iter(model.engines.values())).module)
    limits = {"layers": model.layers, "heads": heads}
    for field, limit in limits.items():
        bad = [n for n in getattr(config, field) or () if not 0 <= n < limit]
        if bad:
            raise InterpError(f"{field} {bad[0]} was asked for; {config.model} has {field} 0 to {limit - 1}")
    most = LATENT_FRAMES if config.pair_file is None else None  # of own pairs their recordings tell
    bad = [n for n in config.frames or () if n < 0 or (most is not None and n >= most)]
    if bad:
        raise InterpError(f"frame {bad[0]} was asked for; the tasks' videos have latent frames 0 to {LATENT_FRAMES - 1}")
    if config.heads and not set(sites_of(config, model)) & set(HEAD_SITES):
        raise InterpError(f"heads were given, and no site has heads: use --sites {HEAD_SITES[0]}")


def _goes_back(config: PatchingConfig, model: HookedVideoPipeline) -> None:
    """InterpError where the weights are not there when a gradient map needs them, before anything runs, or is loaded."""
    if config.method != "gradient":
        return
    if config.offload in ("group", "sequential"):
        raise InterpError(
            f"--method gradient goes back through weights, which --offload {config.offload} has taken away by then: "
            "use --offload model or none, or --method exact"
        )
    refuse_offloaded(model.engines)


def settle(config: PatchingConfig, model: HookedVideoPipeline, held: Mapping[str, Any]) -> PatchingConfig:
    """The settings with the rows of a forward as a number; ``held``: those of the run that is continued."""
    if config.pair_file is None:
        item = get_task(config.task_name).sample(0)
        call = arguments(model, config, Problem("size", item_call(item), 0, 0, item))
    else:
        call = arguments(model, config, pair_file.largest(pair_file.read(Path(config.pair_file), config), config, model))
    return config.model_copy(update={"batch": settled(config.batch, held, model, call, stated(config))})


def _known_groups(config: PatchingConfig) -> None:
    if config.tokens is None:
        return
    known = possible_groups(config.task_name) if config.pair_file is None else _drawn(Path(config.pair_file))
    unknown = [group for group in config.tokens if group not in known]
    if unknown:
        whose = config.task if config.pair_file is None else "a pair of a file"
        raise InterpError(f"unknown token group {unknown[0]!r}; {whose} has {', '.join(known)}")


def _drawn(path: Path) -> list[str]:
    """All tokens, and the boxes that some pair of a file has, with what they leave."""
    boxes = dict.fromkeys(name for line in pair_file.boxes(path) for name in line)
    return [EVERYWHERE, *boxes, *([REST] if boxes else [])]


def finish(result: AnalysisResult) -> AnalysisResult:
    """Add what was counted; whole numbers stay whole where some rows have none."""
    steps = result.units_of(StepFacts).values()
    counts: dict[str, Any] = {key: sum(getattr(step, key) for step in steps) for key in ("block_calls", "block_calls_minimum")}
    counts["rounding"] = max((step.rounding for step in steps if step.rounding is not None), default=None)
    whole = ("layer", "head", "frame", "last_step", "last_layer")
    rows = blocks.told(result.rows, result.config)
    rows = rows if rows.empty else rows.astype({name: "Int64" for name in whole if name in rows.columns})
    return replace(result, rows=rows, facts={**result.facts, **counts})
