"""What a kill costs: the forward that it met. All before it is there, and the run ends with the same bytes."""

from __future__ import annotations

import json

import pytest
from faults import content

from cos_interp import analyses
from cos_interp.analyses.driver import drafts
from cos_interp.analyses.driver.drafts import FOLDER
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit import grid
from cos_interp.interp import HookedVideoPipeline, sweeping

BETWEEN = 5  # forwards before the kill, of the first step's


class Killed(BaseException):
    """Nothing on the way catches it."""


@pytest.fixture(scope="module")
def model():
    return HookedVideoPipeline.from_pretrained("tiny:wan2.1")


class Forwards:
    """Counts the forwards of a grid, and ends the run before one of them."""

    def __init__(self, monkeypatch, where=grid):
        self.count, self.last, self._replay = 0, None, where.replay
        monkeypatch.setattr(where, "replay", self)

    def __call__(self, *args, **kwargs):
        if self.count == self.last:
            raise Killed
        if kwargs.get("compared"):  # not the row alone that measures the rounding
            self.count += 1
        return self._replay(*args, **kwargs)

    def of(self, work, last=None) -> int:
        """Forwards of a piece of work, which is killed after so many of them."""
        self.count, self.last = 0, last
        if last is None:
            work()
        else:
            with pytest.raises(Killed):
                work()
        return self.count


@pytest.fixture
def ran(model, tmp_path, monkeypatch):
    """Runs a grid of pairs into a folder, every forward written."""
    monkeypatch.setattr(drafts, "SECONDS", 0.0)
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"clean": {"prompt": "a red ball"}, "corrupt": {"prompt": "a blue ball"}}) + "\n")
    asked = {"pair_file": str(pairs), "num_inference_steps": 3, "steps": (0, 1), "span": "from", "batch": 2, "layers": (0, 1)}
    forwards = Forwards(monkeypatch)
    run = lambda name, last=None, **more: forwards.of(
        lambda: analyses.run("patching", model=model, out=tmp_path / name, workers=1, **asked, **more), last
    )
    return run


def test_a_killed_grid_goes_on_with_the_forward_that_the_kill_met(ran, tmp_path):
    whole, folder = ran("whole"), tmp_path / "killed"
    assert ran("killed", BETWEEN) == BETWEEN < whole
    assert len(list((folder / FOLDER).rglob("*.safetensors"))) == BETWEEN and not list((folder / "shards").glob("*step*"))
    assert ran("killed", 1) == 1  # and killed again
    assert ran("killed") == whole - BETWEEN - 1
    assert content(folder) == content(tmp_path / "whole") and not (folder / FOLDER).exists()


STAGES = {
    "swap": {"layers": (1,), "variants": ("block", "attention"), "items": 1, "batch": 2},
    "circuit": {"pairs": 1, "check_pairs": 1, "most": 2, "batch": 2},
    "steering": {"pairs": 2, "check_pairs": 1, "ranks": (1,), "batch": 2},
}


@pytest.mark.parametrize("name", STAGES)
def test_a_killed_search_and_killed_tests_go_on(name, model, tmp_path, monkeypatch):
    """Killed after every fifth forward, again and again."""
    monkeypatch.setattr(drafts, "SECONDS", 0.0)
    pairs = tmp_path / "pairs.jsonl"
    sides = [{"clean": {"prompt": f"a red ball {n}"}, "corrupt": {"prompt": f"a blue ball {n}"}} for n in range(3)]
    pairs.write_text("".join(json.dumps({**side, "boxes": {"ball": [0, 0, 16, 16]}}) + "\n" for side in sides))
    asked = {"pair_file": str(pairs), "num_inference_steps": 2, **STAGES[name]}
    forwards = Forwards(monkeypatch, grid if name == "swap" else sweeping)
    run = lambda folder, last=None: forwards.of(
        lambda: analyses.run(name, model=model, out=tmp_path / folder, workers=1, **asked), last
    )
    whole = run("whole")
    made = [run("killed", BETWEEN) for _ in range((whole - 1) // BETWEEN)]
    assert sum(made) + run("killed") == whole
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_only_what_would_be_made_again_the_same_is_taken(ran, tmp_path, monkeypatch):
    whole, folder = ran("whole"), tmp_path / "killed"
    ran("killed", BETWEEN)
    first, second, *_ = sorted((folder / FOLDER).rglob("*.safetensors"))
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(data)
    second.rename(second.with_name("not a number.safetensors"))
    assert ran("killed", 1) == 1  # the damaged one
    monkeypatch.setattr(RunStore, "making", lambda self, made=RunStore.making: made(self) | {"made": {"processor": "another"}})
    assert ran("killed") == whole
    assert content(folder) == content(tmp_path / "whole")


@pytest.mark.parametrize("way", ["fresh", "rm"])
def test_drafts_are_of_the_run_and_go_with_it(way, ran, tmp_path):
    folder = tmp_path / "killed"
    ran("killed", BETWEEN)
    if way == "fresh":
        assert ran("killed", fresh=True) > BETWEEN and not (folder / FOLDER).exists()
    else:
        assert RunStore(folder).remove() == [] and not folder.exists()


def test_a_link_in_their_place_is_refused(ran, tmp_path):
    folder = tmp_path / "killed"
    ran("killed", 0)
    (tmp_path / "elsewhere").mkdir()
    store = RunStore(folder)
    (folder / FOLDER).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="is a link"):
        store.write_draft("unit", "000000.safetensors", b"0")
    assert ran("killed") > 0 and not list((tmp_path / "elsewhere").iterdir())  # a run takes the link away as it begins
