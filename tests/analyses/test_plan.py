"""A plan is right: its block calls are those that the run makes, its operations those that PyTorch counts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from planned import counted, planned
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from cos_interp import analyses
from cos_interp.analyses.chain_of_steps import ChainOfStepsConfig
from cos_interp.analyses.dossier import DossierConfig, foresee
from cos_interp.analyses.dossier.run import PILOT, chosen, configured
from cos_interp.analyses.driver import ahead
from cos_interp.analyses.driver.experiment import loaded
from cos_interp.analyses.driver.planning import forecast
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.saying import amount
from cos_interp.analyses.patching import PatchingConfig
from cos_interp.analyses.patching.foresee import cells_of, donors_of
from cos_interp.analyses.patching.pieces import pairs_of
from cos_interp.analyses.probing import ProbesConfig
from cos_interp.cli import app
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.errors import InterpError
from cos_interp.interp.families import tiny
from cos_interp.interp.patching import Minimum
from cos_interp.interp.planning import costs
from cos_interp.interp.planning.costs import Shape
from cos_interp.interp.planning.loop import tiny_run
from cos_interp.interp.planning.skeleton import skeleton
from tests.a14b import folder

MODELS = ("organism", "tiny:wan2.2", "tiny:cogvideox")
GUIDED = {"num_inference_steps": 3, "guidance_scale": 3.0}


@pytest.fixture
def pair_file(tmp_path):
    lines = [{"clean": {"prompt": f"a red ball {n}"}, "corrupt": {"prompt": f"a blue ball {n}"}} for n in range(2)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


@pytest.fixture
def boxed(tmp_path):
    """A pair with a box in the middle of a large video."""
    sides = {"clean": {"prompt": "a red ball"}, "corrupt": {"prompt": "a blue ball"}, "boxes": {"ball": [400, 224, 464, 288]}}
    path = tmp_path / "boxed.jsonl"
    path.write_text(json.dumps(sides))
    return str(path)


@pytest.mark.parametrize("model", MODELS[1:])
def test_planned_block_calls_of_patching_are_those_that_run(model, pair_file, tmp_path):
    config = PatchingConfig(model=model, pair_file=pair_file, steps=(0, 2), sites=("hook_resid_post", "hook_x_t"), **GUIDED)
    ran, result = counted("patching", config, tmp_path / "run")
    plan = planned("patching", config, tmp_path)
    assert plan.blocks == ran > 0
    assert plan.lines[1].blocks == result.facts["block_calls"] == result.facts["block_calls_minimum"]


@pytest.mark.parametrize(
    "model, asked",
    [
        ("tiny:wan2.1", {"frames": (0, 1)}),
        ("tiny:wan2.1", {"frames": (0, 1), "sites": ("hook_x_t",), "span": "single"}),
        ("tiny:wan-vace", {}),  # one video a forward, whatever the memory
        ("tiny:wan2.1", {"layers": (1, 1), "steps": (0, 0), "sites": ("hook_mlp_out",) * 2, "frames": (1, 1)}),
        ("tiny:wan2.1", {"method": "gradient", "exact_cells": 40, "sites": ("hook_mlp_out",)}),  # which are all
    ],
)  # fmt: skip
def test_planned_block_calls_follow_what_is_asked_of_patching(model, asked, pair_file, tmp_path):
    config = PatchingConfig(model=model, pair_file=pair_file, num_inference_steps=3, **asked)
    ran, result = counted("patching", config, tmp_path / "run")
    plan = planned("patching", config, tmp_path)
    assert plan.blocks == plan.most == ran > 0 and not any(line.bound for line in plan.lines)
    exact = result.rows[result.rows.effect.notna()]
    assert not exact.duplicated(["pair", "donor", "site", "step", "layer", "group", "frame", "head"]).any()


def test_what_the_drawn_exact_cells_of_a_map_take_is_no_more_than_planned(pair_file, tmp_path):
    asked = {"method": "gradient", "exact_cells": 10, "top_cells": 4, "num_inference_steps": 8, "guidance_scale": 3.0}
    for number, site in enumerate(("hook_resid_post", "cross_attn.hook_z")):
        config = PatchingConfig(model="tiny:wan2.1", pair_file=pair_file, span="single", sites=(site,), **asked)
        ran, _ = counted("patching", config, tmp_path / str(number))
        plan = planned("patching", config, tmp_path)
        assert plan.lines[-1].bound and 0.6 * plan.blocks < ran <= plan.blocks


def test_what_is_asked_for_twice_counts_once():
    config = PatchingConfig(layers=(2, 1, 2), steps=(0, 0), tokens=("all", "all"))
    assert (config.layers, config.steps, config.tokens) == ((2, 1), (0,), ("all",))
    assert load("memory").config(cell=(2, 2)).cell == (2, 2)  # a row and a column


def write(path, *lines):
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


LARGE = {"height": 64, "width": 96, "num_frames": 17}


def test_a_plan_follows_the_sizes_of_lines(tmp_path):
    """Bytes of the largest; calls do not depend on it, operations do."""
    told = {"model": "tiny:wan2.1", "num_inference_steps": 2}
    small, large, both = (
        planned_of(ChainOfStepsConfig(prompts=write(tmp_path / f"{n}.jsonl", *lines), **told), tmp_path)
        for n, lines in enumerate(([{"prompt": "a"}], [{"prompt": "a", **LARGE}], [{"prompt": "a"}, {"prompt": "b", **LARGE}]))
    )
    said = planned_of(
        ChainOfStepsConfig(prompts=write(tmp_path / "s.jsonl", {"prompt": "a"}), size="96x64", num_frames=17, **told), tmp_path
    )
    assert large.outlook.shape.pixels == both.outlook.shape.pixels == said.outlook.shape.pixels == (17, 64, 96)
    assert large.plan.places == said.plan.places and large.plan.flops == said.plan.flops > 2 * small.plan.flops
    assert both.plan.blocks == 2 * small.plan.blocks == 2 * large.plan.blocks
    assert both.plan.flops == pytest.approx(small.plan.flops + large.plan.flops)
    assert both.plan.total("host") == large.plan.total("host") > small.plan.total("host")


def planned_of(config, at):
    return forecast("chain-of-steps", config, at, workers=1, timed=False)


def test_planned_block_calls_follow_what_each_line_says_of_guidance(tmp_path):
    lines = [{"prompt": "a", "negative_prompt": "b"}, {"prompt": "c"}, {"prompt": "d", "negative_prompt": "e"}]
    told = {"model": "tiny:hunyuan", "num_inference_steps": 3, "set": {"true_cfg_scale": 3}}
    config = load("self-correction").config(prompts=write(tmp_path / "prompts.jsonl", *lines), **told)
    ran, _ = counted("self-correction", config, tmp_path / "run")
    assert planned("self-correction", config, tmp_path).blocks == ran > 0
    one = load("self-correction").config(prompts=write(tmp_path / "one.jsonl", lines[1]), **told)
    assert ran == 5 * planned("self-correction", one, tmp_path).blocks  # two calls a step where there is a negative prompt


def test_pairs_of_several_sizes_are_planned_each_at_its_own(tmp_path):
    """Boxes lie in the video of their own line, and rows and bytes are those of the largest."""
    sides = lambda size: {"clean": {"prompt": "a red ball", **size}, "corrupt": {"prompt": "a blue ball", **size}}
    lines = [sides({"height": 32, "width": 32}), {**sides({"height": 64, "width": 64}), "boxes": {"ball": [40, 40, 64, 64]}}]
    path = write(tmp_path / "pairs.jsonl", *lines)
    config = PatchingConfig(model="tiny:wan2.1", pair_file=path, num_inference_steps=2, sites=("hook_mlp_out",), layers=(1,))
    found = forecast("patching", config, tmp_path, workers=1, timed=False)
    assert found.plan.blocks == counted("patching", config, tmp_path / "run")[0] and found.outlook.shape.pixels[1:] == (64, 64)
    first = forecast("patching", config.model_copy(update={"pairs": 1}), tmp_path, workers=1, timed=False)
    assert first.outlook.shape.pixels[1:] == (32, 32)  # the other line does not run


def test_planned_blocks_of_patching_on_a_pair_of_the_organism(tmp_path):
    """What the cells take, and no fewer recordings than planned: which candidates it solves is the model's own matter."""
    config = PatchingConfig(pairs=1, num_inference_steps=4, steps=(2,), layers=(3, 7), controls=False)
    ran, result = counted("patching", config, tmp_path / "run")
    plan = planned("patching", config, tmp_path)
    tried = result.first(load("patching").facts[0]).tried
    assert tried > 1 or plan.lines[1].blocks == result.facts["block_calls"]
    assert plan.lines[0].blocks <= ran - result.facts["block_calls"] and (tried > 1 or plan.blocks == ran)


@pytest.mark.parametrize("model", MODELS)
def test_planned_block_calls_of_runs_are_those_that_run(model, prompts, tmp_path):
    own = ChainOfStepsConfig(model=model, prompts=prompts, noises=2, **GUIDED)
    if model == "organism":  # it needs a picture
        own = ChainOfStepsConfig(tasks=("maze",), items=1, sweep_items=1, **GUIDED)
    ran, _ = counted("chain-of-steps", own, tmp_path / "run")
    assert planned("chain-of-steps", own, tmp_path).blocks == ran > 0


def test_planned_block_calls_of_probes_are_those_that_run(prompts, tmp_path):
    config = ProbesConfig(model="tiny:wan2.2", prompts=prompts, views=False, **GUIDED)
    clips = planned("probes", config, tmp_path)
    config, model = loaded(config)
    from cos_interp.analyses.kit.problems import problems
    from cos_interp.analyses.probing.data import collect_unit

    for problem in problems(config):
        collect_unit(model, config, problem)
    assert clips.blocks == model.block_calls > 0


def test_what_would_make_a_plan_fit_is_looked_for_without_a_look_at_its_rows(pair_file, tmp_path, monkeypatch):
    """Dozens of other settings are tried for their bytes: of tens of thousands of rows each, that took minutes."""
    looked, own = [], Minimum.blocks
    monkeypatch.setattr(Minimum, "blocks", lambda self, row: looked.append(row) or own(self, row))
    config = PatchingConfig(model="tiny:wan2.2", pair_file=pair_file, memory="0.5MB", batch=1, span="single", **GUIDED)
    found = forecast("patching", config, tmp_path, workers=1, timed=False)
    rows = [cell for piece in pairs_of(config) for k in range(3) for cell in cells_of(config, found.outlook, piece, k)]
    assert found.plan.problems and found.plan.lines[1].what == f"patched runs, {len(rows)} rows"
    assert len(looked) == len(rows) and found.plan.lines[1].blocks > 0


def test_the_controls_of_a_plan_are_those_of_a_run(pair_file):
    made = pairs_of(PatchingConfig(pair_file=pair_file))
    assert donors_of(PatchingConfig(pair_file=pair_file), made[0]) == ("random", "same_prompt")
    assert donors_of(PatchingConfig(pair_file=pair_file, controls=False), made[0]) == ()


@pytest.mark.parametrize("name", tiny.TINY)
def test_operations_are_those_that_pytorch_counts(name):
    """At the size that was asked for, with as much text as there was: a plan counts a text as long as it may be."""
    steps = 2 if name in ("mochi", "wan2.1-v2v", "cogvideox-v2v") else 1  # one step is none for these
    model, call = HookedVideoPipeline.from_pretrained(f"tiny:{name}"), tiny.call(name, steps=steps)
    given = []
    for engine in model.engines.values():
        engine.module.register_forward_pre_hook(lambda _, args, kwargs: given.append(kwargs), with_kwargs=True)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run = model.run(seed=0, **call)
    blocks = {path for engine in model.engines.values() for path, _ in model.adapter.blocks(engine.module)}
    counts = counter.get_flop_counts().items()
    inside = sum(sum(kinds.values()) for module, kinds in counts if module.partition(".")[2] in blocks)
    shape = Shape.of(model, call)
    frames = shape.grid.frames + (name == "wan-animate")  # which reads its picture as a frame before the others
    assert (frames, *shape.grid.shape[1:]) == model.token_grid(run.latents).shape
    text = sum(map(read, given)) / len(given) or shape.text
    assert text <= shape.text + shape.image + (4 if name == "motif-i2v" else 0)  # of a picture that its text encoder reads
    as_run = replace(shape, text=text, grid=replace(shape.grid, frames=frames), image=shape.image if "wan" in name else 0)
    assert as_run.block_flops * model.block_calls == pytest.approx(inside, rel=0.12)


def read(kwargs):
    """Tokens of text, and of pictures beside it, that a transformer call is given, without those that FramePack leaves out."""
    names = ("encoder_hidden_states", "encoder_hidden_states_2", "image_embeds")
    tokens = sum(kwargs[name].shape[-2] for name in names if isinstance(kwargs.get(name), torch.Tensor))
    mask = kwargs.get("encoder_attention_mask") if "indices_latents" in kwargs else None
    return tokens if mask is None else tokens - int((mask == 0).sum())


@pytest.mark.parametrize("name", ["wan2.1", "cogvideox", "ltx"])
def test_a_model_without_weights_is_the_model(name, tmp_path):
    pipe = tiny.build(name)
    pipe.save_pretrained(tmp_path / "model")
    real, bare = HookedVideoPipeline.from_pipeline(pipe), skeleton(str(tmp_path / "model"), torch.float32)
    assert bare.hook_names == real.hook_names and next(bare.engines["transformer"].module.parameters()).is_meta
    call = tiny.call(name, steps=3)
    run = real.run(seed=0, **call)
    assert [(c.step, c.branch, c.expert, c.forward) for c in tiny_run(bare, call).calls] == [
        (c.step, c.branch, c.expert, c.forward) for c in run.calls
    ]
    shape = Shape.of(bare, call)
    assert shape.latent == tuple(run.latents.shape[1:]) and shape.grid.shape == real.token_grid(run.latents).shape
    parts = {n: part for n, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    assert shape.weights == {n: sum(p.numel() * 4 for p in part.parameters()) for n, part in parts.items()}


def test_what_a_shape_knows_of_its_activations_it_works_out_once(monkeypatch):
    """A plan asks for them by the thousand, and each time the whole model would be searched for the type of its weights."""
    asked, own = [], costs.activation_bytes
    monkeypatch.setattr(costs, "activation_bytes", lambda *given: asked.append(given) or own(*given))
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    shape = Shape.of(model, {})
    each = {name: shape.activation(name) for name in model.hook_names for _ in range(2)}
    assert len(asked) == 1 and each["blocks.0.hook_resid_post"] == shape.grid.tokens * 24 * 4


@pytest.mark.parametrize("name", ["organism", "organism:seed1", "organism:joint"])
def test_a_model_that_came_with_the_package_has_its_own_size_without_weights(name):
    real, bare = HookedVideoPipeline.from_pretrained(name), skeleton(name, torch.float32)
    assert bare.defaults == real.defaults and bare.defaults["height"] == 80
    assert bare.hook_names == real.hook_names


def test_a_plan_of_wan_a14b_without_a_weight(tmp_path, prompts, pair_file):
    """The real shapes: 832x480, 81 frames, 50 steps."""
    said = {"model": str(folder(tmp_path / "model")), "device": "cuda", "memory": "80GB", "host_memory": "128GB"}
    config = ChainOfStepsConfig(prompts=prompts, offload="model", **said)
    found = forecast("chain-of-steps", config, tmp_path, timed=False)
    shape = found.outlook.shape
    assert (shape.pixels, shape.latent, shape.grid.tokens) == ((81, 480, 832), (16, 21, 60, 104), 32760)
    assert found.plan.blocks == 2 * 50 * 2 * 40 and not found.plan.problems  # prompts x steps x branches x layers
    assert {call.expert for call in found.outlook.run().calls} == {"transformer", "transformer_2"}
    assert shape.weights["transformer"] == pytest.approx(2 * 14.3e9, rel=0.01)
    assert shape.block_flops == pytest.approx(42e12, rel=0.02)
    assert shape.activation("blocks.0.hook_resid_post") == 32760 * 5120 * 2
    alone = forecast("chain-of-steps", ChainOfStepsConfig(prompts=prompts, **said | {"memory": "70GB"}), tmp_path, timed=False)
    assert alone.plan.problems and alone.remedies[0].startswith("--offload model")


STREAM = 32760 * 5120 * 2  # bytes of a residual stream of Wan2.2-A14B at 832x480, 81 frames
A14B = {"num_inference_steps": 50, "guidance_scale": 5.0, "controls": False, "sites": ("hook_resid_post",), "device": "cuda",
        "offload": "model", "memory": "60GB", "host_memory": "128GB", "disk": "2TB"}  # fmt: skip


def test_the_recordings_of_wan_a14b_fit(tmp_path, boxed):
    """1,340 GB a run if all is kept. Of the target one step of streams, of the donor what is asked for: at most 30 GB of host
    memory; with whole layers of the donor at most 60 GB."""
    said = {"model": str(folder(tmp_path / "model")), "pair_file": boxed, **A14B}

    def of(**asked):
        plan = planned("patching", PatchingConfig(**said | asked), tmp_path)
        return plan, plan.placed, plan.places[plan.placed.place]["recordings"]

    plan, placed, size = of(span="single")  # all steps, all layers, all tokens
    assert placed.place == "host" and placed.lean and not plan.problems
    assert size == 2 * 40 * 2 * STREAM <= 60e9  # two runs, all layers, both branches, one step
    assert plan.lines[-1].blocks == 2 * 50 * 2 * 40  # two generations more
    plan, placed, size = of(span="single", tokens=("ball",))
    assert placed.place == "host" and size <= 30e9 and not plan.problems
    assert placed.sizes == (40 * 2 * STREAM, 40 * 2 * STREAM * 21 * 4 * 4 // 32760)  # a box of 4 x 4 tokens in every frame
    plan, placed, size = of(span="from", steps=(0,), layers=(11,), tokens=("ball",))  # of the donor all steps from the first on
    assert placed.place == "device" and not placed.lean and not plan.problems
    assert placed.sizes == (2 * 2 * STREAM, 50 * 2 * STREAM * 21 * 4 * 4 // 32760) and size <= 30e9
    plan, placed, size = of(span="from", steps=(0,), layers=(11,))
    assert placed.place == "host" and size == (2 + 50) * 2 * STREAM <= 60e9 and not plan.problems
    plan, placed, size = of(span="from", steps=(0,))
    assert placed.place == "disk" and size == (1 + 50) * 40 * 2 * STREAM and not plan.problems
    assert "recordings" not in plan.places["host"]
    plan, placed, size = of(span="single", host_memory="100GB", disk="50GB")
    assert placed.place == "host" and any(problem.startswith("the host takes") for problem in plan.problems)


def test_what_fits_nowhere_says_how_much_disk_would_do_and_what_would_make_it_less(tmp_path, boxed):
    """All steps and layers of the donor, 342 GB, of a range; a single step at a time, and a box, take less."""
    said = {
        "model": str(folder(tmp_path / "model")),
        "pair_file": boxed,
        **A14B | {"disk": "50GB"},
        "span": "from",
        "steps": (0,),
    }
    found = forecast("patching", PatchingConfig(**said), tmp_path, timed=False)
    assert found.plan.placed.nowhere
    (words,) = [problem for problem in found.plan.problems if "with --disk" in problem]
    disk = re.search(r"with --disk (\S+) they would lie there", words)[1]
    whole = (1 + 50) * 40 * 2 * STREAM
    assert whole <= amount(disk) < 1.05 * whole + found.plan.total("disk")
    enough = forecast("patching", PatchingConfig(**said | {"disk": disk}), tmp_path, timed=False)
    assert not enough.plan.problems and enough.plan.placed.place == "disk"
    assert {remedy.partition(" (")[0] for remedy in found.remedies} >= {"--range single", "--tokens ball"}


def test_the_disk_that_would_do_is_that_of_all_processes(tmp_path, pair_file):
    """Each of two processes of one machine has recordings of its own."""
    said = {"model": "tiny:wan2.1", "pair_file": pair_file, "num_inference_steps": 2, "span": "from", "steps": (0,)}
    of = lambda **limits: forecast("patching", PatchingConfig(**said, **limits), tmp_path, workers=2, timed=False).plan
    few = of(host_memory="1kB", disk="1kB")
    (words,) = [problem for problem in few.problems if "with --disk" in problem]
    disk = re.search(r"with --disk (\S+) they would lie there", words)[1]
    assert 2 * sum(few.placed.sizes) + few.total("disk") <= amount(disk)
    assert of(host_memory="1kB", disk=disk).placed.place == "disk"


def test_the_command_prints_it_refuses_what_does_not_fit_and_says_what_would(prompts, tmp_path):
    asked = ["analyze", "chain-of-steps", "--model", "tiny:wan2.1", "--prompts", prompts, "--workers", "1", "--num-steps", "4",
             "--out", str(tmp_path / "run")]  # fmt: skip
    runner = CliRunner()
    fits = runner.invoke(app, [*asked, "--plan"])
    assert fits.exit_code == 0 and "block calls" in fits.output and "FLOP/s" in fits.output
    held = json.loads(runner.invoke(app, [*asked, "--plan", "--json"]).output)
    assert held["block_calls"] == 2 * 4 * 3 and not held["problems"]
    small = runner.invoke(app, [*asked, "--memory", "10kB"])
    said = str(small.exception)
    assert small.exit_code == 1 and "does not fit: the host takes" in said and "what makes it fit" in said
    assert not Path(tmp_path / "run").exists()


LIMITS = {"memory": "10kB", "host_memory": "10kB", "disk": "1kB"}


@pytest.mark.parametrize("given", [False, True])
def test_a_run_from_python_is_refused_as_the_command_is(given, prompts, tmp_path):
    asked = {"prompts": prompts, "num_inference_steps": 2, "workers": 1, "out": tmp_path / "run"}
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1") if given else "tiny:wan2.1"
    with pytest.raises(InterpError, match=r"does not fit: the host takes .*, and has 10 kB") as refused:
        analyses.run("self-correction", model=model, **asked, **LIMITS)
    assert "what makes it fit: " in str(refused.value)
    said = ["analyze", "self-correction", "--model", "tiny:wan2.1", "--prompts", prompts, "--num-steps", "2", "--workers", "1",
            "--memory", "10kB", "--host-memory", "10kB", "--disk", "1kB", "--out", str(tmp_path / "run")]  # fmt: skip
    for shard in ([], ["--shard", "1/2"]):
        command = CliRunner().invoke(app, said + shard)
        assert command.exit_code == 1 and str(command.exception) == str(refused.value)
    assert not (tmp_path / "run").exists()
    fits = analyses.run("self-correction", model=model, **asked, memory="10GB", disk="1GB")
    assert len(fits.rows)


def test_a_dossier_from_python_is_refused_with_what_would_make_each_experiment_fit(prompts, tmp_path):
    asked = {"prompts": prompts, "only": ("self-correction", "trajectory"), "num_inference_steps": 2, "twins": 0}
    with pytest.raises(InterpError) as refused:
        analyses.run("all", model="tiny:wan2.1", out=tmp_path / "run", workers=1, **asked, memory="10kB")
    for name in asked["only"]:
        assert f"does not fit: {name}: the host takes" in str(refused.value) and f"what makes {name} fit" in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_long_run_says_in_a_line_what_it_takes(prompts, tmp_path, monkeypatch):
    """Once, before it begins, beside what is printed for machines; not where it goes on, and a short one says nothing."""
    asked = ["analyze", "self-correction", "--model", "tiny:wan2.1", "--prompts", prompts, "--workers", "1", "--num-steps", "2",
             "--twins", "1", "--json", "--out"]  # fmt: skip
    ran = lambda folder: CliRunner().invoke(app, [*asked, str(tmp_path / folder)])
    assert "block calls" not in ran("short").stderr
    monkeypatch.setattr(ahead, "LONG", 0.0)
    long = ran("long")
    assert json.loads(long.stdout)["findings"] is not None
    assert long.stderr.count("block calls") == 1 and "4 whole generations, 24 block calls; host" in long.stderr
    assert "block calls" not in ran("long").stderr


def test_the_usual_run_of_a_small_model_is_not_even_planned(prompts, monkeypatch, tmp_path):
    usual, config = load("noise").config, lambda **asked: load("noise").config(**asked)
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    assert all(ahead.is_usual(c, model) for c in (usual(), config(items=2, seed=3), config(doses=(0.5,), model="tiny:wan2.1")))
    more = ({"items": 9}, {"twins": 1}, {"prompts": prompts}, {"steps": (0,)}, {"size": "64x64"}, {"doses": (0.5, 1.0)})
    assert not any(ahead.is_usual(config(**asked), model) for asked in more)
    assert ahead.is_usual(PatchingConfig(batch=12), model)  # as the default is settled: so many rows share a forward
    monkeypatch.setattr(ahead, "SMALL", 10)
    assert not ahead.is_usual(usual(), model)


def test_a_plan_of_the_dossier_is_that_of_its_experiments_at_their_first_sizes(tmp_path):
    asked = DossierConfig(model="organism", only=("perception-before-action", "attention"), num_inference_steps=4, budget="1h")
    found = list(foresee.parts(asked, tmp_path, workers=1))
    own = [configured(entry, asked, PILOT) for entry in chosen(asked)]
    plans = [planned(part.name, config, tmp_path) for part, config in zip(found, own, strict=True)]
    assert [part.found.plan.blocks for part in found] == [plan.blocks for plan in plans]
    assert sum(part.allowed for part in found) == pytest.approx(3600) and all(2 <= part.most <= 125 for part in found)
    said = "\n".join(foresee.lines(asked, found))
    whole = asked.model_copy(update={"budget": "none", "only": ("perception-before-action",)})
    (own,) = foresee.parts(whole, tmp_path, workers=1)  # the size that its run has, which no time decides
    assert own.fixed and own.most is None and own.items == load("perception-before-action").config().items
    assert f"in all {sum(plan.blocks for plan in plans):,} block calls" in said and "share of --budget 1h" in said


def test_an_experiment_that_does_not_say_what_it_takes_is_named(tmp_path):
    with pytest.raises(InterpError, match=r"settling does not say what it takes: there are plans of patching, chain-of-steps"):
        forecast("settling", load("memory").config(), tmp_path)
