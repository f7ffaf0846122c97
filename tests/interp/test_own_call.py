"""The model in the place of its pipeline: what a call returns is what the untouched pipeline returns, bit for bit."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from diffusers.callbacks import PipelineCallback
from PIL import Image

from cos_interp.interp import HookedVideoPipeline, InterpError
from cos_interp.interp.families import tiny

ONE_OF_EACH = (
    "allegro", "cogvideox", "consisid", "cosmos1", "cosmos2.5", "easyanimate", "framepack", "hunyuan", "hunyuan1.5", "kandinsky5",
    "latte", "ltx", "ltx-i2v", "ltx2", "mochi", "motif", "sana-video", "wan2.1", "wan2.2-ti2v-5b", "skyreels-v2", "chronoedit",
)  # fmt: skip
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in tiny.TINY if name not in ONE_OF_EACH]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def flat(value, path="out"):
    """Every leaf of what a pipeline returned with its place, types of what holds it included."""
    yield path, type(value)
    if isinstance(value, dict):
        for key, part in value.items():
            yield from flat(part, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for place, part in enumerate(value):
            yield from flat(part, f"{path}[{place}]")
    elif isinstance(value, torch.Tensor):
        yield path, (value.dtype, tuple(value.shape), value.numpy().tobytes())
    elif isinstance(value, Image.Image):
        yield path, (value.mode, value.size, value.tobytes())
    else:
        assert isinstance(value, np.ndarray), path
        yield path, (value.dtype, value.shape, value.tobytes())


def by_place(pipe, call):
    """The first arguments of the pipeline's call as far as it has them, and the others by name."""
    first = []
    for name in list(inspect.signature(type(pipe).__call__).parameters)[1:]:
        if name not in call:
            break
        first.append(name)
    return [call[name] for name in first], {name: value for name, value in call.items() if name not in first}


def told(ask, *args, **kwargs):
    """What a call returned, as leaves, what it left of noise, and what it showed to a callback; the error where there is one."""
    generator, seen = kwargs.get("generator"), []
    if "callback_on_step_end" in kwargs:
        kwargs["callback_on_step_end"] = lambda pipe, step, t, given: (
            seen.append((step, float(t), given["latents"].clone())) or {}
        )
    try:
        out = ask(*args, **kwargs)
    except Exception as error:
        return str(error).splitlines()[0][:60]
    each = generator if isinstance(generator, list) else [generator]
    left = [one.get_state().tolist() for one in each if one is not None] or torch.get_rng_state().tolist()
    return dict(enumerate(flat(out))), left, [(step, t, x.tolist()) for step, t, x in seen]


@pytest.mark.parametrize("name", [*ONE_OF_EACH, *SLOW])
def test_a_call_returns_what_the_pipeline_returns(name):
    """In every form, by place or by name, whatever the noise is drawn from; and leaves the noise as the pipeline does."""
    pipe, call = tiny.build(name), tiny.call(name, steps=2)
    model = HookedVideoPipeline.from_pipeline(tiny.build(name))
    takes = inspect.signature(type(pipe).__call__).parameters
    first, others = by_place(pipe, call)
    watched = {"callback_on_step_end": ...} if "callback_on_step_end" in takes else {}
    form = lambda kind, whole: {"output_type": kind, "return_dict": whole}
    for args, kwargs, draw in (
        (first, others | watched | form("latent", True), lambda: seeded()),
        ((), call | form("latent", False), lambda: [seeded()]),
        ((), call | form("np", False), lambda: seeded(1)),
        (first, others | {"output_type": "pt"}, lambda: torch.manual_seed(3) and None),
        ((), call, lambda: seeded(2)),
    ):
        theirs, ours = (told(ask, *args, **kwargs, generator=draw()) for ask in (pipe, model))
        if isinstance(theirs, str):  # what the pipeline itself cannot do
            assert isinstance(ours, str), kwargs
        else:
            assert ours == theirs, kwargs


@pytest.mark.parametrize("name", ["cogvideox", "framepack", "ltx2", "wan2.2-ti2v-5b", "consisid", "hunyuan-i2v-concat"])
def test_the_run_beside_what_is_returned_is_that_of_run(name):
    """The final latents, also where the pipeline has decoded them: mixed with a picture, put behind its frame, scaled."""
    model, call = HookedVideoPipeline.from_pipeline(tiny.build(name)), tiny.call(name, steps=2)
    plain = model.run(seed=0, **call)
    for output_type in ("pil", "latent"):
        run = model(seed=0, **call, output_type=output_type).run
        assert torch.equal(run.latents, plain.latents) and run.output_type == output_type
        assert all(map(torch.equal, run.x_t, plain.x_t)) and len(run.beside) == len(plain.beside)
        assert (run.lead is None) == (plain.lead is None) or torch.equal(run.lead, plain.lead)


@pytest.mark.parametrize("name", ["wan2.1", "ltx"])
def test_hooks_act_in_a_call_and_what_it_returns_shows_them(name):
    """An edit of the last step's estimate is the video, of which no later step knows."""
    model, call = HookedVideoPipeline.from_pipeline(tiny.build(name)), tiny.call(name, steps=2)
    for address in ("blocks.0.hook_resid_post @ step=0", "hook_x_t @ step=1", "hook_x0hat @ step=1"):
        hook = [(address, lambda act, hook: act * 1.5)]
        edited = model.run_with_hooks(fwd_hooks=hook, seed=0, **call)
        with model.hooks(fwd_hooks=hook):
            shown = model(seed=0, **call, output_type="np")
        assert torch.equal(shown.run.latents, edited.latents) and np.array_equal(shown.frames, edited.frames)
        assert not np.array_equal(shown.frames, model(seed=0, **call, output_type="np").frames)


@pytest.mark.parametrize("name", ["wan2.1", "cogvideox", "cosmos2-v2w", "ltx-i2v", "latte"])
def test_one_generator_draws_for_all_videos_what_the_pipelines_batch_draws(name):
    pipe, call = tiny.build(name), tiny.call(name, steps=2)
    call |= {"prompt": [call["prompt"], "a"], "negative_prompt": [call["negative_prompt"]] * 2, "output_type": "np"}
    ours = HookedVideoPipeline.from_pipeline(tiny.build(name))(**call, generator=seeded()).frames
    assert np.array_equal(ours, pipe(**call, generator=seeded()).frames)


@pytest.mark.parametrize("name", ["wan2.1", "ltx", "mochi", "hunyuan1.5"])
def test_prompts_that_are_encoded_and_latents_that_are_given_count(name):
    pipe, call = tiny.build(name), tiny.call(name, steps=2)
    model = HookedVideoPipeline.from_pipeline(tiny.build(name))
    run = model.run(seed=0, **call)
    latents = torch.randn(run.prepared[0].shape, generator=seeded(4))
    keys = ("prompt_embeds", "prompt_embeds_mask", "prompt_embeds_2", "prompt_embeds_mask_2")
    if name == "hunyuan1.5":
        embeds = dict(zip(keys, run.encoded[0], strict=False))
        embeds |= {f"negative_{key}": value for key, value in zip(keys, run.encoded[1], strict=False)}
    elif name == "wan2.1":
        embeds = dict(zip(("prompt_embeds", "negative_prompt_embeds"), run.encoded[0], strict=True))
    else:
        keys = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
        embeds = dict(zip(keys, run.encoded[0], strict=True))
    asked = {k: v for k, v in call.items() if k not in ("prompt", "negative_prompt")} | embeds | {"output_type": "np"}
    ours, theirs = (ask(**asked, latents=latents.clone(), generator=seeded()).frames for ask in (model, pipe))
    assert np.array_equal(ours, theirs)
    assert not np.array_equal(ours, model(**asked, generator=seeded()).frames)


class Looking(PipelineCallback):
    """A callback of diffusers' own kind, which says what it is shown."""

    def __init__(self, change=False):
        super().__init__()
        self.change, self.shown = change, []

    @property
    def tensor_inputs(self):
        return ["latents", "prompt_embeds"]

    def callback_fn(self, pipe, step, timestep, given):
        self.shown.append({name: value.clone() for name, value in given.items()})
        return {"latents": given["latents"] * 2} if self.change else given


def test_a_callback_of_diffusers_own_kind_is_shown_what_it_asks_for_and_may_not_touch():
    pipe, call, theirs, ours = tiny.build("wan2.1"), tiny.call("wan2.1", steps=2), Looking(), Looking()
    model = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1"))
    for ask, looking in ((pipe, theirs), (model, ours)):
        ask(**call, generator=seeded(), callback_on_step_end=looking)
    assert [list(shown) for shown in ours.shown] == [["latents", "prompt_embeds"]] * 2
    assert all(torch.equal(a[key], b[key]) for a, b in zip(ours.shown, theirs.shown, strict=True) for key in a)
    with pytest.raises(InterpError, match="callback_on_step_end changed latents at step 0"):
        model(**call, generator=seeded(), callback_on_step_end=Looking(change=True))


def test_what_no_pipeline_takes_is_refused_in_words():
    model, call = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1")), tiny.call("wan2.1", steps=1)
    with pytest.raises(InterpError, match="'prompt' was given by place and by name"):
        model("a ball", **call)
    with pytest.raises(InterpError, match=r"40 arguments by place: WanPipeline takes \d+, prompt, negative_prompt"):
        model(*range(40))
    with pytest.raises(InterpError, match="output_type='gif'"):
        model(**call, output_type="gif")
    assert model.block_calls == 0


@pytest.mark.parametrize(
    ("name", "own", "frames"), [("sana-video", "frames", 5), ("latte", "video_length", 3), ("wan2.1", "num_frames", 5)]
)
def test_the_number_of_frames_has_one_name_for_all_families(name, own, frames):
    model = HookedVideoPipeline.from_pretrained(f"tiny:{name}")
    asked = {"prompt": "a ball", "num_inference_steps": 2, "seed": 0}
    ours, theirs = model.run(**asked, num_frames=frames), model.run(**asked, **{own: frames})
    assert torch.equal(ours.latents, theirs.latents) and ours.frames.shape[1] == frames
    if own != "num_frames":
        with pytest.raises(InterpError, match=f"num_frames and {own} are the same"):
            model.run(**asked, **{own: frames, "num_frames": frames})


def test_a_call_of_a_model_takes_the_number_of_frames_by_either_name():
    """``sana-video`` calls it ``frames``, of which the tiny model has a number of its own."""
    model = HookedVideoPipeline.from_pretrained("tiny:sana-video")
    few = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(0)}
    ours = model("a ball", num_frames=5, output_type="np", **few).frames
    few["generator"].manual_seed(0)
    theirs = model("a ball", frames=5, output_type="np", **few).frames
    assert ours.shape[1] == 5 and np.array_equal(ours, theirs)
