"""Tiny pipelines of EasyAnimate, from text, masked videos and control videos."""

from __future__ import annotations

from typing import Any

import torch

from cos_interp.interp.families.tiny import text
from cos_interp.interp.families.tiny.record import Keywords, Tiny, new, video_tensor
from cos_interp.interp.families.tiny.wan import flow


def easyanimate(pipeline: Any = None, channels: int = 4) -> Any:
    from diffusers import EasyAnimatePipeline

    torch.manual_seed(0)
    transformer = new(
        "EasyAnimateTransformer3DModel",
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=channels,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=text.WIDTH,
        num_layers=3,
        sample_width=16,
        sample_height=16,
        patch_size=2,
    )
    vae = new(
        "AutoencoderKLMagvit",
        in_channels=3,
        out_channels=3,
        down_block_types=("SpatialDownBlock3D", *("SpatialTemporalDownBlock3D",) * 3),
        up_block_types=("SpatialUpBlock3D", *("SpatialTemporalUpBlock3D",) * 3),
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        spatial_group_norm=False,
    )
    return (pipeline or EasyAnimatePipeline)(
        vae=vae, text_encoder=text.qwen(), tokenizer=text.tokenizer(), transformer=transformer.eval(), scheduler=flow()
    )


def easyanimate_inpaint() -> Any:
    """A mask and the masked video come as further channels."""
    from diffusers import EasyAnimateInpaintPipeline

    pipe = easyanimate(EasyAnimateInpaintPipeline, channels=9)
    pipe.vae.register_to_config(cache_mag_vae=True)  # the pipeline looks for it there
    return pipe


def easyanimate_control() -> Any:
    """A control video and a reference picture come as further channels."""
    from diffusers import EasyAnimateControlPipeline

    class RunnableEasyAnimateControlPipeline(EasyAnimateControlPipeline):
        """diffusers 0.42 gives its own encode_prompt a keyword that it does not take."""

        def encode_prompt(self, *args: Any, text_encoder_index: int = 0, **kwargs: Any) -> Any:
            return super().encode_prompt(*args, **kwargs)

    return easyanimate(RunnableEasyAnimateControlPipeline, channels=12)


def masked_video(size: int, frames: int) -> Keywords:
    """A video whose frames after the first are to be made (white in the mask)."""
    mask = torch.zeros(1, 1, frames, size, size)
    mask[:, :, 1:] = 1
    return {"video": video_tensor(size, frames), "mask_video": mask}


def control_tensor(size: int, frames: int) -> Keywords:
    video = video_tensor(size, frames)
    return {"control_video": video, "ref_image": video[:, :, :1]}


TINY = {
    "easyanimate": Tiny(easyanimate),
    "easyanimate-inpaint": Tiny(easyanimate_inpaint, given=masked_video),
    "easyanimate-control": Tiny(easyanimate_control, given=control_tensor),
}
