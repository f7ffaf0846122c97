"""Every video pipeline of diffusers is proven or refused; what conditioned pipelines draw and repeat is replayed."""

from __future__ import annotations

import inspect

import diffusers
import pytest
import torch

from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.errors import InterpError
from cos_interp.interp.families import registry, tiny
from cos_interp.interp.families.unsupported import PIPELINES, REASONS
from cos_interp.interp.patching import restart

PICTURES = {"Kandinsky5T2IPipeline", "Kandinsky5I2IPipeline"}  # of a family of video transformers, but they make pictures


def hooked(name):
    return HookedVideoPipeline.from_pipeline(tiny.build(name))


def tiny_classes():
    """Names of the diffusers classes of all tiny pipelines."""
    for name in tiny.TINY:
        yield from (kind.__name__ for kind in type(tiny.build(name)).__mro__)


def pipelines():
    """Name, and class name of the transformer, of every pipeline that diffusers exports."""
    for name in dir(diffusers):
        kind = getattr(diffusers, name) if name.endswith("Pipeline") else None
        if isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline):
            parameter = inspect.signature(kind.__init__).parameters.get("transformer")
            said = getattr(parameter, "annotation", "")
            yield name, getattr(said, "__name__", str(said)).removesuffix(" | None").rpartition(".")[2]


def test_every_pipeline_of_a_known_transformer_is_proven_or_refused():
    known, proven = registry(), set(tiny_classes())
    found = {name: transformer for name, transformer in pipelines() if transformer in known}
    assert len(found) > 30
    assert set(found) - proven - set(PIPELINES) - PICTURES == set()
    assert not (set(PIPELINES) & proven)


def test_every_video_transformer_of_a_pipeline_is_known_or_refused():
    known = {**registry(), **REASONS}
    used = {t for name, t in pipelines() if t.endswith("Transformer3DModel") and "Image" not in name.replace("ImageTo", "")}
    assert used and used - set(known) == set()


@pytest.mark.parametrize("name", [*PIPELINES, "WanModularPipeline"])
def test_refused_pipelines_say_why(name):
    kind = getattr(diffusers, name)
    reason = PIPELINES.get(name, PIPELINES["ModularPipeline"])
    with pytest.raises(InterpError) as refusal:
        HookedVideoPipeline(kind.__new__(kind))
    assert str(refusal.value) == f"{name} is not supported: {reason}"


@pytest.mark.parametrize("name", ["cosmos1-v2w", "motif-i2v", "cosmos2.5-transfer"])
def test_noise_drawn_after_the_first_latents_is_drawn_again(name):
    """Cosmos 1 draws in its loop, Motif and Cosmos 2.5 Transfer when they encode their condition."""
    model, call = hooked(name), tiny.call(name)
    run = model.run(seed=0, **call)
    expected = model.run_with_hooks(fwd_hooks=[("hook_x_t @ step=1", lambda act, hook: act * 0.9)], seed=0, **call)
    found = restart(model, run, 1, run.x_t[1] * 0.9)
    assert torch.equal(found.latents, expected.latents)


def test_noise_drawn_in_the_loop_without_a_seed_is_refused():
    model = hooked("cosmos1-v2w")
    run = model.run(**tiny.call("cosmos1-v2w"))
    assert run.unseeded
    with pytest.raises(InterpError, match="give a seed"):
        restart(model, run, 1, run.x_t[1])


def test_noise_drawn_by_an_edit_is_not_the_pipelines():
    noisy = ("hook_x_t @ step=1", lambda act, hook: act + torch.randn_like(act))
    run = hooked("cosmos1-v2w").run_with_hooks(fwd_hooks=[noisy], seed=0, **tiny.call("cosmos1-v2w"))
    assert not run.unseeded


@pytest.mark.parametrize(
    "name", ["cosmos1-v2w", "cosmos2.5-v2w", "easyanimate-inpaint", "hunyuan1.5-i2v", "kandinsky5-i2v", "motif-i2v"]
)
def test_rows_of_a_replay_do_not_depend_on_each_other(name):
    """Also where the pipeline takes one condition for a batch, or pools over the batch."""
    model = hooked(name)
    run = model.run(seed=0, **tiny.call(name, steps=2))
    rows = torch.cat([run.x_t[1], run.x_t[1] * 0.9])
    found = restart(model, run, 1, rows).latents
    assert len(found) == 2
    torch.testing.assert_close(found[:1], run.latents, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[1:], restart(model, run, 1, rows[1:]).latents, atol=1e-4, rtol=1e-4)


def test_the_control_pipeline_that_cannot_run_is_refused_with_a_remedy_that_helps():
    mended = tiny.build("easyanimate-control")
    broken = diffusers.EasyAnimateControlPipeline(**mended.components)
    call = tiny.call("easyanimate-control", steps=1)
    with pytest.raises(TypeError, match="text_encoder_index"):  # without the instrument
        broken(**call)
    with pytest.raises(InterpError, match=r"super\(\)\.encode_prompt"):
        HookedVideoPipeline.from_pipeline(broken).run(seed=0, **call)
    assert HookedVideoPipeline.from_pipeline(mended).run(seed=0, **call).steps == 1


@pytest.mark.parametrize("asked", [{"num_frames_per_chunk": 5}, {"num_frames_per_chunk": 13}, {"num_frames": 5}])
def test_one_whole_chunk_can_be_followed(asked):
    with pytest.raises(InterpError, match="num_frames_per_chunk="):
        hooked("cosmos2.5-transfer").run(seed=0, **tiny.call("cosmos2.5-transfer") | asked)


def test_control_is_added_at_the_end_of_its_blocks():
    """Blocks 0 and 2 of the tiny Cosmos 2.5 Transfer have a control; the control network sees the control video."""
    model, call = hooked("cosmos2.5-transfer"), tiny.call("cosmos2.5-transfer", steps=1)
    names = [f"blocks.{layer}.hook_resid_{at}" for layer in range(3) for at in ("mid2", "post")]
    zero = [(f"blocks.{layer}.hook_mlp_out", lambda act, hook: act * 0) for layer in range(3)]
    with model.hooks(fwd_hooks=zero):
        _, cache = model.run_with_cache(names=names, seed=0, **call)
    added = [not torch.equal(cache[names[2 * layer], 0], cache[names[2 * layer + 1], 0]) for layer in range(3)]
    assert added == [True, False, True]
