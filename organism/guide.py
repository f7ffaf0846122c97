"""``cos organism guide``: a trained organism tuned so that guidance holds, as a LoRA of it.

Guidance adds ``scale - 1`` times the difference of two answers, with and without the prompt (Ho and Salimans 2022). At little
noise the state shows what the prompt says, and an exact model would answer alike; in a trained one a small difference is left,
which guidance makes large: the right video comes out with sprites of another colour. So below a noise level the *guided* answer
is trained, too, half of it on states as a guided step leaves them, which are off the way by that step's error.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import WanImageToVideoPipeline, WanTransformer3DModel
from torch import nn

from cos_interp.interp.errors import InterpError
from cos_interp.interp.loading import load_pipeline
from cos_interp.interp.variants import BASE, ORGANISM
from cos_interp.organism import package, padding, shapes, text, train_dit
from cos_interp.organism.graphed import Batch
from cos_interp.organism.loop import Recipe, Run, fit
from cos_interp.organism.train import check_device, shipped_autoencoder
from cos_interp.organism.train_dit import rows

RECIPE = Recipe(steps=1200, batch=14, lr=2e-3, warmup=30, decay=0.5, ema=0.99, weight_decay=0.0, seed=40)
RANK = 16
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2",
          "time_embedder.linear_1", "time_embedder.linear_2", "time_proj"]  # fmt: skip
BELOW, LEAST = 0.6, 0.02  # noise levels at which the guided answer is trained
STRONGEST = 6.0  # guidance scales in training are uniform from 1 to this
NEAR, FAR, MOST = 0.3, 0.9, 0.8  # a step leads to this share of the noise level that it starts at, which is at most the last
FLOOR = 0.15  # errors of velocities count as those of clean estimates below this noise level
BARE = 0.5  # weight of the answer without a prompt


class Guided(train_dit.CrossFlowMatching):
    """The loss of the tuning. Each clip has a little noise once, and once as much as the recipe of the organism draws."""

    def batch(self, indices: range) -> Batch:
        """As of flow matching, and a row ``guidance``; ``before``, the noise level at which the step starts whose state the first
        rows have; the words are those of all prompts, then of no prompt."""
        batch = super().batch(indices)
        sigma, generator = batch["sigma"], torch.Generator().manual_seed(indices.start + 1)
        little, guidance, share = torch.rand(3, len(sigma), generator=generator)
        first = torch.arange(len(sigma)) < len(indices)
        batch["sigma"] = torch.where(first, LEAST + (BELOW - LEAST) * little, sigma)
        before = (batch["sigma"] / (NEAR + (FAR - NEAR) * share)).clamp(max=MOST)[: len(indices) // 2]
        return batch | {"guidance": 1 + (STRONGEST - 1) * guidance, "before": before}

    def text(self, prompts: list[str], rng: np.random.Generator, video: torch.Tensor) -> Batch:
        lengths = rng.choice(padding.LENGTHS, len(prompts)).tolist() * 2
        stacked, bias = padding.pad([self.prompts.embed(p) for p in [*prompts, *[""] * len(prompts)]], lengths)
        return {"encoder_hidden_states": stacked, "bias": bias}

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Squared errors of both answers and, at little noise, of the guided one."""
        x0, condition = self.clean(batch)
        state, s = train_dit.noisy(x0, batch["noise"], batch["sigma"]), rows(batch["sigma"])
        state = torch.cat([self.led(model, batch, x0, condition), state[len(batch["before"]) :]])
        true = (state - x0) / s
        told, bare = self.answers(model, batch, torch.cat([state, condition], 1), batch["sigma"])
        errors = (told - true).pow(2) + BARE * (bare - true).pow(2)
        errors = errors + (s < BELOW) * (guided(told, bare, batch["guidance"]) - true).pow(2)
        return (errors * batch["weights"] * (s / s.clamp(min=FLOOR)).pow(2)).mean()

    @torch.no_grad()
    def led(self, model: nn.Module, batch: Batch, x0: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """States of the first rows: where one guided step from more noise leads."""
        before, count = batch["before"], len(batch["before"])
        state = train_dit.noisy(x0[:count], batch["noise"][:count], before)
        told, bare = self.answers(model, batch, torch.cat([state, condition[:count]], 1), before)
        return state + rows(batch["sigma"][:count] - before) * guided(told, bare, batch["guidance"][:count])

    def answers(
        self, model: nn.Module, batch: Batch, seen: torch.Tensor, sigma: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Velocities of the first rows, of which ``seen`` is, with their prompts and without."""
        each = [batch[name].chunk(2) for name in ("encoder_hidden_states", "bias")]
        stacked, bias = (torch.cat([part[: len(seen)] for part in parts]) for parts in each)
        call = {"hidden_states": seen.repeat(2, 1, 1, 1, 1), "timestep": sigma.repeat(2) * 1000, "return_dict": False}
        told, bare = self.velocity(model, {"encoder_hidden_states": stacked, "bias": bias}, **call).chunk(2)
        return told, bare


def guided(told: torch.Tensor, bare: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The answer under guidance, of a scale a row (Ho and Salimans 2022, eq. 6, whose w is the scale less 1)."""
    return bare + rows(scale) * (told - bare)


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
    plain = load_pipeline(base, {"torch_dtype": torch.float32})[0].transformer
    if type(plain) is not WanTransformer3DModel or plain.config.text_dim != shapes.TRANSFORMER["text_dim"]:
        raise InterpError(f"{base} is no organism that is guided by its prompt's cross-attention: give organism, organism:NAME")
    held = {name: weight.detach().to(device, copy=True) for name, weight in plain.named_parameters()}
    transformer = adapted(plain, RECIPE.seed).to(device)
    prompts = text.PromptTable(text.build_tokenizer(), text.build_encoder())
    objective = Guided(shipped_autoencoder(ORGANISM).to(device), prompts, padding.install(transformer))
    run = Run(transformer, replace(RECIPE, steps=steps or RECIPE.steps), out / "transformer")
    if run.resume() and not _same(held, transformer):
        raise InterpError(f"{out} holds the tuning of another model than {base}: choose another --out, or delete it")
    if compiled:
        for block in transformer.blocks:
            block.compile(dynamic=False)
    fit(run, objective, say)
    return _write(run, base, out / "lora")


def _same(held: dict[str, torch.Tensor], transformer: WanTransformer3DModel) -> bool:
    """Whether the LoRA is put on such weights."""
    now = {name.replace(".base_layer.", "."): value for name, value in transformer.named_parameters()}
    return all(torch.equal(value, now[name]) for name, value in held.items())


def _write(run: Run, base: str, folder: Path) -> Path:
    """The moving average of the LoRA in diffusers' format, and what it was made from, whole or not at all."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(run.load_average())
    with package.written(folder) as made:
        WanImageToVideoPipeline.save_lora_weights(made, {key: value.cpu().contiguous() for key, value in state.items()})
        (made / BASE).write_text(json.dumps({"base": base, "step": run.step, "recipe": asdict(run.recipe)}, indent=1) + "\n")
    return folder
