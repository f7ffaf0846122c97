"""Representation swap: the sums by hand, a planted swap found where it is, a model that flips nothing, whole runs."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch
from support import build_tiny, tiny_call

from cos_interp.analyses.driver import experiment
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.facts import LeftOut
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit import pairs
from cos_interp.analyses.kit.grid import Grid, delta_donor
from cos_interp.analyses.kit.pairs import Side
from cos_interp.analyses.kit.problems import Problem, item_call
from cos_interp.analyses.swap import SwapConfig
from cos_interp.analyses.swap import measure as swap
from cos_interp.analyses.swap import report as swap_report
from cos_interp.analyses.swap.sides import Sides
from cos_interp.interp import HookedVideoPipeline, InterpError
from cos_interp.interp.cache import ActivationCache
from cos_interp.interp.patching import Recording
from cos_interp.interp.trajectory import Run
from cos_interp.tasks import TASKS


def recording(*states: float) -> Recording:
    """States before block 0 and after blocks 0, 1, ... at step 0, one token each."""
    cache = ActivationCache()
    for layer, value in enumerate(states):
        name = f"blocks.{layer - 1}.hook_resid_post" if layer else "blocks.0.hook_resid_pre"
        cache.store[name, 0, "cond"] = torch.full((1, 1, 1, 1, 2), value)
    return Recording(Run(), cache)


def test_a_delta_swap_adds_the_donors_update_to_the_targets_state():
    target, donor = recording(1.0, 3.0, 7.0), recording(10.0, 15.0, 16.0)
    assert delta_donor(target, donor, 0)(0, "cond").unique().item() == 1 + 5
    assert delta_donor(target, donor, 1)(0, "cond").unique().item() == 3 + 1
    odd = recording(0.1, 0.3, 1e7)
    assert torch.equal(delta_donor(odd, odd, 1)(0, "cond"), odd.residual(1, 0, "cond"))  # exactly, whatever rounding does


def test_random_tokens_are_as_many_and_others():
    mask = torch.zeros(3, 4, 4, dtype=torch.bool)
    mask[0, 0, :3] = mask[1, 2, 2] = mask[2, :3] = True
    drawn = swap.random_mask(mask, 5)
    assert not (drawn & mask).any()
    assert drawn.flatten(1).sum(1).tolist() == [3, 1, 4]  # the last frame has only four others
    assert torch.equal(drawn, swap.random_mask(mask, 5)) and not torch.equal(drawn, swap.random_mask(mask, 6))


def test_flip_rate_and_the_middle_layer():
    rate = swap_report.flip_rate(pd.Series([0.0, 0.0, 0.0, None]))
    assert (rate.value, round(rate.low, 9), rate.n) == (0.0, 0.0, 3) and round(rate.high, 3) == 0.708  # 1 - 0.025 ** (1 / 3)
    assert swap.depth(20, 40) == 0.5
    rows = pd.DataFrame({"layer": range(40), "depth": [swap.depth(layer, 40) for layer in range(40)]})
    assert swap_report.middle_layer(rows) == 20


def planted(organism, layer: int) -> Grid:
    """A pair whose donor run is the target's with a vector planted on the object's tokens in one layer of step 1."""
    item = TASKS["maze"].sample(11, unique=False, difficulty=4)
    other = TASKS["maze"].with_answer(item, next(a for a in item.answers if a != item.answer))
    mask = swap.object_mask(item, other)
    vector = 3 * torch.randn(128, generator=torch.Generator().manual_seed(5))
    config = SwapConfig(steps=(1,), num_inference_steps=4, batch=1)
    problems = [Problem("maze-prompt-000", item_call(i), 0, 0, i) for i in (item, other)]
    recorder = swap.recorder(organism, config)
    target = recorder(problems[0])
    with organism.hooks([(f"blocks.{layer}.hook_resid_post @ step=1", lambda act, hook: act + mask[None, ..., None] * vector)]):
        donor = Side(problems[1], recorder(problems[0]).recording)
    grid = swap.grid_of(organism, config, Sides("maze-prompt-000", "prompt", target, {"pair": donor}))
    assert torch.equal(grid.masks["object"], mask) and torch.equal(grid.masks["random"], swap.random_mask(mask, 0))
    return grid


def test_a_planted_difference_is_found_in_its_layer_and_tokens(organism):
    layer = 4
    cells = [swap.cell("pair", v, at, "all", 1) for v, at in (
        ("block", 3), ("block", 4), ("block", 6), ("delta", 3), ("delta", 4), ("attention", 4), ("mlp", 3),
    )]  # fmt: skip
    cells += [swap.cell("pair", "block", layer, group, 1) for group in ("object", "random")]
    cells += [swap.cell("self", variant, 5, "all", 1) for variant in swap.VARIANTS]
    effect = {found.cell: found.effect for found in planted(organism, layer).measure(cells)}
    by = {(swap.variant_of(c), c.layer, c.group): e for c, e in effect.items() if c.donor == "pair"}
    assert by["block", 3, "all"] == by["delta", 3, "all"] == by["mlp", 3, "all"] == 0  # below the layer: exactly nothing
    assert by["attention", 4, "all"] == 0  # the plant comes after the block's attention
    assert by["block", 4, "all"] == by["block", 6, "all"] == by["block", 4, "object"] == 1
    assert by["delta", 4, "all"] == pytest.approx(1, abs=1e-4)
    assert by["block", 4, "random"] == 0
    assert {e for c, e in effect.items() if c.donor == "self"} == {0.0}


@pytest.mark.slow
def test_an_untrained_model_has_no_pairs_and_the_page_says_so(tmp_path, monkeypatch):
    from cos_interp.organism.package import untrained_twin
    from cos_interp.organism.shapes import CALL_DEFAULTS

    monkeypatch.setattr(pairs, "TRIES", 5)
    model = HookedVideoPipeline(untrained_twin(), "untrained", CALL_DEFAULTS)
    config = SwapConfig(tasks=("maze",), items=1, pair_kinds=("prompt",), num_inference_steps=2)
    result, report = experiment.run_and_report(load("swap"), config, tmp_path / "run", model=model, workers=1)
    assert result.rows.empty and report.data["findings"] == []
    assert "must solve both sides" in report.lines[0]


def test_a_swap_that_moves_the_run_itself_is_refused():
    rows = pd.DataFrame({"donor": ["self"], "effect": [1e-6], "variant": "block", "layer": 3, "step": 0})
    with pytest.raises(InterpError, match="exactly 0"):
        swap_report.self_note(rows)


def table(effects: dict[tuple[str, str, int], list[float]], flips: dict[str, float]) -> pd.DataFrame:
    """Rows of pairs: ``(donor, group, layer) -> effect of each pair``; flips by donor."""
    return pd.DataFrame([
        {
            "problem": f"p{i}", "kind": "prompt", "step": 0, "sigma": 1.0, "donor": donor, "variant": "block", "layer": layer,
            "depth": layer / 4, "group": group, "effect": e, "relative": e, "flipped": flips[donor], "outcome": "target",
        }
        for (donor, group, layer), values in effects.items() for i, e in enumerate(values)
    ])  # fmt: skip


def test_findings_tell_a_decisive_layer_from_none():
    donors = ("pair", "random item")
    strong = {(d, "all", layer): [float(layer >= 2 and d == "pair")] * 12 for layer in range(4) for d in donors}
    strong |= {("pair", group, 0): [float(group == "object")] * 12 for group in ("object", "random")}
    found = swap_report.findings(table(strong, {"pair": 1.0, "random item": 0.0}))
    assert [f.verdict for f in found] == ["reproduced"] * 3
    nothing = {key: [0.0, 0.01] * 6 for key in strong}
    found = swap_report.findings(table(nothing, {"pair": 0.0, "random item": 0.0}))
    assert [f.verdict for f in found] == ["refuted", "refuted", "refuted"]


def test_a_run_on_the_organism(organism, tmp_path):
    config = SwapConfig(
        tasks=("maze",), items=1, pair_kinds=("prompt",), num_inference_steps=6, layers=(0, 4), steps=(0, 4),
        variants=("block", "delta"),
    )  # fmt: skip
    result, report = experiment.run_and_report(load("swap"), config, tmp_path / "run", model=organism, workers=1)
    rows = result.rows
    assert RunStore(tmp_path / "run").verify() == []
    assert set(rows.layer) == {0, 4} and set(rows.step) == {0, 4} and set(rows.group) == {"all", "object", "random"}
    assert {"pair", "self", "random item"} <= set(rows.donor) and (rows[rows.donor == "self"].effect == 0).all()
    assert rows.effect.notna().all() and set(rows.flipped) <= {0.0, 1.0}
    last = rows[(rows.donor == "pair") & (rows.group == "all") & (rows.step == 4) & (rows.variant == "block")]
    assert (last.effect > 0).any() and len(report.data["findings"]) == 4  # a flip rate for each step
    assert "By step" in report.html and "reads the prompt and the first frame again" in report.html


def test_own_prompts_on_another_pipeline(tmp_path):
    call = tiny_call("wan21-t2v")
    model = HookedVideoPipeline(build_tiny("wan21-t2v"), "tiny", {k: v for k, v in call.items() if k != "prompt"})
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": p}) for p in ("a red box", "a blue circle", "two goals")))
    config = SwapConfig(prompts=str(file), items=2, num_inference_steps=3, guidance_scale=3.0, layers=(0, 2))
    result, report = experiment.run_and_report(load("swap"), config, tmp_path / "run", model=model, workers=1)
    rows = result.rows
    assert set(rows.group) == {"all"} and rows.flipped.isna().all()
    assert set(rows.donor) == {"pair", "random item", "same prompt", "self"} and (rows[rows.donor == "self"].effect == 0).all()
    assert any("no verifier" in line for line in report.lines) and len(report.data["findings"]) == 1
    file.write_text(json.dumps({"prompt": "one"}))
    with pytest.raises(InterpError, match="at least two lines"):
        swap.pieces(config)


def test_a_layer_that_is_not_there_is_named(organism, tmp_path):
    with pytest.raises(InterpError, match="layers 0 to 7"):
        experiment.run(load("swap"), SwapConfig(layers=(8,)), tmp_path / "run", model=organism, workers=1)


def test_the_report_survives_missing_pairs():
    result = AnalysisResult("swap", {}, pd.DataFrame(), {}, {name: LeftOut(reason="none") for name in "ab"})
    assert swap_report.missing_notes(result) == ["2 pair(s) left out: none"]
