"""An object, given as a picture, is seen at a place: the nearest match anywhere, and where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.signal import fftconvolve

from cos_interp.tasks.item import Verdict
from cos_interp.tasks.scorer import Case
from cos_interp.tasks.scorers.pictures import as_float

SEEN = 0.12  # root mean square error up to which the object counts as seen, of 1
FORM = 'give expected like {"template": "ball.png", "at": [x0, y0, x1, y1], "frame": -1}'


def errors(picture: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Root mean square error of a template ``[h, w, 3]`` at every place of a picture ``[H, W, 3]``: ``[H - h + 1, W - w + 1]``.

    By the expanded square; in [0, 1] like the pictures.
    """
    window = np.ones(template.shape[:2])
    squares = fftconvolve((picture**2).sum(-1), window, "valid")
    across = sum(fftconvolve(picture[..., c], template[::-1, ::-1, c], "valid") for c in range(3))
    return np.sqrt(np.maximum(squares - 2 * across + (template**2).sum(), 0) / template.size)


def judge(video: np.ndarray, case: Case) -> Verdict:
    """*solved* where the object is seen with its centre inside the box ``at`` (pixels, or shares of the picture where all are
    at most 1) in the asked ``frame`` (-1, the last, by default); *wrong: elsewhere* where it is seen at another place, *wrong:
    not seen* where it is nowhere. The answer is its place. ``within``: another largest error. Readings: ``error``, ``x``, ``y``.
    """
    asked = _asked(case)
    picture = as_float(video[int(asked.get("frame", -1))])
    template = _template(case.folder / asked["template"])
    if any(t > p for t, p in zip(template.shape[:2], picture.shape[:2], strict=True)):
        raise ValueError(f"the template has {template.shape[:2]} pixels, the video {picture.shape[:2]}")
    found = errors(picture, template)
    row, col = np.unravel_index(found.argmin(), found.shape)
    x, y = col + template.shape[1] / 2, row + template.shape[0] / 2
    readings = {"error": float(found.min()), "x": float(x), "y": float(y)}
    if found.min() > float(asked.get("within", SEEN)):
        return Verdict("wrong", "not seen", "", readings)
    left, top, right, bottom = _box(asked["at"], picture.shape)
    inside = left <= x <= right and top <= y <= bottom
    return Verdict("solved" if inside else "wrong", "" if inside else "elsewhere", f"{x:.0f},{y:.0f}", readings)


def _asked(case: Case) -> dict[str, Any]:
    asked = case.expected
    if not isinstance(asked, dict) or not {"template", "at"} <= set(asked) or len(asked["at"]) != 4:
        raise ValueError(f"{case.name}: {FORM}")
    return asked


def _box(at: list[float], shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    height, width = shape[:2]
    scale = (width, height, width, height) if max(at) <= 1 else (1, 1, 1, 1)
    left, top, right, bottom = (float(v) * s for v, s in zip(at, scale, strict=True))
    return left, top, right, bottom


def _template(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"), np.float64) / 255
    except OSError as error:
        raise ValueError(f"the template {path} cannot be read: {error}") from error
