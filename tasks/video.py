"""Clips as files: H.264 that browsers play and that the verifiers still read."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from cos_interp.tasks import grid

# x264 as shipped gives one of two files for the same frames; without look-ahead and assembler it gives one
REPEATABLE = "threads=1:sync-lookahead=0:rc-lookahead=0:mbtree=0:asm=0"
ENLARGE = 2  # pixels a pixel, so that chroma subsampling does not blur the sprites


def encode_mp4(frames: np.ndarray, fps: int = grid.FPS, enlarge: int = ENLARGE) -> bytes:
    """uint8 ``[frame, height, width, 3]`` as an mp4 file (H.264, yuv420p), enlarged, deterministic.

    Odd sizes are enlarged twice, whatever was asked: chroma is kept for pairs of pixels.
    """
    import av

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
    """uint8 ``[frame, height, width, 3]``; ValueError when the file is no readable video. FFmpeg is told to pass over nothing: it
    would otherwise paint over what is damaged (H.264 has no checksum, so that some damage is seen by nobody)."""
    import av

    if path.exists() and not path.is_file():  # a pipe would block
        raise ValueError(f"{path} is no regular file")
    try:
        with av.open(str(path)) as container:
            for stream in container.streams.video:
                stream.codec_context.options = {"err_detect": "explode"}
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.FFmpegError, IndexError, OSError) as error:
        raise ValueError(f"{path} is no readable video: {error}") from error
    if not frames:
        raise ValueError(f"{path} holds no frames")
    return np.stack(frames)
