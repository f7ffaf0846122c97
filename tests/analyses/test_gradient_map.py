"""Gradient maps: right where the difference is small, measured against exact cells, and never a verdict on the model."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import cpu_offload

from cos_interp import analyses
from cos_interp.analyses.driver import experiment
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import loaded
from cos_interp.analyses.driver.outlook import Outlook
from cos_interp.analyses.driver.planning import forecast
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.grid import SELF
from cos_interp.analyses.kit.pairs import Pair, Recorder, Side
from cos_interp.analyses.kit.problems import Problem, call_for
from cos_interp.analyses.patching import MapFacts, PatchingConfig, StepFacts, agreement, map_findings
from cos_interp.analyses.patching.foresee import foresee
from cos_interp.analyses.patching.gradient_map import BOTH, SAMPLE, TOP, chosen, exact_cells, mapped
from cos_interp.analyses.patching.map_page import trust
from cos_interp.analyses.patching.pair_grid import PairGrid
from cos_interp.analyses.patching.pieces import Piece
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.errors import InterpError
from cos_interp.interp.families import tiny
from cos_interp.interp.patching import record
from cos_interp.interp.planning.costs import Shape
from cos_interp.tasks import TASKS

MAP = {
    "method": "gradient", "pairs": 1, "pair_kinds": ("seed",), "num_inference_steps": 4, "steps": (1, 2), "layers": (2,),
    "exact_cells": 10, "top_cells": 3, "sites": ("hook_resid_post",),
}  # fmt: skip


def planted(organism, size: float) -> PairGrid:
    """A pair whose clean run has one planted edit of a size: in block 2 at step 1, in the donor's route."""
    item = TASKS["maze"].sample(11, unique=False, difficulty=4)
    other = TASKS["maze"].with_answer(item, next(a for a in item.answers if a != item.answer))
    call = call_for(organism, item, 0, num_inference_steps=4)
    mask = torch.from_numpy(TASKS["maze"].groups(item, other)["donor_route"])
    vector = size * torch.randn(128, generator=torch.Generator().manual_seed(5))
    corrupt = record(organism, **call)
    with organism.hooks([("blocks.2.hook_resid_post @ step=1", lambda act, hook: act + mask[None, ..., None] * vector)]):
        clean = record(organism, **call)
    clean.run.edited = False  # the edit is the planted effect, which a replay of the clean run is to lack
    sides = [Side(Problem("planted", call_of(call), 0, 0, i), made) for i, made in ((item, corrupt), (other, clean))]
    settings = PatchingConfig(**MAP | {"steps": (0, 1, 2), "layers": (1, 2, 5), "span": "single", "batch": 1})
    return PairGrid.of(Recorder(organism, settings), settings, Piece("seed", 0), Pair("seed", *sides))


def call_of(call: dict) -> dict:
    return {key: value for key, value in call.items() if key in ("prompt", "image")}


def test_a_map_of_a_small_difference_is_the_grid(organism):
    """The planted edit is small, so that the model is a straight line over it: the map has its cells, signs and sizes."""
    made = planted(organism, 0.01)
    unit = mapped(made)
    rows = pd.DataFrame(unit.rows)
    assert isinstance(unit.facts, MapFacts) and unit.facts.cells == len(rows) - 1
    assert unit.facts.block_calls == len(made.grid.target.recording.run.calls) * organism.layers
    before = rows[(rows.step == 0) | ((rows.step == 1) & (rows.layer < 2))]
    assert len(before) and (before.estimate == 0).all()  # where the two runs are one: exactly nothing
    made = replace(made, only=exact_cells(unit.rows))
    exact = pd.DataFrame([row for step in made.steps for row in made.at(step).rows])
    cells = agreement.compared(pd.concat([rows, exact]), noising=False)
    assert len(cells) == len(exact) == rows.chosen.notna().sum()
    own = cells[cells.donor == SELF]
    assert len(own) == 1 and own.estimate.item() == own.change.item() == 0.0
    largest = float(cells.change.abs().max())
    assert largest > 0.5 and float((cells.estimate - cells.change).abs().max()) < 0.05 * largest
    planted_cell = cells[(cells.step == 1) & (cells.layer == 2) & (cells.group == "all")]
    assert len(planted_cell) == 0 or abs(planted_cell.change.item()) == pytest.approx(1, abs=1e-6)


def cells(estimate, change, **more) -> pd.DataFrame:
    count = len(estimate)
    same = {
        "pair": "seed-000",
        "pair_kind": "seed",
        "site": "s",
        "tokens": agreement.NAMED,
        "donor": "clean",
        "chosen": SAMPLE,
        "share": 0.1,
    }
    return pd.DataFrame({**same, **more, "estimate": estimate, "change": change}, index=range(count))


def test_a_change_is_counted_from_the_receiving_run():
    """When noising, the clean run receives, whose effect is 1."""
    where = {"pair": "p", "donor": "clean", "site": "s", "step": 1, "layer": 2, "head": None, "group": "all", "frame": None}
    mapped_row = where | {"estimate": -0.3, "effect": None, "outcome": None, "chosen": SAMPLE}
    rows = pd.DataFrame([mapped_row, where | {"estimate": None, "effect": 0.8, "outcome": "donor", "chosen": None}])
    found = [agreement.compared(rows.astype({"effect": float}), noising) for noising in (False, True)]
    assert [cell.change.item() for cell in found] == pytest.approx([0.8, -0.2])
    assert [cell.tokens.item() for cell in found] == [agreement.ALL] * 2 and found[0].outcome.item() == "donor"


def test_agreement_of_maps_that_are_known():
    draw = np.random.default_rng(0)
    change = draw.normal(size=40)
    right, wrong, blind = (cells(estimate, change) for estimate in (3 * change, -change, draw.normal(size=40)))
    assert [agreement.by_pair(c).spearman.item() for c in (right, wrong)] == pytest.approx([1, -1])
    assert [agreement.by_pair(c)["sign"].item() for c in (right, wrong)] == [1, 0]
    assert [agreement.by_pair(c).recall.item() for c in (right, wrong)] == [1, 1]  # the largest in either direction
    assert abs(agreement.by_pair(blind).spearman.item()) < 0.4 and agreement.by_pair(blind).recall.item() < 0.6
    assert np.isnan(agreement.by_pair(right).share.item())  # a share that is the same everywhere orders nothing
    both = pd.concat([right, cells([9.0, 8.0], [5.0, 0.0], chosen=TOP)], ignore_index=True)
    line = agreement.by_pair(both).iloc[0]
    assert (line.n, line.top, line.hits, line.estimated, line.found) == (40, 2, 0.5, 8.5, 2.5)
    low, high = agreement.over_cells(right).interval()
    assert np.isnan(low) or low > 0.99
    low, high = agreement.over_cells(blind).interval()
    assert low < agreement.by_pair(blind).spearman.item() < high


def test_trust_is_said_plainly():
    noise = np.random.default_rng(1)
    pairs = lambda near: pd.concat(
        [
            cells(near * change + noise.normal(size=30), change, pair=f"seed-{i:03d}")
            for i, change in enumerate(noise.normal(size=(14, 30)))
        ],
        ignore_index=True,
    )
    said = [trust(agreement.over_pairs(agreement.by_pair(pairs(near)))[0]) for near in (5.0, 0.0, 0.55)]
    assert "orders cells as exact patches do (Spearman 0.9" in said[0] and "420 exact cells" in said[0]
    assert "the map fails here" in said[1] and "patch exactly" in said[1]
    assert "cannot be told" in said[2]
    one = agreement.over_pairs(agreement.by_pair(cells(noise.normal(size=30), noise.normal(size=30))))[0]
    assert "failed on what was tried" in trust(one)


def test_the_exact_cells_are_drawn_blindly_and_the_top_is_the_top():
    groups = ["all", "goals", "rest"] * 20
    rows = pd.DataFrame({"donor": "clean", "site": "s", "group": groups, "estimate": np.linspace(-1, 0.9, 60)})
    rows.loc[60] = [SELF, "s", "all", 0.0]
    why = pd.Series(chosen(rows, 7, 12, 5), dtype=object)
    drawn = rows[why.isin([SAMPLE, BOTH])]
    assert ((drawn.group == "all").sum(), (drawn.group != "all").sum()) == (12, 12)
    assert set(rows[why.isin([TOP, BOTH])].index) == set(rows.estimate.abs().sort_values().index[-5:])
    assert why[60] == SELF and list(why) == list(chosen(rows, 7, 12, 5)) != list(chosen(rows, 8, 12, 5))
    other = rows.assign(estimate=-rows.estimate[::-1].to_numpy())  # the sample does not look at the map
    again = pd.Series(chosen(other, 7, 12, 5), dtype=object)
    assert set(rows[again.isin([SAMPLE, BOTH])].index) == set(drawn.index)


def test_sites_are_compared_apart():
    """Two sites in each of which the map is blind, one with small cells and one with large ones: together they seem ordered."""
    draw = np.random.default_rng(3)
    small, large = (cells(size * draw.random(60), size * draw.random(60), site=f"s{size}") for size in (0.01, 1.0))
    both = pd.concat([small, large], ignore_index=True)
    assert agreement.order(both.estimate, both.change) > 0.6
    lines = agreement.over_pairs(agreement.by_pair(both))
    assert [line["site"] for line in lines] == ["s0.01", "s1.0"] and all(abs(line["spearman"].value) < 0.3 for line in lines)


def test_a_map_of_boxes_says_how_far_it_holds_in_their_tokens(tmp_path):
    """Of the cells that were measured: those of boxes, and of all tokens only where these were asked for."""
    sides = {side: {"prompt": f"a {colour} ball"} for side, colour in (("clean", "red"), ("corrupt", "blue"))}
    (tmp_path / "pairs.jsonl").write_text(json.dumps({**sides, "boxes": {"ball": [0, 0, 16, 16]}}))
    asked = {"method": "gradient", "model": "tiny:wan2.1", "pair_file": str(tmp_path / "pairs.jsonl"),
             "num_inference_steps": 4, "span": "single", "sites": ("hook_mlp_out",), "exact_cells": 10}  # fmt: skip
    for tokens, keys in ((("ball",), ["own-named"]), (("all",), ["own"]), (None, ["own", "own-named"])):
        run = analyses.run("patching", out=tmp_path / str(tokens), workers=1, tokens=tokens, **asked)
        assert [finding.key for finding in run.findings] == [f"patching.map-{key}" for key in keys]
        for finding, kind in zip(run.findings, ({"own": "all", "own-named": "named"}[key] for key in keys), strict=True):
            assert f"over 10 exact cells of {kind} tokens in hook_mlp_out, drawn" in finding.statement


def test_a_map_of_own_pairs_with_two_experts_and_guidance_measures_itself(tmp_path):
    lines = [{"clean": {"prompt": "a red ball", "seed": n}, "corrupt": {"prompt": "a red ball", "seed": n + 9}} for n in range(2)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    config = PatchingConfig(
        method="gradient", model="tiny:wan2.2", pair_file=str(tmp_path / "pairs.jsonl"), num_inference_steps=3,
        guidance_scale=3.0, exact_cells=10, top_cells=3,
    )  # fmt: skip
    result, report = experiment.run_and_report(load("patching"), config, tmp_path / "run", workers=1)
    each = agreement.by_pair(agreement.compared(result.rows, noising=False))
    assert list(each.tokens) == [agreement.ALL] * 4 and list(each.n) == [9] * 4  # steps x layers, of two sites and pairs
    assert {facts.block_calls for facts in result.units_of(MapFacts).values()} == {3 * 2 * 3}  # steps, branches, layers
    assert [finding["key"] for finding in report.data["findings"]] == ["patching.map-own"]
    again, _ = experiment.run_and_report(load("patching"), config, tmp_path / "run", workers=1)
    pd.testing.assert_frame_equal(again.rows, result.rows)


def test_a_map_whose_placebo_was_not_run_is_not_testable():
    each = pd.DataFrame({
        "pair_kind": "seed", "tokens": agreement.NAMED, "site": "s", "n": 20, "spearman": np.linspace(0.7, 0.9, 12), "share": 0.1,
    })  # fmt: skip
    cells = pd.DataFrame({"donor": ["clean", SELF], "estimate": [0.1, 0.0], "change": [0.1, 0.0]})
    result = AnalysisResult("patching", PatchingConfig(method="gradient", pair_kinds=("seed",)), cells)
    (with_it,), (without,) = (map_findings.findings(result, rows, each) for rows in (cells, cells[:1]))
    assert with_it.verdict == "reproduced" and without.verdict == "not testable" and "was not run" in without.why


@pytest.mark.slow
def test_a_run_measures_its_map_and_continues_with_the_same_cells(tmp_path):
    config = PatchingConfig(**MAP)
    result, report = experiment.run_and_report(load("patching"), config, tmp_path / "run", workers=1)
    cells_found = agreement.compared(result.rows, noising=False)
    assert {*cells_found.chosen} <= {SAMPLE, TOP, BOTH, SELF} and len(agreement.sampled(cells_found)) > 10
    maps = next(iter(result.units_of(MapFacts).values()))
    assert result.rows.estimate.notna().sum() == maps.cells + 1
    assert maps.block_calls == 3 * 8  # steps 1 to 3 once, for all cells
    (finding,) = report.data["findings"]
    assert finding["key"] == "patching.map-seed" and not finding["primary"] and finding["verdict"] == "not testable"
    assert "no verdict on the model follows" in report.html and "not exact" in report.html
    line = report.data["agreement"][0]
    assert line["cells"] > 0 and -1 <= line["spearman"]["value"] <= 1
    kept = {path.name: path.read_bytes() for path in (tmp_path / "run" / "shards").iterdir()}
    for step in result.units_of(StepFacts):
        RunStore(tmp_path / "run").unit_path(step).unlink()
    again = experiment.run(load("patching"), config, tmp_path / "run", workers=1)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run" / "shards").iterdir()} == kept
    pd.testing.assert_frame_equal(again.rows, result.rows)


def test_settings_of_a_map_are_refused_without_one():
    with pytest.raises(ValueError, match="exact_cells say what a gradient map is held against: add --method gradient"):
        PatchingConfig(exact_cells=30)


def test_a_map_is_planned_at_its_price():
    gradient, model = loaded(PatchingConfig(**MAP | {"steps": None, "layers": None}))
    exact = gradient.model_copy(update={"method": "exact"})
    grid, maps = (foresee(config, Outlook.of(model, config)) for config in (exact, gradient))
    assert maps[1].blocks == 4 * model.layers and "way back" in maps[1].more  # one forward of every call
    assert maps[1].held == Outlook.of(model, gradient).shape.graph(1)
    assert 0 < maps[1].blocks + maps[2].blocks < grid[1].blocks / 4
    assert maps[0].runs == 2


@pytest.mark.parametrize("way", ["group", "sequential"])
def test_weights_that_come_and_go_are_refused_before_anything_runs(way, tmp_path):
    sides = {side: {"prompt": f"a {colour} ball"} for side, colour in (("clean", "red"), ("corrupt", "blue"))}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(sides))
    asked = {"method": "gradient", "pair_file": str(tmp_path / "pairs.jsonl"), "num_inference_steps": 2}
    config = PatchingConfig(model="tiny:wan2.1", device="cuda", offload=way, **asked)
    with pytest.raises(InterpError, match=f"which --offload {way} has taken away by then: use --offload model or none"):
        forecast("patching", config, tmp_path, timed=False)
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    OFFLOADS[way](model.pipe.transformer)
    with pytest.raises(InterpError, match=r"transformer\..* is offloaded"):
        analyses.run("patching", model=model, out=tmp_path / "run", workers=1, **asked)
    assert model.block_calls == 0 and not (tmp_path / "run").exists()


CPU = torch.device("cpu")
OFFLOADS = {
    "group": lambda part: part.enable_group_offload(onload_device=CPU, offload_device=CPU, offload_type="leaf_level"),
    "sequential": lambda part: cpu_offload(part, CPU),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["wan2.1", "cogvideox", "ltx"])
def test_the_graph_of_a_forward_is_planned_to_be_no_smaller_than_autograd_has_it(name, dtype):
    """At tiny sizes, where a text weighs as much as the video, up to two and a half times larger."""
    model, call, given = HookedVideoPipeline.from_pretrained(f"tiny:{name}", dtype=dtype), tiny.call(name, steps=2), []
    module = next(iter(model.engines.values())).module
    with torch.no_grad():
        handle = module.register_forward_pre_hook(lambda _, args, kwargs: given.append(kwargs), with_kwargs=True)
        model.run(seed=0, **call)
        handle.remove()
    weights = {p.requires_grad_(False).untyped_storage().data_ptr() for p in module.parameters()}
    held = {}

    def keep(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    latents = given[0]["hidden_states"].clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(**given[0] | {"hidden_states": latents})
    found = sum(storage.nbytes() for place, storage in held.items() if place not in weights)
    planned = Shape.of(model, call).graph(len(latents))
    assert found < planned < 2.5 * found
