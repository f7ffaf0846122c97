"""Whole analyses that are killed, stopped, refused by the disk and continued: the same bytes, or one clear error."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from faults import at_boundary, child, content, in_a_child, refuse

from cos_interp import analyses
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.store import RunStore
from cos_interp.interp import HookedVideoPipeline

SETTINGS = {
    "patching": {"layers": (0,), "steps": (0, 1)},
    "chain-of-steps": {},
    "self-correction": {},
}


@pytest.fixture(scope="module")
def model():
    return HookedVideoPipeline.from_pretrained("tiny:wan2.1")


class Asked:
    """A small analysis with inputs of its own, and the bytes that it leaves when nothing happens."""

    def __init__(self, name: str, model: HookedVideoPipeline, home: Path):
        self.name, self.model, self.home = name, model, home
        prompts, pairs = home / "prompts.jsonl", home / "pairs.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in ("move the red circle", "a green box")))
        pairs.write_text(json.dumps({"clean": {"prompt": "a red ball"}, "corrupt": {"prompt": "a blue ball"}}) + "\n")
        inputs = {"pair_file": str(pairs)} if name == "patching" else {"prompts": str(prompts)}
        self.settings = {"num_inference_steps": 2, **inputs, **SETTINGS[name]}
        with at_boundary(0) as boundaries:
            self.run(home / "whole")
        self.boundaries, self.whole = boundaries.count, content(home / "whole")

    def run(self, folder: Path, workers: int = 1) -> None:
        analyses.run(self.name, model=self.model, out=folder, workers=workers, **self.settings)


@pytest.fixture(scope="module", params=SETTINGS)
def asked(request, model, tmp_path_factory):
    return Asked(request.param, model, tmp_path_factory.mktemp(request.param))


def test_an_interrupt_at_once_ends_the_child_alone():
    """Not the copy of the process that runs the tests, from where it would end the whole session."""
    for _ in range(20):
        pid = child(partial(time.sleep, 0.2))
        os.kill(pid, signal.SIGINT)
        assert os.WIFEXITED(os.waitpid(pid, 0)[1])


@pytest.mark.slow
def test_a_kill_at_every_write_boundary(asked):
    assert asked.boundaries >= 4 * 8
    for number in range(1, asked.boundaries + 1):
        folder = asked.home / "killed"

        def work(folder=folder, number=number):
            with at_boundary(number):
                asked.run(folder)

        assert os.WIFSIGNALED(in_a_child(work)), f"boundary {number} was not reached"
        asked.run(folder)
        assert content(folder) == asked.whole, f"boundary {number}"
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_refuses_from_some_write_on(asked, code):
    for number in range(1 + code % 4, asked.boundaries + 1, 4):  # every write, at another of its boundaries for each refusal
        folder = asked.home / "refused"
        with at_boundary(number, refuse(code), lasting=True), pytest.raises(RunError, match=os.strerror(code)):
            asked.run(folder)
        asked.run(folder)
        assert content(folder) == asked.whole, f"boundary {number}"
        shutil.rmtree(folder)


@pytest.mark.slow
def test_a_folder_that_vanishes_is_one_clear_error(asked):
    for number in range(5, asked.boundaries + 1, 8):
        folder = asked.home / "vanished"
        with at_boundary(number, partial(shutil.rmtree, folder)), pytest.raises(RunError, match="vanished"):
            asked.run(folder)
        asked.run(folder)
        assert content(folder) == asked.whole, f"boundary {number}"
        shutil.rmtree(folder)


@pytest.mark.slow
def test_kills_at_random_times_also_while_continuing(asked):
    chance, folder = random.Random(asked.name), asked.home / "random"

    def apart():
        os.setsid()
        asked.run(folder, workers=2)

    began = time.monotonic()
    asked.run(asked.home / "timed", workers=2)
    whole = time.monotonic() - began
    for _ in range(4):
        for signum in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
            pid = child(apart)
            time.sleep(chance.uniform(0, 1.2 * whole))
            os.kill(pid, signum)
            os.waitpid(pid, 0)
        asked.run(folder)
        assert content(folder) == asked.whole
        shutil.rmtree(folder)


@pytest.mark.slow
def test_a_finished_run_that_may_only_be_read(asked):
    """As somebody else, who may read the folder and not write it: it is shown and verified, and running it again is refused."""

    def work():
        os.setuid(65534)
        assert RunStore(folder).verify() == [] and len(analyses.load(folder).rows) > 0
        with pytest.raises(RunError, match=rf"cannot write to {folder}: Permission denied.*cos runs show"):
            asked.run(folder)

    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    folder = asked.home / "whole"
    for path in [folder, *(p for p in folder.parents if "pytest" in str(p))]:
        path.chmod(path.stat().st_mode | 0o555)
    assert in_a_child(work) == 0
    assert content(folder) == asked.whole
