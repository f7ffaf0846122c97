"""Batches and calls: every row is the video that it is alone, and the pipeline stays as it was."""

from __future__ import annotations

from importlib import import_module

import nnsight
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UniPCMultistepScheduler
from PIL import Image

from cos_interp.interp import HookedVideoPipeline, InterpError, record, tiny
from cos_interp.interp.batch import joined
from cos_interp.interp.run.clock import StepClock

RANDOM = np.random.default_rng(0)


def picture(size) -> Image.Image:
    return Image.fromarray(RANDOM.integers(0, 256, (size["height"], size["width"], 3), np.uint8))


def model_and_call(name: str):
    call = {k: v for k, v in tiny.call(name).items() if k not in ("prompt", "image", "last_image", "seed", "generator")}
    return HookedVideoPipeline.from_pipeline(tiny.build(name)), call | {"num_inference_steps": 2}


@pytest.mark.parametrize(
    "change",
    [lambda pipe: [old.mul_(0) for old in pipe.scheduler.model_outputs if old is not None],
     lambda pipe: pipe.transformer.blocks[0].ffn.net[0].proj.weight.data.add_(1)],
    ids=["the scheduler's memory", "a weight"],
)  # fmt: skip
def test_a_callback_that_changes_what_the_loop_goes_on_with_is_refused(change):
    model, call = model_and_call("wan2.2")
    model.pipe.scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    model = HookedVideoPipeline.from_pipeline(model.pipe)
    looked: list[int] = []
    call = call | {"prompt": "a", "seed": 0, "num_inference_steps": 4}
    model.run(**call, callback_on_step_end=lambda pipe, step, t, given: looked.append(step) or {})
    assert looked == [0, 1, 2, 3]

    def changing(pipe, step, timestep, given):
        change(pipe)

    with pytest.raises(InterpError, match="callback_on_step_end changed"):
        model.run(**call, callback_on_step_end=changing)


@pytest.mark.parametrize("name", ["cogvideox", "allegro", "wan2.1-v2v", "wan2.1-i2v", "ltx-i2v", "cosmos2-v2w", "sana-video-i2v"])
def test_several_videos_a_prompt_are_each_the_one_alone(name):
    """Whatever the pipeline itself does with the keyword: some leave it out, some forget to repeat the picture."""
    model = HookedVideoPipeline.from_pretrained(f"tiny:{name}")
    call = tiny.call(name) | {"num_inference_steps": 2}
    both = model.run(**call, num_videos_per_prompt=2, seed=[3, 4]).latents
    for row, seed in enumerate((3, 4)):
        torch.testing.assert_close(both[row : row + 1], model.run(**call, seed=seed).latents, atol=2e-4, rtol=2e-4)


def test_own_latents_are_not_written_into():
    model = HookedVideoPipeline.from_pretrained("tiny:kandinsky5")
    own = torch.randn_like(model.run(**tiny.call("kandinsky5"), seed=0).prepared[0])
    before = own.clone()
    model.run(**tiny.call("kandinsky5"), latents=own)
    assert torch.equal(own, before)


# Wan 2.1's tiny pipeline takes no last picture, which needs place embeddings of its own
@pytest.mark.parametrize(
    ("name", "last"),
    [("wan2.1-i2v", False), ("wan2.2-i2v", False), ("wan2.2-i2v", True), ("wan2.2-ti2v-5b", False)]
    + [(name, False) for name in ("cogvideox-i2v", "consisid", "cosmos2-v2w", "hunyuan-skyreels-i2v", "ltx-i2v", "ltx2-i2v")],
)
def test_each_row_of_a_batch_of_pictures_is_the_row_alone(name, last):
    model, call = model_and_call(name)
    images, lasts = ([picture(call) for _ in range(2)] for _ in range(2))
    beside = {"last_image": lasts} if last else {}
    batch = model.run(prompt=["a", "b"], image=images, seed=[0, 1], **beside, **call)
    for row, prompt in enumerate("ab"):
        given = {"prompt": prompt, "image": images[row]} | ({"last_image": lasts[row]} if last else {}) | call
        alone = model.run(seed=row, **given)
        own = model.pipe(generator=torch.Generator().manual_seed(row), output_type="latent", **given).frames
        if name.startswith("wan"):  # others pack their latents, turn the axes, or scale what they return
            assert torch.equal(alone.latents, own)
        torch.testing.assert_close(
            batch.latents[row : row + 1], alone.latents, atol=2e-5, rtol=1e-4
        )  # other kernels for two rows


def test_calls_of_single_videos_become_one_of_a_batch():
    calls = [{"prompt": "a", "image": 1, "seed": 5, "height": 8}, {"prompt": "b", "image": 2, "seed": 6, "height": 8}]
    assert joined(calls) == {"prompt": ["a", "b"], "image": [1, 2], "seed": [5, 6], "height": 8}


def test_the_step_clock_tells_the_forwards_of_a_step_apart():
    """A pipeline that does not say which branch it runs: two forwards in turn, or one of twice the rows."""
    clock = StepClock(None, ("uncond", "cond"), ("cond", "uncond"))
    clock.rows = 2
    in_turn = [call for _ in range(2) for call in clock.forward("transformer", 2)]
    with pytest.raises(InterpError, match="step 0 calls its transformer more than twice"):
        clock.forward("transformer", 2)
    clock.stepped()
    doubled = clock.forward("transformer", 4)
    said = [(call.index, call.forward, call.step, call.branch) for call in (*in_turn, *doubled)]
    assert said == [(0, 0, 0, "cond"), (1, 1, 0, "uncond"), (2, 2, 1, "uncond"), (3, 2, 1, "cond")]
    with pytest.raises(InterpError, match=r"with 3 rows for 2 video"):
        clock.forward("transformer", 3)


def test_one_last_picture_is_that_of_every_row():
    model, call = model_and_call("wan2.2-i2v")
    images, end = [picture(call) for _ in range(2)], picture(call)
    batch = model.run(prompt=["a", "b"], image=images, last_image=end, seed=[0, 1], **call)
    alone = model.run(prompt="b", image=images[1], last_image=end, seed=1, **call)
    torch.testing.assert_close(batch.latents[1:], alone.latents, atol=2e-5, rtol=1e-4)


def test_a_list_of_one_picture_is_that_picture_and_other_numbers_are_named():
    model, call = model_and_call("wan2.1-i2v")
    image = picture(call)
    alone = model.run(prompt="a", image=image, seed=0, **call).latents
    assert torch.equal(model.run(prompt="a", image=[image], seed=0, **call).latents, alone)
    assert torch.equal(model.run(prompt=["a"], image=[image], seed=[0], **call).latents, alone)
    with pytest.raises(InterpError, match="image: 2 pictures for 1 prompt"):
        model.run(prompt="a", image=[image, image], seed=0, **call)
    with pytest.raises(InterpError, match=r"1 seed\(s\) for 2 video"):
        model.run(prompt=["a", "b"], image=[image, image], seed=0, **call)


@pytest.mark.parametrize("name", ["wan2.1", "ltx"])
def test_several_videos_of_one_prompt_have_a_seed_each(name):
    model, call = model_and_call(name)
    both = model.run(prompt="a", num_videos_per_prompt=2, seed=[3, 4], **call).latents
    for row, seed in enumerate((3, 4)):
        torch.testing.assert_close(both[row : row + 1], model.run(prompt="a", seed=seed, **call).latents, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["wan2.2", "wan2.2-vace"])
@pytest.mark.parametrize(("missing", "boundary"), [("transformer", 1.5), ("transformer_2", 0.0)])
def test_one_expert_alone(name, missing, boundary):
    pipe = tiny.build(name)
    setattr(pipe, missing, None)
    call = {k: v for k, v in tiny.call(name).items() if k not in ("prompt", "seed")} | {"num_inference_steps": 2}
    pipe.register_to_config(boundary_ratio=boundary)  # every step belongs to the other one
    model = HookedVideoPipeline.from_pipeline(pipe)
    run, cache = model.run_with_cache(names="blocks.0.hook_resid_post", prompt="a", seed=0, **call)
    assert {c.expert for c in run.calls} == {"transformer", "transformer_2"} - {missing} and len(cache) > 0
    own = pipe(prompt="a", generator=torch.Generator().manual_seed(0), output_type="latent", **call).frames
    assert torch.equal(run.latents, own)


@pytest.mark.parametrize("name", ["wan2.1", "wan2.2", "ltx", "cogvideox", "hunyuan"])
def test_a_seed_and_a_generator_are_one_too_many(name):
    model, call = model_and_call(name)
    with pytest.raises(InterpError, match="seed and generator were both given"):
        model.run(prompt="a", seed=0, generator=torch.Generator(), **call)


def test_a_callback_may_read_and_not_touch():
    model, call = model_and_call("wan2.1")
    seen = []
    plain = model.run(prompt="a", seed=0, **call)
    read = model.run(
        prompt="a", seed=0, callback_on_step_end=lambda pipe, step, t, tensors: seen.append(tensors["latents"]), **call
    )
    assert torch.equal(read.latents, plain.latents) and len(seen) == 2 and torch.equal(seen[-1], plain.latents)

    def in_place(pipe, step, timestep, tensors):
        tensors["latents"].zero_()

    for touch in (lambda pipe, step, timestep, tensors: {"latents": tensors["latents"] * 2}, in_place):
        with pytest.raises(InterpError, match="callback_on_step_end changed latents at step 0: edit it by a hook"):
            model.run(prompt="a", seed=0, callback_on_step_end=touch, **call)


def interrupt(pipe, step, timestep, tensors):
    pipe._interrupt = True


def unguided(pipe, step, timestep, tensors):
    pipe._guidance_scale = 1.0


def later(pipe, step, timestep, tensors):
    pipe.scheduler.sigmas[-1] += 0.1


@pytest.mark.parametrize(
    ("callback", "message"),
    [(interrupt, r"changed pipe\._interrupt"), (unguided, r"changed pipe\._guidance_scale"),
     (later, r"changed pipe\.scheduler\.sigmas"), (lambda *given: {"prompt_embeds": torch.zeros(1)}, "changed prompt_embeds"),
     (lambda *given: [1], "returned list"), ("x", "is str")],
)  # fmt: skip
def test_a_callback_may_not_touch_the_pipeline_either(callback, message):
    model, call = model_and_call("wan2.1")
    plain = model.run(prompt="a", seed=0, **call).latents
    with pytest.raises(InterpError, match=message):
        model.run(prompt="a", seed=0, callback_on_step_end=callback, **call)
    model.pipe._interrupt = False
    assert torch.equal(model.run(prompt="a", seed=0, **call).latents, plain)


@pytest.mark.parametrize("name", ["wan2.1", "ltx", "cogvideox"])
def test_frames_are_what_the_pipeline_returns_with_an_output_type(name):
    model, call = model_and_call(name)
    plain = model.run(prompt="a", seed=0, **call)
    for output_type in ("np", "pt", "pil", "latent"):
        run = model.run(prompt="a", seed=0, output_type=output_type, return_dict=False, **call)
        own = model.pipe(prompt="a", generator=torch.Generator().manual_seed(0), output_type=output_type, **call).frames
        assert torch.equal(run.latents, plain.latents) and type(run.frames) is type(own)
        if output_type == "pil":
            assert [[np.asarray(p).tobytes() for p in v] for v in run.frames] == [
                [np.asarray(p).tobytes() for p in v] for v in own
            ]
        elif output_type != "latent":
            assert np.array_equal(np.asarray(run.frames), np.asarray(own))
    assert np.array_equal(plain.frames, model.run(prompt="a", seed=0, output_type="np", **call).frames)


def returns(module, given, out):
    return out * 2


def writes(module, given, out):
    out.mul_(2)


def writes_past_the_count(module, given, out):
    out.data.mul_(2)


@pytest.mark.parametrize("how", [returns, writes, writes_past_the_count])
def test_a_forward_hook_of_the_users_may_read_and_not_change_where_activations_are_read(how):
    model, call = model_and_call("wan2.1")
    block, seen = model.pipe.transformer.blocks[0], []
    ask = dict(names=["blocks.0.hook_resid_post", "blocks.1.hook_resid_pre"], prompt="a", seed=0, **call)
    reading = block.register_forward_hook(lambda module, given, out: seen.append(out.clone()) or out)
    _, cache = model.run_with_cache(**ask)
    assert torch.equal(cache["blocks.0.hook_resid_post", 0].flatten(1, 3), seen[0])
    reading.remove()
    own, before = block.register_forward_hook(how), dict(block._forward_hooks)
    changed = model.run(prompt="a", seed=0, **call)  # nothing is read: the pipeline runs as its owner has made it
    with pytest.raises(InterpError, match=r"forward hook on transformer\.blocks\.0 changes what it is given.*run_with_hooks"):
        model.run_with_cache(**ask)
    with pytest.raises(InterpError, match="forward hook"):
        record(model, **{k: v for k, v in ask.items() if k != "names"})
    with pytest.raises(InterpError, match="forward hook"), model.trace_call(step=0, prompt="a", seed=0, **call) as traced:
        nnsight.save(traced.blocks[0].output)
    assert block._forward_hooks == before
    own.remove()
    assert not torch.equal(changed.latents, model.run(prompt="a", seed=0, **call).latents)
    double = lambda module, given: (2 * given[0], *given[1:]) if module is block else None
    everywhere = torch.nn.modules.module.register_module_forward_pre_hook(double)
    try:
        with pytest.raises(InterpError, match="forward hook on every module"):
            model.run_with_cache(**ask)
    finally:
        everywhere.remove()


@pytest.mark.parametrize("config", [None, {"disable": False, "desc": "mine"}])
def test_the_progress_bar_is_left_as_it_was(config):
    pipe = tiny.build("wan2.1")
    if config is None:
        del pipe._progress_bar_config
    else:
        pipe.set_progress_bar_config(**config)
    model = HookedVideoPipeline.from_pipeline(pipe)
    call = {k: v for k, v in tiny.call("wan2.1").items() if k != "seed"}
    model.run(**call, seed=0)
    with pytest.raises(ZeroDivisionError):
        model.run_with_hooks(fwd_hooks=[("hook_x_t", lambda act, hook: 1 / 0)], **call, seed=0)
    assert getattr(pipe, "_progress_bar_config", None) == config


@pytest.mark.parametrize("seed", [np.int64(3), torch.tensor(3), [3], (3,), np.array([3]), torch.tensor([3]), [np.uint8(3)]])
def test_whole_numbers_of_every_library_are_one_seed(seed):
    model, call = model_and_call("wan2.1")
    assert torch.equal(model.run(prompt="a", seed=seed, **call).latents, model.run(prompt="a", seed=3, **call).latents)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"seed": seed}, "seed=.*64 bits") for seed in (True, 1.5, "3", 2**64, -(2**63) - 1, torch.tensor(1.0), [None])]
    + [({key: value}, f"{key}=.*whole number of at least 1") for key in ("num_inference_steps", "height", "num_frames")
       for value in (0, -1, 1.5, "3", True)]
    + [({"num_inference_steps": None}, "num_inference_steps=None")]
    + [({"guidance_scale": value}, "guidance_scale=.*finite number") for value in (float("nan"), float("inf"), "3", True)],
)  # fmt: skip
def test_what_is_no_seed_no_count_and_no_guidance_is_refused_before_anything_runs(given, message):
    model, call = model_and_call("wan2.1")
    with pytest.raises(InterpError, match=message):
        model.run(**{"prompt": "a", "seed": 0, **call, **given})
    assert model.block_calls == 0


@pytest.mark.parametrize(
    ("name", "scheduler", "changed", "message"),
    [("sana-video", None, {"timesteps": [900, 500]}, "SanaVideoPipeline with DPMSolver.*asked were .*timesteps"),
     ("easyanimate-inpaint", None, {"latents": torch.zeros(1, 4, 3, 4, 4)}, "EasyAnimateInpaintPipeline with .*latents"),
     ("wan2.1", DDIMScheduler(), {}, "WanPipeline with DDIM.*load another scheduler")],
)  # fmt: skip
def test_what_a_pipeline_was_not_written_for_is_one_clear_error(name, scheduler, changed, message):
    call = tiny.call(name, steps=2) | changed
    if "timesteps" in changed:
        del call["num_inference_steps"]
    model = HookedVideoPipeline.from_pipeline(tiny.build(name, scheduler))
    with pytest.raises(InterpError, match=message):
        model.run(seed=0, **call)
    assert model.block_calls == 0


@pytest.mark.parametrize(
    ("file", "name"),
    [("diffusers.pipelines.cosmos.pipeline_cosmos2_5_predict", "torchvision"),
     ("diffusers.models.transformers.transformer_cosmos", "transforms")],
)  # fmt: skip
def test_a_package_that_is_not_installed_is_named(file, name, monkeypatch):
    """The name that diffusers imports of it, in a file, is missing, as without it."""
    model = HookedVideoPipeline.from_pipeline(tiny.build("cosmos2.5"))
    monkeypatch.delattr(import_module(file), name)
    with pytest.raises(InterpError, match="needs the package torchvision, which is not installed: pip install torchvision"):
        model.run(seed=0, image=tiny.image(32), **tiny.call("cosmos2.5", steps=2))


@pytest.mark.parametrize(
    ("name", "rate"), [("wan2.1", 16), ("cogvideox", 8), ("ltx", 25), ("hunyuan1.5-i2v", 24), ("latte", None)]
)
def test_the_frame_rate_is_that_of_the_call_or_of_the_pipelines_example(name, rate):
    """Of LTX a keyword; of the others what their docstrings play, of Latte's nothing."""
    assert HookedVideoPipeline.from_pretrained(f"tiny:{name}").frame_rate == rate
