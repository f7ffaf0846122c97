"""CKA by hand, and propagation: planted models with a known matrix, the null, runs to the end."""

from __future__ import annotations

import math
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from players import item_table, players
from support import hooked_tiny

from cos_interp.analyses.driver import twins
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import run_and_report
from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit import cka
from cos_interp.analyses.kit.problems import arguments, problems
from cos_interp.analyses.propagation import PropagationConfig, PropagationFacts
from cos_interp.analyses.propagation.measure import disturbed_states, handoff, measure, noise_kept
from cos_interp.analyses.propagation.report import (
    PEAK_SIGMA,
    above_the_rest,
    by_item,
    findings,
    in_any_order,
    left_shares,
    per_displacement,
)
from cos_interp.interp import InterpError
from cos_interp.reports.html import worded


def features(seed: int, rows: int = 20, columns: int = 6) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gram_hsic(k: torch.Tensor, m: torch.Tensor) -> float:
    """HSIC_1 straight from its definition on kernel matrices."""
    n = len(k)
    k, m = k - torch.diag(k.diagonal()), m - torch.diag(m.diagonal())
    one = torch.ones(n, dtype=torch.float64)
    last = 2 / (n - 2) * (one @ k @ m @ one)
    return float(((k @ m).trace() + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - last) / (n * (n - 3)))


def test_linear_cka_against_its_definition():
    x, y = features(0), features(1, columns=3)
    n = len(x)
    centre = torch.eye(n, dtype=torch.float64) - 1 / n
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    expected = float((k * m).sum() / (k.norm() * m.norm()))
    assert cka.linear_cka(x, y) == pytest.approx(expected, abs=1e-12)
    one, two = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0], [1.0], [0.0]])
    assert cka.linear_cka(one, two) == pytest.approx(0)  # by hand: centred (-1, 0, 1) and (-1, 2, -1)/3 are orthogonal
    three = torch.tensor([[0.0], [1.0], [1.0]])
    assert cka.linear_cka(one, three) == pytest.approx(0.75)  # squared correlation of (-1, 0, 1) and (-2, 1, 1)


def test_cka_knows_rotation_scale_and_shift():
    x = features(0)
    turn = torch.linalg.qr(features(2, 6, 6))[0]
    for kind in (cka.linear_cka, cka.debiased_cka):
        assert kind(x, 3 * x @ turn + 5) == pytest.approx(1, abs=1e-12)
        assert math.isnan(kind(x, torch.ones(20, 2)))


def test_debiased_cka_against_gram_matrices_and_chance():
    x, y = features(0), features(1, columns=3)
    hsic = [gram_hsic(a @ a.T, b @ b.T) for a, b in ((x, y), (x, x), (y, y))]
    assert cka.debiased_cka(x, y) == pytest.approx(hsic[0] / math.sqrt(hsic[1] * hsic[2]), abs=1e-12)
    assert cka.unbiased_hsic(x, y) == pytest.approx(hsic[0])
    unrelated = [(features(s, 60, 60), features(s + 100, 60, 60)) for s in range(10)]
    assert np.mean([cka.linear_cka(a, b) for a, b in unrelated]) > 0.4  # the bias that the debiased kind removes
    assert abs(np.mean([cka.debiased_cka(a, b) for a, b in unrelated])) < 0.03
    with pytest.raises(ValueError, match="at least 4 rows"):
        cka.debiased_cka(x[:3], y[:3])


SIGMA = {k: 1 - k / 10 for k in range(10)}  # steps 2 to 2 lie within the window, .8


def made_up(final: float, height: dict[int, float], items: int = 16, kept: float = 0.1) -> pd.DataFrame:
    """Rows of items that differ a little: x0hat dissimilarity ``height[s]`` after step s, final latents at ``final`` of the
    carried one, and twice as much put in by late steps."""
    rows = []
    for item in range(items):
        own = 1 + 0.02 * (item % 5)
        for s in range(10):
            at = {"problem": str(item), "layer": None, "disturbed": s, "disturbed_sigma": SIGMA[s], "noise_kept": kept}
            put_in = 0.5 if s < 5 else 1.0
            seen = height.get(s, 0.1) * (1 + 0.02 * (item % 3) * (s % 2))
            rows += [{**at, "tensor": "x0hat", "step": j, "value": seen * put_in} for j in range(s, 10)]
            rows += [{**at, "tensor": "x_t", "step": j, "value": put_in} for j in range(s, 10)]
            end = {**at, "layer": None, "step": 10}
            rows += [{**end, "tensor": "x_t", "value": final * own}, {**end, "tensor": "carried", "value": 1.0}]
    return pd.DataFrame(rows)


def judged(rows: pd.DataFrame, twins=()) -> list:
    return findings(AnalysisResult("propagation", PropagationConfig(), rows, twins=twins), rows, 10)


def test_the_window_is_the_papers_steps_at_its_shift():
    assert (pytest.approx(0.769, abs=1e-3), pytest.approx(0.882, abs=1e-3)) == PEAK_SIGMA


def test_numbers_by_hand():
    """At step 2 of height .8, .1 elsewhere: (.8 - .1) / .8 where there is no noise; half and a quarter of what was carried."""
    rows = made_up(0.5, {2: 0.8})
    curve = per_displacement(rows, "x0hat")
    assert curve.loc["0"].tolist() == pytest.approx([0.1, 0.1, 0.8, *[0.1] * 7])
    assert above_the_rest(curve, SIGMA).iloc[::3].to_numpy() == pytest.approx([0.875] * 6)
    there = above_the_rest(per_displacement(made_up(0.5, {2: 0.0001, 4: 0.8}), "x0hat"), SIGMA)
    assert there.iloc[::3].to_numpy() == pytest.approx([0.0001 / 0.8 - 1] * 6)  # it has a bound
    final = pd.DataFrame({0: [0.2, 0.5], 1: [0.1, 0.5]}, index=["a", "b"])
    carried = pd.DataFrame({0: [0.4, 2.0], 1: [0.2, 2.0]}, index=["a", "b"])
    assert left_shares(final, carried).tolist() == pytest.approx([0.5, 0.25])


@pytest.mark.parametrize(
    ("final", "height", "verdicts"),
    [
        (0.9, {2: 0.8, 8: 0.9, 9: 1.0}, ["reproduced", "reproduced"]),  # near sigma 0 all is seen, by definition
        (0.1, {4: 0.8}, ["refuted", "refuted"]),
        (0.9, {2: 0.8}, ["reproduced", "reproduced"]),
        (0.1, {7: 0.8}, ["refuted", "refuted"]),
        (0.1, {1: 0.85, 2: 0.8}, ["refuted"] * 2),
    ],
)
def test_findings_see_a_planted_peak_and_planted_persistence(final, height, verdicts):
    found = judged(made_up(final, height))
    assert [f.verdict for f in found] == verdicts
    assert found[1].number.value == pytest.approx(final * 1.04, rel=0.02) and found[1].number.n == 16


def test_the_chance_of_a_peak_is_the_mean_over_all_orders():
    sigmas = {k: 1 - k / 20 for k in range(10)}  # .85 and .8 within, eight elsewhere, none below .5
    values = np.random.default_rng(0).gamma(1.0, size=(3, 10)).round(1)  # some are equal
    by_hand = [
        np.mean([max(v[i], v[j]) / m - max(np.delete(v, [i, j])) / m for i, j in combinations(range(10), 2)])
        for v, m in ((v, v.max()) for v in values)
    ]
    assert in_any_order(pd.DataFrame(values), sigmas).tolist() == pytest.approx(by_hand) and max(by_hand) < 0
    assert in_any_order(pd.DataFrame(np.ones((1, 10))), sigmas).tolist() == [0]  # nothing scatters
    assert in_any_order(pd.DataFrame(np.zeros((1, 10))), sigmas).isna().all()


@pytest.mark.parametrize("heights", [[0.8] + [0.1] * 5, [0.2, 1.2, 2.2, 3.2, 4.2, 5.2]])
def test_a_curve_that_only_scatters_refutes_no_peak(heights):
    """The highest of five steps elsewhere is above the one within, whatever their order: here another one in every item."""
    chance = np.random.default_rng(0)
    dealt = [dict(enumerate(chance.permutation(heights))) for _ in range(24)]
    rows = pd.concat([made_up(0.1, height, items=1).assign(problem=f"p{i}") for i, height in enumerate(dealt)])
    found = judged(rows)[0]
    assert found.verdict == "not testable" and "in any order" in found.why and found.number.value < 0


def test_where_nothing_reacts_no_peak_is_refuted():
    found = judged(made_up(0.1, dict.fromkeys(range(10), 0.0), items=100))[0]
    assert found.number.high < 0.05 and found.verdict == "not testable" and "reacts to nothing" in found.why


def test_persistence_that_a_twin_shows_too_is_not_reproduced():
    twin = {"propagation.left": Number(1.2, 1.19, 1.21, 16)}
    found = judged(made_up(0.9, {2: 0.8}), [twin, {}])
    assert found[1].verdict == "undecided" and "a twin that knows nothing shows 1.20" in found[1].why
    assert judged(made_up(0.9, {2: 0.8}, items=11))[1].verdict == "not testable"


def test_a_model_that_removes_no_noise_has_nothing_to_recover_from():
    found = judged(made_up(0.9, {2: 0.8}, kept=0.9))
    assert found[1].verdict == "not testable" and "0.90 of the first noise is left" in found[1].why
    mixed = pd.concat([made_up(0.9, {2: 0.8}), made_up(0.1, {2: 0.8}, kept=0.9).assign(problem=lambda rows: "x" + rows.problem)])
    assert judged(mixed)[1].number.n == 16 and judged(mixed)[1].verdict == "reproduced"


def test_the_noise_that_is_kept_by_hand(organism):
    noise, clean = torch.randn(1, 4, 3, 8, 8), torch.randn(1, 4, 3, 8, 8)
    clean -= noise * (noise * clean).sum() / (noise * noise).sum()  # orthogonal
    for share in (0.0, 0.3, 1.0):
        run = SimpleNamespace(x_t=[noise], sigmas=[1.0], latents=clean + share * noise)
        assert noise_kept(run) == pytest.approx(share, abs=1e-6)
    for model, low, high in ((organism, -0.3, 0.3), (twins.twin_of(organism, 3), 0.9, 1.1)):
        call = arguments(model, PropagationConfig(num_inference_steps=4), problems(PropagationConfig(items=1))[0])
        assert low < noise_kept(model.run(**call)) < high


@pytest.mark.slow
def test_on_a_twin_nothing_is_reproduced(organism, tmp_path):
    config = PropagationConfig(tasks=("maze",), items=12, num_inference_steps=8, layers=())
    _, report = run_and_report(load("propagation"), config, tmp_path / "run", model=twins.twin_of(organism, 3), workers=1)
    assert "reproduced" not in {found["verdict"] for found in report.data["findings"]}


def test_a_model_that_repairs_nothing_shows_the_carried_displacement(prompts, monkeypatch):
    """Planted: a constant velocity. The final latent is exactly the control; the clean estimate is displaced for good."""
    model = hooked_tiny()
    monkeypatch.setattr(
        model.engines["transformer"].module, "forward", lambda hidden_states, **kw: (torch.ones_like(hidden_states),)
    )
    config = PropagationConfig(prompts=prompts, num_inference_steps=4, mode="add", batch=2, layers=())
    rows = pd.DataFrame(measure(model, config, problems(config)[0]).rows)
    for kind in ("dissimilarity", "debiased"):
        found = rows.assign(value=rows[kind])
        final, carried = by_item(found, "x_t", None, end=True), by_item(found, "carried", None)
        assert np.allclose(final, carried, atol=1e-4)
        assert left_shares(final, carried).to_numpy() == pytest.approx(1, abs=1e-3)
    spread = rows[rows.tensor == "x0hat"].groupby("disturbed").dissimilarity.std().dropna()
    assert (spread < 1e-4).all()  # nothing grows, nothing shrinks


def test_a_model_that_forgets_x_t_shows_nothing_in_its_estimates(prompts, monkeypatch):
    """Planted null: the clean estimate is the same from everywhere, so 1 - CKA is 0 at every later step and at the end."""
    model = hooked_tiny()
    target = torch.randn(1, 4, 3, 4, 4, generator=torch.Generator().manual_seed(3))

    def forward(hidden_states, timestep, **kwargs):
        return ((hidden_states - target.to(hidden_states)) / (timestep.view(-1, 1, 1, 1, 1) / 1000),)

    monkeypatch.setitem(model.engines["transformer"].module.__dict__, "forward", forward)
    config = PropagationConfig(prompts=prompts, num_inference_steps=4, layers=())
    rows = pd.DataFrame(measure(model, config, problems(config)[0]).rows)
    x_t = rows[(rows.tensor == "x_t") & (rows.step == rows.disturbed)]
    assert x_t.dissimilarity.iloc[0] > 0.3 and (rows[rows.tensor == "carried"].dissimilarity > 0).all()
    assert rows[rows.tensor == "x0hat"].dissimilarity.abs().max() < 1e-4
    assert rows[(rows.tensor == "x_t") & (rows.step == 4)].dissimilarity.abs().max() < 1e-4


def test_a_run_on_the_organism(organism, tmp_path):
    config = PropagationConfig(items=2, num_inference_steps=5, tasks=("maze",), layers=(0, 7), batch=3)
    result, report = run_and_report(load("propagation"), config, tmp_path / "run", model=organism, workers=1)
    assert RunStore(tmp_path / "run").verify() == []
    rows = result.rows
    assert (rows.step >= rows.disturbed).all() and set(rows.tensor) == {"x_t", "x0hat", "layer", "carried"}
    cells = 5 * 6 // 2
    assert len(rows) == 2 * (cells * 4 + 2 * 5)  # x_t, x0hat and two layers at every later step; two rows at the end
    at_once = rows[(rows.tensor == "x_t") & (rows.step == 0)]
    assert (at_once.debiased > 0.8).all()  # at sigma 1 renoise is another noise: nothing is shared
    assert len(report.data["findings"]) == 2 and "layer 7" in report.html


def test_the_shown_videos_are_those_of_the_disturbed_runs(organism, tmp_path):
    """Each again by a hook of its own that puts the disturbed state in, and the undisturbed one last."""
    config = PropagationConfig(items=1, num_inference_steps=3, tasks=("maze",), layers=(), batch=2)
    result, report = run_and_report(load("propagation"), config, tmp_path / "run", model=organism, workers=1)
    (problem,) = problems(config)
    call = arguments(organism, config, problem)
    run = organism.run(**call)
    clips = list(RunStore(tmp_path / "run").tensors("maze-000")["frames"].numpy())
    for step, state in disturbed_states(organism, config, problem, run).items():
        put_in = lambda act, hook, state=state: state
        again = organism.run_with_hooks(fwd_hooks=[(f"hook_x_t @ step={step}", put_in)], **call)
        assert np.abs(again.decode()[0].astype(int) - clips[step]).max() <= 1  # one of a batch of another size
    assert np.array_equal(run.decode()[0], clips[-1]) and len(clips) == 4
    shown = players(report.html)["maze-000"]
    assert [row["name"] for row in shown["rows"]] == [*(f"disturbed at step {k}" for k in range(3)), "undisturbed"]
    (told,) = item_table(report.html)
    ends = result.rows[(result.rows.tensor == "x_t") & (result.rows.step == 3)].debiased
    carried = result.rows[result.rows.tensor == "carried"].debiased
    assert told["opens"] and (told["item"], told["difficulty"]) == ("maze-000", str(problem.item.difficulty))
    assert told["1 - CKA of the final latent"] == worded(ends.mean())
    assert told["of what would be left unrepaired"] == worded(ends.sum() / carried.sum())


def test_layers_that_do_not_exist_are_refused(organism, tmp_path):
    with pytest.raises(InterpError, match="layers 0 to 7"):
        run_and_report(load("propagation"), PropagationConfig(layers=(9,)), tmp_path / "run", model=organism, workers=1)
    with pytest.raises(ValueError, match="only 'add'"):
        PropagationConfig(dose=2)


def test_two_experts_without_a_verifier(prompts, tmp_path):
    model = hooked_tiny("wan22-t2v")
    config = PropagationConfig(prompts=prompts, num_inference_steps=4, guidance_scale=3.0)
    result, report = run_and_report(load("propagation"), config, tmp_path / "run", model=model, workers=1)
    assert RunStore(tmp_path / "run").verify() == []
    step = result.first(PropagationFacts).handoff
    run = model.run(prompt="x", seed=0, num_inference_steps=4, guidance_scale=3.0)
    assert 0 < step < 4 and handoff(run) == step and run.call(step).expert == "transformer_2"
    assert any(f"second expert at step {step}" in line for line in report.lines)
    assert set(result.rows[result.rows.tensor == "layer"].layer) == {0, 1, 2}
