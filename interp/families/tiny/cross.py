"""Tiny pipelines of the other families with cross-attention blocks: LTX, Allegro, Latte, Cosmos, Sana, Kandinsky."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from cos_interp.interp.families.tiny import text
from cos_interp.interp.families.tiny.wan import flow
from cos_interp.interp.families.tiny.wan import vae as wan_vae


def ltx_vae() -> Any:
    from diffusers import AutoencoderKLLTXVideo

    torch.manual_seed(1)
    return AutoencoderKLLTXVideo(
        in_channels=3,
        out_channels=3,
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )


def _ltx(name: str) -> Any:
    import diffusers
    from diffusers import LTXVideoTransformer3DModel

    torch.manual_seed(0)
    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=3,
        caption_channels=text.WIDTH,
    )
    vae = ltx_vae()
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    return getattr(diffusers, name)(
        scheduler=flow(), vae=vae, text_encoder=text.t5(), tokenizer=text.tokenizer(), transformer=transformer.eval()
    )


def ltx() -> Any:
    return _ltx("LTXPipeline")


def ltx_image() -> Any:
    return _ltx("LTXImageToVideoPipeline")


def allegro() -> Any:
    from diffusers import AllegroPipeline, AllegroTransformer3DModel, AutoencoderKLAllegro, EulerAncestralDiscreteScheduler

    torch.manual_seed(0)
    transformer = AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        cross_attention_dim=24,
        sample_width=8,
        sample_height=8,
        sample_frames=8,
        caption_channels=text.WIDTH,
    )
    vae = AutoencoderKLAllegro(
        in_channels=3,
        out_channels=3,
        down_block_types=("AllegroDownBlock3D",) * 4,
        up_block_types=("AllegroUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    vae.enable_tiling()
    scheduler = EulerAncestralDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    return AllegroPipeline(
        tokenizer=text.tokenizer(), text_encoder=text.t5(), vae=vae, transformer=transformer.eval(), scheduler=scheduler
    )


def latte() -> Any:
    from diffusers import AutoencoderKL, DDIMScheduler, LattePipeline, LatteTransformer3DModel

    torch.manual_seed(0)
    transformer = LatteTransformer3DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=text.WIDTH,
        in_channels=4,
        cross_attention_dim=16,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        video_length=3,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=2,
    )
    scheduler = DDIMScheduler(clip_sample=False)
    return LattePipeline(
        tokenizer=text.tokenizer(), text_encoder=text.t5(), vae=vae, transformer=transformer.eval(), scheduler=scheduler
    )


class NoSafetyChecker:
    """Stands in for Cosmos' optional guard models, which need a download."""

    def to(self, *args: Any) -> NoSafetyChecker:
        return self

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, frames: Any) -> Any:
        return frames


def stand_in_for_torchvision() -> None:
    """Cosmos resizes its padding mask with torchvision; without it, the same nearest-neighbour resize of PyTorch serves."""
    from diffusers.models.controlnets import controlnet_cosmos
    from diffusers.models.transformers import transformer_cosmos

    if not hasattr(transformer_cosmos, "transforms"):
        resize = lambda mask, size, interpolation: torch.nn.functional.interpolate(mask, size, mode="nearest")
        mode = SimpleNamespace(NEAREST="nearest")
        transforms = SimpleNamespace(functional=SimpleNamespace(resize=resize), InterpolationMode=mode)
        transformer_cosmos.transforms = controlnet_cosmos.transforms = transforms


def cosmos_transformer(**overrides: Any) -> Any:
    from diffusers import CosmosTransformer3DModel

    stand_in_for_torchvision()
    torch.manual_seed(0)
    config = {
        "in_channels": 4,
        "out_channels": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "num_layers": 3,
        "mlp_ratio": 2,
        "text_embed_dim": text.WIDTH,
        "adaln_lora_dim": 4,
        "max_size": (4, 32, 32),
        "patch_size": (1, 2, 2),
        "rope_scale": (2.0, 1.0, 1.0),
        "concat_padding_mask": True,
        "extra_pos_embed_type": "learnable",
    }
    return CosmosTransformer3DModel(**config | overrides).eval()


def cosmos1(name: str = "CosmosTextToWorldPipeline", channels: int = 4) -> Any:
    import diffusers

    transformer = cosmos_transformer(in_channels=channels)
    vae = diffusers.AutoencoderKLCosmos(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        encoder_block_out_channels=(8, 8, 8, 8),
        decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,),
        resolution=64,
        num_layers=2,
        patch_size=4,
        patch_type="haar",
        scaling_factor=1.0,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
    )
    scheduler = diffusers.EDMEulerScheduler(
        sigma_min=0.002,
        sigma_max=80,
        sigma_data=0.5,
        sigma_schedule="karras",
        num_train_timesteps=1000,
        prediction_type="epsilon",
        rho=7.0,
        final_sigmas_type="sigma_min",
    )
    return getattr(diffusers, name)(
        text_encoder=text.t5(),
        tokenizer=text.tokenizer(),
        transformer=transformer,
        vae=vae,
        scheduler=scheduler,
        safety_checker=NoSafetyChecker(),
    )


def cosmos2_image() -> Any:
    from diffusers import Cosmos2VideoToWorldPipeline, FlowMatchEulerDiscreteScheduler

    transformer = cosmos_transformer(in_channels=5, extra_pos_embed_type=None)
    scheduler = FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)
    return Cosmos2VideoToWorldPipeline(
        text_encoder=text.t5(),
        tokenizer=text.tokenizer(),
        transformer=transformer,
        vae=wan_vae(),
        scheduler=scheduler,
        safety_checker=NoSafetyChecker(),
    )


def _sana_transformer() -> Any:
    from diffusers import SanaVideoTransformer3DModel

    torch.manual_seed(0)
    return SanaVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=3,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=text.WIDTH,
        mlp_ratio=2.0,
        sample_size=4,
        patch_size=(1, 2, 2),
        rope_max_seq_len=32,
    ).eval()


def sana() -> Any:
    from diffusers import DPMSolverMultistepScheduler, SanaVideoPipeline

    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0)
    return SanaVideoPipeline(
        tokenizer=text.tokenizer(start=True),
        text_encoder=text.gemma(),
        vae=wan_vae(),
        transformer=_sana_transformer(),
        scheduler=scheduler,
    )


def sana_image() -> Any:
    from diffusers import SanaImageToVideoPipeline

    return SanaImageToVideoPipeline(
        tokenizer=text.tokenizer(start=True),
        text_encoder=text.gemma(),
        vae=wan_vae(),
        transformer=_sana_transformer(),
        scheduler=flow(),
    )


def _kandinsky(name: str, conditioned: bool) -> Any:
    import diffusers

    from cos_interp.interp.families.tiny.joint import hunyuan_vae

    torch.manual_seed(0)
    transformer = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        in_text_dim=text.WIDTH,
        in_text_dim2=8,
        time_dim=16,
        out_visual_dim=4,
        patch_size=(1, 2, 2),
        model_dim=24,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=3,
        axes_dims=(4, 4, 4),
        visual_cond=conditioned,
        attention_type="regular",
    )
    for key, weight in transformer.named_parameters():
        if "modulation" in key:  # zero in a fresh model, which closes every gate
            torch.nn.init.normal_(weight, std=0.3)
    return getattr(diffusers, name)(
        transformer=transformer.eval(),
        vae=hunyuan_vae(),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        scheduler=flow(),
    )


def kandinsky() -> Any:
    """Takes prompt embeddings: its Qwen2.5-VL processor has no tiny form."""
    return _kandinsky("Kandinsky5T2VPipeline", False)


def kandinsky_image() -> Any:
    return _kandinsky("Kandinsky5I2VPipeline", True)


def kandinsky_embeddings(guided: bool) -> dict[str, Any]:
    """Prompt embeddings of both encoders and their lengths, as the text encoders would give."""
    draw = torch.Generator().manual_seed(3)
    made: dict[str, Any] = {}
    for kind in ("", "negative_") if guided else ("",):
        made[f"{kind}prompt_embeds_qwen"] = torch.randn(1, 7, text.WIDTH, generator=draw)
        made[f"{kind}prompt_embeds_clip"] = torch.randn(1, 8, generator=draw)
        made[f"{kind}prompt_cu_seqlens"] = torch.tensor([0, 7], dtype=torch.int32)
    return made
