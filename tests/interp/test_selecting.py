"""What is asked for against what there is: every form that people write, and nothing left out without a word."""

from __future__ import annotations

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import build_tiny, tiny_call

from cos_interp.interp import Address, HookedVideoPipeline, InterpError, Patch, UnknownHook, record, replay, restart, tiny
from cos_interp.interp.selecting import numbers, spread, token_mask

GRID = (3, 2, 2)


@given(st.integers(1, 9), st.data())
def test_whole_numbers_of_every_library_mean_the_same(size, data):
    asked = data.draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=5))
    right = tuple(dict.fromkeys(range(size)[n] for n in asked))
    for form in (asked, tuple(asked), np.array(asked), torch.tensor(asked), [np.int32(n) for n in asked],
                 [torch.tensor(n) for n in asked], ",".join(map(str, asked)) if len(asked) > 1 else str(asked[0]),
                 f"[{','.join(map(str, asked))}]"):  # fmt: skip
        assert numbers(form, size, "step") == right
    assert numbers(asked[0], size, "step") == numbers(np.int64(asked[0]), size, "step") == (range(size)[asked[0]],)
    assert numbers(None, size, "step") == numbers("all", size, "step") == numbers(slice(None), size, "step") == tuple(range(size))


@given(st.integers(1, 9), st.data())
def test_ranges_are_pythons_and_end_where_the_axis_ends(size, data):
    start, stop = sorted((data.draw(st.integers(0, size)), data.draw(st.integers(0, size))))
    stride = data.draw(st.integers(1, 3))
    right = tuple(range(start, stop, stride))
    for form in (slice(start, stop, stride), range(start, stop, stride), f"{start}:{stop}:{stride}"):
        if right:
            assert numbers(form, size, "step") == right
        else:
            with pytest.raises(InterpError, match=r"names nothing|reaches beyond"):
                numbers(form, size, "step")


@pytest.mark.parametrize(
    "asked",
    [4, -5, [0, 4], range(30, 40), slice(2, 9), slice(2, 5), slice(9, None), slice(3, 1), "30:40", "0,9", [], np.array([]),
     True, [True], 1.0, [0.5], np.float64(1), torch.tensor([0.5]), torch.tensor([[1]]), "foo", "1:x", "0 1", {0: 1}, b"1",
     object(), slice(0, 2, 0)],
)  # fmt: skip
def test_what_is_not_there_or_is_no_number_is_refused(asked):
    with pytest.raises(InterpError):
        numbers(asked, 4, "step")


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_every_form_of_a_token_selection_is_the_same_mask():
    right = torch.zeros(GRID, dtype=torch.bool)
    right[1, :, 0] = True
    cells = [(1, 0, 0), (1, 1, 0)]
    along = ({"frame": 1, "col": [0]}, {"frame": slice(1, 2), "col": np.int64(0)}, {"frame": "1", "col": -2})
    for form in (right, right.numpy(), right.tolist(), cells, set(cells), np.array(cells), *along):
        assert torch.equal(token_mask(form, GRID), right)
    assert token_mask(None, GRID) is None


@pytest.mark.parametrize(
    "asked",
    [{"frames": [1]}, {"Frame": [1]}, {"frame": [9]}, {"frame": []}, [(3, 0, 0)], [(0, 0, -1)], [(0, 0)], [[0, 1], [2]],
     "some", 3, torch.zeros(GRID, dtype=torch.bool), torch.ones(GRID), np.ones((2, 2), bool), [(0.5, 0, 0)]],
)  # fmt: skip
def test_a_token_selection_that_selects_nothing_or_is_none_is_refused(asked):
    with pytest.raises(InterpError):
        token_mask(asked, GRID)


def test_a_token_stands_for_its_cells():
    mask = token_mask({"frame": 1, "row": 0, "col": 1}, GRID)
    cells = spread(mask, (5, 4, 4))  # a last token of frames has one cell
    assert cells.nonzero().tolist() == [[f, r, c] for f in (2, 3) for r in (0, 1) for c in (2, 3)]


# --- in a run ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> HookedVideoPipeline:
    return HookedVideoPipeline.from_pipeline(build_tiny("wan21-t2v"))


CALL = tiny_call("wan21-t2v") | {"num_inference_steps": 3, "guidance_scale": 1.0, "seed": 0}


@pytest.mark.parametrize(
    ("address", "message"),
    [("step=3", "no step 3"), ("step=30:40", "beyond"), ("frame=99", "no frame 99"), ("branch=uncond", "no uncond branch"),
     ("row=0:99", "beyond"), ("step=2:1", "names nothing")],
)  # fmt: skip
def test_an_edit_of_what_the_run_has_not_is_refused_before_it(model, address, message):
    before = model.block_calls
    with pytest.raises(InterpError, match=message):
        model.run_with_hooks(fwd_hooks=[(f"blocks.0.hook_resid_post @ {address}", lambda act, hook: act)], **CALL)
    assert model.block_calls == before


def test_a_head_that_is_not_there_is_refused(model):
    for name, address, message in (("attn.hook_z", "head=7", "no head 7"), ("*", "head=0", "name only what has it")):
        with pytest.raises(InterpError, match=message):
            model.run_with_hooks(fwd_hooks=[(f"blocks.0.{name} @ {address}", lambda act, hook: act)], **CALL)


@pytest.mark.parametrize(
    "asked",
    [{"steps": [0, 99]}, {"branches": "uncond"}, {"tokens": {"frames": [0]}}, {"steps": 1.0}, {"names": []}, {"names": 5},
     {"names": [None]}, {"names": {"hook_x_t": 1}}, {"branches": 5}, {"branches": ()}, {"branches": ["cond", None]},
     {"max_bytes": math.nan}, {"max_bytes": "1GB"}, {"max_bytes": True}, {"max_bytes": -1}, {"reduce": 5}],
)  # fmt: skip
def test_a_cache_of_what_the_run_has_not_is_refused_before_it(model, asked):
    before = model.block_calls
    with pytest.raises(InterpError):
        model.run_with_cache(**{"names": "blocks.0.hook_resid_post", **asked}, **CALL)
    assert model.block_calls == before


def test_a_hook_that_never_acts_is_an_error_at_the_end():
    two = HookedVideoPipeline.from_pipeline(tiny.build("wan2.2"))
    call = {k: v for k, v in tiny.call("wan2.2").items() if k != "num_inference_steps"}
    seen = {c.expert for c in two.run(num_inference_steps=2, seed=0, **call).calls}
    assert "transformer" in seen
    if seen == {"transformer"}:
        with pytest.raises(InterpError, match="never acted"):
            hook = ("blocks.0.hook_resid_post @ expert=transformer_2", lambda act, hook: act)
            two.run_with_hooks(fwd_hooks=[hook], num_inference_steps=2, seed=0, **call)


@pytest.mark.parametrize("family", ["hunyuan", "hunyuan1.5", "ltx2", "sana-video-i2v"])
def test_the_last_step_of_the_users_own_noise_levels_is_the_last_that_runs(family):
    own = HookedVideoPipeline.from_pipeline(tiny.build(family))
    call = {k: v for k, v in tiny.call(family).items() if k != "num_inference_steps"} | {
        "sigmas": [1.0, 0.7, 0.4, 0.2],
        "seed": 0,
    }
    edited: list[int] = []
    run = own.run_with_hooks(fwd_hooks=[("hook_x0hat @ step=-1", lambda act, hook: edited.append(hook.step))], **call)
    assert run.steps == 4 and edited == [3]
    _, cache = own.run_with_cache(names="hook_x_t", steps=-1, **call)
    assert [step for _, step, _ in cache] == [3]


@pytest.mark.parametrize(
    ("hooks", "message"),
    [(("hook_x_t", print), "one pair"), ("hook_x_t", "pair or a name"), ([("hook_x_t", None)], "not a function"),
     ([("hook_x_t",)], "no pair"), ([("hook_x_t", lambda act: act)], r"must take \(activation, hook\)"),
     ([(3, print)], "no pair"), (None, "fwd_hooks=None: give a list"), (5, "fwd_hooks=5: give a list")],
)  # fmt: skip
def test_wrong_hooks_are_named(model, hooks, message):
    with pytest.raises(InterpError, match=message):
        model.run_with_hooks(fwd_hooks=hooks, **CALL)


@pytest.mark.parametrize("name", ["hook_x_t", "blocks.0.hook_resid_post", "blocks.1.attn.hook_z @ head=0"])
def test_an_edit_in_place_that_returns_nothing_is_an_error(model, name):
    """It would change a copy: the run would be as without it, which looks like a null result."""

    def erased(act, hook):
        act.mul_(0)

    seen = []
    model.run_with_hooks(fwd_hooks=[(name, lambda act, hook: seen.append(act.norm()))], **CALL)
    assert seen
    with pytest.raises(InterpError, match="changed its copy in place and returned None"):
        model.run_with_hooks(fwd_hooks=[(name, erased)], **CALL)


def test_wrong_keywords_say_what_to_write(model):
    for wrong, message in (
        ({"fwd_hooks": []}, r"run_with_hooks\(fwd_hooks"), ({"promt": "a"}, "did you mean prompt"),
        ({"prompt": [None]}, "give a text"), ({"prompt": ["a", 5]}, "give a text"), ({"prompt": []}, "give a text"),
        ({"negative_prompt": 3}, "give a text"),
        ({"max_sequence_length": 10**9}, "GiB for each head"),
        ({"generator": torch.Generator()}, "seed and generator"), ({"height": 8_000_000, "width": 80_000}, "GiB"),
    ):  # fmt: skip
        with pytest.raises(InterpError, match=message):
            model.run(**{**CALL, **wrong})
    with pytest.raises(InterpError, match=r"the hook at blocks.0.hook_resid_post .*, step 0, gave torch.float64"):
        edit = lambda act, hook: act.double()
        model.run_with_hooks(fwd_hooks=[("blocks.0.hook_resid_post @ frame=0", edit)], **CALL)


def test_noise_levels_without_one_are_refused():
    own = HookedVideoPipeline.from_pipeline(tiny.build("hunyuan"))
    with pytest.raises(InterpError, match="sigmas is empty: give one number a step"):
        own.run(**tiny.call("hunyuan") | {"sigmas": [], "seed": 0})


# --- values kept ------------------------------------------------------------------------------------------------------


def test_tokens_of_a_latent_are_the_cells_of_the_tokens(model):
    names = ["hook_x_t", "hook_x0hat", "hook_model_out", "blocks.0.hook_resid_post"]
    run, whole = model.run_with_cache(names=names, **CALL)
    _, part = model.run_with_cache(names=names, tokens={"frame": [1]}, **CALL)
    cells = model.patch(run.latents)
    for name in names:
        value, axes = whole[name, 1], whole.axes[name]
        size = cells[0] if "channel" in axes else 1
        right = value.narrow(axes.index("frame"), size, size).flatten(axes.index("frame"), axes.index("col"))
        assert torch.equal(part[name, 1], right) and part.axes[name][axes.index("frame")] == "token"


@pytest.mark.parametrize("tokens", [None, {"frame": [1]}])
def test_the_mean_is_over_tokens_whatever_the_axes(model, tokens):
    names = [
        "hook_x_t",
        "blocks.0.hook_resid_post",
        "blocks.0.attn.hook_z",
        "blocks.0.attn.hook_pattern",
        "blocks.0.cross_attn.hook_k",
    ]
    run, whole = model.run_with_cache(names=names, **CALL)
    _, mean = model.run_with_cache(names=names, tokens=tokens, reduce="mean", **CALL)
    right = {
        "hook_x_t": lambda v: v.mean((2, 3, 4)), "blocks.0.hook_resid_post": lambda v: v.mean((1, 2, 3)),
        "blocks.0.attn.hook_z": lambda v: v.mean((1, 2, 3)), "blocks.0.attn.hook_pattern": lambda v: v.mean((2, 3, 4)),
        "blocks.0.cross_attn.hook_k": lambda v: v.mean(1),
    }  # fmt: skip
    kept = {"hook_x_t": ("batch", "channel"), "blocks.0.hook_resid_post": ("batch", "d_model"),
            "blocks.0.attn.hook_z": ("batch", "head", "d_head"), "blocks.0.attn.hook_pattern": ("batch", "head", "key"),
            "blocks.0.cross_attn.hook_k": ("batch", "head", "d_head")}  # fmt: skip
    for name in names:
        value, axes = whole[name, 1], whole.axes[name]
        if tokens and "frame" in axes:
            size = model.patch(run.latents)[0] if "channel" in axes else 1
            value = value.narrow(axes.index("frame"), size, size)
        torch.testing.assert_close(mean[name, 1], right[name](value))
        assert mean.axes[name] == kept[name]
    with pytest.raises(InterpError, match="hook_time_emb has none"):
        model.run_with_cache(names="hook_time_emb", reduce="mean", **CALL)


@pytest.mark.parametrize("tokens", [None, [(1, 0, 1), (2, 1, 1)]])
def test_the_norm_is_over_channels_wherever_they_lie(model, tokens):
    along = {"hook_x_t": 1, "blocks.0.hook_resid_post": -1, "blocks.0.attn.hook_z": -1, "blocks.0.cross_attn.hook_k": -1,
             "hook_time_emb": -1}  # fmt: skip
    _, kept = model.run_with_cache(names=list(along), tokens=tokens, **CALL)
    _, norms = model.run_with_cache(names=list(along), tokens=tokens, reduce="norm", **CALL)
    for name, axis in along.items():
        torch.testing.assert_close(norms[name, 1], kept[name, 1].square().sum(axis).sqrt())
        assert norms.axes[name] == tuple(a for a in kept.axes[name] if a not in ("channel", "d_model", "d_head"))
    with pytest.raises(InterpError, match="hook_pattern has none"):
        model.run_with_cache(names="blocks.0.attn.hook_pattern", reduce="norm", **CALL)


# --- patches ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recordings(model):
    sites = ["blocks.*.attn.hook_z", "blocks.*.cross_attn.hook_k"]
    return [record(model, sites, **CALL | {"seed": seed}) for seed in (0, 1)]


def test_forms_of_steps_heads_and_tokens_are_one_patch(model, recordings):
    target, donor = recordings
    site, given = "blocks.1.attn.hook_z", donor.donor("blocks.1.attn.hook_z")
    plain = replay(
        model,
        target,
        [Patch(site, (2,), given, tokens=token_mask({"frame": 1}, model.token_grid(target.run.latents).shape), heads=(1,))],
    )
    for steps, tokens, heads in (
        (-1, {"frame": [1]}, -1),
        (np.array([2]), {"frame": np.int64(1)}, np.array([1])),
        ("2:", {"frame": 1}, "1"),
    ):
        assert torch.equal(replay(model, target, [Patch(site, steps, given, tokens=tokens, heads=heads)]), plain)
    assert not torch.equal(plain, target.run.latents)


def test_tokens_of_x_t_are_the_cells_of_the_tokens(model, recordings):
    target, donor = recordings
    found = replay(model, target, [Patch("hook_x_t", (2,), donor.donor("hook_x_t"), tokens={"frame": 1})])
    size = model.patch(target.run.latents)[0]

    def put(act, hook):
        act[:, :, size : 2 * size] = donor.run.x_t[2][:, :, size : 2 * size]
        return act

    right = model.run_with_hooks(fwd_hooks=[("hook_x_t @ step=2", put)], **CALL).latents
    assert torch.equal(found, right)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"steps": 3}, "no step 3"), ({"branches": ("neg",)}, "one or several of cond"), ({"heads": 5}, "no head 5"),
     ({"tokens": torch.ones(1, 2, 2)}, "bool mask"), ({"tokens": np.ones((1, 1, 1), bool)}, "the token grid is"),
     ({"site": "blocks.1.attn.hook_zz"}, "nearest"), ({"site": "blocks.1.hook_resid_post", "heads": 0}, "no heads"),
     ({"site": "blocks.1.cross_attn.hook_k", "tokens": {"frame": 0}}, "no tokens of the video")],
)  # fmt: skip
def test_a_patch_of_what_is_not_there_is_refused(model, recordings, changed, message):
    target, donor = recordings
    site = changed.get("site", "blocks.1.attn.hook_z")
    patch = Patch(
        **{"site": site, "steps": (1,), "donor": lambda step, branch: donor.cache["blocks.1.attn.hook_z", 1], **changed}
    )
    with pytest.raises((InterpError, UnknownHook), match=message):
        replay(model, target, [patch])


def test_a_donor_of_another_shape_is_refused_with_both_unless_it_was_asked_for(model, recordings):
    target, donor = recordings
    site = "blocks.1.hook_resid_post"
    whole = donor.cache[site, 1]
    mean = whole.mean((1, 2, 3), keepdim=True)
    for wrong in (whole[:, :1], mean, whole[0, 0, 0, 0], torch.tensor(0.0), whole.repeat(2, 1, 1, 1, 1), 3):
        with pytest.raises(InterpError, match=r"the donor of Patch\(blocks.1.hook_resid_post"):
            replay(model, target, [Patch(site, (1,), lambda step, branch, wrong=wrong: wrong)])
    found = replay(model, target, [Patch(site, (1,), lambda step, branch: mean, broadcast=True)])
    assert torch.equal(found, replay(model, target, [Patch(site, (1,), lambda step, branch: mean.expand_as(whole))]))


def test_a_donor_without_the_step_or_that_is_no_function_is_named(model, recordings):
    target, donor = recordings
    shorter = record(model, **{**CALL, "num_inference_steps": 1})
    last = target.run.steps - 1
    for site in ("blocks.1.hook_resid_post", "hook_x_t"):
        with pytest.raises(InterpError, match=rf"the donor of Patch\({site}.* has nothing for step {last}"):
            replay(model, target, [Patch(site, last, partial(shorter.donor(site)))])  # a function, not a recording's donor
    with pytest.raises(InterpError, match="the donor is Tensor, not a function"):
        replay(model, target, [Patch("hook_x_t", 1, target.run.x_t[1])])
    with pytest.raises(InterpError, match="patch hook_model_out"):
        replay(model, target, [Patch("hook_x0hat", 1, donor.donor("hook_x_t"))])
    with pytest.raises(InterpError, match="no patch was given"):
        replay(model, target, [])
    patch = Patch("hook_x_t", 1, donor.donor("hook_x_t"))
    assert torch.equal(replay(model, target, patch), replay(model, target, [patch]))
    assert torch.equal(restart(model, target, 1, target.run.x_t[1]).latents, target.run.latents)
    mistakes = [
        lambda: replay(model, target.run, [patch]),
        lambda: replay(model, target, [1]),
        lambda: restart(model, target.run, target.run.x_t[1], 1),
        lambda: restart(model, model, 1, target.run.x_t[1]),
    ]
    for wrong in mistakes:
        with pytest.raises(InterpError, match=r"takes \(model, "):
            wrong()


def test_a_replay_is_of_the_model_that_made_the_recording(model, recordings):
    target, donor = recordings
    patch = Patch("hook_x_t", 1, donor.donor("hook_x_t"))
    other = HookedVideoPipeline.from_pipeline(copy.deepcopy(model.pipe))
    replay(other, target, patch)  # a copy computes the same
    with torch.no_grad():
        other.pipe.transformer.proj_out.bias[0] += 1
    with pytest.raises(InterpError, match="other weights"):
        replay(other, target, patch)
    for wrong in (
        HookedVideoPipeline.from_pipeline(tiny.build("ltx")),
        HookedVideoPipeline.from_pipeline(copy.deepcopy(model.pipe)),
    ):
        wrong.pipe.scheduler = type(model.pipe.scheduler).from_config(model.pipe.scheduler.config, shift=7.0)
        with pytest.raises(InterpError, match="another model, other weights or another scheduler"):
            replay(wrong, target, patch)
    with model.hooks(fwd_hooks=[("hook_x_t @ step=1", lambda act, hook: act * 0.5)]):
        edited = record(model, **CALL)
    with pytest.raises(InterpError, match=r"inside model.hooks"):
        replay(model, edited, patch)


def test_what_lies_between_the_calls_has_no_branch(model):
    for name in ("hook_x_t @ branch=uncond", "hook_x0hat @ branch=cond", "hook_x_t @ expert=transformer"):
        with pytest.raises(InterpError, match="lies between the calls"):
            model.run_with_hooks(fwd_hooks=[(name, lambda act, hook: act)], **CALL)
    _, cache = model.run_with_cache(names="hook_x_t", **CALL)
    with pytest.raises(KeyError, match="write cache"):
        cache["hook_x_t", 0, "bogus"]
    assert ("hook_x_t", 0, "bogus") not in cache


def test_an_edit_of_steps_that_another_expert_runs_is_an_error():
    two = HookedVideoPipeline.from_pipeline(build_tiny("wan22-t2v"))
    call = tiny_call("wan22-t2v", steps=4) | {"seed": 0}
    edit = lambda act, hook: act * 1.01
    with pytest.raises(InterpError, match="acted at step 2, 3 only: at step 0 nothing of it came"):
        two.run_with_hooks(fwd_hooks=[("blocks.0.hook_resid_post @ expert=transformer_2, step=0:4", edit)], **call)
    two.run_with_hooks(fwd_hooks=[("blocks.0.hook_resid_post @ expert=transformer_2, step=2:4", edit)], **call)


def test_a_reduction_that_writes_changes_no_bit(model):
    plain = model.run(**CALL)
    for name in ("hook_x_t", "blocks.1.hook_resid_post"):
        run, _ = model.run_with_cache(names=name, reduce=lambda act: act.zero_().sum(), **CALL)
        assert torch.equal(run.latents, plain.latents) and torch.equal(run.x_t[0], plain.x_t[0])


def test_addresses_are_taken_where_they_belong_and_named_where_not(model):
    hook = ("blocks.1.hook_resid_post @ step=1", lambda act, hook: act * 2)
    by_text = model.run_with_hooks(fwd_hooks=[hook], **CALL).latents
    assert torch.equal(model.run_with_hooks(fwd_hooks=[(Address.parse(hook[0]), hook[1])], **CALL).latents, by_text)
    with pytest.raises(InterpError, match="say steps="):
        model.run_with_cache(names=hook[0], **CALL)
    with pytest.raises(InterpError, match="give hook names"):
        model.run_with_cache(names=lambda name: True, **CALL)
