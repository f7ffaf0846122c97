"""Frame rates of videos that another program made: they are judged where their frames are shown when the true video's are."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from cos_interp import HookedVideoPipeline, analyses
from cos_interp.analyses.kit.clips import clip_of, speed
from cos_interp.interp.errors import InterpError
from cos_interp.tasks import suite, vbvr
from cos_interp.tasks.timing import common_rate, odd, rate_of
from cos_interp.tasks.video import read_timed

ITEM = suite.task_items("place")[0]
DROPPED = [0, 250, 500, 750, 1250, 1500, 1750, 2000, 2250]  # milliseconds: the sixth of ten pictures is not there


def write(path, rate, frames=ITEM.video, at=None, container="mp4"):
    """A video by plain PyAV, without this project: at a rate, at given milliseconds, or as a stream that has no clock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream("libx264", rate=rate, options={"crf": "8"})
        stream.height, stream.width, stream.pix_fmt = 160, 160, "yuv420p"
        if at is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, pixels in enumerate(frames.repeat(2, 1).repeat(2, 2)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if at is not None:
                frame.pts, frame.time_base = at[i], Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


WRITTEN = {
    "1": {"rate": 1}, "7.5": {"rate": Fraction(15, 2)}, "16": {"rate": 16}, "29.97": {"rate": Fraction(30000, 1001)},
    "varying": {"rate": 4, "at": DROPPED}, "unknown": {"rate": 4, "container": "h264"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "rate", "at_16", "at_30"),
    [("1", 1.0, "it plays 1 frames a second, the true video 16", "1 frames"),
     ("7.5", 7.5, "it plays 7.5 frames a second, the true video 16", "7.5 frames"),
     ("16", 16.0, "", "it plays 16 frames a second, the true video 30"),
     ("29.97", 30000 / 1001, "it plays 29.97 frames a second, the true video 16", ""),
     ("varying", None, "its frame rate varies: a frame is shown for 0.25 to 0.5 s", "varies"),
     ("unknown", None, "it does not say when its frames are shown, the true video shows 16 a second", "does not say")],
)  # fmt: skip
def test_when_frames_are_shown_is_read(name, rate, at_16, at_30, tmp_path):
    write(tmp_path / "a.mp4", **WRITTEN[name])
    frames, times = read_timed(tmp_path / "a.mp4")
    assert frames.shape == (9, 160, 160, 3) and rate_of(times) == (None if rate is None else pytest.approx(rate))
    assert odd(times, 16) == at_16 and at_30 in odd(times, 30) and bool(odd(times, 30)) is bool(at_30)
    assert bool(odd(times, None)) is (name == "varying")  # where no rate is known, only a varying one is odd


def test_a_rate_that_is_nearly_the_other_is_it_as_long_as_no_frame_loses_its_place():
    """30000/1001 a second is behind 30 by one frame in 1001: by half a frame after 500."""
    ntsc = lambda frames: np.arange(frames) * 1001 / 30000
    assert odd(ntsc(81), 30) == "" and odd(ntsc(500), 30) == "" and odd(ntsc(600), 30) != ""
    assert odd(np.round(ntsc(81), 3), 30) == ""  # a clock that counts milliseconds
    assert odd(np.zeros(1), 30) == "" and rate_of(np.zeros(1)) is None  # a picture has no rate
    assert common_rate([ntsc(9), np.arange(9) / 16, np.arange(9) / 30, None]) == pytest.approx(30, rel=0.01)


def folder_of(tmp_path):
    for name, how in ({"4": {"rate": 4}} | WRITTEN).items():
        write(tmp_path / "theirs/mine/place" / f"{name}.mp4", **how)
        write(tmp_path / "truth/mine/place" / name / "ground_truth.mp4", 4)


def scored(tmp_path, **settings):
    run = analyses.run("chain-of-steps", out=tmp_path / "run", workers=1, from_steps=str(tmp_path / "theirs"), **settings)
    return run, (tmp_path / "run/report.html").read_text()


def test_a_right_video_of_another_rate_than_the_true_one_is_undecided_with_the_reason(tmp_path):
    folder_of(tmp_path)
    run, page = scored(tmp_path, truth=str(tmp_path / "truth"), scorer="reference")
    rows = run.rows[run.rows.kind == "steps"].set_index("problem")
    assert rows.status["mine/place/4"] == "solved" and (rows.status.drop("mine/place/4") == "undecided").all()
    assert rows.error["mine/place/7.5"] == "frame rate: mine/place/7.5.mp4: it plays 7.5 frames a second, its true video 4"
    assert "6 of 7 videos have another frame rate, and have no score" in page and "within half a frame" in page
    (finding,) = run.findings
    assert finding.number.n == 1 and "6 of 7 have none, and are left out" in finding.statement


def test_any_rate_judges_all_and_tells_the_rates(tmp_path):
    folder_of(tmp_path)
    run, page = scored(tmp_path, truth=str(tmp_path / "truth"), scorer="reference", any_rate=True)
    rows = run.rows[run.rows.kind == "steps"]
    assert (rows.status == "solved").all() and rows.set_index("problem").rate["mine/place/29.97"] == pytest.approx(
        29.97, rel=1e-3
    )
    assert "Frame rates did not count: unknown or varying (2)" in page and "29.97 a second (1)" in page


def test_without_a_true_video_most_videos_of_the_sample_say_the_rate(tmp_path):
    for k, rate in enumerate((16, 16, 8, 16)):
        write(tmp_path / "theirs/one/steps" / f"step_{k:03d}.mp4", rate)
    write(tmp_path / "theirs/one/generated.mp4", 16)
    run, _ = scored(tmp_path, scorer="motion")
    rows = run.rows[run.rows.kind == "steps"].set_index("step")
    assert rows.status.to_list() == ["solved", "solved", "undecided", "solved", "solved"] and np.isnan(rows.distance[2])
    assert rows.error[2].endswith("it plays 8 frames a second, most videos of its sample 16")


def test_people_and_the_benchmarks_own_scorer_look_at_the_file(tmp_path):
    write(tmp_path / "theirs/mine/place/00000.mp4", 4, at=DROPPED)
    (tmp_path / "labels.csv").write_text("video,status\nmine/place/00000.mp4,solved\n")
    run, _ = scored(tmp_path, labels=str(tmp_path / "labels.csv"))
    assert run.rows.status.to_list() == ["solved"]


def test_the_suites_own_score_takes_any_steady_rate(tmp_path):
    """Its frames are moves: how fast they are played says nothing, that one is missing does."""
    items = suite.task_items("place")[:3]
    for i, how in enumerate(("7.5", "varying", "unknown")):
        write(tmp_path / suite.NAME / "place" / f"{i:05d}.mp4", **WRITTEN[how], frames=items[i].video)
    found = [verdict for _, _, verdict in vbvr.score(tmp_path, items)]
    assert [verdict.status for verdict in found] == ["solved", "undecided", "solved"] and "varies" in found[1].error


def test_a_clip_for_a_model_is_taken_as_it_comes_and_its_rate_is_said(tmp_path):
    """The organism plays 16 frames a second, and this project shows nine frames at 4. A clip whose rate varies is refused
    where the frames that are taken do."""
    model = HookedVideoPipeline.from_pretrained("organism")
    said = {"1": "1 frames a second, the model's 16: what moves is given at 16 of its speed", "16": "16 frames a second",
            "29.97": "29.97 frames a second, the model's 16: what moves is given at 0.53 of its speed",
            "unknown": "the file names no frame rate"}  # fmt: skip
    for name, words in said.items():
        write(tmp_path / f"{name}.mp4", **WRITTEN[name])
        film = clip_of(model, tmp_path / f"{name}.mp4")
        assert film.taken == f"9 of 9 frames, 160 x 160 as 80 x 80; {words}" and film.frames.shape == ITEM.video.shape
    write(tmp_path / "varying.mp4", **WRITTEN["varying"])
    with pytest.raises(InterpError, match=r"0\.25 to 0\.5 s: give a clip of one rate"):
        clip_of(model, tmp_path / "varying.mp4")
    late = ITEM.video[[0, *range(9), 8]]
    write(tmp_path / "late.mp4", 4, late, [*range(0, 2500, 250), 9000])  # the long gap is after the ninth frame
    assert clip_of(model, tmp_path / "late.mp4").taken == "9 of 11 frames, 160 x 160 as 80 x 80; 4 frames a second"
    assert speed(24.0, None, 81) == "24 frames a second"
