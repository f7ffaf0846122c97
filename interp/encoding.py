"""From videos to latents in the scale of a model's runs: the inverse of what its family does before it decodes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline

NEAR = 1e-3  # relative rounding of half precision, by which the way there and back may differ


def encode(model: HookedVideoPipeline, videos: np.ndarray) -> Tensor:
    """Latents ``[video, channel, frame, row, col]`` of videos uint8 ``[video, pixel frame, height, width, 3]``.

    The autoencoder's most likely latents, not drawn ones. How a family scales them is learnt from its own decoding, which is
    affine in every number. Raises InterpError for what is no batch of videos, and for a family that decodes otherwise (Latte:
    frame by frame with an autoencoder of pictures) or shows other frames than it denoises (FramePack).
    """
    _check(videos)
    if (why := model.adapter.unlike_video(model.adapter.expert(model.pipe).config)) is not None:
        raise _no_way(model, why)
    vae = model.pipe.vae
    pixels = torch.from_numpy(np.ascontiguousarray(videos)).permute(0, 4, 1, 2, 3).to(vae.device, vae.dtype) / 127.5 - 1
    with torch.no_grad():
        try:
            raw = _latents(vae.encode(pixels))
        except (RuntimeError, TypeError, ValueError) as error:
            raise _no_way(model, f"{type(vae).__name__} does not encode {list(videos.shape)} ({error})") from error
        offset = _decoded_from(model, torch.zeros_like(raw[:1]))
        if offset.shape != raw[:1].shape:
            raise _no_way(model, f"its autoencoder gets {list(offset.shape)} of latents {list(raw[:1].shape)}")
        found = (raw - offset) / (_decoded_from(model, torch.ones_like(raw[:1])) - offset)
        back = _decoded_from(model, found)
    if not torch.allclose(back, raw, rtol=NEAR, atol=NEAR * float(raw.abs().max())):
        raise _no_way(model, "what it does before decoding is not affine")
    return found.float()


def _check(videos: np.ndarray) -> None:
    fits = isinstance(videos, np.ndarray) and videos.dtype == np.uint8 and videos.ndim == 5 and videos.shape[-1] == 3
    if not fits or not len(videos):
        given = f"{videos.dtype} {list(videos.shape)}" if isinstance(videos, np.ndarray) else type(videos).__name__
        raise InterpError(f"videos are uint8 [video, pixel frame, height, width, 3] of at least one video, {given} was given")


def _latents(encoded: object) -> Tensor:
    """The latents in what an autoencoder returns: the most likely ones of a distribution, or those that it gives at once."""
    spread = getattr(encoded, "latent_dist", None)
    found = spread.mode() if spread is not None else getattr(encoded, "latent", None)
    if not isinstance(found, Tensor):
        raise TypeError(f"it returns {type(encoded).__name__}")
    return found


class _Taken(Exception):
    """Carries what an autoencoder was given to decode out of the pipeline's own code."""

    def __init__(self, given: Tensor):
        self.given = given


def _decoded_from(model: HookedVideoPipeline, latents: Tensor) -> Tensor:
    """What the autoencoder is given when a model decodes latents."""

    def take(given: Tensor, *_: object, **__: object) -> None:
        raise _Taken(given)

    vae = model.pipe.vae
    held = vars(vae).get("decode")
    vae.decode = take
    try:
        model.adapter.decode(model.pipe, latents)
    except _Taken as taken:
        return taken.given
    finally:
        del vae.decode
        if held is not None:
            vae.decode = held
    raise _no_way(model, "it decodes without its autoencoder")


def _no_way(model: HookedVideoPipeline, why: str) -> InterpError:
    kind = type(model.pipe).__name__
    return InterpError(f"{kind}: videos cannot be made latents of its runs: {why}; give final latents of runs instead")
