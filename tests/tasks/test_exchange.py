"""Videos exchanged with other programs: exports that are whole or not there, and what cannot be read is named."""

from __future__ import annotations

import errno
import itertools
import os
import random

import av
import numpy as np
import pytest
from faults import at_change, in_a_child, refuse
from typer.testing import CliRunner

from cos_interp.cli import app
from cos_interp.interp.files import is_leftover
from cos_interp.interp.terminal import Failure, check_writable, refuse_other_content, write_file
from cos_interp.tasks import TASKS, suite, vbvr
from cos_interp.tasks.video import encode_mp4, played_at, read_mp4

CHOSEN = [TASKS["maze"].sample(seed, split="test") for seed in range(2)]
OF_ONE = ("first_frame.png", "final_frame.png", "ground_truth.mp4", "prompt.txt", "metadata.json")
WHOLE = sorted([f"mini/maze/0000{n}/{name}" for n in range(2) for name in OF_ONE] + ["metadata.jsonl"])


def shown(folder):
    """What a user finds in a folder: all files but what a killed write left behind."""
    files = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return sorted(p.as_posix() for p in files if not any(is_leftover(folder / part) for part in p.parts))


def export(folder):
    refuse_other_content(folder)  # as the command does
    vbvr.export(folder, CHOSEN, "mini")


@pytest.mark.parametrize("act", [None, refuse(errno.ENOSPC)], ids=["killed", "disk full"])
def test_an_export_is_whole_or_not_there(tmp_path, act):
    export(tmp_path / "whole")
    assert shown(tmp_path / "whole") == WHOLE
    ended = []
    for number in itertools.count(1):
        folder = tmp_path / f"at{number}"

        def work(folder=folder, number=number):
            at_change(number, folder, *([act] if act else []))
            export(folder)

        if in_a_child(work) == 0:
            break
        if shown(folder) not in ([], [name for name in WHOLE if name != "metadata.jsonl"], WHOLE):
            ended.append(shown(folder))
        if shown(folder) == []:
            export(folder)
            assert shown(folder) == WHOLE and {p.name for p in folder.iterdir()} == {"mini", "metadata.jsonl"}
        else:  # all items are there, and are not written over
            with pytest.raises(Failure, match=r"holds (mini|metadata.jsonl), which would be written over"):
                export(folder)
    assert not ended and number > 14 and shown(folder) == WHOLE


def test_an_export_never_replaces_a_split_that_is_there(tmp_path):
    vbvr.export(tmp_path, CHOSEN, "mini")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(FileExistsError, match=r"metadata\.jsonl is there already"):
        vbvr.export(tmp_path, CHOSEN[::-1], "other")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_what_cannot_be_read_is_named_in_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "task_items", lambda task: tuple(TASKS[task].sample(seed, split="test") for seed in range(6)))
    items = suite.task_items("maze")
    folder = tmp_path / "cos-500" / "maze"
    folder.mkdir(parents=True)
    whole = encode_mp4(items[0].video)
    for name, data in (("00000", whole), ("00001", whole[:-200]), ("00002", b"text"), ("00003", b"text, too")):
        (folder / f"{name}.mp4").write_bytes(data)
    (folder / "00004.mp4").write_bytes(encode_mp4(items[0].video[:5]))
    os.mkfifo(folder / "00005.mp4")
    said = CliRunner().invoke(app, ["tasks", "score", str(tmp_path), "--task", "maze"], catch_exceptions=False).output
    lines = [line for line in said.splitlines() if line.startswith("not read: ")]
    assert sum("and 1 more" in line and "00002.mp4" in line for line in lines) <= 1
    named = " ".join(lines)
    assert "shape (5, 160, 160, 3)" in named and "00005.mp4: is no regular file" in named and "no readable video" in named
    counted = sum(1 + int((line.partition(" and ")[2].split() or ["0"])[0]) if " more: " in line else 1 for line in lines)
    assert counted == 5 and "00000" not in named  # all but the one that is whole


def test_a_damaged_video_is_refused_rather_than_painted_over(tmp_path):
    """FFmpeg conceals damage by default, and names few flips that change what is seen."""
    whole = encode_mp4(CHOSEN[0].video)
    (tmp_path / "whole.mp4").write_bytes(whole)
    frames, draw = read_mp4(tmp_path / "whole.mp4"), random.Random(0)
    found = {"named": 0, "seen by nobody": 0}
    for _ in range(150):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        (tmp_path / "flipped.mp4").write_bytes(flipped)
        try:
            read = read_mp4(tmp_path / "flipped.mp4")
        except ValueError:
            found["named"] += 1
        else:
            found["seen by nobody"] += read.shape == frames.shape and not np.array_equal(read, frames)
    assert found["named"] > 3 * found["seen by nobody"] > 0


def test_a_file_that_was_asked_for_is_written_whole_and_the_place_is_named(tmp_path):
    write_file(tmp_path / "new" / "a.mp4", b"one")
    for place, said in (
        (tmp_path, "it is a folder"),
        (tmp_path / "new" / "a.mp4" / "b.mp4", r"cannot write .*b\.mp4: .*a\.mp4 is a file"),
    ):
        with pytest.raises(Failure, match=said):
            write_file(place, b"two")
    with pytest.raises(Failure, match=r"a\.mp4 is a file: give a folder"):
        refuse_other_content(tmp_path / "new" / "a.mp4")

    check_writable(tmp_path / "new" / "a.mp4", is_file=True)
    check_writable(tmp_path / "not" / "yet" / "there")
    (tmp_path / "closed").mkdir(mode=0o500)

    def as_nobody():
        if os.getuid() == 0:
            os.chmod(tmp_path, 0o755)
            os.setuid(65534)
        with pytest.raises(Failure, match=r"cannot write .*x\.mp4: "):
            check_writable(tmp_path / "closed" / "new" / "x.mp4", is_file=True)

    assert in_a_child(as_nobody) == 0

    def full():
        at_change(2, tmp_path / "new", refuse(errno.ENOSPC))  # at the rename
        write_file(tmp_path / "new" / "a.mp4", b"two")

    assert in_a_child(full) != 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "new").iterdir()} == {"a.mp4": b"one"}


@pytest.mark.parametrize(("frames", "size", "rate", "shown", "height"), [
    (81, 256, 16, 16, 256), (9, 80, 16, 4, 160), (9, 80, None, 4, 160), (49, 80, None, 8, 160), (3, 255, 24, 2, 510),
])  # fmt: skip
def test_a_video_is_played_as_its_model_makes_it_but_never_within_two_seconds(frames, size, rate, shown, height, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(encode_mp4(np.zeros((frames, size, size, 3), np.uint8), played_at(frames, rate)))
    with av.open(str(path)) as held:
        stream = held.streams.video[0]
        assert (stream.average_rate, stream.frames, stream.height) == (shown, frames, height)
