"""Stopping bad seeds: planted looks that tell, blind ones that do not, models without room, and a run to the page."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import run_and_report
from cos_interp.analyses.driver.facts import RunFacts
from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.kept import kept_clips
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.candidates import Candidates
from cos_interp.analyses.kit.problems import generate, problems
from cos_interp.analyses.kit.screening import majority_of, voted
from cos_interp.analyses.seeds import SeedsConfig, SeedsFacts
from cos_interp.analyses.seeds.findings import control_of, deciding_step, findings, looks, table
from cos_interp.analyses.seeds.measure import candidate_score, pooled, read_out
from cos_interp.interp.errors import InterpError
from tests.support import hooked_tiny

STEPS = 10


# --- arithmetic ------------------------------------------------------------------------------------------------------


def test_a_vote_among_some_of_the_runs_by_hand():
    runs = [("a", True), ("a", True), ("b", False), ("b", False), (None, False)]
    assert majority_of(runs, 1) == pytest.approx(2 / 5)
    three = [voted(some) for some in combinations(runs, 3)]
    assert majority_of(runs, 3) == pytest.approx(np.mean(three)) and majority_of(runs, 9) == majority_of(runs, 5) == 1.0
    assert majority_of(runs, 1.5) == pytest.approx((majority_of(runs, 1) + majority_of(runs, 2)) / 2)


def test_an_estimate_that_is_an_answer_looks_best():
    draw = torch.Generator().manual_seed(0)
    first, second, nothing, noise = (torch.randn(1, 4, 2, 3, 3, generator=draw) for _ in range(4))
    among = Candidates(("a", "b"), torch.cat([first, second]), nothing[0])
    score = lambda x: candidate_score(x, among)
    assert score(first) == pytest.approx(1.0, abs=1e-6) and score(nothing) < 0.01
    assert score(first) > score((first + second) / 2) > score(nothing) and score(first) > score(first + noise) > score(noise)


def test_features_are_means_over_cells():
    latent = torch.arange(2 * 3 * 10 * 10.0).view(1, 2, 3, 10, 10)
    assert pooled(latent).shape == (2 * 3 * 5 * 5,)
    assert pooled(latent)[0] == latent[0, 0, 0, :2, :2].mean()


def made_up_features(items: int, tells: bool, seed: int = 0):
    """Runs of which one direction tells how they end, or none; items differ by far more than their runs do."""
    rng = np.random.default_rng(seed)
    solved = rng.random((items, 4)) < 0.5
    features = rng.normal(size=(items, 4, 30)) + 20 * rng.normal(size=(items, 1, 30))
    features[..., 3] += 8.0 * solved if tells else 0.0
    return features, solved, np.arange(items) % 2


def test_a_read_out_ranks_the_seeds_of_items_that_it_has_not_seen():
    features, solved, half = made_up_features(60, tells=True)
    said = read_out(features, solved, half, 8)
    right = [s[y].mean() > s[~y].mean() for s, y in zip(said, solved, strict=True) if 0 < y.sum() < 4]
    assert np.mean(right) > 0.85
    for blind in (read_out(features, solved, half, 8, shuffle=[1, 2]), read_out(*made_up_features(60, tells=False), 8)):
        right = [s[y].mean() > s[~y].mean() for s, y in zip(blind, solved, strict=True) if 0 < y.sum() < 4]
        assert 0.2 < np.mean(right) < 0.8
    swapped = np.array(features)
    swapped[half == 0] += 100.0  # an item's own level says nothing
    np.testing.assert_allclose(read_out(swapped, solved, half, 8), said, atol=1e-6)


def test_a_half_is_taught_by_the_other_alone():
    features, solved, half = made_up_features(40, tells=True)
    other = np.where((half == 0)[:, None], ~solved, solved)
    before, after = (read_out(features, labels, half, 8) for labels in (solved, other))
    np.testing.assert_array_equal(before[half == 0], after[half == 0])
    assert not np.allclose(before[half == 1], after[half == 1])


def test_without_failures_there_is_nothing_to_learn():
    features, solved, half = made_up_features(10, tells=True)
    assert (read_out(features, np.ones_like(solved), half, 8) == 0).all()


# --- verdicts --------------------------------------------------------------------------------------------------------


def made_up(rate: float, noise: float, items: int = 80, seed: int = 0) -> pd.DataFrame:
    """Runs that are solved at a rate, and looks that see the end through noise; wrong runs have answers of their own."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(items):
        for n in range(4):
            solved = bool(rng.random() < rate)
            about = {"problem": f"p{i:03}", "task": "maze", "noise": n, "solved": solved}
            about["answer"] = "right" if solved else f"wrong {n}"
            for step in (0, 4, 8):
                scorer, weights, latent = float(solved) + noise * rng.normal(size=3)
                about |= {"step": step, "sigma": 1 - step / STEPS}
                rows.append({**about, "kind": "look", "scorer": scorer, "candidates": weights})
                rows.append({**about, "kind": "readout", "latent": latent, "shuffled": rng.normal()})
    return pd.DataFrame(rows)


def judged(rows: pd.DataFrame, twins=()):
    facts = {"p": RunFacts(sigmas=tuple(1 - k / STEPS for k in range(STEPS)), prompt="")}
    return findings(AnalysisResult("seeds", SeedsConfig(), rows, units=facts, twins=twins))


def test_a_look_that_tells_is_worth_it():
    rows = made_up(0.4, 0.1)
    latent, scorer, by_candidates = judged(rows)
    assert latent.verdict == scorer.verdict == by_candidates.verdict == "reproduced"
    assert latent.primary and not scorer.primary and "step 4" in latent.statement
    seen = looks(rows)
    at = seen[seen.step == 4]
    best = at.loc[at.groupby("problem").latent.idxmax()].set_index("problem").solved.astype(float)
    votes = at.groupby("problem")[["answer", "solved"]].apply(
        lambda g: majority_of([*zip(g.answer, g.solved, strict=True)], (4 * 5 + 5) / STEPS)
    )
    single = at.groupby("problem").solved.mean()
    base = votes if votes.mean() > single.mean() else single
    assert latent.number.value == pytest.approx((best - base).mean(), rel=1e-9) and latent.number.n == 80
    assert judged(rows, [{"seeds.latent": Number(0.5, 0.4, 0.6, 80)}])[0].verdict == "undecided"


def test_a_blind_look_is_not():
    verdicts = [judged(made_up(0.4, 50.0, seed=seed))[0].verdict for seed in range(5)]
    assert verdicts.count("reproduced") == 0 and "refuted" in {judged(made_up(0.5, 50.0, items=400))[0].verdict}
    rows = made_up(0.4, 0.1)
    assert table(looks(rows), STEPS, "shuffled").groupby("step").screened.mean().max() < 0.55  # the placebo beside it


def test_runs_that_cannot_be_read_have_no_vote():
    """Of three runs of each problem that are wrong and one that is right, as a table read from disk has them."""
    rows = made_up(0.0, 0.1, items=20)
    right = rows.noise == 2
    rows["answer"], rows["solved"] = rows.answer.where(right, None), right
    found = table(looks(rows), STEPS, "latent")
    by_hand = [np.mean([2 in some for some in combinations(range(4), size)]) for size in (2, 3)]
    at = found[found.step == 4]["majority of equal compute"]
    assert at.to_numpy() == pytest.approx([np.mean(by_hand)] * 20)


def test_without_room_nothing_is_testable():
    found = judged(made_up(0.99, 0.1))
    assert {f.verdict for f in found} == {"not testable"} and "nothing can gain more" in found[0].why
    assert {f.verdict for f in judged(made_up(0.0, 0.1))} == {"not testable"}


def test_the_control_of_a_look_that_knows_what_is_right_is_a_perfect_picker():
    found = table(looks(made_up(0.4, 0.1)), STEPS, "scorer")
    assert control_of(found, "scorer") == "best of equal compute" and control_of(found, "latent") != "best of equal compute"
    assert (found["best of all"] >= found["best of equal compute"]).all()


def test_the_deciding_step_is_of_the_first_half():
    seen = pd.DataFrame({"step": [0, 4, 5, 9]})
    assert deciding_step(seen, 10) == 4 and deciding_step(seen[seen.step > 4], 10) == 5


# --- runs ------------------------------------------------------------------------------------------------------------


def test_a_run_to_the_page(organism, tmp_path):
    config = SeedsConfig(items=2, tasks=("occlusion",), num_inference_steps=3, noises=2, steps=(0, 1))
    result, report = run_and_report(load("seeds"), config, tmp_path / "run", model=organism, workers=1)
    seen = looks(result.rows)
    assert len(seen) == 2 * 2 * 2 and seen[["scorer", "candidates", "latent", "shuffled"]].notna().all().all()
    assert [f["key"] for f in report.data["findings"]] == ["seeds.latent", "seeds.scorer", "seeds.candidates"]
    assert {f["verdict"] for f in report.data["findings"]} == {"not testable"}
    assert "Where a judge names no answers, a vote counts" in (tmp_path / "run/report.html").read_text()
    for one in kept_clips(result, RunStore(tmp_path / "run", [SeedsFacts]), SeedsFacts):
        problem = next(p for p in problems(config) if p.name == one.unit)
        assert one.names == ("seed 0", "seed 1") and [row["noise"] for row in one.rows] == [0, 1]
        assert np.array_equal(one.clips[1], generate(organism, config, problem, problem.noise(1)).decode()[0])
    again, _ = run_and_report(load("seeds"), config, tmp_path / "run", model=organism, workers=1)
    pd.testing.assert_frame_equal(result.rows, again.rows)


def test_runs_that_nobody_judges_are_refused(prompts):
    with pytest.raises(InterpError, match="--scorer"):
        load("seeds").check(SeedsConfig(prompts=prompts), hooked_tiny())
