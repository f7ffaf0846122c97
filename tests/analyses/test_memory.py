"""Tracks, tracking, knock-out and probes: by hand, planted and null; small runs to the page."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from support import build_tiny

from cos_interp.analyses.driver.experiment import run_and_report
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.attention_maths import knock_out
from cos_interp.analyses.kit.tracks import Track, pixel_frames, tokens_of, tracks
from cos_interp.analyses.memory import MemoryConfig, decoding
from cos_interp.analyses.memory.knockout import CUTS, SETS, Cut, column, kept_share, knocking, random_keys
from cos_interp.analyses.memory.report import used
from cos_interp.analyses.memory.tracking import finding, held_out_choice, tracking_rows
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.errors import InterpError
from cos_interp.interp.run.clock import Hook
from cos_interp.probes import shuffled
from cos_interp.tasks import get_task

SHAPE = (5, 5, 5)


def _occluded(kind: str):
    task = get_task("occlusion")
    return next(item for seed in range(50) if (item := task.sample(seed)).metadata["kind"] == kind)


def test_tracks_follow_hidden_objects():
    wall = tracks(_occluded("wall"))[0]
    assert not all(wall.seen) and wall.seen[0] and wall.seen[-1]
    steps = [abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in zip(wall.cells, wall.cells[1:], strict=False)]
    assert steps == [1, 1, 1, 1, 0, 0, 0, 0]  # one cell a frame, also behind the wall
    board = tracks(_occluded("board"))[0]
    assert not all(board.seen) and len(set(board.cells)) == 1
    ball = tracks(get_task("bounce").sample(0))
    assert len(ball) == 1 and ball[0].name == "ball" and all(ball[0].seen)


def test_frames_and_tokens():
    assert [pixel_frames(f, 5) for f in range(5)] == [[0], [1, 2], [3, 4], [5, 6], [7, 8]]
    assert [pixel_frames(f, 3) for f in range(3)] == [[0], [1, 2, 3, 4], [5, 6, 7, 8]]
    assert tokens_of([(1, 2)], 1, SHAPE).nonzero()[:, 0].tolist() == [25 + 7]
    assert tokens_of([(1, 2)], 0, (1, 10, 10)).view(10, 10).nonzero().tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]


def _planted_track(column: int = 0) -> Track:
    cells = tuple((2, min(f // 2, 4)) for f in range(9))
    return Track("thing", (2,), cells, (True,) * 9)


def _matching(track: Track, noise: float, seed: int = 0):
    """Queries and keys in which the object's tokens carry one common direction, plus noise."""
    rng = torch.Generator().manual_seed(seed)
    q, k = (noise * torch.randn(2, 125, 8, generator=rng) for _ in range(2))
    for frame in range(5):
        at = tokens_of([track.cells[pixel_frames(frame, 5)[-1]]], frame, SHAPE)
        q[:, at, 0] += 10 * (noise < 1)
        k[:, at, 0] += 10 * (noise < 1)
    return q, k


def _tracked(noise: float) -> pd.DataFrame:
    track, rows = _planted_track(), []
    for number in range(12):
        for layer in (0, 1):
            made = tracking_rows(track, *_matching(track, noise, 7 * number + layer), SHAPE)
            rows += [{**row, "problem": f"p{number:02d}", "layer": layer, "step": 0} for row in made]
    return pd.DataFrame(rows)


def test_planted_matching_is_followed():
    rows = _tracked(noise=0.1)
    assert (rows.hit == 1).all() and (rows.hit_back == 1).all()
    assert rows.chance.iloc[0] == pytest.approx(2 / 25)  # two pixel frames a latent frame, two cells
    for value in ("hit", "hit_back"):
        assert finding(rows, value).verdict == "reproduced"
    _, tested = held_out_choice(rows)
    assert set(tested.problem) == {f"p{n:02d}" for n in range(1, 12, 2)}


def test_random_matching_is_not():
    rows = _tracked(noise=1.0)
    assert finding(rows).verdict == "undecided" and abs(rows.hit.mean() - rows.chance.mean()) < 0.1


def test_cut_sets_are_matched():
    keys = tokens_of([(0, 0), (4, 4)], 0, SHAPE)
    other = random_keys(keys, SHAPE, np.random.default_rng(0))
    assert other.sum() == 2 and not (other & keys).any() and other[25:].sum() == 0
    assert column(keys, SHAPE).sum() == 10 and column(keys, SHAPE)[100:].nonzero()[:, 0].tolist() == [0, 24]


def test_the_knock_out_touches_its_steps_and_layers_only():
    keys = tokens_of([(2, 2)], 0, SHAPE)
    edit = knocking([Cut("object", keys, "all", "all"), Cut("object", keys, "late", "early")], SHAPE, steps=6, layers=3)
    act = torch.rand(2, 1, *SHAPE, 125).softmax(-1)
    at = lambda step, layer: edit(act, Hook("n", layer, step, 1.0, 1.0, "cond", "transformer"))
    early = at(0, 0)
    assert torch.equal(early[1], act[1])
    assert early[0, 0, 1:, ..., 12].max() == 0 and torch.equal(early[0, 0, 0], act[0, 0, 0])  # the own frame still looks
    torch.testing.assert_close(early.sum(-1), torch.ones(2, 1, *SHAPE))
    assert not torch.equal(at(5, 0)[1], act[1]) and torch.equal(at(5, 2)[1], act[1])


def test_cutting_nothing_changes_nothing_in_the_model(organism):
    item = _occluded("board")
    call = {"prompt": item.prompt, "image": Image.fromarray(item.first_frame), "seed": 3, "num_inference_steps": 3}
    plain = organism.run(**call)
    edit = knocking([Cut("none", torch.zeros(125, dtype=torch.bool), "all", "all")], SHAPE, 3, 8)
    cut = organism.run_with_hooks(fwd_hooks=[("blocks.*.attn.hook_pattern", edit)], **call)
    assert torch.equal(cut.latents, plain.latents)
    late = knocking([Cut("object", tokens_of([(2, 2)], 0, SHAPE), "late", "all")], SHAPE, 3, 8)
    cut = organism.run_with_hooks(fwd_hooks=[("blocks.*.attn.hook_pattern", late)], **call)
    assert torch.equal(cut.x_t[2], plain.x_t[2]) and not torch.equal(cut.latents, plain.latents)
    pattern = torch.rand(1, 4, 4)
    assert torch.equal(knock_out(pattern, torch.zeros(4, 4, dtype=torch.bool)), pattern)


def test_kept_share_reads_the_object_alone():
    item = _occluded("board")
    followed = tracks(item)
    assert kept_share(item.video, followed) == 1.0
    damaged = item.video.copy()
    damaged[-1] = 128
    assert kept_share(damaged, followed) < 1.0


def _outcomes(object_kept: float) -> pd.DataFrame:
    rng, rows = np.random.default_rng(0), []
    for number in range(20):
        for name, share in (("none", 1.0), ("random", 0.95), ("object", object_kept)):
            for steps, layers in CUTS:
                hit = float(rng.random() < share)
                rows.append(
                    {
                        "problem": f"p{number}",
                        "tokens": name,
                        "step_part": steps,
                        "layer_part": layers,
                        "kept": hit,
                        "solved": hit,
                    }
                )
    return pd.DataFrame(rows)


def test_finding_of_memory_planted_and_null():
    assert [f.verdict for f in used(_outcomes(0.2))] == ["reproduced"] * 2
    assert "reproduced" not in [f.verdict for f in used(_outcomes(0.95))]


def test_probe_finds_what_is_there_and_nothing_else():
    rng = np.random.default_rng(0)
    groups, labels = np.repeat(np.arange(30), 4), rng.integers(0, 3, 120)
    noise = rng.normal(size=(120, 16))
    planted = noise + 6 * np.eye(16)[labels]
    assert decoding.cross_validated(planted, labels, groups).mean() > 0.95
    assert decoding.cross_validated(planted, shuffled(labels, groups), groups).mean() < 0.5
    assert decoding.cross_validated(noise, labels, groups).mean() < 0.5
    # features that give away the item only: useless for a whole item left out
    given_away, of_group = 6 * np.eye(30)[groups], rng.integers(0, 3, 30)[groups]
    assert decoding.cross_validated(given_away, of_group, groups).mean() < 0.6
    assert len(decoding.cross_validated(noise, np.zeros(120), groups)) == 0


def test_probe_points_are_covered_cells():
    for kind in ("board", "wall"):
        item = _occluded(kind)
        points = decoding.probe_points(item, SHAPE, np.random.default_rng(0))
        hidden = [p for p in points if p.label != decoding.NOTHING]
        assert all(item.cells[2 * p.frame][p.cell] not in {t.classes[0] for t in tracks(item)} for p in points)
        assert len(points) - len(hidden) <= len(hidden)


def test_a_run_on_the_organism(organism, tmp_path):
    config = MemoryConfig(tasks=("occlusion",), items=3, knocked=1, steps=(0, 3), num_inference_steps=4, batch=14)
    result, report = run_and_report(load("memory"), config, tmp_path / "run", model=organism, workers=1)
    assert RunStore(tmp_path / "run").verify() == []
    cut = result.rows[result.rows.kind == "knockout"]
    assert len(cut) == 1 + len(CUTS) * len(SETS) and cut[cut.tokens == "none"].change.item() == 0
    assert cut[cut.tokens == "object"].change.gt(0).all()
    first = result.rows[(result.rows.kind == "similarity") & (result.rows.step == 0)]
    np.testing.assert_allclose(first.object, 1, atol=1e-5)
    assert len(report.data["findings"]) == 6 and "Query-key tracking" in report.html


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
