"""Predictions by token drawn over a video."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cos_interp.interp.views import pixel_to_latent

SHARE = 0.55  # of the colour in an overlaid cell
LEAST = 240  # pixels a side of each half, at least


def palette(count: int) -> np.ndarray:
    """Distinct colours, uint8 ``[count, 3]``."""
    import seaborn as sns

    return (np.array(sns.color_palette("tab10" if count <= 10 else "husl", count)) * 255).astype(np.uint8)


def colours(predicted: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, dict[str, str]]:
    """RGB of every token ``[frame, row, col, 3]`` and the legend. Values become shades (the norm where there are several)."""
    if np.issubdtype(predicted.dtype, np.integer):
        classes, index = np.unique(predicted, return_inverse=True)
        table = palette(len(classes))
        named = [names[c] if 0 <= c < len(names) else str(c) for c in classes]
        hexes = ["#" + bytes(rgb).hex() for rgb in table]
        return table[index.reshape(predicted.shape)], dict(zip(named, hexes, strict=True))
    import matplotlib

    values = np.linalg.norm(predicted, axis=-1) if predicted.ndim == 4 else predicted
    low, high = float(values.min()), float(values.max())
    shade = matplotlib.colormaps["viridis"]((values - low) / max(high - low, 1e-12))[..., :3]
    return (shade * 255).astype(np.uint8), {"darkest": f"{low:.3g}", "brightest": f"{high:.3g}"}


def overlay(frames: np.ndarray, predicted: np.ndarray, names: Sequence[str] = ()) -> tuple[np.ndarray, dict[str, str]]:
    """The video beside itself with predictions ``[frame, row, col]`` over it: uint8 ``[pixel frame, height, 2 width, 3]``, with
    the legend (class -> colour). ``frames`` is uint8 ``[pixel frame, height, width, 3]``."""
    tokens, legend = colours(predicted, names)
    count, height, width, _ = frames.shape
    by_frame = tokens[pixel_to_latent(count, len(tokens))]
    rows = np.arange(height) * tokens.shape[1] // height
    cols = np.arange(width) * tokens.shape[2] // width
    wide = by_frame[:, rows][:, :, cols].astype(float)
    mixed = np.round(SHARE * wide + (1 - SHARE) * frames).astype(np.uint8)
    times = max(1, -(-LEAST // max(height, width)))
    return np.concatenate([frames, mixed], 2).repeat(times, 1).repeat(times, 2), legend
