"""Stage 1: the video autoencoder, from scratch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from cos_interp.organism import data, shapes
from cos_interp.organism.graphed import Batch
from cos_interp.organism.loop import Recipe, mixed
from cos_interp.tasks import grid

RECIPE = Recipe(steps=1500, batch=32, lr=2e-3, clip=1.0, ema=0.99, decay=0.6)
# stage 2: the encoder is frozen, the decoder sharpened
DECODER_RECIPE = Recipe(steps=2600, batch=16, lr=1.5e-3, clip=1.0, ema=0.995, decay=0.8)
# stage 3: both again, with less noise on the latents, until every sprite survives the round trip
JOINT_RECIPE = Recipe(steps=1500, batch=32, lr=1.5e-3, clip=1.0, ema=0.99, decay=1.0)
# stage 4: the decoder alone once more
FINAL_RECIPE = Recipe(steps=1600, batch=16, lr=1.2e-3, clip=1.0, ema=0.99, decay=1.0, seed=1)
# stage 5: both, with the weight on what has just changed: an object that moves into a cell was read worst
REFINE_RECIPE = Recipe(steps=1500, batch=16, lr=1.5e-3, clip=1.0, ema=0.99, decay=1.0, seed=2)
# stage 6: both, evenly
LAST_RECIPE = Recipe(steps=1300, batch=16, lr=1.5e-3, clip=1.0, ema=0.99, decay=1.0, seed=3)
POLISH_RECIPE = Recipe(steps=800, batch=16, lr=1e-3, clip=1.0, ema=0.99, decay=1.0, seed=4)
# stage 8: the decoder alone, beside the transformer's training
FINISH_RECIPE = Recipe(steps=1400, batch=16, lr=8e-4, clip=1.0, ema=0.995, decay=1.0, seed=5)
# stage 9: the decoder alone on task clips, with the weight on the cells that are read worst
SHARPEN_RECIPE = Recipe(steps=2400, batch=16, lr=8e-4, clip=1.0, ema=0.995, decay=1.0, seed=6)
# stage 10: the same at a quarter of the rate: a decoder that reads all but one clip gets worse at the full rate
SETTLE_RECIPE = Recipe(steps=500, batch=16, lr=2e-4, clip=1.0, ema=0.995, decay=1.0, seed=6)


def build(seed: int = 0) -> AutoencoderKLWan:
    torch.manual_seed(seed)
    return AutoencoderKLWan(**shapes.VAE)


def change_weights(cells: np.ndarray, extra: float) -> torch.Tensor:
    """1, plus ``extra`` on cells that have just changed: ``[batch, 1, frame, height, width]`` in dots."""
    weight = np.ones(cells.shape, np.float32)
    weight[:, 1:] += extra * (cells[:, 1:] != cells[:, :-1])
    return torch.from_numpy(weight).repeat_interleave(grid.DOTS, -1).repeat_interleave(grid.DOTS, -2)[:, None]


def focus_weights(squared: torch.Tensor, focus: float) -> torch.Tensor:
    """1 plus ``focus`` times the cell's error over the mean error, at most 20: ``[batch, 1, frame, height, width]`` in dots.

    A clip is read only when every cell is, so the worst cells decide, and the mean error hardly sees them.
    """
    cells = torch.nn.functional.avg_pool3d(squared.mean(1, keepdim=True), (1, grid.DOTS, grid.DOTS))
    weight = (1 + focus * cells / cells.mean().clamp_min(1e-12)).clamp_max(20)
    return weight.repeat_interleave(grid.DOTS, -1).repeat_interleave(grid.DOTS, -2)


@dataclass(frozen=True)
class Objective:
    """The loss of one stage: squared error after latent noise, plus a pull of the latents to the unit scale.

    Clip i is a task clip when ``i % 4`` is in ``tasks``, else a scrambled one; a stage has its own clips from ``first`` on.
    Cells count ``extra`` times more in the frame in which they change. ``frozen``: the decoder alone is trained. ``focus``:
    a cell's weight grows with its own error (see :func:`focus_weights`).
    """

    first: int
    tasks: tuple[int, ...] = (1, 3)
    noise: float = 0.1
    penalty: float = 0.0
    extra: float = 0.0
    frozen: bool = False
    focus: float = 0.0

    def batch(self, indices: range) -> Batch:
        """``video [clip, 3, frame, height, width]``, its ``weights``, and the ``noise`` of the latents."""
        shifted = range(indices.start + self.first, indices.stop + self.first)
        cells = np.stack([data.item(i).cells if i % 4 in self.tasks else data.scramble(i) for i in shifted])
        latents = (len(cells), shapes.VAE["z_dim"], grid.LATENT_FRAMES, *cells.shape[2:])
        noise = torch.randn(latents, generator=torch.Generator().manual_seed(indices.start))
        return {"video": data.to_tensor(cells), "weights": change_weights(cells, self.extra), "noise": noise}

    def loss(self, model: Any, batch: Batch) -> torch.Tensor:
        video = batch["video"]
        with mixed(video.device):
            with torch.set_grad_enabled(not self.frozen):
                mean = model.encode(video).latent_dist.mean
            decoded = model.decode(mean + self.noise * batch["noise"].to(mean)).sample
        squared = (decoded.float() - video).pow(2) * batch["weights"]
        if self.focus:
            squared = squared * focus_weights(squared.detach(), self.focus)
        return squared.mean() + self.penalty * mean.float().pow(2).mean()


def freeze_encoder(vae: AutoencoderKLWan) -> AutoencoderKLWan:
    for part in (vae.encoder, vae.quant_conv):
        part.requires_grad_(False)
    return vae


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


DECODER = Objective(2_000_000, noise=0.05, frozen=True)
LAST = Objective(8_000_000, noise=0.03, penalty=1e-4, extra=2.0)
SHARPEN = Objective(16_000_000, tasks=(0, 1, 2, 3), noise=0.03, extra=1.0, frozen=True, focus=1.0)
STAGES = (
    ("first", RECIPE, Objective(0, penalty=1e-3)),
    ("decoder", DECODER_RECIPE, DECODER),
    ("joint", JOINT_RECIPE, Objective(4_000_000, tasks=(0,), noise=0.03, penalty=1e-4)),
    ("final-decoder", FINAL_RECIPE, DECODER),
    ("refine", REFINE_RECIPE, Objective(6_000_000, noise=0.03, penalty=1e-4, extra=8.0)),
    ("last", LAST_RECIPE, LAST),
    ("polish", POLISH_RECIPE, LAST),
    ("finish-decoder", FINISH_RECIPE, Objective(12_000_000, tasks=(1, 2, 3), noise=0.05, extra=2.0, frozen=True)),
    ("sharpen-decoder", SHARPEN_RECIPE, SHARPEN),
    ("settle-decoder", SETTLE_RECIPE, replace(SHARPEN, first=20_000_000)),
)
