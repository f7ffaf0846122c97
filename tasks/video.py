"""Clips as files: H.264 that browsers play and that the verifiers still read."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

# x264 as shipped gives one of two files for the same frames; without look-ahead and assembler it gives one
REPEATABLE = "threads=1:sync-lookahead=0:rc-lookahead=0:mbtree=0:asm=0"
SMALL = 240  # pixels of a side, below which a video is enlarged so that chroma subsampling does not blur its sprites
USUAL = 8  # frames a second, where nothing says how many
SHORT = 2.0  # seconds that a video lasts at least: a shorter one is played as slowly as that


def played_at(frames: int, rate: float | None = None) -> int:
    """Frames a second at which so many frames are shown, of a model that makes ``rate`` a second.

    >>> played_at(81, 16), played_at(9, 16), played_at(9)
    (16, 4, 4)
    """
    return max(1, round(min(USUAL if rate is None else rate, frames / SHORT)))


def encode_mp4(frames: np.ndarray, fps: int | None = None, enlarge: int | None = None) -> bytes:
    """uint8 ``[frame, height, width, 3]`` as an mp4 file (H.264, yuv420p), deterministic.

    What is not said: :func:`played_at`, and small videos are enlarged twice. Odd sizes are enlarged twice, whatever was asked:
    chroma is kept for pairs of pixels.
    """
    import av

    fps = played_at(len(frames)) if fps is None else fps
    enlarge = (2 if min(frames.shape[1:3]) < SMALL else 1) if enlarge is None else enlarge
    if (frames.shape[1] | frames.shape[2]) * enlarge % 2:
        enlarge = 2
    frames = np.asarray(frames).repeat(enlarge, 1).repeat(enlarge, 2)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        options = {"crf": "8", "preset": "veryfast", "x264-params": REPEATABLE}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def read_mp4(path: Path) -> np.ndarray:
    """uint8 ``[frame, height, width, 3]``; ValueError when the file is no readable video."""
    return read_timed(path)[0]


def read_timed(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The frames of a video, uint8 ``[frame, height, width, 3]``, and the seconds at which they are shown ``[frame]``; None where
    the file does not say it. ValueError when the file is no readable video. FFmpeg is told to pass over nothing: it would
    otherwise paint over what is damaged (H.264 has no checksum, so that some damage is seen by nobody)."""
    import av

    if path.exists() and not path.is_file():  # a pipe would block
        raise ValueError(f"{path} is no regular file")
    frames, times = [], []
    try:
        with av.open(str(path)) as container:
            for stream in container.streams.video:
                stream.codec_context.options = {"err_detect": "explode"}
            for frame in container.decode(video=0):
                frames.append(frame.to_ndarray(format="rgb24"))
                times.append(frame.time)
    except (av.FFmpegError, IndexError, OSError) as error:
        raise ValueError(f"{path} is no readable video: {error}") from error
    if not frames:
        raise ValueError(f"{path} holds no frames")
    if len({frame.shape for frame in frames}) > 1:
        raise ValueError(f"{path} changes its size on the way")
    told = None not in times and (len(times) == 1 or len(set(times)) > 1)
    return np.stack(frames), np.sort(np.array(times, np.float64)) if told else None  # frames come in the order of showing
