"""Activation patching over (step, layer, site, token group) between counterfactual pairs, with controls.

For each pair the *clean* run's activations are put into the *corrupt* run (denoising) or the other way round (noising),
and the run is finished. Effect 0: nothing changed; 1: the clean run's final latent is restored along the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.statistics import projection
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.kit.pairs import Pair, find_pair, record_item, same_answer_seed
from cos_interp.analyses.kit.problems import chosen_steps
from cos_interp.analyses.patching import CONTROLS, EVERYWHERE, HEAD_SITES, PatchingConfig
from cos_interp.interp.batch import chunks
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patching import Patch, Recording, minimal_blocks, replay
from cos_interp.interp.views import AXES
from cos_interp.tasks import TASKS, Item
from cos_interp.tasks.base import outcome
from cos_interp.tasks.grid import LATENT_FRAMES

Range = Literal["single", "from", "until"]
PIXELS = ("pixel_frame", "y", "x", "rgb")
UNIT_AXES = {"latents": ("patch", *AXES["latent"][1:]), "frames": ("patch", *PIXELS)}
PAIR_AXES = {"corrupt": AXES["latent"], "clean": AXES["latent"], "corrupt_frames": PIXELS, "clean_frames": PIXELS}


class Cell(BaseModel, frozen=True):
    """One point of the grid."""

    donor: str  # clean, random, same_answer, self
    site: str
    step: int
    layer: int | None
    head: int | None
    group: str
    frame: int | None


def spanned(step: int, steps: int, span: Range) -> tuple[int, ...]:
    """Steps that a patch at ``step`` covers."""
    return {"single": (step,), "from": tuple(range(step, steps)), "until": tuple(range(step + 1))}[span]


def span_of(config: PatchingConfig, pair_kind: str) -> Range:
    """The range of steps of a pair kind. ``auto``: from step k on, but single steps for seed pairs.

    The donor of a seed pair started from another noise, which its activations carry: held in place over many steps they
    give the velocity of another x_t, and the result leaves the data.
    """
    if config.span != "auto":
        return config.span
    return "single" if pair_kind == "seed" else "from"


def hook_name(cell: Cell) -> str:
    return cell.site if cell.layer is None else f"blocks.{cell.layer}.{cell.site}"


def needed_sites(config: PatchingConfig) -> list[str]:
    return [f"blocks.*.{site}" for site in config.sites if site != "hook_x_t"]


def cells(config: PatchingConfig, step: int, layers: int, groups: list[str], pair_kind: str) -> Iterator[Cell]:
    """The grid at one step: the patches, then the controls (on named groups a random donor at one layer a step)."""
    chosen_layers = list(config.layers if config.layers is not None else range(layers))
    rotated = chosen_layers[(step + len(chosen_layers) // 2) % len(chosen_layers)]  # the middle layer at step 0
    for site in config.sites:
        for layer in [None] if site == "hook_x_t" else chosen_layers:
            heads = config.heads if site in HEAD_SITES and config.heads else (None,)
            point = {"site": site, "step": step, "layer": layer}
            for head in heads:
                for group in groups:
                    for frame in config.frames or (None,):
                        yield Cell(donor="clean", head=head, group=group, frame=frame, **point)
            for group in groups if config.controls else ():
                sampled = ("random",) if layer in (None, rotated) else ()
                for donor in CONTROLS if group == EVERYWHERE else sampled:
                    yield Cell(donor=donor, head=None, group=group, frame=None, **point)
    if config.controls:
        site = config.sites[0]
        layer = None if site == "hook_x_t" else rotated
        yield Cell(donor="self", site=site, step=step, layer=layer, head=None, group=EVERYWHERE, frame=None)
        if pair_kind == "seed" and "hook_x_t" not in config.sites:
            yield Cell(donor="clean", site="hook_x_t", step=step, layer=None, head=None, group=EVERYWHERE, frame=None)


@dataclass
class PairWork:
    """The recordings of one pair, and its grid step by step. ``controls`` are recordings of other donors by name."""

    model: HookedVideoPipeline
    config: PatchingConfig
    index: int
    pair: Pair
    corrupt: Recording
    clean: Recording
    controls: dict[str, Recording]

    def __post_init__(self) -> None:
        sides = (self.corrupt, self.pair.corrupt), (self.clean, self.pair.clean)
        (self.target, self.target_item), (donor, self.donor_item) = sides if self.denoising else sides[::-1]
        self.donors = {"clean": donor, "self": self.target, **self.controls}
        masks = self.pair.task.groups(self.target_item, self.donor_item)
        self.groups: dict[str, Tensor | None] = {EVERYWHERE: None, **{k: torch.from_numpy(v) for k, v in masks.items()}}
        wanted = self.config.tokens or tuple(self.groups)
        self.names = [g for g in self.groups if g in wanted]

    @classmethod
    def prepare(cls, model: HookedVideoPipeline, config: PatchingConfig, kind: str, index: int) -> PairWork:
        """Find the pair and record both runs and the donors of the controls."""
        generation = {"num_inference_steps": config.num_inference_steps, "guidance_scale": config.guidance_scale}
        pair = find_pair(model, config.task, kind, index, config.seed, **generation)
        sites = needed_sites(config)
        corrupt = record_item(model, pair.corrupt, pair.corrupt_seed, sites, **generation)
        clean = record_item(model, pair.clean, pair.clean_seed, sites, **generation)
        work = cls(model, config, index, pair, corrupt, clean, {})
        if config.controls:
            number = config.seed * 1_000_000 + index * 1000 + 999
            stranger = pair.task.sample(number, split="test")
            work.donors["random"] = record_item(model, stranger, number, sites, **generation)
            again = same_answer_seed(model, work.target_item, work.target_seed, **generation)
            if again is not None:
                work.donors["same_answer"] = record_item(model, work.target_item, again, sites, **generation)
        return work

    @property
    def kind(self) -> str:
        return self.pair.kind

    @property
    def denoising(self) -> bool:
        return self.config.direction == "denoising"

    @property
    def target_seed(self) -> int:
        return self.pair.corrupt_seed if self.denoising else self.pair.clean_seed

    @property
    def key(self) -> str:
        return f"{self.kind}-{self.index:03d}"

    def patch(self, cell: Cell) -> Patch:
        branches = self.target.run.branches if self.config.branch == "both" else (self.config.branch,)
        mask = self.groups[cell.group]
        if cell.frame is not None:
            shape = self.target.run.x_t[0].shape[2:]
            only = torch.zeros(shape, dtype=torch.bool)
            only[cell.frame] = True
            mask = only if mask is None else mask & only
        steps = spanned(cell.step, self.target.run.steps, span_of(self.config, self.kind))
        donor = self.donors[cell.donor].donor(hook_name(cell))
        return Patch(hook_name(cell), steps, donor, branches, mask, None if cell.head is None else (cell.head,))

    def step_unit(self, step: int) -> tuple[list[Row], dict[str, Tensor], dict[str, Any]]:
        """All cells of one step: rows, final latents, and the count of block calls against the minimum."""
        grid = [c for c in cells(self.config, step, self.model.layers, self.names, self.kind) if c.donor in self.donors]
        patches = [self.patch(cell) for cell in grid]
        before = self.model.block_calls
        latents = torch.cat([replay(self.model, self.target, part) for part in chunks(patches, self.config.batch)])
        used = self.model.block_calls - before
        frames = np.concatenate([self.model.decode(part) for part in latents.split(16)])
        rows = [self._row(cell, latents[i : i + 1], frames[i]) for i, cell in enumerate(grid)]
        least = sum(minimal_blocks(self.model, self.target, patch) for patch in patches)
        facts = {"block_calls": used, "block_calls_minimum": least, "axes": UNIT_AXES}
        return rows, {"latents": latents, "frames": torch.from_numpy(frames)}, facts

    def _row(self, cell: Cell, latent: Tensor, frames: np.ndarray) -> Row:
        corrupt, clean = self.corrupt.run, self.clean.run
        verdict = outcome(self.pair.task, self.target_item, self.donor_item, frames)
        return {
            "pair": self.key, "pair_kind": self.kind, "span": span_of(self.config, self.kind), **cell.model_dump(),
            "sigma": self.target.run.sigmas[cell.step],
            "effect": projection(latent, corrupt.latents, clean.latents), "outcome": verdict,
        }  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """What the report says of the pair."""
        return {
            "pair": self.key, "kind": self.kind, "tried": self.pair.tried, "sigmas": [*self.target.run.sigmas, 0.0],
            "corrupt": _describe(self.pair.corrupt, self.pair.corrupt_seed),
            "clean": _describe(self.pair.clean, self.pair.clean_seed),
            "controls": sorted(self.donors),
            "axes": PAIR_AXES,
        }  # fmt: skip

    def clips(self) -> dict[str, np.ndarray]:
        return {"corrupt": self.corrupt.run.decode()[0], "clean": self.clean.run.decode()[0]}


def _describe(item: Item, seed: int) -> dict[str, Any]:
    return {
        "prompt": item.prompt,
        "answer": item.answer,
        "seed": seed,
        "item_seed": item.seed,
        "difficulty": item.difficulty,
    }


def possible_groups(task: str) -> list[str]:
    """Group names that the task ever uses (an item may lack some)."""
    names: dict[str, None] = {EVERYWHERE: None}
    for seed in range(40):
        item = TASKS[task].sample(seed)
        other = TASKS[task].counterfactual(item, "prompt", np.random.default_rng(seed))
        names |= dict.fromkeys(TASKS[task].groups(item, other or item))
    return list(names)


def units(config: PatchingConfig) -> list[tuple[str, int, tuple[int, ...]]]:
    """(pair kind, pair index, steps) of all work, one entry a pair."""
    steps = chosen_steps(config, config.num_inference_steps)
    unknown = [g for g in config.tokens or () if g not in possible_groups(config.task)]
    if unknown:
        raise InterpError(f"unknown token group {unknown[0]!r}; {config.task} has {', '.join(possible_groups(config.task))}")
    return [(kind, index, steps) for kind in config.pair_kinds for index in range(config.pairs)]


def check(config: PatchingConfig, model: HookedVideoPipeline) -> None:
    """InterpError when layers, heads or frames were asked for that the model does not have."""
    _, heads = model.adapter.width(next(iter(model.engines.values())).module)
    limits = {"layers": model.layers, "heads": heads}
    for field, limit in limits.items():
        bad = [n for n in getattr(config, field) or () if not 0 <= n < limit]
        if bad:
            raise InterpError(f"{field} {bad[0]} was asked for; {config.model} has {field} 0 to {limit - 1}")
    bad = [n for n in config.frames or () if not 0 <= n < LATENT_FRAMES]
    if bad:
        raise InterpError(f"frame {bad[0]} was asked for; the tasks' videos have latent frames 0 to {LATENT_FRAMES - 1}")
    if config.heads and not set(config.sites) & set(HEAD_SITES):
        raise InterpError(f"heads were given, and no site has heads: use --sites {HEAD_SITES[0]}")


def run_pair(
    model: HookedVideoPipeline, config: PatchingConfig, store: RunStore, kind: str, index: int, steps: tuple[int, ...]
) -> Iterator[str]:
    """Do what is missing of one pair; yields the name of each unit as it is on disk."""
    names = {step: f"{kind}-{index:03d}-step-{step:03d}" for step in steps}
    about = f"{kind}-{index:03d}-pair"
    missing = [step for step in steps if store.unit(names[step]) is None]
    if missing or store.unit(about) is None:
        work = PairWork.prepare(model, config, kind, index)
        latents = {"corrupt": work.corrupt.run.latents, "clean": work.clean.run.latents}
        clips = {f"{side}_frames": torch.from_numpy(frames) for side, frames in work.clips().items()}
        store.add_unit(about, [], latents | clips, work.facts())
        for step in steps:
            if step in missing:
                store.add_unit(names[step], *work.step_unit(step))
            yield names[step]
    else:
        yield from names.values()


Piece = tuple[str, int, tuple[int, ...]]  # pair kind, pair index, steps


def pieces(config: PatchingConfig) -> list[tuple[Piece, list[str]]]:
    return [(piece, [f"{piece[0]}-{piece[1]:03d}-step-{step:03d}" for step in piece[2]]) for piece in units(config)]


def work(model: HookedVideoPipeline, config: PatchingConfig, store: RunStore, piece: Piece) -> Iterator[str]:
    yield from run_pair(model, config, store, *piece)


def finish(result: AnalysisResult) -> AnalysisResult:
    """Add what was counted, and what the pairs were."""
    counts = {
        key: sum(unit[key] for unit in result.units.values() if key in unit) for key in ("block_calls", "block_calls_minimum")
    }
    rows = result.rows.astype({"layer": "Int64", "head": "Int64", "frame": "Int64"})
    return AnalysisResult(result.name, result.config, rows, {**result.facts, **counts}, result.units)
