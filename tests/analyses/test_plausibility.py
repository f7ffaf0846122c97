"""Plausibility: pairs that break one rule, losses that are what they say, and a verdict that needs more than the baselines."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cos_interp.analyses.driver import experiment
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.kit.problems import items
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.analyses.plausibility import PlausibilityConfig
from cos_interp.analyses.plausibility.measure import best_guess, measure, surprise
from cos_interp.analyses.plausibility.pairs import clip_pairs
from cos_interp.analyses.plausibility.report import findings, outcomes
from cos_interp.interp import InterpError
from cos_interp.interp.encoding import encode
from cos_interp.tasks import TASKS, reader
from cos_interp.tasks.bounce import BALLS
from cos_interp.tasks.video import encode_mp4

CONFIG = PlausibilityConfig(items=12)


def test_an_impossible_clip_breaks_one_rule_and_nothing_else():
    of = {problem.name: problem.item for problem in items(CONFIG)}
    found = clip_pairs(CONFIG)
    assert {pair.task for pair in found} == {"bounce", "occlusion"} and len(found) > 18
    for pair in found:
        item = of[pair.name]
        cells = reader.read(pair.impossible(None))
        assert (cells[:4] == item.cells[:4]).all(1).all() or pair.task == "occlusion"
        assert (cells[0] == item.cells[0]).all() and (cells >= 0).all()
        assert TASKS[pair.task].verify(item, pair.possible(None)).solved
        verdict = TASKS[pair.task].verify(item, pair.impossible(None))
        assert verdict.error in {"bounce": ("wrong path",), "occlusion": ("wrong identity",)}[pair.task]
        if pair.task == "bounce":  # a diagonal step at every frame, on one ball, off the walls
            at = [np.argwhere(np.isin(frame, list(BALLS))) for frame in cells]
            assert all(len(one) == 1 for one in at)
            assert all((np.abs(b - a) == 1).all() for a, b in zip(at, at[1:], strict=False))


def rows(model: float, autoencoder: float, noise: float, count: int = 40) -> pd.DataFrame:
    """Pairs of which such shares have the larger value on the impossible side, for the model and each baseline."""
    found = []
    for number in range(count):
        for kind, share in (("model", model), ("autoencoder", autoencoder), ("noise", noise)):
            larger = (number * 7) % count < share * count
            about = {"problem": f"p{number:03d}", "task": "bounce", "kind": kind}
            found.append({**about, "possible": 1.0, "impossible": 1.5 if larger else 0.5})
    return pd.DataFrame(found)


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        ((1.0, 0.5, 0.5), "reproduced"),
        ((0.5, 0.5, 0.5), "refuted"),
        ((1.0, 0.5, 1.0), "refuted"),  # a baseline that knows no model says as much
        ((0.75, 0.5, 0.25), "undecided"),
    ],
)
def test_a_verdict_needs_more_than_the_better_baseline(shares, verdict):
    made = rows(*shares)
    [finding] = findings(AnalysisResult("plausibility", CONFIG, made), made)
    assert finding.verdict == verdict
    assert finding.number.value == pytest.approx(shares[0] - max(shares[1:]), abs=1e-9)


def test_losses_are_those_of_plain_forwards_and_a_clip_against_itself_is_nothing(organism):
    config = CONFIG.model_copy(update={"num_inference_steps": 3, "noises": 1, "steps": (1,)})
    pair = clip_pairs(config)[0]
    unit = measure(organism, config, pair)
    own = next(row for row in unit.rows if row["kind"] == "model")
    clean = encode(organism, pair.impossible(organism)[None])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed_for("surprise", pair.seed, 0)))
    item = next(problem.item for problem in items(config) if problem.name == pair.name)
    call = {"prompt": pair.prompt, "image": Image.fromarray(item.first_frame), "seed": 9}
    call |= {"num_inference_steps": 3, "guidance_scale": 1.0}
    sigma = organism.run(**call).sigmas[1]
    state = (1 - sigma) * clean + sigma * noise
    run = organism.run_with_hooks(fwd_hooks=[("hook_x_t @ step=1", lambda x_t, hook: state)], **call)
    assert own["impossible"] == pytest.approx(float((run.v[1] - (noise - clean)).square().mean()), rel=1e-5)
    same = measure(organism, config, dataclasses.replace(pair, impossible=pair.possible))
    assert all(row["possible"] == row["impossible"] for row in same.rows)
    assert not outcomes(pd.DataFrame(same.rows)).to_numpy().any()


@pytest.mark.parametrize("kind", ["model", "autoencoder", "noise"])
def test_a_pair_without_a_loss_does_not_count(kind):
    table = rows(0.9, 0.5, 0.5)
    for pairs, n, verdict in ((["p003"], 39, "reproduced"), (table.problem.unique(), 0, "not testable")):
        lost = table.assign(impossible=table.impossible.where(~(table.problem.isin(pairs) & (table.kind == kind))))
        (found,) = findings(AnalysisResult("plausibility", CONFIG, lost), lost)
        assert (found.number.n, found.verdict) == (n, verdict)


def test_one_clip_twice_refutes_nothing():
    """Placebo: neither of two equal clips can surprise more. A single loss that is equal in both says no more than it did."""
    table = rows(0.9, 0.5, 0.5)
    (found,) = findings(AnalysisResult("plausibility", CONFIG, table), table.assign(impossible=table.possible))
    assert (found.verdict, found.number.n, found.why) == ("not testable", 0, "the two clips of every pair are the same")
    some = table.problem.isin(["p001", "p002"])
    (found,) = findings(
        AnalysisResult("plausibility", CONFIG, table), table.assign(impossible=table.impossible.mask(some, table.possible))
    )
    assert (found.verdict, found.number.n) == ("reproduced", 38)
    some &= table.kind == "noise"
    (found,) = findings(
        AnalysisResult("plausibility", CONFIG, table), table.assign(impossible=table.impossible.mask(some, table.possible))
    )
    assert found.number.n == 40


def test_the_best_guess_is_the_regression_on_the_state():
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(200_000, generator=generator, dtype=torch.float64) * scale for scale in (1.7, 1.0))
    x_t = 0.4 * clean + 0.6 * noise
    slope = float((x_t * clean).sum() / x_t.square().sum())
    assert float(best_guess(torch.tensor(1.0, dtype=torch.float64), 0.6, 0.4, 1.7**2)) == pytest.approx(slope, rel=0.01)
    assert surprise(noise - clean, clean, noise) == 0.0


def test_own_clips(organism, tmp_path):
    pairs, folder = clip_pairs(CONFIG)[:2], tmp_path / "clips"
    for number, pair in enumerate(pairs):
        for side in ("possible", "impossible"):
            (folder / side).mkdir(exist_ok=True, parents=True)
            (folder / side / f"{number}.mp4").write_bytes(encode_mp4(getattr(pair, side)(None)))
        (folder / f"{number}.txt").write_text(pair.prompt)
    config = PlausibilityConfig(clips=str(folder), num_inference_steps=3, noises=1, steps=(1,))
    result, report = experiment.run_and_report(load("plausibility"), config, tmp_path / "run", model=organism, workers=1)
    assert set(result.rows.problem) == {"0", "1"} and len(report.data["findings"]) == 1
    assert report.data["findings"][0]["verdict"] == "not testable"  # two pairs
    (folder / "possible/2.mp4").write_bytes(b"")
    with pytest.raises(InterpError, match="2 is on one side only"):
        clip_pairs(config)
    with pytest.raises(InterpError, match="no pair is there"):
        clip_pairs(PlausibilityConfig(clips=str(tmp_path / "run")))


def test_clips_of_two_frame_rates_are_no_pair(organism, tmp_path):
    """Frame by frame the same motion is another one at another rate."""
    pair = clip_pairs(CONFIG)[0]
    for side, rate in (("possible", 4), ("impossible", 8)):
        (tmp_path / side).mkdir()
        (tmp_path / side / "a.mp4").write_bytes(encode_mp4(getattr(pair, side)(None), rate))
    config = PlausibilityConfig(clips=str(tmp_path), num_inference_steps=3, noises=1, steps=(1,))
    with pytest.raises(InterpError, match="clips of a are not alike: it plays 8 frames a second, the possible one 4"):
        load("plausibility").check(config, organism)


def test_refusals():
    with pytest.raises(ValueError, match="there are impossible clips of bounce, occlusion"):
        PlausibilityConfig(tasks=("maze",))
    with pytest.raises(ValueError, match="leave out tasks and items, or clips"):
        PlausibilityConfig(clips="clips", items=3)
