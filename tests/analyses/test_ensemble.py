"""The ensemble of seeds: its control at the merged norm, tables on which it helps and does not, placebos, runs to the page."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import run_and_report
from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.kept import kept_clips
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.driver.twins import twin_of
from cos_interp.analyses.ensemble import EnsembleConfig, EnsembleFacts
from cos_interp.analyses.ensemble.merging import merged, recipes, scaled, scaling
from cos_interp.analyses.ensemble.report import findings
from cos_interp.analyses.kit.problems import generate, problems
from cos_interp.interp.batch import joined
from cos_interp.interp.ensemble import EnsembleRecipe, merge
from cos_interp.tasks import TASKS

TENSORS = ("x_t", "hidden", "v", "x0hat", "final")


def _call() -> dict:
    item = TASKS["maze"].sample(4)
    return {"prompt": item.prompt, "image": Image.fromarray(item.first_frame), "num_inference_steps": 3}


def test_one_seed_at_the_merged_norm_by_hand():
    members = torch.tensor([[3.0, 0.0], [0.0, 4.0]])  # mean (1.5, 2), of norm 2.5
    torch.testing.assert_close(scaled(members), torch.tensor([[2.5, 0.0], [0.0, 2.5]]))
    assert torch.equal(scaled(torch.ones(3, 4)), torch.ones(3, 4))  # one seed thrice: nothing is scaled
    torch.testing.assert_close(scaled(members, "norm-matched"), members)  # merged at the members' norm: no control is needed
    noise = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    norms = scaled(noise).flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, merge(noise).flatten(1).norm(dim=1))
    torch.testing.assert_close(torch.nn.functional.cosine_similarity(scaled(noise).flatten(1), noise.flatten(1)), torch.ones(3))


def test_the_control_scales_where_the_recipe_merges_and_nowhere_else(organism):
    seen: dict[int, torch.Tensor] = {}
    runs = joined([{**_call(), "seed": seed} for seed in (1, 2, 3)])
    keep = ("hook_x_t", lambda act, hook: seen.update({hook.step: act.clone()}))
    plain = organism.run(**runs)
    organism.run_with_hooks(fwd_hooks=[*scaling(EnsembleRecipe("x_t"), organism.layers), keep], **runs)
    torch.testing.assert_close(seen[0], scaled(plain.x_t[0]))
    assert not torch.allclose(seen[1], plain.x_t[1])  # another course from there on
    last = organism.run_with_hooks(fwd_hooks=scaling(EnsembleRecipe("x_t", steps=(2,)), organism.layers), **runs)
    assert torch.equal(last.x_t[1], plain.x_t[1]) and not torch.equal(last.latents, plain.latents)


@pytest.mark.parametrize("tensor", TENSORS)
def test_one_seed_thrice_is_the_run_and_its_control(organism, tensor):
    """Placebo: three times the same noise. Merging and scaling change nothing."""
    call = _call()
    config = EnsembleConfig(tensors=(tensor,), num_inference_steps=3)
    run = organism.run(**call, seed=5)
    found = merged(organism, recipes(config)[tensor], config, [run] * 3, [5, 5, 5], call)
    assert found.ensemble.shape == run.latents.shape and found.scaled.shape[0] == 3
    torch.testing.assert_close(found.ensemble, run.latents, atol=2e-4, rtol=0)
    torch.testing.assert_close(found.scaled, run.latents.expand_as(found.scaled), atol=2e-4, rtol=0)


def test_final_latents_are_merged_before_decoding(organism):
    call, config = _call(), EnsembleConfig(tensors=("final",), num_inference_steps=3)
    runs = [organism.run(**call, seed=seed) for seed in (1, 2, 3)]
    found = merged(organism, None, config, runs, [1, 2, 3], call)
    torch.testing.assert_close(found.ensemble, sum(run.latents for run in runs) / 3)
    ratio = found.ensemble.norm() / runs[1].latents.norm()
    torch.testing.assert_close(found.scaled[1:2], runs[1].latents * ratio)


def _rows(
    own: float, single: float, alone: float, items: int = 60, repeats: int = 1, seed: int = 0, same: bool = False
) -> pd.DataFrame:
    """Outcomes at some chances; ``same``: the ensemble's are those of the first member."""
    rng, rows = np.random.default_rng(seed), []
    for number in range(items):
        for repeat in range(repeats):
            each = rng.random(3) < single
            outcome = each[0] if same else rng.random() < own
            about = {"problem": f"p{number:03}", "task": "maze", "repeat": repeat, "compute": 1.0}
            made = {"mean of single runs": each.mean(), "best of equal compute": each.mean()}
            rows += [{**about, "method": name, "solved": value} for name, value in made.items()]
            pair = {"ensemble of x_t": float(outcome), "one seed, x_t scaled": (rng.random(3) < alone).mean()}
            rows += [{**about, "method": name, "tensor": "x_t", "solved": value} for name, value in pair.items()]
    return pd.DataFrame(rows)


def _found(rows: pd.DataFrame, twins=()):
    (found,) = findings(AnalysisResult("ensemble", EnsembleConfig(), rows, twins=twins), rows)
    return found


def test_an_item_counts_where_the_method_was_judged_in_every_repeat():
    rows = _rows(0.95, 0.5, 0.5, repeats=2)
    gone = (rows.problem == "p003") & (rows.repeat == 1)
    assert _found(rows[~(gone & (rows.method == "ensemble of x_t"))]).number.n == 59
    assert _found(rows[~gone]).number.n == 60  # all methods from the one repeat that there is


def test_an_item_of_which_one_repeat_was_not_judged_at_all_does_not_count():
    rows = _rows(0.95, 0.5, 0.5, repeats=2)
    silent = (rows.problem == "p003") & (rows.repeat == 1)
    assert _found(rows.assign(solved=rows.solved.mask(silent))).number.n == 59


@pytest.mark.parametrize("method", ["ensemble of x_t", "one seed, x_t scaled"])
def test_a_scorer_that_fails_on_every_video_of_a_method_leaves_nothing_to_test(method):
    """Merging may break a video so that a scorer of one's own finds nothing in it."""
    rows = _rows(0.95, 0.5, 0.5)
    found = _found(rows.assign(solved=rows.solved.mask(rows.method == method)))
    assert (found.verdict, found.number.n, found.why) == ("not testable", 0, "no item is eligible")
    alone = rows[rows.tensor.notna()]  # of single runs that a scorer failed on there are no rows
    assert _found(alone).why == "no item is eligible"


def test_an_item_without_one_of_both_controls_does_not_count():
    """Also where the other one, which solves more, is there."""
    rows = _rows(0.95, 0.2, 0.5)
    gone = rows.problem.isin(["p003", "p007"]) & (rows.method == "mean of single runs")
    assert _found(rows.assign(solved=rows.solved.mask(gone))).number.n == 58


def test_an_ensemble_that_helps_is_found():
    rows = _rows(0.95, 0.5, 0.5, repeats=2)
    found = _found(rows)
    assert found.verdict == "reproduced" and found.key == "ensemble.x_t" and found.primary
    gains = []
    for name in sorted(set(rows.problem)):
        at = rows[rows.problem == name]
        base = {m: rows[rows.method == m].solved.mean() for m in ("mean of single runs", "one seed, x_t scaled")}
        best = max(base, key=base.get)
        gains.append(at[at.method == "ensemble of x_t"].solved.mean() - at[at.method == best].solved.mean())
    assert found.number.value == pytest.approx(np.mean(gains), rel=1e-12) and found.number.n == 60  # items, not noises
    assert _found(rows, [{"ensemble.x_t": Number(0.5, 0.3, 0.7, 20)}]).verdict == "undecided"


@pytest.mark.parametrize("single, alone", [(0.8, 0.8), (0.8, 0.2), (0.2, 0.8)])
def test_an_ensemble_that_harms_is_refuted(single, alone):
    """Whichever of the two controls solves more: it has to be better than both."""
    assert _found(_rows(0.4, single, alone, items=150)).verdict == "refuted"


def test_what_one_scaled_seed_does_as_well_is_no_ensemble():
    rows = _rows(0.9, 0.3, 0.9, items=100)
    each = rows.groupby(["problem", "method"]).solved.mean().unstack()
    assert (each["ensemble of x_t"] - each["mean of single runs"]).mean() > 0.5  # which the old rule called reproduced
    assert "reproduced" not in {_found(_rows(0.85, 0.3, 0.85, items=100, seed=seed)).verdict for seed in range(10)}


def test_shares_have_ends():
    """One item of 60 that a method does not solve: its share ends at 1, by the interval too."""
    rows = _rows(1.0, 1.0, 1.0)
    rows.loc[(rows.problem == rows.problem.iloc[0]) & (rows.method == "mean of single runs"), "solved"] = 0.5
    found = _found(rows)
    assert 0 <= found.control.low < found.control.high <= 1 and "1.0" in found.statement


def test_placebos_show_nothing():
    """The first seed alone as its own ensemble: one wrong verdict in forty is what a 95 % interval allows."""
    verdicts = [_found(_rows(0.6, 0.6, 0.6, seed=seed, same=True)).verdict for seed in range(40)]
    assert verdicts.count("reproduced") <= 1
    rows = _rows(0.6, 0.6, 0.6)
    one = rows.assign(solved=rows.groupby("problem").solved.transform("first"))  # one seed thrice: all outcomes are the same
    assert _found(one).verdict == "not testable" and _found(one).number.value == 0
    rows = _rows(0.95, 0.5, 0.5)
    dealt = rows.assign(solved=rows.groupby("problem").solved.transform(lambda s: np.random.default_rng(len(s)).permutation(s)))
    shuffled = pd.concat([
        part.assign(solved=np.random.default_rng(number).permutation(part.solved.to_numpy()))
        for number, (_, part) in enumerate(dealt.groupby("problem"))
    ])  # fmt: skip
    assert _found(shuffled).verdict != "reproduced"


def test_without_room_or_items_nothing_is_testable():
    ceiling = _found(_rows(1.0, 0.97, 0.97, items=200))
    assert ceiling.verdict == "not testable" and "--num-steps 4" in ceiling.why
    assert re.match(
        r"nothing can gain more than 0\.0[23]\d over runs alone", ceiling.why
    )  # of drawn outcomes: .03 but for chance
    few = _found(_rows(0.9, 0.3, 0.3, items=29))
    assert few.verdict == "not testable" and few.why.startswith("29 of at least 30 items; about 30 items would decide, were 0.")
    assert _found(_rows(0.0, 0.0, 0.0)).verdict == "not testable"  # a model that solves nothing
    small = _found(_rows(0.68, 0.65, 0.65, items=40))
    assert small.verdict == "undecided" and "items would decide" in small.why


def test_a_run_with_repeats(organism, tmp_path):
    config = EnsembleConfig(items=1, tasks=("occlusion", "bounce"), num_inference_steps=2, repeats=2, tensors=("x_t", "final"))
    result, report = run_and_report(load("ensemble"), config, tmp_path / "run", model=organism, workers=1)
    assert RunStore(tmp_path / "run").verify() == []
    rows = result.rows
    assert rows.groupby(["problem", "repeat", "method"]).size().eq(1).all() and set(rows.repeat) == {0, 1}
    assert [f["key"] for f in report.data["findings"]] == ["ensemble.x_t", "ensemble.final"]
    assert [f["primary"] for f in report.data["findings"]] == [True, False]
    assert all(f["number"]["n"] == 2 and f["verdict"] == "not testable" for f in report.data["findings"])
    assert rows[rows.tensor == "x_t"].dropna(subset=["distance"]).distance.gt(0).all()
    for one in kept_clips(result, RunStore(tmp_path / "run", [EnsembleFacts]), EnsembleFacts):
        assert one.names == tuple(row["method"] for row in one.rows) and len(one.names) == 5 and one.names[0] == "single run"
        problem = next(p for p in problems(config) if p.name == one.unit)
        assert np.array_equal(one.clips[0], generate(organism, config, problem, problem.noise(0)).decode()[0])
        assert f'"name":"{one.unit}"' in report.html


@pytest.mark.slow
def test_a_twin_gains_nothing(organism, tmp_path):
    config = EnsembleConfig(items=5, num_inference_steps=4)
    _, report = run_and_report(load("ensemble"), config, tmp_path / "run", model=twin_of(organism, 3), workers=1)
    assert len(report.data["findings"]) == 5
    assert "reproduced" not in {f["verdict"] for f in report.data["findings"]}
