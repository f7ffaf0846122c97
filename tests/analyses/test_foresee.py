"""What every experiment says that it takes, held against the block calls that its run makes."""

from __future__ import annotations

import json

import pytest
from planned import counted, planned
from safetensors.torch import load_file

from cos_interp.analyses.diff.against import other_model
from cos_interp.analyses.driver import twins
from cos_interp.analyses.driver.experiment import loaded, run_and_report
from cos_interp.analyses.driver.planning import bare, forecast
from cos_interp.analyses.driver.registry import entries, foresight, load
from cos_interp.analyses.kit.other_models import without_weights
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.planning.costs import Shape

SMALL = {"model": "tiny:wan2.2", "num_inference_steps": 3, "guidance_scale": 3.0}
EXACT = {
    "acceleration": {
        "num_inference_steps": 4,
        "bands": 2,
        "methods": ("cache", "skip"),
        "draws": 1,
        "batch": 4,
        "asked": ("1@1:3",),
    },
    "attention": {},
    "commitment": {"noises": 2, "steps": (0, 2)},
    "ensemble": {"seeds": 2, "steps": (1,)},
    "layers": {"layers": (1,), "batch": 5, "references": 1},
    "memory": {"knocked": 1, "batch": 5},
    "noise": {"steps": (0, 2), "modes": ("renoise",), "batch": 4},
    "perception-before-action": {},
    "posterior": {"noises": 3},
    "propagation": {"batch": 2},
    "recovery": {"steps": (1,), "batch": 2},
    "seeds": {"noises": 2, "steps": (0, 1), "scorer": "motion"},
    "seed-choice": {"noises": 2, "steps": (2,), "doses": (-1.0, 1.0)},
    "self-correction": {},
    "step-budget": {"draws": 1, "finer": 2},
    "swap": {"layers": (0, 2), "tokens": ("all",)},
    "trajectory": {"noises": 2},
}  # by experiment, of own prompts
ITEMS = {
    "commitment": {"items": 1, "noises": 2, "steps": (1,), "pairs": 1},
    "layers": {"items": 1, "layers": (2,), "ablations": ("mean",), "spans": ("all",)},
    "memory": {"items": 1, "knocked": 1},
    "recovery": {"items": 1, "steps": (2,)},
    "seed-choice": {"items": 4, "steps": (2,)},
    "swap": {"items": 1, "pair_kinds": ("prompt",), "spans": ("single",), "steps": (0,), "layers": (3,)},
}  # of the organism's own tasks; the pairs are those that it solves


@pytest.fixture
def pair_file(tmp_path):
    sides = [{"clean": {"prompt": f"a red ball {n}"}, "corrupt": {"prompt": f"a blue ball {n}"}} for n in range(3)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps({**side, "boxes": {"ball": [0, 0, 16, 16]}}) for side in sides))
    return str(path)


@pytest.mark.parametrize("name", EXACT)
def test_planned_block_calls_are_those_that_run(name, prompts, tmp_path):
    config = entries()[name].config(prompts=prompts, **SMALL | EXACT[name])
    plan = planned(name, config, tmp_path)
    assert plan.blocks == plan.most == counted(name, config, tmp_path / "run")[0] > 0
    assert tensors_on_disk(tmp_path / "run") <= plan.total("disk")


def tensors_on_disk(run):
    """Bytes of the tensors that a run has written: each file has a head beside them."""
    return sum(tensor.nbytes for file in (run / "shards").glob("*.safetensors") for tensor in load_file(file).values())


def test_every_experiment_says_what_it_takes():
    assert [name for name in entries() if foresight(name) is None] == []


def test_planned_block_calls_of_two_models_are_those_of_both(prompts, tmp_path):
    config = entries()["diff"].config(prompts=prompts, against="tiny:wan2.2", **SMALL)
    plan = planned("diff", config, tmp_path)
    ran = counted("diff", config, tmp_path / "run")[0]
    other = other_model(loaded(config)[1], config)
    assert plan.blocks == ran + other.block_calls and other.block_calls > 0


def test_planned_block_calls_of_checkpoints_are_those_that_run(prompts, tmp_path):
    """All run in the first model's place."""
    config = entries()["averaging"].config(prompts=prompts, checkpoints=("tiny:wan2.2", "tiny:wan2.2"), **SMALL)
    plan = planned("averaging", config, tmp_path)
    assert plan.blocks == plan.most == counted("averaging", config, tmp_path / "run")[0] > 0


def test_planned_block_calls_of_longer_items_are_those_that_run(tmp_path):
    config = entries()["lengths"].config(items=1, num_inference_steps=2)
    plan = planned("lengths", config, tmp_path)
    assert plan.blocks == plan.most == counted("lengths", config, tmp_path / "run")[0] == 5 * 2 * 8


def test_the_second_model_is_planned_without_its_weights_and_counted_with_them(tmp_path):
    config = entries()["diff"].config(against="organism:young", against_digest="a run fills it in", items=1)
    model = bare(config)
    assert without_weights(model) and without_weights(other_model(model, config))
    places, weights = planned("diff", config, tmp_path).places["host"], sum(Shape.of(model, config.call()).weights.values())
    assert places["weights"] == weights < places["kept of runs"]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_planned_block_calls_of_losses_are_those_that_run(guidance, tmp_path):
    config = entries()["plausibility"].config(tasks=("occlusion",), items=2, num_inference_steps=4, guidance_scale=guidance)
    plan = planned("plausibility", config, tmp_path)
    assert plan.blocks == plan.most == counted("plausibility", config, tmp_path / "run")[0] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ITEMS)
def test_planned_block_calls_of_items_are_those_that_run(name, tmp_path):
    config = entries()[name].config(tasks=("maze",), num_inference_steps=4, **ITEMS[name])
    plan, ran = planned(name, config, tmp_path), counted(name, config, tmp_path / "run")[0]
    assert ran == plan.blocks if plan.most == plan.blocks else ran <= plan.most
    assert tensors_on_disk(tmp_path / "run") <= plan.total("disk")


def test_planned_block_calls_of_own_pairs_are_those_that_run(pair_file, tmp_path):
    config = entries()["swap"].config(pair_file=pair_file, items=2, layers=(0, 2), **SMALL)
    plan = planned("swap", config, tmp_path)
    assert plan.blocks == plan.most == counted("swap", config, tmp_path / "run")[0] > 0


def test_what_steering_takes_is_no_more_than_planned(pair_file, tmp_path):
    """Exactly so much where nothing is left to be chosen but the ranks, of which two pairs have enough."""
    small = {"pair_file": pair_file, "pairs": 2, "check_pairs": 1, "ranks": (1,), **SMALL}
    config = entries()["steering"].config(**small)
    assert counted("steering", config, tmp_path / "run")[0] <= planned("steering", config, tmp_path).blocks
    placed = entries()["steering"].config(layer=1, tokens=("ball",), **small)
    assert counted("steering", placed, tmp_path / "placed")[0] == planned("steering", placed, tmp_path).blocks


@pytest.fixture
def guided_pairs(tmp_path):
    """Pairs of which all but the first are guided, and so take twice the calls: a negative prompt decides that there."""
    sides = [
        {side: {"prompt": f"a {color} ball {n}"} for side, color in (("clean", "red"), ("corrupt", "blue"))} for n in range(3)
    ]
    for side in (*sides[1].values(), *sides[2].values()):
        side["negative_prompt"] = "a box"
    path = tmp_path / "guided.jsonl"
    path.write_text("\n".join(json.dumps({**side, "boxes": {"ball": [0, 0, 16, 16]}}) for side in sides))
    told = {"model": "tiny:hunyuan", "num_inference_steps": 2, "set": {"true_cfg_scale": 3}}
    return {"pair_file": str(path), **told}


def test_pairs_of_steering_and_swap_count_each_as_its_line_says(guided_pairs, tmp_path):
    """Some are placed and recorded again, some only tested, of some one side alone is given."""
    placed = entries()["steering"].config(pairs=2, check_pairs=1, ranks=(1,), layer=1, tokens=("ball",), **guided_pairs)
    assert counted("steering", placed, tmp_path / "placed")[0] == planned("steering", placed, tmp_path).blocks
    swapped = entries()["swap"].config(items=2, layers=(0, 2), **guided_pairs)
    plan = planned("swap", swapped, tmp_path)
    assert plan.blocks == plan.most == counted("swap", swapped, tmp_path / "run")[0] > 0


def test_maps_of_a_circuit_count_each_pair_as_its_line_says(guided_pairs, tmp_path):
    config = entries()["circuit"].config(pairs=2, check_pairs=1, most=1, **guided_pairs)
    coarse = lambda pairs: next(line.blocks for line in planned("circuit", pairs, tmp_path).lines if "maps of whole" in line.what)
    first = config.model_copy(update={"pairs": 1})
    assert coarse(config) == 3 * coarse(first)  # twice as many calls in the second
    assert counted("circuit", config, tmp_path / "run")[0] <= planned("circuit", config, tmp_path).most


def test_what_a_circuit_takes_is_no_more_than_planned(pair_file, tmp_path):
    config = entries()["circuit"].config(
        pair_file=pair_file, pairs=1, check_pairs=1, most=1, **SMALL | {"num_inference_steps": 2}
    )
    plan, ran = planned("circuit", config, tmp_path), counted("circuit", config, tmp_path / "run")[0]
    assert ran <= plan.most and all(line.bound for line in plan.lines if "maps of whole" not in line.what)
    coarse = next(line for line in plan.lines if "maps of whole" in line.what)
    assert 0 < coarse.blocks < ran


def test_twins_are_in_the_total(prompts, tmp_path, monkeypatch):
    config = entries()["self-correction"].config(prompts=prompts, twins=2, **SMALL)
    made: list[HookedVideoPipeline] = []
    build = twins.twin_of
    monkeypatch.setattr(twins, "twin_of", lambda *about: made.append(build(*about)) or made[-1])
    alone, model = loaded(config)
    run_and_report(load("self-correction"), alone, tmp_path / "run", model=model, workers=1)
    plan = planned("self-correction", config, tmp_path)
    assert len(made) == 2 and plan.blocks == sum(one.block_calls for one in (model, *made)) == 3 * model.block_calls
    assert "2 twins" in plan.lines[-1].what and plan.runs == 3 * plan.lines[0].runs


def test_a_twin_is_a_second_set_of_weights_drawn_in_float32_on_the_host(prompts, tmp_path):
    asked = {"prompts": prompts, **SMALL, "dtype": "bf16"}
    experts = [sum(p.numel() for p in e.module.parameters()) for e in loaded_model(asked).engines.values()]
    config = lambda **more: entries()["self-correction"].config(**asked, **more)
    places = lambda **more: forecast("self-correction", config(**more), tmp_path, workers=1, timed=False).plan.places
    assert "a twin" not in places()["host"]
    assert places(twins=2)["host"]["a twin"] == 2 * experts[0] + 4 * experts[1]  # the first waits in bf16 for the second
    near = places(twins=1, device="cuda")
    assert near["device"]["a twin"] == 2 * sum(experts) and near["host"]["a twin"] == 4 * max(experts)
    waiting = places(twins=1, device="cuda", offload="model")
    assert "a twin" not in waiting["device"] and waiting["host"]["a twin"] == 2 * experts[0] + 4 * experts[1]


def loaded_model(asked):
    return bare(entries()["self-correction"].config(**asked))


def test_candidates_of_pairs_that_may_come_on_top_are_counted(tmp_path):
    """Two sides of one pair and those of its control; at most 60 candidates of two sides, and 7 more noises."""
    config = entries()["swap"].config(tasks=("maze",), items=1, pair_kinds=("prompt",), num_inference_steps=4)
    recordings = planned("swap", config, tmp_path).lines[0]
    one = 4 * 8  # steps, and the organism's blocks
    assert (recordings.runs, recordings.blocks, recordings.further) == (4, 4 * one, (2 * 60 - 2 + 7) * one)
    own = entries()["steering"].config(pairs=2, check_pairs=1, solved=False, num_inference_steps=4)
    assert planned("steering", own, tmp_path).lines[0].further == 0


def test_what_is_read_of_attention_is_planned_with_the_maps_of_all_heads_of_what_is_shown(tmp_path):
    """On disk as in memory: the maps of every head and word are of the first item alone, and larger than all else."""
    config = entries()["attention"].config(items=2, tasks=("maze",), num_inference_steps=2)
    plan = planned("attention", config, tmp_path)
    counted("attention", config, tmp_path / "run")
    written = tensors_on_disk(tmp_path / "run")
    assert written / 2 < plan.places["disk"]["run folder"] < 4 * written  # of as many words as a prompt may have
    assert plan.places["host"]["finished"] > written
