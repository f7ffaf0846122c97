"""What is drawn into clips of what the verifier reads in them."""

from __future__ import annotations

import numpy as np
import pytest

from cos_interp.analyses.attention import AttentionConfig
from cos_interp.analyses.driver.reading import read_cells, reads_cells
from cos_interp.analyses.patching import PatchingConfig
from cos_interp.analyses.plausibility import PlausibilityConfig
from cos_interp.tasks import get_task, grid


def test_marks_are_what_was_not_there_at_first_and_what_cannot_be_read():
    cells = np.zeros((9, grid.ROWS, grid.COLS), int)
    cells[:, 4, 4] = grid.WALL
    cells[0, 0, 0], cells[1:, 0, 0], cells[1:, 0, 1] = grid.AGENT, grid.TRAIL, grid.AGENT
    clip = grid.render(cells)
    clip[8, 16:32, :16] = clip[8, :16, :16] // 2 + clip[8, 64:, 64:] // 2  # half a trail, half a wall
    found = read_cells(np.stack([clip, grid.render(cells[:1].repeat(9, 0))]), (0, 1, 8))
    assert found is not None and (found["wide"], found["tall"]) == (grid.COLS, grid.ROWS)
    here, there = ([list(frame) for frame in clip] for clip in found["marks"])
    trail, agent = here[1][:2]
    assert found["words"] == [["nothing new", "trail 1, agent 1", "trail 1, agent 1, cannot be read 1"], ["nothing new"] * 3]
    assert here[0] == ["."] * 25 and len({trail, agent, ".", "?"}) == 4 and here[1][2:] == ["."] * 23
    assert here[2][:6] == [trail, agent, ".", ".", ".", "?"] and here[2][6:] == ["."] * 19
    assert there == [["."] * 25] * 3


@pytest.mark.parametrize("name", ["maze", "occlusion", "bounce", "place"])
def test_a_true_video_has_marks_and_none_that_cannot_be_read(name):
    item = get_task(name).sample(3)
    found = read_cells(grid.render(item.cells)[None], tuple(range(9)))
    assert found is not None and "?" not in "".join(found["marks"][0]) and found["marks"][0][0] == "." * 25
    moved = (item.cells != item.cells[:1]) & (item.cells != grid.FLOOR)
    assert [[mark != "." for mark in frame] for frame in found["marks"][0]] == moved.reshape(9, -1).tolist()


def test_clips_of_another_size_have_none():
    assert read_cells(np.zeros((1, 9, 48, 83, 3), np.uint8), (0,)) is None


def test_only_videos_of_the_tasks_are_read():
    assert reads_cells(AttentionConfig()) and reads_cells(PatchingConfig(task="place"))
    assert not reads_cells(AttentionConfig(prompts="my.jsonl")) and not reads_cells(PatchingConfig(pair_file="pairs.jsonl"))
    assert not reads_cells(PlausibilityConfig(clips="clips"))
