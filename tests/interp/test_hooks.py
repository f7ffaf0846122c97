"""Every read and every edit against plain forward hooks on the same pipeline, bit for bit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support import FAMILIES, build_tiny, plain, tiny_call

from cos_interp.interp import BudgetExceeded, HookedVideoPipeline, InterpError, UnknownHook
from cos_interp.interp.hooking import kind_of
from cos_interp.interp.views import AXES

CASES = [(f, s) for f in FAMILIES for s in ("euler", "unipc")]


def forward_hooks(pipe, call, pick):
    """Every call's value of ``pick(block_or_model)`` hooks, in call order: {(name): [values]}."""
    seen: dict[str, list] = {}
    handles = []
    for expert in ("transformer", "transformer_2"):
        model = getattr(pipe, expert, None)
        for name, module in pick(model).items() if model is not None else ():
            keep = lambda m, a, out, n=name: seen.setdefault(n, []).append((out[0] if isinstance(out, tuple) else out).clone())
            handles.append(module.register_forward_hook(keep))
    final = plain(pipe, call)
    for handle in handles:
        handle.remove()
    return seen, final


@pytest.mark.parametrize(("family", "scheduler"), CASES)
def test_reads_equal_forward_hooks(family, scheduler):
    call = tiny_call(family)
    sites = {"hook_resid_post": "", "hook_attn_out": "attn1", "hook_cross_attn_out": "attn2", "hook_mlp_out": "ffn"}

    def pick(model):
        return {f"blocks.{i}.{s}": b.get_submodule(m) for i, b in enumerate(model.blocks) for s, m in sites.items()}

    seen, final = forward_hooks(build_tiny(family, scheduler), call, pick)
    model = HookedVideoPipeline.from_pipeline(build_tiny(family, scheduler))
    run, cache = model.run_with_cache(names=[f"blocks.*.{s}" for s in sites], seed=0, **call)
    assert torch.equal(run.latents, final)
    order = [(k, b) for k in range(4) for b in ("cond", "uncond")]
    assert [(c.step, c.branch) for c in run.calls] == order
    for name, values in seen.items():
        assert len(values) == len(order)
        for (step, branch), value in zip(order, values):
            assert torch.equal(cache[name, step, branch].flatten(1, 3), value), (name, step, branch)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_name_fires_matters_and_leaves_the_run_alone_when_unchanged(family):
    call = tiny_call(family, steps=2)
    model = HookedVideoPipeline.from_pipeline(build_tiny(family))
    base = model.run(seed=0, **call)
    _, cache = model.run_with_cache(names="*", seed=0, **call)
    assert {name for name, _, _ in cache} == set(model.hook_names)
    for name in model.hook_names:
        assert cache[name, 0].ndim == len(AXES[kind_of(model.engines, name)]) or family == "ti2v-5b"
        same = model.run_with_hooks(fwd_hooks=[(name, lambda act, hook: act)], seed=0, **call)
        if name in {"hook_x0hat"}:  # (x - (x - s v)) / s rounds
            torch.testing.assert_close(same.latents, base.latents)
        else:
            assert torch.equal(same.latents, base.latents), name
        edited = model.run_with_hooks(fwd_hooks=[(f"{name} @ step=1", lambda act, hook: act * 1.5 + 0.1)], seed=0, **call)
        assert not torch.equal(edited.latents, base.latents), name


@pytest.mark.parametrize("family", FAMILIES)
def test_identities_of_the_block(family):
    model = HookedVideoPipeline.from_pipeline(build_tiny(family))
    _, cache = model.run_with_cache(names="blocks.*", seed=0, **tiny_call(family, steps=1))
    for layer in range(3):
        at = lambda site: cache[f"blocks.{layer}.{site}", 0]  # noqa: B023
        for attention in ("attn", "cross_attn"):
            value = at(f"{attention}.hook_v")
            value = value.flatten(1, 3) if attention == "attn" else value
            z = torch.einsum("bhqk,bkhd->bqhd", at(f"{attention}.hook_pattern").flatten(2, 4), value)
            torch.testing.assert_close(z, at(f"{attention}.hook_z").flatten(1, 3), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(at("attn.hook_pattern").sum(-1), torch.ones_like(at("attn.hook_pattern")[..., 0]))
        torch.testing.assert_close(at("hook_resid_mid2") - at("hook_resid_mid"), at("hook_cross_attn_out"), atol=1e-5, rtol=1e-4)
        if layer:
            assert torch.equal(at("hook_resid_pre"), cache[f"blocks.{layer - 1}.hook_resid_post", 0])


def test_edit_of_a_head_equals_a_pre_hook_on_the_output_projection():
    call, pipe = tiny_call("wan21-t2v", guidance=1.0), build_tiny("wan21-t2v")
    calls = [0]

    def ablate(module, args):
        calls[0] += 1
        if calls[0] - 1 != 2:  # step 2 only
            return None
        z = args[0].clone()
        z[..., 12:24] = 0  # head 1 of 2
        return (z, *args[1:])

    handle = pipe.transformer.blocks[1].attn1.to_out[0].register_forward_pre_hook(ablate)
    expected = plain(pipe, call)
    handle.remove()
    model = HookedVideoPipeline.from_pipeline(pipe)
    hooks = [("blocks.1.attn.hook_z @ step=2, head=1", lambda act, hook: torch.zeros_like(act))]
    assert torch.equal(model.run_with_hooks(fwd_hooks=hooks, seed=0, **call).latents, expected)


def test_token_selectors_reach_the_named_tokens_only():
    call = tiny_call("wan21-t2v", guidance=1.0, steps=2)
    model = HookedVideoPipeline.from_pipeline(build_tiny("wan21-t2v"))
    shapes = []

    def edit(act, hook):
        shapes.append((tuple(act.shape), hook.step, hook.layer, hook.branch))
        return act + 1

    with model.hooks([("blocks.2.hook_resid_post @ step=0, frame=1, row=[0,1], col=-1", edit)]):
        _, changed = model.run_with_cache(names="blocks.2.hook_resid_post", steps=0, seed=0, **call)
    _, base = model.run_with_cache(names="blocks.2.hook_resid_post", steps=0, seed=0, **call)
    difference = changed["blocks.2.hook_resid_post", 0] - base["blocks.2.hook_resid_post", 0]
    assert shapes == [((1, 1, 2, 1, 24), 0, 2, "cond")]
    touched = difference.abs().sum((0, -1)) > 0
    expected = torch.zeros_like(touched)
    expected[1, 0:2, -1] = True
    assert torch.equal(touched, expected)


@pytest.mark.parametrize(("family", "scheduler"), [("wan22-i2v", "euler"), ("ti2v-5b", "unipc")])
def test_trajectory_is_what_the_pipeline_computes(family, scheduler):
    call = tiny_call(family)
    model = HookedVideoPipeline.from_pipeline(build_tiny(family, scheduler))
    states = []
    pipe = build_tiny(family, scheduler)

    def keep(pipe, step, timestep, values):
        states.append(values["latents"].clone())
        return {}

    plain(pipe, {**call, "callback_on_step_end": keep})
    run = model.run(seed=0, **call)
    given = 1 if family == "ti2v-5b" else 0  # a latent frame of its picture, which it puts in again before each call
    for k in range(1, 4):
        assert torch.equal(run.x_t[k][:, :, given:], states[k - 1][:, :, given:])
        assert torch.equal(run.x_t[k][:, :, :given], run.latents[:, :, :given])
    for k, sigma in enumerate(run.sigmas):
        assert torch.equal(run.x0hat[k], run.x_t[k] - sigma * run.v[k])
    assert run.sigmas == pytest.approx([float(s) for s in pipe.scheduler.sigmas[:4]])
    assert all(a > b for a, b in zip(run.sigmas, run.sigmas[1:]))


def test_x0hat_and_x_t_edits_arrive():
    call = tiny_call("wan21-t2v", guidance=1.0)
    model = HookedVideoPipeline.from_pipeline(build_tiny("wan21-t2v"))
    goal = torch.randn(1, 4, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    run = model.run_with_hooks(fwd_hooks=[("hook_x0hat @ step=3", lambda act, hook: goal)], seed=0, **call)
    torch.testing.assert_close(run.latents, goal, atol=1e-5, rtol=1e-5)  # the last Euler step lands on x0hat
    noise = torch.randn(1, 4, 3, 4, 4, generator=torch.Generator().manual_seed(4))
    run = model.run_with_hooks(fwd_hooks=[("hook_x_t @ step=2", lambda act, hook: noise)], seed=0, **call)
    assert torch.equal(run.x_t[2], noise)
    assert torch.equal(run.x_t[1], model.run(seed=0, **call).x_t[1])


def state_of(pipe):
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in pipe.transformer.modules()]
    return (
        hooks,
        set(pipe.__dict__),
        set(pipe.scheduler.__dict__),
        pipe.transformer,
        [p.sum().item() for p in pipe.transformer.parameters()],
    )


@pytest.mark.parametrize("how", ["normal", "raised", "interrupted", "bad shape"])
def test_nothing_is_left_behind(how):
    call, pipe = tiny_call("wan22-t2v"), build_tiny("wan22-t2v")
    before = plain(pipe, call)
    model = HookedVideoPipeline.from_pipeline(pipe)
    pipe(**call, generator=torch.Generator("cpu").manual_seed(0), output_type="latent")
    untouched = state_of(pipe)

    def edit(act, hook):
        if hook.step == 2 and how == "raised":
            raise ZeroDivisionError
        if hook.step == 2 and how == "interrupted":
            raise KeyboardInterrupt
        return act[:, :1] if how == "bad shape" else act * 2

    expected = {"raised": ZeroDivisionError, "interrupted": KeyboardInterrupt, "bad shape": InterpError}.get(how)
    hooks = [("blocks.1.attn.hook_z", edit), ("blocks.1.hook_resid_mid", edit)]
    if expected:
        with pytest.raises(expected):
            model.run_with_hooks(fwd_hooks=hooks, seed=0, **call)
    else:
        model.run_with_hooks(fwd_hooks=hooks, seed=0, **call)
    assert state_of(pipe) == untouched
    assert torch.equal(plain(pipe, call), before)
    assert torch.equal(model.run(seed=0, **call).latents, before)
    assert F.scaled_dot_product_attention is torch.nn.functional.scaled_dot_product_attention


def test_hooks_given_in_any_order_are_the_same():
    call = tiny_call("wan21-t2v", steps=2)
    model = HookedVideoPipeline.from_pipeline(build_tiny("wan21-t2v"))
    hooks = [(f"blocks.{i}.{s}", lambda act, hook: act * 1.1) for i in (2, 0, 1) for s in ("hook_mlp_out", "attn.hook_q")]
    one = model.run_with_hooks(fwd_hooks=hooks, seed=0, **call).latents
    other = model.run_with_hooks(fwd_hooks=hooks[::-1], seed=0, **call).latents
    assert torch.equal(one, other)


def test_cache_selects_reduces_and_refuses():
    call = tiny_call("wan21-t2v")
    model = HookedVideoPipeline.from_pipeline(build_tiny("wan21-t2v"))
    name = "blocks.1.hook_resid_post"
    _, full = model.run_with_cache(names=name, seed=0, **call)
    _, some = model.run_with_cache(names=name, steps=range(0, 4, 2), branches="cond", tokens={"frame": [1]}, seed=0, **call)
    assert sorted(some) == [(name, 0, "cond"), (name, 2, "cond")]
    assert torch.equal(some[name, 2], full[name, 2][:, 1].flatten(1, 2))
    _, norms = model.run_with_cache(names=name, reduce="norm", seed=0, **call)
    torch.testing.assert_close(norms[name, 1, "uncond"], full[name, 1, "uncond"].norm(dim=-1))
    with pytest.raises(KeyError, match="steps"):
        some[name, 1]
    calls = model.block_calls
    with pytest.raises(BudgetExceeded, match="ask for"):
        model.run_with_cache(names="blocks.*", seed=0, max_bytes=10_000, **call)
    assert model.block_calls == calls  # refused before any transformer ran


def test_a_kept_value_is_a_copy():
    model = HookedVideoPipeline.from_pipeline(build_tiny("wan21-t2v"))
    call = tiny_call("wan21-t2v", steps=1)
    _, cache = model.run_with_cache(names="blocks.0.hook_attn_out", seed=0, **call)
    before = cache["blocks.0.hook_attn_out", 0].clone()
    model.run(seed=1, **call)
    assert torch.equal(cache["blocks.0.hook_attn_out", 0], before)


def test_errors_name_the_remedy(tmp_path):
    model = HookedVideoPipeline.from_pipeline(build_tiny("wan21-t2v"))
    call = tiny_call("wan21-t2v")
    with pytest.raises(UnknownHook, match=r"blocks\.0\.hook_resid_post"):
        model.run_with_hooks(fwd_hooks=[("blocks.0.hook_resid_pots", lambda a, h: a)], **call)
    with pytest.raises(InterpError, match="transformer_2"):
        model.run_with_hooks(fwd_hooks=[("hook_embed @ expert=transformer_2", lambda a, h: a)], **call)
    with pytest.raises(InterpError, match="axes"):
        model.run_with_hooks(fwd_hooks=[("blocks.0.hook_mlp_out @ head=1", lambda a, h: a)], **call)
    with pytest.raises(InterpError, match="seed"):
        model.run(seed=[1, 2], **call)
    with pytest.raises(InterpError, match="output_type='npy': there are np, pt, pil, latent"):
        model.run(output_type="npy", **call)
    with pytest.raises(InterpError, match=r"step='some': give a number"):
        model.run_with_cache(names="hook_x_t", steps="some", seed=0, **call)
    with pytest.raises(InterpError, match=r"no model 'tiny:NOPE': the tiny pipelines are .*latte.*, wan2\.1"):
        HookedVideoPipeline.from_pretrained("tiny:NOPE")
    run = model.run(seed=0, **call)
    with pytest.raises(InterpError, match=r"no call at step 7, branch 'cond': the run had steps 0 to 3"):
        run.call(7)
    with pytest.raises(IndexError, match="step 7 was asked for; the run has steps 0 to 3"):
        run.decode(step=7)
    with pytest.raises(InterpError, match="no model"):
        HookedVideoPipeline.from_pretrained("nowhere")
    with pytest.raises(InterpError, match=r"model_index\.json"):
        HookedVideoPipeline.from_pretrained(tmp_path)
