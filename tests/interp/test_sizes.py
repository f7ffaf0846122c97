"""A video of the size that was asked for, or a word about it."""

from __future__ import annotations

import warnings

import pytest
import torch

from cos_interp.interp import HookedVideoPipeline, InterpError, tiny


def model_and_call(name: str):
    model = HookedVideoPipeline.from_pretrained(f"tiny:{name}")
    return model, tiny.call(name) | {"num_inference_steps": 2, "seed": 0}


@pytest.mark.parametrize(
    ("name", "asked", "made"), [("wan2.1", 10, 9), ("wan2.1", 12, 13), ("cogvideox", 11, 9), ("hunyuan", 8, 5)]
)
def test_a_number_of_frames_that_a_pipeline_rounds_is_said(name, asked, made):
    model, call = model_and_call(name)
    with pytest.warns(UserWarning, match=f"num_frames={asked}: .*Pipeline makes num_frames={made}"):
        run = model.run(**call | {"num_frames": asked})
    assert len(run.decode()[0]) == made


def test_a_height_that_a_pipeline_rounds_is_said():
    model, call = model_and_call("easyanimate")
    with pytest.warns(UserWarning, match="height=40: .*Pipeline makes height=32"):
        model.run(**call | {"height": 40})


@pytest.mark.parametrize("name", ["wan2.1", "ltx", "mochi", "allegro", "hunyuan-i2v-concat", "chronoedit", "cosmos1"])
def test_a_size_that_fits_is_not_remarked_on(name):
    model, call = model_and_call(name)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".* makes ")
        model.run(**call)


def test_latents_of_ones_own_are_of_the_call_s_size():
    model, call = model_and_call("wan2.1")
    own = torch.zeros(1, 4, 3, 4, 4)
    assert torch.equal(model.run(**call, latents=own).x_t[0], own)
    with pytest.raises(InterpError, match="num_frames=9, and the latents that were given are those of num_frames=17: make them"):
        model.run(**call, latents=torch.zeros(1, 4, 5, 4, 4))
    with pytest.raises(InterpError, match="width=32, and the latents that were given are those of width=48"):
        model.run(**call, latents=torch.zeros(1, 4, 3, 4, 6))
    with pytest.raises(InterpError, match=r"latents: 2 row\(s\) for 1 video"):
        model.run(**call, latents=torch.zeros(2, 4, 3, 4, 4))
    for wrong in ("noise", torch.zeros(1, 4, 3, 4, 4, dtype=torch.int64)):
        with pytest.raises(InterpError, match="give a tensor of floats"):
            model.run(**call, latents=wrong)
