"""How many videos an autoencoder gets at a time: large ones alone, and each is the same video."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import hooked_tiny

from cos_interp.interp.families import decoding


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
