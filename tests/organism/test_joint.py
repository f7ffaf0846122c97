"""The joint-attention organism: what it is trained on is what its pipeline gives it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from cos_interp.interp import HookedVideoPipeline, InterpError
from cos_interp.interp.loading import ORGANISM
from cos_interp.organism import data, joint, loop, package, padding, train_dit
from cos_interp.organism.kinds import KINDS
from cos_interp.organism.train import Plan, shipped_autoencoder, train


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A pipeline of random weights, written and read again."""
    folder = tmp_path_factory.mktemp("joint") / "model"
    package.save(joint.assemble(shipped_autoencoder(ORGANISM), joint.build(3)), folder)
    return HookedVideoPipeline.from_pretrained(folder)


def test_the_transformer_is_trained_on_what_the_pipeline_gives_it(model, monkeypatch):
    monkeypatch.setattr(loop, "computes_bfloat16", lambda device: False)  # a training rounds where the processor has it
    item, given = data.item(5), {}
    hook = model.pipe.transformer.register_forward_pre_hook(lambda module, args, kwargs: given.update(kwargs), with_kwargs=True)
    model.run(prompt=item.prompt, image=Image.fromarray(item.first_frame), seed=0, num_inference_steps=2)
    hook.remove()
    objective = joint.JointFlowMatching(shipped_autoencoder(ORGANISM))
    video = data.to_tensor(item.cells[None])
    torch.testing.assert_close(given["hidden_states"][:, 16:], objective.condition(video), atol=1e-4, rtol=1e-4)
    words = objective.text([item.prompt], np.random.default_rng(0), video)  # this seed drops no prompt
    shown = int(words["encoder_attention_mask"].sum())
    assert shown == int(given["encoder_attention_mask"].sum()) > 4
    found = given["encoder_hidden_states"][:, :shown]
    torch.testing.assert_close(found, words["encoder_hidden_states"][:, :shown], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(given["image_embeds"], words["image_embeds"][:1], atol=1e-4, rtol=1e-4)
    assert words["image_embeds"].shape[0] == train_dit.NOISES


def test_the_length_of_the_padding_does_not_matter(model):
    item = data.item(5)
    call = {"prompt": item.prompt, "image": Image.fromarray(item.first_frame), "seed": 0, "num_inference_steps": 2}
    short, long = (model.run(**call, max_sequence_length=length).latents for length in (padding.SHOWN, 64))
    torch.testing.assert_close(short, long, atol=1e-4, rtol=1e-4)


def test_guidance_is_a_keyword_though_the_pipeline_has_it_in_its_guider(model):
    item = data.item(5)
    call = {"prompt": item.prompt, "image": Image.fromarray(item.first_frame), "seed": 0, "num_inference_steps": 2}
    plain, guided = model.run(**call), model.run(**call, guidance_scale=3.0)
    cond, uncond = guided.outputs[0][0], guided.outputs[1][0]
    torch.testing.assert_close(guided.v[0], uncond + 3 * (cond - uncond))
    assert plain.branches == ("cond",) and guided.branches == ("cond", "uncond")
    assert model.pipe.guider.guidance_scale == 1.0 and torch.equal(model.run(**call, guidance_scale=1.0).latents, plain.latents)
    with pytest.raises(InterpError, match="give a finite number"):
        model.run(**call, guidance_scale=float("nan"))


def test_the_loss_falls_and_training_ends_in_a_pipeline(tmp_path, monkeypatch):
    monkeypatch.setattr(joint, "TRANSFORMER", {**joint.TRANSFORMER, "num_layers": 1, "num_single_layers": 1})
    monkeypatch.setattr(train_dit, "RECIPE", dataclasses.replace(train_dit.RECIPE, batch=2))
    run = loop.Run(joint.build(0), dataclasses.replace(train_dit.RECIPE, steps=40), tmp_path / "run")
    objective = KINDS["joint"].objective(shipped_autoencoder(ORGANISM), run.model)
    losses = [run.advance(objective) for _ in range(40)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    plan = Plan(tmp_path / "out", workers=1, dit_steps=1, compiled=False, autoencoder=ORGANISM, attention="joint")
    made = HookedVideoPipeline.from_pretrained(train(plan))
    assert made.adapter.family == "Motif-Video" and made.layers == 2
