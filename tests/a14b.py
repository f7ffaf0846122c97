"""The configurations of Wan2.2-T2V-A14B, without a weight."""

from __future__ import annotations

import json
from pathlib import Path

TRANSFORMER = {
    "_class_name": "WanTransformer3DModel", "patch_size": [1, 2, 2], "num_attention_heads": 40, "attention_head_dim": 128,
    "in_channels": 16, "out_channels": 16, "text_dim": 4096, "freq_dim": 256, "ffn_dim": 13824, "num_layers": 40,
    "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads", "eps": 1e-6, "image_dim": None, "added_kv_proj_dim": None,
    "rope_max_seq_len": 1024,
}  # fmt: skip
TEXT = {
    "architectures": ["UMT5EncoderModel"], "model_type": "umt5", "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24,
    "num_heads": 64, "vocab_size": 256384, "feed_forward_proj": "gated-gelu", "is_encoder_decoder": True,
}  # fmt: skip
SCHEDULER = {"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction", "use_flow_sigmas": True,
             "flow_shift": 3.0}  # fmt: skip
PARTS = {
    "transformer": ("diffusers", "WanTransformer3DModel", "config.json", TRANSFORMER),
    "transformer_2": ("diffusers", "WanTransformer3DModel", "config.json", TRANSFORMER),
    "text_encoder": ("transformers", "UMT5EncoderModel", "config.json", TEXT),
    "vae": ("diffusers", "AutoencoderKLWan", "config.json", {"_class_name": "AutoencoderKLWan", "base_dim": 96, "z_dim": 16}),
    "scheduler": ("diffusers", "UniPCMultistepScheduler", "scheduler_config.json", SCHEDULER),
    "tokenizer": ("transformers", "T5TokenizerFast", None, {}),
}


def folder(at: Path) -> Path:
    """Write them below a folder."""
    index = {"_class_name": "WanPipeline", "boundary_ratio": 0.875, "expand_timesteps": False}
    for name, (library, kind, file, held) in PARTS.items():
        index[name] = [library, kind]
        (at / name).mkdir(parents=True)
        if file:
            (at / name / file).write_text(json.dumps(held))
    (at / "model_index.json").write_text(json.dumps(index))
    return at
