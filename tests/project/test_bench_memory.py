"""The memory rows of ``make bench`` measure what a recording holds."""

from __future__ import annotations

import pytest

from benchmarks.processes import memory


@pytest.mark.slow
def test_the_peak_of_a_recording_is_what_it_keeps_and_no_older_mark():
    """The residual streams of 12 blocks, 4 steps and 320 tokens of width 384 in float32, beside what a forward takes at its own
    peak; one step of them where no more may be."""
    found, streams = memory(), 12 * 4 * 320 * 384 * 4
    assert streams / 2 < found["all steps"]["recorded"] < 2 * streams and found["all steps"]["replayed"] > streams
    for what in ("recorded", "replayed"):
        assert 0 < found["one step"][what] < found["all steps"][what] / 4
