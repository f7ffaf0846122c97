"""Tiny pipelines around transformers of the other modules, conditioned on pictures, videos, masks and control signals."""

from __future__ import annotations

from typing import Any

import torch

from cos_interp.interp.families.tiny import cross, image, joint, ltx2, text, wan


def cogvideox_control() -> Any:
    """The control video comes as further channels."""
    return joint.cog("CogVideoXFunControlPipeline", use_rotary_positional_embeddings=True, in_channels=8)


def hunyuan_skyreels() -> Any:
    """The first frame comes as further channels."""
    return joint.hunyuan("HunyuanSkyreelsImageToVideoPipeline", in_channels=8)


def hunyuan15_image() -> Any:
    encoder, processor = text.siglip_image()
    parts = {"image_encoder": encoder, "feature_extractor": processor}
    return joint.hunyuan15("HunyuanVideo15ImageToVideoPipeline", "i2v", **parts)


def motif_image() -> Any:
    """The first frame comes as further channels, and as tokens before the text's."""
    encoder = text.t5()
    encoder.vision_tower, processor = text.siglip_image()  # as in the T5Gemma2 encoder of the released model
    return joint.motif("MotifVideoImage2VideoPipeline", text.WIDTH, text_encoder=encoder, feature_extractor=processor)


def easyanimate_inpaint() -> Any:
    """A mask and the masked video come as further channels."""
    from diffusers import EasyAnimateInpaintPipeline

    pipe = joint.easyanimate(EasyAnimateInpaintPipeline, channels=9)
    pipe.vae.register_to_config(cache_mag_vae=True)  # the pipeline looks for it there
    return pipe


def easyanimate_control() -> Any:
    """A control video and a reference picture come as further channels."""
    from diffusers import EasyAnimateControlPipeline

    class RunnableEasyAnimateControlPipeline(EasyAnimateControlPipeline):
        """diffusers 0.42 gives its own encode_prompt a keyword that it does not take."""

        def encode_prompt(self, *args: Any, text_encoder_index: int = 0, **kwargs: Any) -> Any:
            return super().encode_prompt(*args, **kwargs)

    return joint.easyanimate(RunnableEasyAnimateControlPipeline, channels=12)


def cosmos1_video() -> Any:
    """The first frames are given, with noise of their own at every step."""
    return cross.cosmos1("CosmosVideoToWorldPipeline", channels=5)


COSMOS25_TEXT = 3 * text.WIDTH  # the states of all layers of the text encoder


def _cosmos25(name: str, parts: dict[str, Any] | None = None, **overrides: Any) -> Any:
    import diffusers

    config = {"in_channels": 5, "extra_pos_embed_type": None, "text_embed_dim": COSMOS25_TEXT}
    transformer = cross.cosmos_transformer(**config | overrides)
    return getattr(diffusers, name)(
        text_encoder=text.qwen(),
        tokenizer=text.tokenizer(),
        transformer=transformer,
        vae=wan.vae(),
        scheduler=wan.flow("unipc"),
        safety_checker=cross.NoSafetyChecker(),
        **parts or {},
    )


def cosmos25() -> Any:
    """Text to video; with a video, its last frames are the first of the new one."""
    return _cosmos25("Cosmos2_5_PredictBasePipeline")


def cosmos25_transfer() -> Any:
    """A control network adds to the end of every second block; the text comes with (empty) image tokens."""
    from diffusers import CosmosControlNetModel

    cross.stand_in_for_torchvision()
    image = {"img_context_dim_in": 8, "img_context_dim_out": 24}
    torch.manual_seed(2)
    control = CosmosControlNetModel(
        n_controlnet_blocks=2,
        in_channels=8,
        latent_channels=6,
        model_channels=24,
        num_attention_heads=2,
        attention_head_dim=12,
        mlp_ratio=2,
        text_embed_dim=COSMOS25_TEXT,
        adaln_lora_dim=4,
        max_size=(4, 32, 32),
        **image,
    )
    overrides = image | {"img_context_num_tokens": 3, "controlnet_block_every_n": 2}
    return _cosmos25("Cosmos2_5_TransferPipeline", {"controlnet": control.eval()}, **overrides)


def ltx2_condition() -> Any:
    return ltx2.pipeline("LTX2ConditionPipeline")


def vace22() -> Any:
    """Wan 2.2 VACE: two experts."""
    from diffusers import WanVACEPipeline

    experts = [wan.vace_transformer(seed) for seed in (0, 1)]
    return WanVACEPipeline(transformer=experts[0], transformer_2=experts[1], boundary_ratio=0.85, **wan.parts(wan.flow("unipc")))


def lucy() -> Any:
    """The video to edit comes as further channels of a Wan 2.2 5B transformer."""
    from diffusers import LucyEditPipeline

    return LucyEditPipeline(
        transformer=wan.transformer("WanTransformer3DModel", in_channels=8), expand_timesteps=True, **wan.parts(wan.flow())
    )


def control_video(size: int, frames: int) -> dict[str, Any]:
    return {"control_video": [image(size, seed) for seed in range(frames)]}


def controls(size: int, frames: int) -> dict[str, Any]:
    return {"controls": control_video(size, frames)["control_video"], "num_frames_per_chunk": frames}


def _video_tensor(size: int, frames: int) -> torch.Tensor:
    """``[1, 3, frame, height, width]`` in [0, 1]."""
    return torch.rand(1, 3, frames, size, size, generator=torch.Generator().manual_seed(0))


def first_frames(size: int, frames: int) -> dict[str, Any]:
    """A video of which the first ``frames // 2`` are given."""
    return {"video": [image(size, seed) for seed in range(frames // 2)], "num_frames": frames}


def masked_video(size: int, frames: int) -> dict[str, Any]:
    """A video whose frames after the first are to be made (white in the mask)."""
    mask = torch.zeros(1, 1, frames, size, size)
    mask[:, :, 1:] = 1
    return {"video": _video_tensor(size, frames), "mask_video": mask, "num_frames": frames}


def control_tensor(size: int, frames: int) -> dict[str, Any]:
    video = _video_tensor(size, frames)
    return {"control_video": video, "ref_image": video[:, :, :1], "num_frames": frames}


def first_frame(size: int, frames: int) -> dict[str, Any]:
    from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

    return {"conditions": [LTX2VideoCondition(frames=image(size), index=0, crf=0)], "num_frames": frames}
