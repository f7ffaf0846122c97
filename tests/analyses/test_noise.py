"""Noise at steps and frames: the modes by hand, a planted model without repair, the null, and runs to the end."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from players import players, read_in
from support import hooked_tiny

from cos_interp.analyses.driver import twins
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean
from cos_interp.analyses.driver.experiment import run_and_report
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit import perturb
from cos_interp.analyses.kit.problems import problems
from cos_interp.analyses.noise import NoiseConfig, NoiseFacts
from cos_interp.analyses.noise.measure import Disturbance, Disturber, at_frames, at_steps, between, measure, steps_of
from cos_interp.analyses.noise.report import findings, loss_table, lost, scored
from cos_interp.interp import InterpError

SHAPE = (1, 4, 3, 2, 2)
MODES = ("replace", "renoise")
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
    assert frame.steps == tuple(range(20)) and few.steps == (3, 6, 10, 13, 16) and frame.frames == few.frames == (2,)
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
    monkeypatch.setitem(module.__dict__, "forward", lambda hidden_states, **kw: (torch.ones_like(hidden_states),))
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

    monkeypatch.setitem(engine.module.__dict__, "forward", forward)
    config = NoiseConfig(prompts=prompts, num_inference_steps=4)
    rows = pd.DataFrame(measure(model, config, problems(config)[0]).rows)
    assert rows.distance.max() < 1e-4


def test_the_same_cells_by_frame_and_by_step():
    """Frames at the steps between, and steps at all frames: the same (frame, step) have noise, without the first and the last."""
    config = NoiseConfig(modes=("renoise",))
    by_frame = [(f, k) for d in at_frames(config, 5) if d.kind == "frame-few-steps" for f in d.frames for k in d.steps]
    few = between(20, 5)
    by_step = [
        (f, k) for d in at_steps(config, 5, 0) if d.kind == "step" and d.steps[0] in few for f in d.frames for k in d.steps
    ]
    assert sorted(by_frame) == sorted(by_step) and len(by_frame) == 25
    assert steps_of(config, 5) == (0, 3, 6, 10, 13, 16, 19) and steps_of(NoiseConfig(steps=(2, 7)), 5) == (2, 7)
    assert [between(n, 5) for n in (2, 3, 5, 50)] == [(0, 1), (1,), (1, 2, 3), (8, 16, 24, 33, 41)]


STEPS, FEW, FRAMES = (0, 3, 6, 10, 13, 16, 19), (3, 6, 10, 13, 16), 5
Survives = dict[str, float]


def made_up(survives: Survives, mode: str = "renoise", items: int = 40, base: float = 1.0, energy: float = 2.0) -> pd.DataFrame:
    """Rows in which a share of the items survives each kind of noise (all steps and frames of it alike); the same items first."""
    rows = []
    for i in range(items):
        solved = i < base * items
        about = {"problem": str(i), "distance": 0.5, "sigma": 0.5}
        rows.append(
            {**about, "kind": "none", "mode": None, "dose": 0.0, "status": "solved" if solved else "wrong", "energy": 0.0}
        )
        for kind, share in survives.items():
            places = [("step", k) for k in STEPS] if kind.startswith("step") else [("frame", f) for f in range(FRAMES)]
            made = {**about, "kind": kind, "mode": mode, "dose": 1.0, "energy": energy * (4 if kind == "frame" else 1)}
            status = "solved" if i < min(base, share) * items else "wrong"
            rows += [{**made, at: n, "status": status} for at, n in places]
    return pd.DataFrame(rows)


def judged(rows: pd.DataFrame, *modes: str, twins=()) -> dict[str, Finding]:
    marked, label = scored(rows)
    facts = NoiseFacts(sigmas=tuple(1 - k / 20 for k in range(20)), prompt="", shown=(), scheduler="", few=FEW)
    config = NoiseConfig(modes=modes or ("renoise",))
    result = AnalysisResult("noise", config, rows, units={"0": facts}, twins=twins)
    return {finding.key.split(".")[1]: finding for finding in findings(result, marked, label)}


def both(step: float, frame: float, every: float | None = None) -> Survives:
    return {"step": step, "step-spread": step, "frame-few-steps": frame, "frame": frame if every is None else every}


def uneven(rows: pd.DataFrame) -> pd.DataFrame:
    """The same with one item on which the frames do not agree, so that means have an interval."""
    return rows.assign(status=rows.status.mask((rows.problem == "0") & (rows.frame == 1), "wrong"))


def lost_at(rows: pd.DataFrame, items: int) -> pd.DataFrame:
    """The same with so many items that are lost at one of the steps."""
    return rows.assign(status=rows.status.mask((rows.problem.astype(int) < items) & (rows.step == 6), "wrong"))


def verdicts(rows: pd.DataFrame, *modes: str) -> dict[str, str]:
    return {key: found.verdict for key, found in judged(rows, *modes).items()}


SILENT = "scorer failed: no ball"


def test_an_item_counts_where_every_video_of_it_was_judged():
    """The mean of the frames that are left would be of other frames than its steps are held against."""
    rows = uneven(made_up(both(0.2, 0.9))).assign(error="")
    failed = (rows.problem == "3") & (rows.kind == "frame-few-steps") & (rows.frame == 2)
    one = judged(rows.assign(error=rows.error.mask(failed, SILENT)))["frame"]
    assert one.number.n == 39 and "3" not in dict(one.items) and judged(rows)["frame"].number.n == 40
    unknown = judged(rows.assign(error=rows.error.mask(rows.kind == "none", SILENT)))["frame"]
    assert unknown.verdict == "not testable" and "is not known" in unknown.why


def test_findings_follow_the_rows():
    rows = uneven(made_up(both(0.2, 0.9)))
    assert verdicts(rows) == {"step-renoise": "reproduced", "frame": "reproduced", "frame-every": "reproduced"}
    found = judged(rows)
    assert found["step-renoise"].number.value == 0.8 and found["step-renoise"].number.n == 40
    assert found["frame"].number.value == pytest.approx((36 - 0.2) / 40 - 8 / 40)  # one item is lost in one of five frames
    assert found["frame"].control.value == pytest.approx(0.8) and found["frame"].primary
    assert not found["step-renoise"].primary and not found["frame-every"].primary
    costly = uneven(made_up(both(0.5, 0.2)))
    assert verdicts(costly) == {"step-renoise": "reproduced", "frame": "refuted", "frame-every": "refuted"}
    assert verdicts(uneven(made_up(both(0.95, 0.1))))["step-renoise"] == "refuted"
    literal = judged(uneven(made_up(both(0.2, 0.9), "replace")), "replace")
    assert {key: (f.verdict, f.primary) for key, f in literal.items()} == {
        "step": ("reproduced", True), "frame-replace": ("reproduced", False),
    }  # fmt: skip
    kept = judged(uneven(made_up(both(0.95, 0.1), "replace")), "replace")
    assert {key: f.verdict for key, f in kept.items()} == {"step": "refuted", "frame-replace": "refuted"}


def test_numbers_by_hand():
    chance = np.random.default_rng(0)
    rows = made_up(both(0.5, 0.5))
    rows["status"] = np.where(chance.random(len(rows)) < 0.6, "solved", "wrong")
    found = judged(rows)
    solved = rows.assign(solved=(rows.status == "solved").astype(float))
    base = solved[solved.kind == "none"].solved.to_numpy()
    at = {k: solved[(solved.kind == "step") & (solved.step == k)].solved.to_numpy() for k in STEPS}
    frames = solved[solved.kind == "frame-few-steps"].solved.to_numpy().reshape(40, FRAMES)
    few = np.mean([at[k] for k in FEW], 0)
    loss = lost(scored(rows)[0], "step", "renoise", 1.0, 10)
    assert found["step-renoise"].number.value == pytest.approx((base - at[10]).mean())
    assert (loss.gained, loss.lost) == ((base > at[10]).sum(), (base < at[10]).sum())
    assert found["step-renoise"].control.value == pytest.approx((base - at[0]).mean())
    assert found["frame"].number.value == pytest.approx((frames.mean(1) - few).mean())
    by_name = sorted(range(40), key=str)  # the bootstrap draws places, so the order counts a little
    assert found["frame"].number.low == pytest.approx(Mean((frames.mean(1) - few)[by_name]).interval()[0])
    assert found["frame"].control.value == pytest.approx((base - few).mean())
    table = loss_table(scored(rows)[0], ("renoise",), 1.0, [1 - k / 20 for k in range(20)]).set_index("step")
    assert table.loc[13, "lost"].startswith(f"{(base - at[13]).mean():.2f} [") and list(table.index) == list(STEPS)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (made_up(both(1.0, 1.0), energy=0.0), "no noise was put in"),  # a dose of 0
        (made_up(both(0.2, 0.9), base=0.3), "solved undisturbed"),
        (made_up(both(0.2, 0.9), base=0.0), "solved undisturbed"),
        (made_up(both(0.2, 0.9)).query("step != 10"), "step 10, which the rule reads"),
        (made_up(both(0.2, 0.9), items=29), "29 of at least 30"),
    ],
)
def test_what_cannot_be_seen_at_a_step_is_not_testable(rows, words):
    found = judged(rows)["step-renoise"]
    assert found.verdict == "not testable" and words in found.why


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (made_up(both(1.0, 1.0)), "costs at most 0.00"),  # at the ceiling
        (lost_at(made_up(both(1.0, 1.0)), 10), "noise at a step costs at most 0.0"),  # in 10 of 200 runs
        (made_up(both(1.0, 1.0), energy=0.0), "no noise was put in"),
        (made_up(both(0.2, 0.9)).query("kind == 'none' or step != 6"), "must all be disturbed"),
        (made_up(both(0.5, 0.5)), "same value"),  # no item on which the two differ
    ],
)
def test_what_cannot_be_seen_at_a_frame_is_not_testable(rows, words):
    found = judged(rows)["frame"]
    assert found.verdict == "not testable" and words in found.why


def test_modes_without_a_rule_have_no_verdict():
    assert judged(uneven(made_up(both(0.2, 0.9), "shuffle")), "shuffle") == {}


def test_unequal_amounts_are_not_testable():
    rows = uneven(made_up(both(0.2, 0.9)))
    rows["energy"] = rows.energy.mask(rows.kind == "frame-few-steps", rows.energy / 2)
    assert "amounts of noise differ" in judged(rows)["frame"].why and judged(rows)["frame-every"].verdict == "reproduced"


def test_noise_that_belongs_to_other_items_shows_nothing():
    """A placebo: what came of the disturbed runs is dealt out among them and the undisturbed ones."""
    chance = np.random.default_rng(2)
    rows = made_up(both(0.6, 0.6))
    rows["status"] = chance.permutation(np.array(["solved", "wrong"])[(np.arange(len(rows)) % 10 > 6).astype(int)])
    assert {f.verdict for f in judged(rows).values()} <= {"refuted", "undecided", "not testable"}


def test_a_loss_that_a_twin_shows_too_is_not_reproduced():
    rows = made_up(both(0.2, 0.9))
    assert judged(rows, twins=[{"noise.step-renoise": Number(0.9, 0.8, 1.0, 40)}])["step-renoise"].verdict == "undecided"


@pytest.mark.slow
def test_on_a_twin_nothing_is_reproduced(organism, tmp_path):
    config = NoiseConfig(items=1, num_inference_steps=4)
    _, report = run_and_report(load("noise"), config, tmp_path / "run", model=twins.twin_of(organism, 3), workers=1)
    assert "reproduced" not in {f["verdict"] for f in report.data["findings"]}


def test_a_run_on_the_organism(organism, tmp_path):
    config = NoiseConfig(**SMALL, tasks=("maze",))
    result, report = run_and_report(load("noise"), config, tmp_path / "run", model=organism, workers=1)
    assert RunStore(tmp_path / "run").verify() == []
    assert len(result.rows) == 1 + 2 * (2 * 3 + 2 * 2)
    fresh = result.rows[(result.rows.kind == "step") & (result.rows["mode"] == "renoise") & (result.rows.step == 0)].iloc[0]
    assert fresh.energy == pytest.approx(2, rel=0.15)  # at sigma 1 the noise is simply another one
    assert len(report.data["findings"]) == 5 and "<svg" in report.html and "sigma" in report.html
    (shown,) = players(report.html).values()
    assert [row["name"] for row in shown["rows"]] == ["undisturbed", *(f"{m}: {w}" for w in ("step 2", "frame 4") for m in MODES)]
    assert [row["told"]["reads"] for row in shown["rows"]] == read_in(tmp_path / "run", problems(config)[0])


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
