"""A patching run keeps its recordings where the budgets leave room, as its plan says, and ends with the same bytes wherever."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace

import pytest
from planned import counted, planned

from cos_interp.analyses.driver.experiment import run
from cos_interp.analyses.driver.outlook import Kept
from cos_interp.analyses.driver.placed import placed
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit import pairs
from cos_interp.analyses.patching import PatchingConfig, measure
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.patching import record
from cos_interp.interp.places import Disk

SIDES = {"clean": {"prompt": "a red ball"}, "corrupt": {"prompt": "a blue ball"}, "boxes": {"ball": [0, 0, 16, 16]}}
SPANS = {"single": {"steps": (0, 2)}, "from": {"steps": (0, 1)}}


@pytest.fixture
def pair_file(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(SIDES))
    return str(path)


@pytest.mark.parametrize("direction", ["denoising", "noising"])
@pytest.mark.parametrize("span", SPANS)
def test_a_run_ends_with_the_same_bytes_wherever_its_recordings_are(span, direction, pair_file, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(pairs, "record", lambda *args, **kwargs: made.append(record(*args, **kwargs)) or made[-1])
    asked = {
        "model": "tiny:wan2.2", "pair_file": pair_file, "num_inference_steps": 3, "guidance_scale": 3.0, "span": span,
        "layers": (1,), "sites": ("hook_attn_out", "hook_resid_post"), "tokens": ("ball",), "batch": 2, "direction": direction,
        **SPANS[span],
    }  # fmt: skip
    having = lambda size, **more: PatchingConfig(**asked, host_memory=f"{size}B", **more)
    roomy = planned("patching", having(10**10), tmp_path)
    rest, kept = roomy.total("host") - roomy.places["host"]["recordings"], roomy.placed
    lean = planned("patching", having(rest + sum(kept.sizes) - 1, disk="1B"), tmp_path).placed
    assert sum(lean.sizes) < sum(kept.sizes) and lean.lean and not kept.lean
    ways = {"usual": PatchingConfig(**asked), "one step at a time": having(rest + sum(lean.sizes)), "on disk": having(rest)}
    units = {}
    for way, config in ways.items():
        plan, folder = planned("patching", config, tmp_path), tmp_path / way
        blocks, result = counted("patching", config, folder)
        assert blocks == plan.blocks > 0 and result.facts["block_calls"] == result.facts["block_calls_minimum"]
        assert plan.placed.place == ("disk" if way == "on disk" else "host") and plan.placed.lean is (way == "one step at a time")
        on_disk = [isinstance(recording.cache.store, Disk) for recording in made]
        assert len(made) == len(plan.placed.sizes) == 3 and set(on_disk) == {way == "on disk"}  # target, donor, another noise
        clean, corrupt, other = made
        target, donor = (clean, corrupt) if direction == "noising" else (corrupt, clean)
        assert all(one.cache.nbytes <= size for one, size in zip((target, donor, other), plan.placed.sizes))
        assert donor.tokens.sum() == other.tokens.sum() == donor.tokens.numel() // 4 and target.tokens is None
        layers = [{name.split(".")[1] for name in one.cache.axes} for one in (target, donor)]
        assert layers[0] <= {"0", "1"} and layers[1] <= {"1"}
        assert not list(folder.glob(".cos-*"))
        made.clear()
        units[way] = {path.name: path.read_bytes() for path in (folder / "shards").iterdir()}
    assert units["usual"] == units["one step at a time"] == units["on disk"]


def test_what_a_killed_run_left_on_disk_is_taken_away(pair_file, tmp_path):
    config, folder = (
        PatchingConfig(model="tiny:wan2.1", pair_file=pair_file, num_inference_steps=2, layers=(0,)),
        tmp_path / "run",
    )
    counted("patching", config, folder)
    for name in (".cos-scratch-run.tmp", ".cos-scratch-1-of-2.tmp"):
        (folder / name / ".cos-1.tmp").mkdir(parents=True)
        (folder / name / ".cos-1.tmp" / "000000.safetensors").write_bytes(b"0")
    mine = folder / "mine.tmp"
    mine.mkdir()
    counted("patching", config, folder)
    assert not list(folder.glob(".cos-*")) and mine.is_dir()
    mine.rmdir()
    (folder / ".cos-scratch-run.tmp").mkdir()
    (folder / ".cos-scratch-run.tmp" / "000000.safetensors").write_bytes(b"0")
    assert RunStore(folder).remove() == [] and not folder.exists()


def test_the_first_place_with_room_is_taken():
    kept = Kept((90, 10), (9, 10))
    of = lambda usual=None, **room: replace(placed(kept, room, usual), spare=0)
    assert [of(device=100, host=100).place, of(device=99, host=100).place, of(device=99, host=99, disk=100).place] == [
        "device", "host", "device",
    ]  # fmt: skip
    assert of(device=99, host=99).sizes == (9, 10) and of(device=18, host=18, disk=100).sizes == (90, 10)
    assert of(device=18, host=18, disk=99).place == "disk" and of(device=18, host=18, disk=18).place == "host"
    assert of(device=100, usual=89).lean and of(host=100, usual=89).lean and not of(device=5, host=100, usual=9).lean
    assert placed(kept, {"device": 120}).most(0) == 100 and placed(kept, {"device": 500}, usual=90).most(1) == 50


def test_the_steps_of_one_pair_keep_all_processes_at_work(pair_file, tmp_path, monkeypatch):
    """Each step is a piece of work: two processes share one pair, which a process records once, and end with the same bytes as
    one, which does so too."""
    model, notes = HookedVideoPipeline.from_pretrained("tiny:wan2.1"), tmp_path / "notes"
    recorded = pairs.record

    def noted(*args, **kwargs):
        with notes.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return recorded(*args, **kwargs)

    monkeypatch.setattr(pairs, "record", noted)
    config = PatchingConfig(pair_file=pair_file, num_inference_steps=4, steps=(0, 1, 2, 3), layers=(1,), batch=2)
    units = {}
    for workers in (1, 2):
        notes.write_text("")
        run(load("patching"), config, tmp_path / str(workers), model=model, workers=workers)
        units[workers] = {path.name: path.read_bytes() for path in (tmp_path / str(workers) / "shards").iterdir()}
        by = Counter(notes.read_text().split())
        assert set(by.values()) == {3} and len(by) == workers  # both sides and another noise
        assert (str(os.getpid()) in by) is (workers == 1)
    assert len(units[1]) == 5 and units[1] == units[2]


def test_a_recorded_pair_is_gone_when_all_of_it_is_there(pair_file, tmp_path):
    made, model = [], HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    config = PatchingConfig(pair_file=pair_file, num_inference_steps=2, steps=(0, 1), layers=(1,))
    result = run(load("patching"), config, tmp_path / "run", model=model, workers=1,
                 progress=lambda done, total, what: made.append((what, len(measure._AT_WORK))))  # fmt: skip
    held = dict(made)
    assert held["own-000-step-000"] == 1 and len(measure._AT_WORK) == 0 and len(result.units) == 3
