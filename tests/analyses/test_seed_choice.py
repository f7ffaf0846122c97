"""The seed's choice: constructed models that follow the noise, ignore it, or jump at anything; thresholds by hand; whole runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from players import players

from cos_interp.analyses.driver import experiment
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.driver.twins import twin_of
from cos_interp.analyses.kit import belief
from cos_interp.analyses.kit.choices import Choices
from cos_interp.analyses.seed_choice import WAYS, SeedChoiceConfig
from cos_interp.analyses.seed_choice import measure as seed_choice
from cos_interp.analyses.seed_choice.findings import findings, threshold, thresholds
from cos_interp.interp import HookedVideoPipeline, InterpError

STEPS = 10
SIGMAS = [1 - k / STEPS for k in range(STEPS)]
CONFIG = SeedChoiceConfig(prompts="made up", num_inference_steps=STEPS)
Answer = Callable[[torch.Tensor, torch.Tensor, int], int]  # candidates, a state, its step -> the candidate that comes


def follows(among: torch.Tensor, state: torch.Tensor, step: int) -> int:
    return belief.pick(state, among, SIGMAS[step])


def plans(answer: Answer, items: int, count: int) -> list[seed_choice.Plan]:
    """Items of so many candidates; each run's states lie around the answer that the model gives from the first one."""
    made = []
    for i in range(items):
        chance = torch.Generator().manual_seed(i)
        among, noise = 0.3 * torch.randn(count, 4, 2, 6, 6, generator=chance), torch.randn(4, 2, 6, 6, generator=chance)
        own = answer(among, noise[None], 0)
        target = (own + 1 + i % (count - 1)) % count
        x_t = [((1 - sigma) * among[own] + sigma * noise)[None] for sigma in SIGMAS]
        run = SimpleNamespace(x_t=x_t, latents=among[own : own + 1], sigmas=SIGMAS)
        ways = seed_choice.ways_of(among[own], among[target], i)
        names = tuple("abcd"[:count])
        made.append(seed_choice.Plan(run, Choices(names, among), own, target, SIGMAS, [1 - s for s in SIGMAS], ways))
    return made


def rows_of(monkeypatch, answer: Answer, items: int = 60, count: int = 2, eligible: bool = True) -> pd.DataFrame:
    """What the experiment measures on a constructed model."""
    rows = []
    model, problem = SimpleNamespace(decode=lambda latents: np.zeros((len(latents), 1, 1, 1, 3))), SimpleNamespace(item=None)
    for i, plan in enumerate(plans(answer, items, count)):
        among = plan.among.latents

        def restart(model, run, step, states, among=among):
            return SimpleNamespace(latents=torch.stack([among[answer(among, state[None], step)] for state in states]))

        monkeypatch.setattr(seed_choice, "restart", restart)
        about = {"problem": f"p{i}", "task": "maze", "eligible": eligible, "candidates": count}
        found = [seed_choice.noise_row(plan, i), *(row for row, _ in seed_choice.results(model, CONFIG, problem, plan))]
        rows += [{**about, **row} for row in found]
    return pd.DataFrame(rows)


def judged(rows: pd.DataFrame) -> dict:
    result = AnalysisResult("seed-choice", CONFIG, rows)
    return {f.key.split(".")[1]: f for f in findings(result, rows, STEPS)}


def test_a_model_that_follows_its_noise(monkeypatch):
    rows = rows_of(monkeypatch, follows, count=3)
    found = judged(rows)
    assert {name: f.verdict for name, f in found.items() if f.primary} == dict.fromkeys(
        ("steered", "noise", "reflected"), "reproduced"
    )
    assert found["weight"].verdict == "reproduced" and found["noise"].control.value == pytest.approx(1 / 3, abs=0.1)
    at = rows[(rows.kind == "dose") & (rows.way == "toward")]
    assert not at[at.dose < 0].is_target.any() and at[at.dose == 2].is_target.mean() > 0.75
    assert np.allclose(at.by, (at.dose - at.position).abs())
    assert (rows[rows.kind == "reflected"].position < 0).all()  # the likeliest is its own answer


def test_between_two_answers_the_threshold_is_the_observers(monkeypatch):
    rows = rows_of(monkeypatch, follows)
    assert (thresholds(rows) == 0).all()
    late = lambda among, state, step: int(_place(among, state) > 0.75)
    off = rows_of(monkeypatch, late)
    own = off.drop_duplicates("problem").set_index("problem")
    assert len(own) == 60 and judged(off)["threshold"].number.n == 60
    assert set(thresholds(off)) <= {0.75, -0.75}  # on the side of whichever answer it leans away from
    assert judged(off)["threshold"].number.value == pytest.approx(-0.25)


def _place(among: torch.Tensor, state: torch.Tensor) -> float:
    way = (among[1] - among[0]) / (among[1] - among[0]).norm()
    return float((state[0] * way).sum())


def test_a_model_that_does_not_look_at_its_noise(monkeypatch):
    """Placebo: the answer is the item's, whatever the state."""
    found = judged(rows_of(monkeypatch, lambda among, state, step: int(among[0, 0, 0, 0, 0] > 0)))
    assert {found[name].verdict for name in ("steered", "reflected", "weight")} <= {"refuted", "not testable"}
    assert found["steered"].number.value == 0 == found["reflected"].number.value
    assert found["noise"].verdict in ("refuted", "undecided") and abs(found["noise"].number.value) < 0.2


def test_a_model_that_jumps_at_any_move(monkeypatch):
    """The controls turn it as often, so that its moves say nothing about the direction."""
    seen: dict[int, torch.Tensor] = {}

    def jumps(among, state, step):
        key = hash(among.numpy().tobytes())
        if step == 0 and key not in seen:
            seen[key] = state
        return int(not torch.equal(state, seen[key]) if step == 0 else True)

    found = judged(rows_of(monkeypatch, jumps))
    assert {found[name].verdict for name in ("steered", "reflected")} == {"refuted"}
    assert found["steered"].control.value == 1 == found["reflected"].control.value


@pytest.mark.parametrize("way", ["random", "shifted"])
def test_the_stronger_of_both_controls_counts(monkeypatch, way):
    rows = rows_of(monkeypatch, follows)
    found = judged(rows.assign(is_target=rows.is_target.where(rows.way != way, True)))
    assert found["steered"].control.value == 1 == found["reflected"].control.value
    assert {found[name].verdict for name in ("steered", "reflected")} == {"refuted"}
    known = rows.way != way
    found = judged(rows.assign(is_target=rows.is_target.where(known, None), weight=rows.weight.where(known, None)))
    assert {found[name].verdict for name in ("steered", "weight", "reflected")} == {
        "not testable"
    }  # of two controls one is missing


def test_what_gives_no_answer_is_not_testable(monkeypatch):
    found = judged(rows_of(monkeypatch, follows, eligible=False))
    assert {found[name].verdict for name in ("steered", "noise", "threshold", "reflected")} == {"not testable"}
    assert found["weight"].number.n == 60  # weights need no verifier
    assert judged(rows_of(monkeypatch, follows, items=11))["steered"].verdict == "not testable"


@pytest.mark.parametrize(
    ("gives", "expected"), [([0, 0, 1, 1], 0.0), ([0, 0, 0, 0], 2.0), ([1, 1, 1, 1], -2.0), ([0, 0, 0, 1], 1.5)]
)
def test_a_threshold_by_hand(gives, expected):
    assert threshold(np.array([-2.0, -1.0, 1.0, 2.0]), np.array(gives)) == pytest.approx(expected)


def test_a_model_that_turns_by_chance_decides_nowhere(monkeypatch):
    """Its thresholds lie on both sides of half way, so that their mean says nothing."""
    rows = rows_of(monkeypatch, follows, items=60)
    along = (rows.kind == "dose") & (rows.way == "toward")
    rows["is_target"] = rows.is_target.mask(along, pd.Series(np.random.default_rng(0).random(len(rows)) < 0.5, rows.index))
    table = rows[along].pivot(index="problem", columns="dose", values="is_target").astype(float)
    by_hand = [np.trapezoid(1 - row, table.columns) + table.columns[0] for row in table.to_numpy()]
    found = judged(rows)["threshold"]
    assert abs(np.mean(by_hand)) < 0.3 and found.number.value == pytest.approx(0.5 - np.mean(np.abs(by_hand)))
    assert found.verdict == "refuted"


def test_doses_without_their_mirror_move_no_threshold():
    rows = pd.DataFrame([
        {"problem": "p", "kind": "dose", "way": "toward", "dose": dose, "is_target": dose > 0} for dose in (-1.0, 1.0, 2.0, 3.0)
    ])  # fmt: skip
    assert thresholds(rows).tolist() == [0.0]


def test_controls_are_as_long_and_go_elsewhere():
    own, target = (torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(n)) for n in (1, 2))
    ways = seed_choice.ways_of(own, target, 0)
    assert all(float(way.norm()) == pytest.approx(1) for way in ways.values())
    assert torch.equal(ways["shifted"][:, :, 1, 2], ways["toward"][:, :, 0, 0])
    assert all(abs(float((ways["toward"] * ways[name]).sum())) < 0.4 for name in ("random", "shifted"))
    again = seed_choice.ways_of(own, target, 0)
    assert all(torch.equal(ways[name], again[name]) for name in ways)


# --- whole runs ------------------------------------------------------------------------------------------------------


def test_a_run_on_the_organism(organism, tmp_path):
    config = SeedChoiceConfig(tasks=("place",), items=3, num_inference_steps=6, doses=(-2.0, 2.0), steps=(3,))
    result, report = experiment.run_and_report(load("seed-choice"), config, tmp_path / "run", model=organism, workers=1)
    rows = result.rows
    assert not rows["unique"].astype(bool).any() and RunStore(tmp_path / "run").verify() == []
    each = rows.groupby("problem").kind.value_counts().unstack()
    assert (each["dose"] == 4).all() and (each["reflected"] == 3).all() and (each["noise"] == 1).all()
    assert rows.dropna(subset=["share"]).share.between(0, 1).all()
    assert len(report.data["findings"]) == 5 and "Reflected states" in report.html and "untouched" in report.html
    for name, one in players(report.html).items():
        far = rows[(rows.problem == name) & (rows.dose == 2)].set_index("way")
        assert [row["name"] for row in one["rows"]] == ["untouched", *WAYS.values()]
        assert [row["told"]["answer"] == "the other one" for row in one["rows"][1:]] == far.is_target.loc[list(WAYS)].tolist()
    assert players(report.html)


@pytest.mark.slow
def test_a_twin_reproduces_nothing(organism, tmp_path):
    config = SeedChoiceConfig(items=30, num_inference_steps=4, doses=(-2.0, 2.0), steps=(2,))
    _, report = experiment.run_and_report(load("seed-choice"), config, tmp_path / "run", model=twin_of(organism, 3), workers=1)
    assert "reproduced" not in {f["verdict"] for f in report.data["findings"]} and len(report.data["findings"]) == 5


@pytest.mark.parametrize("name", ["wan2.1", "cogvideox", "cosmos1"])
def test_any_family_runs_on_the_users_prompts(name, tmp_path):
    model = HookedVideoPipeline.from_pretrained(f"tiny:{name}")
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "move the red circle"}))
    config = SeedChoiceConfig(prompts=str(path), noises=2, num_inference_steps=2, doses=(-2.0, 2.0), steps=(1,), model=model.name)
    result, report = experiment.run_and_report(load("seed-choice"), config, tmp_path / "run", model=model, workers=1)
    assert set(result.rows[result.rows.kind == "dose"].status) == {"nearest"} and result.rows.weight.notna().all()
    assert {f["verdict"] for f in report.data["findings"]} == {"not testable"}
    assert any("no verifier" in line for line in report.lines)


def test_the_moves_of_a_run_are_plain_restarts_bit_for_bit(organism, tmp_path):
    """One row in a forward: the weights that are stored are those of latents made with diffusers alone."""
    from PIL import Image
    from support import plain

    from cos_interp.analyses.kit.choices import choices, runs_of
    from cos_interp.analyses.kit.problems import arguments
    from cos_interp.interp.choosing import along, direction

    config = SeedChoiceConfig(tasks=("place",), items=3, num_inference_steps=3, doses=(-2.0, 2.0), steps=(1,), batch=1)
    problem = seed_choice.pieces(config)[0][0]
    plan, *_ = seed_choice.planned(organism, config, problem, runs_of(organism, config, problem))
    toward = [row for row, _ in seed_choice.results(organism, config, problem, plan) if row["way"] == "toward"]
    stored, mirrored = next(r for r in toward if r.get("dose") == 2), next(r for r in toward if r["kind"] == "reflected")
    among = choices(organism, config, problem, [plan.run]).latents
    own, target = among[plan.own], among[plan.target]
    way, start = direction(own, target), plan.run.x_t[0]
    place = along(start, own, target, 1.0, 0.0)
    assert place == pytest.approx(float((start[0].double() * (target - own).double()).sum() / (target - own).double().norm()))
    state = (start.double() + (2 - place) * way).float()
    call = {k: v for k, v in arguments(organism, config, problem).items() if k != "seed"} | {"latents": state}
    assert isinstance(call["image"], Image.Image)
    latents = plain(organism.pipe, organism.defaults | call, seed=problem.seed)
    assert stored["weight"] == float(belief.shares(latents, among)[plan.target])
    sigma, before = plan.run.sigmas[1], plan.run.x_t[1]
    nearer = lambda x: float(sum(s * (x.double() - (1 - sigma) * c.double()).square().sum() for s, c in ((1, own), (-1, target))))
    across = nearer(before) / (2 * (1 - sigma) * float((target - own).double().norm()))  # to the plane half way between both
    state = (before.double() - 2 * across * way).float()
    assert nearer(state) == pytest.approx(-nearer(before), rel=1e-4) != 0
    put = lambda pipe, step, timestep, tensors: {"latents": state} if step == 0 else {}
    call = {k: v for k, v in call.items() if k != "latents"} | {"callback_on_step_end": put}
    latents = plain(organism.pipe, organism.defaults | call, seed=problem.seed)
    assert mirrored["step"] == 1
    assert mirrored["weight"] == pytest.approx(float(belief.shares(latents, among)[plan.target]), abs=1e-4)


def test_steps_and_doses_that_there_are_not_are_refused(organism):
    with pytest.raises(InterpError, match="steps 0 to 9"):
        load("seed-choice").check(SeedChoiceConfig(steps=(10,), num_inference_steps=10), organism)
    with pytest.raises(ValueError, match="ten standard deviations"):
        SeedChoiceConfig(doses=(-20.0, 2.0))
    assert seed_choice.steps_of(SeedChoiceConfig(steps=(3,))) == (3, 10) and SeedChoiceConfig(doses=(2, -2, 2)).doses == (-2, 2)
