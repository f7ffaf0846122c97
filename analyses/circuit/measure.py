"""Maps of components, the search for the smallest set, and its tests on pairs that it has not seen."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pydantic import ValidationError
from torch import Tensor

from cos_interp.analyses.circuit import CLOSER, Circuit, CircuitConfig, Component, PairFacts, SearchFacts
from cos_interp.analyses.circuit.bench import Bench
from cos_interp.analyses.circuit.checks import checked
from cos_interp.analyses.circuit.components import has_heads, head_count, spots
from cos_interp.analyses.circuit.paths import measured as paths
from cos_interp.analyses.circuit.pieces import SEARCH, Piece, Stage, needs, pieces
from cos_interp.analyses.circuit.recordings import recorder
from cos_interp.analyses.circuit.search import narrowed, smallest
from cos_interp.analyses.circuit.words import read_words
from cos_interp.analyses.driver.experiment import Unit, from_others
from cos_interp.analyses.driver.facts import LeftOut
from cos_interp.analyses.driver.kept import kept
from cos_interp.analyses.driver.statistics import effect
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.kit.grid import EVERYWHERE
from cos_interp.analyses.kit.pairs import NoPair
from cos_interp.analyses.kit.refining import above
from cos_interp.analyses.kit.split_pairs import counts, fits, has_groups, pair_of
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patches import Patch

__all__ = ["check", "needs", "pieces", "work"]
WHOLE = "whole"  # the table with the effect of all components together


def _made(model: HookedVideoPipeline, config: CircuitConfig, store: RunStore, piece: Piece) -> Unit:
    if piece.stage == SEARCH:
        return searched(model, config, store, recorded(store, config))
    known = read(config) if config.check else None
    if piece.stage in ("check", "paths") and known is None:
        found = store.finished(SEARCH)[1]
        assert isinstance(found, SearchFacts)
        if found.circuit is None:
            return Unit([], facts=LeftOut(reason=found.why))
        known = found.circuit
    if piece.stage in ("fine", "paths") and piece.index not in recorded(store, config):
        return Unit([], facts=store.finished(Piece("coarse", piece.index).name)[1])
    try:
        made = recorder(model, config, store, piece.stage)
        pair, boxes = pair_of(made, config, piece.index, not config.check)
        bench = Bench.of(made, config, pair, boxes, store.drafts(piece.name).in_order)
        if piece.stage == "check" and known is not None:
            _has_tokens(bench, known)
    except NoPair as error:
        return Unit([], facts=LeftOut(reason=str(error)))
    facts, tensors = about(piece, bench, pair.tried), dict[str, Tensor]()
    if piece.stage == "coarse":
        rows = coarse(bench)
    elif piece.stage == "fine":
        made_before = earlier(store, config, ("coarse",))
        rows = fine(bench, places(made_before, -math.inf) if config.full else strongest(made_before, config.refine))
    elif piece.stage == "paths":
        assert known is not None
        ends = between(known, places(earlier(store, config, ("coarse",)), config.refine), bench.steps)
        rows = paths(bench, ends) + read_words(bench, config, known)
    else:
        assert known is not None
        rows, clips = checked(bench, config, known, piece.index)
        tensors, kept_of = kept(clips)
        facts = facts.model_copy(update=kept_of)
    return Unit([{"stage": piece.stage, "pair": piece.name, **row} for row in rows], tensors, facts)


def _has_tokens(bench: Bench, circuit: Circuit) -> None:
    """NoPair where a pair has no tokens of any component: nothing would be patched, and 0 would count as a result."""
    if not bench.rows([circuit.components])[0]:
        wanted = dict.fromkeys(one.group for one in circuit.components)
        raise NoPair(f"the pair has no tokens of the circuit's groups {', '.join(wanted)}; it has {', '.join(bench.masks)}")


def about(piece: Piece, bench: Bench, tried: int) -> PairFacts:
    run = bench.target.recording.run
    prompts = (bench.target.problem.call["prompt"], bench.donor.problem.call["prompt"])
    tokens = {name: int(mask.sum()) for name, mask in bench.masks.items()}
    return PairFacts(pair=piece.name, prompts=prompts, sigmas=(*run.sigmas, 0.0), tokens=tokens, tried=tried)


def recorded(store: RunStore, config: CircuitConfig) -> list[int]:
    """The pairs of the search that there are: the others are not looked for again."""
    first = {n: store.finished(Piece("coarse", n).name)[1] for n in range(counts(config, not config.check)[0])}
    return [n for n, facts in first.items() if not isinstance(facts, LeftOut)]


def earlier(store: RunStore, config: CircuitConfig, stages: Sequence[Stage]) -> pd.DataFrame:
    """The rows of finished stages of all pairs of the search, with effects as they count."""
    units = [Piece(stage, n).name for stage in stages for n in range(counts(config)[0])]
    rows = pd.DataFrame([row for unit in units for row in store.finished(unit)[0]])
    return rows if rows.empty else rows.assign(effect=effect(rows.effect))


# --- maps --------------------------------------------------------------------------------------------------------------


def coarse(bench: Bench) -> list[Row]:
    """Each part of each block at all tokens in all steps, and all of them together."""
    there = spots(bench.model)
    rows = [bench.whole(part, layer) for part, layer in there]
    effects = bench.effects([*rows, [patch for row in rows for patch in row]])
    named = [{"table": "part", "part": part, "layer": layer} for part, layer in there] + [{"table": WHOLE}]
    return [{**name, "effect": effect} for name, effect in zip(named, effects, strict=True)]


def places(rows: pd.DataFrame, least: float) -> list[tuple[str, int]]:
    """Parts of blocks whose mean effect over the pairs exceeds ``least``, the largest first."""
    if rows.empty:
        return []
    found = above(rows[rows.table == "part"].sort_values(["part", "layer"], kind="stable"), ["part", "layer"], least)
    return [(str(part), int(layer)) for part, layer in found]


def strongest(rows: pd.DataFrame, least: float) -> list[tuple[str, int]]:
    """Those of which a set is made."""
    return places(rows, least)[:CLOSER]


def fine(bench: Bench, found: Sequence[tuple[str, int]]) -> list[Row]:
    """Each found place by token group, by head, and from each step on; the residual stream by token group after each block."""
    named: list[Row] = []
    rows: list[list[Patch]] = []
    for part, layer in found:
        each = [Component(part=part, layer=layer, group=group, steps=bench.steps) for group in bench.masks]
        named += [{"table": "group", "part": part, "layer": layer, "group": one.group} for one in each]
        rows += bench.rows([(one,) for one in each])
        if has_heads(bench.model, part):
            named += [{"table": "head", "part": part, "layer": layer, "head": head} for head in range(bench.heads)]
            rows += [
                [p for group in bench.masks for p in bench.rows([(_headed(part, layer, group, bench.steps, head),)])[0]]
                for head in range(bench.heads)
            ]
        named += [{"table": "from", "part": part, "layer": layer, "step": step} for step in bench.steps]
        rows += [bench.whole(part, layer, bench.steps[step:]) for step in bench.steps]
    for layer in range(bench.model.layers):
        site = f"blocks.{layer}.hook_resid_post"
        named += [{"table": "flow", "layer": layer, "group": group} for group in bench.masks]
        given = bench.donor.recording.donor(site)
        rows += [[Patch(site, bench.steps, given, bench.branches, mask)] for mask in bench.masks.values()]
    return [{**name, "effect": effect} for name, effect in zip(named, bench.effects(rows), strict=True)]


def _headed(part: str, layer: int, group: str, steps: tuple[int, ...], head: int) -> Component:
    return Component(part=part, layer=layer, group=group, steps=steps, heads=(head,))


# --- search ------------------------------------------------------------------------------------------------------------


def nodes(rows: pd.DataFrame, steps: tuple[int, ...], found: Sequence[tuple[str, int]]) -> list[Component]:
    """Found places by token group, as components of these steps, the largest mean effect first."""
    if rows.empty or "group" not in rows:
        return []
    at = rows[(rows.table == "group") & pd.Series(list(zip(rows.part, rows.layer, strict=True)), rows.index).isin(found)]
    means = at.groupby(["part", "layer", "group"]).effect.mean().sort_values(ascending=False, kind="stable")
    return [Component(part=part, layer=int(layer), group=group, steps=steps) for part, layer, group in means.index]


def between(circuit: Circuit, found: Sequence[tuple[str, int]], steps: tuple[int, ...]) -> list[Component]:
    """The ends of paths: the circuit's components, then the strongest other parts of blocks at all tokens."""
    held = {(one.part, one.layer) for one in circuit.components}
    others = [(part, layer) for part, layer in found if (part, layer) not in held]
    everywhere = [Component(part=part, layer=layer, group=EVERYWHERE, steps=steps) for part, layer in others]
    return [*circuit.components, *everywhere]


def searched(model: HookedVideoPipeline, config: CircuitConfig, store: RunStore, pairs: Sequence[int]) -> Unit:
    """The smallest set on the pairs of the search, and the same at the steps and heads that it needs."""
    rows = earlier(store, config, ("coarse", "fine"))
    steps = tuple(range(config.num_inference_steps))
    candidates = nodes(rows, steps, strongest(rows, config.refine))
    if not candidates:
        none = "no pair was there to search on" if rows.empty else f"no part of a block has an effect above {config.refine}"
        return Unit([], facts=SearchFacts(circuit=None, why=none))
    made = recorder(model, config, store, SEARCH)
    through = store.drafts(SEARCH).in_order
    benches = [Bench.of(made, config, *pair_of(made, config, index), through) for index in pairs]
    moved = lambda sets: pd.DataFrame([bench.effects(bench.rows(sets)) for bench in benches])
    value = lambda sets: effect(moved(sets)).mean().tolist() if sets else []
    whole = float(rows[rows.table == WHOLE].effect.mean())
    found, path = smallest(candidates, value, config.keep * whole, config.most)
    order = tuple((" + ".join(map(str, chosen)), effect) for chosen, effect in path)
    if found is None:
        why = (
            f"no set of up to {config.most} components keeps {config.keep:g} of the whole effect ({whole:.2f}): {path[-1][1]:.2f}"
        )
        return Unit([], facts=SearchFacts(circuit=None, why=why, order=order))
    thin = narrowed(found.components, value, found.effect, benches[0].heads if has_heads(model, "attn") else 0)
    circuit = Circuit(
        task=None if config.pair_file else config.task_name, layers=model.layers, num_inference_steps=config.num_inference_steps,
        components=found.components, narrow=thin, effect=found.effect, whole=whole, smaller=found.smaller,
        smaller_effect=found.smaller_effect, tried_smaller=found.tried, transformer=_class(model),
    )  # fmt: skip
    rows_of_sets = [{"stage": SEARCH, "table": "narrow", "effect": value([thin])[0]}]
    return Unit(rows_of_sets, facts=SearchFacts(circuit=circuit, order=order))


# --- what fits ---------------------------------------------------------------------------------------------------------


def read(config: CircuitConfig) -> Circuit:
    """The circuit of --check. InterpError for a file that is none."""
    try:
        return Circuit.model_validate_json(Path(str(config.check)).read_bytes())
    except (OSError, ValidationError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise InterpError(
            f"--check {config.check} is no circuit.json ({first}): give one that cos analyze circuit has written"
        ) from error


def _class(model: HookedVideoPipeline) -> str:
    """The class of a model's transformer."""
    return type(next(iter(model.engines.values())).module).__name__


def check(config: CircuitConfig, model: HookedVideoPipeline) -> None:
    """InterpError for a model without the parts, for pairs that do not fit it, and for a circuit that is not of such a model."""
    fits(config, config, model)
    if config.check:
        _fits(config, model, read(config))


def _fits(config: CircuitConfig, model: HookedVideoPipeline, circuit: Circuit) -> None:
    where, there = f"--check {config.check}", spots(model)
    parts = dict.fromkeys(part for part, _ in there)
    for one in circuit.every:
        if (one.part, one.layer) not in there:
            raise InterpError(
                f"{where} has {one}; {model.name} has the parts {', '.join(parts)} in layers 0 to {model.layers - 1}: "
                "test it on a model of the same build"
            )
        heads = range(head_count(model) if has_heads(model, one.part) else 0)
        if one.heads is not None and not set(one.heads) <= set(heads):
            raise InterpError(
                f"{where} has {one}; {one.part} of {model.name} has {len(heads)} heads: test it on a model of the same build"
            )
    if circuit.transformer not in ("", _class(model)):
        warnings.warn(
            f"{where} was found in a {circuit.transformer}, and {model.name} is a {_class(model)}: parts of one name may be "
            "different things there (joint attention is to the prompt as well)",
            stacklevel=2,
        )
    if circuit.layers != model.layers:
        raise InterpError(
            f"{where} is of a model of {circuit.layers} layers, {model.name} has {model.layers}: test it on a model of the same "
            "build"
        )
    if circuit.num_inference_steps != config.num_inference_steps:
        raise InterpError(
            f"{where} is of runs of {circuit.num_inference_steps} steps: give --num-steps {circuit.num_inference_steps}"
        )
    if circuit.task is not None and (config.pair_file or circuit.task != config.task_name):
        raise InterpError(f"{where} is of the task {circuit.task}: give --task {circuit.task}")
    if circuit.task is None and not config.pair_file:
        raise InterpError(f"{where} is of pairs from a file: give --pair-file")
    has_groups(config, [one.group for one in circuit.every], where)


work = from_others(_made)
