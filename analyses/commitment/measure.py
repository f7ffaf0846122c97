"""At which step is the plan chosen? Re-noising from the clean estimate, transplants between runs, and early looks.

Re-noising: from x0hat at step k, with fresh noise at the same sigma, the run is finished. What still comes out the same was
fixed at k; what two independent noises have in common was fixed by the problem (the chance level).
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from cos_interp.analyses.commitment import CommitmentConfig
from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.statistics import distance, projection
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.pairs import NoPair, find_pair, record_item
from cos_interp.analyses.kit.problems import Problem, chosen_steps, generate, judge, needs_flow, problems, spread
from cos_interp.analyses.kit.screening import look_score
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patching import Patch, replay, restart
from cos_interp.interp.trajectory import Run
from cos_interp.tasks import TASKS, Verdict
from cos_interp.tasks.base import outcome

DRAWS = 2  # fresh noises a re-noised step
Piece = tuple[str, Problem | tuple[str, int]]  # ("problem", problem) or ("pair", (task, index))


def renoised(x0hat: Tensor, sigma: float, noise: Tensor) -> Tensor:
    """``(1 - sigma) x0hat + sigma noise``: a state at the same sigma whose only memory is the clean estimate."""
    return (1 - sigma) * x0hat + sigma * noise


def same(first: Verdict | None, second: Verdict | None) -> bool:
    """Both are readable and give one answer."""
    if first is None or second is None or "undecided" in (first.status, second.status):
        return False
    return first.answer == second.answer


def pieces(config: CommitmentConfig) -> list[tuple[Piece, list[str]]]:
    found: list[Piece] = [("problem", p) for p in problems(config)]
    if config.prompts is None:
        found += [("pair", (t, i)) for t in config.tasks if TASKS[t].several_answers for i in range(config.pairs)]
    return [(piece, [_name(piece)]) for piece in found]


def _name(piece: Piece) -> str:
    kind, what = piece
    return what.name if kind == "problem" else f"pair-{what[0]}-{what[1]:02d}"


def measure(model: HookedVideoPipeline, config: CommitmentConfig, piece: Piece) -> Unit:
    kind, what = piece
    return _problem(model, config, what) if kind == "problem" else _transplants(model, config, *what)


def _problem(model: HookedVideoPipeline, config: CommitmentConfig, problem: Problem) -> Unit:
    runs = [generate(model, config, problem, problem.noise(n)) for n in range(config.noises)]
    finals = [judge(problem, run.decode()[0]) for run in runs]
    steps = chosen_steps(config)
    rows = [*_renoise(model, problem, runs[0], finals[0], steps), *_independent(runs, finals)]
    if problem.item is not None:
        rows += [row for n, run in enumerate(runs) for row in _looks(model, problem, run, finals[n], n, steps)]
    return Unit([{**problem.facts, **row} for row in rows], facts={"sigmas": runs[0].sigmas})


def _renoise(model: HookedVideoPipeline, problem: Problem, run: Run, final: Verdict | None, steps: tuple[int, ...]) -> list[Row]:
    rows = []
    for step in steps:
        generator = torch.Generator().manual_seed(seed_for("renoising", problem.seed, step))
        x0hat = run.x0hat[step]
        noise = torch.randn((DRAWS, *x0hat.shape[1:]), generator=generator).to(x0hat)
        again = restart(model, run, step, renoised(x0hat, run.sigmas[step], noise)).latents
        clips = model.decode(again)
        for draw in range(DRAWS):
            verdict = judge(problem, clips[draw])
            rows.append({
                "kind": "renoise", "step": step, "sigma": run.sigmas[step], "same": same(final, verdict), "draw": draw,
                "distance": distance(again[draw : draw + 1], run.latents), "solved": bool(verdict and verdict.solved),
            })  # fmt: skip
    return rows


def _independent(runs: list[Run], finals: list[Verdict | None]) -> list[Row]:
    return [
        {"kind": "independent", "same": same(finals[a], finals[b]), "distance": distance(runs[a].latents, runs[b].latents)}
        for a, b in combinations(range(len(runs)), 2)
    ]


def _looks(
    model: HookedVideoPipeline, problem: Problem, run: Run, final: Verdict, noise: int, steps: tuple[int, ...]
) -> list[Row]:
    clips = model.decode(torch.cat([run.x0hat[k] for k in steps]))
    return [
        {
            "kind": "look", "noise": noise, "step": step, "sigma": run.sigmas[step],
            "score": look_score(judge(problem, clip)), "solved": final.solved,
        }
        for step, clip in zip(steps, clips, strict=True)
    ]  # fmt: skip


def _transplants(model: HookedVideoPipeline, config: CommitmentConfig, task: str, index: int) -> Unit:
    """x_t of token groups, all of x_t, and layer states of a run with another right answer, put in at one step."""
    generation = {"num_inference_steps": config.num_inference_steps, "guidance_scale": config.guidance_scale}
    name = f"pair-{task}-{index:02d}"
    try:
        pair = find_pair(model, task, "seed", index, config.seed, **generation)
    except NoPair as error:
        return Unit([], facts={"sigmas": [], "missing": str(error)})
    layers = sorted({0, model.layers // 2, model.layers - 1})
    sites = [f"blocks.{layer}.hook_resid_post" for layer in layers]
    target = record_item(model, pair.corrupt, pair.corrupt_seed, sites, **generation)
    donor = record_item(model, pair.clean, pair.clean_seed, sites, **generation)
    groups = {g: torch.from_numpy(m) for g, m in pair.task.groups(pair.corrupt, pair.clean).items()}
    rows = []
    for step in spread(config.num_inference_steps, 5):
        cells = [("hook_x_t", group, mask) for group, mask in [("all", None), *groups.items()]]
        cells += [(site, "all", None) for site in sites]
        branches = target.run.branches
        for site, group, mask in cells:
            latent = replay(model, target, [Patch(site, (step,), donor.donor(site), branches, mask)])
            rows.append({
                "problem": name, "task": task, "difficulty": pair.corrupt.difficulty, "unique": False, "kind": "transplant",
                "step": step, "sigma": target.run.sigmas[step], "site": site, "group": group,
                "effect": projection(latent, target.run.latents, donor.run.latents),
                "outcome": outcome(pair.task, pair.corrupt, pair.clean, model.decode(latent)[0]),
            })  # fmt: skip
    return Unit(rows, facts={"sigmas": target.run.sigmas})


work = each_unit(measure, _name)
check = needs_flow
