"""Pipelines of other sizes than the fixtures', against hooks written by hand on the untouched pipeline, bit for bit."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import diffusers
import pytest
import torch

from cos_interp.interp import HookedVideoPipeline, InterpError
from cos_interp.interp.families import tiny
from cos_interp.interp.families.tiny import text
from cos_interp.interp.families.tiny.hunyuan import hunyuan_embeddings
from cos_interp.interp.patches import Patch
from cos_interp.interp.patching import record, replay

STEPS, HEADS = 3, 4
BRANCHES = ("cond", "uncond")


def lively(module):
    """Constant weights (gates, norms) drawn anew, so that nothing is closed and nothing is the identity."""
    draw = torch.Generator().manual_seed(5)
    for weight in module.parameters():
        if weight.numel() > 1 and bool((weight == weight.flatten()[0]).all()):
            weight.data += 0.2 * torch.randn(weight.shape, generator=draw)
    return module.eval()


def wan():
    """Two experts, tokens of 2 frames x 3 rows x 1 column."""
    pipe = tiny.build("wan2.2")
    for seed, name in enumerate(("transformer", "transformer_2")):
        torch.manual_seed(seed)
        setattr(
            pipe, name, lively(diffusers.WanTransformer3DModel(
                patch_size=(2, 3, 1), num_attention_heads=HEADS, attention_head_dim=12, in_channels=4, out_channels=4,
                num_layers=4, text_dim=text.WIDTH, freq_dim=16, ffn_dim=24, cross_attn_norm=True, rope_max_seq_len=32,
            )),
        )  # fmt: skip
    return pipe


def rebuilt(name, kind, **config):
    """A tiny pipeline around another transformer."""
    pipe = tiny.build(name)
    torch.manual_seed(0)
    pipe.transformer = lively(kind(num_attention_heads=HEADS, in_channels=4, **config))
    return pipe


def cogvideox():
    """As version 1.5: tokens of two frames, rotary positions."""
    return rebuilt(
        "cogvideox", diffusers.CogVideoXTransformer3DModel, attention_head_dim=16, out_channels=4, time_embed_dim=8, num_layers=4,
        patch_size=2, patch_size_t=2, patch_bias=False, text_embed_dim=text.WIDTH, sample_width=10, sample_height=6,
        sample_frames=9, max_text_seq_length=12, use_rotary_positional_embeddings=True,
    )  # fmt: skip


def latte():
    return rebuilt(
        "latte", diffusers.LatteTransformer3DModel, sample_size=8, num_layers=2, patch_size=2, attention_head_dim=6,
        caption_channels=text.WIDTH, cross_attention_dim=24, out_channels=8, attention_bias=True,
        activation_fn="gelu-approximate", num_embeds_ada_norm=1000, norm_type="ada_norm_single", norm_elementwise_affine=False,
        video_length=5,
    )  # fmt: skip


def hunyuan():
    return rebuilt(
        "hunyuan", diffusers.HunyuanVideoTransformer3DModel, out_channels=4, attention_head_dim=10, num_layers=2,
        num_single_layers=2, num_refiner_layers=1, patch_size=2, patch_size_t=1, guidance_embeds=True,
        text_embed_dim=text.WIDTH, pooled_projection_dim=8, rope_axes_dim=(2, 4, 4),
    )  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a site lies: module, the input (-1) or an item of the output (None: all of it), the view on the video's tokens."""

    path: str
    item: int | None
    view: Any


def tokens(value, grid):
    return value.unflatten(1, grid)


def heads(value, grid):
    return value.unflatten(1, grid).unflatten(-1, (HEADS, -1))


def after_text(value, grid):
    return value[:, -grid[0] * grid[1] * grid[2] :].unflatten(1, grid)


def video_first(value, grid):
    return value[:, : grid[0] * grid[1] * grid[2]].unflatten(1, grid)


def frames_folded(value, grid):
    return value.unflatten(0, (-1, grid[0])).unflatten(2, grid[1:])


def positions_folded(value, grid):
    return value.unflatten(0, (-1, grid[1] * grid[2])).transpose(1, 2).unflatten(2, grid[1:])


@dataclass(frozen=True)
class Case:
    build: Any
    name: str
    sizes: dict[str, int]
    grid: tuple[int, int, int]
    doubled: bool
    places: dict[str, Place]


CASES = {
    "wan": Case(
        wan, "wan2.2", {"height": 48, "width": 80, "num_frames": 13}, (2, 2, 10), False, {
            "blocks.1.hook_resid_pre": Place("blocks.1", -1, tokens), "blocks.2.hook_resid_post": Place("blocks.2", None, tokens),
            "blocks.3.hook_mlp_out": Place("blocks.3.ffn", None, tokens),
            "blocks.2.attn.hook_z": Place("blocks.2.attn1.to_out.0", -1, heads),
        },
    ),
    "cogvideox": Case(
        cogvideox, "cogvideox", {"height": 48, "width": 80, "num_frames": 9}, (2, 3, 5), True, {
            "blocks.1.hook_mlp_out": Place("transformer_blocks.1.ff", None, after_text),
            "blocks.2.hook_resid_post": Place("transformer_blocks.2", 0, tokens),
            "blocks.3.hook_attn_out": Place("transformer_blocks.3.attn1", 0, tokens),
        },
    ),
    "latte": Case(
        latte, "latte", {"height": 64, "width": 64, "video_length": 5}, (5, 4, 4), True, {
            "blocks.2.hook_mlp_out": Place("transformer_blocks.1.ff", None, frames_folded),
            "blocks.1.hook_attn_out": Place("temporal_transformer_blocks.0.attn1", None, positions_folded),
            "blocks.3.hook_resid_post": Place("temporal_transformer_blocks.1", None, positions_folded),
        },
    ),
    "hunyuan": Case(
        hunyuan, "hunyuan", {"height": 32, "width": 80, "num_frames": 9}, (3, 2, 5), False, {
            "blocks.1.hook_attn_out": Place("transformer_blocks.1.attn", 0, tokens),
            "blocks.3.hook_block_out": Place("single_transformer_blocks.1.proj_out", None, video_first),
            "blocks.2.hook_resid_post": Place("single_transformer_blocks.0", 0, tokens),
        },
    ),
}  # fmt: skip


def arguments(case, rows):
    made = tiny.call(case.name, steps=STEPS) | case.sizes
    return made | {key: [f"{made[key]} {row}" for row in range(rows)] for key in ("prompt", "negative_prompt") if rows > 1}


def by_hand(case, rows, seeds, edit=None):
    """Final latents and all places by (name, step, branch). ``edit``: (name, step, branch, function that writes into a view)."""
    pipe, seen, calls, handles = case.build(), {}, [], []
    order = ("uncond", "cond") if case.doubled else BRANCHES

    def visited(name, value):
        step = len(calls) - 1 if case.doubled else (len(calls) - 1) // 2
        branches = order if case.doubled else (order[(len(calls) - 1) % 2],)
        value = value.clone()
        for branch, part in zip(branches, case.places[name].view(value, case.grid).chunk(len(branches)), strict=True):
            if edit is not None and edit[:3] == (name, step, branch):
                edit[3](part)
            seen[name, step, branch] = part.clone()
        return value

    def enter(name):
        def hook(module, args, kwargs):
            if args:
                return (visited(name, args[0]), *args[1:]), kwargs
            return args, kwargs | {"hidden_states": visited(name, kwargs["hidden_states"])}

        return hook

    def leave(name, item):
        def hook(module, args, out):
            if item is None:
                return visited(name, out)
            return (*out[:item], visited(name, out[item]), *out[item + 1 :])

        return hook

    for expert in filter(None, (getattr(pipe, n, None) for n in ("transformer", "transformer_2"))):
        handles.append(expert.register_forward_pre_hook(lambda *_: calls.append(0)))
        for name, place in case.places.items():
            module = expert.get_submodule(place.path)
            if place.item == -1:
                handles.append(module.register_forward_pre_hook(enter(name), with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(leave(name, place.item)))
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    given = generators if rows > 1 else generators[0]
    out = pipe(**arguments(case, rows), generator=given, output_type="latent", return_dict=False)[0]
    return out.transpose(1, 2) if case.name == "cogvideox" else out, seen


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("family", CASES)
def test_caches_and_edits_equal_hooks_written_by_hand(family, rows):
    if family == "latte" and rows > 1:
        pytest.skip("a batch of diffusers is not its rows, which those here are")
    case, seeds = CASES[family], [3, 4][:rows]
    model, call = HookedVideoPipeline.from_pipeline(case.build()), arguments(case, rows) | {"seed": seeds if rows > 1 else 3}
    final, seen = by_hand(case, rows, seeds)
    run, cache = model.run_with_cache(names=list(case.places), **call)
    assert torch.equal(run.latents, final) and set(cache) == set(seen)
    assert all(torch.equal(cache[key], value) for key, value in seen.items())
    draw = random.Random(7)
    for name in case.places:
        step, branch, frame, col = draw.randrange(STEPS), draw.choice(BRANCHES), draw.randrange(case.grid[0]), draw.randrange(4)
        address = f"{name} @ step={step}, branch={branch}, frame={frame}, col={col}"
        edited, _ = by_hand(case, rows, seeds, (name, step, branch, lambda v, f=frame, c=col: v[:, f, :, c].mul_(-2)))
        found = model.run_with_hooks(fwd_hooks=[(address, lambda act, hook: act * -2)], **call)
        assert torch.equal(found.latents, edited) and not torch.equal(edited, final), address


@pytest.mark.parametrize("family", CASES)
def test_replays_equal_hooks_written_by_hand(family):
    case, draw = CASES[family], random.Random(8)
    model = HookedVideoPipeline.from_pipeline(case.build())
    target, (_, donor) = record(model, seed=3, **arguments(case, 1)), by_hand(case, 1, [9])
    for name in case.places:
        step, branch = draw.randrange(STEPS), draw.choice(BRANCHES)
        mask = torch.rand(case.grid, generator=torch.Generator().manual_seed(draw.randrange(99))) < 0.5
        write = lambda view, mask=mask, given=donor[name, step, branch]: view.__setitem__((slice(None), mask), given[:, mask])
        edited, _ = by_hand(case, 1, [3], (name, step, branch, write))
        patch = Patch(name, (step,), lambda k, b, name=name: donor[name, k, b], (branch,), mask)
        assert torch.equal(replay(model, target, [patch]), edited), (name, step, branch)


@pytest.mark.parametrize("family", ["latte", "cogvideox"])
def test_identity_edits_leave_every_bit_alone(family):
    """Kernels round by the strides of what they get: what is written back has those of the model's own tensor."""
    case = CASES[family]
    model, call = HookedVideoPipeline.from_pipeline(case.build()), arguments(case, 1) | {"seed": 3, "guidance_scale": 1.0}
    final = model.run(**call).latents
    for name in ("blocks.*.attn.hook_q @ frame=0", "blocks.*.attn.hook_*", "blocks.*", "hook_x0hat", "hook_x_t"):
        assert torch.equal(model.run_with_hooks(fwd_hooks=[(name, lambda act, hook: act.clone())], **call).latents, final), name


def test_rows_of_prompt_embeddings_take_a_seed_each():
    call = {k: v for k, v in tiny.call("hunyuan", steps=1).items() if "prompt" not in k} | hunyuan_embeddings(guided=True)
    twice = {k: torch.cat([v, v]) if isinstance(v, torch.Tensor) else v for k, v in call.items()}
    model = HookedVideoPipeline.from_pipeline(tiny.build("hunyuan"))
    run = model.run(seed=[3, 4], **twice)
    torch.testing.assert_close(run.latents[1:], model.run(seed=4, **call).latents, atol=1e-4, rtol=1e-4)
    with pytest.raises(InterpError, match="3 seed"):
        model.run(seed=[3, 4, 5], **twice)


def test_a_replay_of_a_batch_is_refused():
    model, call = HookedVideoPipeline.from_pipeline(cogvideox()), arguments(CASES["cogvideox"], 2)
    target = record(model, seed=[3, 4], **call)
    with pytest.raises(InterpError, match="one video"):
        replay(model, target, [Patch("blocks.1.hook_resid_post", (1,), target.donor("blocks.1.hook_resid_post"))])
