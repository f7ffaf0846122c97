"""At which step is the plan chosen? Re-noising from the clean estimate, transplants between runs, and early looks.

Re-noising: from x0hat at step k, with fresh noise at the same sigma, the run is finished. What still comes out the same was
fixed at k; what two independent noises have in common was fixed by the problem (the chance level). Items with one right answer
leave nothing to choose, so they are not re-noised. At sigma 1 the re-noised state is the fresh noise itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.commitment import CommitmentConfig, CommitmentFacts
from cos_interp.analyses.commitment.transplants import recorder, transplants
from cos_interp.analyses.driver.experiment import Unit, from_others
from cos_interp.analyses.driver.facts import LeftOut, RunFacts
from cos_interp.analyses.driver.kept import Clip, kept
from cos_interp.analyses.driver.statistics import distance
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.kit import belief
from cos_interp.analyses.kit.candidates import Candidates, candidates
from cos_interp.analyses.kit.grid import EVERYWHERE, Grid
from cos_interp.analyses.kit.pairs import NoPair, find_pair
from cos_interp.analyses.kit.problems import Problem, chosen_steps, generate, judge, needs_flow, problems, spread, verdict_of
from cos_interp.analyses.kit.screening import look_score
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patching import restart
from cos_interp.interp.trajectory import Run
from cos_interp.tasks import TASKS, Verdict, get_task
from cos_interp.tasks.scorer import same_answer, solved_of

DRAWS = 3  # fresh noises a re-noised step
EARLY = 1 / 3  # of the steps, or of the way from sigma 1 to 0: what "early" means
Piece = tuple[str, Problem | tuple[str, int]]  # ("problem", problem) or ("pair", (task, index))


def renoised(x0hat: Tensor, sigma: float, noise: Tensor) -> Tensor:
    """``(1 - sigma) x0hat + sigma noise``: a state at the same sigma whose only memory is the clean estimate."""
    return (1 - sigma) * x0hat + sigma * noise


def early_step(steps: Sequence[int], sigmas: Sequence[float], by: str) -> int | None:
    """The last of some steps that is early, by its share of all ``steps`` or by its ``sigma``; None where none is."""
    within = [k for k in steps if (k <= EARLY * len(sigmas) if by == "steps" else sigmas[k] >= 1 - EARLY)]
    return max(within, default=None)


def steps_of(config: CommitmentConfig, sigmas: Sequence[float]) -> tuple[int, ...]:
    """The tested steps: what was asked, or spread ones and the two that end what is early."""
    if config.steps is not None:
        return chosen_steps(config)
    ends = [early_step(range(len(sigmas)), sigmas, by) for by in ("steps", "sigma")]
    return tuple(sorted({*spread(len(sigmas)), *(k for k in ends if k is not None)}))


def pieces(config: CommitmentConfig) -> list[tuple[Piece, list[str]]]:
    found: list[Piece] = [("problem", p) for p in problems(config)]
    if config.prompts is None:
        found += [("pair", (t, i)) for t in config.task_names if TASKS[t].several_answers for i in range(config.pairs)]
    return [(piece, [_name(piece)]) for piece in found]


def _name(piece: Piece) -> str:
    what = piece[1]
    return what.name if isinstance(what, Problem) else f"pair-{what[0]}-{what[1]:02d}"


def measure(model: HookedVideoPipeline, config: CommitmentConfig, store: RunStore, piece: Piece) -> Unit:
    what = piece[1]
    return _problem(model, config, what) if isinstance(what, Problem) else _transplants(model, config, store, *what)


def _problem(model: HookedVideoPipeline, config: CommitmentConfig, problem: Problem) -> Unit:
    runs = [generate(model, config, problem, problem.noise(n)) for n in range(config.noises)]
    ends = [run.decode()[0] for run in runs]
    finals = [judge(problem, end) for end in ends]
    steps = steps_of(config, runs[0].sigmas)
    rows, clips = _independent(runs, finals), list[Clip]()
    if problem.item is None or not problem.item.unique:
        for row, clip in _renoise(model, problem, runs[0], finals[0], steps):
            if row["draw"] == 0 and problem.kept(clip.nbytes):
                clips.append((f"re-noised at step {row['step']}", len(rows), clip))
            rows.append(row)
    if problem.item is not None:
        rows += [row for n, run in enumerate(runs) for row in _looks(model, problem, run, finals[n], n, steps)]
    tensors, kept_of = kept([*clips, ("the run", None, ends[0])] if clips else [])
    facts = CommitmentFacts(sigmas=tuple(runs[0].sigmas), prompt=problem.call["prompt"], **kept_of)
    return Unit([{**problem.facts, **row} for row in rows], tensors, facts)


def _renoise(
    model: HookedVideoPipeline, problem: Problem, run: Run, final: Verdict | None, steps: tuple[int, ...]
) -> Iterator[tuple[Row, np.ndarray]]:
    """A row a re-noised run, with its clip."""
    among = candidates(model, problem.item, run.latents) if problem.item is not None else None
    for step in steps:
        seen = {} if among is None else _observed(among, run, step, final)
        generator = torch.Generator().manual_seed(seed_for("renoising", problem.seed, step))
        x0hat = run.x0hat[step]
        noise = torch.randn((DRAWS, *x0hat.shape[1:]), generator=generator).to(x0hat)
        again = restart(model, run, step, renoised(x0hat, run.sigmas[step], noise)).latents
        clips = model.decode(again)
        for draw in range(DRAWS):
            verdict = judge(problem, clips[draw])
            yield {
                "kind": "renoise", "step": step, "sigma": run.sigmas[step], "same": same_answer(final, verdict), "draw": draw,
                "distance": distance(again[draw : draw + 1], run.latents), "solved": solved_of(verdict),
                "eligible": bool(final and final.solved), **seen,
                **({} if among is None else {"outlasts": outlasts(among, run, step, final, noise[draw : draw + 1])}),
            }, clips[draw]  # fmt: skip


def _observed(among: Candidates, run: Run, step: int, final: Verdict | None) -> Row:
    """What an ideal observer of x_t makes of it: how firmly it stands for an answer, and whether that is the run's."""
    x_t, sigma = run.x_t[step], run.sigmas[step]
    named = among.answers[belief.pick(x_t, among.latents, sigma)]
    return {"margin": belief.margin(x_t, among.latents, sigma), "named": final is not None and named == final.answer}


def outlasts(among: Candidates, run: Run, step: int, final: Verdict | None, noise: Tensor) -> bool:
    """Whether an answer that was chosen would be told from its re-noised state: an ideal observer names it from the run's own
    final latent, noised anew at a step. No model that sees such a state alone can name it more often."""
    state = renoised(run.latents, run.sigmas[step], noise)
    return final is not None and among.answers[belief.pick(state, among.latents, run.sigmas[step])] == final.answer


def _independent(runs: list[Run], finals: list[Verdict | None]) -> list[Row]:
    return [
        {"kind": "independent", "same": same_answer(finals[a], finals[b]), "distance": distance(runs[a].latents, runs[b].latents)}
        for a, b in combinations(range(len(runs)), 2)
    ]


def _looks(
    model: HookedVideoPipeline, problem: Problem, run: Run, final: Verdict | None, noise: int, steps: tuple[int, ...]
) -> list[Row]:
    """What early looks see: ``score`` asks the verifier, ``settled`` only how little the estimate moved in the last step."""
    clips = model.decode(torch.cat([run.x0hat[k] for k in steps]))
    return [
        {
            "kind": "look", "noise": noise, "step": step, "sigma": run.sigmas[step],
            "score": look_score(verdict_of(problem, clip)), "settled": settled(run, step),
            "solved": solved_of(final),
        }
        for step, clip in zip(steps, clips, strict=True)
    ]  # fmt: skip


def settled(run: Run, step: int) -> float:
    """Minus the distance of a clean estimate from the one before it; 0 at step 0, where all runs look the same."""
    return -distance(run.x0hat[step - 1], run.x0hat[step]) if step else 0.0


def _transplants(model: HookedVideoPipeline, config: CommitmentConfig, store: RunStore, task: str, index: int) -> Unit:
    """x_t of token groups, all of x_t, and layer states of a run with another right answer, put in at one step."""
    try:
        pair = find_pair(recorder(model, config, store), task, "seed", index)
    except NoPair as error:
        return Unit([], facts=LeftOut(reason=str(error)))
    item, sigmas = pair.corrupt.item, tuple(pair.corrupt.recording.run.sigmas)
    groups = {g: torch.from_numpy(m) for g, m in get_task(task).groups(item, pair.clean.item).items()}
    grid = Grid(model, pair.corrupt, pair.clean, masks={EVERYWHERE: None, **groups})
    about = {"problem": _name(("pair", (task, index))), "task": task, "difficulty": item.difficulty, "unique": False}
    rows = []
    for cells in transplants(config.num_inference_steps, model.layers, list(grid.masks)):
        rows += [
            {
                **about, "kind": "transplant", "step": found.cell.step, "sigma": found.sigma, "site": found.cell.hook,
                "group": found.cell.group, "effect": found.effect, "outcome": found.outcome,
            }
            for found in grid.measure(cells)
        ]  # fmt: skip
    return Unit(rows, facts=RunFacts(sigmas=sigmas, prompt=pair.corrupt.problem.call["prompt"]))


work = from_others(measure, _name)
check = needs_flow
