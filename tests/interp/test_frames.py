"""One rule from pixel frames to latent frames, against lists written out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cos_interp.interp import InterpError, pixel_to_latent


def groups(*sizes):
    """0 for as many pixel frames as the first size says, then 1, ..."""
    return [latent for latent, size in enumerate(sizes) for _ in range(size)]


@pytest.mark.parametrize(
    ("pixels", "latents", "expected"),
    [
        (1, 1, [0]),
        (5, 1, [0, 0, 0, 0, 0]),
        (9, 5, [0, 1, 1, 2, 2, 3, 3, 4, 4]),
        (9, 3, [0, 1, 1, 1, 1, 2, 2, 2, 2]),
        (81, 21, groups(1, *[4] * 20)),
        (121, 16, groups(1, *[8] * 15)),
        (16, 16, list(range(16))),
        (16, 5, [0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4]),  # the last of the groups of 4 is not full
        (14, 4, [0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3]),  # one is left over
        (12, 8, [0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7]),  # groups of 2 would leave latent frame 7 empty
    ],
)
def test_the_rule_by_enumeration(pixels, latents, expected):
    assert pixel_to_latent(pixels, latents).tolist() == expected


def test_every_latent_frame_is_used_in_order():
    for latents in range(1, 40):
        for pixels in range(latents, 130):
            found = pixel_to_latent(pixels, latents)
            assert len(found) == pixels and found[0] == 0
            assert np.array_equal(np.unique(found), np.arange(latents)) and (np.diff(found) >= 0).all()


def test_fewer_pixel_frames_than_latent_frames():
    with pytest.raises(InterpError, match="3 pixel frames cannot lie in 4 latent frames"):
        pixel_to_latent(3, 4)
