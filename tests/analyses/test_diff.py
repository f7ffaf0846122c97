"""Two models held against each other: a planted layer is named, identical ones differ by exactly 0."""

from __future__ import annotations

import copy
import json

import numpy as np
import pandas as pd
import peft
import pytest
import torch
from players import item_table

from cos_interp.analyses.diff import DiffConfig
from cos_interp.analyses.diff.against import other_model
from cos_interp.analyses.diff.apart import apart, apart_rows
from cos_interp.analyses.diff.findings import chosen, findings, same, stretches
from cos_interp.analyses.diff.regions import Region, places, regions, relative, transplanted, weight_rows, windows
from cos_interp.analyses.dossier import DossierConfig
from cos_interp.analyses.dossier.run import chosen as of_dossier
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.experiment import run_and_report
from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.kit.other_models import check_build, kept_apart, weights
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.errors import InterpError
from tests.support import build_tiny, hooked_tiny, tiny_call

CALL = {k: v for k, v in tiny_call("wan21-t2v", guidance=1.0, steps=2).items() if k != "generator"} | {"seed": 0}


def planted(model: HookedVideoPipeline, layer: int, size: float = 0.05) -> HookedVideoPipeline:
    """A copy of a model, of which one layer's MLP has other weights."""
    other, draw = copy.deepcopy(model), torch.Generator().manual_seed(0)
    for name, weight in other.pipe.transformer.named_parameters():
        if name.startswith(f"blocks.{layer}.ffn.net.2."):
            weight.data += size * torch.randn(weight.shape, generator=draw)
    return other


# --- arithmetic ------------------------------------------------------------------------------------------------------


def test_windows_go_up_to_half_and_cover_every_layer():
    assert windows(1) == [(0, 0)] and windows(2) == [(0, 0), (1, 1)]
    for layers in (3, 8, 30, 40):
        found = windows(layers)
        assert len(set(found)) == len(found) and all(0 <= a <= b < layers and 2 * (b - a + 1) <= layers for a, b in found)
        assert {a for a, b in found if a == b} == set(range(layers))


def test_a_region_holds_its_weights_alone():
    inside = Region("window", "transformer", 1, 2)
    assert [inside.holds(layer, "ffn") for layer in (None, 0, 1, 2, 3)] == [False, False, True, True, False]
    part = Region("part", "transformer", part="ffn")
    assert part.holds(3, "ffn") and not part.holds(3, "attn1") and not part.holds(None, "ffn")
    assert Region("ends", "transformer").holds(None, "proj_out") and not Region("ends", "transformer").holds(0, "ffn")


def test_apart_by_hand():
    x = torch.randn(1, 2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    assert apart(x, x.clone()) == {"delta": 0.0, "cka": 0.0, "cka_debiased": 0.0}
    twice = apart(x, 2 * x)
    assert twice["delta"] == pytest.approx(1.0) and twice["cka"] == pytest.approx(0.0, abs=1e-12)  # CKA knows no scale
    y = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    a, b = (t.double().numpy().reshape(-1, 5) - t.double().numpy().reshape(-1, 5).mean(0) for t in (x, y))
    by_kernels = [np.trace((p @ p.T) @ (q @ q.T)) for p, q in ((a, b), (a, a), (b, b))]
    assert apart(x, y)["cka"] == pytest.approx(1 - by_kernels[0] / np.sqrt(by_kernels[1] * by_kernels[2]), rel=1e-9)
    assert relative(torch.zeros(2), torch.ones(2)) == np.inf and relative(torch.zeros(2), torch.zeros(2)) == 0


def made_up(effects: dict[int, float], items: int = 30, layers: int = 8, noise: float = 0.05, seed: int = 0) -> pd.DataFrame:
    """Rows of a run in which a layer of the other model goes so far, and layers add up."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(items):
        about = {
            "problem": f"p{i:03}",
            "task": "maze",
            "kind": "transplant",
            "expert": "transformer",
            "moved": 0.1,
            "as_other": None,
        }
        for what in ("weights", "activations"):
            for first, last in windows(layers):
                unit, name = ("layer", f"layer {first}") if first == last else ("window", f"layers {first} to {last}")
                effect = sum(effects.get(n, 0.0) for n in range(first, last + 1)) + noise * rng.normal()
                rows.append({**about, "what": what, "unit": unit, "first": first, "last": last, "region": name, "effect": effect})
        rows += [{**about, "kind": "plain", "what": "other", "moved": 0.5}]
    return pd.DataFrame(rows)


def judged(rows: pd.DataFrame, twins=()):
    return findings(AnalysisResult("diff", DiffConfig(), rows, twins=twins))


def test_one_layer_is_named_and_reproduced():
    rows = made_up({3: 1.0})
    assert chosen(stretches(rows, "weights")).region == "layer 3"
    region, by_activations, answers = judged(rows)
    assert region.verdict == "reproduced" and "layer 3" in region.statement and region.primary and not by_activations.primary
    tested = rows[(rows.what == "weights") & (rows.problem.str[1:].astype(int) % 2 == 1)].set_index("problem")
    control = chosen(stretches(rows, "weights")).control
    by_hand = tested[tested.region == "layer 3"].effect.clip(0, 1) - tested[tested.region == control].effect.clip(0, 1)
    assert region.number.value == pytest.approx(by_hand.mean(), rel=1e-12) and region.number.n == 15
    assert answers.verdict == "not testable"
    assert judged(rows, [{"diff.region": Number(0.9, 0.8, 1.2, 15)}])[0].verdict == "undecided"


def test_a_layer_that_is_all_of_it_exactly_is_reproduced():
    assert judged(made_up({3: 1.0}, noise=0))[0].verdict == "reproduced"


def test_two_layers_together_are_the_shortest_stretch():
    assert chosen(stretches(made_up({4: 0.5, 5: 0.5}), "weights")).region == "layers 4 to 5"


@pytest.mark.parametrize("effects", [dict.fromkeys(range(8), 1 / 8), {1: 0.5, 6: 0.5}])
def test_a_difference_that_is_spread_is_in_no_stretch(effects):
    found = judged(made_up(effects, items=40))[0]
    assert found.verdict == "refuted" and "largest part" in found.statement


def test_the_control_shares_no_layer():
    choice = chosen(stretches(made_up({2: 0.5, 3: 0.5}), "weights"))
    first, last = (int(word) for word in choice.control.removeprefix("layers ").split(" to "))
    assert last < 2 or first > 3


def test_pure_noise_is_seldom_called_a_region():
    assert "reproduced" not in {judged(made_up({}, noise=0.3, seed=seed))[0].verdict for seed in range(10)}


def test_answers_are_compared_where_the_verdicts_differ():
    rows = made_up({3: 1.0}, items=80)
    rows["as_other"] = (rows.region == "layer 3").astype(float)
    assert judged(rows)[2].verdict == "reproduced"
    assert judged(rows.assign(as_other=1.0))[2].verdict != "reproduced"


# --- models ----------------------------------------------------------------------------------------------------------


def test_the_whole_of_another_model_is_that_model_and_goes_away_again():
    model = hooked_tiny()
    other = planted(model, 1)
    mine, theirs = model.run(**CALL).latents, other.run(**CALL).latents
    assert not torch.equal(mine, theirs) and kept_apart(model, other) is None
    for region, wanted in ((Region("all", "transformer"), theirs), (Region("layer", "transformer", 1, 1), theirs),
                           (Region("layer", "transformer", 0, 0), mine), (Region("ends", "transformer"), mine)):  # fmt: skip
        with transplanted(model, other, region):
            assert torch.equal(model.run(**CALL).latents, wanted)
        assert torch.equal(model.run(**CALL).latents, mine) and torch.equal(other.run(**CALL).latents, theirs)
    with pytest.raises(KeyError), transplanted(model, other, Region("all", "transformer")):
        raise KeyError
    assert torch.equal(model.run(**CALL).latents, mine)
    far = [row for row in weight_rows(model, other) if row["delta"] > 0]
    assert [(row["layer"], row["part"]) for row in far] == [(1, "ffn")]


def test_every_weight_is_in_one_layer_or_at_the_ends():
    model = hooked_tiny()
    covered = [r for r in regions(model.engines) if r.unit in ("layer", "ends")]
    held = [sum(r.holds(layer, part) for r in covered) for layer, part in places(model.engines["transformer"]).values()]
    assert held == [1] * len(weights(model.pipe.transformer))


def test_activations_on_the_same_inputs_part_where_the_weights_do():
    """Of the tiny model's three blocks the second has other weights: on the first model's inputs it alone differs; on each
    model's own, all that comes after it does too, and against plain forward hooks."""
    model = hooked_tiny()
    other = planted(model, 1)
    found = pd.DataFrame(apart_rows(model, other, (0, 1), 10**9, CALL))
    post = found[found.site == "hook_resid_post"]
    given, own = (post[post.inputs == kind].groupby("layer").delta.max() for kind in ("given", "own"))
    assert [layer for layer, far in given.items() if far > 0] == [1]
    assert [layer for layer, far in own.items() if far > 0] == list(range(1, model.layers))
    seen: dict = {}
    run = model.run(**CALL)

    def hook(name):
        return lambda module, args, out: seen.setdefault(name, []).append(out.clone())

    for name, pipe in (("mine", model.pipe), ("theirs", other.pipe)):
        handle = pipe.transformer.blocks[1].register_forward_hook(hook(name))
        pipe.transformer(run.x_t[0], torch.tensor([run.timesteps[0]]), run.prompt_embeds[0], return_dict=False)
        handle.remove()
    by_hand = relative(seen["mine"][0], seen["theirs"][0])
    assert post[(post.inputs == "own") & (post.layer == 1) & (post.step == 0)].delta.item() == pytest.approx(by_hand, rel=1e-5)


def test_models_of_other_builds_are_refused():
    model = hooked_tiny()
    with pytest.raises(InterpError, match="differ in class"):
        check_build(model, hooked_tiny("wan21-i2v"))
    with pytest.raises(InterpError, match="give --against"):
        other_model(model, DiffConfig())
    other = HookedVideoPipeline.from_pipeline(build_tiny("wan21-t2v"))
    other.pipe.transformer.to(torch.bfloat16)
    assert "another kind" in kept_apart(model, other)


def test_a_dossier_leaves_it_out():
    assert "diff" not in [entry.name for entry in of_dossier(DossierConfig())]


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "two.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "seed": 3}) + "\n" for p in ("a red ball", "a green box")))
    return str(path)


def run_of(config, folder, model=None):
    return run_and_report(load("diff"), config, folder, model=model, workers=1)


def test_the_same_model_twice_differs_by_exactly_0(lines, tmp_path):
    config = DiffConfig(model="tiny:wan2.1", against="tiny:wan2.1", prompts=lines, num_inference_steps=2, steps=(0, 1))
    result, report = run_of(config, tmp_path / "run")
    rows = result.rows
    assert same(rows) and (rows[rows.kind == "transplant"].moved == 0).all() and rows.effect.isna().all()
    found = rows[rows.kind.isin(["apart", "weights"])]
    assert len(found) and (found.delta == 0).all() and (found.cka.dropna() == 0).all()
    assert {f["verdict"] for f in report.data["findings"]} == {"not testable"}
    assert any("same videos, bit for bit" in note for note in report.data["notes"])


@pytest.mark.parametrize(("dtype", "against"), [("fp32", "bf16"), ("bf16", "fp32")])
def test_the_same_model_in_fewer_bits_differs_by_their_rounding(dtype, against, lines, tmp_path):
    """All of what is put in is what bf16 makes of it: the whole of the other one's updates is as far as the other run itself."""
    config = DiffConfig(
        model="tiny:wan2.1", dtype=dtype, against="tiny:wan2.1", against_dtype=against, prompts=lines, num_inference_steps=2,
        steps=(0, 1),
    )  # fmt: skip
    result, report = run_of(config, tmp_path / "run")
    rows = result.rows
    apart = rows[(rows.kind == "apart") & (rows.site == "hook_resid_post")]
    assert len(apart) and apart.delta.between(1e-5, 0.05).all()  # eight bits of mantissa, a few layers
    put_in = rows[rows.kind == "transplant"]
    assert set(put_in.what) == {"activations"} and put_in.effect.notna().all() and put_in.moved.between(0, 0.05).all()
    assert any("another kind" in note for note in report.data["notes"])


def test_weights_that_cannot_be_put_in_are_not_testable(lines, tmp_path):
    config = DiffConfig(
        model="tiny:wan2.1", against="tiny:wan2.1", against_dtype="bf16", prompts=lines, num_inference_steps=2, what=("weights",)
    )
    result, report = run_of(config, tmp_path / "run")
    assert "transplant" not in set(result.rows.kind) and any("another kind" in note for note in report.data["notes"])
    assert {f["verdict"] for f in report.data["findings"]} == {"not testable"}


def test_a_lora_in_one_layer_is_named(lines, tmp_path):
    """From a file, as a trainer leaves it; the run is not continued with another one."""
    pipe = build_tiny("wan21-t2v")
    pipe.transformer.add_adapter(peft.LoraConfig(r=4, lora_alpha=8, target_modules=["blocks.1.attn2.to_out.0"]))
    noise = torch.Generator().manual_seed(5)
    layers = {k: torch.randn(v.shape, generator=noise) for k, v in peft.get_peft_model_state_dict(pipe.transformer).items()}
    pipe.save_lora_weights(tmp_path / "lora", transformer_lora_layers=layers)
    given = {"model": "tiny:wan2.1", "prompts": lines, "num_inference_steps": 2, "what": ("weights",)}
    config = DiffConfig(against_lora=(str(tmp_path / "lora"),), **given)
    result, report = run_of(config, tmp_path / "run")
    rows = result.rows
    effect = rows[rows.kind == "transplant"].groupby("region").effect.mean()
    assert effect["layer 1"] == effect["attn2"] == 1 and effect["layer 0"] == effect["outside the blocks"] == 0
    far = rows[(rows.kind == "weights") & (rows.delta > 0)]
    assert far[["layer", "part"]].to_numpy().tolist() == [[1, "attn2"]]
    assert "layer 1" in report.data["findings"][0]["statement"]
    with pytest.raises(RunError, match="against"):
        run_of(DiffConfig(against="tiny:wan2.1", **given), tmp_path / "run")
    with pytest.raises(InterpError, match="asks for 0123"):
        run_of(config.model_copy(update={"against_digest": "0123"}), tmp_path / "other")


@pytest.mark.slow
def test_a_planted_layer_of_the_organism_is_named(organism, tmp_path):
    """And a twin, in whose place nothing is known, shows no region."""
    planted(organism, 5, 0.1).pipe.save_pretrained(tmp_path / "planted")
    config = DiffConfig(against=str(tmp_path / "planted"), items=8, num_inference_steps=2, what=("weights",), steps=(1,))
    _, report = run_of(config.model_copy(update={"twins": 1}), tmp_path / "run", organism)
    found = report.data["findings"][0]
    assert found["verdict"] == "reproduced" and "layer 5" in found["statement"] and found["number"]["n"] == 16
    told = item_table(report.html)
    assert len(told) == 32 and all(row["opens"] and row["first model"] and row["other model"] for row in told)
