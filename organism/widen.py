"""From the autoencoder trained on dots to the one shipped, which sees every dot as a square of pixels.

Wan's image-to-video pipeline takes sides that are multiples of 16 only, and training on 40x40 pictures costs a quarter of
80x80. Pictures of the tasks repeat each dot SCALE x SCALE times, and the autoencoder's first and last layer work on
patches; so spreading each input weight evenly over the copies, and copying each output weight, gives the same latents
and the same pictures, only larger. Exact up to rounding.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLWan

from tasks import grid


def channel_map(patch: int, scale: int, colours: int = 3) -> torch.Tensor:
    """For every channel (colour, x, y) of a patch of ``patch * scale`` pixels: the channel of the patch of dots."""
    large = patch * scale
    x, y = torch.meshgrid(torch.arange(large) // scale, torch.arange(large) // scale, indexing="ij")
    return (torch.arange(colours).view(-1, 1, 1) * patch * patch + x * patch + y).flatten()


@torch.no_grad()
def widen(vae: AutoencoderKLWan, scale: int = grid.SCALE) -> AutoencoderKLWan:
    """The same autoencoder for pictures in which every dot is ``scale x scale`` pixels."""
    config = dict(vae.config)
    patch = config["patch_size"]
    source = channel_map(patch, scale)
    config |= {
        "patch_size": patch * scale,
        "in_channels": len(source),
        "out_channels": len(source),
        "scale_factor_spatial": config["scale_factor_spatial"] * scale,
    }
    out = AutoencoderKLWan.from_config(config)
    weights = dict(vae.state_dict())
    weights["encoder.conv_in.weight"] = weights["encoder.conv_in.weight"][:, source] / scale**2
    weights["decoder.conv_out.weight"] = weights["decoder.conv_out.weight"][source]
    weights["decoder.conv_out.bias"] = weights["decoder.conv_out.bias"][source]
    out.load_state_dict(weights)
    return out.eval()
