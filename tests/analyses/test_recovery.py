"""Recovery: back-step arithmetic, planted models that always and never recover, the null, runs to the end."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from players import item_table, players
from support import hooked_tiny

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import run_and_report
from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.kept import ANSWERS
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.problems import Problem, generate, problems
from cos_interp.analyses.recovery import RecoveryConfig
from cos_interp.analyses.recovery.measure import Donor, Injection, injected, measure, mix, other_prompt, pieces, steps_of, whose
from cos_interp.analyses.recovery.report import (
    after_noise,
    findings,
    first_taken,
    last_recovered,
    recoveries,
    stays_from,
    with_right,
)
from cos_interp.interp import HookedVideoPipeline
from cos_interp.tasks import TASKS

SMALL = {"items": 1, "num_inference_steps": 4, "tasks": ("maze",), "steps": (0, 1, 3), "doses": (1.0,)}


def test_stays_from_and_mix():
    assert stays_from([False, True, False, True, True]) == 3
    assert stays_from([True, True]) == 0 and stays_from([True, False]) is None and stays_from([]) is None
    own, other = torch.zeros(2), torch.tensor([4.0, 8.0])
    assert mix(own, other, 0.25).tolist() == [1.0, 2.0] and torch.equal(mix(own, other, 1), other)


def test_donors_are_wrong_here_and_right_there():
    config = RecoveryConfig(items=2, tasks=("maze", "place"))
    for (problem, other), _ in pieces(config):
        assert other.task == problem.task and not set(other.item.answers) & set(problem.item.answers)
        twin = other_prompt(problem)
        for donor in [d for d in (other, twin) if d is not None]:
            assert whose(problem, donor, problem.item.video) == "target"
            assert whose(problem, donor, donor.item.video) == "donor"
        if twin is not None:
            assert np.array_equal(twin.item.cells[0], problem.item.cells[0]) and twin.seed == problem.seed
    grey = np.full_like(problem.item.video, 128)
    assert whose(problem, None, grey) == "undecided"


def test_the_claims_step_is_among_the_defaults():
    assert 4 in steps_of(RecoveryConfig()) and steps_of(RecoveryConfig(steps=(7,))) == (7,)
    with pytest.raises(ValueError, match="share of the injected latent"):
        RecoveryConfig(doses=(0.0,))


def first_with_twin(config: RecoveryConfig) -> tuple[Problem, Problem]:
    found = ((p, other_prompt(p)) for p in problems(config.model_copy(update={"items": 10})))
    return next((problem, twin) for problem, twin in found if twin is not None)


def planted(organism, monkeypatch, sticky_from: int):
    """The organism with its velocity replaced: before step ``sticky_from`` it leads to the own true latent from anywhere, from
    there on to whichever of the two runs' final latents is nearer to where it is."""
    config = RecoveryConfig(**{**SMALL, "donors": ("prompt",)})
    problem, twin = first_with_twin(config)
    ends = [_encode(organism, p.item.video) for p in (problem, twin)]

    def forward(hidden_states, timestep, encoder_hidden_states, **kwargs):
        x_t, sigma = hidden_states[:, :16], timestep.view(-1, 1, 1, 1, 1) / 1000
        step = min(range(4), key=lambda k: abs(order[k] - float(timestep.flatten()[0])))
        own, other = ends if torch.allclose(encoder_hidden_states[:1], known) else ends[::-1]
        if step < sticky_from:
            return ((x_t - own) / sigma,)
        near = [((x_t - (1 - sigma) * e - sigma * base.x_t[0]) ** 2).flatten(1).sum(1) for e in (own, other)]
        aim = torch.where((near[0] <= near[1]).view(-1, 1, 1, 1, 1), own, other)
        return ((x_t - aim) / sigma,)

    base = organism.run(**problem.call, seed=problem.seed, num_inference_steps=4)
    known, order = base.prompt_embeds[0], base.timesteps

    monkeypatch.setitem(organism.engines["transformer"].module.__dict__, "forward", forward)  # undone, nothing is left
    return config, (problem, None)


def _encode(model, video: np.ndarray) -> torch.Tensor:
    config, pixels = model.pipe.vae.config, torch.from_numpy(video).float().permute(3, 0, 1, 2)[None] / 127.5 - 1
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (config.latents_mean, config.latents_std))
    with torch.no_grad():
        return (model.pipe.vae.encode(pixels).latent_dist.mode() - mean) / std


@pytest.mark.parametrize(("sticky_from", "lost"), [(4, ()), (0, (1, 3)), (2, (3,))])
def test_planted_recovery_is_found_where_it_was_planted(organism, monkeypatch, sticky_from, lost):
    config, piece = planted(organism, monkeypatch, sticky_from)
    rows, judged = with_right(pd.DataFrame(measure(organism, config, piece).rows))
    found = recoveries(rows).set_index("injected")
    assert judged and found.eligible.all()
    for step in (0, 1, 3):
        gone = step in lost
        assert found.loc[step, "recovered"] == float(not gone) and found.loc[step, "foreign"] == float(gone)
        assert found.loc[step, "taken"] == gone
        assert found.loc[step, "back"] == 3 if step == 3 and not gone else np.isnan(found.loc[step, "back"])  # not followed
    never = rows[rows.kind == "never corrected"]
    assert list(never.whose) == ["donor"] and not never.right.any()


def made_up(
    back: int | None, items: int = 24, steps: int = 10, taken: int = 2, at: tuple[int, ...] = (1, 2, 3), noise: int | None = 9
) -> pd.DataFrame:  # fmt: skip
    """Rows of items into which another answer is put at each of ``at``; it is read there from step ``taken`` on, and the right
    one is back from step ``back`` on. Only what was read there is followed between. After noise in the same places the right
    answer is in the final video where it was put in before step ``noise`` (None: no noise is put in)."""
    rows = []
    for item in range(items):
        about = {"problem": str(item), "task": "maze", "difficulty": 5, "effect": None}
        rows.append({**about, "kind": "undisturbed", "step": steps, "whose": "target"})
        rows.append({**about, "kind": "never corrected", "donor": "prompt", "step": steps, "whose": "donor"})
        for k in at:
            run = {**about, "kind": "injected", "donor": "prompt", "dose": 1.0, "injected": k}
            read = [k, steps] if k < taken else range(k, steps + 1)
            right = [k < taken or (back is not None and j >= back) for j in read]
            rows += [{**run, "step": j, "whose": "target" if own else "donor"} for j, own in zip(read, right, strict=True)]
            if noise is not None:
                ends = "target" if k < noise else "other"
                rows += [{**run, "donor": "noise", "step": j, "whose": ends if j == steps else "undecided"} for j in (k, steps)]
    return pd.DataFrame(rows)


def judged(rows: pd.DataFrame, twins=()) -> list:
    marked, _ = with_right(rows)
    return findings(AnalysisResult("recovery", RecoveryConfig(), rows, twins=twins), marked, [1 - k / 10 for k in range(11)], 1.0)


@pytest.mark.parametrize(("back", "verdict"), [(4, "reproduced"), (None, "refuted")])
def test_findings_follow_the_rows(back, verdict):
    unsolved = made_up(back, 3).replace({"problem": {"0": "x", "1": "y", "2": "z"}}).replace({"target": "other"})  # count nowhere
    rows = pd.concat([made_up(back), unsolved], ignore_index=True)
    (found,) = judged(rows)
    assert (
        found.verdict == verdict and found.control.value == 1 and (found.number.n, found.number.value) == (24, float(back == 4))
    )
    assert "0 of 24 at step 1, 24 of 24 at step 2" in found.statement
    summary = recoveries(with_right(rows)[0])
    assert set(summary.problem[~summary.eligible]) == {"x", "y", "z"}
    summary = summary[summary.eligible & (summary.donor == "prompt")]
    assert list(first_taken(summary).injected) == [2] * 24  # at step 1 nothing wrong was there
    assert last_recovered(summary) == (None if back is None else 3)


@pytest.mark.parametrize(("back", "verdict"), [(4, "reproduced"), (None, "refuted")])
def test_a_video_of_which_the_scorer_says_nothing_costs_its_own_run_alone(back, verdict):
    """Its latents lie near the undisturbed run's: by those all would be right at the end."""
    rows = made_up(back).assign(effect=1.0)
    ends = (rows.problem == "0") & (rows.step == 10)
    injected = ends & (rows.donor == "prompt") & (rows.injected == 2)  # the item has another one, at step 3
    for unread, n in ((injected, 24), (ends & (rows.kind == "undisturbed"), 23)):
        lost = rows.assign(whose=rows.whose.where(~unread, None))
        (found,) = judged(lost)
        assert with_right(lost)[1] and (found.verdict, found.number.n, found.number.value) == (verdict, n, float(back == 4))


def test_what_was_never_there_is_not_recovered_from():
    """A placebo: the donor is the run itself, or the injection changes nothing. All are right at the end, none is eligible."""
    (found,) = judged(made_up(None, taken=11))
    assert found.verdict == "not testable" and found.number.n == 0 and "no item is eligible" in found.why


@pytest.mark.parametrize(("back", "noise", "verdict"), [
    (None, 2, "not testable"), (None, 3, "refuted"), (None, None, "not testable"), (4, 2, "reproduced"), (4, None, "reproduced"),
])  # fmt: skip
def test_where_noise_is_not_got_back_either_nothing_is_refuted(back, noise, verdict):
    """A model that mends nothing late mends no wrong answer either, which says nothing of wrong answers. The answer is read from
    step 2 on; noise is got back before step ``noise``."""
    (found,) = judged(made_up(back, noise=noise))
    assert found.verdict == verdict and found.control.n == (0 if noise is None else 24)
    if verdict == "not testable":
        assert ("not known without noise" if noise is None else "0 of 24; at most 0.14: nothing can be corrected") in found.why


def test_noise_is_held_against_the_same_step_of_the_same_item():
    rows = recoveries(
        with_right(pd.concat([made_up(None, 2, taken=2), made_up(None, 3, taken=3).replace({"0": "x", "1": "y"})]))[0]
    )
    first = first_taken(rows[rows.donor == "prompt"])
    assert after_noise(first, rows.assign(recovered=(rows.injected == 3).astype(float))).sort_index().to_dict() == {
        "0": 0, "1": 0, "2": 1, "x": 1, "y": 1,
    }  # fmt: skip


@pytest.mark.parametrize(("at", "n"), [((1, 9), 0), ((1, 8), 24), ((1, 8, 9), 24)])
def test_nothing_can_be_corrected_at_the_last_step(at, n):
    """Its clean estimate is the final video of a flow: what is read there is read at the end, by construction."""
    (found,) = judged(made_up(None, taken=8, at=at))
    assert found.number.n == n and found.verdict == ("refuted" if n else "not testable")
    assert "at step 9" not in found.statement


def test_the_last_steps_estimate_is_the_final_video(organism):
    config = RecoveryConfig(**SMALL)
    run = generate(organism, config, problems(config)[0])
    assert torch.allclose(run.x0hat[run.steps - 1], run.latents, atol=1e-5)
    assert max(steps_of(RecoveryConfig())) == 18 and steps_of(RecoveryConfig(num_inference_steps=2)) == (0,)


def test_recovery_that_a_twin_shows_too_is_not_reproduced():
    assert judged(made_up(4), [{"recovery.prompt": Number(0.9, 0.7, 1.0, 20)}])[0].verdict == "undecided"
    none = Number(float("nan"), why="no item is eligible")
    assert judged(made_up(4), [{"recovery.prompt": none}])[0].verdict == "reproduced"
    assert judged(made_up(4, items=19))[0].verdict == "not testable"


def test_the_injected_state_is_the_donors_at_the_same_sigma(organism):
    config = RecoveryConfig(**SMALL)
    problem, twin = first_with_twin(config)
    run = generate(organism, config, problem)
    donor = Donor("prompt", twin, generate(organism, config, twin, problem.seed))
    assert torch.equal(injected(Injection(donor, 1.0, 0), run, 1), run.x_t[0])  # one noise: step 0 injects nothing
    assert torch.equal(injected(Injection(donor, 1.0, 2), run, 1), donor.run.x_t[2])
    noise = injected(Injection(Donor("noise"), 1.0, 2), run, 1)
    assert float(noise.std()) == pytest.approx(run.sigmas[2], rel=0.1)


def test_a_run_on_the_organism(organism, tmp_path):
    config = RecoveryConfig(**SMALL | {"items": 2})
    result, report = run_and_report(load("recovery"), config, tmp_path / "run", model=organism, workers=1)
    assert RunStore(tmp_path / "run").verify() == []
    rows = result.rows
    assert set(rows.kind) == {"undisturbed", "never corrected", "injected"}
    assert set(rows.donor.dropna()) == {"other", "prompt", "noise"}
    first = rows[(rows.injected == 0) & (rows.donor == "prompt") & (rows.step == 4)]
    assert (first.distance < 1e-5).all()  # nothing was injected
    assert {f["verdict"] for f in report.data["findings"]} <= {"reproduced", "undecided", "refuted", "not testable"}
    shown = players(report.html)
    for donor in ("another item", "noise"):  # each final video with whose answer it gives, at its place in the maps
        one = shown[f"maze-000, {donor}"]["rows"]
        put_in = rows[(rows.donor == ("noise" if donor == "noise" else "other")) & (rows.problem == "maze-000")]
        put_in = put_in[(put_in.kind == "injected") & (put_in.step == rows.step.max())]
        assert [row["at"]["injection step"] for row in one if row["at"]] == put_in.injected.tolist()
        assert [row["told"]["answer"] for row in one if row["at"]] == put_in.whose.map(ANSWERS).tolist()
    table = item_table(report.html)
    own = [row for row in table if row["item"] == "maze-000" and row["injected"] == "another item"]
    ends = rows[(rows.problem == "maze-000") & (rows.donor == "other") & (rows.kind == "injected") & (rows.step == 4)]
    assert [row["answer at the end"] for row in own] == ends.whose.map(ANSWERS).tolist() and all(row["opens"] for row in own)
    assert {(row["task"], row["difficulty"]) for row in table} == {
        (str(task), str(difficulty)) for task, difficulty in zip(rows.task, rows.difficulty, strict=True)
    }


def test_the_untrained_twin_has_nothing_to_recover(tmp_path):
    from cos_interp.organism.package import untrained_twin
    from cos_interp.organism.shapes import CALL_DEFAULTS

    model = HookedVideoPipeline(untrained_twin(), "untrained", CALL_DEFAULTS)
    config = RecoveryConfig(**SMALL | {"items": 2, "num_inference_steps": 2, "steps": (1,)})
    _, report = run_and_report(load("recovery"), config, tmp_path / "run", model=model, workers=1)
    assert {f["verdict"] for f in report.data["findings"]} == {"not testable"}


def test_a_pipeline_without_a_verifier(prompts, tmp_path):
    config = RecoveryConfig(prompts=prompts, num_inference_steps=3, guidance_scale=3.0)
    result, report = run_and_report(load("recovery"), config, tmp_path / "run", model=hooked_tiny(), workers=1)
    assert RunStore(tmp_path / "run").verify() == [] and result.rows.whose.isna().all()
    assert set(result.rows.donor.dropna()) == {"other", "noise"} and any("no verifier" in line for line in report.lines)
    assert TASKS and len(report.data["findings"]) == 1
