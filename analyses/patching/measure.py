"""Activation patching over (step, layer, site, token group) between counterfactual pairs, with controls.

For each pair the *clean* run's activations are put into the *corrupt* run (denoising) or the other way round (noising),
and the run is finished. Effect 0: nothing changed; 1: the clean run's final latent is restored along the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import Unit
from cos_interp.analyses.driver.facts import Facts, LeftOut
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.kit.grid import EVERYWHERE, SELF, X_T, Cell, Grid, Patched, token_shape
from cos_interp.analyses.kit.pairs import NoPair, Pair, Recorder, Side, find_pair, other_noises, same_answer, stranger
from cos_interp.analyses.kit.problems import Problem, check_calls, chosen_steps
from cos_interp.analyses.patching import HEAD_SITES, PAIRS, PairFacts, PatchingConfig, SideFacts, StepFacts, pair_file
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.sweeping import Span
from cos_interp.interp.views import AXES
from cos_interp.tasks import TASKS, get_task
from cos_interp.tasks.grid import LATENT_FRAMES

OWN = "own"  # the kind of pairs from a file
CONTROLS = ("random", "same_answer", "same_prompt")  # other donors; the last one for pairs without an item
PIXELS = ("pixel_frame", "y", "x", "rgb")
TENSOR_AXES = {
    "latents": ("patch", *AXES["latent"][1:]), "frames": ("patch", *PIXELS),
    **dict.fromkeys(("corrupt", "clean"), AXES["latent"]), **dict.fromkeys(("corrupt_frames", "clean_frames"), PIXELS),
}  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """One pair. Of a pair from a file: its sides, clean and corrupt, and the donor of its random control."""

    kind: str
    index: int
    sides: pair_file.Sides | None = None
    stranger: Problem | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.index:03d}"

    def unit(self, step: int | None = None) -> str:
        """The name of the unit of a step, or of the pair itself."""
        return f"{self.name}-pair" if step is None else f"{self.name}-step-{step:03d}"


def pieces(config: PatchingConfig) -> list[tuple[Piece, list[str]]]:
    """A piece a pair; its units are the pair and its steps."""
    steps = (None, *chosen_steps(config, config.num_inference_steps))
    if config.pair_file is None:
        made = [Piece(kind, index) for kind in config.pair_kinds for index in range(config.pairs or PAIRS)]
    else:
        found = pair_file.read(Path(config.pair_file), config)
        made = [Piece(OWN, i, sides, _stranger(found, i)) for i, sides in enumerate(found[: config.pairs])]
    return [(piece, [piece.unit(step) for step in steps]) for piece in made]


def _stranger(found: list[pair_file.Sides], index: int) -> Problem | None:
    """The clean side of the next pair of a file that is on neither side of this one, from the noise of this one's."""
    clean, corrupt = found[index]
    for other, _ in [*found[index + 1 :], *found[:index]]:
        sizes = [{k: v for k, v in side.call.items() if k not in pair_file.OWN} for side in (clean, other)]
        if other.call not in (clean.call, corrupt.call) and sizes[0] == sizes[1]:
            return replace(other, seed=clean.seed)
    return None


# --- the grid --------------------------------------------------------------------------------------------------------


def span_of(config: PatchingConfig, pair: Pair) -> Span:
    """The range of steps of a pair. ``auto``: from step k on, but single steps between two noises.

    A donor that started from another noise carries it in its activations: held in place over many steps they give the
    velocity of another x_t, and the result leaves the data.
    """
    if config.span != "auto":
        return config.span
    return "from" if pair.one_noise else "single"


def cells(config: PatchingConfig, step: int, layers: int, groups: list[str], whole_state: bool) -> Iterator[Cell]:
    """The grid at one step: the patches, then the controls (on named groups a random donor at one layer a step).

    ``whole_state``: with the control that all of x_t of the clean run turns the target into it.
    """
    chosen_layers = list(config.layers if config.layers is not None else range(layers))
    rotated = chosen_layers[(step + len(chosen_layers) // 2) % len(chosen_layers)]  # the middle layer at step 0
    for site in config.sites:
        for layer in [None] if site == X_T else chosen_layers:
            heads = config.heads if site in HEAD_SITES and config.heads else (None,)
            for head in heads:
                for group in groups:
                    for frame in config.frames or (None,):
                        yield Cell("clean", site, step, layer, head, group, frame)
            for group in groups if config.controls else ():
                sampled = ("random",) if layer in (None, rotated) else ()
                for donor in CONTROLS if group == EVERYWHERE else sampled:
                    yield Cell(donor, site, step, layer, group=group)
    if config.controls:
        yield Cell(SELF, config.sites[0], step, None if config.sites[0] == X_T else rotated)
        if whole_state and X_T not in config.sites:
            yield Cell("clean", X_T, step)


def token_groups(model: HookedVideoPipeline, config: PatchingConfig, target: Side, donor: Side) -> dict[str, Tensor | None]:
    """The asked token groups by name. Only all tokens without items, or where the model's tokens are not the scene's cells."""
    made: dict[str, Tensor | None] = {EVERYWHERE: None}
    if target.problem.item is not None and donor.problem.item is not None:
        masks = get_task(target.item.task).groups(target.item, donor.item)
        if all(mask.shape == token_shape(model, target) for mask in masks.values()):
            made |= {name: torch.from_numpy(mask) for name, mask in masks.items()}
    return {name: mask for name, mask in made.items() if config.tokens is None or name in config.tokens}


def whole_state(model: HookedVideoPipeline, pair: Pair) -> bool:
    """Whether x_t is all that the two runs differ in: one condition, and a scheduler without a history (Euler)."""
    return pair.one_condition and "FlowMatchEuler" in type(model.pipe.scheduler).__name__


# --- one pair --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairGrid:
    """The recordings of one pair, and its grid step by step."""

    config: PatchingConfig
    name: str
    pair: Pair
    grid: Grid

    @classmethod
    def of(cls, recorder: Recorder, config: PatchingConfig, piece: Piece, pair: Pair) -> PairGrid:
        """The grid of a recorded pair; records the donors of its controls."""
        sides = (pair.corrupt, pair.clean)
        target, donor = sides if config.direction == "denoising" else sides[::-1]
        others = _others(recorder, config, piece, target) if config.controls else {}
        grid = Grid(
            recorder.model, target, donor, others, token_groups(recorder.model, config, target, donor),
            span=span_of(config, pair), branches=None if config.branch == "both" else (config.branch,),
            noising=config.direction == "noising", batch=config.batch,
        )  # fmt: skip
        return cls(config, piece.name, pair, grid)

    def cells(self, step: int) -> list[Cell]:
        model = self.grid.model
        made = cells(self.config, step, model.layers, list(self.grid.masks), whole_state(model, self.pair))
        return [cell for cell in made if cell.donor in self.grid.donors]

    def about(self) -> Unit:
        """What the report says and shows of the pair."""
        sides = {"corrupt": self.pair.corrupt, "clean": self.pair.clean}
        tensors = {name: side.recording.run.latents for name, side in sides.items()}
        tensors |= {f"{name}_frames": torch.from_numpy(side.recording.run.decode()[0]) for name, side in sides.items()}
        facts = PairFacts(
            axes={name: TENSOR_AXES[name] for name in tensors}, pair=self.name, kind=self.pair.kind, tried=self.pair.tried,
            sigmas=(*self.grid.target.recording.run.sigmas, 0.0), controls=tuple(sorted(self.grid.donors)),
            whole_state=whole_state(self.grid.model, self.pair),
            corrupt=_describe(self.pair.corrupt.problem), clean=_describe(self.pair.clean.problem),
        )  # fmt: skip
        return Unit([], tensors, facts)

    def at(self, step: int) -> Unit:
        """All cells of one step: rows, final latents, and the count of block calls against the minimum."""
        asked, model = self.cells(step), self.grid.model
        before = model.block_calls
        found = self.grid.measure(asked)
        ran = model.block_calls - before
        tensors = {"latents": torch.cat([cell.latent for cell in found])}
        if self.grid.judged:
            tensors["frames"] = torch.from_numpy(np.stack([cell.frames for cell in found]))
        axes = {name: TENSOR_AXES[name] for name in tensors}
        facts = StepFacts(axes=axes, block_calls=ran, block_calls_minimum=self.grid.minimal_blocks(asked))
        return Unit([self._row(cell) for cell in found], tensors, facts)

    def _row(self, found: Patched) -> Row:
        cell = found.cell
        return {
            "pair": self.name, "pair_kind": self.pair.kind, "span": self.grid.span, "donor": cell.donor, "site": cell.site,
            "step": cell.step, "layer": cell.layer, "head": cell.head, "group": cell.group, "frame": cell.frame,
            "sigma": found.sigma, "effect": found.effect, "outcome": found.outcome,
        }  # fmt: skip


def _others(recorder: Recorder, config: PatchingConfig, piece: Piece, target: Side) -> dict[str, Side]:
    """The donors of the controls: something else, and the target's own problem from another noise."""
    if piece.sides is not None:
        made = {} if piece.stranger is None else {"random": recorder(piece.stranger)}
        return made | {"same_prompt": recorder(replace(target.problem, seed=other_noises(target.problem.seed)[0]))}
    made = {"random": recorder(stranger(config.task, config.seed, piece.index))}
    again = same_answer(recorder, target)
    return made if again is None else made | {"same_answer": again}


def _describe(problem: Problem) -> SideFacts:
    item = problem.item
    about = {} if item is None else {"answer": item.answer, "item_seed": item.seed, "difficulty": item.difficulty}
    return SideFacts(prompt=problem.call["prompt"], seed=problem.seed, **about)


def find(recorder: Recorder, config: PatchingConfig, piece: Piece) -> Pair:
    """The recorded pair of a piece; NoPair when the model does not solve one, or makes one video of both sides of a file's."""
    if piece.sides is None:
        return find_pair(recorder, config.task, piece.kind, piece.index)
    clean, corrupt = (recorder(problem) for problem in piece.sides)
    if torch.equal(clean.recording.run.latents, corrupt.recording.run.latents):
        raise NoPair("the model makes the same video of both sides, so there is no difference to move along")
    return Pair(OWN, corrupt, clean)


# --- the experiment --------------------------------------------------------------------------------------------------


def work(model: HookedVideoPipeline, config: PatchingConfig, store: RunStore, piece: Piece) -> Iterator[str]:
    """Do what is missing of one pair; yields the name of each unit as it is on disk."""
    steps = (None, *chosen_steps(config, config.num_inference_steps))
    missing = {step for step in steps if store.unit(piece.unit(step)) is None}
    made = _prepared(model, config, piece) if missing else ""
    for step in steps:
        if step in missing:
            unit = _unit(made, step)
            store.add_unit(piece.unit(step), unit.rows, unit.tensors, unit.facts)
        yield piece.unit(step)


def _prepared(model: HookedVideoPipeline, config: PatchingConfig, piece: Piece) -> PairGrid | str:
    """A pair's grid, or the reason why there is none."""
    recorder = Recorder(model, config, [f"blocks.*.{site}" for site in config.sites if site != X_T])
    try:
        pair = find(recorder, config, piece)
    except NoPair as error:
        return str(error)
    return PairGrid.of(recorder, config, piece, pair)


def _unit(made: PairGrid | str, step: int | None) -> Unit:
    if isinstance(made, str):
        return Unit([], facts=LeftOut(reason=made) if step is None else Facts())
    return made.about() if step is None else made.at(step)


def possible_groups(task: str) -> list[str]:
    """Group names that the task ever uses (an item may lack some)."""
    names: dict[str, None] = {EVERYWHERE: None}
    for seed in range(40):
        item = TASKS[task].sample(seed)
        other = TASKS[task].counterfactual(item, "prompt", np.random.default_rng(seed))
        names |= dict.fromkeys(TASKS[task].groups(item, other or item))
    return list(names)


def check(config: PatchingConfig, model: HookedVideoPipeline) -> None:
    """InterpError when token groups, layers, heads or frames were asked for that there are not."""
    _known_groups(config)
    if config.pair_file is not None:
        check_calls(model, [side for sides in pair_file.read(Path(config.pair_file), config) for side in sides])
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
    if config.heads and not set(config.sites) & set(HEAD_SITES):
        raise InterpError(f"heads were given, and no site has heads: use --sites {HEAD_SITES[0]}")


def _known_groups(config: PatchingConfig) -> None:
    if config.tokens is None:
        return
    known = possible_groups(config.task) if config.pair_file is None else [EVERYWHERE]
    unknown = [group for group in config.tokens if group not in known]
    if unknown:
        whose = config.task if config.pair_file is None else "a pair of a file"
        raise InterpError(f"unknown token group {unknown[0]!r}; {whose} has {', '.join(known)}")


def finish(result: AnalysisResult) -> AnalysisResult:
    """Add what was counted; whole numbers stay whole where some rows have none."""
    steps = result.units_of(StepFacts).values()
    counts = {key: sum(getattr(step, key) for step in steps) for key in ("block_calls", "block_calls_minimum")}
    rows = result.rows if result.rows.empty else result.rows.astype({"layer": "Int64", "head": "Int64", "frame": "Int64"})
    return replace(result, rows=rows, facts={**result.facts, **counts})
