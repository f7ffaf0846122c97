"""nnsight inside one call of the pipeline, against plain forward hooks on the same pipeline, bit for bit."""

from __future__ import annotations

import nnsight
import pytest
import torch
from support import plain

from cos_interp.interp import HookedVideoPipeline, InterpError, tiny

SPLIT = ("wan2.1", "wan2.2")  # two forwards a step; the others run both branches in one, the unconditional rows first


def made(family, steps=3):
    return HookedVideoPipeline.from_pipeline(tiny.build(family)), tiny.call(family, steps=steps)


def first_block(model, blocks="blocks", **asked):
    """What the first block returns in a call."""
    with model.trace_call(seed=0, **asked) as call:
        found = nnsight.save(getattr(call, blocks)[0].output)
    return found


def hooked(family, call, expert, path, step, branch, edit=None):
    """What a module returns in one branch of one step (its first stream), and the final latents, by a plain forward hook.

    ``edit`` makes the module's new output of that branch from its old one.
    """
    pipe, seen, steps = tiny.build(family), [], [-1]

    def count(module, args, kwargs):
        steps[0] += 1

    def hook(module, args, output):
        split = family in SPLIT
        if steps[0] != (2 * step + (branch == "uncond") if split else step):
            return None
        first = output[0] if isinstance(output, tuple) else output
        rows = slice(0, None) if split else slice(1, 2) if branch == "cond" else slice(0, 1)
        seen.append(first[rows].clone())
        if edit is None:
            return None
        new = first.clone()
        new[rows] = edit(first[rows])
        return (new, *output[1:]) if isinstance(output, tuple) else new

    for name in ("transformer", "transformer_2"):
        if getattr(pipe, name, None) is not None:
            getattr(pipe, name).register_forward_pre_hook(count, with_kwargs=True)
    getattr(pipe, expert).get_submodule(path).register_forward_hook(hook)
    latents = plain(pipe, call)
    (value,) = seen
    return value, latents


CASES = [
    ("wan2.1", "transformer", "blocks", 1, "uncond"),
    ("wan2.2", "transformer", "blocks", 0, "cond"),
    ("wan2.2", "transformer_2", "blocks", 2, "cond"),
    ("cogvideox", "transformer", "transformer_blocks", 1, "cond"),
    ("ltx", "transformer", "transformer_blocks", 1, "uncond"),
]


@pytest.mark.parametrize(("family", "expert", "blocks", "step", "branch"), CASES)
def test_a_read_equals_a_forward_hook_and_changes_nothing(family, expert, blocks, step, branch):
    model, keywords = made(family)
    expected, latents = hooked(family, keywords, expert, f"{blocks}.1", step, branch)
    with model.trace_call(step=step, branch=branch, expert=expert, seed=0, **keywords) as call:
        output = getattr(call, blocks)[1].output
        found = nnsight.save(output[0] if isinstance(output, tuple) else output)
    assert torch.equal(found, expected)
    assert torch.equal(call.run.latents, model.adapter.layout.to_canonical(latents, call.run.dims))
    assert call.run.steps == 3 and call.run.decode().ndim == 5


@pytest.mark.parametrize(("family", "expert", "blocks", "step", "branch"), CASES)
def test_a_write_equals_a_forward_hook(family, expert, blocks, step, branch):
    model, keywords = made(family)
    _, latents = hooked(family, keywords, expert, f"{blocks}.0", step, branch, edit=lambda value: value * 0.5 + 0.1)
    with model.trace_call(step=step, branch=branch, expert=expert, seed=0, **keywords) as call:
        block = getattr(call, blocks)[0]
        output = block.output
        if isinstance(output, tuple):
            block.output = (output[0] * 0.5 + 0.1, *output[1:])
        else:
            block.output = output * 0.5 + 0.1
    assert torch.equal(call.run.latents, model.adapter.layout.to_canonical(latents, call.run.dims))
    assert not torch.equal(call.run.latents, model.run(seed=0, **keywords).latents)


def test_the_transformers_own_output_can_be_written():
    model, keywords = made("wan2.1")
    with model.trace_call(step=2, branch="cond", seed=0, **keywords) as call:
        call.output = (torch.zeros_like(call.output[0]),)
    edit = [("hook_model_out @ step=2, branch=cond", lambda act, hook: act * 0)]
    assert torch.equal(call.run.latents, model.run_with_hooks(fwd_hooks=edit, seed=0, **keywords).latents)


@pytest.mark.parametrize(
    ("family", "blocks", "step", "branch"), [("wan2.1", "blocks", 1, "cond"), ("ltx", "transformer_blocks", 2, "cond")]
)
def test_a_line_of_the_source_equals_a_forward_hook(family, blocks, step, branch):
    model, keywords = made(family)
    expected, _ = hooked(family, keywords, "transformer", f"{blocks}.1.attn1", step, branch)
    with model.trace_call(step=step, branch=branch, seed=0, **keywords) as call:
        found = nnsight.save(getattr(call, blocks)[1].source.self_attn1_0.output)
    assert torch.equal(found, expected)


def test_a_line_of_the_source_can_be_written():
    """What our names call ``hook_resid_mid``: no module returns it."""
    model, keywords = made("wan2.1")
    with model.trace_call(step=1, branch="cond", seed=0, **keywords) as call:
        call.blocks[2].source.hidden_states_0.output = call.blocks[2].source.hidden_states_0.output * 0.5
    edit = [("blocks.2.hook_resid_mid @ step=1, branch=cond", lambda act, hook: act * 0.5)]
    assert torch.equal(call.run.latents, model.run_with_hooks(fwd_hooks=edit, seed=0, **keywords).latents)


def test_the_whole_forward_of_a_step():
    model, keywords = made("cogvideox")
    with model.trace_call(step=1, branch="uncond", seed=0, **keywords) as call:
        first = nnsight.save(call.transformer_blocks[0].output[0].clone())
    with model.trace_call(step=1, branch=None, seed=0, **keywords) as call:
        both = nnsight.save(call.transformer_blocks[0].output[0].clone())
    assert len(both) == 2 and torch.equal(both[:1], first) and not torch.equal(both[1:], first)
    model, keywords = made("wan2.1")
    with pytest.raises(InterpError, match="say branch='cond' or branch='uncond'"):
        first_block(model, step=1, branch=None, **keywords)
    with model.trace_call(step=1, branch=None, seed=0, **keywords | {"guidance_scale": 1.0}) as call:
        alone = nnsight.save(call.blocks[0].output)
    assert len(alone) == 1


def test_a_call_that_does_not_come_is_an_error():
    model, keywords = made("wan2.2")
    with pytest.raises(InterpError, match="there is no step 7; there are steps 0 to 2"):
        first_block(model, step=7, **keywords)
    with pytest.raises(InterpError, match="branch 'uncond': it had steps 0 to 2, branches cond; at step 1"):
        first_block(model, step=1, branch="uncond", **keywords | {"guidance_scale": 1.0})
    with pytest.raises(InterpError, match=r"expert 'transformer_2': .*; at step 0 transformer ran"):
        first_block(model, step=0, expert="transformer_2", **keywords)
    with pytest.raises(InterpError, match="branch='both': there are cond, uncond"):
        model.trace_call(step=0, branch="both")
    with pytest.raises(InterpError, match="expert='other': there are transformer, transformer_2"):
        model.trace_call(step=0, expert="other")


def test_a_step_may_be_any_whole_number_and_count_from_the_end():
    model, call = made("wan2.1")
    last = first_block(model, step=2, **call)
    for step in (-1, "2", torch.tensor(2)):
        assert torch.equal(first_block(model, step=step, **call), last)
    with pytest.raises(InterpError, match="give one step"):
        model.trace_call(step="0:2", **call)


def test_rows_that_nnsight_cannot_tell_apart_are_refused():
    model, keywords = made("latte")
    with pytest.raises(InterpError, match="give branch=None for the whole forward"):
        first_block(model, "transformer_blocks", step=0, branch="cond", **keywords)
    with model.trace_call(step=0, branch=None, seed=0, **keywords) as call:
        found = nnsight.save(call.transformer_blocks[0].output)
    assert len(found) == 2 * call.run.dims[0]


def test_errors_keep_their_type_and_the_model_its_use():
    model, keywords = made("wan2.1")
    base = model.run(seed=0, **keywords).latents
    with pytest.raises(ZeroDivisionError), model.trace_call(step=1, seed=0, **keywords) as call:
        call.blocks[0].output = call.blocks[0].output / (1 // 0)
    with pytest.raises(AttributeError, match=r"only inside the `with model\.trace_call"):
        call.blocks  # noqa: B018
    with pytest.raises(AttributeError, match="only inside"):
        call.output = None
    with pytest.raises(InterpError, match="read it after the"):
        call.run  # noqa: B018
    assert torch.equal(model.run(seed=0, **keywords).latents, base)
    with model.trace_call(step=1, seed=0, **keywords) as call:
        pass
    assert torch.equal(call.run.latents, base)


def test_edits_of_other_calls_are_seen_and_those_of_the_call_itself_refused():
    model, keywords = made("wan2.1")
    edit = lambda act, hook: act * 0.5
    with model.hooks([("blocks.0.hook_resid_post @ step=0", edit)]):
        expected = model.run_with_cache(names="blocks.1.hook_resid_post", seed=0, **keywords)[1]
        with model.trace_call(step=1, seed=0, **keywords) as call:
            found = nnsight.save(call.blocks[1].output)
    assert torch.equal(found, expected["blocks.1.hook_resid_post", 1].flatten(1, 3))
    with model.hooks([("blocks.0.hook_resid_post @ step=1", edit)]), pytest.raises(InterpError, match="edit it in that block"):
        first_block(model, step=1, **keywords)
