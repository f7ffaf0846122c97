"""A user's own video transformer, pipeline and adapter, written as docs/adding-a-family.md says, and what mistakes look like.

The layouts are ones that no shipped family has: two streams with the text first in blocks and attention, and one stream of
both with the text first; the words of the configuration are their own.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, DiffusionPipeline, FlowMatchEulerDiscreteScheduler, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import nn

from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.check.proof import check_adapter
from cos_interp.interp.errors import InterpError
from cos_interp.interp.families import register
from cos_interp.interp.families.adapter import Adapter, NoAdapter, Site, Stack
from cos_interp.interp.families.decoding import by_scaling_factor
from cos_interp.interp.families.layouts import PACKED
from cos_interp.interp.families.shapes import joint_block, ordered, single_block
from cos_interp.interp.patches import Patch
from cos_interp.interp.patching import record, replay

CALL = {"prompt": "a ball", "height": 32, "width": 48, "num_frames": 3, "num_inference_steps": 2}
DOCS = Path(__file__).resolve().parents[2] / "docs" / "adding-a-family.md"
ORDER = ("hook_resid_mid_text", "hook_resid_mid", "hook_mlp_out_text", "hook_mlp_out")


class TwinAttention(nn.Module):
    """The text before the video on one token axis; returns (text, video)."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.qkv_text = nn.Linear(dim, 3 * dim), nn.Linear(dim, 3 * dim)
        self.out, self.out_text = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, text, video):
        qkv = torch.cat([self.qkv_text(text), self.qkv(video)], dim=1).chunk(3, dim=-1)
        q, k, v = (value.unflatten(-1, (self.heads, -1)).transpose(1, 2) for value in qkv)
        z = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.out_text(z[:, : text.shape[1]]), self.out(z[:, text.shape[1] :])


class TwinBlock(nn.Module):
    """Takes and returns (text, video)."""

    def __init__(self, dim, heads):
        super().__init__()
        mlp = lambda: nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.gates, self.norm = nn.Linear(dim, 4 * dim), nn.LayerNorm(dim, elementwise_affine=False)
        self.attention, self.mlp, self.mlp_text = TwinAttention(dim, heads), mlp(), mlp()

    def forward(self, text, video, temb):
        gates = self.gates(temb)[:, None].chunk(4, dim=-1)
        text_out, video_out = self.attention(self.norm(text), self.norm(video))
        text = text + gates[0] * text_out
        change = gates[1] * video_out
        video = video + change
        text = text + gates[2] * self.mlp_text(self.norm(text))
        video = video + gates[3] * self.mlp(self.norm(video))
        return text, video


class TwinTransformer3D(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, channels=4, width=16, heads=2, depth=3, spatial_patch=2):
        super().__init__()
        patch = (1, spatial_patch, spatial_patch)
        self.patchify, self.unpatchify = (
            nn.Conv3d(channels, width, patch, patch), nn.ConvTranspose3d(width, channels, patch, patch),
        )  # fmt: skip
        self.time = nn.Sequential(nn.Linear(1, width), nn.SiLU())
        self.blocks = nn.ModuleList(TwinBlock(width, heads) for _ in range(depth))

    def forward(self, hidden_states, encoder_hidden_states, timestep):
        video, text, temb = self.patchify(hidden_states), encoder_hidden_states, self.time(timestep[:, None] / 1000)
        grid, video = video.shape[2:], video.flatten(2).transpose(1, 2)
        for block in self.blocks:
            text, video = block(text, video, temb)
        return self.unpatchify(video.transpose(1, 2).unflatten(2, grid))


class TwinVAE(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, channels=4, scaling_factor=0.7):
        super().__init__()
        self.out = nn.Conv3d(channels, 3, 1)

    def decode(self, z, return_dict=True):
        pixels = F.interpolate(self.out(z), scale_factor=(1, 4, 4)).tanh()
        return DecoderOutput(sample=pixels) if return_dict else (pixels,)


class TwinPipeline(DiffusionPipeline):
    """Classifier-free guidance in one forward, [uncond, cond]."""

    def __init__(self, transformer, text_encoder, vae, scheduler):
        super().__init__()
        self.register_modules(transformer=transformer, text_encoder=text_encoder, vae=vae, scheduler=scheduler)

    def prepare_latents(self, batch, num_frames, height, width, generator):
        return randn_tensor((batch, 4, num_frames, height // 4, width // 4), generator=generator)

    @torch.no_grad()
    def __call__(
        self, prompt, height=32, width=32, num_frames=5, num_inference_steps=4, generator=None, output_type="pt", return_dict=True
    ):
        prompts = [prompt] if isinstance(prompt, str) else prompt
        text = self.text_encoder(torch.tensor([list(p.encode()[:7].ljust(7)) for p in [""] * len(prompts) + prompts]))
        self.scheduler.set_timesteps(num_inference_steps)
        x = self.prepare_latents(len(prompts), num_frames, height, width, generator)
        for t in self.scheduler.timesteps:
            uncond, cond = self.transformer(torch.cat([x, x]), text, t.expand(2 * len(prompts))).chunk(2)
            x = self.scheduler.step(uncond + 3.0 * (cond - uncond), t, x).prev_sample
        if output_type != "latent":
            x = self.vae.decode(x / self.vae.config.scaling_factor).sample
        return {"frames": x} if return_dict else (x,)


class SingleBlock(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm, self.attention, self.mlp = nn.LayerNorm(dim), SingleAttention(dim, heads), nn.Linear(dim, dim)

    def forward(self, x, temb):
        x = x + self.attention(self.norm(x) + temb[:, None])
        x = x + self.mlp(self.norm(x)).relu()
        return x


class SingleAttention(TwinAttention):
    def forward(self, x):
        return torch.cat(super().forward(x[:, :7], x[:, 7:]), dim=1)


class SingleTransformer3D(TwinTransformer3D):
    """Text and video in one stream, the text first, through the whole depth."""

    @register_to_config
    def __init__(self, channels=4, width=16, heads=2, depth=3, spatial_patch=2):
        super().__init__(channels, width, heads, depth, spatial_patch)
        self.blocks = nn.ModuleList(SingleBlock(width, heads) for _ in range(depth))

    def forward(self, hidden_states, encoder_hidden_states, timestep):
        video, temb = self.patchify(hidden_states), self.time(timestep[:, None] / 1000)
        grid, x = video.shape[2:], torch.cat([encoder_hidden_states, video.flatten(2).transpose(1, 2)], dim=1)
        for one in self.blocks:
            x = one(x, temb)
        return self.unpatchify(x[:, encoder_hidden_states.shape[1] :].transpose(1, 2).unflatten(2, grid))


def block(**words):
    own = {"attn": "attention", "mlp": "mlp", "text_mlp": "mlp_text", "mid": "video_0", "mid_text": "text_0"}
    where = {"text": "first", "takes": 1, "attn_returns": 1, "returns": 1}
    return ordered(joint_block(**{**own, **where, **words}), *ORDER)


@register
class Twin(Adapter):
    family = "Twin"
    classes = ("TwinTransformer3D",)
    stacks = (Stack("blocks", block()),)
    ends = (Site("hook_embed", "embed", "patchify", "output"), Site("hook_time_emb", "vector", "time", "output"))
    output_item = None

    def patch(self, config):
        return 1, config.spatial_patch, config.spatial_patch

    def sizes(self, config):
        return config.width, config.heads

    def decode(self, pipe, latents):
        return by_scaling_factor(pipe, latents)


@register
class Single(Twin):
    family = "Single"
    classes = ("SingleTransformer3D",)
    stacks = (Stack("blocks", single_block(attn="attention", text="first", mlp="mlp", mid="x_0")),)


def twin(transformer=TwinTransformer3D):
    torch.manual_seed(0)
    return TwinPipeline(transformer(), nn.Embedding(256, 16), TwinVAE(), FlowMatchEulerDiscreteScheduler())


def checked(**changes):
    """The report on the pipeline with a changed adapter."""
    try:
        register(type("Changed", (Twin,), changes))
        return check_adapter(twin(), **CALL)
    finally:
        register(Twin)


def failing(report):
    return {check.title: " ".join(check.problems) for check in report.checks if not check.passed}


@pytest.mark.parametrize("transformer", [TwinTransformer3D, SingleTransformer3D])
def test_every_name_of_an_own_family_is_proven(transformer):
    report = check_adapter(twin(transformer), **CALL)
    assert report.passed, str(report)
    assert all(check.names for check in report.checks)


def test_reading_decoding_and_batches():
    model = HookedVideoPipeline.from_pipeline(twin())
    run, cache = model.run_with_cache(seed=0, **CALL)
    assert cache["blocks.1.hook_resid_post", 1].shape == (1, 3, 4, 6, 16)
    assert cache.axes["blocks.1.hook_resid_post"] == ("batch", "frame", "row", "col", "d_model")
    pixels = twin()(**CALL, generator=torch.Generator().manual_seed(0))["frames"]
    expected = ((pixels / 2 + 0.5) * 255).round().permute(0, 2, 3, 4, 1)
    assert abs(torch.from_numpy(run.decode()).float() - expected).max() <= 1
    both, two = model.run_with_cache(**{**CALL, "prompt": ["a ball", "a cube"], "seed": [0, 1]})
    torch.testing.assert_close(two["blocks.1.hook_resid_post", 0][:1], cache["blocks.1.hook_resid_post", 0])


def test_a_patch_of_the_video_and_of_the_text_is_replayed():
    model, names = HookedVideoPipeline.from_pipeline(twin()), ["blocks.1.attn.hook_z", "blocks.1.hook_resid_post_text"]
    target, donor = (record(model, names, **{**CALL, "prompt": p}, seed=0) for p in ("a ball", "a cube"))
    for name in names:
        found = replay(model, target, [Patch(name, (1,), donor.donor(name))])
        put = lambda act, hook, name=name: donor.cache[name, hook.step, hook.branch]
        full = model.run_with_hooks(fwd_hooks=[(f"{name} @ step=1, branch=cond", put)], **CALL, seed=0)
        assert torch.equal(found, full.latents) and not torch.equal(found, target.run.latents)


@pytest.mark.parametrize(
    ("title", "problem", "changes"),
    [
        ("one perturbed latent cell", "blocks.0.attn.hook_q: tokens", {"stacks": (Stack("blocks", block(text="last")),)}),
        ("algebraic identities", "hook_resid_mid is not", {"stacks": (Stack("blocks", block(mid="change_0")),)}),
        ("values have the axes", "head is 2, not 4", {"sizes": lambda self, config: (config.width, 2 * config.heads)}),
        ("another prompt changes cond", "Adapter.doubled", {"doubled": ("cond", "uncond")}),
    ],
)
def test_a_wrong_table_fails_the_check_that_the_docs_name(title, problem, changes):
    found = failing(checked(**changes))
    named = next(t for t in found if t.startswith(title))
    assert problem in found[named]
    assert any(re.match(re.escape(row), named) for row in _rows("failing check") if row)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("has no x_0; .* video_0", {"stacks": (Stack("blocks", block(mid="x_0")),)}),
        (
            "mlp_out_text was not reached in time.*hook_resid_mid or earlier, runs after",
            {"stacks": (Stack("blocks", block(mid="video_1")),)},
        ),
        ("has no list of blocks of that name; its lists are blocks", {"stacks": (Stack("layers", block()),)}),
        ("there is no module 'blocks.0.attn'; .* has gates, norm, attention", {"stacks": (Stack("blocks", block(attn="attn")),)}),
        ("resid_pre .* found .2, 7, 16.*72 tokens .3 frames x 4 rows x 6", {"stacks": (Stack("blocks", block(takes=0)),)}),
        ("output_item=0 picks from a tuple, found Tensor", {"output_item": 0}),
        ("no patch_size, only channels.*patch.self, config", {"patch": Adapter.patch}),
        ("no num_attention_heads .*sizes.self, config", {"sizes": Adapter.sizes}),
        ("PACKED and TwinPipeline has no vae_temporal_compression_ratio", {"layout": PACKED}),
        (
            "part='lead' cuts an axis.* 'embed'",
            {"ends": (Site("e", "embed", "patchify", "output", part="lead"),)},
        ),
        ("there is no kind 'pixels', there are tokens", {"ends": (Site("hook_embed", "pixels", "patchify", "output"),)}),
    ],
)
def test_errors_say_what_is_missing_and_what_to_write(message, changes):
    with pytest.raises(InterpError, match=message):
        checked(**changes)


@pytest.mark.parametrize(
    ("message", "bases", "changes"),
    [
        ("the adapter Wrong has no classes, stacks; see", (Adapter,), {"family": "Wrong"}),
        ("the adapter Wrong has end, output, which nothing reads; an Adapter has", (Twin,), {"end": (), "output": 0}),
    ],
)
def test_a_declaration_is_read_when_it_is_registered(message, bases, changes):
    with pytest.raises(InterpError, match=message):
        register(type("Wrong", bases, changes))


def test_a_pipeline_is_told_all_that_it_lacks_at_once():
    class Bare(TwinPipeline):
        prepare_latents = None

        def __call__(self, prompt, num_inference_steps=2, generator=None):
            return prompt

    pipe = Bare(**twin().components)
    with pytest.raises(InterpError, match=r"prepare_latents.*output_type.*return_dict.*What the pipeline must have"):
        HookedVideoPipeline.from_pipeline(pipe).run(prompt="a ball")


def test_an_unknown_transformer_and_a_decoder_that_does_not_fit():
    class Other(TwinTransformer3D):
        pass

    with pytest.raises(NoAdapter, match="adding-a-family"):
        HookedVideoPipeline.from_pipeline(TwinPipeline(**{**twin().components, "transformer": Other()}))
    try:
        register(type("Changed", (Twin,), {"decode": Adapter.decode}))
        with pytest.raises(InterpError, match="TwinVAE has no latents_mean"):
            HookedVideoPipeline.from_pipeline(twin()).run(**CALL, seed=0).decode()
    finally:
        register(Twin)


def _rows(header):
    """First cells of the table of the docs with this header."""
    table = DOCS.read_text().split(f"| {header} |")[1].split("\n\n")[0]
    return [line.split("|")[1].strip() for line in table.splitlines()[2:]]


def test_the_example_of_the_docs_runs_as_it_is(tmp_path, capsys):
    file = tmp_path / "own_family.py"  # nnsight reads the source of the blocks
    file.write_text("\n".join(re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)))
    spec = importlib.util.spec_from_file_location("own_family", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.report.passed, str(module.report)
    assert module.cache["blocks.1.hook_resid_post", 1].shape == (1, 3, 2, 3, 16)
