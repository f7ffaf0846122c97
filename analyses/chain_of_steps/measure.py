"""Chain-of-Steps: the verifier's accuracy on the clean estimate of every step (CoS section 3.1, the headline).

Beside it, for items with several right answers, how many of them the estimate shows, by least squares on their latents: the
verifier reads one answer or none, and a blend of two is none to it. And a sweep over the number of steps: within one run serial
evaluations and noise levels go together. And videos of fewer frames, against the same frames of whole ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cos_interp.analyses.chain_of_steps import ChainOfStepsConfig, StepsFacts, files
from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.facts import PIXELS, RunFacts
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit import belief
from cos_interp.analyses.kit.candidates import Candidates, candidates
from cos_interp.analyses.kit.problems import Problem, arguments, fits, generate, item_of, judge, problems, verdict_columns
from cos_interp.analyses.kit.readings import clean_videos, read_steps, right_from_first
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.trajectory import Run
from cos_interp.tasks import grid

Piece = tuple[str, Problem, int] | files.Place  # "steps", "sweep" or "fewer", a problem, the number of its noise; or of files
SWEEP = (1, 2, 4, 8, 20, 50)  # numbers of steps
FEWER = grid.FRAMES // 2 + 1  # frames: 5 of 9, with which every autoencoder that takes nine begins whole latent frames
MOVE = (1, 2)  # rows and columns by which the rest of an estimate is moved for the control


def modelless(config: ChainOfStepsConfig) -> bool:
    return config.from_steps is not None


def pieces(config: ChainOfStepsConfig) -> list[tuple[Piece, list[str]]]:
    if config.from_steps is not None:
        return [(place, [place.name]) for place in files.places(config)]
    asked = problems(config)
    found: list[Piece] = [("steps", p, noise) for p in asked for noise in range(config.noises)]
    found += [("sweep", p, 0) for p in asked if p.item is not None and p.index < config.sweep_items]
    found += [("fewer", p, 0) for p in asked if p.item is not None and p.index < config.fewer_items]
    return [(piece, [_name(piece)]) for piece in found]


def _name(piece: Piece) -> str:
    if isinstance(piece, files.Place):
        return piece.name
    what, problem, noise = piece
    return f"{problem.name}-noise-{noise}" if what == "steps" else f"{problem.name}-{what}"


def measure(model: HookedVideoPipeline, config: ChainOfStepsConfig, piece: Piece) -> Unit:
    if isinstance(piece, files.Place):
        return files.measure(config, piece)
    what, problem, noise = piece
    if what == "steps":
        return _steps(model, config, problem, noise)
    return _sweep(model, config, problem) if what == "sweep" else _fewer(model, config, problem)


def _steps(model: HookedVideoPipeline, config: ChainOfStepsConfig, problem: Problem, noise: int) -> Unit:
    run = generate(model, config, problem, problem.noise(noise))
    clips, among = clean_videos(model, run), _among(model, problem, run)
    beside = [{}] * (run.steps + 1) if among is None else believed(run, among)
    about = {**problem.facts, "kind": "steps", "noise": noise}
    rows = [{**about, **read, **more} for read, more in zip(read_steps(problem, clips, run), beside, strict=True)]
    facts = RunFacts(sigmas=tuple(run.sigmas), prompt=problem.call["prompt"])
    if not (problem.shown and noise == 0):
        return Unit(rows, facts=facts)
    kept = {"frames": torch.from_numpy(clips)}
    axes: dict[str, tuple[str, ...]] = {"frames": ("step", *PIXELS)}
    if among is not None:
        kept |= {"weights": weighed(run, among)}
        axes |= {"weights": ("step", "answer")}
    return Unit(rows, kept, StepsFacts(**{**dict(facts), "axes": axes, "answers": among.answers if among else ()}))


def _sweep(model: HookedVideoPipeline, config: ChainOfStepsConfig, problem: Problem) -> Unit:
    """The verdict on the videos that as many steps make of one noise."""
    rows = []
    for count in SWEEP:
        run = generate(model, config.model_copy(update={"num_inference_steps": count}), problem)
        rows.append({**problem.facts, "kind": "sweep", "num_steps": count, **verdict_columns(judge(problem, run.decode()[0]))})
    return Unit(rows)


def _fewer(model: HookedVideoPipeline, config: ChainOfStepsConfig, problem: Problem) -> Unit:
    """Are the first frames right in the whole video, in that of another noise, and in a video of so many frames from that one?"""
    other = arguments(model, config, problem, problem.noise(1))
    calls = {"whole": arguments(model, config, problem), "other": other, "fewer": other | {"num_frames": FEWER}}
    clips = {name: model.run(**call).decode()[0][:FEWER] for name, call in calls.items()}
    right = {name: right_from_first(item_of(problem), clip) == FEWER for name, clip in clips.items()}
    return Unit([{**problem.facts, "kind": "fewer", "frames": FEWER, **right}])


# --- candidates ------------------------------------------------------------------------------------------------------


def _among(model: HookedVideoPipeline, problem: Problem, run: Run) -> Candidates | None:
    """The right answers of an item that has several."""
    item = problem.item
    return None if item is None or item.unique else candidates(model, item, run.latents)


def weighed(run: Run, among: Candidates) -> Tensor:
    """The share ``[step, answer]`` of each right answer in the clean estimates and in the final latent."""
    return torch.stack([belief.shares(estimate, among.latents) for estimate in (*run.x0hat, run.latents)]).float()


def believed(run: Run, among: Candidates) -> list[Row]:
    """How many right answers each clean estimate shows, and how many an ideal observer of x_t holds possible.

    ``shown``: see :func:`belief.shown`. ``one``, the control: the same of the answer that the run ends nearest to, with the
    estimate's own rest laid over it, moved so that it fits no answer: what noise in an estimate adds to the number of one.
    ``bayes``: the effective number of the exact posterior. ``apart``: total variation between the shares shown and the posterior.
    """
    ends = among.latents[(among.latents - run.latents).flatten(1).norm(dim=1).argmin()]
    rows = []
    for step in range(run.steps + 1):
        last = step == run.steps
        estimate, sigma = (run.latents, 0.0) if last else (run.x0hat[step], run.sigmas[step])
        posterior = belief.bayes_posterior(run.latents if last else run.x_t[step], among.latents, sigma)
        alone = ends + rest(estimate[0], among).roll(MOVE, (-2, -1))
        shares = belief.clipped(belief.weights(estimate, among.latents))
        rows.append({
            "shown": belief.shown(estimate, among.latents, among.nothing),
            "one": belief.shown(alone, among.latents, among.nothing),
            "bayes": belief.effective(posterior), "apart": belief.total_variation(shares, posterior),
        })  # fmt: skip
    return rows


def rest(estimate: Tensor, among: Candidates) -> Tensor:
    """What of an estimate ``[channel, frame, row, col]`` no mixture of the answers and of the video without one explains."""
    rows = torch.cat([among.nothing[None], among.latents])
    mixed = torch.einsum("k,kcfxy->cfxy", belief.weights(estimate, rows).to(rows), rows)
    return estimate - mixed


work = each_unit(measure, _name)


def check(config: ChainOfStepsConfig, model: HookedVideoPipeline) -> None:
    if modelless(config):
        files.check(config)
    else:
        fits(config, model)
