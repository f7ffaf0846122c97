"""Tracks, tracking, looking back and readers of hidden objects: by hand, planted and null; small runs to the page."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from players import players, read_in
from support import build_tiny, occluded

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import run_and_report
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.driver.twins import twin_of
from cos_interp.analyses.kit.halves import chosen
from cos_interp.analyses.kit.tracks import Track, pixel_frames, tokens_of, tracks
from cos_interp.analyses.memory import MemoryConfig, decoding, tracking
from cos_interp.analyses.memory.conclusions import attended, decodable
from cos_interp.analyses.memory.knockout import CUTS, SETS
from cos_interp.analyses.memory.measure import pieces
from cos_interp.analyses.memory.places import elsewhere, in_others
from cos_interp.analyses.memory.reader import COLUMNS, Samples, _tables
from cos_interp.analyses.memory.tracking import moved, tracking_rows
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.errors import InterpError
from cos_interp.probes import shuffled
from cos_interp.tasks import get_task, grid

SHAPE = (5, 5, 5)


def test_tracks_follow_hidden_objects():
    wall = tracks(occluded("wall"))[0]
    assert not all(wall.seen) and wall.seen[0] and wall.seen[-1]
    steps = [abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in zip(wall.cells, wall.cells[1:], strict=False)]
    assert steps == [1, 1, 1, 1, 0, 0, 0, 0]  # one cell a frame, also behind the wall
    board = tracks(occluded("board"))[0]
    assert not all(board.seen) and len(set(board.cells)) == 1
    ball = tracks(get_task("bounce").sample(0))
    assert len(ball) == 1 and ball[0].name == "ball" and all(ball[0].seen)


def test_frames_and_tokens():
    assert [pixel_frames(f, 5) for f in range(5)] == [[0], [1, 2], [3, 4], [5, 6], [7, 8]]
    assert [pixel_frames(f, 3) for f in range(3)] == [[0], [1, 2, 3, 4], [5, 6, 7, 8]]
    assert tokens_of([(1, 2)], 1, SHAPE).nonzero()[:, 0].tolist() == [25 + 7]
    assert tokens_of([(1, 2)], 0, (1, 10, 10)).view(10, 10).nonzero().tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]


def _planted_track() -> Track:
    cells = tuple((2, min(f // 2, 4)) for f in range(9))
    return Track("thing", (2,), cells, (True,) * 9)


def _matching(track: Track, kind: str, seed: int):
    """Queries and keys, noise but for one direction. ``follows``: the object's tokens share it; ``draws``: the object's keys draw
    all queries; ``stays``: every token looks at its own cell; ``noise``: none."""
    rng = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(2, 125, 32, generator=rng) * (1.0 if kind == "noise" else 0.1) for _ in range(2))
    for frame in range(5):
        at = tokens_of([track.cells[pixel_frames(frame, 5)[-1]]], frame, SHAPE)
        q[:, at, 0] += 10 * (kind == "follows")
        k[:, at, 0] += 10 * (kind in ("follows", "draws"))
    if kind == "draws":
        q[..., 0] += 10
    if kind == "stays":
        place = torch.arange(125) % 25
        for x in (q, k):
            x[:, :, :25] += 10 * torch.eye(25)[place]
    return q, k


def _tracked(kind: str, items: int = 30) -> pd.DataFrame:
    track, rows = _planted_track(), []
    for number in range(items):
        for layer in (0, 1):
            made = tracking_rows(track, *_matching(track, kind, 7 * number + layer), SHAPE)
            about = {"problem": f"p{number:02d}", "task": "maze", "layer": layer, "step": 0, "run_status": "solved"}
            rows += [{**row, **about} for row in made]
    return pd.DataFrame(rows)


def _result(rows: pd.DataFrame, twins=()) -> AnalysisResult:
    return AnalysisResult("memory", MemoryConfig(), rows, twins=twins)


def _verdicts(rows: pd.DataFrame) -> list[str]:
    return [found.verdict for found in tracking.findings(_result(rows), rows)]


def test_planted_matching_is_followed():
    rows = _tracked("follows")
    assert (rows.hit == 1).all() and (rows.hit_back == 1).all()
    assert rows.chance.iloc[0] == pytest.approx(2 / 25)  # two pixel frames a latent frame, two cells
    assert _verdicts(rows) == ["reproduced"] * 2
    forward, back = tracking.findings(_result(rows), rows)
    (layer, _), tested = chosen(moved(rows).assign(more=rows.hit - rows.hit_other), "more")
    assert set(tested.problem) == {f"p{n:02d}" for n in range(1, 30, 2)} and f"layer {layer}, step 0" in forward.statement
    for found, own, other in ((forward, "hit", "hit_other"), (back, "hit_back", "back_other")):
        at = rows[(rows.layer == int(found.statement.split()[1].strip(","))) & (rows.static == 0)]
        by_hand = [np.mean(p[own] - p[other]) for name, p in at.groupby("problem") if int(name[1:]) % 2]
        assert found.number.value == pytest.approx(np.mean(by_hand), rel=1e-12) and found.number.n == 15
    assert set(_verdicts(rows.assign(run_status="wrong"))) == {"not testable"}  # where the object is, is not known


def test_an_object_that_draws_all_queries_is_not_followed():
    rows = _tracked("draws")
    assert (rows.hit == 1).all() and rows.hit_other.min() == 1  # well above chance, and above nothing
    assert "reproduced" not in _verdicts(rows)


def test_matching_below_chance_is_refuted():
    """Every token looks at its own cell: of an object that has moved it finds nothing, and less than the other cells do."""
    rows = _tracked("stays")
    apart = rows[rows.static == 0]
    assert (apart.hit == 0).all() and (apart.hit_other > 0).all()
    noisy = rows.assign(hit_other=rows.hit_other + 0.01 * np.random.default_rng(0).random(len(rows)))
    forward = tracking.findings(_result(noisy), noisy)[0]
    assert forward.verdict == "refuted" and forward.number.high < 0


def test_random_matching_is_not():
    rows = _tracked("noise")
    assert set(_verdicts(rows)) <= {"refuted", "undecided"} and abs(rows.hit.mean() - rows.chance.mean()) < 0.1
    # the best of many places on the items that chose it would say otherwise
    many = pd.concat([rows.assign(step=step, hit=np.random.default_rng(step).permutation(rows.hit)) for step in range(40)])
    assert "reproduced" not in _verdicts(many)


def _attention(effect: float, items: int = 30, seed: int = 0) -> pd.DataFrame:
    """log2 ratio ``effect`` in layer 3 of eight, noise elsewhere."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame([
        {"problem": f"p{i:02}", "task": "maze", "layer": layer, "step": step, "frame": frame, "other": 1.3,
         "object": 1.3 * 2 ** (effect * (layer == 3) + rng.normal(0, 0.2))}
        for i in range(items) for layer in range(8) for step in (0, 9) for frame in range(1, 5)
    ])  # fmt: skip


def _elsewhere(rows: pd.DataFrame, value: float = 1.3, layer: int | None = None) -> pd.DataFrame:
    """The same tokens in other items get ``value`` in that layer, 1.3 in the rest."""
    table = rows[["problem", "layer"]].drop_duplicates()
    return table.assign(elsewhere=np.where(table.layer == layer, value, 1.3))


def test_a_place_that_is_looked_at_whatever_stands_there_is_no_object():
    rows = _attention(1.0)
    found = attended(_result(rows), rows, _elsewhere(rows, 2.6, 3))
    assert found.verdict == "refuted" and "layer 3" not in found.statement
    half = attended(_result(rows), rows, _elsewhere(rows, 1.6, 3))
    at = rows[rows.layer == 3]
    by_hand = [np.log2(p.object.mean() / 1.6) for name, p in at.groupby("problem") if int(name[1:]) % 2]
    assert half.number.value == pytest.approx(np.mean(by_hand)) and half.control.value == pytest.approx(1.6)
    rarely = attended(_result(rows), rows, _elsewhere(rows, 0.1, 3))  # less than the mean other token is no lower floor
    assert rarely.number == attended(_result(rows), rows, _elsewhere(rows)).number
    alone = attended(_result(rows), rows, _elsewhere(rows, np.nan, 3).replace({"elsewhere": {1.3: np.nan}}))
    assert alone.verdict == "not testable" and alone.number.n == 0


def test_what_places_get_elsewhere_by_hand():
    chance = np.random.default_rng(0)
    received, followed = chance.random((5, 3, 2, 4)), chance.random((5, 2, 4)) < 0.4
    followed[:, 0, 0] = True  # no item leaves it free
    got = in_others(received, followed)
    for item in range(5):
        places = [(r, c) for r in range(2) for c in range(4) if followed[item, r, c] and not followed[:, r, c].all()]
        means = [[received[j, :, r, c] for j in range(5) if not followed[j, r, c]] for r, c in places]
        by_hand = np.mean([np.mean(of, 0) for of in means], 0) if places else np.full(3, np.nan)
        np.testing.assert_allclose(got[item], by_hand)
    assert np.isnan(in_others(received, np.ones_like(followed))).all()


def test_later_frames_look_back_where_one_layer_does():
    rows = _attention(1.0)
    found = attended(_result(rows), rows, _elsewhere(rows))
    assert found.verdict == "reproduced" and "layer 3" in found.statement
    at = rows[rows.layer == 3]
    by_hand = [np.log2(p.object.mean() / p.other.mean()) for name, p in at.groupby("problem") if int(name[1:]) % 2]
    assert found.number.value == pytest.approx(np.mean(by_hand), rel=1e-12) and found.number.n == 15
    for seed in range(5):  # six per cent more is not looking back; neither is the best of eight layers of noise
        assert attended(_result(rows), _attention(np.log2(1.06), seed=seed), _elsewhere(rows)).verdict == "refuted"
    assert attended(_result(rows), rows[rows.problem < "p10"], _elsewhere(rows)).verdict == "not testable"


# --- readers -------------------------------------------------------------------------------------------------------------


def _points(rng: np.random.Generator, items: int):
    """Labels, kinds and items of points: eight visible ones an item, two hidden ones and four bare cells, of six classes."""
    kinds = np.tile(np.repeat([0, 1, 2], [8, 2, 4]), items)
    groups = np.repeat([f"occlusion-{i:03d}" for i in range(items)], 14)
    labels = rng.integers(0, 6, (items, 14))
    labels[:, 10:] = labels[:, 8:10].repeat(2, 1)  # a bare cell is asked for what is hidden elsewhere
    return labels.reshape(-1), kinds, groups


SEEN, NOT_BARE, ALL, NONE = ([True, False, False], [True, True, False], [True] * 3, [False] * 3)  # visible, hidden, bare


def _read(shown: list[bool], latent: list[bool] = NONE, items: int = 60, seed: int = 0) -> tuple:
    """The reader's table and the finding: by kind of point, whether the residual (``shown``) and x_t (``latent``) have the class,
    at six standard deviations."""
    rng = np.random.default_rng(seed)
    labels, kinds, groups = _points(rng, items)
    has = lambda which: 6 * np.eye(16)[labels] * np.array(which)[kinds][:, None]
    residual = rng.normal(size=(2, 3, len(labels), 16)) + has(shown)
    found = Samples(residual, rng.normal(size=(2, len(labels), 16)) + has(latent), labels, kinds, groups, (0, 5))
    table = pd.concat(list(_tables(found)), ignore_index=True).assign(task="occlusion")
    return table, decodable(_result(table), table)


def test_a_hidden_object_is_read_by_a_reader_of_visible_ones():
    table, found = _read(NOT_BARE)
    assert found.verdict == "reproduced" and found.number.n == 30
    layer, step = (int(word.strip(",")) for word in np.array(found.statement.split())[[1, 3]])
    at = table[(table.source == "residual") & (table.layer == layer) & (table.step == step)].set_index("problem")
    base = table[(table.source == "x_t") & (table.step == step)].set_index("problem")
    tested = sorted(at.index)[1::2]
    by_hand = [(at.hidden - at["bare"])[p] - (base.hidden - base["bare"])[p] for p in tested]
    assert found.number.value == pytest.approx(np.mean(by_hand), rel=1e-12)
    shuffled_part = table[table.source == "shuffled"]
    assert shuffled_part[["visible", "hidden"]].mean().max() < 0.35


def test_what_every_covered_cell_says_is_not_a_hidden_object():
    """The scene's objects written everywhere: read at the hidden object's cell, and as well at a bare one."""
    table, found = _read(ALL)
    assert table[table.source == "residual"].hidden.mean() > 0.95 and found.verdict != "reproduced"


def test_what_is_seen_and_lost_when_hidden_is_not_found():
    assert {_read(SEEN, seed=s)[1].verdict for s in range(3)} <= {"refuted", "undecided"}
    assert _read(SEEN, items=240)[1].verdict == "refuted"


@pytest.mark.parametrize("shown", [SEEN, NOT_BARE])
def test_what_the_latent_itself_shows_is_not_the_models(shown):
    found = _read(shown, latent=NOT_BARE, items=120)[1]
    assert found.verdict == "refuted" and found.control.value > 0.6


def test_a_reader_that_reads_nothing_visible_is_not_asked():
    table, found = _read(NONE)
    blind, sees = table.assign(layer=table.layer + 3), _read(NOT_BARE)[0]
    lucky = blind.assign(hidden=blind.hidden.where(blind.source != "residual", 1.0), bare=0.0)  # names nothing in sight
    both = pd.concat([sees, lucky[lucky.source == "residual"]])
    assert decodable(_result(both), both).statement == decodable(_result(sees), sees).statement
    assert found.verdict == "not testable" and "of visible objects" in found.why
    nothing = pd.DataFrame(columns=COLUMNS)
    assert decodable(_result(nothing), nothing).verdict == "not testable"


def test_a_reader_learns_from_visible_points_of_other_items():
    rng = np.random.default_rng(0)
    groups, labels = np.repeat(np.arange(30), 4), rng.integers(0, 3, 120)
    noise, learnt = rng.normal(size=(120, 16)), np.tile([True, True, True, False], 30)
    planted = noise + 6 * np.eye(16)[labels]
    assert (decoding.read_out(planted, labels, groups, learnt) == labels).mean() > 0.95
    assert (decoding.read_out(planted, shuffled(labels, groups), groups, learnt) == labels).mean() < 0.5
    changed = np.where(learnt, labels, (labels + 1) % 3)  # labels of points that it does not learn from say nothing to it
    assert np.array_equal(*(decoding.read_out(planted, told, groups, learnt) for told in (labels, changed)))
    given_away, of_group = 6 * np.eye(30)[groups], rng.integers(0, 3, 30)[groups]
    assert (decoding.read_out(given_away, of_group, groups, learnt) == of_group).mean() < 0.6
    assert decoding.read_out(noise, np.zeros(120, int), groups, learnt) is None
    assert decoding.read_out(noise, labels, np.zeros(120, int), learnt) is None


def test_probe_points_are_what_they_say():
    items = [get_task("occlusion").sample(seed) for seed in range(60)]
    kinds = {(item.metadata["kind"], p.kind) for item in items for p in _check_points(item)}
    assert kinds == set(product(("board", "wall"), decoding.KINDS))


def test_readers_learn_from_tasks_that_hide_nothing():
    rng = np.random.default_rng(0)
    kinds = [
        {p.kind for s in range(9) for p in decoding.probe_points(get_task(t).sample(s), SHAPE, rng)} for t in ("place", "maze")
    ]
    assert kinds == [{"visible"}, set()]


def _check_points(item) -> list[decoding.Point]:
    points = decoding.probe_points(item, SHAPE, np.random.default_rng(0))
    hidden = {(p.frame, p.label): p.cell for p in points if p.kind == "hidden"}
    assert set(hidden.values()) <= {cell for t in tracks(item) for cell in t.cells}
    for p in points:
        shown = [item.cells[f][p.cell] for f in pixel_frames(p.frame, 5)]
        assert (shown[-1] == p.label) if p.kind == "visible" else set(shown) <= {grid.BOARD, grid.WALL}
        assert p.kind != "bare" or p.cell not in {at for (frame, _), at in hidden.items() if frame == p.frame}
    return points


def test_a_run_on_the_organism(organism, tmp_path):
    config = MemoryConfig(tasks=("occlusion", "place"), items=2, knocked=1, steps=(0, 3), num_inference_steps=4, batch=14)
    result, report = run_and_report(load("memory"), config, tmp_path / "run", model=organism, workers=1)
    assert RunStore(tmp_path / "run").verify() == []
    cut = result.rows[result.rows.kind == "knockout"]
    assert len(cut) == 1 + len(CUTS) * 2 + 3 and set(cut.tokens) == {"none", *SETS}
    assert cut[cut.tokens == "none"].change.item() == 0
    assert cut[cut.tokens == "object"].change.gt(0).all()
    first = result.rows[(result.rows.kind == "similarity") & (result.rows.step == 0)]
    np.testing.assert_allclose(first.object, 1, atol=1e-5)
    there = elsewhere(result, RunStore(tmp_path / "run"))
    seen = result.rows[(result.rows.kind == "attention") & (result.rows.layer == 5)]
    for name, part in seen.groupby("problem"):  # the map is what the rows are means of
        tensors = RunStore(tmp_path / "run").tensors(name)
        own = tensors["received"][5][tensors["followed"]].mean()
        assert float(own) == pytest.approx(part.object.mean(), rel=1e-5) and tensors["followed"].any()
        other = next(n for n in set(seen.problem) if n != name and n.split("-")[0] == name.split("-")[0])
        beside = RunStore(tmp_path / "run").tensors(other)
        free = tensors["followed"] & ~beside["followed"]
        value = there[(there.problem == name) & (there.layer == 5)].elsewhere.item()
        assert value == pytest.approx(float(beside["received"][5][free].mean()), rel=1e-5) if free.any() else np.isnan(value)
    keys = ["returned", "kept", "answer", "hidden", "tracking", "tracking-back", "attended"]
    assert [f["key"] for f in report.data["findings"]] == [f"memory.{key}" for key in keys]
    assert {f["verdict"] for f in report.data["findings"]} == {"not testable"} and "Query-key tracking" in report.html
    (shown,) = players(report.html).values()
    problem = next(problem for (problem, cut), _ in pieces(config) if cut is not None)
    assert [row["name"] for row in shown["rows"]] == ["untouched", *(f"cut from: {tokens}" for tokens in SETS)]
    assert [row["told"]["reads"] for row in shown["rows"]] == read_in(tmp_path / "run", problem)


def test_own_prompts_on_a_tiny_wan(tmp_path):
    model = HookedVideoPipeline(
        build_tiny("wan21-t2v"), "tiny", {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 12}
    )
    (tmp_path / "own.jsonl").write_text(json.dumps({"prompt": "go left"}))
    config = MemoryConfig(prompts=str(tmp_path / "own.jsonl"), num_inference_steps=3, guidance_scale=3.0, batch=14, cell=(0, 1))
    result, report = run_and_report(load("memory"), config, tmp_path / "run", model=model, workers=1)
    assert RunStore(tmp_path / "run").verify() == []
    assert set(result.rows.kind) == {"attention", "similarity", "knockout"} and "no verifier" in report.html
    with pytest.raises(InterpError, match="the latent grid has 2 rows"):
        run_and_report(load("memory"), config.model_copy(update={"cell": (5, 5)}), tmp_path / "bad", model=model, workers=1)


@pytest.mark.slow
def test_a_twin_remembers_nothing(organism, tmp_path):
    config = MemoryConfig(items=24, knocked=2, steps=(0, 3), num_inference_steps=4, batch=14)
    result, report = run_and_report(load("memory"), config, tmp_path / "run", model=twin_of(organism, 3), workers=1)
    found = {f["key"]: f for f in report.data["findings"]}
    assert len(found) == 7 and found["memory.attended"]["number"]["n"] == 36
    assert "reproduced" not in {f["verdict"] for f in found.values()}, [f["statement"] for f in found.values()]
