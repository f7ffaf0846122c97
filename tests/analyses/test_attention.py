"""Attention maths by hand; the reader against the instrument's own patterns; words; small runs to the page."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from support import build_tiny

from cos_interp.analyses.attention import AttentionConfig
from cos_interp.analyses.attention.measure import self_statistics
from cos_interp.analyses.attention.report import local, spoken
from cos_interp.analyses.attention.words import chosen_words, encoded_text, group_tokens, prompt_words, word_cells
from cos_interp.analyses.driver.experiment import run_and_report
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit import attention_maths as maths
from cos_interp.analyses.kit.attention_reader import query_key_hooks, some_queries
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.errors import InterpError
from cos_interp.tasks import get_task

GRID = (2, 2, 2)


def test_entropy_mass_and_sink_by_hand():
    even, one = torch.full((4, 4), 0.25), torch.eye(4)
    assert maths.entropy_bits(even).tolist() == [2.0] * 4
    torch.testing.assert_close(maths.entropy_bits(one), torch.zeros(4))
    assert maths.mass(even, torch.tensor([True, True, False, False])).tolist() == [0.5] * 4
    assert maths.sink_share(even) == 0.25
    assert maths.sink_share(one) == 0.25  # each looks at itself: no sink
    assert maths.sink_share(torch.eye(4)[[2, 2, 2, 2]]) == 1.0


def test_distances_by_hand():
    even = torch.full((1, 8), 0.125)
    first = torch.tensor([0])
    expected = (0 + 1 + 1 + 2**0.5) / 4  # the same in both frames
    assert maths.locality(even, first, GRID).item() == pytest.approx(expected)
    assert maths.frame_distance(even, first, GRID).item() == 0.5
    assert maths.own_frame_share(even, first, GRID).item() == 0.5
    itself = torch.eye(8)
    assert maths.locality(itself, torch.arange(8), GRID).sum() == 0
    assert maths.own_frame_share(itself, torch.arange(8), GRID).tolist() == [1.0] * 8


def test_knock_out_by_hand():
    row = torch.tensor([[0.5, 0.3, 0.2]])
    torch.testing.assert_close(maths.knock_out(row, torch.tensor([[True, False, False]])), torch.tensor([[0.0, 0.6, 0.4]]))
    assert torch.equal(maths.knock_out(row, torch.ones(1, 3, dtype=torch.bool)), row)  # nothing left to look at
    keys = torch.zeros(8, dtype=torch.bool)
    keys[1] = True  # frame 0
    cut = maths.blocked(keys, GRID)
    assert cut[:4].sum() == 0 and cut[4:, 1].all() and cut.sum() == 4


def test_reader_gives_the_patterns_of_the_instrument_and_changes_nothing(organism):
    item = get_task("maze").sample(0)
    from PIL import Image

    call = {"prompt": item.prompt, "image": Image.fromarray(item.first_frame), "seed": 1, "num_inference_steps": 2}
    names = ["blocks.2.attn.hook_pattern", "blocks.2.cross_attn.hook_pattern"]
    plain, cache = organism.run_with_cache(names=names, **call)
    seen = {}

    def use(site):
        return lambda hook, q, k: seen.update({(site, hook.step): maths.softmax_scores(q.flatten(1, 3), k)})

    hooks = [h for site in ("attn", "cross_attn") for h in query_key_hooks(organism, site, [2], [1], use(site))]
    run = organism.run_with_hooks(fwd_hooks=hooks, **call)
    assert torch.equal(run.latents, plain.latents) and set(seen) == {("attn", 1), ("cross_attn", 1)}
    for name, site in zip(names, ("attn", "cross_attn"), strict=True):
        torch.testing.assert_close(seen[site, 1], cache[name, 1][0].flatten(1, 3), atol=1e-6, rtol=1e-5)
    with pytest.raises(InterpError, match="layers 0 to 7"):
        query_key_hooks(organism, "attn", [8], [0], use("attn"))


def test_large_grids_are_sampled():
    assert len(some_queries((5, 5, 5))) == 125
    assert len(some_queries((21, 30, 52))) <= 512


def test_words(organism):
    words = prompt_words(organism.pipe.tokenizer, "go to the red goal", 16)
    assert [w.text for w in words] == ["go", "to", "the", "red", "goal"] and words[3].tokens == (3,)
    assert [w.text for w in chosen_words(words, ("red", "box"))] == ["red"]
    with pytest.raises(InterpError, match="the prompt has the words go, to"):
        chosen_words(words, ("cat",))
    grouped = group_tokens(["▁a", "▁tea", "pot", ".", "</s>"], ["</s>"])
    assert [(w.text, w.tokens) for w in grouped] == [("a", (0,)), ("teapot.", (1, 2, 3))]
    item = get_task("maze").sample(0)
    colour = item.metadata["colour"]
    assert len(word_cells(colour, item.cells[0])) == 1 and len(word_cells("goal", item.cells[0])) == 2
    assert word_cells("to", item.cells[0]) == []


def _head_rows(pattern, problems=6):
    found = self_statistics(pattern, torch.arange(8), GRID)
    rows = [{name: float(v[0]) for name, v in found.items()} | {"problem": f"p{i}"} for i in range(problems)]
    return pd.DataFrame(rows)


def test_finding_of_locality_planted_and_null():
    assert local(_head_rows(torch.eye(8)[None])).verdict == "reproduced"
    even = local(_head_rows(torch.full((1, 8, 8), 0.125)))
    assert even.verdict == "undecided" and even.number.value == pytest.approx(0)


@pytest.mark.parametrize(("effect", "verdict"), [(1.0, "reproduced"), (0.0, "undecided")])
def test_finding_of_words_planted_and_null(effect, verdict):
    rng = np.random.default_rng(0)
    rows = [
        {"problem": f"p{i}", "own": own, "other": not own, "log2_ratio": effect * own + rng.normal(0, 0.3)}
        for i in range(20)
        for own in (True, False)
    ]
    assert spoken(pd.DataFrame(rows)).verdict == verdict


def test_a_run_on_the_organism(organism, tmp_path):
    config = AttentionConfig(
        tasks=("maze",), items=1, steps=(0, 3), layers=(2, 3), heads=(0, 1), num_inference_steps=4, words=("goal", "red", "to")
    )
    result, report = run_and_report(load("attention"), config, tmp_path / "run", model=organism, workers=1)
    assert RunStore(tmp_path / "run").verify() == []
    heads = result.rows[result.rows.kind == "self"]
    assert len(heads) == 2 * 2 * 4  # steps, layers, heads: statistics are of every head
    assert heads.own_frame.between(0, 1).all() and heads.entropy.le(np.log2(125) + 1e-4).all()
    assert "Words and their objects" in report.html and "maze-000" in report.html
    maps = RunStore(tmp_path / "run").tensors("maze-000")["self"]
    assert maps.shape == (2, 2, 2, 5, 5, 5)
    torch.testing.assert_close(maps.sum((-1, -2, -3)), torch.ones(2, 2, 2))
    for wrong, words in (({"heads": (9,)}, "heads 0 to 3"), ({"query": (9, 0, 0)}, "5 frames")):
        with pytest.raises(InterpError, match=words):
            run_and_report(
                load("attention"), config.model_copy(update=wrong), tmp_path / "bad", model=organism, workers=1, fresh=True
            )


def test_words_are_those_of_the_text_that_the_pipeline_encodes(organism):
    """What a tokenizer is given inside encode_prompt, read by a spy."""
    raw, given = "&lt;b&gt;  move the red circle", []
    tokenizer = organism.pipe.tokenizer

    class Spy:
        def __call__(self, text, **options):
            given.append(text)
            return tokenizer(text, **options)

    organism.pipe.tokenizer = Spy()
    try:
        organism.pipe.encode_prompt(raw, do_classifier_free_guidance=False)
    finally:
        organism.pipe.tokenizer = tokenizer
    assert encoded_text(organism.pipe, raw) in given[0] and encoded_text(organism.pipe, raw) != raw


@pytest.mark.parametrize("family", ["wan21-t2v", "wan22-i2v"])
def test_own_prompts_on_a_tiny_wan(family, tmp_path):
    pipe = HookedVideoPipeline(
        build_tiny(family), "tiny", {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 12}
    )
    call = {"prompt": "move the red circle above the box"}
    if family.endswith("i2v"):
        from PIL import Image

        Image.new("RGB", (32, 32), (9, 90, 200)).save(tmp_path / "a.png")
        call["image"] = "a.png"
    (tmp_path / "own.jsonl").write_text(json.dumps(call))
    config = AttentionConfig(prompts=str(tmp_path / "own.jsonl"), num_inference_steps=4, guidance_scale=3.0)
    result, report = run_and_report(load("attention"), config, tmp_path / "run", model=pipe, workers=1)
    assert RunStore(tmp_path / "run").verify() == []
    assert set(result.rows.kind) == {"self", "text"} and "No verifier" in report.html
