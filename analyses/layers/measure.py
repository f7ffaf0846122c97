"""What the layers do: token energy by layer (CoS section 5.1), and ablation of layers by step.

Energy is where the residual stream is long, which is not where the model looks: the norm grows with depth and depends on the
noise. Therefore also the z-score within a layer, the block's update, and, as evidence of use, the ablations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.facts import PIXELS, RunFacts
from cos_interp.analyses.driver.statistics import distance
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.ablation import Edit, ablate, identity, thirds
from cos_interp.analyses.kit.problems import Problem, arguments, each_problem, fits, judge, problems
from cos_interp.analyses.kit.updates import POST, PRE, around
from cos_interp.analyses.layers import LayersConfig
from cos_interp.interp import pixel_to_latent
from cos_interp.interp.hooking import FwdHook
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.clock import Hook
from cos_interp.interp.selecting import known_layers
from cos_interp.interp.trajectory import Run
from cos_interp.tasks import Item, grid, suite
from cos_interp.tasks.scorer import solved_of

BACKGROUND = (grid.FLOOR, grid.WALL, grid.BOARD)
MAPS = ["step", "layer", "frame", "row", "col"]


# --- energy ----------------------------------------------------------------------------------------------------------


@dataclass
class EnergyReader:
    """Hooks that keep, for the conditional branch, the norm of every block's result and of its update, token by token.

    Only one block's activations are held at a time, so that the size of the model does not matter.
    """

    energy: dict[tuple[int, int], Tensor] = field(default_factory=dict)  # (step, layer) -> [frame, row, col]
    update: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    start: dict[int, Tensor] = field(default_factory=dict)  # step -> energy of the first block's input

    def hooks(self, model: HookedVideoPipeline) -> list[FwdHook]:
        """At the video before and after every block: what a family adds between two blocks is none's update."""
        return around([name for name in model.hook_names if name.endswith((PRE, POST))], range(model.layers), self._block)

    def _block(self, before: Tensor, after: Tensor, hook: Hook) -> None:
        if hook.branch != "cond":  # the released tool keeps the first forward of a step only, the conditional one
            return
        if hook.block == 0:
            self.start[hook.step] = token_norm(before)[0]
        self.energy[hook.step, hook.block] = token_norm(after)[0]
        self.update[hook.step, hook.block] = token_norm(after - before)[0]

    def maps(self) -> dict[str, Tensor]:
        """``energy`` and ``update`` as ``[step, layer, frame, row, col]``."""
        return {"energy": stacked(self.energy), "update": stacked(self.update)}

    def starts(self) -> Tensor:
        """Energy before the first block, ``[step, frame, row, col]``."""
        return torch.stack([self.start[step] for step in sorted(self.start)])


def token_norm(act: Tensor) -> Tensor:
    """Energy of each token: L2 norm over channels (CoS section 5.1), float32."""
    return act.float().norm(dim=-1).cpu()


def stacked(by_place: dict[tuple[int, int], Tensor]) -> Tensor:
    """``{(step, layer): map}`` as ``[step, layer, ...]``."""
    steps, layers = (1 + max(place[axis] for place in by_place) for axis in (0, 1))
    return torch.stack([torch.stack([by_place[k, layer] for layer in range(layers)]) for k in range(steps)])


def z_scores(energy: Tensor) -> Tensor:
    """Each map ``[..., frame, row, col]`` with mean 0 and deviation 1 over its tokens; 0 where all are equal."""
    flat = energy.flatten(-3)
    centred = flat - flat.mean(-1, keepdim=True)
    spread = centred.square().mean(-1, keepdim=True).sqrt()
    return torch.where(spread > 0, centred / spread.clamp_min(1e-30), 0.0).view(energy.shape)


def contrast(energy: Tensor, mask: Tensor) -> Tensor:
    """Mean z-score of the tokens in a mask minus that of the others, ``[...]``; mask: bool ``[frame, row, col]``."""
    z = z_scores(energy).flatten(-3)
    return z[..., mask.flatten()].mean(-1) - z[..., ~mask.flatten()].mean(-1)


def ratio(energy: Tensor, mask: Tensor) -> Tensor:
    """Mean energy of the tokens in a mask over that of the others, ``[...]``."""
    flat = energy.flatten(-3)
    return flat[..., mask.flatten()].mean(-1) / flat[..., ~mask.flatten()].mean(-1)


def on_tokens(seen: np.ndarray, shape: Sequence[int]) -> Tensor:
    """Bool cells by pixel frame ``[pixel frame, row, col]`` on a token grid ``[frame, row, col]``.

    A token is true where any of its pixel frames is (:func:`cos_interp.interp.pixel_to_latent`).
    """
    frames, rows, cols = shape
    seen = seen if frames > 1 else seen[:1]  # one latent frame is a picture, of the first pixel frame
    latent = pixel_to_latent(len(seen), frames)
    by_frame = np.stack([seen[latent == frame].any(0) for frame in range(frames)])
    row, col = (np.arange(n) * size // n for n, size in ((rows, seen.shape[1]), (cols, seen.shape[2])))
    return torch.from_numpy(by_frame[:, row][:, :, col])


def foreground(item: Item, shape: Sequence[int]) -> Tensor:
    """Tokens that show a thing in the true video, not floor, wall or board; bool ``[frame, row, col]``."""
    return on_tokens(~np.isin(item.cells, BACKGROUND), shape)


def moved_contrast(energy: Tensor, mask: Tensor, seed: int, draws: int = 20) -> Tensor:
    """The control of :func:`contrast`: its mean when the mask's cells are moved at random within each frame, ``[...]``.

    It is not 0 where frames differ in energy and in their number of things; only what is beyond it is due to the places.
    """
    rng = np.random.default_rng(seed)
    flat = mask.flatten(1).numpy()
    moved = [torch.from_numpy(rng.permuted(flat, axis=1)).view(mask.shape) for _ in range(draws)]
    return torch.stack([contrast(energy, one) for one in moved]).mean(0)


def over_layers(values: Tensor) -> Tensor:
    """Each token's norm over its own mean over the layers, ``[step, layer, frame, row, col]``.

    A few tokens (those of the first frame, often) are long in every layer; where such a massive token lies says nothing of when
    the model looks at it. What is left is at which depth a token is long for itself.
    """
    return values / values.mean(1, keepdim=True).clamp_min(1e-30)


def energy_rows(maps: dict[str, Tensor], start: Tensor, item: Item | None, seed: int) -> list[dict[str, Any]]:
    """A row a step and layer: mean norms and, with an item, how they differ between things and background.

    ``*_own_*`` is of norms :func:`over_layers`; ``start_*`` of the first block's input, the same in all layers of a step.
    """
    table: dict[str, Tensor] = {f"{name}_mean": values.flatten(-3).mean(-1) for name, values in maps.items()}
    if item is not None:
        mask = foreground(item, maps["energy"].shape[-3:])
        compared = {**maps, **{f"{name}_own": over_layers(values) for name, values in maps.items()}}
        compared["start"] = start[:, None].expand_as(maps["energy"])
        for name, values in compared.items():
            table[f"{name}_contrast"] = contrast(values, mask)
            table[f"{name}_control"] = moved_contrast(values, mask, seed)
        table |= {f"{name}_ratio": ratio(values, mask) for name, values in maps.items()}
    steps, layers = maps["energy"].shape[:2]
    return [
        {"step": k, "layer": layer, **{name: float(values[k, layer]) for name, values in table.items()}}
        for k in range(steps)
        for layer in range(layers)
    ]


# --- ablation --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ablated:
    """An edit and how the results call it: ``unit`` is ``layer`` or ``third``, ``third`` names the third of the layers."""

    edit: Edit
    unit: str
    span: str
    layer: int | None = None
    third: str | None = None

    def columns(self) -> Row:
        return {"kind": self.edit.kind, "unit": self.unit, "span": self.span, "layer": self.layer, "third": self.third}


def grid_of_ablations(config: LayersConfig, layers: int) -> list[Ablated]:
    """Every kind on every layer alone; then whole thirds of the layers skipped (frozen), with random updates as control."""
    spans = {name: steps for name, steps in thirds(config.num_inference_steps).items() if name in config.spans and steps}
    parts = {name: part for name, part in thirds(layers).items() if name != "all" and part}
    chosen = config.layers if config.layers is not None else range(layers)
    made = []
    for kind in config.ablations:
        for span, steps in spans.items():
            made += [Ablated(Edit(kind, (layer,), steps), "layer", span, layer) for layer in chosen]
            if kind in ("skip", "random"):
                made += [Ablated(Edit(kind, part, steps), "third", span, None, name) for name, part in parts.items()]
    return made


def others(problem: Problem, config: LayersConfig) -> list[Problem]:
    """The problems that follow this one in its task's suite (own prompts: in the file); the noise is each one's own.

    With a single own prompt the others are the same prompt from other noises.
    """
    index = problem.index
    if problem.item is not None:
        everything = config.model_copy(update={"tasks": (problem.task,), "items": len(suite.task_items(problem.task))})
        made = problems(everything)
    else:
        made = problems(config)
        if len(made) == 1:
            return [replace(problem, seed=problem.noise(1 + by)) for by in range(config.references)]
    return [made[(index + 1 + by) % len(made)] for by in range(min(config.references, len(made) - 1))]


def ablation_rows(
    model: HookedVideoPipeline, config: LayersConfig, problem: Problem, plain: Run, wanted: list[Ablated]
) -> list[Row]:
    """A row an ablation: distance of its final latent from the plain run's, and its verdict beside the plain run's."""
    target = arguments(model, config, problem)
    references = [arguments(model, config, other) for other in others(problem, config)]
    over_items = config.mean_over == "items"
    latents = ablate(model, target, references, [w.edit for w in wanted], over_items, config.batch)
    solved = solved_share(model, problem, torch.cat([plain.latents, latents]))
    rows = []
    for row, ablated in enumerate(wanted):
        moved = distance(latents[row : row + 1], plain.latents)
        rows.append({**ablated.columns(), "distance": moved, "solved": solved[row + 1], "solved_plain": solved[0]})
    own = identity(model, target, model.layers, config.num_inference_steps)
    rows.append({"kind": "own", "unit": "all", "span": "all", "distance": distance(own, plain.latents)})
    return rows


def solved_share(model: HookedVideoPipeline, problem: Problem, latents: Tensor) -> list[float | None]:
    """1 or 0 for each row of final latents; None where nobody says so. Where nobody judges nothing is decoded."""
    if not problem.judged:
        return [None] * len(latents)
    return [solved_of(judge(problem, clip)) for clip in model.decode(latents)]


# --- the experiment --------------------------------------------------------------------------------------------------


def check(config: LayersConfig, model: HookedVideoPipeline) -> None:
    fits(config, model)
    known_layers(config.layers, model.layers)


def measure(model: HookedVideoPipeline, config: LayersConfig, problem: Problem) -> Unit:
    reader = EnergyReader()
    plain = model.run_with_hooks(fwd_hooks=reader.hooks(model), **arguments(model, config, problem))
    maps = reader.maps()
    energy = energy_rows(maps, reader.starts(), problem.item, problem.seed)
    ablated = ablation_rows(model, config, problem, plain, grid_of_ablations(config, model.layers))
    common = {**problem.facts, "layers": model.layers}
    rows = [{**common, "measure": "energy", "sigma": plain.sigmas[row["step"]], **row} for row in energy]
    rows += [{**common, "measure": "ablation", **row} for row in ablated]
    tensors, axes = dict(maps), dict.fromkeys(maps, tuple(MAPS))
    if problem.first:
        tensors["frames"] = torch.from_numpy(model.decode(plain.latents)[0])
        axes["frames"] = PIXELS
    return Unit(rows, tensors, RunFacts(axes=axes, sigmas=tuple(plain.sigmas), prompt=problem.call["prompt"]))


pieces = each_problem
work = each_unit(measure)
