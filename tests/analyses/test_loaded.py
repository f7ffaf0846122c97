"""Whatever lies in a run folder, loading it gives a run or a RunError that names the file."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cos_interp import analyses
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.driver.store import FORMAT, RunError, RunStore

FINDING = Finding("claim", "not testable", "statement", Number(0.5, n=2), "control", Number(0.0), "rule").data()
FACTS = {"format": FORMAT, "analysis": "self-correction", "config": {"items": 2}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = RunStore.open(tmp_path_factory.mktemp("runs") / "run", FACTS)
    made.write_results(pd.DataFrame({"problem": ["maze-000"]}))
    return made


def loaded(store: RunStore, facts, findings):
    """What ``load`` makes of a sealed folder with these files."""
    store.write_json("findings.json", findings)
    store.complete({})  # every digest holds
    store.write_json("run.json", facts)
    try:
        return analyses.load(store.folder)
    except RunError as error:
        assert str(store.folder) in str(error)
        return None


def test_a_run_is_loaded(store):
    run = loaded(store, {**FACTS, "status": "complete"}, [FINDING])
    assert (run is not None and run.findings[0].data() == FINDING) or run.findings[0].number.value == 0.5


@given(facts=JSON | st.dictionaries(st.sampled_from([*FACTS, "status"]), JSON))
@example(facts={"status": "complete"})
@example(facts={"status": "complete", "analysis": ["self-correction"]})
@settings(max_examples=50, deadline=None)
def test_any_json_as_run_json_is_a_run_error(store, facts):
    assert loaded(store, facts, [FINDING]) is None


@given(key=st.sampled_from([*FACTS, "status"]), value=JSON)
@settings(max_examples=50, deadline=None)
def test_a_foreign_value_in_run_json_is_a_run_error(store, key, value):
    run = loaded(store, {**FACTS, "status": "complete", key: value}, [FINDING])
    assert run is None or run.name == "self-correction"


@given(
    findings=JSON
    | st.lists(JSON)
    | st.lists(st.fixed_dictionaries({**{key: st.just(v) for key, v in FINDING.items()}, "number": JSON}))
)
@settings(max_examples=50, deadline=None)
def test_any_json_as_findings_is_read_or_a_run_error(store, findings):
    run = loaded(store, {**FACTS, "status": "complete"}, findings)
    assert run is None or len(run.findings) == len(findings)


@given(st.sampled_from(["run.json", "findings.json", "manifest.jsonl", "results.parquet"]), st.binary() | JSON.map(json.dumps))
@settings(max_examples=50, deadline=None)
def test_any_bytes_in_a_file_are_a_run_error(store, name, content):
    assert loaded(store, {**FACTS, "status": "complete"}, []) is not None
    store.write(name, content.encode() if isinstance(content, str) else content)
    if name in ("findings.json", "results.parquet"):
        store.complete(FACTS)  # sealed with what it holds
    try:
        analyses.load(store.folder)
    except RunError as error:
        assert str(store.folder) in str(error)
    store.write_results(pd.DataFrame({"problem": ["maze-000"]}))


def test_a_run_without_a_file_says_which(store):
    assert loaded(store, {**FACTS, "status": "complete"}, []) is not None
    for name in ("findings.json", "results.parquet"):
        kept = (store.folder / name).read_bytes()
        (store.folder / name).unlink()
        store.complete(FACTS)
        with pytest.raises(RunError, match=f"{name} is missing .*: run the same command again"):
            analyses.load(store.folder)
        store.write(name, kept)


def test_a_run_of_an_older_format_says_what_to_do(store):
    store.complete({**FACTS, "format": 1})
    with pytest.raises(RunError, match=f"format 1, and this version reads format {FORMAT}: run the same command again"):
        analyses.load(store.folder)
