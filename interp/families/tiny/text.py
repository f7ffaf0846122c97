"""Tiny random text and image encoders with word tokenizers, built offline."""

from __future__ import annotations

from typing import Any

import torch

WORDS = tuple("move the red blue green circle box square above below left right of a video ball goal to and on".split())
SPECIAL = ("<pad>", "</s>", "<unk>", "<s>")
CHAT = (
    "{% for m in messages %}{{ m['role'] }} "
    "{{ m['content'] if m['content'] is string else m['content'][0]['text'] }} {% endfor %}"
)
WIDTH = 16


def tokenizer(start: bool = False, **settings: Any) -> Any:
    """Lower-case words; anything else becomes ``<unk>``; ``</s>`` closes the prompt."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    pattern = "<s> $A </s>" if start else "$A </s>"
    ends = [("</s>", 1), ("<s>", 3)]
    inner.post_processor = processors.TemplateProcessing(single=pattern, special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        bos_token="<s>",
        chat_template=CHAT,
        **settings,
    )


def _vocabulary() -> int:
    return len(SPECIAL) + len(WORDS)


def t5(multilingual: bool = False) -> Any:
    from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

    torch.manual_seed(10)
    shape: dict[str, Any] = {
        "vocab_size": _vocabulary(),
        "d_model": WIDTH,
        "d_kv": 8,
        "d_ff": 16,
        "num_layers": 1,
        "num_heads": 2,
    }
    made = UMT5EncoderModel(UMT5Config(**shape)) if multilingual else T5EncoderModel(T5Config(**shape))
    return made.eval()


def clip_text() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(11)
    config = CLIPTextConfig(
        vocab_size=_vocabulary(),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=3,
        eos_token_id=1,
        pad_token_id=0,
        projection_dim=8,
    )
    return CLIPTextModel(config).eval()


def llama() -> Any:
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(12)
    config = LlamaConfig(
        vocab_size=_vocabulary(),
        hidden_size=WIDTH,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=512,
    )
    return LlamaModel(config).eval()


def gemma() -> Any:
    from transformers import Gemma2Config, Gemma2Model

    torch.manual_seed(13)
    config = Gemma2Config(
        vocab_size=_vocabulary(),
        hidden_size=WIDTH,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=512,
    )
    return Gemma2Model(config).eval()


def gemma3(layers: int) -> Any:
    """The text encoder of LTX-2, whose vision tower it does not use."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    torch.manual_seed(16)
    shape = {"hidden_size": WIDTH, "intermediate_size": 16, "num_attention_heads": 2}
    words = {"vocab_size": _vocabulary(), "num_hidden_layers": layers, "num_key_value_heads": 1, "head_dim": 8}
    config = Gemma3Config(
        text_config=shape | words | {"max_position_embeddings": 512},
        vision_config=shape | {"num_hidden_layers": 1, "image_size": 16, "patch_size": 8},
    )
    return Gemma3ForConditionalGeneration(config).eval()


def qwen() -> Any:
    """The text part of Qwen2.5-VL."""
    from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

    torch.manual_seed(14)
    config = Qwen2_5_VLTextConfig(
        vocab_size=_vocabulary(),
        hidden_size=WIDTH,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        rope_scaling={"type": "mrope", "mrope_section": [1, 1, 2]},  # type: ignore[call-arg]  # read as a further keyword
    )
    return Qwen2_5_VLTextModel(config).eval()


def clip_image() -> tuple[Any, Any]:
    """The image encoder of Wan 2.1 image-to-video, and its processor."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(15)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16
    )
    size = {"height": 32, "width": 32}
    return CLIPVisionModel(config).eval(), CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)


def siglip_image() -> tuple[Any, Any]:
    """The image encoder of FramePack, and its processor."""
    from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(17)
    config = SiglipVisionConfig(
        hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    return SiglipVisionModel(config).eval(), SiglipImageProcessor(size={"height": 32, "width": 32})
