"""``cos organism guide``: a trained organism tuned so that guidance holds, as a LoRA of it.

Guidance adds ``scale - 1`` times the difference of two answers, with and without the prompt (Ho and Salimans 2022). At little
noise the state shows what the prompt says, and an exact model would answer alike; in a trained one a small difference is left,
which guidance makes large: the right video comes out with sprites of another colour. So below a noise level the *guided* answer
is trained, for the true video; above it, where prompts decide, both answers are held at what they were.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanImageToVideoPipeline, WanTransformer3DModel
from torch import nn

from cos_interp.interp.errors import InterpError
from cos_interp.interp.files import TEMPORARY
from cos_interp.interp.loading import load_pipeline
from cos_interp.interp.variants import BASE, ORGANISM
from cos_interp.organism import padding, shapes, text, train_dit
from cos_interp.organism.graphed import Batch
from cos_interp.organism.loop import Recipe, Run, fit
from cos_interp.organism.train import check_device, shipped_autoencoder

RECIPE = Recipe(steps=1200, batch=12, lr=2e-3, warmup=30, decay=0.7, ema=0.99, weight_decay=0.0, seed=40)
RANK = 16
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2",
          "time_embedder.linear_1", "time_embedder.linear_2", "time_proj"]  # fmt: skip
BELOW, LEAST = 0.5, 0.02  # noise levels at which the guided answer is trained
STRONGEST = 6.0  # guidance scales in training are uniform from 1 to this
FLOOR = 0.15  # errors of velocities count as those of clean estimates below this noise level
HELD = 16.0  # weight of what is to stay


class Guided(train_dit.CrossFlowMatching):
    """The loss of the tuning, against ``teacher``, the organism as it was. Each clip has a little noise once, and once as much as
    the recipe of the organism draws."""

    def __init__(self, vae: AutoencoderKLWan, transformer: WanTransformer3DModel, teacher: WanTransformer3DModel):
        prompts = text.PromptTable(text.build_tokenizer(), text.build_encoder())
        super().__init__(vae, prompts, padding.install(transformer, teacher))
        self.teacher = teacher.eval().requires_grad_(False)

    def batch(self, indices: range) -> Batch:
        """As of flow matching, ``guidance`` a row beside; the words are those of all prompts, then of no prompt."""
        batch = super().batch(indices)
        sigma, generator = batch["sigma"], torch.Generator().manual_seed(indices.start + 1)
        little, guidance = torch.rand(2, len(sigma), generator=generator)
        first = torch.arange(len(sigma)) < len(indices)
        batch["sigma"] = torch.where(first, LEAST + (BELOW - LEAST) * little, sigma)
        return batch | {"guidance": 1 + (STRONGEST - 1) * guidance}

    def text(self, prompts: list[str], rng: np.random.Generator, video: torch.Tensor) -> Batch:
        lengths = rng.choice(padding.LENGTHS, len(prompts)).tolist() * 2
        stacked, bias = padding.pad([self.prompts.embed(p) for p in [*prompts, *[""] * len(prompts)]], lengths)
        return {"encoder_hidden_states": stacked, "bias": bias}

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """At little noise the squared errors of the guided answer and of its two parts; above, how far the parts have moved."""
        s, little = (rows(value) for value in (batch["sigma"], (batch["sigma"] < BELOW).float()))
        x0, noisy = self.noisy(batch)
        call = {"hidden_states": noisy.repeat(2, 1, 1, 1, 1), "timestep": batch["sigma"].repeat(2) * 1000, "return_dict": False}
        with torch.no_grad():
            was, was_bare = self.velocity(self.teacher, batch, **call).chunk(2)
        told, bare = self.velocity(model, batch, **call).chunk(2)
        true, guided = batch["noise"] - x0, bare + rows(batch["guidance"]) * (told - bare)
        learnt = (guided - true).pow(2) + (told - true).pow(2) + 0.25 * (bare - true).pow(2)
        moved = (told - was).pow(2) + 0.5 * (bare - was_bare).pow(2)
        weights = batch["weights"] * (s / s.clamp(min=FLOOR)).pow(2)
        return ((little * learnt + (1 - little) * HELD * moved) * weights).mean()


def rows(values: torch.Tensor) -> torch.Tensor:
    """One number a row, for latents."""
    return values.view(-1, 1, 1, 1, 1)


def adapted(transformer: WanTransformer3DModel, seed: int) -> WanTransformer3DModel:
    """The transformer with an untrained LoRA, whose weights alone are to be trained; changed in place."""
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise InterpError("a LoRA needs peft, which is not installed: pip install peft") from error
    torch.manual_seed(seed)
    transformer.requires_grad_(False)
    transformer.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LAYERS))
    return transformer


def guide(base: str, out: Path, steps: int | None, device: str, compiled: bool, say: Callable[[str], None] = print) -> Path:
    """Tune ``base`` and write ``out/lora``, a folder that ``--lora`` and ``load_lora_weights`` take; resumed from its checkpoint.

    InterpError for a model that is not of the organism's first kind, and where peft is not installed.
    """
    check_device(device)
    plain = [load_pipeline(base, {"torch_dtype": torch.float32})[0].transformer for _ in range(2)]
    if type(plain[0]) is not WanTransformer3DModel or plain[0].config.text_dim != shapes.TRANSFORMER["text_dim"]:
        raise InterpError(f"{base} is no organism that is guided by its prompt's cross-attention: give organism, organism:NAME")
    teacher, transformer = plain[0].to(device), adapted(plain[1], RECIPE.seed).to(device)
    objective = Guided(shipped_autoencoder(ORGANISM).to(device), transformer, teacher)
    run = Run(transformer, replace(RECIPE, steps=steps or RECIPE.steps), out / "transformer")
    if run.resume() and not _same(teacher, transformer):
        raise InterpError(f"{out} holds the tuning of another model than {base}: choose another --out, or delete it")
    if compiled:
        for block in (*teacher.blocks, *transformer.blocks):
            block.compile(dynamic=False)
    fit(run, objective, say)
    return _write(run, base, out / "lora")


def _same(teacher: WanTransformer3DModel, transformer: WanTransformer3DModel) -> bool:
    """Whether what the LoRA is put on is the teacher."""
    held = {name.replace(".base_layer.", "."): value for name, value in transformer.named_parameters()}
    return all(torch.equal(value, held[name]) for name, value in teacher.named_parameters())


def _write(run: Run, base: str, folder: Path) -> Path:
    """The moving average of the LoRA in diffusers' format, and what it was made from, whole or not at all."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(run.load_average())
    made = folder.with_name(TEMPORARY.format(folder.name))
    shutil.rmtree(made, ignore_errors=True)  # of a writing that was killed
    WanImageToVideoPipeline.save_lora_weights(made, {key: value.cpu().contiguous() for key, value in state.items()})
    (made / BASE).write_text(json.dumps({"base": base, "step": run.step, "recipe": asdict(run.recipe)}, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    made.replace(folder)
    return folder
