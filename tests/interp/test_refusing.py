"""What a pipeline refuses is said with what was asked, by which option, and what it takes."""

from __future__ import annotations

import pytest

from cos_interp.analyses.chain_of_steps import ChainOfStepsConfig
from cos_interp.analyses.driver.experiment import loaded
from cos_interp.analyses.driver.planning import bare, forecast
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.errors import InterpError
from cos_interp.interp.families import tiny
from cos_interp.interp.run.refusing import refused

BY_PATCH = {"cogvideox": "48x32", "mochi": "32x32", "latte": "32x32"}  # of a token of 2 x 2 cells of 8 x 8 pixels
BY_CHECK = {"wan2.1": "832x480", "wan2.1-i2v": "832x480", "ltx": "832x480", "cogvideox": "832x480"}


@pytest.mark.parametrize("name", BY_PATCH)
def test_a_size_that_tokens_do_not_cover_is_refused_before_the_first_forward(name):
    model = HookedVideoPipeline.from_pretrained(f"tiny:{name}")
    width, height = (48, 24) if name == "cogvideox" else (40, 24)
    call = {**tiny.call(name), "seed": 0, "width": width, "height": height}
    with pytest.raises(
        InterpError, match=rf"height=24, width={width} .*--size.* makes latents of 3 x {width // 8} cells"
    ) as said:
        model.run(**call)
    assert model.block_calls == 0
    wide, high = map(int, str(said.value).rpartition("--size ")[2].rstrip(")").split("x"))
    assert f"{wide}x{high}" == BY_PATCH[name]
    model.run(**{**call, "width": wide, "height": high})  # what it says works


@pytest.mark.parametrize("name", BY_CHECK)
def test_a_size_that_the_pipeline_refuses_is_said_in_its_words_and_in_ours(name):
    model = HookedVideoPipeline.from_pretrained(f"tiny:{name}")
    asked = {"width": 833, "height": 481}
    with pytest.raises(InterpError, match=rf"refuses .*height=481.*--size.*divisible by .*--size {BY_CHECK[name]}"):
        model.run(**{**tiny.call(name), "seed": 0, **asked})
    assert f"--size {BY_CHECK[name]}" in refused(model.pipe, asked) and refused(model.pipe, {"width": 64, "height": 64}) is None


def test_an_argument_that_the_model_has_no_use_for_is_refused_and_where_it_has_it_is_taken():
    said = "refuses guidance_scale_2=2.0 .*--set guidance_scale_2=.*: leave guidance_scale_2 out"
    one, two = (HookedVideoPipeline.from_pretrained(f"tiny:{name}") for name in ("wan2.1", "wan2.2"))
    with pytest.raises(InterpError, match=said):
        one.run(**{**tiny.call("wan2.1"), "seed": 0, "guidance_scale_2": 2.0})
    assert refused(two.pipe, {"guidance_scale_2": 2.0}) is None
    two.run(**{**tiny.call("wan2.2"), "seed": 0, "guidance_scale_2": 2.0})


@pytest.mark.parametrize(
    ("model", "said", "words"),
    [
        ("tiny:cogvideox", {"size": "48x24"}, "--size 48x32"),
        ("tiny:wan2.1", {"size": "833x481"}, "--size 832x480"),
        ("tiny:wan2.1", {"set": ("guidance_scale_2=2.0",)}, "--set guidance_scale_2="),
    ],
)
def test_plans_and_runs_refuse_it_before_they_begin(model, said, words, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red ball")
    config = ChainOfStepsConfig(model=model, prompts=str(prompts), num_inference_steps=2, **said)
    with pytest.raises(InterpError, match=words):
        forecast("chain-of-steps", config, tmp_path, 1, timed=False)
    if "set" in said:
        with pytest.raises(InterpError, match=words):
            loaded(config)
    assert bare(config).block_calls == 0


@pytest.mark.parametrize("name", tiny.TINY)
def test_no_own_call_of_a_family_is_refused(name):
    """The check is asked before there are prompts and pictures."""
    model = HookedVideoPipeline.from_pretrained(f"tiny:{name}")
    asked = {key: value for key, value in tiny.call(name).items() if key in ("height", "width", "num_frames", "guidance_scale")}
    assert refused(model.pipe, asked) is None
