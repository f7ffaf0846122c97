"""What a run shows in a notebook is what its steps decode to; a large one is not decoded unasked."""

from __future__ import annotations

import base64
import io
import pickle
import re
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from support import hooked_tiny, tiny_call

from cos_interp.interp import notebook


def pictures(text: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]*)"', text)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


def test_the_frames_are_those_of_the_steps_and_of_the_video():
    run = hooked_tiny().run(**tiny_call("wan21-t2v"), seed=0)
    text = run._repr_html_()
    shown = pictures(text)
    assert len(shown) == run.steps + 1 == 5  # as few steps as all are shown
    for step, picture in zip([*range(run.steps), None], shown, strict=True):
        assert np.array_equal(picture, np.concatenate(list(run.decode(step)[0]), axis=1))
    assert all(f"<td>{sigma:.3f}</td>" in text for sigma in run.sigmas) and "<script" not in text


def test_a_large_run_and_one_without_a_model_are_not_decoded():
    run = hooked_tiny().run(**tiny_call("wan21-t2v"), seed=0)
    asked = []
    large = replace(run, latents=torch.zeros(notebook.SMALL + 1), decoder=lambda latents, kind: asked.append(kind))
    copied = pickle.loads(pickle.dumps(run))  # without its model
    for one in (large, copied):
        text = one._repr_html_()
        assert not pictures(text) and text.count("<tr>") == 1 + run.steps
    assert not asked


def test_a_strip_is_bounded():
    wide = pictures(f'src="{notebook.strip(np.zeros((50, 480, 832, 3), np.uint8))}"')[0]
    assert wide.shape[1] <= notebook.WIDTH
