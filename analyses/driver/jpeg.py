"""Whether the coded data of a JPEG file are those of its picture: Pillow draws what it can of damaged ones, without a word."""

from __future__ import annotations

import io

import av


def damage(data: bytes) -> str | None:
    """What is wrong with a JPEG file, in words; None where nothing is seen to be.

    FFmpeg is told to pass over nothing. JPEG (ITU-T T.81) has no checksum: data that end early or hold what is no code are seen
    in the common codings, values of the right length are not.
    """
    try:
        with av.open(io.BytesIO(data), "r", format="jpeg_pipe") as file:
            file.streams.video[0].codec_context.options = {"err_detect": "explode"}
            next(file.decode(video=0))
    except av.error.InvalidDataError:
        return "its data end before the picture does, or hold what is no code"
    except (av.error.FFmpegError, StopIteration):  # a form that FFmpeg does not know: Pillow alone reads it
        return None
    return None
