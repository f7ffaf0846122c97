"""Weights that are missing and numbers that are none: refused by name, never averaged, never drawn at random."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cos_interp.interp import HookedVideoPipeline, InterpError, tiny
from cos_interp.interp.errors import NotFinite
from cos_interp.interp.loading import check_organism

ROOT = Path(__file__).resolve().parents[2]
CALL = {k: v for k, v in tiny.call("wan2.1").items() if k != "seed"} | {"seed": 0, "num_inference_steps": 2}


@pytest.fixture
def folder(tmp_path):
    tiny.build("wan2.1").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("part", "file"),
    [("transformer", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")],
)
def test_a_weight_that_is_missing_or_does_not_belong_refuses_the_load(folder, part, file):
    path = folder / part / f"{file}.safetensors"
    whole = load_file(path)
    assert HookedVideoPipeline.from_pretrained(folder).run(**CALL).steps == 2
    names = sorted(whole)
    for gone in (names[0], names[-1]):
        if gone == "encoder.embed_tokens.weight":
            continue
        save_file({k: v for k, v in whole.items() if k != gone}, path, {"format": "pt"})
        named = r"(shared|encoder\.embed_tokens)\.weight" if gone == "shared.weight" else gone  # one weight of two names
        with pytest.raises(InterpError, match=f"{part} lacks {named}"):
            HookedVideoPipeline.from_pretrained(folder)
    save_file({**whole, "of.another.model": torch.zeros(2)}, path, {"format": "pt"})
    with pytest.raises(InterpError, match=r"of\.another\.model"):
        HookedVideoPipeline.from_pretrained(folder)


def test_a_shard_is_asked_what_it_holds_and_not_its_index(folder):
    part = folder / "transformer"
    (whole,) = part.glob("*.safetensors")
    tensors = load_file(whole)
    names = sorted(tensors)
    halves = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    for file, held in halves.items():
        save_file({name: tensors[name] for name in held}, part / file, {"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": {name: file for file, held in halves.items() for name in held}}
    whole.rename(part / "kept")
    (part / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    HookedVideoPipeline.from_pretrained(folder)
    save_file({name: tensors[name] for name in halves["b.safetensors"][1:]}, part / "b.safetensors", {"format": "pt"})
    with pytest.raises(InterpError, match=re.escape(halves["b.safetensors"][0])):
        HookedVideoPipeline.from_pretrained(folder)


def test_pickled_weights_are_read_on_request_only(folder):
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    with pytest.raises(InterpError, match=r"transformer/diffusion_pytorch_model.bin, a pickle.* use_safetensors=False"):
        HookedVideoPipeline.from_pretrained(folder)


@pytest.mark.parametrize("content", ["", "[", "[1]", "3"])
def test_damaged_configurations_are_named(folder, content):
    (folder / "call_defaults.json").write_text(content)
    with pytest.raises(InterpError, match=r"call_defaults\.json"):
        HookedVideoPipeline.from_pretrained(folder)
    (folder / "call_defaults.json").unlink()
    for name in ("model_index.json", "transformer/config.json"):
        whole = (folder / name).read_text()
        (folder / name).write_text(content)
        with pytest.raises(InterpError, match="could not be loaded"):
            HookedVideoPipeline.from_pretrained(folder)
        (folder / name).write_text(whole)


def test_the_organism_is_held_to_its_card(tmp_path):
    import shutil

    from cos_interp.interp.loading import ORGANISM

    shutil.copytree(ORGANISM, tmp_path / "weights")
    check_organism(tmp_path / "weights")
    card = json.loads((tmp_path / "weights/card.json").read_text())
    (tmp_path / "weights/card.json").write_text(json.dumps({**card, "digest": "0"}))
    with pytest.raises(InterpError, match="have been changed"):
        check_organism(tmp_path / "weights")
    (tmp_path / "weights/card.json").write_text(json.dumps(card))
    weights = tmp_path / "weights/transformer/diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InterpError, match="have been changed"):
        check_organism(tmp_path / "weights")
    (tmp_path / "weights/card.json").unlink()
    with pytest.raises(InterpError, match=r"card\.json is missing"):
        check_organism(tmp_path / "weights")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["transformer", "text_encoder"])
def test_a_broken_weight_stops_the_run_with_its_name(part, value):
    pipe = tiny.build("wan2.1")
    name, weight = next((n, p) for n, p in getattr(pipe, part).named_parameters() if p.ndim > 1)
    with torch.no_grad():
        weight.fill_(value)
    with pytest.raises(NotFinite, match=f"step 0 .*{name} is not finite"):
        HookedVideoPipeline.from_pipeline(pipe).run(**CALL)


def test_broken_pixels_latents_and_edits_are_named():
    pipe = tiny.build("wan2.1")
    model = HookedVideoPipeline.from_pipeline(pipe)
    run = model.run(**CALL)
    with pytest.raises(NotFinite, match=r"the hook at blocks.0.hook_resid_post, step 1 returned"):
        model.run_with_hooks(fwd_hooks=[("blocks.0.hook_resid_post @ step=1", lambda act, hook: act / 0)], **CALL)
    with torch.no_grad():
        next(pipe.vae.decoder.parameters()).fill_(float("nan"))
    with pytest.raises(NotFinite, match=r"the autoencoder decoded.*decoder"):
        run.decode()
    image = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1-i2v"))
    with torch.no_grad():
        next(image.pipe.vae.encoder.parameters()).fill_(float("nan"))
    with pytest.raises(NotFinite, match=r"encoder\.conv_in\.weight is not finite"):
        image.run(**{**tiny.call("wan2.1-i2v"), "seed": 0, "num_inference_steps": 2})


def test_a_run_and_a_model_can_be_copied_and_a_run_pickled():
    model = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1"))
    run = model.run(**CALL)
    copied = copy.deepcopy(run)
    assert torch.equal(copied.latents, run.latents) and copied.latents.data_ptr() != run.latents.data_ptr()
    assert (copied.decode() == run.decode()).all()
    read = pickle.loads(pickle.dumps(run))
    with pytest.raises(InterpError, match="a model is not pickled: save its pipeline"):
        pickle.dumps(model)
    assert (
        all(torch.equal(a, b) for a, b in zip(read.x_t, run.x_t, strict=True))
        and (model.decode(read.latents) == run.decode()).all()
    )
    with pytest.raises(InterpError, match=r"model\.decode"):
        read.decode()
    other = copy.deepcopy(model)
    assert torch.equal(other.run(**CALL).latents, run.latents)
    with torch.no_grad():
        next(other.pipe.transformer.parameters()).add_(1)
    assert torch.equal(model.run(**CALL).latents, run.latents) and not torch.equal(other.run(**CALL).latents, run.latents)


def test_nothing_is_mounted_on_every_object():
    code = "import cos_interp; cos_interp.HookedVideoPipeline; assert not hasattr(object, 'save'); import nnsight; nnsight.save"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": "src"}, cwd=ROOT)
