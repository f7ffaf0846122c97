"""What the ``cos probe`` commands do: train, test, list, show and apply saved probes on the tasks' items."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cos_interp.analyses.driver.experiment import loaded
from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.driver.planning import refuse_uses
from cos_interp.analyses.driver.settings import AnalysisConfig, TasksConfig
from cos_interp.analyses.driver.statistics import mean_number
from cos_interp.analyses.kit.clips import clip_of
from cos_interp.analyses.kit.problems import Problem, arguments, items
from cos_interp.analyses.probing import ApplyConfig, EvalConfig, TrainConfig
from cos_interp.interp.address import layer_of
from cos_interp.interp.inverting import invert
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.selecting import known_layers
from cos_interp.interp.terminal import write_file
from cos_interp.probes.clip import ClipData, Source
from cos_interp.probes.collect import collect_clip, in_turn
from cos_interp.probes.dataset import ProbeDataset
from cos_interp.probes.errors import ProbeError
from cos_interp.probes.grid import ProbeGrid
from cos_interp.probes.overlay import overlay
from cos_interp.probes.persistence import read_card, saved
from cos_interp.probes.scoring import class_tally, interval, value_tally
from cos_interp.probes.storage import DEFAULT_BYTES
from cos_interp.probes.targets import CLASSIFY, Target, known, resolve
from cos_interp.tasks.clips import grid_task

MOST = 125


def sources(model: HookedVideoPipeline, config: TasksConfig, target: Target, skip: int = 0) -> list[Source]:
    """Items ``skip`` to ``skip + items`` of each task that has the target, tasks in turn, with their own noise seeds."""
    tasks = tuple(t for t in config.task_names if target.tasks is None or t in target.tasks)
    if not tasks:
        raise ProbeError(
            f"target {target.name!r} exists in {', '.join(target.tasks or ())}; asked for were {', '.join(config.tasks)}"
        )
    last = skip + config.items
    if last > MOST:
        raise ProbeError(f"items {skip} to {last - 1} were asked for; a task has {MOST}")
    wanted = TasksConfig(tasks=tasks, items=last, seed=config.seed)
    kept: list[Problem] = [p for p in items(wanted) if p.index >= skip]
    return in_turn([Source(p.name, arguments(model, config, p), p.item) for p in kept])


def target_of(name: str, tasks: Iterable[str]) -> Target:
    """A target by name. A task from outside is executed first, so that its labels are known."""
    for text in tasks:
        grid_task(text)
    return resolve([name])[0]


def train(config: TrainConfig, out: Path, progress: Any) -> dict[str, Any]:
    """Collect, fit a grid, save it; the best cell and its baselines."""
    found = target_of(config.target, config.tasks)
    refuse_uses(partial(_of_training, found), config, out)
    config, model = loaded(config)
    names = [f"blocks.{i}.{config.site}" for i in known_layers(config.layers, model.layers)]
    data = ProbeDataset.collect(
        model, sources(model, config, found), names=names, steps="all" if config.steps is None else list(config.steps),
        targets=[found], tokens=config.tokens or "all",
        progress=lambda done, total: progress(done, total, "clips"),
    )  # fmt: skip
    grid = ProbeGrid(config.target, config.kind if found.form == CLASSIFY else "ridge", config.folds, inner=1)
    grid.fit(data, progress=lambda done, total: progress(done, total, "probes"))
    grid.card["data"] |= {"tasks": list(config.tasks), "items": config.items, "seed": config.seed}
    grid.save(out)
    return grid.scores.loc[grid.scores.score.idxmax()].to_dict()


def _of_training(target: Target, config: TrainConfig, outlook: Outlook) -> list[Use]:
    """The clips of :func:`train`, and what is kept of all of them."""
    names = [f"blocks.{layer}.{config.site}" for layer in known_layers(config.layers, outlook.model.layers)]
    tasks = [task for task in config.task_names if target.tasks is None or task in target.tasks]
    return _clips(outlook, names, config.steps, config.items * len(tasks), config.tokens)


def _of_cells(cells: Sequence[tuple[str, int]], clips: int, config: AnalysisConfig, outlook: Outlook) -> list[Use]:
    """Clips of which some cells are read."""
    names, steps = list(dict.fromkeys(name for name, _ in cells)), sorted({step for _, step in cells})
    return _clips(outlook, names, steps, clips, 0)


def _clips(outlook: Outlook, names: Sequence[str], steps: Sequence[int] | None, clips: int, tokens: int) -> list[Use]:
    """``tokens``: of each clip that are kept, 0 for all."""
    of_a_clip, every = outlook.kept(names, steps) if names else 0, outlook.shape.grid.tokens
    kept = of_a_clip * clips * min(tokens or every, every) // every
    here = kept <= DEFAULT_BYTES  # else it goes to files
    return [Use("clips", clips, held=of_a_clip, finished=kept if here else 0, decoded=1, disk=0 if here else kept)]


def evaluate(folder: Path, config: EvalConfig, progress: Any) -> list[dict[str, Any]]:
    """Saved probes on other items: a row a cell with ``score, low, high, n_clips, trained`` (its score at training)."""
    card = read_card(folder)
    target = target_of(card["target"]["name"], config.tasks)
    read = [(cell["name"], cell["step"]) for cell in card["cells"]]
    refuse_uses(partial(_of_cells, read, config.items * len(config.tasks)), config, folder)
    config, model = loaded(config)
    grid = ProbeGrid.load(folder, model, config.force)
    chosen = sources(model, config, target, config.skip)
    again = {s.name for s in chosen} & set(card["data"]["clips"])
    if again and config.seed == card["data"].get("seed"):
        raise ProbeError(
            f"{len(again)} of the {len(chosen)} clips were trained on ({min(again)}): give --skip {card['data']['items']}, "
            "or another --seed for new noise"
        )
    cells = list(grid.probes)
    data = ProbeDataset.collect(
        model, chosen, names=list(dict.fromkeys(n for n, _ in cells)), steps=sorted({s for _, s in cells}), targets=[target],
        progress=lambda done, total: progress(done, total, "clips"),
    )  # fmt: skip
    for cell in cells:
        _same_noise(grid, cell, data.sigmas[data.at(cell[1])])
    trained = grid.scores.set_index(["name", "step"]).score
    return [_evaluated(grid, data, cell) | {"trained": float(trained[cell])} for cell in cells]


def _same_noise(grid: ProbeGrid, cell: tuple[str, int], sigma: float) -> None:
    """ProbeError where a step has another noise level than the one on which its probe was trained: its number alone says
    nothing in a run of other steps."""
    trained = float(grid.scores.set_index(["name", "step"]).sigma[cell])
    if not math.isclose(sigma, trained, rel_tol=1e-3, abs_tol=1e-3):
        raise ProbeError(
            f"step {cell[1]} has sigma {sigma:.3f} here, and the probes were trained at {trained:.3f}: give the --num-steps that "
            "they were trained with"
        )


def _evaluated(grid: ProbeGrid, data: ProbeDataset, cell: tuple[str, int]) -> dict[str, Any]:
    probe, rows = grid.probes[cell], data.rows(grid.target)
    if probe.classifies:
        rows = rows[np.isin(data.label(grid.target)[rows], probe.classes_)]
    if not len(rows):
        raise ProbeError(f"none of the clips has a class of {grid.target!r} that was trained on: take more clips")
    y, clip = data.label(grid.target)[rows], data.clip[rows]
    predicted = probe.predict(data.storage.read(cell[0], data.at(cell[1]), rows))
    clips = np.unique(clip)
    tally = class_tally(y, predicted, clip, clips, probe.classes_) if probe.classifies else value_tally(y, predicted, clip, clips)
    value, low, high = interval(tally)
    return {"name": cell[0], "step": cell[1], "score": value, "low": low, "high": high, "n_clips": len(clips)}


def scored(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a card's scores, the best first; those without a score, which is None, last."""
    return sorted(card["scores"], key=lambda row: float("inf") if row["score"] is None else -row["score"])


def listing(folder: Path) -> list[dict[str, Any]]:
    """Saved probes below a folder, one row each."""
    out: list[dict[str, Any]] = []
    for path in saved(folder):
        try:
            card = read_card(path)
        except ProbeError as error:  # one damaged folder hides no other
            out.append({"folder": str(path), "problem": str(error)})
            continue
        best = scored(card)[0]
        out.append({
            "folder": str(path), "target": card["target"]["name"], "kind": card["probe"]["kind"], "probes": len(card["cells"]),
            "best": f"layer {best['layer']}, step {best['step']}", "score": best["score"], "model": card["model"].get("name"),
            "digest": str(card["model"].get("digest"))[:12],
        })  # fmt: skip
    return out


def target_list() -> list[dict[str, str]]:
    return [
        {"target": t.name, "family": t.family, "about": t.about, "tasks": ", ".join(t.tasks or ("any video",))}
        for t in known().values()
    ]


def apply(folder: Path, config: ApplyConfig, out: Path) -> dict[str, Any]:
    """Generate one item or invert a clip, predict every token, write the overlay video; what was applied and how it fits."""
    from cos_interp.tasks.video import encode_mp4

    target = target_of(read_card(folder)["target"]["name"], [config.task])
    refuse_uses(partial(_of_cells, (), 2), config, out.parent)
    config, model = loaded(config)
    grid = ProbeGrid.load(folder, model, config.force)
    if (config.layer is None) != (config.step is None):
        raise ProbeError("give both a layer and a step, or neither for the best probe")
    cell = grid.best() if config.layer is None or config.step is None else _cell(grid, config.layer, config.step)
    shown = _of_clip(model, config, target, cell) if config.video is not None else _of_item(model, config, target, cell)
    clip, frames = shown.clip, shown.frames
    _same_noise(grid, cell, clip.sigmas[0])
    predicted = grid.probes[cell].predict(clip.activations[cell[0]][0])
    names = target.names if target.form == CLASSIFY else ()
    video, legend = overlay(frames, predicted.reshape(clip.grid + predicted.shape[1:]), names)
    write_file(out, encode_mp4(video))
    truth = clip.labels[target.name]
    facts = {"video": str(out), "probe": f"{cell[0]} at step {cell[1]}", **shown.facts, "colours": legend}
    if target.form == CLASSIFY and (truth >= 0).any():
        known = truth >= 0
        facts["tokens right"] = mean_number((predicted == truth)[known].astype(float)).value
    return facts


class Shown(NamedTuple):
    """What a probe is applied to, its video ``[pixel frame, height, width, 3]``, and what is said of it."""

    clip: ClipData
    frames: np.ndarray
    facts: dict[str, Any]


def _of_item(model: HookedVideoPipeline, config: ApplyConfig, target: Target, cell: tuple[str, int]) -> Shown:
    problem = items(TasksConfig(tasks=(config.task,), items=config.item + 1, seed=config.seed))[config.item]
    source = Source(problem.name, arguments(model, config, problem), problem.item)
    clip = collect_clip(model, source, [cell[0]], [cell[1]], [target], "all", 0)
    return Shown(clip, model.run(**source.call).decode()[0], {"prompt": problem.call["prompt"]})


def _of_clip(model: HookedVideoPipeline, config: ApplyConfig, target: Target, cell: tuple[str, int]) -> Shown:
    """A clip on its way through the model, from the noise that leads to it."""
    frames, taken = clip_of(model, Path(str(config.video)))
    steps: dict[str, Any] = {"num_inference_steps": config.num_inference_steps, "guidance_scale": config.guidance_scale}
    found = invert(model, frames, prompt=config.prompt, **steps)
    with model.hooks(found.hooks()):
        clip = collect_clip(model, Source("clip", dict(found.call)), [cell[0]], [cell[1]], [target], "all", 0)
    return Shown(clip, frames, {"prompt": config.prompt, "clip": taken, "round trip error": found.error})


def _cell(grid: ProbeGrid, layer: int, step: int) -> tuple[str, int]:
    grid.at(layer, step)  # says what there is
    return next(c for c in grid.probes if layer_of(c[0]) == layer and c[1] == step)
