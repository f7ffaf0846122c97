"""The run folder: units, identity, and nothing foreign touched."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from faults import content
from stores import ASKED, MODEL, asked, fill

from cos_interp.analyses.driver import identity, lock
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.facts import Facts, LeftOut, RunFacts
from cos_interp.analyses.driver.store import RunStore
from cos_interp.interp import files


def test_units_come_back(folder):
    store = RunStore(folder)
    assert store.unit("u1") == ([{"i": 1}], LeftOut(reason="it is 1"))
    assert torch.equal(store.tensors("u2")["latents"], torch.full((2,), 2.0))
    assert store.unit("other") is None and store.verify() == []
    assert fill(folder) == [] and store.verify() == []
    assert sorted(content(folder)) == sorted(
        ["run.json", "manifest.jsonl", "page.json", "results.parquet", "report.html", "findings.json", "media/a.svg",
         *(f"shards/u{i}.safetensors" for i in range(3))]
    )  # fmt: skip


def test_a_unit_says_what_it_is_or_is_refused(tmp_path):
    class Other(Facts):
        count: int

    with RunStore.open(tmp_path / "run", ASKED, kinds=(Other,)) as store:
        store.add_unit("u", [], {}, Other(count=3))
        assert store.finished("u")[1] == Other(count=3)
    with pytest.raises(RunError, match=r"holds Other, and can hold Facts, RunFacts, LeftOut"):
        RunStore(tmp_path / "run").unit("u")
    with pytest.raises(RunError, match=r"unit none of .* is missing or damaged"):
        RunStore(tmp_path / "run").finished("none")
    assert RunFacts.model_validate({"sigmas": [1.0], "prompt": "p"}).axes == {}


# --- identity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"config": {**ASKED["config"], "a": 2}}, "--a: 1, now 2"),
        ({"config": {**ASKED["config"], "items": 2}}, "--items: 3, now 2"),
        ({"model": {**MODEL, "parts": {"transformer": "1"}}}, "the model: other transformer"),
        ({"inputs": {"--prompts": {"entry 1": "0"}}}, "--prompts: entry 1 is new"),
        ({"versions": {"torch": "3"}}, "version of torch: 2, now 3 .*--accept-versions"),
        ({"analysis": "x"}, "analysis: test, now x"),
    ],
)  # fmt: skip
def test_what_changed_is_named_and_nothing_is_touched(folder, change, named):
    before = content(folder)
    with pytest.raises(RunError, match=named):
        fill(folder, facts={**ASKED, **change})
    assert content(folder) == before
    fill(folder, facts={**ASKED, **change}, fresh=True)
    assert RunStore(folder).verify() == []


def test_a_file_with_another_content_is_another_run(tmp_path):
    held = {**ASKED, "inputs": {"--prompts": {"entry 1": "0", "entry 2": "1"}}}
    fill(tmp_path / "run", facts=held)
    assert fill(tmp_path / "run", facts=held) == []
    for now, named in (({"entry 1": "5", "entry 2": "1"}, "entry 1 has changed"), ({"entry 1": "0"}, "entry 2 is gone")):
        with pytest.raises(RunError, match=f"--prompts: {named}"):
            fill(tmp_path / "run", facts={**ASKED, "inputs": {"--prompts": now}})


def test_an_interrupted_run_is_not_lost_to_another_command(tmp_path):
    with pytest.raises(KeyboardInterrupt), RunStore.open(tmp_path / "run", ASKED) as store:
        store.add_unit("u0", [], {}, Facts())
        raise KeyboardInterrupt
    before = content(tmp_path / "run")
    with pytest.raises(RunError, match="--a: 1, now 2"):
        fill(tmp_path / "run", facts=asked(a=2))
    assert content(tmp_path / "run") == before and store.facts()["status"] == "running"
    assert fill(tmp_path / "run") == [1, 2]


def test_an_interrupted_run_without_units_is_not_lost_either(tmp_path):
    with pytest.raises(KeyboardInterrupt), RunStore.open(tmp_path / "run", ASKED):
        raise KeyboardInterrupt
    with pytest.raises(RunError, match="--a: 1, now 2"):
        fill(tmp_path / "run", facts=asked(a=2))
    assert fill(tmp_path / "run") == [0, 1, 2]


def test_what_a_killed_write_left_behind_is_taken_away(folder):
    whole = content(folder)
    for name in ("", "shards", "media"):
        (folder / name / files.TEMPORARY.format("0" * 16)).write_bytes(b"half")
    assert len(RunStore(folder).verify()) == 3
    assert fill(folder) == [] and content(folder) == whole


def test_names_do_not_count_and_versions_may_be_accepted(folder):
    other = {
        **ASKED,
        "model": {**MODEL, "name": "./copy"},
        "versions": {"torch": "3"},
        "config": {**ASKED["config"], "model": "./copy"},
    }
    assert fill(folder, facts=other, accept_versions=True) == [] and RunStore(folder).facts()["versions"] == {"torch": "3"}


def test_items_may_grow_and_what_is_made_of_units_is_made_again(folder, tmp_path):
    assert fill(folder, 5, asked(items=5), derived=["u0"]) == [0, 3, 4]
    fill(tmp_path / "whole", 5, asked(items=5))
    assert content(folder) == content(tmp_path / "whole")


def test_a_failed_run_says_why_and_a_repaired_input_starts_anew(tmp_path):
    wrong = {**ASKED, "inputs": {"--prompts": {"entry 1": "0"}}}
    with pytest.raises(ValueError, match="boom"), RunStore.open(tmp_path / "run", wrong) as store:
        store.add_unit("u0", [], {}, Facts())
        raise ValueError("boom")
    assert (store.facts()["status"], store.facts()["error"]) == ("failed", "ValueError: boom")
    assert "failed" in store.verify()[0]
    assert fill(tmp_path / "run") == [0, 1, 2] and "error" not in store.facts()


@pytest.mark.parametrize("other", [{"versions": {"torch": "3"}}, {"config": {**ASKED["config"], "a": 2}},
                                   {"model": {**MODEL, "parts": {"transformer": "1"}}}])  # fmt: skip
def test_a_failed_run_with_units_is_not_lost_to_another_command(tmp_path, other):
    with pytest.raises(ValueError), RunStore.open(tmp_path / "run", ASKED) as store:
        store.add_unit("u0", [], {}, Facts())
        raise ValueError("no space left")
    before = content(tmp_path / "run")
    with pytest.raises(RunError, match="holds another run"):
        fill(tmp_path / "run", facts={**ASKED, **other})
    assert content(tmp_path / "run") == before and fill(tmp_path / "run") == [1, 2]
    with pytest.raises(ValueError), RunStore.open(tmp_path / "none", ASKED):
        raise ValueError("boom")
    with pytest.warns(UserWarning, match="which failed, starts anew: "):
        assert fill(tmp_path / "none", facts={**ASKED, **other}) == [0, 1, 2]  # nothing to lose


def test_versions_that_a_run_was_begun_with_are_not_forgotten(folder):
    assert "earlier" not in RunStore(folder).facts()
    for now, earlier in (("3", ["2"]), ("4", ["2", "3"]), ("2", ["3", "4"])):
        fill(folder, facts={**ASKED, "versions": {"torch": now}}, accept_versions=True)
        facts = RunStore(folder).facts()
        assert facts["versions"] == {"torch": now} and facts["earlier"] == [{"torch": version} for version in earlier]
    assert identity.begun_with(facts) == "torch 3; torch 4" and RunStore(folder).verify() == []
    assert fill(folder, facts={**ASKED, "versions": {"torch": "2"}}) == [] and RunStore(folder).facts() == facts
    fill(folder, fresh=True)
    assert "earlier" not in RunStore(folder).facts()


# --- nothing foreign is touched ---------------------------------------------------------------------------------------


def test_fresh_takes_only_what_is_ours(folder, tmp_path):
    for name in ("notes.txt", "shards/mine.txt", "media/mine.mp4", "sub/run.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
        before = content(folder)
        with pytest.raises(RunError, match=f"would delete {name}"):
            fill(folder, facts=asked(a=2), fresh=True)
        assert content(folder) == before
        (folder / name).unlink()
        if name.startswith("sub"):
            (folder / "sub").rmdir()
    fill(folder, facts=asked(a=2), fresh=True)
    for name, held in (("run.json", '{"my": "project"}'), ("thesis.tex", "x")):
        home = tmp_path / name
        home.mkdir()
        (home / name).write_text(held)
        for fresh in (False, True):
            with pytest.raises(RunError, match=r"choose another --out"):
                fill(home, fresh=fresh)
            assert content(home) == {name: held.encode()}


def test_a_run_is_removed_with_what_is_its_own(folder):
    (folder / "notes.txt").write_text("x")
    with pytest.raises(RunError, match="no run"):
        RunStore(folder / "media").remove()
    RunStore(folder).remove()
    assert content(folder) == {"notes.txt": b"x"}


def test_a_file_of_a_units_name_that_is_somebody_elses_is_kept(folder):
    mine = folder / "shards" / "mine.safetensors"
    mine.write_bytes(safetensors.torch.save({"weight": torch.zeros(3)}, {"format": "pt"}))
    held = mine.read_bytes()
    with pytest.raises(RunError, match=r"would delete shards/mine\.safetensors"):
        fill(folder, facts=asked(a=2), fresh=True)
    (folder / "mydir").mkdir()
    assert RunStore(folder).remove() == ["mydir", "shards/mine.safetensors"]
    assert mine.read_bytes() == held and (folder / "mydir").is_dir()


def test_a_damaged_unit_is_still_ours(folder):
    unit = folder / "shards" / "u1.safetensors"
    data = bytearray(unit.read_bytes())
    for at in (9, 40, 90, len(data) - 1):
        unit.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert fill(folder, facts=asked(a=at), fresh=True) == [0, 1, 2]


def test_a_link_to_a_run_is_not_removed_in_its_place(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(RunError, match="is a link: give the folder itself"):
        RunStore(tmp_path / "link").remove()
    assert RunStore(folder).verify() == []


def test_the_page_of_another_run_is_not_this_ones(folder, tmp_path):
    fill(tmp_path / "other", units=2, facts=asked(a=2))
    for name in ("report.html", "findings.json", "page.json", "media/a.svg"):
        (folder / name).write_bytes((tmp_path / "other" / name).read_bytes())
    assert any("page of other results" in problem for problem in RunStore(folder).verify())
    with pytest.raises(RunError, match="page of other results"):
        RunStore(folder).read("findings.json")


@pytest.mark.parametrize("left", [b"", b"\0" * 100, b"\n"])
def test_a_run_json_that_a_disk_emptied_has_a_way_out(folder, left):
    (folder / "run.json").write_bytes(left)
    with pytest.raises(RunError, match=r"damaged .*: start again with --fresh"):
        fill(folder)
    (folder / "notes.txt").write_text("x")  # with something else beside it, it may be somebody's own
    for way in (lambda: fill(folder, fresh=True), RunStore(folder).remove):
        with pytest.raises(RunError, match="was not written by this tool"):
            way()
    (folder / "notes.txt").unlink()
    assert fill(folder, fresh=True) == [0, 1, 2] and RunStore(folder).verify() == []
    (folder / "run.json").write_bytes(left)
    RunStore(folder).remove()
    assert not folder.exists()


def test_a_folder_in_the_place_of_a_file_is_not_ours(folder):
    (folder / "results.parquet").unlink()
    (folder / "results.parquet").mkdir()
    (folder / "results.parquet" / "mine").write_text("x")
    with pytest.raises(RunError, match=r"would delete results.parquet"):
        fill(folder, fresh=True)
    RunStore(folder).remove()
    assert content(folder) == {"results.parquet/mine": b"x"}


def test_a_page_drawn_again_is_sealed_again_and_the_rest_is_not_touched(folder):
    before = content(folder)
    with lock.Writer(folder).holding() as writer:
        RunStore(folder, writer=writer).write_page({"report.html": b"new", "findings.json": b"[]\n", "media/b.svg": b"<svg/>"})
    after = content(folder)
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert changed == {"report.html", "media/a.svg", "media/b.svg", "page.json"} and RunStore(folder).verify() == []
