"""A video on the way of a model: backwards and forwards again, what falls with the steps, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cos_interp.interp import HookedVideoPipeline, InterpError, invert
from cos_interp.interp.families import tiny
from cos_interp.interp.inverting import backwards
from cos_interp.tasks import TASKS, grid

REFUSED = {"cogvideox": "samples no flow", "cosmos1": "samples no flow", "latte": "samples no flow", "ltx2": "its sound"}


def made(model: HookedVideoPipeline, name: str) -> np.ndarray:
    """A video of the model's own, and the keywords with which it was made."""
    return model.run(**{**tiny.call(name), "seed": 5, "num_inference_steps": 3}).decode()[0]


def call_of(name: str) -> dict:
    return {k: v for k, v in tiny.call(name).items() if k not in ("num_inference_steps", "image", "seed", "generator")}


def test_the_fixed_point_is_the_state_that_leads_there():
    x = torch.randn(4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = 0.3 * torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    by = 0.4
    exact = torch.linalg.solve(torch.eye(4, dtype=torch.float64) - by * matrix, x)
    apart = []
    for refine in (0, 2, 30):
        found, left = backwards(lambda state: matrix @ state, x, by, refine)
        apart.append(float((found - exact).norm()))
        assert left == pytest.approx(float((found - by * matrix @ found - x).norm() / x.norm()))
    assert apart[0] > apart[1] > apart[2] and apart[2] < 1e-12


def test_the_round_trip_of_a_real_clip_gets_better_with_steps(organism):
    item = TASKS["bounce"].sample(3, split="test")
    video = grid.render(item.cells)
    found = [invert(organism, video, prompt=item.prompt, num_inference_steps=n) for n in (2, 6)]
    assert found[1].error < found[0].error < 0.1 and len(found[1].states) == 6
    plain = invert(organism, video, 0, prompt=item.prompt, num_inference_steps=6)
    assert found[1].error < plain.error
    assert 0.7 < float(found[1].noise.std()) < 1.3
    back = organism.decode(found[1].run.latents)[0]
    assert TASKS["bounce"].verify(item, back).solved


def test_activations_on_the_way_are_those_of_the_states(organism):
    item = TASKS["maze"].sample(1, split="test")
    found = invert(organism, grid.render(item.cells), 0, prompt=item.prompt, num_inference_steps=3)
    name = "blocks.2.hook_resid_post"
    with organism.hooks(found.hooks()):
        run, cache = organism.run_with_cache(names=[name], **found.call)
    for step, state in enumerate(found.states):
        assert torch.equal(run.x_t[step], state)
    plain = organism.run_with_hooks(fwd_hooks=found.hooks(slice(0, 1)), **found.call)
    assert torch.equal(plain.latents, found.run.latents) and (name, 2, "cond") in cache


def test_the_states_lead_to_each_other_by_the_models_own_step():
    """Computed with the pipeline's own scheduler, step by step: what the run gives as next state."""
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    found = invert(model, made(model, "wan2.1"), 20, **{**call_of("wan2.1"), "num_inference_steps": 8})
    for step, state in enumerate(found.states[:-1]):
        run = model.run_with_hooks(fwd_hooks=[(f"hook_x_t @ step={step}", lambda x_t, hook, state=state: state)], **found.call)
        wanted = found.states[step + 1]
        assert float((run.x_t[step + 1] - wanted).norm() / wanted.norm()) == pytest.approx(found.left[step], abs=2e-6)
    assert max(found.left) < 1e-3


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_why(name):
    model = HookedVideoPipeline.from_pipeline(tiny.build(name))
    video = np.zeros((9, 32, 32, 3), np.uint8)
    with pytest.raises(InterpError, match=REFUSED[name]):
        invert(model, video, **call_of(name))


def test_a_video_of_another_size_is_refused(organism):
    with pytest.raises(InterpError, match=r"the video has latents .*, and .* denoises .* in this call: give a video of a size"):
        invert(organism, np.zeros((9, 80, 80, 3), np.uint8), prompt="roll the ball forward", num_frames=5)
    with pytest.raises(InterpError, match="refine=-1: give a whole number"):
        invert(organism, np.zeros((9, 80, 80, 3), np.uint8), -1, prompt="x")


FLOWS = (
    "cosmos2-v2w", "easyanimate", "hunyuan", "hunyuan-i2v", "hunyuan1.5-i2v", "kandinsky5", "kandinsky5-i2v", "ltx", "ltx-i2v",
    "mochi", "motif-i2v", "sana-video", "wan2.1", "wan2.2", "wan2.2-i2v", "wan2.2-ti2v-5b", "wan-vace", "skyreels-v2-i2v",
    "chronoedit",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOWS)
def test_every_flow_family_gets_better_with_steps(name):
    model = HookedVideoPipeline.from_pipeline(tiny.build(name))
    video = made(model, name)
    errors = [invert(model, video, 2, **{**call_of(name), "num_inference_steps": n}).error for n in (2, 8)]
    assert errors[1] < errors[0]
