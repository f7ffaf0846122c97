"""Objects whose attention is cut: which tokens, in every kind of attention, and what an object lost with its own tokens says."""

from __future__ import annotations

import json
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from support import occluded

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import run_and_report
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.kit.tracks import Track, tokens_of
from cos_interp.analyses.memory import MemoryConfig
from cos_interp.analyses.memory.conclusions import used
from cos_interp.analyses.memory.knockout import (
    CUTS,
    Cut,
    column,
    kept_columns,
    knocking,
    random_keys,
    whole_attention,
)
from cos_interp.analyses.memory.measure import pieces
from cos_interp.analyses.memory.objects import frames_after_return, later_frames, pair_of
from cos_interp.interp import HookedVideoPipeline, tiny
from cos_interp.interp.errors import InterpError
from cos_interp.interp.run.cutting import Cutting
from cos_interp.interp.views import stretch
from cos_interp.tasks import get_task, grid

SHAPE = (5, 5, 5)


def _result(rows: pd.DataFrame, twins=()) -> AnalysisResult:
    return AnalysisResult("memory", MemoryConfig(), rows, twins=twins)


def test_cut_sets_are_matched():
    keys = tokens_of([(0, 0), (4, 4)], 0, SHAPE)
    other = random_keys(keys, SHAPE, np.random.default_rng(0))
    assert other.sum() == 2 and not (other & keys).any() and other[25:].sum() == 0
    assert column(keys, SHAPE).sum() == 10 and column(keys, SHAPE)[100:].nonzero()[:, 0].tolist() == [0, 24]


def test_the_knock_out_touches_its_steps_and_layers_only():
    keys = tokens_of([(2, 2)], 0, SHAPE)
    at = knocking([Cut("object", keys, "all", "all"), Cut("object", keys, "late", "early")], SHAPE, 6, 3)
    ((queries, cut),) = at(0, 0, 0)
    assert torch.equal(cut, keys) and not queries[:25].any() and queries[25:].all()  # the own frame still looks
    assert at(0, 2, 0) and at(5, 0, 1) and not at(0, 0, 1) and not at(5, 2, 1)


def knocked(model, cut_at, **call):
    return model.run_directed(partial(Cutting, unseen=cut_at), **call)


def test_cutting_nothing_changes_nothing_in_the_model(organism):
    item = occluded("board")
    call = {"prompt": item.prompt, "image": Image.fromarray(item.first_frame), "seed": 3, "num_inference_steps": 3}
    plain = organism.run(**call)
    nothing = knocking([Cut("none", torch.zeros(125, dtype=torch.bool), "all", "all")], SHAPE, 3, 8)
    assert torch.equal(knocked(organism, nothing, **call).latents, plain.latents)
    late = knocked(organism, knocking([Cut("object", tokens_of([(2, 2)], 0, SHAPE), "late", "all")], SHAPE, 3, 8), **call)
    assert torch.equal(late.x_t[2], plain.x_t[2]) and not torch.equal(late.latents, plain.latents)


def places(model, layer, latents):
    """Where the tokens of such latents lie among so many keys of a self-attention."""
    engine = model.engines["transformer"]
    part = engine.points[f"blocks.{layer}.attn.hook_pattern"].site.part or "lead"
    return lambda keys: stretch(part, keys, model.adapter.grid_at(engine.module, tuple(latents.shape[2:])))


WHOLE = ["allegro", "chronoedit", "cogvideox", "consisid", "cosmos1-v2w", "easyanimate", "framepack", "hunyuan", "hunyuan-i2v",
         "hunyuan1.5", "kandinsky5", "ltx", "ltx2", "mochi", "motif-i2v", "skyreels-v2", "wan2.1-i2v", "wan2.2"]  # fmt: skip


@pytest.mark.parametrize("family", WHOLE)
def test_cut_attention_is_a_pattern_whose_pairs_are_cut_and_whose_rest_takes_their_share(family):
    """The same by whole patterns, on every kind of attention: two objects' tokens, one of them in all frames."""
    model, call = HookedVideoPipeline(tiny.build(family), family), tiny.call(family, steps=2) | {"seed": 0}
    whole_attention(model)
    plain = model.run(**call)
    shape = model.token_grid(plain.latents).shape
    frames = torch.arange(shape[0]).repeat_interleave(shape[1] * shape[2])
    keys = torch.zeros(len(frames), dtype=torch.bool)
    keys[0] = keys[1 :: shape[1] * shape[2]] = True

    def edit(act, hook):
        flat, where = act.flatten(2, 4).clone(), places(model, hook.block, plain.latents)
        pairs = torch.zeros(flat.shape[-2:], dtype=torch.bool)
        pairs[:, where(flat.shape[-1])] = keys[None] & (frames[:, None] != frames[None])
        kept = flat.masked_fill(pairs, 0)
        return torch.where(pairs.any(-1, keepdim=True), kept / kept.sum(-1, keepdim=True), flat).view_as(act)

    by_pattern = model.run_with_hooks(fwd_hooks=[("blocks.*.attn.hook_pattern", edit)], **call).latents
    found = knocked(model, knocking([Cut("object", keys, "all", "all")], shape, 2, model.layers), **call).latents
    assert (found - plain.latents).norm() > 1e-4 * plain.latents.norm()
    assert (found - by_pattern).norm() < 1e-5 * by_pattern.norm()


@pytest.mark.parametrize("family", ["wan2.1", "cogvideox", "hunyuan", "motif-i2v", "framepack", "mochi", "easyanimate"])
@pytest.mark.parametrize("last", [False, True])
def test_the_video_keys_of_an_attention_are_those_whose_scores_it_has(family, last):
    """Text lies before the video in some, after it in others, and history before: ratios of a pattern's columns are those that
    the queries have with the video's own keys."""
    model, held = HookedVideoPipeline(tiny.build(family), family), {}
    layer = model.layers - 1 if last else 0

    def keep(act, hook):
        held.setdefault(hook.name.rsplit("_", 1)[1], act[:1].clone())

    hooks = [(f"blocks.{layer}.attn.hook_{part} @ step=0, branch=cond", keep) for part in ("q", "k", "pattern")]
    run = model.run_with_hooks(fwd_hooks=hooks, **tiny.call(family), seed=0)
    q, k = (held[part][0].flatten(0, 2).movedim(-2, 0) for part in ("q", "k"))
    pattern = held["pattern"][0].flatten(1, 3)
    where = places(model, layer, run.latents)(pattern.shape[-1])
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    found = pattern[..., where].log()
    torch.testing.assert_close(found - found[..., :1], scores - scores[..., :1], atol=1e-4, rtol=1e-4)


def test_what_became_of_each_object_is_read_alone():
    item = occluded("board")
    first, other = pair_of(item)
    assert kept_columns(item, item.video)["kept"] == 1.0
    damaged = item.video.copy()
    damaged[-1] = 128
    read = kept_columns(item, damaged)
    assert read["kept"] == pytest.approx(1 - 1 / len(later_frames(first))) and read["returned"] <= read["kept"]


def test_another_object_is_one_that_the_prompt_does_not_name():
    for task in ("occlusion", "maze", "place"):
        for seed in range(30):
            item = get_task(task).sample(seed)
            first, other = pair_of(item)
            things = set(np.unique(item.cells[0])) - {grid.FLOOR, grid.WALL, grid.BOARD, *first.classes}
            named = {c for c in things if grid.CLASSES[c] in item.prompt}
            assert (other is None) == (not things - named)
            if other is not None:
                assert other.classes[0] in things - named and item.cells[0][other.cells[0]] == other.classes[0]
    assert frames_after_return(Track("t", (1,), ((0, 0),) * 4, (True, False, True, True))) == [2, 3]
    assert frames_after_return(Track("t", (1,), ((0, 0),) * 4, (True,) * 4)) == []


LOST = {  # share of frames that show (the object, the other) when the object's tokens are cut, and when the other's are
    "memory": ((0.1, 0.9), (0.9, 0.1)),
    "all is lost": ((0.1, 0.1), (0.1, 0.1)),
    "nothing is lost": ((0.9, 0.9), (0.9, 0.9)),
    "one object carries both": ((0.1, 0.1), (0.9, 0.9)),
    "the wrong one is lost": ((0.9, 0.1), (0.1, 0.9)),
}


def _outcomes(kind: str, items: int = 20, untouched: float = 1.0) -> pd.DataFrame:
    rng, rows = np.random.default_rng(0), []
    for number in range(items):
        for (tokens, (own, other)), part in product(
            {"object": LOST[kind][0], "another object": LOST[kind][1], "random": (0.9, 0.9)}.items(), CUTS
        ):
            kept, kept_other = (rng.binomial(8, share) / 8 for share in (own, other))
            row = {"kept": kept, "returned": kept, "kept_other": kept_other, "solved": float(rng.random() < own)}
            rows.append({"problem": f"p{number:02}", "tokens": tokens, "step_part": part[0], "layer_part": part[1], **row})
        row = dict.fromkeys(("kept", "returned", "kept_other", "solved"), untouched)
        rows.append({"problem": f"p{number:02}", "tokens": "none", "step_part": "all", "layer_part": "all", **row})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("kind", LOST)
def test_objects_are_in_memory_only_where_each_is_lost_with_its_own_tokens(kind):
    rows = _outcomes(kind)
    found = {f.key: f for f in used(_result(rows), rows)}
    assert found["memory.returned"].primary and not found["memory.kept"].primary
    expected = "reproduced" if kind == "memory" else "refuted"
    assert found["memory.returned"].verdict == found["memory.kept"].verdict == expected
    at = {(r.problem, r.tokens): r for r in rows[(rows.step_part == "all") & (rows.layer_part == "all")].itertuples()}
    own, other = "object", "another object"
    lesser = [
        min(at[p, other].kept - at[p, own].kept, at[p, own].kept_other - at[p, other].kept_other)
        for p in sorted(set(rows.problem))
    ]
    assert found["memory.kept"].number.value == pytest.approx(np.mean(lesser), rel=1e-12)
    assert found["memory.kept"].number.n == 20


def test_what_an_untouched_run_does_not_show_cannot_be_lost():
    """A model that knows nothing: whatever is cut, there was nothing."""
    rows = _outcomes("memory", untouched=0.0)
    assert {f.verdict for f in used(_result(rows), rows)} == {"not testable"}
    few = _outcomes("memory", items=11)
    assert {f.verdict for f in used(_result(few), few)} == {"not testable"}
    alone = _outcomes("memory")
    alone = alone[alone.tokens != "another object"]  # pictures with one object
    assert {f.verdict for f in used(_result(alone), alone)} == {"not testable"}


@pytest.mark.parametrize(
    ("kind", "verdicts"),
    [("memory", {"reproduced"}), ("all is lost", {"not testable"}), ("nothing is lost", {"refuted"}),
     ("the wrong one is lost", {"refuted"})],
)  # fmt: skip
def test_the_answer_needs_the_object_more_than_another(kind, verdicts):
    rows = _outcomes(kind, items=40)
    found = used(_result(rows), rows)[2]
    assert found.key == "memory.answer" and found.verdict in verdicts
    partial = rows[(rows.step_part != "all") | (rows.layer_part != "all")]
    own, other = (partial[partial.tokens == t].groupby("problem").solved.mean() for t in ("object", "another object"))
    if kind != "all is lost":
        assert found.number.value == pytest.approx((other - own).mean(), rel=1e-12) and found.number.n == 40


def test_cuts_that_lose_any_object_say_nothing_of_two():
    """Half of the cuts lose all, whichever tokens they cut; in the others the object's own lose the answer, another's do not."""
    chance = np.random.default_rng(0)
    partial = [part for part in CUTS if part != ("all", "all")]
    fatal = partial[: len(partial) // 2]
    rows = pd.DataFrame([
        {"problem": f"p{n:02}", "tokens": tokens, "step_part": part[0], "layer_part": part[1], "kept": 0.9, "returned": 0.9,
         "kept_other": 0.9, "solved": float(part not in fatal and chance.random() < share)}
        for n in range(40) for part in partial for tokens, share in (("object", 0.75), ("another object", 0.95))
    ])  # fmt: skip
    untouched = rows.drop_duplicates("problem").assign(tokens="none", step_part="all", layer_part="all", solved=1.0)
    found = used(_result(rows), pd.concat([rows, untouched]))[2]
    here = rows[[part not in fatal for part in zip(rows.step_part, rows.layer_part, strict=True)]]
    means = here.groupby("tokens").solved.mean()
    assert found.number.value == pytest.approx(means["another object"] - means["object"]) and found.verdict == "reproduced"
    assert f"{len(partial) - len(fatal)} of {len(partial)} partial cuts" in found.statement


def test_labels_dealt_out_anew_show_no_memory():
    rows = _outcomes("memory", items=40)
    swapped = rows.problem.isin([f"p{n:02}" for n in np.random.default_rng(1).permutation(40)[:20]])
    names = {"object": "another object", "another object": "object"}
    dealt = rows.assign(tokens=rows.tokens.where(~swapped, rows.tokens.replace(names)))
    assert "reproduced" not in {f.verdict for f in used(_result(dealt), dealt)}


def test_items_with_two_objects_are_cut():
    found = [piece for piece, _ in pieces(MemoryConfig(tasks=("occlusion", "place"), items=9, knocked=2))]
    assert [problem.task for problem, cut in found if cut is not None] == ["occlusion"] * 2 + ["place"] * 2
    for task in ("occlusion", "place"):
        two = [problem.name for problem, _ in found if problem.task == task and pair_of(problem.item)[1] is not None]
        assert two[:2] == [problem.name for problem, cut in found if cut is not None and problem.task == task]


@pytest.mark.parametrize("family", ["cogvideox", "motif-i2v", "mochi", "framepack", "skyreels-v2-i2v"])
def test_every_kind_of_attention_is_cut(family, tmp_path):
    """Joint with text, one row at a time, one picture a call."""
    call = tiny.call(family)
    sizes = {name: call[name] for name in ("height", "width", "num_frames", "max_sequence_length") if name in call}
    model = HookedVideoPipeline(tiny.build(family), "tiny", sizes)
    line = {"prompt": call["prompt"]}
    if "image" in call:
        call["image"].save(tmp_path / "first.png")
        line["image"] = "first.png"
    (tmp_path / "own.jsonl").write_text(json.dumps(line))
    asked = {"prompts": str(tmp_path / "own.jsonl"), "num_inference_steps": 2, "guidance_scale": 1.0, "cell": (0, 1)}
    made = [
        run_and_report(load("memory"), MemoryConfig(**asked, batch=batch), tmp_path / str(batch), model=model, workers=1)[0].rows
        for batch in (1, 14)
    ]
    one, many = (rows[rows.kind == "knockout"].change.to_numpy(float) for rows in made)
    assert len(one) == 1 + len(CUTS) * 2 + 2 and one[0] == 0 and (one[[1, 2, -2, -1]] > 0).all()  # those everywhere
    np.testing.assert_allclose(many, one, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("family", ["latte", "sana-video"])
def test_attention_that_no_object_can_be_cut_from_is_refused(family):
    model = HookedVideoPipeline(tiny.build(family), family)
    with pytest.raises(InterpError, match="give --knocked 0"):
        whole_attention(model)
