"""Whether the coded data of a JPEG file are those of its picture: Pillow draws what it can of damaged ones, without a word.

A JPEG file (ITU-T T.81) has no checksum, but its code leaves traces: the blocks that the header announces must use up the bits
of every part of the data, and no code or run of zeros may lie outside the tables.
Only a wrong value of the right length is not seen.
"""

from __future__ import annotations

import io
import math
import re
import struct
from dataclasses import dataclass, field

import av
import numpy as np

END_OF_BLOCK = 1000  # as an advance: beyond every coefficient
NO_CODE = 1 << 60  # as a number of bits: beyond every file
LONGEST = 2**21  # bytes that are gone through code by code, some seconds; longer files are left to FFmpeg
SCAN_END = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
RESTART = re.compile(rb"\xff+[\xd0-\xd7]")


@dataclass
class Header:
    """What is said before a scan: size (rows, columns), sampling of each component, code tables, blocks between restarts."""

    size: tuple[int, int] = (0, 0)
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)
    tables: dict[int, tuple[list[int], list[int]]] = field(default_factory=dict)
    interval: int = 0


def damage(data: bytes) -> str | None:
    """What is wrong with the coded data of a JPEG file, in words; None where nothing is, or where the process is a rare one
    (arithmetic coding, lossless) that is not looked into."""
    header, at = Header(), 2
    while at + 4 <= len(data):
        if data[at] != 0xFF or data[at + 1] == 0xFF:
            at += 1
            continue
        marker, (size,) = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])
        part, at = data[at + 4 : at + 2 + size], at + 2 + size
        if marker == 0xC2 or len(data) > LONGEST:
            return _decoded(data)
        if marker == 0xD9 or (marker in range(0xC3, 0xD0) and marker not in (0xC4, 0xC8, 0xCC)):
            return None
        if marker == 0xDA:
            end = found.start() if (found := SCAN_END.search(data, at)) else len(data)
            if problem := _scan(header, part, data[at:end]):
                return problem
            at = end
        else:
            _read(header, marker, part)
    return None


def _read(header: Header, marker: int, part: bytes) -> None:
    if marker in (0xC0, 0xC1):
        header.size = struct.unpack(">HH", part[1:5])
        header.sampling = {part[i]: (part[i + 1] >> 4, part[i + 1] & 15) for i in range(6, 6 + 3 * part[5], 3)}
    elif marker == 0xDD:
        (header.interval,) = struct.unpack(">H", part[:2])
    elif marker == 0xC4:
        while part:
            counts, kind = part[1:17], part[0]
            symbols, part = part[17 : 17 + sum(counts)], part[17 + sum(counts) :]
            header.tables[kind] = _table(counts, symbols, direct=kind < 16)


def _table(counts: bytes, symbols: bytes, direct: bool) -> tuple[list[int], list[int]]:
    """For the next 16 bits: how many of them and of the value's are used, and by how many coefficients that goes on."""
    bits, ahead = np.full(1 << 16, NO_CODE), np.zeros(1 << 16, int)
    at, coded = 0, iter(symbols)
    for length, count in enumerate(counts, 1):
        for symbol in (next(coded) for _ in range(count)):
            width = 1 << (16 - length)
            run, size = (0, symbol) if direct else divmod(symbol, 16)
            bits[at : at + width] = length + size
            ahead[at : at + width] = run + 1 if size or run == 15 else END_OF_BLOCK
            at += width
    return bits.tolist(), ahead.tolist()


def _scan(header: Header, part: bytes, coded: bytes) -> str | None:
    """What is wrong with one scan, whose own header is ``part``."""
    if 0 in header.size:  # the number of rows is told afterwards
        return None
    chosen = [(part[i], part[i + 1] >> 4, 16 + (part[i + 1] & 15)) for i in range(1, 1 + 2 * part[0], 2)]
    down, across = (max(s[axis] for s in header.sampling.values()) for axis in (1, 0))
    rows, cols = header.size
    if len(chosen) == 1:
        wide, high = header.sampling[chosen[0][0]]
        units = math.ceil(math.ceil(rows * high / down) / 8) * math.ceil(math.ceil(cols * wide / across) / 8)
        plan = chosen
    else:
        units = -(-rows // (8 * down)) * -(-cols // (8 * across))
        plan = [one for one in chosen for _ in range(header.sampling[one[0]][0] * header.sampling[one[0]][1])]
    blocks = [(header.tables[direct][0], *header.tables[other]) for _, direct, other in plan]
    parts = RESTART.split(coded)
    each = header.interval or units
    if len(parts) != -(-units // each):
        return f"its data have {len(parts)} parts, and the picture {-(-units // each)}"
    for place, piece in enumerate(parts):
        if problem := _walk(piece.replace(b"\xff\x00", b"\xff"), blocks, min(each, units - place * each)):
            return problem
    return None


def _walk(piece: bytes, blocks: list[tuple[list[int], list[int], list[int]]], units: int) -> str | None:
    """Go through the codes of ``units`` times ``blocks``: they must be there and use up the piece."""
    padded = np.frombuffer(piece + bytes(4), np.uint8).astype(np.int64)
    windows = (padded[:-3] << 24 | padded[1:-2] << 16 | padded[2:-1] << 8 | padded[3:]).tolist()
    at = 0
    try:
        for _ in range(units):
            for first, bits, ahead in blocks:
                at += first[windows[at >> 3] >> (16 - (at & 7)) & 0xFFFF]
                done = 1
                while done < 64:
                    following = windows[at >> 3] >> (16 - (at & 7)) & 0xFFFF
                    at += bits[following]
                    done += ahead[following]
                if 64 < done < END_OF_BLOCK:
                    return "its data hold a block of more than 64 numbers"
    except IndexError:
        at = NO_CODE
    if at > 8 * len(piece):
        return "its data end before the picture does, or hold what is no code"
    if set(piece[-(-at // 8) :]) - {0xFF}:  # which may fill up
        return f"its data go on for {len(piece) - at // 8} bytes after the picture"
    return None


def _decoded(data: bytes) -> str | None:
    """What FFmpeg says when it is told to pass over nothing: of long files, and of progressive ones, whose scans refine one
    another. It sees data that end early or hold what is no code, not data that go on."""
    try:
        with av.open(io.BytesIO(data), format="jpeg_pipe") as file:
            file.streams.video[0].codec_context.options = {"err_detect": "explode"}
            next(file.decode(video=0))
    except av.error.InvalidDataError:
        return "its data are no picture of its size"
    except (av.error.FFmpegError, StopIteration):  # a form that FFmpeg does not know
        return None
    return None
