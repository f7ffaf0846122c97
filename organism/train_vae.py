"""Stage 1: the video autoencoder, from scratch."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import nn

from organism import data, shapes
from organism.loop import Recipe
from tasks import grid

RECIPE = Recipe(steps=1500, batch=32, lr=2e-3, clip=1.0, ema=0.99, decay=0.6)
# stage 2: the encoder is frozen, the decoder sharpened
DECODER_RECIPE = Recipe(steps=2600, batch=16, lr=1.5e-3, clip=1.0, ema=0.995, decay=0.8)
# stage 3: both again, with less noise on the latents, until every sprite survives the round trip
JOINT_RECIPE = Recipe(steps=1500, batch=32, lr=1.5e-3, clip=1.0, ema=0.99, decay=1.0)
# stage 4: the decoder alone once more
FINAL_RECIPE = Recipe(steps=1600, batch=16, lr=1.2e-3, clip=1.0, ema=0.99, decay=1.0, seed=1)
# stage 5: both, with the weight on what has just changed: an object that moves into a cell was read worst
REFINE_RECIPE = Recipe(steps=1500, batch=16, lr=1.5e-3, clip=1.0, ema=0.99, decay=1.0, seed=2)
CHANGE_WEIGHT = 8.0
# stage 6: both, evenly
LAST_RECIPE = Recipe(steps=1300, batch=16, lr=1.5e-3, clip=1.0, ema=0.99, decay=1.0, seed=3)
POLISH_RECIPE = Recipe(steps=800, batch=16, lr=1e-3, clip=1.0, ema=0.99, decay=1.0, seed=4)
# stage 8: the decoder alone, beside the transformer's training
FINISH_RECIPE = Recipe(steps=1400, batch=16, lr=8e-4, clip=1.0, ema=0.995, decay=1.0, seed=5)
LAST_CHANGE_WEIGHT = 2.0
LATENT_NOISE = 0.1
LATENT_PENALTY = 1e-3


def build(seed: int = 0) -> AutoencoderKLWan:
    torch.manual_seed(seed)
    return AutoencoderKLWan(**shapes.VAE)


def clips(indices: range) -> torch.Tensor:
    """Half task clips, half scrambled ones, pixels in [-1, 1]."""
    return data.to_tensor(np.stack([data.item(i).cells if i % 2 else data.scramble(i) for i in indices]))


def loss(model: nn.Module, indices: range) -> torch.Tensor:
    """Squared error after latent noise, plus a pull of the latents to the unit scale."""
    device = next(model.parameters()).device
    video = clips(indices).to(device)
    generator = torch.Generator().manual_seed(indices.start)
    with torch.autocast(device.type, torch.bfloat16):
        mean = model.encode(video).latent_dist.mean
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        decoded = model.decode(mean + LATENT_NOISE * noise).sample
    return (decoded.float() - video).pow(2).mean() + LATENT_PENALTY * mean.float().pow(2).mean()


def joint_loss(model: nn.Module, indices: range) -> torch.Tensor:
    """As :func:`loss` with a third of the noise and a tenth of the penalty; three clips of four are scrambled."""
    device = next(model.parameters()).device
    start = indices.start + 4_000_000
    cells = [data.item(i).cells if i % 4 == 0 else data.scramble(i) for i in range(start, start + len(indices))]
    video = data.to_tensor(np.stack(cells)).to(device)
    generator = torch.Generator().manual_seed(indices.start)
    with torch.autocast(device.type, torch.bfloat16):
        mean = model.encode(video).latent_dist.mean
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        decoded = model.decode(mean + 0.3 * LATENT_NOISE * noise).sample
    return (decoded.float() - video).pow(2).mean() + 0.1 * LATENT_PENALTY * mean.float().pow(2).mean()


def change_weights(cells: np.ndarray, extra: float) -> torch.Tensor:
    """1, plus ``extra`` on cells that have just changed: ``[batch, 1, frame, height, width]`` in dots."""
    weight = np.ones(cells.shape, np.float32)
    weight[:, 1:] += extra * (cells[:, 1:] != cells[:, :-1])
    return torch.from_numpy(weight).repeat_interleave(grid.DOTS, -1).repeat_interleave(grid.DOTS, -2)[:, None]


def refine_loss(model: nn.Module, indices: range, extra: float = CHANGE_WEIGHT, first: int = 6_000_000) -> torch.Tensor:
    """Squared error that counts cells ``extra`` times more in the frame in which they change; half the clips scrambled."""
    device = next(model.parameters()).device
    start = indices.start + first
    cells = np.stack([data.item(i).cells if i % 2 else data.scramble(i) for i in range(start, start + len(indices))])
    video = data.to_tensor(cells).to(device)
    generator = torch.Generator().manual_seed(indices.start)
    with torch.autocast(device.type, torch.bfloat16):
        mean = model.encode(video).latent_dist.mean
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        decoded = model.decode(mean + 0.3 * LATENT_NOISE * noise).sample
    squared = (decoded.float() - video).pow(2) * change_weights(cells, extra).to(device)
    return squared.mean() + 0.1 * LATENT_PENALTY * mean.float().pow(2).mean()


def last_loss(model: nn.Module, indices: range) -> torch.Tensor:
    """:func:`refine_loss` with less weight on changes."""
    return refine_loss(model, indices, LAST_CHANGE_WEIGHT, 8_000_000)


def finish_loss(model: nn.Module, indices: range) -> torch.Tensor:
    """Squared error of the decoder on task clips, three of four, with weight on changes and a little latent noise."""
    device = next(model.parameters()).device
    start = indices.start + 12_000_000
    cells = np.stack([data.scramble(i) if i % 4 == 0 else data.item(i).cells for i in range(start, start + len(indices))])
    video = data.to_tensor(cells).to(device)
    generator = torch.Generator().manual_seed(indices.start)
    with torch.autocast(device.type, torch.bfloat16):
        with torch.no_grad():
            mean = model.encode(video).latent_dist.mean
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        decoded = model.decode(mean + 0.5 * LATENT_NOISE * noise).sample
    return ((decoded.float() - video).pow(2) * change_weights(cells, LAST_CHANGE_WEIGHT).to(device)).mean()


def freeze_encoder(vae: AutoencoderKLWan) -> AutoencoderKLWan:
    for part in (vae.encoder, vae.quant_conv):
        part.requires_grad_(False)
    return vae


def decoder_loss(model: nn.Module, indices: range) -> torch.Tensor:
    """Squared error of the decoder alone, on the frozen encoder's latents with noise."""
    device = next(model.parameters()).device
    video = clips(range(indices.start + 2_000_000, indices.stop + 2_000_000)).to(device)
    generator = torch.Generator().manual_seed(indices.start)
    with torch.autocast(device.type, torch.bfloat16):
        with torch.no_grad():
            mean = model.encode(video).latent_dist.mean
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        decoded = model.decode(mean + 0.5 * LATENT_NOISE * noise).sample
    return (decoded.float() - video).pow(2).mean()


@torch.no_grad()
def set_statistics(vae: AutoencoderKLWan, count: int = 512) -> None:
    """Measure the latents' channel means and deviations on task clips and write them into the config."""
    start = 10_000_000
    latents = torch.cat([
        vae.encode(data.to_tensor(np.stack([data.item(i).cells for i in range(b, b + 64)]))).latent_dist.mean
        for b in range(start, start + count, 64)
    ])  # fmt: skip
    flat = latents.transpose(0, 1).flatten(1)
    vae.register_to_config(
        latents_mean=[round(float(v), 5) for v in flat.mean(1)], latents_std=[round(float(v), 5) for v in flat.std(1)]
    )


@torch.no_grad()
def round_trip(vae: AutoencoderKLWan, video: torch.Tensor) -> torch.Tensor:
    """Encode and decode pixels in [-1, 1]."""
    return vae.decode(vae.encode(video).latent_dist.mode()).sample


STAGES = (
    ("first", RECIPE, loss),
    ("decoder", DECODER_RECIPE, decoder_loss),
    ("joint", JOINT_RECIPE, joint_loss),
    ("final-decoder", FINAL_RECIPE, decoder_loss),
    ("refine", REFINE_RECIPE, refine_loss),
    ("last", LAST_RECIPE, last_loss),
    ("polish", POLISH_RECIPE, last_loss),
    ("finish-decoder", FINISH_RECIPE, finish_loss),
)
