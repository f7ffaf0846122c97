"""What a model is told on the command line: sizes, arguments of its call, limits; and what a pipeline decides itself."""

from __future__ import annotations

import copy
import json

import pytest

from cos_interp import analyses
from cos_interp.analyses.chain_of_steps import ChainOfStepsConfig
from cos_interp.analyses.driver import saying
from cos_interp.analyses.driver.command import command_line, integers
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.experiment import loaded, settled
from cos_interp.analyses.driver.options import configured, option
from cos_interp.analyses.driver.planning import forecast
from cos_interp.analyses.kit.problems import arguments, problems
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.errors import InterpError
from cos_interp.interp.families import tiny
from cos_interp.interp.own_size import own_size
from cos_interp.interp.terminal import Failure


def given(**said):
    """The options of a command as typer gives them, where these are said."""
    fields = ChainOfStepsConfig.model_fields
    defaults = {name: option(name, field).default for name, field in fields.items()}
    return {**defaults, **dict.fromkeys(ChainOfStepsConfig.OWN), **said}


@pytest.mark.parametrize("wrong", [{"size": "832"}, {"size": "0x480"}, {"memory": "much"}, {"disk": "0GB"}, {"set": ("a",)},
                                   {"set": ("seed=1",)}, {"set": ("a=1", "a=2")}, {"set": ("prompt=a",)},
                                   {"set": ("output_type=pil",)}, {"decode_steps": 0}])  # fmt: skip
def test_what_cannot_be_read_is_an_error(wrong):
    with pytest.raises(ValueError):
        ChainOfStepsConfig(**wrong)


@pytest.mark.parametrize(
    ("said", "message"),
    [({"device": "banana"}, "there is no device 'banana': give auto, cpu, cuda, cuda:1 or mps"),
     ({"set": ("attention_kwargs=7",)}, "attention_kwargs=7.*give an object"), ({"set": {"fps": "x"}}, "give a number"),
     ({"set": ("num_videos_per_prompt=2",)}, "num_videos_per_prompt=2.*each run is of one video: leave it out")],
)  # fmt: skip
def test_what_no_run_can_have_is_refused_in_words(said, message):
    with pytest.raises(ValueError, match=message):
        ChainOfStepsConfig(**said)
    fits = {"attention_kwargs": {"scale": 0.5}, "true_cfg_scale": 2, "num_videos_per_prompt": 1}
    assert ChainOfStepsConfig(set=fits).call() == fits and ChainOfStepsConfig(device="cuda:3").device == "cuda:3"


def test_a_plan_names_a_lora_that_is_not_there(tmp_path):
    config = analyses.EXPERIMENTS["self-correction"].config(model="tiny:wan2.1", lora=(f"{tmp_path}/nosuch:0.5",))
    with pytest.raises(InterpError, match="nosuch does not exist"):
        forecast("self-correction", config, tmp_path, timed=False)


@pytest.mark.parametrize("name", ["tasks", "lora", "set", "model", "prompts", "scorer", "size"])
def test_an_empty_option_does_not_pass_for_the_default(name):
    with pytest.raises(Failure, match=f"^--{name} '':? says nothing: leave the option out"):
        configured(ChainOfStepsConfig, given(**{name: ""}))
    with pytest.raises(ValueError, match="says nothing"):
        ChainOfStepsConfig(**{name: ""})
    assert configured(ChainOfStepsConfig, given()).tasks == ChainOfStepsConfig().tasks


def test_empty_ranges_and_numbers_without_end_are_refused():
    for text in ("5:5", "3:1"):
        with pytest.raises(ValueError, match=f"'{text}' says nothing"):
            integers(text)
    for wrong in (float("inf"), float("nan")):
        with pytest.raises(Failure, match=r"--guidance (inf|nan): Input should be"):
            configured(ChainOfStepsConfig, given(guidance_scale=wrong))
    assert configured(ChainOfStepsConfig, given(negative_prompt="")).negative_prompt == ""  # which is a prompt


def test_assignments_may_hold_commas():
    text = 'sigmas=[1.0, 0.5],prompt_2=a, b,attention_kwargs={"scale": 0.5, "x": 1},on=True'
    found = saying.keywords(saying.assignments(text))
    assert found == {"sigmas": [1.0, 0.5], "prompt_2": "a, b", "attention_kwargs": {"scale": 0.5, "x": 1}, "on": True}


def test_the_call_is_told_and_the_command_repeats_it(prompts):
    said = {"model": "tiny:wan2.2", "size": "48x32", "num_frames": 5, "negative_prompt": "blue, bad", "prompts": prompts}
    config = configured(ChainOfStepsConfig, given(**said, set="max_sequence_length=10,guidance_scale_2=2.0", guidance_scale=3.0))
    config, model = loaded(config)
    run = model.run(**arguments(model, config, problems(config)[0]) | {"num_inference_steps": 2})
    by_hand = HookedVideoPipeline.from_pretrained("tiny:wan2.2").run(
        prompt=problems(config)[0].call["prompt"], seed=problems(config)[0].seed, width=48, height=32, num_frames=5,
        negative_prompt="blue, bad", max_sequence_length=10, guidance_scale_2=2.0, guidance_scale=3.0, num_inference_steps=2,
    )  # fmt: skip
    assert run.latents.equal(by_hand.latents)
    line = command_line("chain-of-steps", config)
    assert "--size 48x32 --num-frames 5 --negative-prompt 'blue, bad'" in line and "--num-steps 20" in line
    assert "--set max_sequence_length=10,guidance_scale_2=2.0" in line


def test_a_line_that_contradicts_an_option_is_refused(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"prompt": "a", "height": 32, "num_frames": 5, "negative_prompt": "b", "max_sequence_length": 8}))
    agreeing = {"size": "48x32", "num_frames": 5, "negative_prompt": "b", "set": {"max_sequence_length": 8}}
    (found,) = problems(ChainOfStepsConfig(prompts=str(path), **agreeing))
    assert found.call == {"prompt": "a"}  # all else is said for all runs
    for other, message in (
        ({"size": "48x64"}, "height is 32, and --size is 64"), ({"num_frames": 9}, "num_frames is 5, and --num-frames is 9"),
        ({"negative_prompt": ""}, 'negative_prompt is "b", and --negative-prompt is'),
        ({"set": {"max_sequence_length": 9}}, "max_sequence_length is 8, and --set is 9"),
    ):  # fmt: skip
        with pytest.raises(InterpError, match=f"line 1: {message}.* for all runs: make them agree"):
            problems(ChainOfStepsConfig(prompts=str(path), **{**agreeing, **other}))


def test_a_key_that_the_pipeline_does_not_take_names_a_near_one():
    with pytest.raises(InterpError, match="takes no 'max_sequence_lenght': did you mean max_sequence_length"):
        loaded(ChainOfStepsConfig(model="tiny:wan2.1", set={"max_sequence_lenght": 8}))


@pytest.mark.parametrize(("name", "own"), [("wan2.1", (50, 5.0)), ("cogvideox", (50, 6)), ("mochi", (64, 4.5))])
def test_where_nothing_is_said_the_pipeline_decides(name, own):
    model = HookedVideoPipeline.from_pipeline(tiny.build(name))
    said = settled(configured(ChainOfStepsConfig, given()), model)
    assert (said.num_inference_steps, said.guidance_scale) == own
    kept = settled(configured(ChainOfStepsConfig, given(num_inference_steps=20, guidance_scale=1.0)), model)
    assert (kept.num_inference_steps, kept.guidance_scale) == (20, 1.0)


def test_models_made_for_small_runs_keep_the_experiments_own():
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    assert settled(ChainOfStepsConfig(), model).num_inference_steps == 20


@pytest.mark.parametrize("asked", [{}, {"guidance_scale": 1.0}])
def test_the_guidance_that_a_models_folder_says_is_that_of_its_runs(asked, tmp_path):
    """A folder that is made for guidance would be measured without, as nobody would run it."""
    tiny.build("wan2.1").save_pretrained(tmp_path)
    (tmp_path / "call_defaults.json").write_text('{"height": 32, "width": 32, "num_inference_steps": 4, "guidance_scale": 3.0}')
    said = settled(configured(ChainOfStepsConfig, given(**asked)), HookedVideoPipeline.from_pretrained(tmp_path))
    assert (said.num_inference_steps, said.guidance_scale) == (20, asked.get("guidance_scale", 3.0))


def test_what_a_user_adds_to_every_call_makes_no_small_model_of_it():
    """The size of every call leaves the pipeline its own steps and guidance, in a copy, too."""
    model = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1"))
    model.defaults |= {"height": 32, "width": 32}
    for one in (model, copy.deepcopy(model)):
        said = settled(configured(ChainOfStepsConfig, given()), one)
        assert (said.num_inference_steps, said.guidance_scale) == (50, 5.0)
    assert copy.deepcopy(HookedVideoPipeline.from_pretrained("tiny:wan2.1")).small


def test_the_size_is_the_pipelines_own():
    sizes = {name: own_size(tiny.build(name), {}) for name in ("wan2.1", "cogvideox", "mochi", "ltx")}
    assert sizes["wan2.1"] == {"height": 480, "width": 832, "num_frames": 81}
    assert sizes["mochi"] == {"height": 480, "width": 848, "num_frames": 19}
    assert sizes["ltx"] == {"height": 512, "width": 704, "num_frames": 161}
    assert sizes["cogvideox"] == {"height": 32, "width": 32, "num_frames": 9}  # of its transformer's configuration


def test_tasks_are_not_drawn_at_an_own_size_that_does_not_fit(tmp_path):
    model = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1"))
    with pytest.raises(
        InterpError, match=r"makes 832x480 pixels and 81 frames, .* give --size 480x480 --num-frames 9, --prompts F"
    ):
        analyses.run("chain-of-steps", model=model, out=tmp_path / "run", workers=1)


def test_a_given_model_is_used_as_it_is(tmp_path):
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    with pytest.raises(ValueError, match="size='64x64': a model that is given is used as it is"):
        analyses.run("chain-of-steps", model=model, size="64x64", out=tmp_path / "run")


def test_what_the_call_is_told_is_part_of_the_run_and_limits_are_not(tmp_path, prompts):
    asked = {"num_inference_steps": 2, "prompts": prompts, "model": "tiny:wan2.1", "workers": 1, "out": tmp_path / "run"}
    analyses.run("self-correction", **asked)
    analyses.run("self-correction", host_memory="900GB", **asked)
    for other, message in (({"size": "48x32"}, "--size: None, now 48x32"), ({"set": {"max_sequence_length": 6}}, "--set")):
        with pytest.raises(RunError, match=message):
            analyses.run("self-correction", **other, **asked)
    held = json.loads((tmp_path / "run" / "run.json").read_text())
    assert held["model"]["call"]["height"] == 32 and held["config"]["num_inference_steps"] == 2
