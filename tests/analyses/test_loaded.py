"""Whatever lies in a run folder, loading it gives a run or a RunError that names the file."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cos_interp import analyses
from cos_interp.analyses.driver import manifest
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.driver.identity import FORMAT
from cos_interp.interp import files

FINDING = Finding("claim", "not testable", "statement", Number(0.5, n=2), "control", Number(0.0), "rule")
FINDING = files.plain(FINDING.data())
FACTS = {"format": FORMAT, "analysis": "self-correction", "config": {"items": 2}, "model": {}, "inputs": {}, "versions": {}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def folder_with(facts, findings, seal=True) -> Path:
    """A run folder with these files, as it would be if this version had written them."""
    folder = Path(tempfile.mkdtemp())
    held = {manifest.FINDINGS: json.dumps(findings).encode()}
    (folder / manifest.FINDINGS).write_bytes(held[manifest.FINDINGS])
    pd.DataFrame({"problem": ["maze-000"]}).to_parquet(folder / manifest.RESULTS)
    (folder / manifest.PAGE).write_bytes(manifest.page(folder, held))
    (folder / manifest.MANIFEST).write_bytes(manifest.made(folder))
    if isinstance(facts, dict) and seal:
        facts = {**facts, "root": manifest.root(manifest.made(folder))}
        (folder / manifest.RUN).write_bytes(files.sealed_json(facts))
    else:
        (folder / manifest.RUN).write_text(json.dumps(facts))
    return folder


def loaded(folder: Path):
    """What ``load`` makes of a folder; None for a RunError that names it."""
    try:
        return analyses.load(folder)
    except RunError as error:
        assert str(folder) in str(error)
        return None
    finally:
        shutil.rmtree(folder)


def test_a_run_is_loaded():
    run = loaded(folder_with({**FACTS, "status": "complete"}, [FINDING]))
    assert run is not None and run.findings[0].number.value == 0.5 and math.isnan(run.findings[0].number.low)


@given(facts=JSON | st.dictionaries(st.sampled_from([*FACTS, "status"]), JSON), seal=st.booleans())
@example(facts={"status": "complete"}, seal=True)
@example(facts={"status": "complete", "analysis": ["self-correction"]}, seal=True)
@example(facts={**FACTS, "status": "complete"}, seal=False)
@settings(max_examples=50, deadline=None)
def test_any_json_as_run_json_is_a_run_error(facts, seal):
    assert loaded(folder_with(facts, [FINDING], seal)) is None


@given(key=st.sampled_from([*FACTS, "status"]), value=JSON)
@settings(max_examples=50, deadline=None)
def test_a_foreign_value_in_run_json_is_a_run_error(key, value):
    run = loaded(folder_with({**FACTS, "status": "complete", key: value}, [FINDING]))
    assert run is None or run.name == "self-correction"


@given(
    findings=JSON
    | st.lists(JSON)
    | st.lists(st.fixed_dictionaries({**{key: st.just(v) for key, v in FINDING.items()}, "number": JSON}))
)
@settings(max_examples=50, deadline=None)
def test_any_json_as_findings_is_read_or_a_run_error(findings):
    run = loaded(folder_with({**FACTS, "status": "complete"}, findings))
    assert run is None or len(run.findings) == len(findings)


@given(st.sampled_from(["run.json", "findings.json", "manifest.jsonl", "results.parquet", "page.json"]), st.binary())
@settings(max_examples=50, deadline=None)
def test_any_bytes_in_a_file_are_a_run_error(name, content):
    folder = folder_with({**FACTS, "status": "complete"}, [])
    (folder / name).write_bytes(content)
    assert loaded(folder) is None


@pytest.mark.parametrize("name", ["findings.json", "results.parquet", "manifest.jsonl", "page.json"])
def test_a_run_without_a_file_says_which(name):
    folder = folder_with({**FACTS, "status": "complete"}, [])
    (folder / name).unlink()
    with pytest.raises(RunError, match=name):
        analyses.load(folder)
