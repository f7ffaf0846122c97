"""From the autoencoder trained on dots to the one shipped, which sees every dot as a square of pixels.

Wan's image-to-video pipeline takes sides that are multiples of 16 only, and training on 40x40 pictures costs a quarter of
80x80. Pictures of the tasks repeat each dot SCALE x SCALE times, and the autoencoder's first and last layer work on
patches; so spreading each input weight evenly over the copies, and copying each output weight, gives the same latents
and the same pictures, only larger. Exact up to rounding.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLWan

from cos_interp.tasks import grid


def channel_map(patch: int, scale: int, colours: int = 3) -> torch.Tensor:
    """For every channel (colour, x, y) of a patch of ``patch * scale`` pixels: the channel of the patch of dots."""
    large = patch * scale
    x, y = torch.meshgrid(torch.arange(large) // scale, torch.arange(large) // scale, indexing="ij")
    return (torch.arange(colours).view(-1, 1, 1) * patch * patch + x * patch + y).flatten()


def _resized(vae: AutoencoderKLWan, patch: int, side: int, weights: dict[str, torch.Tensor]) -> AutoencoderKLWan:
    """An autoencoder like ``vae`` with another patch size and these weights."""
    channels = weights["encoder.conv_in.weight"].shape[1]
    sizes = {"patch_size": patch, "in_channels": channels, "out_channels": channels, "scale_factor_spatial": side}
    out = AutoencoderKLWan.from_config({**vae.config, **sizes})
    out.load_state_dict(weights)
    return out.eval()


@torch.no_grad()
def widen(vae: AutoencoderKLWan, scale: int = grid.SCALE) -> AutoencoderKLWan:
    """The same autoencoder for pictures in which every dot is ``scale x scale`` pixels."""
    source = channel_map(vae.config.patch_size, scale)
    weights = dict(vae.state_dict())
    weights["encoder.conv_in.weight"] = weights["encoder.conv_in.weight"][:, source] / scale**2
    weights["decoder.conv_out.weight"] = weights["decoder.conv_out.weight"][source]
    weights["decoder.conv_out.bias"] = weights["decoder.conv_out.bias"][source]
    return _resized(vae, vae.config.patch_size * scale, vae.config.scale_factor_spatial * scale, weights)


@torch.no_grad()
def narrow(vae: AutoencoderKLWan, scale: int = grid.SCALE) -> AutoencoderKLWan:
    """The inverse of :func:`widen`."""
    patch = vae.config.patch_size // scale
    source = channel_map(patch, scale)
    first = torch.stack([source.eq(c).nonzero()[0, 0] for c in range(int(source.max()) + 1)])
    weights = dict(vae.state_dict())
    weights["encoder.conv_in.weight"] = weights["encoder.conv_in.weight"][:, first] * scale**2
    weights["decoder.conv_out.weight"] = weights["decoder.conv_out.weight"][first]
    weights["decoder.conv_out.bias"] = weights["decoder.conv_out.bias"][first]
    return _resized(vae, patch, vae.config.scale_factor_spatial // scale, weights)
