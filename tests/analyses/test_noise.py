"""Noise at steps and frames: the modes by hand, a planted model without repair, the null, and runs to the end."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from support import hooked_tiny

from cos_interp.analyses.driver.experiment import run_and_report
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit import perturb
from cos_interp.analyses.kit.problems import problems
from cos_interp.analyses.noise import NoiseConfig
from cos_interp.analyses.noise.measure import Disturbance, Disturber, at_frames, at_steps, measure
from cos_interp.analyses.noise.report import findings, lost_share, scored
from cos_interp.interp import HookedVideoPipeline, InterpError

SHAPE = (1, 4, 3, 2, 2)
SMALL = {"items": 1, "num_inference_steps": 4, "steps": (0, 2), "frames": (1, 4)}


def gaussian(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def test_modes_against_their_formulas():
    x0hat, old, new, sigma = gaussian(0), gaussian(1), gaussian(2), 0.6
    x_t = 0.4 * x0hat + 0.6 * old
    assert torch.allclose(perturb.implied_noise(x_t, x0hat, sigma), old, atol=1e-6)
    assert torch.equal(perturb.disturb(x_t, x0hat, sigma, "replace", 1.0, new), new)
    assert torch.allclose(perturb.disturb(x_t, x0hat, sigma, "add", 2.0, new), x_t + 1.2 * new)
    assert torch.allclose(perturb.disturb(x_t, x0hat, sigma, "renoise", 1.0, new), 0.4 * x0hat + 0.6 * new)
    half = perturb.disturb(x_t, x0hat, sigma, "renoise", 0.6, new)
    assert torch.allclose(half, 0.4 * x0hat + 0.6 * (0.8 * old + 0.6 * new), atol=1e-6)
    assert torch.allclose(perturb.erase(x_t, x0hat, sigma, new), 0.6 * new, atol=1e-6)
    assert torch.equal(perturb.renoise(x_t, x0hat, 0.0, new), x_t)


def test_masks_leave_everything_else_alone():
    x_t, noise = gaussian(0), gaussian(1)
    mask = perturb.region((3, 2, 2), frames=(1,), rows="0", cols="[1]")
    assert mask.sum() == 1 and mask[1, 0, 1]
    for mode in ("replace", "add", "renoise"):
        changed = (perturb.disturb(x_t, x_t, 0.5, mode, 1.0, noise, mask) != x_t).any(1)[0]
        assert torch.equal(changed, mask)
    with pytest.raises(ValueError, match="rows 0 to 1"):
        perturb.region((3, 2, 2), rows="5")


def test_shuffle_moves_whole_tokens_inside_the_mask():
    x_t, noise = gaussian(0), gaussian(1)
    mask = perturb.region((3, 2, 2), frames=(0, 2))
    out = perturb.disturb(x_t, x_t, 0.5, "shuffle", 1.0, noise, mask)
    assert torch.equal(out[:, :, 1], x_t[:, :, 1])
    before, after = x_t[:, :, [0, 2]].flatten(2)[0].T, out[:, :, [0, 2]].flatten(2)[0].T
    assert sorted(map(tuple, before.tolist())) == sorted(map(tuple, after.tolist()))
    assert not (before == after).all(1).any()  # at dose 1 no token stays
    moved = (perturb.disturb(x_t, x_t, 0.5, "shuffle", 0.5, noise) != x_t).any(1)
    assert moved.sum() == 6  # half of 12 tokens
    patch = perturb.disturb(x_t, x_t, 0.5, "shuffle", 1.0, noise, patch=(1, 2, 2))
    frames = {tuple(f.flatten().tolist()) for f in x_t[0].unbind(1)}
    assert {tuple(f.flatten().tolist()) for f in patch[0].unbind(1)} == frames  # a frame is one token here


def test_doses_hold_the_asked_share_of_the_energy():
    big = (1, 16, 20, 20, 20)
    old, new = (torch.randn(big, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    for mode in ("replace", "add", "renoise", "shuffle"):
        whole = perturb.disturb(old, torch.zeros(big), 1.0, mode, 1.0, new)
        low = perturb.disturb(old, torch.zeros(big), 1.0, mode, perturb.dose_for_share(mode, 1.0, 0.2), new)
        assert perturb.energy(old, low) / perturb.energy(old, whole) == pytest.approx(0.2, rel=0.03)
    assert perturb.dose_for_share("add", 2.0, 0.25) == 1.0
    assert perturb.dose_for_share("renoise", 1.0, 0.2) == pytest.approx(math.sqrt(1 - 0.8**2))


def test_disturbances_are_what_their_kinds_say():
    config = NoiseConfig(modes=("add",), steps=(3,))
    step, one, low = at_steps(config, 5, draw=7)
    assert (step.frames, len(one.frames), low.frames) == ((0, 1, 2, 3, 4), 1, (0, 1, 2, 3, 4))
    assert low.dose == pytest.approx(1 / math.sqrt(5)) and low.nominal == 1
    assert one == at_steps(config, 5, draw=7)[1]  # the drawn frame belongs to the problem
    frame, few = at_frames(NoiseConfig(modes=("add",), frames=(2,)), 5)
    assert frame.steps == tuple(range(20)) and few.steps == (0, 5, 10, 14, 19) and frame.frames == few.frames == (2,)
    with pytest.raises(InterpError, match="frames 0 to 4"):
        at_frames(NoiseConfig(frames=(5,)), 5)
    for bad in ({"doses": (0.0,)}, {"doses": (2.0,)}):
        with pytest.raises(ValueError, match="dose"):
            NoiseConfig(**bad)
    assert NoiseConfig(modes=("add",), doses=(2.0,)).doses == (2.0,)


def test_a_model_that_repairs_nothing_keeps_exactly_the_displacement(prompts, monkeypatch):
    """Planted: a constant velocity. What is added at step s is there at the end, no more and no less."""
    model = hooked_tiny()
    module = model.engines["transformer"].module
    monkeypatch.setattr(module, "forward", lambda hidden_states, **kw: (torch.ones_like(hidden_states),))
    config = NoiseConfig(prompts=prompts, num_inference_steps=4, modes=("add",))
    problem = problems(config)[0]
    rows = pd.DataFrame(measure(model, config, problem).rows)
    run = model.run(**problem.call, seed=problem.seed, num_inference_steps=4, guidance_scale=1.0)
    for row in rows[rows.kind == "step"].itertuples():
        noise = perturb.noise_like(run.latents, problem.seed, int(row.step))
        expected = float(run.sigmas[int(row.step)] * noise.norm() / run.latents.norm())
        assert row.distance == pytest.approx(expected, rel=1e-4)
    energy = rows[rows.kind.isin(["step", "step-spread"])].groupby("kind").energy.sum()
    assert energy["step-spread"] / energy["step"] == pytest.approx(1 / run.latents.shape[2], rel=1e-3)
    assert rows.distance_elsewhere.dropna().max() < 1e-6  # what is in one frame stays there


def test_a_model_that_always_finds_its_target_is_not_hurt(prompts, monkeypatch):
    """Planted: the velocity leads to one target from everywhere. Only what comes with the last step's own noise is left."""
    model = hooked_tiny()
    engine = model.engines["transformer"]
    target = torch.randn(1, 4, 3, 4, 4, generator=torch.Generator().manual_seed(3))

    def forward(hidden_states, timestep, **kwargs):
        return ((hidden_states - target.to(hidden_states)) / (timestep.view(-1, 1, 1, 1, 1) / 1000),)

    monkeypatch.setattr(engine.module, "forward", forward)
    config = NoiseConfig(prompts=prompts, num_inference_steps=4)
    rows = pd.DataFrame(measure(model, config, problems(config)[0]).rows)
    assert rows.distance.max() < 1e-4


def made_up(step: float, frame: float, mode: str = "renoise", items: int = 12) -> pd.DataFrame:
    """Rows in which a share of the items survives noise at a step, and another noise at a frame."""
    rows = []
    for i in range(items):
        rows.append({"problem": str(i), "kind": "none", "mode": None, "dose": 0.0, "step": None, "status": "solved"})
        for kind, share in {
            "step": step, "step-one-frame": frame, "step-spread": step, "frame": frame, "frame-few-steps": step,
        }.items():  # fmt: skip
            status = "solved" if i < share * items else "wrong"
            rows.append({"problem": str(i), "kind": kind, "mode": mode, "dose": 1.0, "step": 0, "status": status})
    return pd.DataFrame(rows)


def test_findings_follow_the_rows():
    for step, frame, verdicts in ((0.0, 1.0, ["reproduced"] * 2), (1.0, 0.0, ["refuted"] * 2)):
        rows, label = scored(made_up(step, frame))
        found = findings(rows, ("renoise", "add"), 1.0, label)
        assert [f.verdict for f in found] == verdicts and label == "solved"
        assert found[1].control.value == 0  # at equal energy the made-up model makes no difference
    same = findings(scored(made_up(0.5, 0.5))[0], ("renoise",), 1.0, "solved")
    assert same[1].verdict == "undecided" and same[1].number.value == 0
    literal = findings(scored(made_up(1.0, 0.0, "replace"))[0], ("replace",), 1.0, "solved")
    assert literal[1].verdict == "not testable"  # the last step's noise stays in the frame: forced, not found
    nothing = pd.Series([0.0, 0.0])
    assert np.isnan(lost_share(nothing, nothing).value)  # nothing solved, nothing to lose


def test_the_lost_share_is_of_all_that_was_solved():
    base, disturbed = pd.Series([1.0, 1.0, 1.0, 0.0], list("abcd")), pd.Series([0.0, 0.0, 1.0, 0.5], list("dbca"))
    assert lost_share(base, disturbed).value == pytest.approx(0.5)  # of a, b, c are left 0.5, 0 and 1


@pytest.mark.slow
def test_the_untrained_twin_shows_nothing(tmp_path):
    from cos_interp.organism.package import untrained_twin
    from cos_interp.organism.shapes import CALL_DEFAULTS

    model = HookedVideoPipeline(untrained_twin(), "untrained", CALL_DEFAULTS)
    config = NoiseConfig(items=1, num_inference_steps=2, steps=(1,), frames=(1,), tasks=("maze", "place"), modes=("replace",))
    _, report = run_and_report(load("noise"), config, tmp_path / "run", model=model, workers=1)
    assert {f["verdict"] for f in report.data["findings"]} <= {"not testable", "undecided"}


def test_a_run_on_the_organism(organism, tmp_path):
    config = NoiseConfig(**SMALL, tasks=("maze",))
    result, report = run_and_report(load("noise"), config, tmp_path / "run", model=organism, workers=1)
    assert RunStore(tmp_path / "run").verify() == []
    assert len(result.rows) == 1 + 4 * (2 * 3 + 2 * 2)
    fresh = result.rows[(result.rows.kind == "step") & (result.rows["mode"] == "renoise") & (result.rows.step == 0)].iloc[0]
    assert fresh.energy == pytest.approx(2, rel=0.15)  # at sigma 1 the noise is simply another one
    assert len(report.data["findings"]) == 4 and "<svg" in report.html and "sigma" in report.html


def test_rows_of_a_batch_do_not_depend_on_each_other(organism):
    config = NoiseConfig(items=1, num_inference_steps=3, steps=(1,), frames=(2,), tasks=("maze",), modes=("renoise", "add"))
    problem = problems(config)[0]
    rows = {b: pd.DataFrame(measure(organism, config.model_copy(update={"batch": b}), problem).rows) for b in (1, 12)}
    assert np.allclose(rows[1].distance, rows[12].distance, atol=1e-3)
    assert np.allclose(rows[1].energy, rows[12].energy, rtol=1e-4)


def test_renoise_at_every_step_keeps_the_estimate_of_the_step_before(organism):
    config = NoiseConfig(num_inference_steps=3, modes=("renoise",), tasks=("maze",), items=1)
    problem = problems(config)[0]
    what = Disturbance("frame", "renoise", 1.0, (0, 1, 2), tuple(range(5)), 1.0)
    call = dict(problem.call, seed=problem.seed, num_inference_steps=3, guidance_scale=1.0)
    base = organism.run(**call)
    disturber = Disturber(organism, config, base, problem.seed, [what])
    run = organism.run_with_hooks(fwd_hooks=disturber.hooks(), **call)
    for k in (1, 2):
        noise = perturb.noise_like(run.latents, problem.seed, k)
        expected = (1 - run.sigmas[k]) * run.x0hat[k - 1] + run.sigmas[k] * noise
        assert torch.allclose(run.x_t[k], expected, atol=1e-5)


@pytest.mark.parametrize("family", ["wan21-t2v", "wan22-t2v"])
def test_a_pipeline_without_a_verifier(prompts, tmp_path, family):
    config = NoiseConfig(prompts=prompts, num_inference_steps=3, modes=("renoise", "shuffle"), guidance_scale=3.0)
    result, report = run_and_report(
        load("noise"), config, tmp_path / "run", model=hooked_tiny(family, scheduler="unipc"), workers=1
    )
    assert RunStore(tmp_path / "run").verify() == [] and result.rows.status.isna().all()
    assert (result.rows[result.rows.kind != "none"].distance > 0).all()
    assert any("no verifier" in line for line in report.lines) and any("UniPC" in line for line in report.lines)
    assert len(report.data["findings"]) == 1
