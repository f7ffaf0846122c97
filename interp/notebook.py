"""A run in a notebook: steps, noise levels and, where it is small, what the clean estimates show. Plain HTML, no script."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from html import escape

import numpy as np
from PIL import Image

SMALL = 1 << 16  # numbers of a run's latent up to which it is decoded without being asked; the VAE of a large one takes long
STEPS, FRAMES = 4, 9  # shown, at the most
WIDTH = 720  # pixels of a row of frames, at the most
Decode = Callable[[int | None], np.ndarray]  # of a step, or None for the final latent: [batch, frame, height, width, 3]


def html(told: str, sigmas: Sequence[float], decode: Decode | None) -> str:
    """What is told of a run; a row for some of its steps; with ``decode`` the final video, and the frames of each row, of the
    first video of the batch."""
    rows = [_row(str(step), f"{sigmas[step]:.3f}", decode and decode(step)[0]) for step in spread(len(sigmas), STEPS)]
    rows += [] if decode is None else [_row("final", "", decode(None)[0])]
    head = "".join(f'<th scope="col">{name}</th>' for name in ("step", "sigma", *(["clean estimate"] if decode else [])))
    return f"<p>{escape(told)}</p><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def spread(count: int, most: int) -> list[int]:
    """At most ``most`` numbers below ``count``, the first and the last among them.

    >>> spread(20, 4), spread(2, 4)
    ([0, 6, 13, 19], [0, 1])
    """
    return sorted({round(place) for place in np.linspace(0, count - 1, min(most, count))}) if count else []


def _row(step: str, sigma: str, video: np.ndarray | None) -> str:
    what = f"frames of step {step}" if sigma else "frames of the video"
    shown = "" if video is None else f'<td><img alt="{what}" src="{strip(video)}"></td>'
    return f"<tr><td>{step}</td><td>{sigma}</td>{shown}</tr>"


def strip(video: np.ndarray) -> str:
    """Frames ``[frame, height, width, 3]``, uint8, from left to right, as a PNG in a data address."""
    row = np.concatenate(list(video[spread(len(video), FRAMES)]), axis=1)
    picture = Image.fromarray(row)
    picture.thumbnail((WIDTH, picture.height))
    held = io.BytesIO()
    picture.save(held, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"
