"""Where runs go: latents and layer states along the steps, over many items and several noises each.

Distances are between runs of one item, so that neither the picture nor the prompt makes the difference; the maps (PCA,
UMAP) show all runs together. Of items with several right answers it is also read how well a state tells the run's final one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.facts import PIXELS
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.driver.thumbnails import thumbnail
from cos_interp.analyses.kit import belief
from cos_interp.analyses.kit.candidates import Candidates, candidates
from cos_interp.analyses.kit.problems import Problem, arguments, chosen_steps, each_problem, fits, judge, verdict_columns
from cos_interp.analyses.trajectory import ESTIMATES, FINALS, STATES, TrajectoryConfig, TrajectoryFacts
from cos_interp.analyses.trajectory.separation import relation, relative_distance, same_answer, status_of
from cos_interp.analyses.trajectory.told import NOISE, told_rows
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.selecting import known_layers
from cos_interp.interp.trajectory import Run

EXACT = 1 << 14  # a state of more numbers is sketched before its distances are taken
KEPT = 512  # numbers stored of a state, for the maps


def sketch(vector: Tensor, size: int, seed: int = 0) -> Tensor:
    """A shorter vector with about the same distances, ``[n] -> [min(n, size)]``: count sketch.

    Every entry is added with a random sign to one of ``size`` buckets (Charikar, Chen, Farach-Colton 2002); distances are
    kept to within a factor of about ``1 + sqrt(2 / size)``. The same buckets for every vector of a length.
    """
    flat = vector.flatten().float().cpu()
    if len(flat) <= size:
        return flat.clone()
    generator = torch.Generator().manual_seed(seed)
    bucket = torch.randint(size, (len(flat),), generator=generator)
    sign = torch.randint(2, (len(flat),), generator=generator) * 2.0 - 1
    return torch.zeros(size).index_add(0, bucket, flat * sign)


# --- runs of one problem ---------------------------------------------------------------------------------------------


def pieces(config: TrajectoryConfig) -> list[tuple[Problem, list[str]]]:
    chosen_steps(config)
    return each_problem(config)


def layers_of(config: TrajectoryConfig, model: HookedVideoPipeline) -> tuple[int, ...]:
    if config.layers is not None:
        return config.layers
    return tuple(dict.fromkeys((0, model.layers // 2, model.layers - 1)))


def check(config: TrajectoryConfig, model: HookedVideoPipeline) -> None:
    fits(config, model)
    known_layers(layers_of(config, model), model.layers)


def trace(
    model: HookedVideoPipeline, config: TrajectoryConfig, problem: Problem, noise: int
) -> tuple[Run, dict[str, list[Tensor]]]:
    """One run, and its states by space (``x_t``, ``x0hat``, ``layer i``): a vector for each chosen step."""
    steps, layers = chosen_steps(config), layers_of(config, model)
    run, cache = model.run_with_cache(
        names=[f"blocks.{layer}.hook_resid_post" for layer in layers], steps=list(steps), branches="cond",
        reduce=lambda act: sketch(act.mean(dim=(1, 2, 3)) if config.pool == "mean" else act, EXACT),
        **arguments(model, config, problem, problem.noise(noise)),
    )  # fmt: skip
    states = {"x_t": [sketch(run.x_t[k], EXACT) for k in steps], "x0hat": [sketch(run.x0hat[k], EXACT) for k in steps]}
    for layer in layers:
        states[f"layer {layer}"] = [cache[f"blocks.{layer}.hook_resid_post", k] for k in steps]
    return run, states


def distance_rows(runs: Sequence[Row], states: Sequence[dict[str, list[Tensor]]], steps: Sequence[int]) -> list[Row]:
    """A row for each pair of runs, space and step. ``runs``: status and answer of each run, ``states`` as :func:`trace`."""
    rows: list[Row] = []
    for a, b in combinations(range(len(runs)), 2):
        pair: Row = {"kind": "pair", "first": a, "second": b, "same_answer": same_answer(runs[a], runs[b])}
        pair["relation"] = relation(status_of(runs[a]), status_of(runs[b]))
        for space, found in states[a].items():
            for place, step in enumerate(steps):
                apart = relative_distance(found[place], states[b][space][place])
                rows.append({**pair, "space": space, "step": step, "distance": apart})
    return rows


def scores_of(run: Run, among: Candidates, steps: Sequence[int]) -> dict[str, list[dict[str, float]]]:
    """How much each state of a run speaks for each right answer, by reading, at every step.

    ``x0hat``: its weights by least squares; ``x_t``: the scores of an ideal observer, who knows the candidates and no model;
    ``noise``: the same at the first step, whatever the step.
    """
    named = lambda values: dict(zip(among.answers, values.tolist(), strict=True))
    seen = lambda k: named(belief.scores(run.x_t[k], among.latents, run.sigmas[k]))
    return {
        "x0hat": [named(belief.weights(run.x0hat[k], among.latents)) for k in steps],
        "x_t": [seen(k) for k in steps],
        NOISE: [seen(0)] * len(steps),
    }


def _told(
    model: HookedVideoPipeline, problem: Problem, found: Sequence[Run], runs: Sequence[Row], steps: Sequence[int]
) -> list[Row]:
    if problem.item is None or problem.item.unique:
        return []
    among = candidates(model, problem.item, found[0].latents)
    return [] if among is None else told_rows(runs, [scores_of(run, among, steps) for run in found], steps)


def measure(model: HookedVideoPipeline, config: TrajectoryConfig, problem: Problem) -> Unit:
    steps = chosen_steps(config)
    traced = [trace(model, config, problem, noise) for noise in range(config.noises)]
    sigmas = traced[0][0].sigmas
    runs, finals, along = [], list[np.ndarray](), list[np.ndarray]()
    for noise, (run, _) in enumerate(traced):
        clip = run.decode()[0]
        runs.append({"noise": noise, **verdict_columns(judge(problem, clip))})
        finals.append(thumbnail(clip))
        if problem.kept(clip.nbytes):
            along.append(np.stack([thumbnail(model.decode(run.x0hat[k])[0]) for k in steps]))
    states = [found for _, found in traced]
    rows = distance_rows(runs, states, steps) + _told(model, problem, [run for run, _ in traced], runs, steps)
    rows = [{**problem.facts, "sigma": sigmas[row["step"]], **row} for row in rows]
    tensors = {
        space: torch.stack([torch.stack([sketch(v, KEPT) for v in found[space]]) for found in states]) for space in states[0]
    }
    axes: dict[str, tuple[str, ...]] = dict.fromkeys(tensors, STATES)
    for name, small in ((FINALS, finals), (ESTIMATES, along)):
        if small:
            tensors[name] = torch.from_numpy(np.stack(small))
            axes[name] = ("noise", *(["step"] if name == ESTIMATES else []), *PIXELS)
    facts = TrajectoryFacts(
        axes=axes, sigmas=tuple(sigmas), prompt=problem.call["prompt"],
        task=problem.task, runs=tuple(runs), steps=steps,
    )  # fmt: skip
    return Unit(rows, tensors, facts)


work = each_unit(measure)
