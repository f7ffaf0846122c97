"""The claims of commitment: tables on which each is true, false, or shows nothing; margins and looks on the organism."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from cos_interp.analyses.commitment import CommitmentConfig, CommitmentFacts
from cos_interp.analyses.commitment import measure as commitment
from cos_interp.analyses.commitment.findings import chosen_step, excess, findings, named, screened
from cos_interp.analyses.driver import experiment
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.kept import kept_clips
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.driver.twins import twin_of
from cos_interp.analyses.kit import belief
from cos_interp.analyses.kit.candidates import candidates
from cos_interp.analyses.kit.problems import Problem, generate, item_call, problems
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.interp.patching import restart
from cos_interp.tasks import Verdict, suite

STEPS = 20
SIGMAS = [1 - (k / STEPS) ** 2 for k in range(STEPS)]  # 0.91 at step 6, 0.70 at step 11
TESTED = (0, 3, 6, 11, 16, 19)


def judged(rows: list[dict]) -> dict:
    """Findings by name; where the rows lack looks, or re-noised runs, with some that show nothing."""
    kinds = {row["kind"] for row in rows}
    rows = rows + ([] if "look" in kinds else looks(lambda n, k, good: 0.0)) + ([] if "renoise" in kinds else renoised(12, 3))
    table = pd.DataFrame(rows)
    result = AnalysisResult("commitment", CommitmentConfig(), table)
    return {f.key.split(".")[1]: f for f in findings(result, table, SIGMAS)}


def renoised(items: int, since: int, chance: float = 0.4, seed: int = 0, eligible: bool = True, told: int = 3) -> list[dict]:
    """Items whose re-noised runs agree by chance before a step and always from it on; four independent noises each. From step
    ``told`` on a chosen plan would outlast the noise."""
    drawn = np.random.default_rng(seed)
    rows = []
    for i in range(items):
        about = {"problem": f"p{i}", "task": "maze", "unique": False}
        own = float(np.clip(drawn.normal(chance, 0.15), 0, 1))
        rows += [{**about, "kind": "independent", "same": bool(drawn.random() < own)} for _ in range(6)]
        rows += [
            {**about, "kind": "renoise", "step": k, "eligible": eligible, "same": bool(k >= since or drawn.random() < own),
             "outlasts": k >= told}
            for k in TESTED for _ in range(commitment.DRAWS)
        ]  # fmt: skip
    return rows


def looks(score, items: int = 40, seed: int = 0, solved=lambda i, n: n == i % 4) -> list[dict]:
    """Four noises an item, one of which ends solved; ``score(noise, step, good)`` is what a look sees."""
    return [
        {"problem": f"p{i}", "task": "maze", "kind": "look", "noise": n, "step": k, "sigma": SIGMAS[k], "solved": solved(i, n),
         "score": float(score(n, k, solved(i, n))), "settled": float(score(n, k, solved(i, n))), "same": None}
        for i in range(items) for n in range(4) for k in TESTED
    ]  # fmt: skip


def test_an_item_counts_where_all_its_draws_were_judged():
    """The draws on which a scorer failed may be those that gave another answer."""
    rows = pd.DataFrame(renoised(20, 3)).astype({"same": object})
    for kind, name in (("renoise", "p1"), ("independent", "p2")):
        rows.loc[rows.index[(rows.kind == kind) & (rows.problem == name)][0], "same"] = None
    table = excess(rows)
    assert table.loc["p1"].isna().sum() == 1 and table.loc["p2"].isna().all() and table.drop(["p1", "p2"]).notna().all(axis=None)


# --- when the plan is chosen -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "by_steps", "by_sigma"),
    [(3, "reproduced", "reproduced"), (6, "reproduced", "reproduced"), (11, "refuted", "reproduced"),
     (16, "refuted", "refuted"), (19, "refuted", "refuted")],
)  # fmt: skip
def test_a_plan_is_chosen_early_where_agreement_is_at_its_ceiling_early(since, by_steps, by_sigma):
    found = judged(renoised(40, since))
    assert (found["early-steps"].verdict, found["early-sigma"].verdict) == (by_steps, by_sigma)
    assert found["early-steps"].primary and not found["early-sigma"].primary
    assert f"from step {since} " in found["early-steps"].statement


def test_the_number_by_hand():
    rows = pd.DataFrame(renoised(30, 11))
    by_hand = []
    for _, item in rows[rows.kind != "look"].groupby("problem"):
        again, chance = item[item.kind == "renoise"], item[item.kind == "independent"].same.astype(float).mean()
        at = [again[again.step == k].same.astype(float).mean() - chance for k in (6, 19)]
        by_hand.append(at[0] - 0.9 * at[1])
    found = judged(rows.to_dict("records"))["early-steps"]
    assert found.number.value == pytest.approx(np.mean(by_hand)) and found.number.n == 30
    seen = rows.assign(named=rows.problem.isin(["p1", "p2"]))
    assert named(seen, 6).value == pytest.approx(2 / 30)


def test_nothing_to_choose_or_nothing_read_is_not_testable():
    """Placebos: independent noises agree always; the items end unsolved; the answers of re-noised runs are dealt out anew."""
    assert "nothing" not in judged(renoised(40, 0))["early-steps"].statement
    one = judged(renoised(40, 0, chance=2.0))["early-steps"]  # one answer whatever the noise
    assert one.verdict == "not testable" and "agree nearly as often" in one.why
    assert judged(renoised(40, 3, eligible=False))["early-steps"].number.n == 0
    rows = pd.DataFrame(renoised(40, 25))  # re-noising never keeps anything
    assert {judged(rows.to_dict("records"))[f"early-{by}"].verdict for by in ("steps", "sigma")} <= {"not testable", "undecided"}
    assert judged(renoised(11, 3))["early-steps"].verdict == "not testable"


@pytest.mark.parametrize(("told", "verdict"), [(3, "refuted"), (6, "refuted"), (11, "not testable")])
def test_a_step_whose_noise_hides_a_chosen_plan_refutes_nothing(told, verdict):
    """The plan is chosen at step 16, or was long before: at step 6 nobody could tell, where noise hides it until step 11."""
    found = judged(renoised(40, 16, told=told))
    assert found["early-steps"].verdict == verdict and found["early-sigma"].verdict == "refuted"
    assert ("hides a plan that is chosen" in found["early-steps"].why) == (verdict == "not testable")
    assert judged(renoised(40, 3, told=told))["early-steps"].verdict == "reproduced"
    rows = [{key: value for key, value in row.items() if key != "outlasts"} for row in renoised(40, 16)]
    assert judged(rows)["early-steps"].verdict == "not testable" and "was not measured" in judged(rows)["early-steps"].why


def test_what_outlasts_the_noise_is_named_by_an_ideal_observer(organism, ambiguous):
    """Of an item's right answers and a final latent that is one of them: at little noise always, at much hardly more than by
    chance, and as the nearest of all noised candidates by brute force."""
    like = organism.run(**item_call(ambiguous), seed=0, num_inference_steps=2).latents
    among = candidates(organism, ambiguous, like)
    noise = torch.randn(64, *like.shape[1:], generator=torch.Generator().manual_seed(0))
    for at, (answer, latent) in enumerate(zip(among.answers, among.latents, strict=True)):
        run, final = SimpleNamespace(latents=latent[None], sigmas=[0.99, 0.9, 0.05]), SimpleNamespace(answer=answer)
        found = np.array([[commitment.outlasts(among, run, k, final, one[None]) for one in noise] for k in range(3)])
        for k, sigma in enumerate(run.sigmas):
            states = (1 - sigma) * latent + sigma * noise
            away = torch.stack([(states - (1 - sigma) * other).flatten(1).norm(dim=1) for other in among.latents])
            assert (found[k] == (away.argmin(0) == at).numpy()).all()
        assert found[2].all() and found[0].mean() < found[1].mean()
    assert not commitment.outlasts(among, run, 2, None, noise[:1])


def test_a_slow_rise_is_not_early():
    """Agreement that grows evenly to its ceiling is far from it in the first third, however significant its growth."""
    drawn, rows = np.random.default_rng(3), renoised(60, 25, 0.3)
    for row in rows:
        if row["kind"] == "renoise":
            row["same"] = bool(drawn.random() < 0.3 + 0.7 * row["step"] / 19)
    found = judged(rows)
    assert found["early-steps"].verdict == "refuted" == found["early-sigma"].verdict
    assert excess(pd.DataFrame(rows))[6].mean() > 0.1


def test_the_step_of_the_choice_by_hand():
    assert chosen_step(pd.DataFrame({0: [0.1], 5: [0.6], 9: [0.4], 14: [0.55], 19: [0.6]})) == 14
    assert chosen_step(pd.DataFrame({0: [0.0], 19: [0.0]})) is None and chosen_step(pd.DataFrame()) is None


def test_early_is_a_third():
    assert commitment.early_step(range(20), SIGMAS, "steps") == 6 and commitment.early_step(range(20), SIGMAS, "sigma") == 11
    assert commitment.early_step((7, 19), SIGMAS, "steps") is None
    steps = commitment.steps_of(CommitmentConfig(), SIGMAS)
    assert {0, 6, 11, 19} <= set(steps) and commitment.steps_of(CommitmentConfig(steps=(2, 4)), SIGMAS) == (2, 4)
    assert commitment.steps_of(CommitmentConfig(num_inference_steps=4), SIGMAS[::5])[0] == 0


# --- screening -------------------------------------------------------------------------------------------------------


def test_a_look_that_never_errs_beats_equal_compute():
    found = judged(looks(lambda n, k, good: good))
    assert (
        found["screening"].verdict == "reproduced"
    )  # every item gains the same; by counting, a gain being a difference of shares
    drawn = np.random.default_rng(0)
    found = judged(looks(lambda n, k, good: good and drawn.random() < 0.7))
    assert found["screening"].verdict == found["screening-blind"].verdict == "reproduced"
    equal = (4 * 7 + 13) / 20  # block calls of four runs to step 6 and of one to the end, in whole runs
    assert found["screening"].control.value == pytest.approx(0.25 * equal) and found["screening-blind"].control.value == 0.25
    assert found["screening"].primary and not found["screening-blind"].primary


def test_gains_by_hand():
    drawn = np.random.default_rng(1)
    rows = pd.DataFrame(looks(lambda n, k, good: drawn.random() + 0.3 * good, items=20))
    at, by_hand = rows[rows.step == 6], []
    for _, item in at.groupby("problem"):
        best = item.loc[item.score.idxmax()]
        by_hand.append(float(best.solved) - 0.25 * (4 * 7 + 13) / 20)  # one of four is solved: linear in the runs
    assert screened(rows, SIGMAS, "screening").gain.mean() == pytest.approx(np.mean(by_hand))


def test_a_look_that_helps_less_than_whole_runs_is_refuted():
    """Better than one seed and worse than the two whole runs that its compute pays: the old rule called this reproduced."""
    drawn = np.random.default_rng(0)
    rows = looks(lambda n, k, good: drawn.random() + 0.15 * good, items=125)
    found = screened(pd.DataFrame(rows), SIGMAS, "screening")
    assert found.screened.mean() > found.single.mean() + 0.05
    assert judged(rows)["screening"].verdict == "refuted"


def test_a_blind_look_and_a_task_without_room():
    drawn = np.random.default_rng(0)
    blind = judged(looks(lambda n, k, good: drawn.random(), items=125))
    assert blind["screening"].verdict == "refuted" and blind["screening-blind"].verdict in ("refuted", "undecided")
    full = judged(looks(lambda n, k, good: good, solved=lambda i, n: i > 0 or n > 0))
    assert full["screening"].verdict == "not testable" and "nothing can gain more" in full["screening"].why
    none = judged(looks(lambda n, k, good: good, solved=lambda i, n: False))
    assert {none["screening"].verdict, none["screening-blind"].verdict} == {"not testable"}


def test_how_settled_an_estimate_is_needs_no_verifier():
    run = SimpleNamespace(x0hat=[torch.tensor([1.0, 0]), torch.tensor([2.0, 0]), torch.tensor([2.0, 0])])
    assert [commitment.settled(run, k) for k in range(3)] == [0, -0.5, 0]


# --- on the organism -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ambiguous():
    return next(item for item in suite.task_items("place") if not item.unique)


def test_at_sigma_1_a_renoised_state_is_the_fresh_noise_bit_for_bit(organism, ambiguous, monkeypatch):
    """Why "nothing is chosen at step 0" is an identity and no finding."""
    problem, states = Problem("place-000", item_call(ambiguous), 7, 0, ambiguous), []
    run = organism.run(**problem.call, seed=problem.seed, num_inference_steps=2)
    assert run.sigmas[0] == 1.0

    def restart(model, run, step, latents):
        states.append(latents)
        return SimpleNamespace(latents=run.latents.repeat(commitment.DRAWS, 1, 1, 1, 1))

    monkeypatch.setattr(commitment, "restart", restart)
    rows = [row for row, _ in commitment._renoise(organism, problem, run, None, (0, 1))]
    generator = torch.Generator().manual_seed(seed_for("renoising", problem.seed, 0))
    assert torch.equal(states[0], torch.randn((commitment.DRAWS, *run.latents.shape[1:]), generator=generator))
    among = candidates(organism, ambiguous, run.latents)
    by_hand = [belief.margin(run.x_t[k], among.latents, run.sigmas[k]) for k in (0, 1)]
    assert not any(row["named"] for row in rows)  # the run is said to have ended without an answer
    told = commitment._renoise(organism, problem, run, Verdict("solved", "", among.answers[0]), (1,))
    assert next(told)[0]["named"] == (belief.pick(run.x_t[1], among.latents, run.sigmas[1]) == 0)
    assert [row["margin"] for row in rows] == [m for m in by_hand for _ in range(commitment.DRAWS)]


def test_only_items_with_several_answers_are_renoised(organism, tmp_path):
    config = CommitmentConfig(tasks=("place",), items=4, noises=2, pairs=0, steps=(0, 1, 2), num_inference_steps=3)
    result, report = experiment.run_and_report(load("commitment"), config, tmp_path / "run", model=organism, workers=1)
    again = result.rows[result.rows.kind == "renoise"]
    assert len(again) and not again["unique"].astype(bool).any() and again.margin.gt(0).all() and again.outlasts.notna().all()
    assert set(result.rows[result.rows.kind == "look"]["unique"].astype(bool)) == {True, False}
    assert [f["key"] for f in report.data["findings"]] == [
        f"commitment.{name}" for name in ("early-steps", "early-sigma", "screening", "screening-blind")
    ]
    assert "Margin" in report.html and "screened without a verifier" in report.html
    store, first = RunStore(tmp_path / "run", [CommitmentFacts]), again.problem.iloc[0]
    (one, *_) = kept_clips(result, store, CommitmentFacts)
    assert one.unit == first and one.names == (*(f"re-noised at step {k}" for k in (0, 1, 2)), "the run")
    assert [row.get("draw") for row in one.rows] == [0, 0, 0, None] and [row.get("step") for row in one.rows] == [0, 1, 2, None]
    problem = next(p for p in problems(config) if p.name == first)
    run = generate(organism, config, problem)
    assert np.array_equal(one.clips[-1], run.decode()[0])
    x0hat, sigma = run.x0hat[1], run.sigmas[1]
    noise = torch.randn((3, *x0hat.shape[1:]), generator=torch.Generator().manual_seed(seed_for("renoising", problem.seed, 1)))
    by_hand = restart(organism, run, 1, (1 - sigma) * x0hat + sigma * noise.to(x0hat))
    assert np.array_equal(one.clips[1], organism.decode(by_hand.latents)[0])
    assert '<a href="#reel-' in report.html and "Runs one by one" in report.html


@pytest.mark.slow
def test_a_twin_reproduces_nothing(organism, tmp_path):
    config = CommitmentConfig(items=24, noises=2, pairs=0, num_inference_steps=4, steps=(0, 1, 3))
    _, report = experiment.run_and_report(load("commitment"), config, tmp_path / "run", model=twin_of(organism, 3), workers=1)
    assert "reproduced" not in {f["verdict"] for f in report.data["findings"]} and len(report.data["findings"]) == 4
