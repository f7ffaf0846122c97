"""The joint-attention organism: Motif-Video in miniature, on the same data and the same autoencoder.

Text and video lie in one sequence and attend to each other in every block; there is no cross-attention. It is there to ask what
of the first organism's circuit belongs to the task and what to the architecture.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import (
    AutoencoderKLWan,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    MotifVideoImage2VideoPipeline,
    MotifVideoTransformer3DModel,
)
from transformers import SiglipImageProcessor, T5Gemma2Encoder, T5Gemma2EncoderConfig

from cos_interp.organism import padding, shapes, text, train_dit, widen
from cos_interp.organism.graphed import Batch
from cos_interp.tasks import grid

LEAST_LOG_VARIANCE = -30.0  # as diffusers clamps it

TRANSFORMER = {
    "in_channels": 16 + 16 + 1,  # x_t, latents of the first frame, mask
    "out_channels": 16,
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "num_layers": 4,
    "num_single_layers": 4,
    "mlp_ratio": 4.0,
    "patch_size": 1,
    "text_embed_dim": shapes.TEXT["d_model"],
    "image_embed_dim": 32,
    "rope_axes_dim": (8, 12, 12),
}

VISION = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 16, "patch_size": 8,
}  # fmt: skip


def build(seed: int = 0) -> MotifVideoTransformer3DModel:
    """The transformer with random weights."""
    torch.manual_seed(seed)
    return MotifVideoTransformer3DModel(**TRANSFORMER)


def build_encoder(seed: int = 0) -> T5Gemma2Encoder:
    """The frozen random text encoder of the pipeline's kind, with a frozen random vision tower, too."""
    torch.manual_seed(seed)
    words, size = text.vocabulary(), shapes.TEXT
    of_text = {
        "vocab_size": words + 1, "hidden_size": size["d_model"], "intermediate_size": size["d_ff"],
        "num_hidden_layers": size["num_layers"],
        "num_attention_heads": size["num_heads"], "num_key_value_heads": size["num_heads"],
        "head_dim": size["d_kv"], "query_pre_attn_scalar": size["d_kv"], "layer_types": ["full_attention"] * size["num_layers"],
        "max_position_embeddings": 512, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1, "dropout_rate": 0.0,
    }  # fmt: skip
    config = T5Gemma2EncoderConfig(text_config=of_text, vision_config=VISION, mm_tokens_per_image=1, image_token_index=words)
    return T5Gemma2Encoder(config).eval()


def build_processor() -> SiglipImageProcessor:
    """How the pipeline shows a picture to the vision tower."""
    return SiglipImageProcessor(size={"height": VISION["image_size"], "width": VISION["image_size"]})


@torch.no_grad()
def certain(vae: AutoencoderKLWan) -> AutoencoderKLWan:
    """The autoencoder with the same latents and no spread about them, changed in place.

    This pipeline samples the encoder's normal distribution, whose width nobody trained, where Wan's takes its mode.
    """
    of_width = slice(vae.config.z_dim, 2 * vae.config.z_dim)
    vae.quant_conv.weight[of_width] = 0
    vae.quant_conv.bias[of_width] = LEAST_LOG_VARIANCE
    return vae


def assemble(vae: AutoencoderKLWan, transformer: MotifVideoTransformer3DModel) -> MotifVideoImage2VideoPipeline:
    """The pipeline around trained weights; the autoencoder is given as trained on dots."""
    return MotifVideoImage2VideoPipeline(
        tokenizer=text.build_tokenizer(),
        text_encoder=build_encoder(),
        vae=certain(widen.widen(vae)),
        scheduler=FlowMatchEulerDiscreteScheduler(**shapes.SCHEDULER),
        transformer=transformer.eval(),
        guider=ClassifierFreeGuidance(guidance_scale=1.0),
        feature_extractor=build_processor(),
    )


class JointFlowMatching(train_dit.FlowMatching):
    """The same training loss: prompts have a mask, and the condition is the first frame's latents, then zeros."""

    def __init__(self, vae: AutoencoderKLWan):
        super().__init__(vae)
        encoder = build_encoder()
        self.prompts = text.PromptTable(text.build_tokenizer(), encoder)
        self.tower, self.processor = encoder.vision_tower, build_processor()

    @torch.no_grad()
    def condition(self, video: torch.Tensor) -> torch.Tensor:
        first = self.normalised(video[:, :, :1])
        latents = torch.cat([first, first.new_zeros(*first.shape[:2], self.frames - 1, *first.shape[3:])], 2)
        mask = torch.zeros_like(latents[:, :1])
        mask[:, :, 0] = 1
        return torch.cat([latents, mask], 1)

    def text(self, prompts: list[str], rng: np.random.Generator, video: torch.Tensor) -> Batch:
        embedded = [self.prompts.embed(prompt) for prompt in self.dropped(prompts, rng)]
        stacked = torch.stack([torch.cat([e, e.new_zeros(padding.SHOWN - len(e), e.shape[1])]) for e in embedded])
        mask = torch.tensor([[place < len(e) for place in range(padding.SHOWN)] for e in embedded])
        return {"encoder_hidden_states": stacked, "encoder_attention_mask": mask, "image_embeds": self.seen(video)}

    @torch.no_grad()
    def seen(self, video: torch.Tensor) -> torch.Tensor:
        """What the frozen vision tower makes of the first frames, as the pipeline asks it: tokens before the text's."""
        frames = ((video[:, :, 0] + 1) / 2).clamp(0, 1).repeat_interleave(grid.SCALE, -1).repeat_interleave(grid.SCALE, -2)
        given = self.processor.preprocess(images=frames, do_rescale=False, return_tensors="pt")
        return self.tower(**given).last_hidden_state.repeat(train_dit.NOISES, 1, 1)
