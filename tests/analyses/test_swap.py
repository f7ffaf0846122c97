"""Representation swap: the sums by hand, a planted swap found where it is, a model that flips nothing, whole runs."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from players import players
from support import build_tiny, tiny_call

from cos_interp.analyses.driver import experiment, twins
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.facts import LeftOut
from cos_interp.analyses.driver.kept import ANSWERS
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit import pairs
from cos_interp.analyses.kit.grid import Grid, delta_donor, state_before
from cos_interp.analyses.kit.pairs import Recorder, Side
from cos_interp.analyses.kit.problems import Problem, item_call
from cos_interp.analyses.swap import SwapConfig
from cos_interp.analyses.swap import cells as swaps
from cos_interp.analyses.swap import measure as swap
from cos_interp.analyses.swap import report as swap_report
from cos_interp.analyses.swap.findings import findings, middle_layer
from cos_interp.analyses.swap.recordings import kept_of
from cos_interp.analyses.swap.sides import Sides
from cos_interp.interp import HookedVideoPipeline, InterpError
from cos_interp.interp.cache import ActivationCache
from cos_interp.interp.families import tiny
from cos_interp.interp.patching import Recording, record
from cos_interp.interp.trajectory import Run
from cos_interp.reports.drawing import plain
from cos_interp.reports.html import worded
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
    assert delta_donor(target, donor, 0, "blocks.0.hook_resid_pre")(0, "cond").unique().item() == 1 + 5
    assert delta_donor(target, donor, 1, "blocks.0.hook_resid_post")(0, "cond").unique().item() == 3 + 1
    odd = recording(0.1, 0.3, 1e7)
    own = delta_donor(odd, odd, 1, "blocks.0.hook_resid_post")
    assert torch.equal(own(0, "cond"), odd.residual(1, 0, "cond"))  # exactly, whatever rounding does


def test_what_lies_between_two_blocks_is_no_update():
    """Motif's decoder starts from the embedded latents again: the update of its first block is none of the encoder's state."""
    model, call = HookedVideoPipeline.from_pipeline(tiny.build("motif")), tiny.call("motif", steps=2)
    sites = kept_of(SwapConfig(variants=("delta",), steps=(0,), num_inference_steps=2), model)["clean"].sites
    target, donor = (record(model, sites, seed=seed, **call) for seed in (0, 1))
    names = ["blocks.*.hook_resid_pre", "blocks.*.hook_resid_post"]
    mine, theirs = (model.run_with_cache(names=names, seed=seed, **call)[1] for seed in (0, 1))
    for layer in range(model.layers):
        after, came = (f"blocks.{layer}.hook_resid_{end}" for end in ("post", "pre"))
        update = theirs[after, 1] - theirs[came, 1]
        wanted = mine[after, 1] + (update - (mine[after, 1] - mine[came, 1]))
        assert torch.equal(delta_donor(target, donor, layer, state_before(model, layer))(1, "cond"), wanted)


def test_random_tokens_are_as_many_and_others():
    mask = torch.zeros(3, 4, 4, dtype=torch.bool)
    mask[0, 0, :3] = mask[1, 2, 2] = mask[2, :3] = True
    drawn = swap.random_mask(mask, 5)
    assert not (drawn & mask).any()
    assert drawn.flatten(1).sum(1).tolist() == [3, 1, 4]  # the last frame has only four others
    assert torch.equal(drawn, swap.random_mask(mask, 5)) and not torch.equal(drawn, swap.random_mask(mask, 6))


def test_flips_and_the_middle_layer():
    flips = swap_report.flip_curve(pd.DataFrame({"layer": 2, "flipped": [0.0, 0.0, 0.0, None]})).iloc[0]
    assert (flips["mean"], flips.low, flips.n) == (0.0, 0.0, 3) and round(flips.high, 3) == 0.708  # 1 - 0.025 ** (1 / 3)
    assert swap.depth(20, 40) == 0.5
    rows = pd.DataFrame({"layer": range(40), "depth": [swap.depth(layer, 40) for layer in range(40)]})
    assert middle_layer(rows) == 20


def test_places_and_what_stands_beside_the_pairs_cells():
    """Every cell that a rule reads has the random item's beside it; step 0 is there, alone and throughout."""
    config = SwapConfig()
    assert swaps.places(config) == [(0, "single"), (5, "single"), (5, "from"), (0, "all")]
    assert swaps.places(SwapConfig(steps=(3,), spans=("all", "from"))) == [(0, "all"), (3, "from")]
    groups, donors = ["all", "object", "random"], ["pair", "self", "random item", "same answer"]
    for place in swaps.places(config):
        made = list(swaps.cells(config, place, (0, 4), groups, donors))
        assert len(set(made)) == len(made) and all(c.step == place[0] for c in made)
        by = {donor: {(c.site, c.update, c.layer, c.group) for c in made if c.donor == donor} for donor in donors}
        assert by["random item"] <= by["pair"] and len(by["self"]) == (2 if place[1] == "single" else 1)
        blocks = {key for key in by["pair"] if not key[1]}
        assert blocks <= by["random item"] and {key[3] for key in blocks} == (set(groups) if place[0] == 0 else {"all"})
    assert swaps.main_variant(SwapConfig(variants=("delta", "block"))) == "block"
    assert swaps.main_variant(SwapConfig(variants=("cross",))) == "cross"


def planted(organism, layer: int) -> Grid:
    """A pair whose donor run is the target's with a vector planted on the object's tokens in one layer of step 1."""
    item = TASKS["maze"].sample(11, unique=False, difficulty=4)
    other = TASKS["maze"].with_answer(item, next(a for a in item.answers if a != item.answer))
    mask = swap.object_mask(item, other)
    vector = 3 * torch.randn(128, generator=torch.Generator().manual_seed(5))
    config = SwapConfig(steps=(1,), variants=tuple(swaps.VARIANTS), num_inference_steps=4, batch=1)
    problems = [Problem("maze-prompt-000", item_call(i), 0, 0, i) for i in (item, other)]
    sites = [f"blocks.*.{site}" for site, _ in swaps.VARIANTS.values()]
    recorder = Recorder(organism, config, [*sites, "blocks.0.hook_resid_pre"])
    target = recorder(problems[0])
    with organism.hooks([(f"blocks.{layer}.hook_resid_post @ step=1", lambda act, hook: act + mask[None, ..., None] * vector)]):
        donor = Side(problems[1], recorder(problems[0]).recording)
    grid = swap.grid_of(organism, config, Sides("maze-prompt-000", "prompt", target, {"pair": donor}))
    assert torch.equal(grid.masks["object"], mask) and torch.equal(grid.masks["random"], swap.random_mask(mask, 0))
    return grid


def test_a_planted_difference_is_found_in_its_layer_and_tokens(organism):
    layer = 4
    cells = [swaps.cell("pair", v, at, "all", 1) for v, at in (
        ("block", 3), ("block", 4), ("block", 6), ("delta", 3), ("delta", 4), ("attention", 4), ("mlp", 3),
    )]  # fmt: skip
    cells += [swaps.cell("pair", "block", layer, group, 1) for group in ("object", "random")]
    cells += [swaps.cell("self", variant, 5, "all", 1) for variant in swaps.VARIANTS]
    effect = {found.cell: found.effect for found in planted(organism, layer).measure(cells)}
    by = {(swaps.variant_of(c), c.layer, c.group): e for c, e in effect.items() if c.donor == "pair"}
    assert by["block", 3, "all"] == by["delta", 3, "all"] == by["mlp", 3, "all"] == 0  # below the layer: exactly nothing
    assert by["attention", 4, "all"] == 0  # the plant comes after the block's attention
    assert by["block", 4, "all"] == by["block", 6, "all"] == by["block", 4, "object"] == 1
    assert by["delta", 4, "all"] == pytest.approx(1, abs=1e-4)
    assert by["block", 4, "random"] == 0
    assert {e for c, e in effect.items() if c.donor == "self"} == {0.0}


@pytest.mark.slow
def test_a_twin_has_no_pairs_and_the_page_says_so(organism, tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "TRIES", 3)
    config = SwapConfig(tasks=("maze",), items=1, pair_kinds=("prompt",), num_inference_steps=2)
    twin = twins.twin_of(organism, 3)
    result, report = experiment.run_and_report(load("swap"), config, tmp_path / "run", model=twin, workers=1)
    assert result.rows.empty and len(report.data["findings"]) > 1
    assert {found["verdict"] for found in report.data["findings"]} == {"not testable"}
    assert any("must solve both sides" in line for line in report.lines)


def test_a_swap_that_moves_the_run_itself_is_refused():
    rows = pd.DataFrame({"donor": ["self"], "effect": [1e-6], "variant": "block", "layer": 3, "step": 0})
    with pytest.raises(InterpError, match="exactly 0"):
        swap_report.self_note(rows)


CARRIED = {"single": 0.05, "all": 1.0, "from": 1.0}


def table(effect, flips, count: int = 32, spans=("single", "all")) -> pd.DataFrame:
    """Rows of pairs of a model of four layers. ``effect(donor, variant, group, layer)`` is relative, and differs a little from
    pair to pair; ``flips(donor, span, pair)``."""
    rows = []
    for span in spans:
        for donor in ("pair", "random item"):
            for variant, group in [("block", "all"), ("block", "object"), ("block", "random"), ("delta", "all")]:
                for layer in range(4):
                    for i in range(count):
                        moved = effect(donor, variant, group, layer) * (1 + 0.1 * (i % 3 - 1))
                        rows.append({
                            "problem": f"p{i}", "kind": "prompt", "step": 5 if span == "from" else 0, "span": span, "sigma": 1.0,
                            "donor": donor, "variant": variant, "layer": layer, "depth": layer / 4, "group": group,
                            "effect": moved * CARRIED[span], "carried": CARRIED[span], "relative": moved,
                            "flipped": float(flips(donor, span, i)),
                        })  # fmt: skip
    return pd.DataFrame(rows)


def late(donor, variant, group, layer) -> float:
    """The pair's donor works from the middle on, through the object's tokens; a random item's tokens do a little anywhere."""
    return float(layer >= 2 and group != "random") if donor == "pair" else 0.05


def early(donor, variant, group, layer) -> float:
    if donor != "pair" or group == "object":
        return 0.05 * (donor != "pair")
    return 1.0 if layer < 2 else 0.5 * (variant == "block" and group == "all")


def judged(rows: pd.DataFrame) -> dict:
    found = findings(AnalysisResult("swap", SwapConfig(), rows), rows)
    return {finding.key.removeprefix("swap."): finding for finding in found}


def verdicts(rows: pd.DataFrame) -> dict[str, str]:
    return {key: finding.verdict for key, finding in judged(rows).items()}


def test_findings_tell_a_decisive_layer_from_none():
    found = judged(table(late, lambda donor, span, i: donor == "pair"))
    assert {f.verdict for f in found.values()} == {"reproduced"} and {k for k, f in found.items() if f.primary} == {
        "flip", "depth", "object",
    }  # fmt: skip
    assert set(found) == {"flip", "flip-all", "depth", "depth-block", "object", "object-all"}
    assert "layer 2" in found["flip"].statement and "5% of the path" in found["flip"].statement
    assert set(verdicts(table(early, lambda *_: False)).values()) == {"refuted"}


def test_what_one_step_does_not_flip_all_steps_may():
    """The verdict on the paper's swap is of one step; that the whole run carries the answer is a variant beside it."""
    found = verdicts(table(late, lambda donor, span, i: donor == "pair" and span != "single", spans=("single", "from", "all")))
    assert [found[key] for key in ("flip", "flip-from", "flip-all")] == ["refuted", "reproduced", "reproduced"]


def test_numbers_by_hand():
    chance = np.random.default_rng(0)
    rows = table(late, lambda donor, span, i: chance.random() < (0.7 if donor == "pair" else 0.2))
    rows["relative"] = rows.relative + chance.normal(0, 0.3, len(rows))
    found, single = judged(rows), rows[rows.span == "single"]

    def grid(donor: str, variant: str, group: str, value: str) -> np.ndarray:
        """[pair, layer]"""
        part = single[(single.donor == donor) & (single.variant == variant) & (single.group == group)]
        return part[value].to_numpy(float).clip(-1, 1).reshape(4, 32).T

    flips = [grid(donor, "block", "all", "flipped")[:, 2] for donor in ("pair", "random item")]
    assert found["flip"].number.value == pytest.approx((flips[0] - flips[1]).mean())
    assert found["flip"].control.value == pytest.approx(flips[1].mean())
    gains = [g[:, 2:].mean(1) - g[:, :2].mean(1) for g in (grid(d, "delta", "all", "relative") for d in ("pair", "random item"))]
    assert found["depth"].number.value == pytest.approx((gains[0] - gains[1]).mean())
    assert found["depth"].control.value == pytest.approx(gains[1].mean()) and found["depth"].number.n == 32
    more = [
        (grid(d, "block", "object", "relative") - grid(d, "block", "random", "relative")).mean(1) for d in ("pair", "random item")
    ]
    assert found["object"].number.value == pytest.approx((more[0] - more[1]).mean())


def test_one_pair_that_diverges_by_itself_does_not_decide():
    """A swap counts as at most all that its steps carry: of 32 pairs, one that gives 300 times that is one pair of 32."""
    calm, wild = table(late, lambda *_: False), table(late, lambda *_: False)
    one = (wild.problem == "p0") & (wild.span == "single") & (wild.donor == "pair") & (wild.layer == 3)
    wild["relative"] = wild.relative.where(~one, 300.0)
    wild["effect"] = wild.relative * wild.carried
    before, after = judged(calm), judged(wild)
    for key in ("depth", "depth-block"):
        moved = after[key].number.value - before[key].number.value
        assert 0 <= moved <= 1 / 32 and after[key].number.high < before[key].number.high + 0.3


def test_what_the_whole_step_does_not_do_no_part_of_it_is_refuted_of():
    """The donor's velocity at the first step, all of it, is repaired to a twentieth: a tenth is in no layer and in no tokens."""
    rows = table(late, lambda *_: False, spans=("single", "all"))
    rows["relative"] *= np.where(rows.span == "single", 0.05, 1.0)
    found = judged(rows)
    assert [found[key].verdict for key in ("depth", "depth-block", "object")] == ["not testable"] * 3
    assert "0.05" in found["object"].why and "0.1 is not there" in found["object"].why
    assert found["flip"].verdict == "refuted" and found["object-all"].verdict == "reproduced"
    without = judged(rows[rows.layer < 3])["object"]  # what the last block does is not known
    assert without.verdict == "not testable" and "not known without the last block" in without.why
    there = table(late, lambda *_: False)
    assert judged(there[there.layer < 3])["object"].verdict == "reproduced"  # what is found was there to find


def test_a_random_item_that_does_as_much_shows_nothing():
    """Placebos: the donor's tokens do what any do; and which of the two is the donor is dealt out for every pair."""
    rows = table(lambda donor, *at: late("pair", *at), lambda *_: True)
    assert set(verdicts(rows).values()) <= {
        "refuted",
        "not testable",
        "undecided",
    }  # equal everywhere: open
    rows = table(late, lambda donor, span, i: donor == "pair")
    dealt = rows.problem.str[1:].astype(int) % 2 == 0
    other = rows.donor.map({"pair": "random item", "random item": "pair"})
    assert set(verdicts(rows.assign(donor=rows.donor.where(dealt, other))).values()) <= {"refuted", "undecided"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.assign(effect=0.0, relative=0.0), "changed nothing"),  # the donor is the run itself
        (lambda rows: rows[rows.donor == "pair"], "no random item's tokens"),
        (lambda rows: rows.assign(step=5), "was not made"),
        (lambda rows: rows[rows.problem.isin([f"p{i}" for i in range(11)])], "of at least"),
    ],
)
def test_what_was_not_done_is_not_testable(change, words):
    found = judged(change(table(late, lambda donor, span, i: donor == "pair")))
    assert {f.verdict for f in found.values()} == {"not testable"}
    assert all(words in f.why for f in found.values()), [f.why for f in found.values()]


def test_layers_far_from_the_middle_and_of_one_half():
    rows = table(late, lambda donor, span, i: donor == "pair")
    found = judged(rows[rows.layer == 3])
    assert "not the middle one" in found["flip"].why and "both halves" in found["depth"].why
    assert found["object"].verdict == "reproduced"


def test_a_run_on_the_organism(organism, tmp_path):
    config = SwapConfig(
        tasks=("maze",), items=1, pair_kinds=("prompt",), num_inference_steps=6, layers=(0, 7), steps=(0, 4),
        variants=("block", "delta"),
    )  # fmt: skip
    result, report = experiment.run_and_report(load("swap"), config, tmp_path / "run", model=organism, workers=1)
    rows = result.rows
    assert RunStore(tmp_path / "run").verify() == []
    assert set(rows.layer) == {0, 7} and set(rows.step) == {0, 4} and set(rows.group) == {"all", "object", "random"}
    assert {"pair", "self", "random item"} <= set(rows.donor) and (rows[rows.donor == "self"].effect == 0).all()
    assert rows.effect.notna().all() and set(rows.flipped) <= {0.0, 1.0}
    last = rows[(rows.donor == "pair") & (rows.group == "all") & (rows.step == 4) & (rows.variant == "block")]
    assert (last.effect > 0).any() and set(rows.span) == {"single", "from", "all"}
    whole = rows[(rows.span == "all") & (rows.donor == "pair") & (rows.group == "all") & (rows.layer == 7)]
    assert np.allclose(whole.relative, 1, atol=1e-4)  # after the last layer nothing of the target is left
    assert {f["key"] for f in report.data["findings"]} == {f"swap.{name}" for name in (
        "flip", "flip-from", "flip-all", "depth", "depth-block", "object", "object-all",
    )} and "reproduced" not in {f["verdict"] for f in report.data["findings"]}  # fmt: skip
    assert "By step" in report.html and "reads the prompt and the first frame again" in report.html
    (shown,) = players(report.html).values()
    swapped = rows[
        (rows.layer == 7) & (rows.group == "all") & (rows.variant == "block") & rows.donor.isin(["pair", "random item"])
    ]
    asked = pd.concat([swapped[(swapped.span == "single") & (swapped.step == 0)], swapped[swapped.span == "all"]])
    assert [row["name"] for row in shown["rows"][:2]] == ["receives", "gives"] and len(asked) == 4
    assert [row["told"]["answer"] for row in shown["rows"][2:]] == asked.outcome.map(ANSWERS).tolist()
    assert [row["told"]["effect"] for row in shown["rows"][2:]] == [worded(plain(effect)) for effect in asked.effect]


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
    assert any("Nobody judges" in line for line in report.lines) and len(report.data["findings"]) == 2
    file.write_text(json.dumps({"prompt": "one"}))
    with pytest.raises(InterpError, match="at least two lines"):
        swap.pieces(config)


def test_a_layer_that_is_not_there_is_named(organism, tmp_path):
    with pytest.raises(InterpError, match="layers 0 to 7"):
        experiment.run(load("swap"), SwapConfig(layers=(8,)), tmp_path / "run", model=organism, workers=1)


@pytest.mark.parametrize(
    ("settings", "asked"),
    [({}, "flip flip-from flip-all depth depth-block object object-all"),
     ({"spans": ("single",)}, "flip depth depth-block object"),
     ({"variants": ("delta",), "tokens": ("all",)}, "flip flip-from flip-all depth"),
     ({"prompts": "mine.jsonl", "tokens": ("all",)}, "depth depth-block")],
)  # fmt: skip
def test_without_a_pair_every_claim_that_was_asked_has_no_item(settings, asked):
    """As of a twin, which solves none: were its page silent, it would let each claim pass unsaid."""
    result = AnalysisResult("swap", SwapConfig(**settings), pd.DataFrame())
    found = findings(result, result.rows)
    assert [f.key for f in found] == [f"swap.{name}" for name in asked.split()]
    assert {(f.verdict, f.why, f.number.n) for f in found} == {("not testable", "no item is eligible", 0)}


def test_the_report_survives_missing_pairs():
    result = AnalysisResult("swap", {}, pd.DataFrame(), {}, {name: LeftOut(reason="none") for name in "ab"})
    assert swap_report.missing_notes(result) == ["2 pair(s) left out: none"]
