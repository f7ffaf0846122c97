"""Several seeds of each problem, run to the end and looked at on the way: by the scorer, by candidates, by a read-out.

The read-out is taught on the runs of one half of the items which seed of an item ends solved, and looks at the other half, both
ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d

from cos_interp.analyses.driver.experiment import Unit, from_others
from cos_interp.analyses.driver.kept import Clip, kept
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.kit import belief
from cos_interp.analyses.kit.candidates import Candidates, candidates
from cos_interp.analyses.kit.problems import Problem, chosen_steps, fits, generate, judge, problems
from cos_interp.analyses.kit.screening import look_score
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.analyses.seeds import SeedsConfig, SeedsFacts
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.trajectory import Run
from cos_interp.probes import LinearProbe
from cos_interp.tasks import Verdict
from cos_interp.tasks.scorer import answer_of, has_verdict, solved_of

READOUT = "readout"  # the unit of the read-out
CELLS = 5  # along each axis of a latent, that the read-out gets
LOOKS = 5  # steps, where none are said


@dataclass(frozen=True)
class Piece:
    """A problem, or, without one, the read-out."""

    problem: Problem | None = None

    @property
    def name(self) -> str:
        return READOUT if self.problem is None else self.problem.name


def pieces(config: SeedsConfig) -> list[tuple[Piece, list[str]]]:
    made = [*(Piece(problem) for problem in problems(config)), Piece()]
    return [(piece, [piece.name]) for piece in made]


def needs(config: SeedsConfig, piece: Piece) -> Sequence[str]:
    """The read-out is taught on the runs of all problems."""
    return [] if piece.problem is not None else [problem.name for problem in problems(config)]


def check(config: SeedsConfig, model: HookedVideoPipeline) -> None:
    fits(config, model)
    chosen_steps(config)
    found = problems(config)
    if not all(problem.judged for problem in found):
        raise InterpError("nobody says which of these runs are good: give --scorer or --scorer-cmd with --prompts, or --tasks")
    if len(found) < 2:
        raise InterpError("one problem: the read-out is taught on one half of the problems and looks at the other; give more")


def _made(model: HookedVideoPipeline, config: SeedsConfig, store: RunStore, piece: Piece) -> Unit:
    return _readout(config, store) if piece.problem is None else _looked_at(model, config, piece.problem)


# --- runs ------------------------------------------------------------------------------------------------------------


def _looked_at(model: HookedVideoPipeline, config: SeedsConfig, problem: Problem) -> Unit:
    """A row a seed and looked at step, and what the read-out gets, ``[noise, step, feature]``."""
    steps, rows, features, clips = chosen_steps(config, LOOKS), list[Row](), [], list[Clip]()
    for noise in range(config.noises):
        run = generate(model, config, problem, problem.noise(noise))
        clip = run.decode()[0]
        final = judge(problem, clip)
        among = candidates(model, problem.item, run.latents) if problem.item is not None else None
        about = {**problem.facts, "kind": "look", "noise": noise, "solved": solved_of(final), "answer": answer_of(final)}
        rows += [{**about, "step": step, "sigma": run.sigmas[step], **_look(problem, run, step, among)} for step in steps]
        features.append(torch.stack([pooled(run.x0hat[step]) for step in steps]))
        if problem.kept(clip.nbytes):
            clips.append((f"seed {noise}", len(rows) - 1, clip))
    tensors, kept_of = kept(clips)
    axes = {"features": ("noise", "look", "feature"), **kept_of.get("axes", {})}
    facts = SeedsFacts(sigmas=tuple(run.sigmas), prompt=problem.call["prompt"], **kept_of | {"axes": axes})
    return Unit(rows, {"features": torch.stack(features), **tensors}, facts)


def _look(problem: Problem, run: Run, step: int, among: Candidates | None) -> Row:
    """What is seen of the clean estimate of a step."""
    verdict = judge(problem, run.decode(step)[0])
    held = None if among is None else candidate_score(run.x0hat[step], among)
    seen = verdict is not None and has_verdict(verdict)
    return {"scorer": scorer_score(problem, verdict) if verdict is not None and seen else None, "candidates": held}


def scorer_score(problem: Problem, verdict: Verdict) -> float:
    """How promising an estimate looks to the scorer: 1 solved, 0 wrong, in between where it is undecided."""
    return look_score(verdict) if problem.item is not None else 0.5 if verdict.status == "undecided" else float(verdict.solved)


def candidate_score(x0hat: Tensor, among: Candidates) -> float:
    """The largest weight of a right answer in an estimate, by least squares (none negative, sum 1) on the latents of all right
    answers and of a video in which nothing happens, minus the share of the estimate that these leave unexplained."""
    rows = torch.cat([among.nothing[None], among.latents])
    found = belief.shares(x0hat, rows)
    left = x0hat.double().flatten() - found @ rows.double().flatten(1).to(found)
    return float(found[1:].max() - left.norm() / x0hat.double().norm())


def pooled(latent: Tensor) -> Tensor:
    """``[1, channel, frame, row, col]`` as one row of features, means over at most CELLS cells along each axis."""
    frames, rows, cols = (min(CELLS, n) for n in latent.shape[2:])
    return adaptive_avg_pool3d(latent.detach().cpu().float(), (frames, rows, cols)).flatten()


# --- the read-out ----------------------------------------------------------------------------------------------------


def _readout(config: SeedsConfig, store: RunStore) -> Unit:
    """What a read-out says of every run that is not of its own half, at every looked at step; ``shuffled``: one taught with the
    outcomes of other runs of the same half. Items without a verdict on one of their seeds are left out."""
    outcomes = {p.name: {row["noise"]: row["solved"] for row in store.finished(p.name)[0]} for p in problems(config)}
    found = [problem for problem in problems(config) if None not in outcomes[problem.name].values()]
    if not found:
        raise InterpError("no item has a verdict on all of its seeds: seeds needs a --scorer that says solved or wrong")
    features = torch.stack([store.tensors(problem.name)["features"] for problem in found]).numpy()
    solved = np.array([[outcomes[problem.name][noise] for noise in range(config.noises)] for problem in found], float)
    half = np.arange(len(found)) % 2
    rows: list[Row] = []
    for place, step in enumerate(chosen_steps(config, LOOKS)):
        seeds = [seed_for("shuffled labels", *config.about, step, side) for side in (0, 1)]
        said = read_out(features[:, :, place], solved, half, config.components)
        placebo = read_out(features[:, :, place], solved, half, config.components, seeds)
        rows += [
            {**problem.facts, "kind": READOUT, "step": step, "noise": noise, "latent": said[i, noise],
             "shuffled": placebo[i, noise]}
            for i, problem in enumerate(found) for noise in range(config.noises)
        ]  # fmt: skip
    return Unit(rows)


def read_out(
    features: np.ndarray, solved: np.ndarray, half: np.ndarray, components: int, shuffle: Sequence[int] | None = None
) -> np.ndarray:
    """Scores ``[item, noise]`` of runs by a linear read-out taught on the items of the other ``half [item]`` (0 or 1).

    ``features [item, noise, feature]``, of which each item's own mean is taken off, so that it is asked which seed is good and
    not which item is easy; ``solved [item, noise]``. ``shuffle``: a seed a half, by which the taught outcomes are mixed. Where
    all runs that it is taught on end alike there is nothing to learn, and every run has 0.
    """
    own = features - features.mean(1, keepdims=True)
    out = np.zeros(solved.shape)
    for side in (0, 1):
        taught, asked = half != side, half == side
        labels = solved[taught].ravel().astype(int)
        if shuffle is not None:
            labels = np.random.default_rng(shuffle[side]).permutation(labels)
        if len(np.unique(labels)) == 2 and asked.any():
            probe = LinearProbe("pca+logistic", strength=1.0, components=components)
            probe.fit(own[taught].reshape(len(labels), -1), labels)
            out[asked] = probe.decision_function(own[asked].reshape(-1, own.shape[-1])).reshape(-1, solved.shape[1])
    return out


work = from_others(_made)
