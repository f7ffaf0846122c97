"""What a clean estimate holds possible, step by step, beside what an ideal observer of the same state does.

The estimate of a denoiser that was trained on all answers is their mean under the posterior, so its weights of the candidates, by
least squares, are that posterior if the denoiser is ideal. Uniform weights, all on one candidate, and the posterior of another
noise's run stand beside it: beliefs that use less of x_t.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.facts import LeftOut
from cos_interp.analyses.driver.kept import Clip, kept
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit import belief
from cos_interp.analyses.kit.choices import Choices, NoChoice, check_choices, choices, each_choice, runs_of
from cos_interp.analyses.kit.problems import Problem, spread
from cos_interp.analyses.posterior import PosteriorConfig, PosteriorFacts
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.prediction import signal
from cos_interp.interp.trajectory import Run

SHOWN = 6  # steps whose clean estimate can be seen
NOISES = 2  # runs of a problem at least: another noise's belief stands beside


def row_of(x0hat: Tensor, x_t: Tensor, other_x_t: Tensor, among: Tensor, ends: int, sigma: float, alpha: float) -> Row:
    """One step. ``among [candidate, ...]``; ``other_x_t``: another noise's state at that step; ``ends``: the final candidate.

    ``model`` and ``bayes``: effective number of candidates. ``apart``: total variation between the two, ``apart_affine`` with
    weights that may be negative, cut at 0. ``none``, ``sure`` and
    ``other``: the same of a uniform belief, of one that is sure of the likeliest candidate, and of the other noise's posterior.
    ``margin``: standard deviations to where the likeliest changes. ``named_*``: is the likeliest the final one?
    """
    shares, affine = belief.shares(x0hat, among), belief.clipped(belief.weights(x0hat, among))
    exact = belief.bayes_posterior(x_t, among, sigma, alpha)
    uniform, sure = torch.full_like(exact, 1 / len(among)), torch.zeros_like(exact)
    sure[belief.pick(x_t, among, sigma, alpha)] = 1
    elsewhere = belief.bayes_posterior(other_x_t, among, sigma, alpha)
    return {
        "model": belief.effective(shares), "bayes": belief.effective(exact), "candidates": len(among),
        "apart": belief.total_variation(shares, exact), "apart_affine": belief.total_variation(affine, exact),
        "none": belief.total_variation(uniform, exact),
        "sure": belief.total_variation(sure, exact), "other": belief.total_variation(elsewhere, exact),
        "margin": belief.margin(x_t, among, sigma, alpha), "weight": float(shares[ends]), "bayes_weight": float(exact[ends]),
        "named_model": int(shares.argmax()) == ends, "named_bayes": int(sure.argmax()) == ends,
    }  # fmt: skip


def rows_of(run: Run, other: Run, among: Choices, ends: int, alphas: Sequence[float]) -> list[Row]:
    """A row a step of a run, beside another noise's."""
    return [
        {"step": k, "sigma": sigma, **row_of(run.x0hat[k], run.x_t[k], other.x_t[k], among.latents, ends, sigma, alphas[k])}
        for k, sigma in enumerate(run.sigmas)
    ]


def measure(model: HookedVideoPipeline, config: PosteriorConfig, problem: Problem) -> Unit:
    runs = runs_of(model, config, problem, NOISES)
    try:
        among = choices(model, config, problem, runs)
    except NoChoice as error:
        return Unit([], facts=LeftOut(reason=str(error)))
    run, other = runs[:2]
    final = run.decode()[0]
    given, status = among.read(problem, run.latents, final)
    ends = among.nearest(run.latents) if given is None else given
    found = rows_of(run, other, among, ends, signal(model.pipe.scheduler, run.sigmas))
    about = {**problem.facts, "status": status, "ends": among.names[ends]}
    tensors, kept_of = kept([*estimates(run), ("final video", run.steps - 1, final)] if problem.kept(final.nbytes) else [])
    facts = PosteriorFacts(sigmas=tuple(run.sigmas), prompt=problem.call["prompt"], **kept_of)
    return Unit([{**about, **row} for row in found], tensors, facts)


def estimates(run: Run) -> Iterator[Clip]:
    """The clean estimates of spread steps as videos."""
    for step in spread(run.steps, SHOWN):
        yield f"step {step}", step, run.decode(step)[0]


pieces = each_choice
work = each_unit(measure)
check = check_choices
