"""When the frames of a video are shown. Frame by frame two videos are only compared where both have the same rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

HALF = 0.5  # of a frame's time: up to there a frame is shown in its own place, and not in its neighbour's
LONGER = 1.5  # times as long: from there on a gap is no other's


def rate_of(times: np.ndarray | None) -> float | None:
    """Frames a second, of the seconds at which frames are shown ``[frame]``. None for one frame, where nothing says when they are
    shown, and where they are spaced unevenly.

    >>> rate_of(np.array([0.0, 0.25, 0.5])), rate_of(np.array([0.0, 0.25, 0.75])), rate_of(None)
    (4.0, None, None)
    """
    if times is None or len(times) < 2 or _uneven(times):
        return None
    return float((len(times) - 1) / (times[-1] - times[0]))


def _uneven(times: np.ndarray) -> bool:
    """Whether a frame is shown for longer than another: of one that was dropped there are two gaps in one. Clocks that count
    milliseconds leave less."""
    gaps = np.diff(times)
    return bool(gaps.max() > LONGER * gaps.min())


def common_rate(all_times: Sequence[np.ndarray | None]) -> float | None:
    """The rate that most of some videos keep, of equally many the last one's; None where none has any."""
    rates = [rate for times in all_times if (rate := rate_of(times)) is not None]
    agreeing = {rate: sum(not odd(times, rate) for times in all_times) for rate in rates}
    return max(reversed(rates), key=lambda rate: agreeing[rate], default=None)


def odd(times: np.ndarray | None, expected: float | None, whose: str = "the true video") -> str:
    """Why the frames of a video are not shown as so many a second, in words; nothing where each is shown within half a frame's
    time of its place. ``expected``: None where no rate is known, so that only one that varies is odd; ``whose`` it is.

    >>> odd(np.arange(9) / 7.5, 16.0), odd(np.arange(9) * 1001 / 30000, 30.0)
    ('it plays 7.5 frames a second, the true video 16', '')
    >>> odd(np.array([0.0, 0.25, 0.75]), None)
    'its frame rate varies: a frame is shown for 0.25 to 0.5 s'
    """
    if times is None:
        return "" if expected is None else f"it does not say when its frames are shown, {whose} shows {expected:.4g} a second"
    if len(times) < 2:
        return ""
    if _uneven(times):
        gaps = np.diff(times)
        return f"its frame rate varies: a frame is shown for {gaps.min():.4g} to {gaps.max():.4g} s"
    if expected is None or (np.abs((times - times[0]) * expected - np.arange(len(times))) < HALF).all():
        return ""
    return f"it plays {rate_of(times):.4g} frames a second, {whose} {expected:.4g}"
