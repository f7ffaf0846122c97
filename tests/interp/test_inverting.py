"""A video on the way of a model: backwards and forwards again, what falls with the steps, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cos_interp.interp import HookedVideoPipeline, InterpError, Inversion, invert
from cos_interp.interp.families import adapter_for, tiny
from cos_interp.interp.inverting import backwards
from cos_interp.interp.run.latents import canonical, native
from cos_interp.tasks import TASKS, grid

NO_FLOW = (
    "allegro",
    "cogvideox",
    "cogvideox-5b",
    "cogvideox-i2v",
    "cogvideox-v2v",
    "cogvideox-control",
    "consisid",
    "cosmos1",
    "cosmos1-v2w",
    "latte",
)
REFUSED = dict.fromkeys(NO_FLOW, "samples no flow") | {
    "ltx2": "its sound", "ltx2-i2v": "its sound", "ltx2-condition": "its sound",
    "framepack": "the frame of its picture is shown before those that it denoises",
    "hunyuan-i2v-concat": "its first latent frame is its picture's, and not shown",
    "wan-animate": "its first latent frame is its picture's, and not shown",
}  # fmt: skip
FLOWS = [name for name in tiny.TINY if name not in REFUSED]
WHOLE = {
    "wan2.1-v2v": {"strength": 1.0},
    "easyanimate-inpaint": {"strength": 1.0},
}  # else they begin from a video, in fewer steps


def made(model: HookedVideoPipeline, name: str) -> np.ndarray:
    """A video of the model's own."""
    return model.run(**{**tiny.call(name), "seed": 5, "num_inference_steps": 3}).decode()[0]


def call_of(name: str) -> dict:
    """Without a picture, which is the video's."""
    asked = {k: v for k, v in tiny.call(name).items() if k not in ("num_inference_steps", "image", "seed", "generator")}
    return asked | WHOLE.get(name, {})


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
    """Of a video of the model's own, so that its size is none of the reasons."""
    model = HookedVideoPipeline.from_pipeline(tiny.build(name))
    with pytest.raises(InterpError, match=REFUSED[name]):
        invert(model, made(model, name), **call_of(name))


@pytest.mark.parametrize("frames", [9, 13])
@pytest.mark.parametrize("name", ["framepack", "hunyuan-i2v-concat", "wan-animate"])
def test_a_video_of_as_many_frames_as_the_latents_hold_is_none_that_such_a_model_shows(name, frames):
    model = HookedVideoPipeline.from_pipeline(tiny.build(name))
    with pytest.raises(InterpError, match=f"cannot be made latents of its runs: {REFUSED[name]}"):
        invert(model, np.zeros((frames, 32, 32, 3), np.uint8), **call_of(name))


def test_a_video_of_another_size_is_refused(organism):
    with pytest.raises(InterpError, match=r"the video has latents .*, and .* denoises .* in this call: give a video of a size"):
        invert(organism, np.zeros((9, 80, 80, 3), np.uint8), prompt="roll the ball forward", num_frames=5)
    with pytest.raises(InterpError, match="refine=-1: give a whole number"):
        invert(organism, np.zeros((9, 80, 80, 3), np.uint8), -1, prompt="x")


def plainly(name: str, found: Inversion) -> tuple[float, float]:
    """The same noise in the pipeline alone: how far its first Euler step is from the second state, and its final latents from the
    video's, as shares of their norms. Of the instrument there is but the order of axes."""
    pipe, steps, dims = tiny.build(name), [], found.clean.shape[2:]
    layout = adapter_for(pipe.transformer).layout
    step, prepare = pipe.scheduler.step, pipe.prepare_latents
    apart = lambda latents, wanted: float((latents - wanted[:, :, -latents.shape[2] :]).norm() / wanted.norm())

    def prepared(*args, **kwargs):
        made = prepare(*args, **kwargs)
        latents, *rest = made if isinstance(made, tuple) else (made,)
        whole = canonical(latents, layout, dims).clone()
        whole[:, : found.noise.shape[1]] = found.noise
        return (native(whole, latents, layout), *rest) if isinstance(made, tuple) else native(whole, latents, layout)

    def stepped(output, t, sample, **kwargs):
        out, at = step(output, t, sample, **kwargs), pipe.scheduler.step_index - 1  # it counts on
        steps.append(canonical(sample + (pipe.scheduler.sigmas[at + 1] - pipe.scheduler.sigmas[at]) * output, layout, dims))
        return out

    pipe.scheduler.step, pipe.prepare_latents = stepped, prepared
    call = {key: value for key, value in found.call.items() if key != "seed"}
    out = pipe(**{"generator": torch.Generator().manual_seed(0)} | call, output_type="latent", return_dict=False)[0]
    given = (found.states[1] == found.states[0]).all(1, keepdim=True)[
        :, :, -steps[0].shape[2] :
    ]  # by the pipeline, whatever moves there
    first = torch.where(given, found.states[1][:, :, -steps[0].shape[2] :], steps[0])
    return apart(first, found.states[1]), apart(canonical(out, layout, dims), found.clean)


@pytest.mark.parametrize("name", FLOWS)
def test_every_flow_family_gets_better_with_steps_and_says_what_it_is_by_itself(name):
    model = HookedVideoPipeline.from_pipeline(tiny.build(name))
    video = made(model, name)
    few, many = (invert(model, video, 1, **{**call_of(name), "num_inference_steps": n}) for n in (2, 6))
    assert many.error < few.error and max(many.left) < max(few.left)
    for found in (few, many):
        assert plainly(name, found) == pytest.approx((found.left[0], found.error), abs=2e-6)


def test_the_video_of_a_call_is_not_replaced_by_a_picture():
    """Cosmos 2.5 continues either; a picture of the clip's first frame would have come before the video that was given."""
    model = HookedVideoPipeline.from_pipeline(tiny.build("cosmos2.5-v2w"))
    found = invert(model, made(model, "cosmos2.5-v2w"), 0, **{**call_of("cosmos2.5-v2w"), "num_inference_steps": 2})
    assert "image" not in found.call and found.call["video"] is not None
