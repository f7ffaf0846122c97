"""Chain-of-Steps, commitment and ensemble: pure maths, planted trajectories, null models, real runs."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from support import build_tiny, tiny_call

from cos_interp.analyses.chain_of_steps import ChainOfStepsConfig, StepsFacts
from cos_interp.analyses.chain_of_steps import report as chain_of_steps_report
from cos_interp.analyses.commitment import CommitmentConfig
from cos_interp.analyses.commitment import measure as commitment
from cos_interp.analyses.commitment import report as commitment_report
from cos_interp.analyses.driver import experiment, pages
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.ensemble import EnsembleConfig
from cos_interp.analyses.ensemble import measure as ensemble
from cos_interp.analyses.kit import readings, screening
from cos_interp.analyses.kit.problems import Problem, item_call, problems
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.interp import EnsembleSampler, HookedVideoPipeline, InterpError
from cos_interp.interp.ensemble import EnsembleRecipe, merge, run_ensemble
from cos_interp.interp.run.prediction import Clean
from cos_interp.interp.trajectory import Run
from cos_interp.tasks import TASKS, Verdict

SMALL = {"items": 1, "num_inference_steps": 4}


def planted_rows(stages: list[np.ndarray], item) -> list[dict]:
    """Rows of a trajectory whose clean estimates are given videos (pixels), read by the real verifier."""
    problem = next(p for p in problems(ChainOfStepsConfig(items=1)) if p.task == item.task)
    problem = type(problem)("maze-000", problem.call, 0, 0, item)
    latents = [torch.full((1, 1, 1, 1, 1), float(len(stages) - k)) for k in range(len(stages))]
    count = len(stages) - 1
    run = Run(
        sigmas=[0.5] * count, x_t=latents[:-1], v=[torch.zeros_like(latents[0])] * count, clean=[Clean(1.0, -0.5, 0.5)] * count
    )
    run.latents = latents[-1]
    return [{**problem.facts, "noise": 0, **row} for row in readings.read_steps(problem, np.stack(stages), run)]


@pytest.fixture(scope="module")
def ambiguous():
    return TASKS["maze"].sample(11, unique=False, difficulty=4)


def blend(item) -> np.ndarray:
    """The average of two right videos: what the first clean estimate of an ambiguous item looks like."""
    videos = [TASKS["maze"].with_answer(item, a).video.astype(float) for a in item.answers[:2]]
    return np.mean(videos, 0).astype(np.uint8)


def test_commit_step_and_changes():
    assert readings.commit_step([None, "b", "a", None, "a", "a"]) == 4
    assert readings.commit_step(["a", "a"]) == 0
    assert readings.commit_step(["a", None]) is None and readings.commit_step([]) is None
    assert readings.answer_changes([None, "b", "a", None, "a", "b"]) == 2


def test_items_lead_to_their_videos_beside_rows_that_have_no_noise():
    """The rows of the sweep name none, which makes the column one of broken numbers."""
    rows = [{"problem": p, "noise": 0, "step": k, "status": "solved", "answer": "a"} for p in ("m-000", "m-001") for k in (0, 1)]
    held = pd.DataFrame([*rows, {"problem": "m-000", "noise": None}]).assign(task="maze", unique=True, difficulty=1)
    reel = pages.Reel("m-000-noise-0", "", np.zeros((1, 1, 1, 1, 3), np.uint8), [pages.Shown("final video")])
    listed = chain_of_steps_report.items(held[held.noise.notna()], [reel])["run"].tolist()
    assert listed == [pages.Link("m-000-noise-0", "m-000-noise-0"), "m-001-noise-0"]


def test_a_planted_trajectory_is_read_as_it_was_made(ambiguous):
    other = TASKS["maze"].with_answer(ambiguous, next(a for a in ambiguous.answers if a != ambiguous.answer))
    rows = pd.DataFrame(planted_rows([blend(ambiguous), other.video, ambiguous.video, ambiguous.video], ambiguous))
    assert rows.status.tolist() == ["undecided", "solved", "solved", "solved"]
    found = chain_of_steps_report.commitments(rows).iloc[0]
    assert (found.commit, found.changes, bool(found["unique"])) == (2, 1, False)
    assert rows[[c for c in rows if c.startswith("frame_")]].iloc[1:].all().all()  # both are right answers in every frame
    assert not rows["frame_8"].iloc[0] and rows["frame_0"].iloc[0]
    assert rows.distance.tolist() == [3.0, 2.0, 1.0, 0.0]


def test_frames_that_form_one_after_the_other_count_as_frames(ambiguous):
    """A Chain-of-Frames trajectory: at step k the first frames are final, the others still the first frame."""
    final, frozen = ambiguous.video, np.repeat(ambiguous.video[:1], 9, 0)
    stages = [np.concatenate([final[:k], frozen[k:]]) for k in (1, 3, 5, 9)]
    table = chain_of_steps_report.steps_against_frames(pd.DataFrame(planted_rows(stages, ambiguous)))
    assert table.loc[1].tolist()[:2] == [1.0, 1.0] and table.loc[1].tolist()[-1] == 0.0
    assert table.loc[3].eq(1).all() and table.loc[0].tolist()[-1] == 0.0


def test_renoising_keeps_only_the_clean_estimate():
    x0hat, noise = torch.full((1, 2), 2.0), torch.full((3, 2), -1.0)
    assert torch.equal(commitment.renoised(x0hat, 1.0, noise), noise)
    assert torch.equal(commitment.renoised(x0hat, 0.0, noise), x0hat.expand(3, 2))
    assert torch.allclose(commitment.renoised(x0hat, 0.25, noise), torch.full((3, 2), 1.25))


def test_a_step_is_renoised_at_its_own_sigma(organism, monkeypatch):
    """The states from which runs go on, against the flow formula on the scheduler's own sigmas."""
    item = TASKS["maze"].sample(4)
    problem = Problem("maze-000", item_call(item), 7, 0, item)
    run = organism.run(**problem.call, seed=problem.seed, num_inference_steps=4)
    sigmas, states = organism.pipe.scheduler.sigmas.tolist(), []

    def restart(model, run, step, latents):
        states.append(latents)
        return SimpleNamespace(latents=run.latents.repeat(commitment.DRAWS, 1, 1, 1, 1))

    monkeypatch.setattr(commitment, "restart", restart)
    list(commitment._renoise(organism, problem, run, None, (0, 2, 3)))
    for step, state in zip((0, 2, 3), states, strict=True):
        generator = torch.Generator().manual_seed(seed_for("renoising", problem.seed, step))
        noise = torch.randn((commitment.DRAWS, *run.latents.shape[1:]), generator=generator)
        x0hat = run.x_t[step] - sigmas[step] * run.v[step]
        torch.testing.assert_close(state, (1 - sigmas[step]) * x0hat + sigmas[step] * noise)


def test_committed_step_is_the_first_from_which_all_agree():
    rows = pd.DataFrame([
        {"problem": p, "step": k, "same": s}
        for p, each in {"a": [(0, 1), (1, 0), (1, 1)], "b": [(1, 1), (1, 1), (1, 0)]}.items()
        for k, pair in zip((0, 5, 9), each, strict=True) for s in map(bool, pair)
    ])  # fmt: skip
    found = commitment_report.committed_step(rows)
    assert found["a"] == 9 and np.isnan(found["b"])


def test_screening_maths():
    assert screening.best_of([True, False, False], 1) == pytest.approx(1 / 3)
    assert screening.best_of([True, False, False], 2) == pytest.approx(2 / 3)
    assert screening.best_of([True, False, False], 1.5) == pytest.approx(0.5)
    assert screening.best_of([True, False], 9) == 1.0
    assert screening.screened([0.1, 0.9, 0.9], [True, True, False]) == 0.5
    assert screening.equal_compute(4, 4, 20) == pytest.approx((4 * 5 + 15) / 20)
    assert screening.look_score(Verdict("solved")) == 1 and screening.look_score(Verdict("wrong")) == 0
    assert screening.look_score(Verdict("undecided", readings={"unreadable_cells": 225.0})) == 0


def test_a_perfect_look_finds_the_good_seed_and_a_blind_one_does_not():
    rng = np.random.default_rng(0)
    rows = [
        {"problem": f"p{i}", "noise": n, "step": k, "sigma": 1 - k / 10, "solved": n == good,
         "score": float(n == good) if k == 5 else float(rng.random())}
        for i in range(60) for good in [int(rng.integers(4))] for n in range(4) for k in (0, 5)
    ]  # fmt: skip
    table = screening.screening_table(pd.DataFrame(rows), 10).groupby("step")[["single", "screened"]].mean()
    assert table.loc[5, "screened"] == 1.0 and table.loc[5, "single"] == 0.25
    assert abs(table.loc[0, "screened"] - 0.25) < 0.15
    area = commitment_report.auc_by_step(pd.DataFrame(rows)).set_index("step")
    assert area.loc[5, "mean"] == 1.0 and area.loc[0, "low"] < 0.5 < area.loc[0, "high"]


def test_merging_rows():
    members = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    assert torch.equal(merge(members), torch.tensor([[1.5, 2.0], [1.5, 2.0]]))
    three = torch.tensor([[3.0, 0.0], [0.0, 4.0], [9.0, -1.0]])
    assert torch.equal(merge(three), torch.tensor([[4.0, 1.0]] * 3))
    matched = merge(members, "norm-matched")
    assert torch.allclose(matched.norm(dim=1), torch.tensor([3.0, 4.0])) and torch.allclose(matched[0] * 4 / 3, matched[1])


def test_majority_and_cost():
    right, wrong, blur = Verdict("solved", "", "x"), Verdict("wrong", "e", "y"), Verdict("undecided")
    assert ensemble.majority([wrong, right, right]) and not ensemble.majority([wrong, wrong, right])
    assert not ensemble.majority([blur, blur]) and ensemble.majority([blur, right])
    assert ensemble.compute(3, (0,), 20) == pytest.approx(1.1) and ensemble.compute(3, (19,), 20) == 3.0


def test_an_ensemble_of_one_seed_thrice_is_the_single_run(organism):
    item = TASKS["maze"].sample(4)
    call = {"prompt": item.prompt, "image": Image.fromarray(item.first_frame), "num_inference_steps": 4}
    alone = organism.run(**call, seed=5)
    for tensor in ("hidden", "v", "x0hat", "x_t"):
        merged = run_ensemble(organism, EnsembleRecipe(tensor), [5, 5, 5], **call)
        assert torch.allclose(merged.latents[:1], alone.latents, atol=2e-4), tensor
    before = organism.block_calls
    run_ensemble(organism, EnsembleRecipe("v", steps=(0, 1)), [5, 6, 7], **call)
    assert organism.block_calls - before == 8 * (2 * 3 + 2)  # three rows in two steps, then one


def test_merged_hidden_states_are_what_the_next_block_sees(organism):
    item = TASKS["maze"].sample(4)
    call = {"prompt": item.prompt, "image": Image.fromarray(item.first_frame), "num_inference_steps": 3}
    seen = []
    with organism.hooks([("blocks.3.hook_resid_pre @ step=0", lambda act, hook: seen.append(act.clone()))]):
        run_ensemble(organism, EnsembleRecipe("hidden", layers=(2,)), [1, 2, 3], **call)
    assert torch.equal(seen[0][0], seen[0][1]) and torch.equal(seen[0][0], seen[0][2])


@pytest.mark.parametrize("family", ["wan21-t2v", "wan22-i2v"])
def test_the_sampler_plugs_into_a_pipeline(family):
    call = tiny_call(family, guidance=2.0, steps=3)
    pipe = build_tiny(family)
    out = EnsembleSampler(pipe, seeds=3, tensor="x0hat")(**call)
    plain = build_tiny(family)(**call, generator=torch.Generator().manual_seed(0))
    assert out.frames.shape == plain.frames.shape and out[0] is out.frames
    again = EnsembleSampler(pipe, seeds=3, tensor="x0hat")(**call, return_dict=False)[0]
    assert np.array_equal(again, out.frames)
    with pytest.raises(InterpError, match="one prompt"):
        EnsembleSampler(pipe)(**{**call, "prompt": ["a", "b"]})
    with pytest.raises(InterpError, match="steps 0 to 2"):
        EnsembleSampler(pipe, steps=(7,))(**call)
    last, plain_last = (EnsembleSampler(pipe, steps=steps, seeds=2)(**call, output_type="latent").frames for steps in (-1, 2))
    assert torch.equal(last, plain_last)  # steps as everywhere


@pytest.mark.parametrize(
    ("made", "message"),
    [({"combine": "x"}, "combine='x': there are mean, norm-matched"), ({"tensor": "hiden"}, "tensor='hiden': there are hidden"),
     ({"seeds": [1, 1]}, "each another one"), ({"seeds": 1}, "two seeds"), ({"layers": 99}, "no layer 99"),
     ({"at": 3}, "no 'at'")],
)  # fmt: skip
def test_a_sampler_that_cannot_be_is_refused_when_it_is_made(made, message):
    with pytest.raises(InterpError, match=message):
        EnsembleSampler(build_tiny("wan21-t2v"), **made)


def test_a_seed_in_the_call_of_a_sampler_is_refused():
    with pytest.raises(InterpError, match="seeds="):
        EnsembleSampler(build_tiny("wan21-t2v"), seeds=2)(**tiny_call("wan21-t2v", steps=2), seed=3)


CASES = {
    "chain-of-steps": (
        load("chain-of-steps"),
        ChainOfStepsConfig(**SMALL | {"items": 2}, noises=2, tasks=("maze", "place"), sweep_items=0),
    ),
    "commitment": (load("commitment"), CommitmentConfig(**SMALL, noises=2, pairs=1, tasks=("maze",), steps=(0, 3))),
    "ensemble": (load("ensemble"), EnsembleConfig(**SMALL, tasks=("maze", "bounce"), tensors=("v", "x_t"))),
}


@pytest.mark.parametrize("name", CASES)
def test_a_small_real_run_with_its_report(name, organism, tmp_path):
    made, config = CASES[name]
    result, report = experiment.run_and_report(made, config, tmp_path / "run", model=organism, workers=1)
    assert RunStore(tmp_path / "run").verify() == []
    assert "cos analyze " + name in report.html and "<svg" in report.html and len(result.rows)
    again = experiment.run(made, config, tmp_path / "run", model=organism, workers=1)
    pd.testing.assert_frame_equal(result.rows, again.rows)
    json.dumps(report.data)
    if name == "chain-of-steps":
        kept = {name: facts for name, facts in result.units_of(StepsFacts).items() if facts.answers}
        assert kept  # the first item of a task with several right answers is shown, and how much of each at every step
        for unit, facts in kept.items():
            weights = RunStore(tmp_path / "run").tensors(unit)["weights"]
            assert weights.shape == (5, len(facts.answers))
            assert all(re.search(rf"\b{re.escape(one)} [01]\.\d\d", report.html) for one in facts.answers)
    if name == "commitment" and (result.rows.kind == "transplant").any():
        moved = result.rows[(result.rows.site == "hook_x_t") & (result.rows.group == "all")]
        assert (moved.effect == 1).all()


@pytest.mark.parametrize("name", CASES)
def test_own_prompts_run_without_a_verifier(name, tmp_path):
    call = {k: v for k, v in tiny_call("wan21-t2v").items() if k not in ("num_inference_steps", "guidance_scale")}
    (tmp_path / "own.jsonl").write_text(json.dumps(call) + "\n")
    made, config = CASES[name]
    config = config.model_copy(update={"prompts": str(tmp_path / "own.jsonl")})
    model = HookedVideoPipeline.from_pipeline(build_tiny("wan21-t2v"))
    _, report = experiment.run_and_report(made, config, tmp_path / "run", model=model, workers=1)
    assert "no verifier" in report.html and report.data["findings"] == []


def test_own_prompts_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "own.jsonl"
    for text, words in (("", "no lines"), ("{", "JSON"), ('{"image": "x.png"}', "'prompt' is missing"),
                        ('{"prompt": "a", "image": "x.png"}', "x.png")):  # fmt: skip
        path.write_text(text)
        with pytest.raises(InterpError, match=words):
            problems(ChainOfStepsConfig(prompts=str(path)))
    with pytest.raises(InterpError, match="nowhere"):
        problems(ChainOfStepsConfig(prompts="nowhere.jsonl"))
