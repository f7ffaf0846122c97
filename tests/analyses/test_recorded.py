"""Where recordings wait changes no byte of a run: near, one step at a time, or on disk, as the plan says for what was stated."""

from __future__ import annotations

import json

import pytest
import torch
from planned import counted, planned

from cos_interp.analyses.driver import twins
from cos_interp.analyses.driver.experiment import loaded, run_and_report
from cos_interp.analyses.driver.registry import entries, load
from cos_interp.analyses.kit import pairs
from cos_interp.interp.patching import record
from cos_interp.interp.places import Disk

SMALL = {"model": "tiny:wan2.1", "num_inference_steps": 4, "guidance_scale": 1.0, "batch": 4}
ASKED = {
    "swap": {"layers": (1,), "variants": ("block", "attention"), "steps": (0, 2), "spans": ("single",), "items": 1},
    "circuit": {"pairs": 1, "check_pairs": 1, "most": 2},
    "steering": {"pairs": 2, "check_pairs": 1, "ranks": (1,)},
}


@pytest.fixture
def pair_file(tmp_path):
    path = tmp_path / "pairs.jsonl"
    sides = [{"clean": {"prompt": f"a red ball {n}"}, "corrupt": {"prompt": f"a blue ball {n}"}} for n in range(3)]
    path.write_text("\n".join(json.dumps({**side, "boxes": {"ball": [0, 0, 16, 16]}}) for side in sides))
    return str(path)


@pytest.mark.parametrize("name", ASKED)
def test_a_run_ends_with_the_same_bytes_wherever_its_recordings_are(name, pair_file, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(pairs, "record", lambda *args, **kwargs: made.append(record(*args, **kwargs)) or made[-1])
    having = lambda **more: entries()[name].config(pair_file=pair_file, **SMALL, **ASKED[name], **more)
    roomy = planned(name, having(host_memory="10GB"), tmp_path)
    rest, kept = roomy.total("host") - roomy.places["host"]["recordings"], roomy.placed
    lean = planned(name, having(host_memory=f"{rest + sum(kept.sizes) - 1}B", disk="1B"), tmp_path).placed
    assert lean.lean and not kept.lean and sum(lean.sizes) < sum(kept.sizes)
    ways = {"usual": having(), "lean": having(host_memory=f"{rest + sum(lean.sizes)}B"), "disk": having(host_memory=f"{rest}B")}
    units = {}
    for way, config in ways.items():
        made.clear()
        plan, folder = planned(name, config, tmp_path), tmp_path / way
        assert plan.placed.place == ("disk" if way == "disk" else "host") and plan.placed.lean is (way == "lean")
        blocks, _ = counted(name, config, folder)
        assert 0 < blocks <= plan.most and (name != "swap" or plan.lines[-1].bound or blocks == plan.blocks)
        assert made and {isinstance(one.cache.store, Disk) for one in made} == {way == "disk"}
        assert max(one.cache.nbytes for one in made) <= sum(plan.placed.sizes)
        assert not list(folder.glob(".cos-*"))
        units[way] = {path.name: path.read_bytes() for path in (folder / "shards").iterdir()}
    assert units["usual"] == units["lean"] == units["disk"]


def test_a_twins_recordings_leave_room_for_the_model_that_it_stands_beside(pair_file, tmp_path, monkeypatch):
    """In its run as in that of the model: of both the weights are there."""
    made = []
    monkeypatch.setattr(pairs, "record", lambda *args, **kwargs: made.append(record(*args, **kwargs)) or made[-1])
    having = lambda **more: entries()["swap"].config(pair_file=pair_file, twins=1, **SMALL, **ASKED["swap"], **more)
    roomy = planned("swap", having(host_memory="10GB"), tmp_path)
    both = roomy.places["host"]["weights"] + roomy.places["host"]["a twin"]
    config, model = loaded(having(host_memory=f"{roomy.total('host') - sum(roomy.placed.sizes)}B"))
    twin = twins.twin_of(model, 0)
    parts = [part for pipe in (model.pipe, twin.pipe) for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert both == sum({id(weight): weight.nbytes for part in parts for weight in part.parameters()}.values())
    run_and_report(load("swap"), config, tmp_path / "run", model=model, loaded=True, workers=1)
    assert len(made) == 8 and all(isinstance(one.cache.store, Disk) for one in made)
