"""Rows of a batch that are begun one by one: each is the row alone, on every pipeline that prepares one video a call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import CogVideoXDPMScheduler

from cos_interp.interp import HookedVideoPipeline, InterpError
from cos_interp.interp.batch import joined
from cos_interp.interp.families import tiny

PROMPTS = ["roll the ball", "go to the red goal"]
APART = [
    "cogvideox-v2v", "cogvideox-control", "consisid", "cosmos1-v2w", "cosmos2.5-v2w", "easyanimate", "easyanimate-control",
    "framepack", "hunyuan-i2v", "hunyuan-i2v-concat", "hunyuan1.5", "hunyuan1.5-i2v", "motif-i2v", "sana-video-i2v",
    "wan2.1-i2v", "wan-vace", "wan2.2-vace", "wan-lucy-edit", "wan-animate", "skyreels-v2-i2v", "chronoedit",
]  # fmt: skip


def model_of(name: str, scheduler: Any = None) -> HookedVideoPipeline:
    return HookedVideoPipeline.from_pipeline(tiny.build(name, scheduler))


def two(name: str) -> list[dict[str, Any]]:
    """Calls of two videos that differ in all that a row may differ in."""
    call = tiny.call(name, steps=2)
    made = [dict(call) | {"seed": seed} for seed in (5, 6)]
    for row, prompt in zip(made, PROMPTS, strict=True):
        if call.get("prompt") is not None:
            row["prompt"] = prompt
    if "image" in call:
        made[1]["image"] = call["image"].rotate(90)
    return made


def together(calls: list[dict[str, Any]]) -> dict[str, Any]:
    embeds = {n: torch.cat([c[n] for c in calls]) for n in calls[0] if "embeds" in n or "attention_mask" in n}
    return joined(calls) | embeds


def assert_rows_alone(model: HookedVideoPipeline, calls: list[dict[str, Any]]) -> None:
    both = model.run(**together(calls))
    for row, call in enumerate(calls):
        torch.testing.assert_close(both.latents[row : row + 1], model.run(**call).latents, atol=2e-5, rtol=1e-4)
    assert not both.unseeded and not torch.allclose(both.latents[0], both.latents[1], atol=1e-3)


@pytest.mark.parametrize("name", APART)
def test_each_row_is_the_row_alone(name):
    """Also where the pipeline's own batch fails: without the instrument diffusers refuses, or mixes, most of these."""
    assert_rows_alone(model_of(name), two(name))


@pytest.mark.parametrize("name", ["motif-i2v", "hunyuan1.5-i2v", "cogvideox-i2v"])
def test_one_picture_is_that_of_every_row(name):
    calls = two(name)
    assert_rows_alone(model_of(name), [calls[0], calls[1] | {"image": calls[0]["image"]}])


def test_several_videos_of_embedded_words_are_each_the_one_alone():
    call = two("hunyuan-i2v")[0]
    assert "prompt_embeds" in call and call.get("prompt") is None
    model = model_of("hunyuan-i2v")
    both = model.run(**call | {"seed": [5, 6], "num_videos_per_prompt": 2}).latents
    for row, seed in enumerate((5, 6)):
        torch.testing.assert_close(both[row : row + 1], model.run(**call | {"seed": seed}).latents, atol=2e-5, rtol=1e-4)


def test_noise_that_the_scheduler_draws_is_each_rows_own():
    """The generators go on from where beginning a row has left them: this sampler draws at every step."""
    assert_rows_alone(model_of("cogvideox-i2v", CogVideoXDPMScheduler()), two("cogvideox-i2v"))


def test_noise_that_the_loop_draws_is_each_rows_own():
    """Cosmos 1 noises its condition anew at every step, from the generator that made the first latents."""
    calls = two("cosmos1-v2w")
    assert_rows_alone(model_of("cosmos1-v2w"), [calls[0], calls[0] | {"seed": 6}])


def test_copies_of_a_call_are_begun_once_and_are_its_run(monkeypatch):
    model, call = model_of("wan2.2-i2v"), two("wan2.2-i2v")[0]
    alone, encoded = model.run(**call), []
    encode = model.pipe.vae.encode
    monkeypatch.setattr(model.pipe.vae, "encode", lambda *args, **kwargs: encoded.append(1) or encode(*args, **kwargs))
    copies = model.run(**joined([call] * 3))
    assert len(encoded) == 1
    for row in copies.latents.split(1):
        torch.testing.assert_close(row, alone.latents, atol=2e-5, rtol=1e-4)
    model.run(**joined([call, call | {"seed": 6}]))
    assert len(encoded) == 3  # another noise is another row, whose condition may depend on it


def test_hooks_act_on_rows_and_see_no_beginning():
    model, calls = model_of("skyreels-v2-i2v"), two("skyreels-v2-i2v")
    seen = []

    def first_row(act, hook):
        seen.append((hook.step, act.shape[0]))
        out = act.clone()
        out[0] = 0
        return out

    run = model.run_with_hooks(fwd_hooks=[("blocks.1.hook_resid_post", first_row)], **together(calls))
    assert [step for step, _ in seen] == [0, 0, 1, 1] and {rows for _, rows in seen} == {2}
    torch.testing.assert_close(run.latents[1:], model.run(**calls[1]).latents, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(run.latents[:1], model.run(**calls[0]).latents, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("latte", {}, "LattePipeline makes one (what it encodes of one row has another form than of the next)"),
        ("easyanimate-inpaint", {}, "EasyAnimateInpaintPipeline makes others in a batch than alone"),
        ("kandinsky5-i2v", {}, "Kandinsky5I2VPipeline makes others in a batch than alone"),
    ],
)
def test_what_cannot_be_one_batch_is_refused_in_words(name, change, words):
    model, calls = model_of(name), two(name)
    assert model.one_row == (name != "latte")
    with pytest.raises(InterpError, match="2 videos in one run") as error:
        model.run(**together([call | change for call in calls]))
    assert words in str(error.value) and "make a run for each" in str(error.value)
    assert model.block_calls == 0  # before anything was computed


def test_a_pipeline_whose_pictures_reach_the_transformer_unseen_is_refused(monkeypatch):
    """Without the method that the adapter names, the first picture would be that of both rows, without a word."""
    model, calls = model_of("hunyuan1.5-i2v"), two("hunyuan1.5-i2v")
    monkeypatch.setattr(type(model.adapter), "recalls", ())
    with pytest.raises(InterpError, match="reaches its transformer by ways that know of one only"):
        model.run(**together(calls))


def test_a_run_of_rows_that_were_begun_alone_leaves_the_callers_generators_as_a_run_does():
    model, call = model_of("wan2.2-i2v"), two("wan2.2-i2v")[0]
    call.pop("seed")
    made = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    both = model.run(**call | {"prompt": PROMPTS, "image": [call["image"]] * 2, "generator": made})
    for row, prompt in enumerate(PROMPTS):
        own = torch.Generator().manual_seed(5 + row)
        alone = model.run(**call | {"prompt": prompt, "generator": own})
        torch.testing.assert_close(both.latents[row : row + 1], alone.latents, atol=2e-5, rtol=1e-4)
        assert torch.equal(made[row].get_state(), own.get_state())
