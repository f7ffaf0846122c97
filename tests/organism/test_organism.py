"""The shipped organism and its recipe."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import torch
from faults import at_boundary, at_change, content, in_a_child
from PIL import Image

from cos_interp.interp.files import weights_digest
from cos_interp.interp.loading import ORGANISM
from cos_interp.organism import data, loop, package, padding, shapes, text, train_dit, train_vae, widen
from cos_interp.organism.evaluate import chosen_items, judge_batch, round_trip
from cos_interp.organism.muon import StackedMuon
from cos_interp.organism.train import Plan, sharpened, train
from cos_interp.tasks import TASKS, grid, suite


def test_the_folder_is_an_ordinary_pipeline_under_25_mb():
    from diffusers import WanImageToVideoPipeline

    pipe = WanImageToVideoPipeline.from_pretrained(ORGANISM)
    assert package.size(ORGANISM) <= 25_000_000
    assert type(pipe.transformer).__name__ == "WanTransformer3DModel" and len(pipe.transformer.blocks) >= 8
    assert type(pipe.vae).__name__ == "AutoencoderKLWan" and pipe.vae.config.scale_factor_temporal == 2
    assert type(pipe.scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"
    card = json.loads((ORGANISM / "card.json").read_text())
    assert card["digest"] == weights_digest(ORGANISM)
    assert not [p for p in ORGANISM.rglob("*") if p.suffix in (".bin", ".pt", ".pkl", ".ckpt")]


def test_plain_diffusers_gives_what_the_instrument_gives(organism):
    from diffusers import WanImageToVideoPipeline

    pipe = WanImageToVideoPipeline.from_pretrained(ORGANISM)
    pipe.set_progress_bar_config(disable=True)
    item = TASKS["maze"].sample(1, split="test")
    call = {**shapes.CALL_DEFAULTS, "prompt": item.prompt, "image": Image.fromarray(item.first_frame), "num_inference_steps": 6}
    frames = pipe(**call, generator=torch.Generator().manual_seed(4)).frames[0]
    run = organism.run(**{**call, "seed": 4})
    assert np.array_equal(np.round(frames * 255).astype(np.uint8), run.decode()[0])


def test_the_length_of_the_padding_hardly_matters(organism):
    """The pipeline pads prompts to 512 by default, the organism's own default is 16."""
    item = TASKS["maze"].sample(1, split="test")
    call = {"prompt": item.prompt, "image": Image.fromarray(item.first_frame), "seed": 4, "num_inference_steps": 4}
    short = organism.run(**call).latents
    assert (organism.run(**call, max_sequence_length=512).latents - short).std() < 0.2 * short.std()


def card() -> dict:
    return json.loads((ORGANISM / "card.json").read_text())


@pytest.mark.slow
def test_accuracy_on_fresh_items_and_noise_is_what_the_card_says(organism):
    items = chosen_items(10, True, 3)
    solved = 0
    for start in range(0, len(items), 8):
        part = items[start : start + 8]
        found = judge_batch(organism, part, range(start, start + len(part)), False, num_inference_steps=10)
        solved += sum(v.solved for v in found["final"])
    claimed = card()["cos-500"]["final"]["all"]["solved"]
    assert solved / len(items) >= claimed - 3 * (claimed * (1 - claimed) / len(items)) ** 0.5 - 0.05  # ten steps, not twenty


def test_the_answer_forms_along_the_steps():
    found = card()["cos-500"]
    for items in ("/ ambiguous", "maze / difficulty 7"):
        assert found["0"][items]["solved"] < 0.5 * found["final"][items]["solved"]


def test_the_accuracy_target():
    found = card()["cos-500"]["final"]
    assert found["all"]["solved"] >= 0.9 and min(found[name]["solved"] for name in TASKS) >= 0.8


@pytest.mark.parametrize("name", list(TASKS))
def test_true_videos_are_never_misread_after_the_autoencoder(organism, name):
    verdicts = round_trip(organism, suite.task_items(name)[:40])
    assert {v.status for v in verdicts} <= {"solved", "undecided"}
    assert np.mean([v.solved for v in verdicts]) >= 0.9


def test_all_true_videos_survive_the_autoencoder():
    found = card()["cos-500"]["true videos through the autoencoder"]
    assert found["all"]["solved"] == 1.0


def test_widening_is_exact():
    vae = train_vae.build(3).eval()
    wide = widen.widen(vae)
    dots = torch.rand(2, 3, 9, 40, 40) * 2 - 1
    pixels = dots.repeat_interleave(grid.SCALE, -1).repeat_interleave(grid.SCALE, -2)
    with torch.no_grad():
        latent, wide_latent = vae.encode(dots).latent_dist.mode(), wide.encode(pixels).latent_dist.mode()
        torch.testing.assert_close(latent, wide_latent, atol=1e-5, rtol=1e-5)
        out = vae.decode(latent).sample.repeat_interleave(grid.SCALE, -1).repeat_interleave(grid.SCALE, -2)
        torch.testing.assert_close(wide.decode(latent).sample, out, atol=1e-5, rtol=1e-5)
    for (name, a), b in zip(vae.named_parameters(), widen.narrow(wide).parameters()):
        assert torch.equal(a, b), name


def test_the_worst_cells_weigh_most():
    squared = torch.full((1, 3, 2, 40, 40), 0.01)
    assert torch.allclose(train_vae.focus_weights(squared, 1.0), torch.tensor(2.0))
    squared[:, :, 1, 8:16, 16:24] = 1.0
    weight = train_vae.focus_weights(squared, 1.0)
    assert weight.shape == (1, 1, 2, 40, 40) and (weight[0, 0, 1, 8:16, 16:24] == 20).all()
    assert weight[0, 0, 0].max() < 2 and weight[0, 0, 1, 0, 0] < 2


def test_sharpening_moves_the_decoder_only(tmp_path):
    plan = Plan(tmp_path, workers=1, vae_steps=1)
    before = train_vae.build(5)
    after = sharpened(train_vae.build(5), plan)
    changed = {n.split(".")[0] for (n, a), b in zip(before.named_parameters(), after.parameters()) if not torch.equal(a, b)}
    assert "decoder" in changed and not changed & {"encoder", "quant_conv"}
    untouched = sharpened(train_vae.build(5), Plan(tmp_path / "none", workers=1))
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), untouched.parameters()))


def test_padding_by_a_bias_equals_padding_by_tokens():
    model = train_dit.build(1)
    prompts = text.PromptTable(text.build_tokenizer(), text.build_encoder())
    embedding = prompts.embed("move the red circle next to the box")
    x, time = torch.randn(1, 34, 5, 5, 5), torch.tensor([700.0])
    for length in (16, 512):
        padded = torch.cat([embedding, torch.zeros(length - len(embedding), 64)])[None]
        plain = train_dit.build(1)
        with torch.no_grad():
            expected = plain(x, time, padded, return_dict=False)[0]
            processor = padding.install(model)
            stacked, processor.bias = padding.pad([embedding], [length])
            torch.testing.assert_close(model(x, time, stacked, return_dict=False)[0], expected, atol=1e-5, rtol=1e-4)


def test_every_prompt_is_in_the_vocabulary_and_fits():
    tokenizer = text.build_tokenizer()
    for name in TASKS:
        for seed in range(60):
            ids = tokenizer(TASKS[name].sample(seed).prompt).input_ids
            assert tokenizer.unk_token_id not in ids and len(ids) < padding.SHOWN <= shapes.SEQUENCE


def test_training_clips_depend_on_their_index_only():
    for index in (0, 17, 123456):
        one, again = data.item(index), data.item(index)
        assert np.array_equal(one.cells, again.cells) and one.prompt == again.prompt
        assert np.array_equal(data.scramble(index), data.scramble(index))


def small_flow(steps: int, folder):
    """A flow-matching run of a narrow transformer on an untrained autoencoder: the real loop, seconds long."""
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    model = WanTransformer3DModel(**{**shapes.TRANSFORMER, "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 12})
    prompts = text.PromptTable(text.build_tokenizer(), text.build_encoder())
    loss = train_dit.CrossFlowMatching(train_vae.build(), prompts, padding.install(model))
    recipe = dataclasses.replace(train_dit.RECIPE, steps=steps, batch=2, checkpoint_every=2)
    return loop.Run(model, recipe, folder), loss


def test_training_resumes_exactly(tmp_path):
    whole, loss = small_flow(6, tmp_path / "whole")
    loop.fit(whole, loss, lambda line: None)
    first, loss = small_flow(6, tmp_path / "broken")
    for _ in range(5):
        first.advance(loss)
        if first.step % 2 == 0:
            first.save()
    again, loss = small_flow(6, tmp_path / "broken")  # a new process would start so
    assert again.resume() and again.step == 4
    loop.fit(again, loss, lambda line: None)
    for (name, a), b in zip(whole.model.named_parameters(), again.model.parameters()):
        assert torch.equal(a, b), name
    assert all(torch.equal(whole.ema[n], again.ema[n]) for n in whole.ema)
    other, _ = small_flow(6, tmp_path / "broken")
    other.recipe = dataclasses.replace(other.recipe, lr=1.0)
    with pytest.raises(ValueError, match="was made by recipe"):
        other.resume()


def test_batches_drawn_ahead_are_those_drawn_in_place(tmp_path):
    run, objective = small_flow(5, tmp_path)
    run.step = 2
    for here, ahead in zip(loop.drawn(run, objective, 0), loop.drawn(run, objective, 2), strict=True):
        assert here.keys() == ahead.keys() and all(torch.equal(here[name], ahead[name]) for name in here)


def test_muon_of_stacked_matrices_is_torchs_muon(monkeypatch):
    """Torch's own rounds to bfloat16, so it is held against in float32: its bfloat16() is taken away."""
    torch.manual_seed(0)
    first = [torch.nn.Parameter(torch.randn(shape)) for shape in [(6, 4), (4, 6), (6, 4), (5, 5), (6, 4)]]
    second = [torch.nn.Parameter(p.detach().clone()) for p in first]
    settings = {"lr": 0.1, "weight_decay": 0.02}
    stacked = StackedMuon(first, torch.float32, **settings)
    own = torch.optim.Muon(second, adjust_lr_fn="match_rms_adamw", **settings)
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)
    for _ in range(4):
        for a, b in zip(first, second, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        stacked.step()
        own.step()
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(stacked.state[a]["momentum_buffer"], own.state[b]["momentum_buffer"])


@pytest.mark.slow
def test_a_training_killed_before_any_change_on_disk_ends_with_the_same_bytes(tmp_path, monkeypatch):
    small = {**shapes.TRANSFORMER, "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 12}
    monkeypatch.setattr(train_dit, "RECIPE", dataclasses.replace(train_dit.RECIPE, batch=1, checkpoint_every=2))
    monkeypatch.setattr(loop, "TOLD_EVERY", 2)
    monkeypatch.setattr(shapes, "TRANSFORMER", small)

    def training(folder):
        train(Plan(folder, workers=1, dit_steps=4, compiled=False, autoencoder=ORGANISM, seed=1, keep=(3,)))

    def counted():
        changes = at_change(0, tmp_path / "whole")
        with at_boundary(0) as boundaries:
            training(tmp_path / "whole")
        (tmp_path / "count").write_text(f"{changes.count} {boundaries.count}")

    assert in_a_child(counted) == 0
    changes, boundaries = map(int, (tmp_path / "count").read_text().split())
    whole, folder = content(tmp_path / "whole"), tmp_path / "killed"
    assert changes > 20 and boundaries >= 4 * 4  # two checkpoints, the curve twice
    train(Plan(tmp_path / "plain", workers=1, dit_steps=4, compiled=False, autoencoder=ORGANISM, seed=1))
    plain = content(tmp_path / "plain")  # writing the pipeline on the way changes nothing
    assert plain == {name: data for name, data in whole.items() if not name.startswith("step-00003/")} != whole
    assert [json.loads(line)["step"] for line in whole["transformer/curve.jsonl"].splitlines()] == [2, 4]
    for number, watched in [(n, "change") for n in range(1, changes + 1)] + [(n, "boundary") for n in range(1, boundaries + 1)]:

        def killed(number=number, watched=watched):
            at_change(number if watched == "change" else 0, folder)
            with at_boundary(number if watched == "boundary" else 0):
                training(folder)

        assert os.WIFSIGNALED(in_a_child(killed))
        training(folder)
        assert content(folder) == whole, f"{watched} {number}"
        shutil.rmtree(folder)


def test_an_untrained_twin_keeps_what_reads_and_draws_what_knows(organism):
    first, second = (package.untrained_twin(seed) for seed in (1, 2))
    same = lambda a, b: all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    for part in ("vae", "text_encoder"):
        assert same(getattr(first, part), getattr(organism.pipe, part))
    assert not same(first.transformer, second.transformer) and not same(first.transformer, organism.pipe.transformer)
    items = [suite.task_items("maze")[0]]
    assert [v.status for v in round_trip(organism, items)] == ["solved"]


def test_the_loss_falls(tmp_path):
    run, loss = small_flow(30, tmp_path)
    values = [run.advance(loss) for _ in range(30)]
    assert np.mean(values[-5:]) < 0.8 * np.mean(values[:5])


def test_learning_rate_schedule():
    recipe = loop.Recipe(steps=100, batch=1, lr=1.0, warmup=10, decay=0.5)
    factors = [loop.lr_factor(k, recipe) for k in range(100)]
    assert factors[0] == 0.1 and factors[9:50] == [1.0] * 41 and factors[75] == 0.5 and factors[99] == pytest.approx(0.02)


def test_sigma_draws_follow_the_shifted_logit_normal_with_more_of_the_highest():
    sigma = train_dit.draw_sigma(20000, torch.Generator().manual_seed(0))
    assert sigma.min() > 0 and sigma.max() < 1
    # 3 u / (1 + 2 u) at u = 1/2 is .75: half of the 93 % that are logit-normal lie below it
    assert (sigma < 0.75).float().mean() == pytest.approx(0.93 * 0.5, abs=0.01)
    # sigma .95 is u = .8636, z = 1.846: 3.25 % of the logit-normal ones lie above it
    assert (sigma > 0.95).float().mean() == pytest.approx(0.93 * 0.0325 + 0.07, abs=0.006)


@dataclasses.dataclass
class Indices:
    """An objective that writes down which samples it is asked for."""

    seen: list[int]

    def batch(self, indices):
        self.seen.extend(indices)
        return {}

    def loss(self, model, batch):
        return sum(p.sum() for p in model.parameters())


def test_seeds_of_a_recipe_share_no_sample_and_no_first_weights(tmp_path):
    seen = {}
    for seed in (0, 1):
        run = loop.Run(train_dit.build(seed), loop.Recipe(steps=2, batch=2, lr=1e-3, seed=seed), tmp_path / str(seed))
        seen[seed] = []
        for _ in range(2):
            run.advance(Indices(seen[seed]))
    assert seen[0] == [0, 1, 2, 3] and seen[1] == [loop.SEED_STRIDE + i for i in range(4)]
    first, second = (train_dit.build(seed).patch_embedding.weight for seed in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("damage", ["missing", "truncated", "no config"])
def test_a_damaged_folder_is_one_clear_error(tmp_path, damage):
    from cos_interp.interp import HookedVideoPipeline, InterpError

    folder = tmp_path / "model"
    package.save(package.untrained_twin(), folder)
    weights = next((folder / "transformer").glob("*.safetensors"))
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:5000])
    else:
        (folder / "vae" / "config.json").unlink()
    with pytest.raises(InterpError, match="could not be loaded") as caught:
        HookedVideoPipeline.from_pretrained(folder)
    assert len(str(caught.value).splitlines()) == 1
