"""Saving calls of blocks: bit for bit against plain hooks, a planted layer is found and spared, schedules of equal cost."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import TaylorSeerCacheConfig
from players import players
from pydantic import ValidationError

from cos_interp.analyses.acceleration import AccelerationConfig
from cos_interp.analyses.acceleration.exported import as_json, cached_steps, grouped, held_modules, taylorseer, tells_branches
from cos_interp.analyses.acceleration.findings import findings
from cos_interp.analyses.acceleration.measure import cells_of, experts_of
from cos_interp.analyses.acceleration.saving import Plan, Saving, parts, rounded, saved_runs
from cos_interp.analyses.acceleration.schedules import bands, cells, chosen, random, spanned, uniform
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import run_and_report
from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.problems import arguments, problems
from cos_interp.analyses.kit.updates import before
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.batch import joined
from cos_interp.interp.errors import InterpError
from cos_interp.interp.families import tiny
from tests.support import hooked_tiny, tiny_call

STEPS = 4
SIZE = {k: v for k, v in tiny_call("wan21-t2v").items() if k in ("height", "width", "num_frames", "max_sequence_length")}
PAGE = Path(__file__).parents[2] / "docs/experiments/acceleration.md"
CALL = {k: v for k, v in tiny_call("wan21-t2v", guidance=1.0, steps=STEPS).items() if k != "generator"} | {"seed": 0}
POOL = cells([range(10)], 8, ("cond",), 3, 2)


# --- schedules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps, count, interval", [(10, 3, 2), (20, 5, 2), (50, 4, 3), (4, 1, 2), (5, 9, 2), (9, 20, 5)])
def test_bands_hold_every_step_but_the_first_once(steps, count, interval):
    for stretch in (range(steps), range(7, 7 + steps)):
        found = bands(stretch, count, interval)
        assert [step for a, b in found for step in range(a, b + 1)] == list(stretch)[1:] and len(found) <= count


def test_all_schedules_cost_the_same():
    for count in (1, 8, 13, 24):
        made = [
            uniform(spanned(POOL), 8, ("cond",), count),
            random(POOL, 2, count, 0),
            chosen(dict.fromkeys(POOL, (0.0, 1.0)), 2, count),
        ]
        assert [len(set(one)) for one in made] == [count] * 3
        assert all(step > 0 for one in made for step, _, _ in one)
    assert random(POOL, 2, 9, 0) == random(POOL, 2, 9, 0) != random(POOL, 2, 9, 1)


def test_what_is_missed_least_is_saved_first():
    """Answers come before distances: a cell that moves the latent little and flips an answer is kept."""
    damage = {cell: (0.5, 0.0) if cell.layer == 0 else (0.0, (1.0 + cell.layer) * len(cell.calls(2))) for cell in POOL}
    count = sum(len(cell.calls(2)) for cell in POOL if cell.layer == 1)
    assert {layer for _, layer, _ in chosen(damage, 2, count)} == {1}
    everything = chosen(damage, 2, 999)
    assert len(everything) == sum(len(cell.calls(2)) for cell in POOL)
    assert {layer for _, layer, _ in chosen(damage, 2, len(everything) - 5)} == set(range(8)) - {0}


def test_a_schedule_in_the_words_of_diffusers():
    regular = [(step, layer, "cond") for step in (3, 5, 7) for layer in (1, 4)]
    assert grouped(regular) == [{"branch": "cond", "layers": [1, 4], "steps": [3, 5, 7]}]
    names = [[f"blocks.{layer}.ffn"] for layer in range(8)]
    found = as_json(regular, "cache", 10, ("cond",), 0.1, names)
    (config,) = found["diffusers"]["TaylorSeerCacheConfig"]["transformer"]
    assert (config["cache_interval"], config["disable_cache_before_step"], config["disable_cache_after_step"]) == (2, 3, 8)
    assert json.loads(json.dumps(found)) == found and TaylorSeerCacheConfig(**config).max_order == 0
    assert taylorseer(names[0], [2, 3, 4], "cache") is None and taylorseer(names[0], [2], "cache") is not None
    assert taylorseer(names[0], [*range(1, 30)], "skip")["cache_interval"] == 30  # all steps but the first
    both = [(step, 1, branch) for step in (1, 3) for branch in ("cond", "uncond")]
    assert as_json(both, "cache", 4, ("cond", "uncond"), 0.1, names)["diffusers"] is not None
    assert as_json(both, "cache", 4, ("cond", "uncond"), 0.1, (), "no names")["not in diffusers because"] == "no names"
    for calls, method, why in ((both[:3], "cache", "branches"), ([(2, 0, "cond"), (3, 0, "cond")], "cache", "regular"),
                               (regular, "round", "no hook")):  # fmt: skip
        told = as_json(calls, method, 4, ("cond", "uncond") if calls == both[:3] else ("cond",), 0.1, names)
        assert told["diffusers"] is None and why in told["not in diffusers because"]


def apply(pipe, schedule, folder) -> None:
    """The code of the page, on a schedule that a run has left."""
    (folder / "media").mkdir()
    (folder / "media/schedule.json").write_text(json.dumps(schedule))
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert code.count('"runs/cache/media') == 1
    exec(code.replace("runs/cache", str(folder)), {"pipe": pipe})


# at the steps of each expert from its first on: two groups of layers
SAVED = {"cache": {0: (1, 3), 1: (2,)}, "skip": {0: (1, 2), 1: (2,)}}


@pytest.mark.parametrize("method", ["cache", "skip"])
@pytest.mark.parametrize("family", ["wan2.1", "wan2.2", "cogvideox", "hunyuan", "hunyuan1.5", "mochi", "motif", "skyreels-v2"])
def test_diffusers_makes_the_video_of_the_schedule(family, method, tmp_path):
    """A plain pipeline, which has run before, with the printed configurations: the latents of the own run, in both branches,
    in every stream, and with two experts, of which the second counts its steps from its own first one. Twice, since what is
    held must not outlast a run."""
    pipe = tiny.build(family)
    model = HookedVideoPipeline.from_pipeline(tiny.build(family))
    call = {k: v for k, v in tiny.call(family, steps=6).items() if k != "generator"} | {"seed": 0}
    run = model.run(**call)
    experts, branches = experts_of(run), run.branches
    assert len(branches) == 2 and list(experts.values()) == ([(0, 3), (3, 6)] if family == "wan2.2" else [(0, 6)])
    calls = [(first + step, layer, branch) for first, end in experts.values() for layer, steps in SAVED[method].items()
             for step in steps if first + step < end for branch in branches]  # fmt: skip
    own, saved = saved_runs(model, call, [Plan(method, frozenset(calls))], 2).split(1)

    def plain() -> torch.Tensor:
        given = {**model.defaults, **{k: v for k, v in call.items() if k != "seed"}}
        generator = torch.Generator("cpu").manual_seed(0)
        out = pipe(**given, generator=generator, output_type="latent", return_dict=False)[0]
        return out.transpose(1, 2) if family == "cogvideox" else out  # its own layout has frames first

    apart = lambda a, b: float((a - b).norm() / own.norm())
    assert apart(plain(), own) < 1e-6
    apply(pipe, as_json(calls, method, 6, branches, 0.1, *held_modules(model.engines), experts), tmp_path)
    first, second = plain(), plain()
    assert torch.equal(first, second) and apart(first, saved) < 1e-6 < 2e-5 < apart(first, own)


@pytest.mark.parametrize("family", ["wan2.1", "latte", "hunyuan", "motif", "kandinsky5"])
def test_diffusers_computes_where_the_schedule_says(family, tmp_path):
    """The printed configurations on the pipeline itself, of two groups: the last layer's attention runs at the steps that are not
    saved, that of layer 1 at another number, and those of the others at every step."""
    pipe = tiny.build(family)
    model = HookedVideoPipeline.from_pipeline(pipe)
    (engine,) = model.engines.values()
    last = model.layers - 1
    calls = [(1, last, "cond"), (3, last, "cond"), (2, 1, "cond")]
    modules, unfit = held_modules(model.engines)
    assert not unfit and len(modules) == model.layers
    apply(pipe, as_json(calls, "cache", STEPS, ("cond",), 0.1, modules, unfit), tmp_path)
    ran = dict.fromkeys(range(model.layers), 0)
    for layer in ran:

        def count(module, args, out, layer=layer):
            ran[layer] += 1

        block = engine.module.get_submodule(engine.blocks[layer])
        attention = next(getattr(block, name) for name in ("attn1", "attn", "self_attention") if hasattr(block, name))
        (attention.to_query if hasattr(attention, "to_query") else attention.to_q).register_forward_hook(count)
    call = {k: v for k, v in tiny.call(family).items() if k not in ("seed", "generator")}
    call |= {"guidance_scale": 1.0} if family != "motif" else {}
    with engine.module.cache_context("cond"):
        pipe(**call | {"num_inference_steps": STEPS, "output_type": "latent"})
    passes = ran[0] // STEPS  # a step, with and without the prompt
    assert passes in (1, 2) and cached_steps(1, 2, 4) == [1, 3]
    assert ran == {layer: passes * (STEPS - {last: 2, 1: 1}.get(layer, 0)) for layer in ran}


def test_a_transformer_without_a_cache_context_has_a_reason():
    modules, unfit = held_modules(HookedVideoPipeline.from_pipeline(tiny.build("sana-video")).engines)
    assert modules == () and "no cache_context" in unfit
    told = [tells_branches(tiny.build(family)) for family in ("wan2.1", "hunyuan", "motif", "kandinsky5", "latte")]
    assert told == [True, True, True, False, False]


# --- runs ------------------------------------------------------------------------------------------------------------


def test_rounding_by_hand():
    x = torch.tensor([[1.0, 0.3, -0.6], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(rounded(x, 3), torch.tensor([[1.0, 1 / 3, -2 / 3], [0.0, 0.0, 0.0]]))
    draw = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    assert (rounded(draw, 8) - draw).abs().max() < (rounded(draw, 4) - draw).abs().max() < draw.abs().max() / 7
    assert all(len(set(np.round((row / row.abs().max() * 7).tolist(), 4))) <= 15 for row in rounded(draw, 4))


@pytest.mark.parametrize("method", ["cache", "skip"])
def test_saved_calls_are_those_of_plain_hooks(method):
    """Row 1 of a plain pipeline with forward hooks on block 1: to skip it is to give back its input, whatever it computes; cached
    parts give what they gave last, and their gates are of the step."""
    model, calls = hooked_tiny(), frozenset([(1, 1, "cond"), (2, 1, "cond")])
    both = joined([CALL, CALL])
    found = model.run_with_hooks(fwd_hooks=Saving([Plan(method, calls)]).hooks(model), **both).latents
    block = model.pipe.transformer.blocks[1]
    held, seen = {}, dict.fromkeys((block, block.attn1, block.attn2, block.ffn), 0)

    def hook(module, args, kwargs, out):
        step, new = seen[module], out.clone()
        seen[module] += 1
        if (step, 1, "cond") in calls:
            new[1] = held[module] if method == "cache" else args[0][1]
        held[module] = new[1]
        return new

    hooked = (block.attn1, block.attn2, block.ffn) if method == "cache" else (block,)
    handles = [module.register_forward_hook(hook, with_kwargs=True) for module in hooked]
    generators = [torch.Generator("cpu").manual_seed(0) for _ in range(2)]
    given = {**model.defaults, **{k: v for k, v in both.items() if k != "seed"}}
    plain = model.pipe(**given, generator=generators, output_type="latent", return_dict=False)[0]
    for handle in handles:
        handle.remove()
    assert torch.equal(found, plain) and not torch.equal(found[0], found[1]) and {seen[module] for module in hooked} == {STEPS}


@pytest.mark.parametrize("family", ["cogvideox", "hunyuan", "mochi", "cosmos1", "sana-video", "latte", "easyanimate", "ltx2"])
def test_a_skipped_block_adds_nothing_to_any_stream(family):
    """Bit for bit, in every layer: what it hands on, of video, text and audio, is what it was handed."""
    model = HookedVideoPipeline.from_pipeline(tiny.build(family))
    call = {k: v for k, v in tiny.call(family, steps=2).items() if k != "generator"} | {"seed": 0}
    compared = 0
    for layer in range(model.layers):
        zero = [(name, lambda act, hook: act * 0) for name in parts(model.hook_names) if name.startswith(f"blocks.{layer}.")]
        names = [name for name in model.hook_names if name.startswith(f"blocks.{layer}.hook_resid_post")]
        handed: dict = {}
        keep = lambda act, hook, handed=handed: handed.update({(hook.name, hook.branch): act.clone()})
        read = [(name, keep) for name in (*names, *map(before, names))]
        model.run_with_hooks(fwd_hooks=[*zero, *read], **call)
        for name in names:
            assert all(torch.equal(handed[before(name), b], handed[name, b]) for n, b in handed if n == name), name
            compared += 1
    assert compared >= model.layers


def test_no_expert_begins_with_a_call_that_is_saved():
    """At the first step of the second expert nothing is held: its calls would be counted as saved and computed all the same."""
    model = hooked_tiny("wan22-t2v")
    run = model.run(**{k: v for k, v in tiny_call("wan22-t2v", steps=8).items() if k != "generator"}, seed=0)
    experts = experts_of(run)
    assert experts == {"transformer": (0, 3), "transformer_2": (3, 8)}
    assert all(call.expert == ("transformer" if call.step < 3 else "transformer_2") for call in run.calls)
    for interval in (2, 3):
        pool = cells_of(AccelerationConfig(bands=2, interval=interval), experts, model.layers, run.branches)
        most = sum(len(cell.calls(interval)) for cell in pool)
        for count in (5, most):
            made = [uniform(spanned(pool), model.layers, run.branches, count), random(pool, interval, count, 0)]
            made.append(chosen(dict.fromkeys(pool, (0.0, 1.0)), interval, count))
            assert [len(set(one)) for one in made] == [count] * 3
            assert {step for one in made for step, _, _ in one}.isdisjoint({0, 3})


def test_each_branch_is_saved_by_itself():
    model = hooked_tiny()
    call = {**CALL, "guidance_scale": 3.0}
    calls = [frozenset([(1, 1, branch)]) for branch in ("cond", "uncond")]
    plans = [Plan("skip", one) for one in (*calls, frozenset().union(*calls))]
    plain, cond, uncond, both = saved_runs(model, call, plans, 8).split(1)
    assert len({one.numpy().tobytes() for one in (plain, cond, uncond, both)}) == 4
    assert torch.equal(saved_runs(model, call, plans[:1], 2)[0:1], model.run(**joined([call, call])).latents[:1])


def test_nothing_saved_changes_nothing_and_many_bits_little():
    model, calls = hooked_tiny(), frozenset([(1, 1, "cond")])
    own, none, fine, coarse = saved_runs(
        model, CALL, [Plan("cache", frozenset()), Plan("round", calls, 16), Plan("round", calls, 3)], 4
    )
    assert torch.equal(own, none)
    assert 0 < (fine - own).norm() < (coarse - own).norm()


def only_layer(model, layer: int) -> None:
    """All other layers write exactly nothing."""
    for n, block in enumerate(model.pipe.transformer.blocks):
        if n != layer:
            for part in (block.attn1.to_out[0], block.attn2.to_out[0], block.ffn.net[2]):
                torch.nn.init.zeros_(part.weight)
                torch.nn.init.zeros_(part.bias)


def test_a_planted_layer_is_found_and_spared(tmp_path):
    """Layer 1 alone does anything: all else moves the latent by no more than the place of a row in a batch does, and is saved."""
    model = hooked_tiny()
    only_layer(model, 1)
    path = tmp_path / "four.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"a ball {n}", "seed": n}) + "\n" for n in range(4)))
    config = AccelerationConfig(prompts=str(path), num_inference_steps=STEPS, bands=1, draws=2, savings=(0.25,))
    result, report = run_and_report(load("acceleration"), config, tmp_path / "run", model=model, workers=1)
    mapped, tested = (result.rows[result.rows.stage == stage] for stage in ("map", "test"))
    for method in ("cache", "skip", "round"):
        moved = mapped[mapped.method == method].groupby("layer").distance.mean()
        assert moved[1] > 1e-4 > 1e-6 > max(moved[0], moved[2]), method
    schedule = report.data["schedule"]
    assert [(g["layers"], g["steps"]) for g in schedule["groups"]] in ([([0, 2], [1, 3])], [([0], [1, 3]), ([2], [1])])
    means = tested.groupby("schedule").distance.mean()
    assert means["chosen"] < 1e-6 < 1e-4 < means["uniform"] and tested.calls.nunique() == 1
    assert set(tested.problem).isdisjoint(mapped.problem) and tested.problem.nunique() == 2
    assert json.loads((tmp_path / "run" / "media" / "schedule.json").read_text()) == json.loads(json.dumps(schedule))
    assert {f["verdict"] for f in report.data["findings"]} == {"not testable"}  # two prompts, no verifier
    shown = players(report.html)["prompt-001"]["rows"]
    assert [row["name"] for row in shown] == ["as it is", "chosen", "whole steps, evenly spread", "random calls"]
    assert set(players(report.html)) == set(tested.problem)  # every tested item leads to its clips
    assert '<a href="#reel-' in report.html and "distance, chosen" in report.html
    frames = RunStore(tmp_path / "run").tensors("test-prompt-001")["frames"].numpy()
    plain = model.run(**arguments(model, config, problems(config)[1])).decode()[0]
    assert np.abs(frames[0].astype(int) - plain).max() <= 1 and np.abs(frames[1].astype(int) - plain).max() <= 1
    assert np.abs(frames[2].astype(int) - plain).max() > 1  # whole steps also leave out the layer that does all


def test_bad_settings_are_refused(tmp_path):
    with pytest.raises(ValidationError, match="between 0 and 1"):
        AccelerationConfig(savings=(1.5,))
    experiment, model, one = load("acceleration"), hooked_tiny(), tmp_path / "one.txt"
    one.write_text("a ball\n")
    with pytest.raises(InterpError, match="--by skip"):
        experiment.check(AccelerationConfig(methods=("cache",), by="skip", prompts=str(one)), model)
    with pytest.raises(InterpError, match="two or more"):
        experiment.check(AccelerationConfig(prompts=str(one)), model)


def test_what_is_asked_is_answered_as_plain_hooks_have_it(tmp_path):
    """May block 1 be left out at steps 1 and 2? The distance is that of a pipeline whose block returns its input."""
    (tmp_path / "two.jsonl").write_text("\n".join(json.dumps({"prompt": p, "seed": 0} | SIZE) for p in ("a ball", "a box")))
    config = AccelerationConfig(
        prompts=str(tmp_path / "two.jsonl"), num_inference_steps=STEPS, methods=("skip",), by="skip", bands=1, draws=1,
        savings=(0.1,), asked=("1@1:3", "0+1@3"),
    )  # fmt: skip
    result, page = run_and_report(load("acceleration"), config, tmp_path / "run", model=hooked_tiny(), workers=1)
    asked = result.rows[result.rows.stage == "asked"].set_index(["asked", "problem"])
    assert len(asked) == 4 and asked.calls.groupby("asked").first().to_dict() == {"1@1:3": 2, "0+1@3": 2}
    pipe, calls, left_out = tiny.build("wan2.1"), [0], set()
    block = pipe.transformer.blocks[1]
    block.register_forward_hook(lambda m, given, out: given[0] if calls[0] in left_out else None)
    pipe.transformer.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))

    def made(*steps):
        calls[0] = 0
        left_out.clear()
        left_out.update(steps)
        call = {"prompt": "a ball", "num_inference_steps": STEPS, "guidance_scale": 1.0, **SIZE}
        return pipe(**call, generator=torch.Generator().manual_seed(0), output_type="latent", return_dict=False)[0]

    own, skipped = made(), made(1, 2)
    by_hand = float((skipped - own).norm() / own.norm())
    first = asked.loc["1@1:3"].distance.iloc[0]
    assert first == pytest.approx(by_hand, rel=1e-4) and first > 0
    assert "What was asked about" in page.html and any("layers 1, steps 1 to 2, method skip" in line for line in page.lines)


@pytest.mark.parametrize(
    ("asked", "said"), [("1@0", "the first step is computed"), ("9@1", "layers 0 to 2"), ("1@2:9", "steps 0 to 3")]
)
def test_what_cannot_be_asked_is_said(asked, said, tmp_path):
    (tmp_path / "two.txt").write_text("a ball\na box\n")
    config = AccelerationConfig(prompts=str(tmp_path / "two.txt"), num_inference_steps=STEPS, asked=(asked,))
    with pytest.raises(InterpError, match=said):
        load("acceleration").check(config, hooked_tiny())
    for none in ("3", "3@", "3@5:5", "x@1", "3@5:2"):
        with pytest.raises(ValidationError, match="give layers and steps"):
            AccelerationConfig(asked=(none,))


# --- verdicts --------------------------------------------------------------------------------------------------------


def made_up(kept: dict[str, float], moved: dict[str, float], items: int = 60, seed: int = 0) -> pd.DataFrame:
    rng, rows = np.random.default_rng(seed), []
    for i in range(items):
        for saving in (0.125, 0.25):
            for name in ("chosen", "uniform", "random 0", "random 1"):
                kind = name.split()[0]
                row = {"problem": f"p{i:03}", "task": "maze", "stage": "test", "schedule": name, "saving": saving, "calls": 5}
                loss = 1.0 if saving == 0.125 else None  # the other saving does not decide
                row |= {"kept": loss or float(rng.random() < kept[kind]), "distance": loss or moved[kind] * rng.uniform(0.8, 1.2)}
                rows.append(row)
    return pd.DataFrame(rows)


def judged(rows, twins=()):
    return findings(AnalysisResult("acceleration", AccelerationConfig(), rows, twins=twins))


def test_a_map_that_helps_is_reproduced():
    rows = made_up({"chosen": 1.0, "uniform": 0.3, "random": 0.4}, {"chosen": 0.1, "uniform": 0.4, "random": 0.3})
    kept, nearer, more = judged(rows)
    assert [one.verdict for one in (kept, nearer, more)] == ["reproduced"] * 3 and not more.primary
    at = rows[rows.saving == 0.25]
    table = at.assign(kind=at.schedule.str[:6]).groupby(["problem", "kind"]).distance.mean().unstack()
    by_hand = [(r - c) / max(r, c) for c, r in zip(table.chosen, table["random"], strict=True)]
    assert nearer.number.value == pytest.approx(np.mean(by_hand), rel=1e-12)
    assert judged(rows, [{"acceleration.schedule": Number(0.7, 0.6, 0.8, 20)}])[1].verdict == "undecided"


def test_a_map_that_tells_nothing_is_refuted_and_a_model_that_keeps_all_has_no_room():
    alike = dict.fromkeys(("chosen", "uniform", "random"), 0.3)
    kept, nearer, more = judged(made_up(alike, alike, items=150))
    assert kept.verdict == nearer.verdict == "refuted" and more.verdict != "reproduced"
    ceiling = judged(made_up(dict.fromkeys(alike, 1.0), alike))
    assert ceiling[0].verdict == "reproduced" and ceiling[2].verdict == "not testable" and "--savings" in ceiling[2].why


def test_the_same_schedule_thrice_shows_nothing():
    rows = made_up(dict.fromkeys(("chosen", "uniform", "random"), 0.6), dict.fromkeys(("chosen", "uniform", "random"), 0.3))
    first = rows[rows.schedule == "chosen"].set_index(["problem", "saving"])
    for value in ("kept", "distance"):
        rows[value] = [first.loc[(p, s), value] for p, s in zip(rows.problem, rows.saving, strict=True)]
    _, nearer, more = judged(rows)
    assert nearer.number.value == more.number.value == 0 and "reproduced" not in (nearer.verdict, more.verdict)
