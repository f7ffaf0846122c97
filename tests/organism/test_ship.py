"""Variants: what ships is what was trained, rounded to bfloat16, and all else is the organism's."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from cos_interp.cli import app
from cos_interp.interp import HookedVideoPipeline, InterpError, variants
from cos_interp.interp.identity import identity
from cos_interp.organism import loop, package, train_vae
from cos_interp.organism.ship import ship

QUIET = {"limit": 1, "workers": 1, "progress": lambda done, total, what: None}
SHARED = ("scheduler", "text_encoder", "tokenizer", "vae")


@pytest.mark.parametrize("attention", ["cross", "joint"])
def test_a_variant_is_the_average_of_its_training_rounded_and_else_the_organism(trained, shipped, organism, attention):
    model = HookedVideoPipeline.from_pretrained(f"organism:young-{attention}")
    said, held = loop.checkpoint(trained / attention / "transformer" / loop.CHECKPOINT)
    for name, weight in model.pipe.transformer.named_parameters():
        assert weight.dtype == torch.float32 and torch.equal(weight, held[f"ema/{name}"].bfloat16().float()), name
    own, first = identity(model.pipe), identity(organism.pipe)
    assert own["transformer"] != first["transformer"]
    same = {part for part in SHARED if own[part] == first[part]}
    assert same == set(SHARED) - (set() if attention == "cross" else {"text_encoder", "vae"})
    latents = [m.pipe.vae.encode(torch.zeros(1, 3, 9, 80, 80)).latent_dist for m in (model, organism)]
    assert torch.equal(latents[0].mode(), latents[1].mode())
    assert attention == "cross" or float(latents[0].std.max()) < 1e-6
    card = json.loads((shipped / f"young-{attention}" / "card.json").read_text())
    assert (card["training"]["step"], card["training"]["attention"]) == (said["step"], attention) == (2, attention)
    assert card["cos-500"]["final"]["all"]["n"] == 4 and model.defaults["num_frames"] == 9


@pytest.mark.parametrize("attention", ["cross", "joint"])
def test_a_variant_is_small_and_gives_what_its_whole_pipeline_gives(trained, shipped, attention):
    assert package.size(shipped / f"young-{attention}") < 3_000_000 < package.size(trained / attention / "step-00001")
    model = HookedVideoPipeline.from_pretrained(f"organism:young-{attention}")
    whole = HookedVideoPipeline.from_pretrained(trained / attention / "step-00001")
    averages = loop.checkpoint(trained / attention / "transformer" / loop.CHECKPOINT)[1]
    with torch.no_grad():
        for name, weight in whole.pipe.transformer.named_parameters():
            weight.copy_(averages[f"ema/{name}"].bfloat16())
    assert identity(whole.pipe) == identity(model.pipe)


def test_a_pipeline_folder_ships_too(trained, shipped):
    folder = ship(trained / "cross" / "step-00001", "one-step", "one step", **QUIET)
    assert json.loads((folder / "card.json").read_text())["training"] == {"source": "a pipeline folder"}
    HookedVideoPipeline.from_pretrained("organism:one-step")
    shutil.rmtree(folder)


def test_a_checkpoint_of_version_0_1_ships_and_a_damaged_one_does_not(trained, shipped, tmp_path):
    sealed = trained / "cross" / "transformer" / loop.CHECKPOINT
    said, tensors = loop.checkpoint(sealed)
    older, damaged = tmp_path / "older.safetensors", tmp_path / "damaged.safetensors"
    save_file(tensors, older, {"run": json.dumps({"step": said["step"], "recipe": said["recipe"]})})
    with pytest.raises(ValueError, match="damaged, or of version"):
        loop.checkpoint(older)
    folder = ship(older, "older", "of version 0.1", **QUIET)
    same = [next((shipped / name / "transformer").glob("*.xz")).read_bytes() for name in ("older", "young-cross")]
    assert same[0] == same[1]
    shutil.rmtree(folder)
    data = bytearray(sealed.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(ValueError, match="damaged, or of version"):
        ship(damaged, "damaged", "no", **QUIET)


def test_what_cannot_be_a_variant_is_refused_and_leaves_nothing(trained, shipped, tmp_path):
    before = sorted(shipped.iterdir())
    pipe = package.untrained_twin()
    with torch.no_grad():
        next(pipe.vae.decoder.parameters()).add_(1)
    package.save(pipe, tmp_path / "other")
    own = tmp_path / "own"
    shutil.copytree(trained / "cross" / "transformer", own / "transformer")
    (own / "vae-first").mkdir()
    (tmp_path / "empty").mkdir()
    for source, name, said in (
        (trained / "cross", "young-cross", "is there already"),
        (trained / "cross", "../young", "give lower-case letters"),
        (tmp_path / "empty", "new", "holds no organism"),
        (tmp_path / "other", "new", "its autoencoder is not the shipped one"),
        (own, "new", "an autoencoder of its own"),
    ):
        with pytest.raises(ValueError, match=said):
            ship(source, name, "no", **QUIET)
    run = loop.Run(train_vae.build(), loop.Recipe(steps=1, batch=1, lr=1e-3), tmp_path / "vae" / "transformer")
    run.save()
    with pytest.raises(ValueError, match="no transformer of the organism's kinds"):
        ship(tmp_path / "vae", "new", "no", **QUIET)
    assert sorted(shipped.iterdir()) == before


def test_an_unknown_variant_and_a_changed_one_are_refused(shipped, tmp_path):
    with pytest.raises(InterpError, match=r"no variant 'nope'.* there are 'organism:young-cross', 'organism:young-joint'"):
        HookedVideoPipeline.from_pretrained("organism:nope")
    weights = next((shipped / "young-cross" / "transformer").glob("*.xz"))
    held = weights.read_bytes()
    weights.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    with pytest.raises(InterpError, match="have been changed"):
        HookedVideoPipeline.from_pretrained("organism:young-cross")
    weights.write_bytes(held)


def test_without_variants_the_error_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(variants, "VARIANTS", tmp_path / "none")
    with pytest.raises(InterpError, match="none beside 'organism'"):
        HookedVideoPipeline.from_pretrained("organism:young")


def test_the_commands_show_the_variants(shipped):
    runner = CliRunner()
    listed = runner.invoke(app, ["organism", "list"]).output
    assert [line.split()[0] for line in listed.splitlines()] == ["organism", "organism:young-cross", "organism:young-joint"]
    assert "of 4 items solved" in listed and "two steps" in listed
    found = json.loads(runner.invoke(app, ["organism", "list", "--json"]).output)
    assert [one["n"] for one in found] == [500, 4, 4]
    assert "# The organism `organism:young-joint`" in runner.invoke(app, ["organism", "card", "organism:young-joint"]).output
    assert "there are organism, organism:young-cross" in str(runner.invoke(app, ["organism", "card", "nope"]).exception)


def test_every_variant_that_ships_is_what_its_card_was_measured_on():
    for name in variants.names():
        model = HookedVideoPipeline.from_pretrained(variants.PREFIX + name)
        card = json.loads((variants.VARIANTS / name / "card.json").read_text())
        assert card["digest"] == variants.digest(variants.VARIANTS / name) and model.takes_image
