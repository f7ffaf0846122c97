"""Runs of version 0.1, one of which was kept: read, verified and drawn again, and not continued."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from cos_interp import analyses
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.facts import RunFacts
from cos_interp.analyses.driver.store import RunStore

KEPT = Path(__file__).with_name("run-0.1.zip")


@pytest.fixture
def folder(tmp_path):
    zipfile.ZipFile(KEPT).extractall(tmp_path / "run")
    return tmp_path / "run"


def test_it_is_read_and_drawn(folder):
    run = analyses.load(folder)
    assert run.name == "self-correction" and run.config.items == 1 and run.config.tasks == ("maze",)
    assert run.units == ("maze-000",) and set(run.rows.problem) == {"maze-000"} and len(run.rows) == 3 and run.findings == ()
    facts = run.facts_of("maze-000")
    assert isinstance(facts, RunFacts) and len(facts.sigmas) == 2
    assert RunStore(folder).verify() == []
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    page = analyses.draw(folder)
    changed = {path.name for path, data in kept.items() if path.read_bytes() != data}
    assert RunStore(folder).verify() == []
    assert changed <= {"report.html", "what-becomes-of-a-wrong-answer.svg"}
    assert "What becomes of a wrong answer" in page.read_text()


def test_it_is_not_continued(folder):
    with pytest.raises(RunError, match=r"made by version 0\.1, whose runs can be read and drawn, but not continued"):
        analyses.run("self-correction", items=1, tasks=("maze",), num_inference_steps=2, out=folder, workers=1)


def test_its_damage_is_found(folder):
    for name in ("results.parquet", "shards/maze-000.safetensors"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert RunStore(folder).verify() == [f"{name} has been changed since it was written"]
        (folder / name).write_bytes(whole)
    assert RunStore(folder, analyses.EXPERIMENTS["self-correction"].facts).unit("maze-000") is not None
