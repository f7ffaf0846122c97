"""The organism's shape: Wan2.2-I2V in miniature, one latent token per grid cell."""

from __future__ import annotations

from typing import Any

from cos_interp.tasks import grid

SEQUENCE = 16  # prompt tokens; the pipeline pads to any length with the same result (see organism/padding.py)

CALL_DEFAULTS = {
    "height": grid.ROWS * grid.CELL,
    "width": grid.COLS * grid.CELL,
    "num_frames": grid.FRAMES,
    "num_inference_steps": 20,
    "guidance_scale": 1.0,
    "max_sequence_length": SEQUENCE,
}

# as trained, one pixel a dot; organism/widen.py makes the shipped one
VAE = {
    "base_dim": 32,
    "z_dim": 16,
    "dim_mult": [1, 2],
    "num_res_blocks": 1,
    "attn_scales": [],
    "temperal_downsample": [True],
    "in_channels": 48,
    "out_channels": 48,
    "patch_size": 4,
    "scale_factor_temporal": 2,
    "scale_factor_spatial": grid.DOTS,
    "latents_mean": [0.0] * 16,
    "latents_std": [1.0] * 16,
}

TRANSFORMER = {
    "patch_size": (1, 1, 1),
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "in_channels": 16 + 2 + 16,  # x_t, first-frame mask (one channel per pixel frame of a latent), condition latents
    "out_channels": 16,
    "text_dim": 64,
    "freq_dim": 256,
    "ffn_dim": 512,
    "num_layers": 8,
    "cross_attn_norm": True,
    "rope_max_seq_len": 32,
}

TEXT: dict[str, Any] = {
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 1,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.0,
}

SCHEDULER = {"num_train_timesteps": 1000, "shift": 3.0}
