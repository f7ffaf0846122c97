"""How many videos an autoencoder gets at a time: large ones alone, and each is the same video."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import hooked_tiny

from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.families import decoding, tiny


@pytest.fixture
def seen(monkeypatch):
    """A model, latents of five videos, and the rows of each call of its autoencoder."""
    model, rows = hooked_tiny(), []
    decode = model.pipe.vae.decode
    monkeypatch.setattr(model.pipe.vae, "decode", lambda z, **kwargs: rows.append(len(z)) or decode(z, **kwargs))
    return model, torch.randn(5, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0)), rows


def test_small_videos_are_decoded_together_and_large_ones_alone(seen, monkeypatch):
    model, latents, rows = seen
    together = model.decode(latents)
    pixels = 3 * 4 * 32 * 32  # an upper bound: the first latent frame is one picture
    assert rows == [5] and together.shape == (5, 9, 32, 32, 3)
    for most, expected in ((2 * pixels + 1, [2, 2, 1]), (pixels - 1, [1] * 5)):
        rows.clear()
        monkeypatch.setattr(decoding, "PIXELS", most)
        found = model.decode(latents)
        assert rows == expected and np.abs(found.astype(int) - together).max() <= 1
    assert torch.equal(torch.from_numpy(model.decode(latents[3:4])[0]), torch.from_numpy(found[3]))


def test_a_large_video_is_alone_by_the_rule():
    pipe = hooked_tiny().pipe
    pipe.vae_scale_factor_temporal, pipe.vae_scale_factor_spatial = 4, 8
    sizes = {(3, 10, 10): 16, (21, 60, 104): 1, (31, 88, 160): 1, (5, 32, 32): 3}
    assert {size: decoding.at_a_time(pipe, torch.empty(1, 16, *size)) for size in sizes} == sizes


# Allegro crops what is decoded, EasyAnimate's control pipeline cannot show its video (diffusers 0.42)
SHOWN = [name for name in tiny.TINY if name not in ("allegro", "easyanimate-control")]


@pytest.mark.parametrize("name", SHOWN)
def test_a_run_is_decoded_as_its_pipeline_shows_it(name):
    call = {key: value for key, value in tiny.call(name, guided=False, steps=2).items() if key != "generator"}
    run = HookedVideoPipeline.from_pipeline(tiny.build(name)).run(seed=5, **call)
    given = {**call, "generator": torch.Generator().manual_seed(5), "output_type": "np", "return_dict": False}
    shown = np.asarray(tiny.build(name)(**given)[0][0])
    assert run.decode()[0].shape == shown.shape
    assert np.abs(run.decode()[0] / 255 - shown).max() < 1.5 / 255  # Cosmos cuts to whole numbers
    if name == "wan2.2-ti2v-5b":  # whose picture is the first frame of every estimate, though the scheduler moves it
        assert np.abs(run.decode(-1)[0] / 255 - shown).max() < 1.5 / 255
