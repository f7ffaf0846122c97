"""Several videos of one prompt: the pipeline's own, bit for bit; where it makes fewer, or fails, each is the one alone."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from cos_interp.interp import HookedVideoPipeline, InterpError
from cos_interp.interp.families import tiny

TAKES = [name for name in tiny.TINY if "num_videos_per_prompt" in inspect.signature(type(tiny.build(name)).__call__).parameters]
FORM = {"output_type": "latent", "return_dict": False}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents_of(ask: Any, **call: Any) -> Tensor:
    """Final latents of a call, which FramePack gives as a list of its one section."""
    found = ask(**call, **FORM)[0]
    return found[0] if isinstance(found, list) else found


def theirs(pipe: Any, **call: Any) -> Tensor | None:
    """Final latents of the pipeline itself; None where it fails."""
    try:
        return latents_of(pipe, **call)
    except Exception:
        return None


@pytest.mark.parametrize("name", TAKES)
def test_videos_of_one_prompt_are_the_pipelines_own_or_each_the_one_alone(name):
    pipe, call = tiny.build(name), tiny.call(name, steps=2)
    model = HookedVideoPipeline.from_pipeline(tiny.build(name))
    several = call | {"num_videos_per_prompt": 2}
    for draw in (lambda: seeded(3), lambda: [seeded(3), seeded(4)]):
        own = theirs(pipe, **several, generator=draw())
        if model.one_row:
            with pytest.raises(InterpError, match="make a run for each"):
                model(**several, generator=draw(), **FORM)
        elif own is not None and len(own) == 2:
            before = torch.get_rng_state()
            assert torch.equal(latents_of(model, **several, generator=draw()), own)
            assert torch.equal(torch.get_rng_state(), before)
        elif isinstance(draw(), list):
            both = model.run(**several, generator=draw()).latents
            for row, seed in enumerate((3, 4)):
                alone = model.run(**call, seed=seed).latents
                torch.testing.assert_close(both[row : row + 1], alone, atol=2e-5, rtol=1e-4)
        else:
            of_one_generator(pipe, model, call, several)


def of_one_generator(pipe: Any, model: HookedVideoPipeline, call: dict[str, Any], several: dict[str, Any]) -> None:
    """A pipeline whose own keyword does not make the videos: the batch of a list of prompts, or words that say what to give."""
    listed = {key: [call[key]] * 2 for key in ("prompt", "negative_prompt", "image") if call.get(key) is not None}
    own = theirs(pipe, **call | listed, generator=seeded(3)) if "prompt" in listed else None  # others are encoded already
    if own is None or len(own) < 2:
        with pytest.raises(InterpError, match=r"2 videos in one run from one generator: give seed=\[...\]"):
            model(**several, generator=seeded(3), **FORM)
    else:
        assert torch.equal(latents_of(model, **several, generator=seeded(3)), own)


@pytest.mark.parametrize("name", ["ltx-i2v", "cosmos2-v2w", "cogvideox-i2v", "wan2.2-i2v"])
def test_two_videos_of_each_of_two_prompts_with_pictures(name):
    """Four rows, in the order of the pipelines: both of the first prompt, then both of the second."""
    model, call = HookedVideoPipeline.from_pipeline(tiny.build(name)), tiny.call(name, steps=2)
    prompts, pictures = [call["prompt"], "roll the ball"], [call["image"], call["image"].rotate(90)]
    lists = {"prompt": prompts, "image": pictures, "negative_prompt": [call["negative_prompt"]] * 2}
    found = model.run(**call | lists, num_videos_per_prompt=2, seed=[5, 6, 7, 8]).latents
    for row in range(4):
        alone = call | {"prompt": prompts[row // 2], "image": pictures[row // 2]}
        torch.testing.assert_close(found[row : row + 1], model.run(**alone, seed=5 + row).latents, atol=2e-5, rtol=1e-4)


def test_a_first_step_that_is_tried_is_no_run_to_hooks_and_to_noise():
    model, call = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1")), tiny.call("wan2.1", steps=2)
    seen: list[int] = []
    hook = ("blocks.0.hook_resid_post @ branch=cond", lambda act, hook: seen.append(hook.step))
    pipe = tiny.build("wan2.1")
    torch.manual_seed(1)
    tried = model.run_with_hooks(fwd_hooks=[hook], **call, num_videos_per_prompt=2).latents
    assert seen == [0, 1]
    torch.manual_seed(1)
    assert torch.equal(tried, pipe(**call, num_videos_per_prompt=2, **FORM)[0])
