"""The user's files while a run reads them: what is edited meanwhile is never stored under the name of what it was."""

from __future__ import annotations

import json
import os
import shlex
import sys

import numpy as np
import pytest
from faults import content
from PIL import Image

from cos_interp.analyses.chain_of_steps import ChainOfStepsConfig
from cos_interp.analyses.driver import experiment, identity, inputs
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.experiment import Experiment, Report, Unit, each_unit
from cos_interp.analyses.driver.settings import ChoiceConfig
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.driver.watch import Watch
from cos_interp.analyses.kit.problems import problems
from cos_interp.interp import InterpError


def picture(path, value):
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(path)


@pytest.fixture
def own(tmp_path):
    """Three prompts with pictures."""
    (tmp_path / "own").mkdir()
    for n in range(3):
        picture(tmp_path / "own" / f"{n}.png", n)
    path = tmp_path / "own" / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"p{n}", "image": f"{n}.png"}) + "\n" for n in range(3)))
    return path


def mean_again(act, at=1):
    """An experiment without a model that opens each picture again when its turn comes, and does ``act`` before number ``at``."""

    def measure(model, config, problem):
        if problem.index == at:
            act()
        again = problems(config)[problem.index].call["image"]  # as experiments do that read a line when they need it
        return Unit([{"item": problem.name, "mean": float(np.asarray(again).mean())}])

    pieces = lambda config: [(p, [p.name]) for p in problems(config)]
    return Experiment(
        "again", ChainOfStepsConfig, pieces, each_unit(measure), lambda *_: Report([], {}, ""), modelless=lambda _: True
    )


def means(folder):
    return {
        name: RunStore(folder).unit(f"prompt-00{name}")[0][0]["mean"]
        for name in range(3)
        if RunStore(folder).unit(f"prompt-00{name}")
    }


def edited(path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line.replace("1.png", "0.png") for line in lines))


CHANGES = {
    "another line": (edited, "entry 2 has changed"),
    "a line more": (lambda p: p.write_text(p.read_text() + '{"prompt": "new"}\n'), "entry 4 is new"),
    "another picture": (lambda p: picture(p.parent / "2.png", 99), "picture 2.png has changed"),
}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", CHANGES)
def test_what_is_edited_meanwhile_is_not_stored_and_nothing_else_is_lost(own, tmp_path, name, workers):
    config, (change, said) = ChainOfStepsConfig(prompts=str(own)), CHANGES[name]
    experiment.run(mean_again(lambda: None), config, tmp_path / "whole", workers=workers)
    before = content(own.parent)
    with pytest.raises(RunError, match=f"--prompts: {said}.* while the run was computed: put it back"):
        experiment.run(mean_again(lambda: change(own)), config, tmp_path / "run", workers=workers)
    kept = means(tmp_path / "run")
    assert 1 not in kept and all(kept[n] == n for n in kept)  # picture n is n all over
    assert RunStore(tmp_path / "run").facts()["status"] == "failed"
    for file, data in before.items():
        (own.parent / file).write_bytes(data)
    experiment.run(mean_again(lambda: None), config, tmp_path / "run", workers=workers)
    assert means(tmp_path / "run") == {0: 0, 1: 1, 2: 2}
    assert content(tmp_path / "run") == content(tmp_path / "whole")


def test_the_changed_file_starts_anew_and_what_says_the_same_goes_on(own, tmp_path):
    config = ChainOfStepsConfig(prompts=str(own))
    same = lambda: own.write_text("\n" + own.read_text())  # a blank line
    experiment.run(mean_again(same), config, tmp_path / "same", workers=1)
    assert means(tmp_path / "same") == {0: 0, 1: 1, 2: 2}
    with pytest.raises(RunError, match="entry 2 has changed"):
        experiment.run(mean_again(lambda: edited(own)), config, tmp_path / "run", workers=1)
    experiment.run(mean_again(lambda: None), config, tmp_path / "run", workers=1)
    assert means(tmp_path / "run") == {0: 0, 1: 0, 2: 2}  # all of what is there now


def test_a_change_after_the_last_unit_is_seen_too(own, tmp_path):
    asked, wrote = mean_again(lambda: None), inputs.content
    last = lambda model, config, store, piece: (
        (yield from asked.work(model, config, store, piece)) or (piece.index == 2 and edited(own))
    )

    def work(*given):
        yield from last(*given)

    with pytest.raises(RunError, match="entry 2 has changed"):
        experiment.run(experiment.replace(asked, work=work), ChainOfStepsConfig(prompts=str(own)), tmp_path / "run", workers=1)
    assert wrote is inputs.content and not (tmp_path / "run" / "results.parquet").exists()


def test_a_file_that_is_put_into_a_folder_is_seen(own, tmp_path):
    (tmp_path / "clips").mkdir()
    for name in "ab":
        np.save(tmp_path / "clips" / f"{name}.npy", np.zeros((1, 4, 4, 3), np.uint8))
    watch = Watch(ChoiceConfig(prompts=str(own), candidates=str(tmp_path / "clips")))
    os.utime(tmp_path / "clips" / "a.npy", (1, 1))
    watch.check()
    (tmp_path / "clips" / "c.npy").write_bytes((tmp_path / "clips" / "a.npy").read_bytes())
    with pytest.raises(RunError, match=r"--candidates: c\.npy is new"):
        watch.check()
    (tmp_path / "clips" / "c.npy").unlink()
    watch.check()
    own.write_text(own.read_text() + "{")
    with pytest.raises(InterpError, match="line 4 is not a line of JSON"):
        watch.check()


def test_the_files_that_a_command_names_are_part_of_the_run(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    judge = tmp_path / "my judge.py"
    command = f"{shlex.quote(sys.executable)} 'my judge.py' --strict 1"
    config = ChainOfStepsConfig(prompts=str(own), scorer_cmd=command)
    held = []
    for text in ("print(1)", "print(2)"):
        judge.write_text(text)
        held.append({"model": {}, **identity.of("x", config, None, 1)})
    assert list(identity.changes(*held)) == [f"{command}: my judge.py has changed"]
    assert not identity.changes(held[1], held[1])
