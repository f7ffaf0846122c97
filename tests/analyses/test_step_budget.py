"""Steps at other noise levels: the arithmetic, a flow that bends in one place, one that does not bend at all, and verdicts."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import run_and_report
from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.step_budget import ScheduleFacts, StepBudgetConfig
from cos_interp.analyses.step_budget.allocations import best, candidates, drawn, favoured, levels
from cos_interp.analyses.step_budget.exported import given_to
from cos_interp.analyses.step_budget.findings import findings
from cos_interp.analyses.step_budget.measure import SHOWN
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.errors import InterpError
from tests.support import hooked_tiny

# --- arithmetic ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps, bands, density", [(2, 2, 2.0), (4, 3, 4.0), (50, 4, 8.0)])
def test_allocations_have_all_steps_and_fall(steps, bands, density):
    fine = np.linspace(1, 0.01, 4 * steps)
    made = {**candidates(steps, bands, density), **{str(n): drawn(steps, n) for n in range(5)}}
    assert len(made) == 2**bands - 1 + 5
    for positions in made.values():
        found = levels(positions, fine)
        assert len(found) == steps and found[0] == 1 and all(a > b > 0 for a, b in pairwise(found))


def test_a_favoured_part_has_so_many_times_as_many_steps():
    positions = np.array(favoured(1200, (False, True, False), 4.0))
    counts = np.histogram(positions, [0, 1 / 3, 2 / 3, 1])[0]
    assert counts.tolist() == [200, 800, 200]
    assert drawn(5, 3) == drawn(5, 3) != drawn(5, 4)


def test_answers_come_before_distances():
    assert best({"own": (0.5, 0.1), "a": (0.7, 0.9), "b": (0.7, 0.8)}) == "b"
    assert best({"own": (0.0, 0.1), "a": (0.0, 0.1)}) == "own"


@pytest.mark.parametrize("shift", [1.0, 3.0, 8.0])
def test_the_printed_levels_are_what_diffusers_makes_of_them(shift):
    scheduler, wanted = FlowMatchEulerDiscreteScheduler(shift=shift), [1.0, 0.9, 0.4, 0.2]
    given, why = given_to(scheduler, wanted)
    scheduler.set_timesteps(sigmas=list(given))
    assert scheduler.sigmas[:-1].tolist() == pytest.approx(wanted, abs=1e-6) and not why
    dynamic = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    assert given_to(dynamic, wanted) == (None, "the scheduler's shift follows the size of the video")
    assert "use_beta_sigmas" in given_to(FlowMatchEulerDiscreteScheduler(use_beta_sigmas=True), wanted)[1]


@pytest.mark.parametrize("kind", [DPMSolverMultistepScheduler, UniPCMultistepScheduler])
def test_no_levels_are_printed_that_the_scheduler_would_refuse(kind):
    scheduler = kind(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    with pytest.raises(TypeError):  # what diffusers says to such a list
        scheduler.set_timesteps(sigmas=[1.0, 0.5])
    given, why = given_to(scheduler, [1.0, 0.75])
    assert given is None and why.startswith(f"{kind.__name__} takes no list of levels")


# --- runs ------------------------------------------------------------------------------------------------------------


def rate(sigma: float, strength: float) -> float:
    """Of a flow that bends among its first noise levels alone."""
    return strength * max(0.0, sigma - 0.75)


def bending(strength: float) -> HookedVideoPipeline:
    """A tiny pipeline whose flow is ``v = rate x``: only where that is not 0 does a step err."""
    model = hooked_tiny()

    def flow(module, args, kwargs, out):
        sigma, x = float(kwargs["timestep"].flatten()[0]) / 1000, kwargs["hidden_states"]
        return (rate(sigma, strength) * x,)

    model.pipe.transformer.register_forward_hook(flow, with_kwargs=True)
    return model


def budget_run(model: HookedVideoPipeline, folder, steps: int = 6):
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"a ball {n}", "seed": n}) + "\n" for n in range(4)))
    config = StepBudgetConfig(prompts=str(path), num_inference_steps=steps, draws=2, finer=8)
    return run_and_report(load("step-budget"), config, folder / "run", model=model, workers=1)


def euler(sigmas, strength: float) -> float:
    """What the flow above makes of 1."""
    x = 1.0
    for sigma, following in pairwise([*sigmas, 0.0]):
        x += (following - sigma) * rate(sigma, strength) * x
    return x


def test_the_part_in_which_a_flow_bends_is_found(tmp_path):
    """It bends above 0.75, which the first two of three parts of the way hold (to 0.6); there the chosen steps lie close."""
    strength = 8.0
    result, report = budget_run(bending(strength), tmp_path)
    facts = result.first(ScheduleFacts)
    assert facts.name == "dense 1 2" and sum(level > 0.6 for level in facts.levels) > sum(level > 0.6 for level in facts.own)
    rows = result.rows[result.rows.stage == "test"]
    assert rows.calls.unique().tolist() == [6] and rows.problem.nunique() == 2 and result.rows.solved.isna().all()
    means = rows.groupby("allocation").distance.mean()
    assert means["chosen"] < means[["own", "random 0", "random 1"]].min()
    way = next(iter(result.units.values()))
    exact = euler(way.fine, strength)
    for name, sigmas in (("own", facts.own), ("chosen", facts.levels)):
        assert means[name] == pytest.approx(abs(euler(sigmas, strength) / exact - 1), rel=1e-3), name
    first, evidence = report.html.split('<section id="evidence"')
    assert "scheduler&#39;s own" in first and "Of each mark n = 2; 95 % interval" in first and "Where the steps lie" in evidence
    assert f"distance, {SHOWN['chosen']}" in evidence  # item by item
    schedule = json.loads((tmp_path / "run" / "media" / "schedule.json").read_text())
    assert schedule == json.loads(json.dumps(report.data["schedule"])) and len(schedule["set_timesteps"]["sigmas"]) == 6
    assert {f["key"]: f["verdict"] for f in report.data["findings"]}["step-budget.answers"] == "not testable"


def test_where_nothing_bends_no_allocation_is_better(tmp_path):
    result, report = budget_run(bending(0.0), tmp_path)
    assert (result.rows.distance == 0).all() and result.first(ScheduleFacts).positions is None
    assert {f["verdict"] for f in report.data["findings"]} == {"not testable"}
    assert any("nothing is better than the scheduler's own" in line for line in report.lines)


def test_what_cannot_be_searched_is_refused(tmp_path, prompts):
    one = tmp_path / "one.txt"
    one.write_text("a ball\n")
    with pytest.raises(InterpError, match="two or more"):
        load("step-budget").check(StepBudgetConfig(prompts=str(one)), hooked_tiny())
    with pytest.raises(InterpError, match="flow"):
        load("step-budget").check(StepBudgetConfig(prompts=prompts), HookedVideoPipeline.from_pretrained("tiny:cogvideox"))


# --- verdicts --------------------------------------------------------------------------------------------------------


def made_up(solved: dict[str, float], moved: dict[str, float], items: int = 80, seed: int = 0) -> pd.DataFrame:
    rng, rows = np.random.default_rng(seed), []
    for i in range(items):
        hard = rng.random()
        for name in ("chosen", "own", "random 0", "random 1"):
            kind = name.split()[0]
            row = {"problem": f"p{i:03}", "task": "maze", "stage": "test", "allocation": name, "calls": 4}
            rows.append(row | {"solved": float(hard < solved[kind]), "distance": moved[kind] * rng.uniform(0.8, 1.2)})
    return pd.DataFrame(rows)


def judged(rows, twins=()):
    return findings(AnalysisResult("step-budget", StepBudgetConfig(), rows, twins=twins))


MOVED = {"chosen": 0.1, "own": 0.3, "random": 0.2}


def test_an_allocation_that_solves_more_is_reproduced():
    rows = made_up({"chosen": 0.9, "own": 0.5, "random": 0.4}, MOVED)
    answers, search, nearer = judged(rows)
    assert answers.verdict == search.verdict == "reproduced"
    assert answers.primary and not search.primary and not nearer.primary
    table = rows.groupby(["problem", "allocation"]).solved.first().unstack()
    assert search.number.value == pytest.approx((table.chosen - table[["random 0", "random 1"]].mean(axis=1)).mean())
    assert answers.number.value == pytest.approx((table.chosen - table.own).mean()) and answers.number.n == 80
    distances = rows.assign(kind=rows.allocation.str[:6]).groupby(["problem", "kind"]).distance.mean().unstack()
    assert nearer.number.value == pytest.approx((1 - distances.chosen / distances["random"]).mean())
    assert judged(rows, [{"step-budget.answers": Number(0.5, 0.4, 0.6, 80)}])[0].verdict == "undecided"


def test_an_item_counts_where_all_random_draws_were_judged():
    rows = made_up({"chosen": 0.9, "own": 0.5, "random": 0.4}, MOVED)
    rows.loc[(rows.problem == "p003") & (rows.allocation == "random 1"), "solved"] = None
    answers, search, _ = judged(rows)
    assert (answers.number.n, search.number.n) == (80, 79)


def test_one_that_solves_as_many_is_refuted_and_the_same_thrice_shows_nothing():
    alike = dict.fromkeys(("chosen", "own", "random"), 0.5)
    assert judged(made_up(alike, MOVED, items=150))[0].verdict == "refuted"
    by_chance = judged(made_up({"chosen": 0.6, "own": 0.3, "random": 0.7}, MOVED))
    assert [one.verdict for one in by_chance[:2]] == ["reproduced", "refuted"]  # any other levels do, so a search adds nothing


def test_without_room_nothing_is_testable():
    found = judged(made_up({"chosen": 1.0, "own": 0.98, "random": 1.0}, MOVED))[0]
    assert found.verdict == "not testable" and "--num-steps" in found.why
    assert torch.isfinite(torch.tensor(found.control.value))
