"""Tuning for guidance: the loss is what it says, a kill changes nothing, and what ships is the LoRA as diffusers reads it."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from cos_interp.cli import app
from cos_interp.interp import HookedVideoPipeline, InterpError, variants
from cos_interp.interp.loading import load_pipeline
from cos_interp.organism import guide, loop, padding, text
from cos_interp.organism.ship import ship
from cos_interp.organism.train import shipped_autoencoder

QUIET = {"limit": 1, "workers": 1, "progress": lambda done, total, what: None}
BASE = "organism:young-cross"


@pytest.fixture(scope="module")
def tuned(shipped, tmp_path_factory):
    """A tuning of a small organism, whole."""
    out = tmp_path_factory.mktemp("tuning")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guide, "RECIPE", dataclasses.replace(guide.RECIPE, batch=2, lr=0.02, warmup=1, checkpoint_every=2))
        guide.guide(BASE, out, 4, "cpu", False)
        yield out


def transformer():
    return load_pipeline(BASE, {"torch_dtype": torch.float32})[0].transformer


def prompts():
    return text.PromptTable(text.build_tokenizer(), text.build_encoder())


def test_the_loss_is_of_both_answers_and_of_the_guided_one_at_little_noise(shipped, monkeypatch):
    """Row by row with plain calls; the first rows stand where one guided step from more noise leads."""
    monkeypatch.setattr(loop, "computes_bfloat16", lambda device: False)  # a training rounds where the processor has it
    model = transformer()
    objective = guide.Guided(shipped_autoencoder(variants.ORGANISM), prompts(), padding.install(model))
    batch = objective.batch(range(7, 11))
    assert batch["guidance"].min() >= 1 and batch["guidance"].max() <= 6 and batch["sigma"][:4].max() < 0.6
    assert len(batch["before"]) == 2 and (batch["before"] > batch["sigma"][:2]).all() and batch["before"].max() <= 0.8
    found = float(objective.loss(model, batch))
    noise, count = batch["noise"].double(), len(batch["sigma"])
    video = batch["video"]
    x0, condition = (t.repeat(2, 1, 1, 1, 1).double() for t in (objective.normalised(video), objective.condition(video)))

    def velocities(state, row, sigma):
        answers = []
        for at in (row, row + count):
            objective.processor.bias = batch["bias"][at : at + 1]
            words = batch["encoder_hidden_states"][at : at + 1]
            seen = torch.cat([state, condition[row]])[None].float()
            with torch.no_grad():
                answers.append(model(seen, torch.tensor([sigma * 1000]), words, return_dict=False)[0][0].double())
        return answers

    total = []
    for row, (sigma, scale) in enumerate(zip(batch["sigma"].tolist(), batch["guidance"].tolist(), strict=True)):
        start = float(batch["before"][row]) if row < 2 else sigma
        state = (1 - start) * x0[row] + start * noise[row]
        if row < 2:
            told, bare = velocities(state, row, start)
            state = state + (sigma - start) * ((1 - scale) * bare + scale * told)
        told, bare = velocities(state, row, sigma)
        true = (state - x0[row]) / sigma
        errors = (told - true) ** 2 + (bare - true) ** 2 / 2
        errors += ((1 - scale) * bare + scale * told - true) ** 2 * (sigma < 0.6)
        total.append((errors * batch["weights"][row] * (sigma / max(sigma, 0.15)) ** 2).mean())
    assert found == pytest.approx(float(np.mean(total)), rel=1e-4)


def test_only_the_lora_is_trained_and_a_kill_changes_nothing(shipped, tuned, tmp_path, monkeypatch):
    drawn = guide.Guided.batch

    def killed(self, indices):
        if indices.start % loop.SEED_STRIDE >= 3 * 2:
            raise KeyboardInterrupt
        return drawn(self, indices)

    monkeypatch.setattr(guide.Guided, "batch", killed)
    with pytest.raises(KeyboardInterrupt):
        guide.guide(BASE, tmp_path, 4, "cpu", False)
    assert loop.checkpoint(tmp_path / "transformer" / loop.CHECKPOINT)[0]["step"] == 2
    monkeypatch.setattr(guide.Guided, "batch", drawn)
    guide.guide(BASE, tmp_path, 4, "cpu", False)
    same = [load_file(folder / "lora" / variants.LORA) for folder in (tuned, tmp_path)]
    assert same[0].keys() == same[1].keys() and all(torch.equal(value, same[1][key]) for key, value in same[0].items())
    assert any(value.any() for key, value in same[0].items() if ".lora_B." in key)
    held = loop.checkpoint(tuned / "transformer" / loop.CHECKPOINT)[1]
    for name, weight in transformer().named_parameters():
        kept = [value for key, value in held.items() if key.replace(".base_layer.", ".") == f"model/{name}"]
        assert len(kept) == 1 and torch.equal(kept[0], weight), name


def test_what_ships_is_the_lora_as_diffusers_fuses_it(shipped, tuned):
    folder = ship(tuned, "young-guided", "tuned", **QUIET)
    model = HookedVideoPipeline.from_pretrained("organism:young-guided")
    pipe = load_pipeline(BASE, {"torch_dtype": torch.float32})[0]
    before = {name: weight.detach().clone() for name, weight in pipe.transformer.named_parameters()}
    pipe.load_lora_weights(str(folder))
    pipe.fuse_lora(components=["transformer"])
    pipe.unload_lora_weights()
    fused, moved = dict(pipe.transformer.named_parameters()), 0
    for name, weight in model.pipe.transformer.named_parameters():
        torch.testing.assert_close(weight, fused[name], atol=1e-6, rtol=1e-6)
        moved += not torch.equal(weight, before[name])
    assert moved == 3 + 10  # three of the time, ten matrices of the block
    assert model.defaults["guidance_scale"] == 5
    card = json.loads((folder / "card.json").read_text())
    assert [one["guidance"] for one in (card["cos-500"], *card["at other guidance"])] == [5, 3, 1]
    assert card["training"]["base"] == BASE and card["training"]["step"] == 4
    assert "what is not in this folder is that of organism:young-cross" in (folder / "README.md").read_text()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 400_000
    shutil.rmtree(folder)


def test_a_lora_of_an_organism_that_was_changed_is_refused(shipped, tuned):
    folder = ship(tuned, "young-guided", "tuned", **QUIET)
    config = shipped / "young-cross" / "transformer" / "config.json"
    held = config.read_bytes()
    config.write_bytes(held + b"\n")
    with pytest.raises(InterpError, match="have been changed"):
        HookedVideoPipeline.from_pretrained("organism:young-guided")
    config.write_bytes(held)
    weights = folder / variants.LORA
    save_file({key: value * 2 for key, value in load_file(weights).items()}, weights)
    with pytest.raises(InterpError, match="have been changed"):
        HookedVideoPipeline.from_pretrained("organism:young-guided")
    shutil.rmtree(folder)


def test_what_cannot_be_tuned_or_shipped_is_refused(shipped, tuned, trained, tmp_path):
    with pytest.raises(InterpError, match="holds the tuning of another model"):
        guide.guide("organism:young-cross", _copied(tuned, tmp_path / "other", shift=1.0), 4, "cpu", False)
    with pytest.raises(InterpError, match="organism:young-joint is no organism that is guided"):
        guide.guide("organism:young-joint", tmp_path / "joint", 4, "cpu", False)
    said = _copied(tuned, tmp_path / "own")
    (said / "lora" / variants.BASE).write_text(json.dumps({"base": str(trained / "cross" / "pipeline")}))
    with pytest.raises(ValueError, match="which does not ship: ship that first"):
        ship(said, "own", "no", **QUIET)
    assert not (shipped / "own").exists()
    answer = CliRunner().invoke(app, ["organism", "guide", BASE, "--out", str(tmp_path / "cuda"), "--device", "cuda"])
    assert torch.cuda.is_available() or "torch sees no CUDA GPU" in str(answer.exception)


def _copied(folder, made, shift=None):
    """A tuning's folder again; with ``shift``, as if another model had been tuned in it."""
    shutil.copytree(folder, made)
    if shift is not None:
        run = loop.Run(guide.adapted(transformer(), 0), dataclasses.replace(guide.RECIPE, steps=4), made / "transformer")
        run.resume()
        with torch.no_grad():
            next(p for p in run.model.parameters() if not p.requires_grad).add_(shift)
        run.save()
    return made
