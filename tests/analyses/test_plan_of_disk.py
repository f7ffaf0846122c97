"""A plan counts what a run folder takes on the disk, and says what helps where that is too much."""

from __future__ import annotations

import pytest
from planned import planned

from cos_interp.analyses.driver import planning
from cos_interp.analyses.driver.layout import LARGEST
from cos_interp.analyses.driver.plan import PAGE
from cos_interp.analyses.driver.planning import forecast, refuse
from cos_interp.analyses.driver.registry import entries
from cos_interp.interp.errors import InterpError

SMALL = {"model": "tiny:wan2.1", "num_inference_steps": 2}


@pytest.mark.parametrize("name", ["trajectory", "posterior", "patching", "chain-of-steps", "attention"])
def test_no_run_fits_on_ten_bytes_and_it_is_said_what_helps(name, prompts, tmp_path):
    asked = {"pair_file": _pairs(tmp_path)} if name == "patching" else {"prompts": prompts}
    config = entries()[name].config(**SMALL, **asked, disk="10B")
    found = forecast(name, config, tmp_path, 1, timed=False)
    assert found.plan.over == ["disk"] and "its page" in str(found.plan.places["disk"])
    (remedy,) = found.remedies
    assert remedy.startswith("--disk ")
    with pytest.raises(InterpError, match=rf"the disk takes .*and has 10 B[\s\S]*{remedy}"):
        refuse(name, config, tmp_path, 1)
    enough = forecast(name, config.model_copy(update={"disk": remedy.removeprefix("--disk ")}), tmp_path, 1, timed=False)
    assert not enough.plan.problems


def _pairs(folder):
    path = folder / "pairs.jsonl"
    path.write_text('{"clean": {"prompt": "a red ball"}, "corrupt": {"prompt": "a blue ball"}}')
    return str(path)


def test_a_full_disk_needs_another_one(prompts, tmp_path, monkeypatch):
    usage = planning.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(planning.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    config = entries()["trajectory"].config(**SMALL, prompts=prompts)
    (remedy,) = forecast("trajectory", config, tmp_path, 1, timed=False).remedies
    assert remedy.startswith("--out on a disk that has ")


def test_a_page_is_counted_for_every_twin_and_is_no_larger(prompts, tmp_path):
    one, three = (
        planned("trajectory", entries()["trajectory"].config(**SMALL, prompts=prompts, twins=n), tmp_path) for n in (0, 2)
    )
    assert three.total("disk") == 3 * one.total("disk") >= 3 * PAGE and PAGE == 2 * LARGEST
