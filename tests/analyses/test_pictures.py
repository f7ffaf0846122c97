"""The story of the steps on videos of one frame: found where it was planted, and not where the picture is there at step 0."""

from __future__ import annotations

import json

import pytest
import torch

from cos_interp.analyses.chain_of_steps import ChainOfStepsConfig
from cos_interp.analyses.driver.experiment import run_and_report
from cos_interp.analyses.driver.registry import load
from cos_interp.interp import HookedVideoPipeline, InterpError

JUDGE = """
def judge(video, case):
    return {"status": "solved" if abs(video.astype(float).mean() - case.expected["shade"]) < case.expected["within"] else "wrong"}
"""


def turning(at: float) -> tuple[HookedVideoPipeline, tuple[float, float]]:
    """A tiny pipeline whose clean estimate is one picture above a noise level and another one below it; the shades of both."""
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    model.defaults |= {"num_frames": 1}
    first, last = -torch.ones(()), torch.ones(())

    def flow(module, args, kwargs, out):
        sigma, x = float(kwargs["timestep"].flatten()[0]) / 1000, kwargs["hidden_states"]
        return ((x - (first if sigma > at else last)) / sigma,)

    model.pipe.transformer.register_forward_hook(flow, with_kwargs=True)
    latents = model.run(prompt="", seed=0, num_inference_steps=2, guidance_scale=1.0).latents
    assert latents.shape[2] == 1
    early, late = (float(model.decode(torch.full_like(latents, float(one))).mean()) for one in (first, last))
    return model, (early, late)


def pictures(folder, model, shades: tuple[float, float]):
    (folder / "judge.py").write_text(JUDGE)
    told = {"shade": shades[1], "within": abs(shades[0] - shades[1]) / 3}
    lines = [{"prompt": f"a ball {n}", "seed": n, "expected": told} for n in range(30)]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    config = ChainOfStepsConfig(
        prompts=str(folder / "prompts.jsonl"), scorer=f"{folder}/judge.py:judge", num_inference_steps=3, num_frames=1
    )
    return run_and_report(load("chain-of-steps"), config, folder / "run", model=model, workers=1)


def test_a_picture_that_forms_along_the_steps_is_found_to(tmp_path):
    at = 0.6
    result, report = pictures(tmp_path, *turning(at))
    found = {f["key"]: f for f in report.data["findings"]}
    rise = found["chain-of-steps.rise"]
    assert rise["verdict"] == "reproduced" and rise["number"]["value"] == 1.0 and rise["number"]["n"] == 30
    assert ((result.rows.status == "solved") == (result.rows.sigma <= at)).all()
    frames = found["chain-of-steps.frames"]
    assert frames["verdict"] == "not testable" and "a picture has one frame" in frames["why"]


def test_a_picture_that_is_there_at_step_0_does_not_form(tmp_path):
    result, report = pictures(tmp_path, *turning(2.0))
    assert (result.rows.status == "solved").all()
    found = {f["key"]: f for f in report.data["findings"]}
    assert found["chain-of-steps.rise"]["verdict"] == "refuted" and found["chain-of-steps.rise"]["number"]["value"] == 0.0
    assert found["chain-of-steps.timing-steps"]["verdict"] == "not testable"


@pytest.mark.parametrize("frames", [1, 13])
def test_the_tasks_items_in_videos_of_other_lengths_are_refused_before_a_run(frames, organism, monkeypatch):
    monkeypatch.setitem(organism.defaults, "num_frames", frames)
    with pytest.raises(
        InterpError, match=f"makes {frames} frames, and the tasks are videos of 9 frames: give --num-frames 9, --prompts"
    ):
        load("chain-of-steps").check(ChainOfStepsConfig(num_frames=frames), organism)
