"""One meaning of a verdict: three zones around the smallest effect of interest, and twins that know nothing."""

from __future__ import annotations

import json
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import cpu_offload

from cos_interp import analyses
from cos_interp.analyses.driver import rules, twins
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean, PairedShares, Share
from cos_interp.analyses.driver.findings import Finding, Number, decide
from cos_interp.analyses.driver.rules import Rule, judge
from cos_interp.analyses.driver.store import RunStore
from cos_interp.interp import HookedVideoPipeline, tiny
from cos_interp.interp.files import plain
from cos_interp.interp.offloading import offload_of

NONE = Number(math.nan)
ASKED = Rule(claim="c", number="a share", smallest=0.5, control="chance", dated="2026-11-25", seen="none")


@pytest.fixture(autouse=True)
def one_rule(monkeypatch):
    monkeypatch.setattr(rules, "rules", lambda: {"x.c": ASKED})


def test_where_the_control_leaves_less_than_counts_nothing_is_asked():
    full = rules.no_room("x.c", 0.49, "chance", "give harder items")
    assert full == "nothing can gain more than 0.490 over chance, and 0.5 counts; give harder items"
    assert rules.no_room("x.c", 0.5, "chance") is None and rules.no_room("x.c", 1 - 0.5 - 1e-16, "chance") is None
    assert rules.no_room("x.c", math.nan, "no items") is None and rules.no_room("x.c", 0.4, "chance", least=0.3) is None


def test_the_three_zones():
    assert [decide(*bounds, 0.5) for bounds in ((0.51, 0.9), (0.1, 0.49), (0.4, 0.6), (0.5, 0.5))] == [
        "reproduced", "refuted", "undecided", "undecided",
    ]  # fmt: skip
    assert decide(math.nan, 1.0) == "not testable"


@pytest.mark.parametrize(
    ("solved", "n", "verdict", "why"),
    [(19, 20, "reproduced", ""), (2, 20, "refuted", ""), (12, 20, "undecided", "about .* items would decide, were 0.60"),
     (19, 19, "not testable", "19 of at least 20 items"), (0, 0, "not testable", "no item is eligible")],
)  # fmt: skip
def test_a_share_against_its_rule(solved, n, verdict, why):
    found = judge("x.c", Share([1] * solved + [0] * (n - solved)), "s", NONE)
    assert found.verdict == verdict and (found.why == why or re.search(why, found.why))
    if verdict == "reproduced":
        assert found.p < 0.025
    assert Finding.of(found.data()).key == "x.c" and "above 0.5; control: chance (rule of 2026-11-25)" in found.rule


def test_few_discordant_pairs_refute_and_do_not_reproduce(monkeypatch):
    monkeypatch.setattr(rules, "rules", lambda: {"x.c": ASKED.model_copy(update={"smallest": 0.01})})
    few = PairedShares([1] * 5 + [0] * 35, [0] * 40)
    assert few.interval()[0] > 0.01 and judge("x.c", few, "s", NONE).verdict == "undecided"
    monkeypatch.setattr(rules, "rules", lambda: {"x.c": ASKED.model_copy(update={"smallest": 0.3})})
    assert judge("x.c", PairedShares([1, 1, *[0] * 98], [0] * 100), "s", NONE).verdict == "refuted"


def test_what_a_twin_shows_too_is_not_reproduced():
    strong = Share([1] * 19 + [0])
    shown = strong.number()
    assert judge("x.c", strong, "s", NONE, [Number(0.1, 0.0, 0.3, 20), NONE]).verdict == "reproduced"
    equal = Mean([0.6] * 20, bounds=(0, 1)).number()  # as high as .67 is possible; the other has .75 at least
    assert equal.kind == "constant" and equal.high < strong.interval()[0]
    assert judge("x.c", strong, "s", NONE, [equal]).verdict == "reproduced"
    wider = Mean([0.71] * 20, bounds=(0, 1)).number()  # its value lies below, what it may be does not
    assert wider.value < strong.interval()[0] < wider.high
    for twin in (shown, wider, Number(0.8, math.nan, math.nan, 20), Number(0.2, 0.0, 0.99, 20)):
        found = judge("x.c", strong, "s", NONE, [Number(0.1, 0.0, 0.3, 20), twin])
        assert found.verdict == "undecided" and "a twin that knows nothing shows" in found.why
    assert judge("x.c", Share([0] * 20), "s", NONE, [shown]).verdict == "refuted"


def test_an_open_end_of_a_twins_interval_is_no_end_when_it_is_read_again():
    """Where one of twelve differs the bootstrap-t leaves the upper end open, for which JSON has no word."""
    few = Mean([0.0] * 11 + [0.2])
    assert few.number().low > -math.inf and few.number().high == math.inf
    found = judge("x.c", few, "s", NONE)
    again = Finding.of(json.loads(json.dumps(plain(found.data())))).number
    assert math.isnan(again.high) and again.value == pytest.approx(0.2 / 12)
    for twin in (few.number(), again, Number(0.02, math.nan, math.nan, 12, "mean")):
        assert judge("x.c", Share([1] * 40), "s", NONE, [twin]).verdict == "undecided"
    assert judge("x.c", Share([1] * 40), "s", NONE, [Number(0.02, math.nan, math.nan, 1, "mean")]).verdict == "reproduced"


def test_a_twin_that_did_not_run_lets_nothing_pass(monkeypatch, tmp_path):
    """Nor does one whose run says nothing of the claim. One that was asked and has no item is another thing: it says why."""
    strong, rows = Share([1] * 19 + [0]), pd.DataFrame()
    empty = {"x.c": Number(math.nan, kind="share", why="no item is eligible")}
    for shown, said in (([empty], ""), ([empty, None], "did not run"), ([None], "did not run"), ([empty, {}], "was not asked")):
        found = AnalysisResult("x", None, rows, twins=shown).judge("x.c", strong, "s", NONE)
        assert found.verdict == ("undecided" if said else "reproduced") and said in found.why and bool(said) == bool(found.why)
        assert str(found.twins[-1]) == (said or "no value (n = 0): no item is eligible")
        assert Finding.of(json.loads(json.dumps(found.data()).replace("NaN", "null"))).twins[-1].kind == found.twins[-1].kind
    assert AnalysisResult("x", None, rows, twins=[None]).judge("x.c", Share([0] * 20), "s", NONE).verdict == "refuted"
    assert twins.shown(tmp_path, 1) == [None]  # there is no such run


def test_what_was_not_done_is_not_testable():
    found = judge("x.c", Share([1] * 40), "s", NONE, unfit="the donor's answer was read in 0 of 40")
    assert found.verdict == "not testable" and found.why == "the donor's answer was read in 0 of 40" and math.isnan(found.p)
    assert judge("x.c", Mean([0.9] * 40), "s", NONE).why == "all 40 items have the same value"


def test_every_rule_says_what_had_been_seen(monkeypatch):
    monkeypatch.undo()
    assert all(rule.seen and rule.number and rule.control for rule in rules.rules().values())
    assert len(rules.digest()) == 64
    for key, rule in rules.rules().items():  # one that was changed after its numbers were seen says so, and when
        says = re.search("(c|C)hanged (again )?after its numbers|fter its numbers were seen|after the number", rule.seen)
        assert rule.changed or not says, key
        assert rule.changed is None or rule.changed >= rule.dated, key
        assert (f"changed on {rule.changed}, after its numbers were seen" in rule.words()) == (rule.changed is not None)


def test_a_twin_has_weights_of_its_own_and_all_else_of_the_model(organism):
    first, again, second = (twins.twin_of(organism, number) for number in (0, 0, 1))
    weights = lambda model: torch.cat([p.flatten() for p in model.pipe.transformer.parameters()])
    assert torch.equal(weights(first), weights(again)) and not torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(organism)) and weights(first).std() > 0.01
    assert first.pipe.vae is organism.pipe.vae and first.pipe.text_encoder is organism.pipe.text_encoder
    assert first.defaults == organism.defaults and weights(first).dtype == weights(organism).dtype


@pytest.mark.parametrize("name", ["wan2.2", "cogvideox", "ltx"])
def test_a_twin_of_any_family_runs(name):
    model = HookedVideoPipeline.from_pipeline(tiny.build(name))
    call = {**tiny.call(name, steps=2), "seed": 0}
    twin = twins.twin_of(model, 0)
    assert set(twin.engines) == set(model.engines)
    assert not torch.equal(twin.run(**call).latents, model.run(**call).latents)


def test_twins_are_runs_inside_the_run(tmp_path: Path, prompts):
    settings = {"num_inference_steps": 2, "prompts": prompts, "model": "tiny:wan2.1"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        analyses.run("self-correction", out=tmp_path / "run", workers=1, twins=2, **settings)
    assert sorted(path.name for path in (tmp_path / "run").glob("twin-*")) == ["twin-0", "twin-1"]
    parts = [RunStore(tmp_path / "run" / name).facts()["model"]["parts"] for name in ("twin-0", "twin-1", "")]
    assert parts[0]["vae"] == parts[1]["vae"] == parts[2]["vae"]
    assert len({part["transformer"] for part in parts}) == 3
    assert RunStore(tmp_path / "run").verify() == []
    (tmp_path / "run" / "twin-1" / "results.parquet").write_bytes(b"x")
    assert "twin-1" in RunStore(tmp_path / "run").verify()[0]


def test_a_run_gets_twins_later(tmp_path: Path, prompts):
    settings = {"num_inference_steps": 2, "prompts": prompts, "model": "tiny:wan2.1"}
    analyses.run("self-correction", out=tmp_path / "run", workers=1, **settings)
    analyses.run("self-correction", out=tmp_path / "run", workers=1, twins=1, **settings)
    assert RunStore(tmp_path / "run").verify() == [] and (tmp_path / "run" / "twin-0" / "run.json").is_file()


def test_nothing_is_reproduced_by_chance_more_often_than_it_says():
    """Of 400 runs whose true share is the smallest effect itself, at most 2.5 % and their error are called reproduced."""
    chance = np.random.default_rng(0)
    found = [judge("x.c", Share(chance.random(40) < 0.5), "s", NONE).verdict for _ in range(400)]
    assert found.count("reproduced") <= 10 + 2 * math.sqrt(10)


OFFLOADS = {
    "model": lambda pipe: pipe.enable_model_cpu_offload(device="cpu"),
    "group": lambda pipe: pipe.transformer.enable_group_offload(
        onload_device=torch.device("cpu"), offload_device=torch.device("cpu"), offload_type="leaf_level"
    ),
    "sequential": lambda pipe: [
        cpu_offload(part, torch.device("cpu")) for part in (pipe.transformer, pipe.transformer_2, pipe.vae, pipe.text_encoder)
    ],
}


@pytest.mark.parametrize("way", OFFLOADS)
def test_twins_wait_where_the_model_does_and_show_the_same(way, tmp_path, prompts):
    asked = {"num_inference_steps": 2, "prompts": prompts, "twins": 1, "workers": 1}
    plain = analyses.run("self-correction", model="tiny:wan2.2", out=tmp_path / "plain", **asked)
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.2")
    OFFLOADS[way](model.pipe)
    twin = twins.twin_of(model, 0)
    assert offload_of(model.pipe, model.pipe.transformer) == offload_of(twin.pipe, twin.pipe.transformer) == way
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = analyses.run("self-correction", model=model, out=tmp_path / way, **asked)
    for folder in ("", "twin-0"):
        mine, theirs = (analyses.load(one.folder / folder).rows for one in (run, plain))
        assert mine.drop(columns="model", errors="ignore").equals(theirs.drop(columns="model", errors="ignore"))
    if way == "model":  # what both had waits for the model's own turn
        hooked = {hook.model for hook in model.pipe._all_hooks}
        assert model.pipe.vae in hooked and model.pipe.vae._hf_hook is not None
        chain = model.pipe.vae._hf_hook.prev_module_hook
        assert chain is None or chain.model in {engine.module for engine in model.engines.values()}


def test_a_twin_that_cannot_be_made_shows_nothing_and_the_run_ends(tmp_path, prompts):
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    model.pipe.transformer.register_to_config(ffn_dim=-1)  # of which none can be drawn
    with pytest.warns(UserWarning, match="twin-0: "):
        run = analyses.run(
            "self-correction", model=model, out=tmp_path / "run", num_inference_steps=2, prompts=prompts, twins=1, workers=1
        )
    assert len(run.rows) and not (tmp_path / "run" / "twin-0").exists()
