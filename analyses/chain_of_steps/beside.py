"""What stands beside a sample's scores: the true video, and videos that show no reasoning, made of whatever there is of them.

Some scorers reward a frozen first frame, a jump to the end state or a fade between them more than models (VBVR-EvalKit, issue
240). A first frame is that of the true video, the given picture, or the video's own; a last one that of the true video, or a
given picture of the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.problems import reading_columns, verdict_columns
from cos_interp.tasks import Case, Verdict
from cos_interp.tasks.impostors import SHORTCUTS

TRUE, FROZEN = "true video", "frozen"
OF_TRUTH, OF_PICTURE, OF_VIDEO = "the true video", "the given picture", "the video's own first frame"
Judge = Callable[[np.ndarray, Path | None], Verdict | None]  # a video, and the file that it was read from


@dataclass(frozen=True)
class Ends:
    """A video of its ends alone, uint8 ``[frame, height, width, 3]``; ``source``: what its first frame is; ``ended``: whether its
    last one is how it should end, and not the first one again."""

    video: np.ndarray
    source: str
    ended: bool


def ends_of(case: Case, last: np.ndarray | None, own: np.ndarray | None) -> Ends | None:
    """The ends of a sample. ``last``: a picture of the end, uint8 ``[height, width, 3]``; ``own``: a video of the sample, in
    whose size and length it is made where there is no true one. None where there is neither."""
    if (truth := true_of(case)) is not None:
        return Ends(truth, OF_TRUTH, True)
    if own is None:
        return None
    first = own[0] if case.image is None else _sized(case.image, own)
    end = first if last is None else _sized(last, own)
    video = np.stack([first] * (len(own) - 1) + [end]) if len(own) > 1 else first[None]
    return Ends(video, OF_VIDEO if case.image is None else OF_PICTURE, last is not None)


def true_of(case: Case) -> np.ndarray | None:
    try:
        return case.truth
    except ValueError:
        return None


def unreadable(case: Case) -> str:
    """Why the true video is none though it is there, in words that are the same for all samples; nothing where it is one."""
    return "" if case.reference is None or true_of(case) is not None else f"{case.reference.name} cannot be read"


def _sized(image: np.ndarray, like: np.ndarray) -> np.ndarray:
    height, width = like.shape[1:3]
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def beside(case: Case, ends: Ends | None, judge: Judge | None) -> Iterator[Row]:
    """What the same judge says of each that can be made, a row each with what it was made of."""
    if ends is None or judge is None:
        return
    for name in (TRUE, *SHORTCUTS):
        if name == TRUE and ends.source == OF_TRUTH:
            verdict = judge(ends.video, case.reference)
        elif name == FROZEN or (name != TRUE and ends.ended):
            verdict = judge(SHORTCUTS[name](ends.video), None)
        else:
            continue
        if verdict is not None:
            yield {"video": name, "made_of": ends.source, **verdict_columns(verdict), **reading_columns(verdict)}
