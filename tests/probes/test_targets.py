"""What probes may be asked: the tasks say it, and names, order and values stay as they are."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cos_interp.probes import Clip, ProbeError
from cos_interp.probes.targets import known, resolve
from cos_interp.tasks import NAMES, get_task

# name: family, tasks, digest of the labels of three items of every task
EXPECTED = {
    "cell_class": ("perception", "maze occlusion bounce place", "91273c65"),
    "first_class": ("perception", "maze occlusion bounce place", "09f12c7a"),
    "first_colour": ("perception", "maze occlusion place", "96d7791e"),
    "first_shape": ("perception", "maze occlusion place", "4f5bd6e6"),
    "on_path": ("reasoning", "maze bounce place", "42e6e9ce"),
    "next_direction": ("reasoning", "maze", "98cb72e1"),
    "goal": ("reasoning", "maze", "cdd01cb7"),
    "hidden_identity": ("reasoning", "occlusion", "e111e17a"),
    "object": ("reasoning", "occlusion place", "888b9fee"),
    "return_place": ("reasoning", "occlusion", "c510f2f4"),
    "ball_position": ("reasoning", "bounce", "5f16f7e2"),
    "manner": ("reasoning", "bounce", "a4047649"),
    "object_position": ("reasoning", "place", "628b7782"),
    "final_position": ("consolidation", "bounce place", "7cf9adea"),
    "final_class": ("consolidation", "maze occlusion bounce place", "88b6764f"),
    "solved": ("consolidation", "maze occlusion bounce place", "1e241aec"),
    "final_latent": ("consolidation", "", "bb918147"),
}


def clip(item, video) -> Clip:
    run = SimpleNamespace(decode=lambda: [video], latents=torch.zeros(1, 4, 5, 5, 5))
    return Clip("clip", run, item, (5, 5, 5))


def digest(name: str) -> str:
    found = hashlib.sha256()
    for task in NAMES:
        for item in map(get_task(task).sample, range(3)):
            found.update(resolve([name])[0].read(clip(item, item.video)).tobytes())
    return found.hexdigest()[:8]


def test_the_targets_and_their_order():
    assert {name: (t.family, " ".join(t.tasks or ())) for name, t in known().items()} == {k: v[:2] for k, v in EXPECTED.items()}
    assert list(known()) == list(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_labels_stay_as_they_are(name):
    assert digest(name) == EXPECTED[name][2]


def test_a_run_without_a_right_answer_has_the_labels_of_the_first_frame_only():
    item = get_task("maze").sample(0, unique=False, difficulty=6)
    still = clip(item, np.repeat(item.video[:1], 9, 0))
    assert still.told is None and still.labels == {} and still.label("on_path") is None
    assert np.array_equal(still.label("first_class")[4], item.cells[0])
    other = get_task("maze").with_answer(item, item.answers[-1])
    assert np.array_equal(clip(item, other.video).label("on_path"), get_task("maze").labels(other)["on_path"])


def test_what_never_changes_is_not_consolidated():
    for task in NAMES:
        item = get_task(task).sample(0)
        read = resolve(["final_class"])[0].read(clip(item, item.video))
        first, last = item.cells[0], item.cells[-1]
        assert (read[:, first == last] == -1).all() and np.array_equal(read[0][first != last], last[first != last])
    still = np.repeat(item.video[:1], 9, 0)
    assert (resolve(["final_class"])[0].read(clip(item, still)) == -1).all()


def test_own_prompts_have_no_task():
    nothing = clip(None, np.zeros((9, 80, 80, 3), np.uint8))
    assert (resolve(["on_path"])[0].read(nothing) == -1).all()
    with pytest.raises(ProbeError, match="without a task"):
        _ = nothing.verdict
