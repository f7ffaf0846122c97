"""The face of analyses: run an experiment from Python, load what it left, and errors that say what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from html import escape

import pandas as pd
import pytest
import torch

from cos_interp import analyses
from cos_interp.analyses.driver import loaded
from cos_interp.analyses.driver.store import RunError
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.files import sealed_json
from cos_interp.interp.identity import combined, identity
from cos_interp.reports.framed import framed


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "corrections"
    return analyses.run("self-correction", out=folder, items=1, num_inference_steps=3, tasks=("maze",), workers=1)


def test_a_run_is_loaded_with_its_settings_rows_findings_and_tensors(finished):
    assert finished.config.items == 1 and type(finished.config) is analyses.EXPERIMENTS["self-correction"].config
    again = analyses.load(finished.folder)
    pd.testing.assert_frame_equal(again.rows, pd.read_parquet(finished.folder / "results.parquet"))
    assert again.findings == finished.findings and {f.verdict for f in again.findings} == {"not testable"}
    assert again.units == ("maze-000",) and again.facts_of("maze-000").sigmas
    assert set(again.tensors("maze-000")) == set(again.facts_of("maze-000").axes)
    assert len(repr(again)) < 300
    with pytest.raises(KeyError, match="maze-000"):
        again.tensors("maze-009")


def test_a_run_shows_its_page_in_a_notebook_unless_it_is_large_or_not_the_runs(finished, monkeypatch):
    path = finished.folder / "report.html"
    page = path.read_text()
    shown = finished._repr_html_()
    assert framed(page, f"self-correction in {finished.folder}") in shown and escape(repr(finished)[1:-1]) in shown
    monkeypatch.setattr(loaded, "MOST", 100)
    large = finished._repr_html_()
    assert "<iframe" not in large and "Too large" in large and str(path) in large
    try:
        path.write_text(page.replace("Caveats", "None"))
        assert "has been changed" in finished._repr_html_() and "<iframe" not in finished._repr_html_()
    finally:
        path.write_text(page)


def test_a_loaded_model_is_used_as_it_is(organism, tmp_path):
    before = organism.block_calls
    small = {"items": 1, "num_inference_steps": 2, "tasks": ("maze",)}
    run = analyses.run("self-correction", model=organism, out=tmp_path / "r", workers=1, **small)
    assert organism.block_calls - before == 2 * organism.layers and run.config.model == organism.name
    assert run.facts["model"]["digest"] == combined(identity(organism.pipe))
    assert run.facts["command"].endswith("# with a model given from Python")
    assert "given from Python" in (tmp_path / "r" / "report.html").read_text()


def test_a_model_is_known_by_its_content_and_not_by_its_name(tmp_path):
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    before = identity(model.pipe)
    model.pipe.save_pretrained(tmp_path / "copy")
    assert identity(HookedVideoPipeline.from_pretrained(tmp_path / "copy").pipe) == before
    with torch.no_grad():
        next(model.pipe.vae.parameters()).add_(1)
    assert {part for part, digest in identity(model.pipe).items() if digest != before[part]} == {"vae"}
    model.pipe.scheduler.register_to_config(shift=7.0)
    assert {part for part, digest in identity(model.pipe).items() if digest != before[part]} == {"vae", "scheduler"}


def test_wrong_names_settings_and_folders_are_errors(finished, tmp_path):
    with pytest.raises(ValueError, match="no experiment 'recoverry'; there are patching"):
        analyses.run("recoverry")
    with pytest.raises(ValueError, match="itemz"):
        analyses.run("recovery", itemz=2, out=tmp_path / "x")
    with pytest.raises(RunError, match="holds no run"):
        analyses.load(tmp_path)
    facts = json.loads((finished.folder / "run.json").read_text())
    for change, message in (
        ({"config": {**facts["config"], "gone": 1}}, "another version: its settings do not fit here .gone"),
        ({"analysis": "old"}, "a run of 'old', which this version does not have"),
        ({"status": "running"}, "continue it with the same command"),
    ):
        (finished.folder / "run.json").write_bytes(sealed_json({**facts, **change}))
        with pytest.raises(RunError, match=message):
            analyses.load(finished.folder)
    (finished.folder / "run.json").write_text(json.dumps(facts))


def test_the_face_is_listed_and_light():
    code = "import sys\nfrom cos_interp import analyses\nprint(dir(analyses))\nassert not {'torch', 'pandas'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == str(sorted(analyses.__all__)), done.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [({"num_steps": 4}, "recovery has no setting 'num_steps': did you mean num_inference_steps"),
     ({"itms": 3}, "did you mean items"),
     ({"guidance": 2.0}, "did you mean guidance_scale"), ({"xyz": 1}, "there are model, revision")],
)  # fmt: skip
def test_a_setting_that_is_not_there_says_which_was_meant(given, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        analyses.run("recovery", out=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_one_word_stands_for_a_list_of_one():
    config = analyses.EXPERIMENTS["recovery"].config
    assert config(tasks="maze", donors="prompt") == config(tasks=("maze",), donors=("prompt",))
