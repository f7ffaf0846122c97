"""Steering a plain pipeline and a hooked one, against a plain forward hook; vectors as files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import build_tiny, plain, tiny_call

from cos_interp.interp import HookedVideoPipeline, InterpError, Steer, steer

CALL = tiny_call("wan21-t2v", guidance=1.0, steps=3)
WHERE = "blocks.1.hook_mlp_out"


@pytest.fixture
def vector():
    config = build_tiny("wan21-t2v").transformer.config
    return torch.randn(config.num_attention_heads * config.attention_head_dim, generator=torch.Generator().manual_seed(0))


def weights(pipe):
    grid = HookedVideoPipeline.from_pipeline(pipe).run(seed=0, **CALL)
    shape = HookedVideoPipeline.from_pipeline(pipe).token_grid(grid.latents).shape
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) - 0.5


def by_hand(vector, tokens, steps, dose):
    pipe, count = build_tiny("wan21-t2v"), [0]

    def hook(module, args, output):
        count[0] += 1
        return output + tokens.flatten()[None, :, None] * (dose * vector) if count[0] - 1 in steps else None

    pipe.transformer.blocks[1].ffn.register_forward_hook(hook)
    return plain(pipe, CALL, seed=0)


def test_a_plain_pipeline_is_steered_in_the_block_and_only_there(vector):
    pipe = build_tiny("wan21-t2v")
    kind, untouched = type(pipe), plain(pipe, CALL)
    one = Steer(vector, WHERE, span=(1, 2), tokens=weights(pipe), dose=3.0)
    with steer(pipe, one) as steered:
        assert steered is pipe and isinstance(pipe, kind)
        found = plain(pipe, CALL)
        video = pipe(**CALL, generator=torch.Generator().manual_seed(0), output_type="np").frames
    assert torch.equal(found, by_hand(vector, one.tokens, (1, 2), 3.0)) and not torch.equal(found, untouched)
    assert type(pipe) is kind and torch.equal(plain(pipe, CALL), untouched)
    assert np.array_equal(video, pipe.video_processor.postprocess_video(_decoded(pipe, found), output_type="np"))
    model = HookedVideoPipeline.from_pipeline(pipe)
    assert torch.equal(model.run_with_hooks(fwd_hooks=one.hooks(), seed=0, **CALL).latents, found)
    with steer(model, one) as same:
        assert same is model and torch.equal(model.run(seed=0, **CALL).latents, found)


def _decoded(pipe, latents):
    mean, std = (torch.tensor(getattr(pipe.vae.config, n)).view(1, -1, 1, 1, 1) for n in ("latents_mean", "latents_std"))
    with torch.no_grad():
        return pipe.vae.decode(latents / (1.0 / std) + mean, return_dict=False)[0]


def test_dose_zero_changes_no_bit_and_doses_add_up(vector):
    pipe = build_tiny("wan21-t2v")
    one = Steer(vector, WHERE)
    with steer(pipe, one * 0):
        assert torch.equal(plain(pipe, CALL), plain(build_tiny("wan21-t2v"), CALL))
    with steer(pipe, one * 2):
        double = plain(pipe, CALL)
    with steer(pipe, one, one):
        twice = plain(pipe, CALL)
    torch.testing.assert_close(double, twice, rtol=1e-4, atol=1e-5)


def test_an_error_in_the_block_leaves_the_pipeline_as_it_was(vector):
    pipe = build_tiny("wan21-t2v")
    kind = type(pipe)
    with pytest.raises(InterpError, match="has weights for"), steer(pipe, Steer(vector, WHERE, tokens=torch.ones(1, 1, 1))):
        plain(pipe, CALL)
    assert type(pipe) is kind
    with pytest.raises(InterpError, match="hook_mlp_outt"), steer(pipe, Steer(vector, f"{WHERE}t")):
        pass
    assert type(pipe) is kind and not HookedVideoPipeline.from_pipeline(pipe).has_hooks


def test_a_vector_is_saved_with_its_card_and_a_changed_file_is_refused(vector, tmp_path):
    path = tmp_path / "left.safetensors"
    one = Steer(vector, WHERE, (0, 2), torch.ones(2, 2, 2), 0.5, "cond", {"made": "of 16 pairs"})
    one.save(path)
    again = Steer.load(path)
    assert torch.equal(again.vector, vector) and torch.equal(again.tokens, one.tokens)
    assert (again.where, list(again.span), again.dose, again.branch, again.card) == (WHERE, [0, 2], 0.5, "cond", one.card)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InterpError, match="has changed"):
        Steer.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InterpError, match="no safetensors"):
        Steer.load(path)
    with pytest.raises(InterpError, match="cannot be read"):
        Steer.load(tmp_path / "none")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"vector": torch.ones(2, 2)}, "one row"), ({"vector": torch.tensor([float("nan")])}, "finite"),
        ({"vector": torch.ones(2), "tokens": torch.ones(2)}, "weights"), ({"vector": torch.ones(2), "span": ()}, "no step"),
        ({"vector": torch.zeros(2)}, "zeros steers nothing"),
    ],
)  # fmt: skip
def test_what_is_no_steering_is_said(given, said):
    with pytest.raises(InterpError, match=said):
        Steer(where=WHERE, **given)
