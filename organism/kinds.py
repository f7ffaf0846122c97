"""The two architectures that are trained on the tasks: how each is built, trained and put into a pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from diffusers import AutoencoderKLWan, MotifVideoTransformer3DModel, WanTransformer3DModel

from cos_interp.organism import joint, package, padding, text, train_dit

Attention = Literal["cross", "joint"]


@dataclass(frozen=True)
class Kind:
    """``build(seed)``: a transformer of random weights. ``objective(vae, transformer)``: its training loss, which may set how the
    transformer attends. ``assemble(vae, transformer)``: the pipeline. ``blocks``: names of its lists of blocks."""

    transformer: type
    build: Callable[[int], Any]
    objective: Callable[[AutoencoderKLWan, Any], train_dit.FlowMatching]
    assemble: Callable[[AutoencoderKLWan, Any], Any]
    blocks: tuple[str, ...]


def _cross(vae: AutoencoderKLWan, transformer: WanTransformer3DModel) -> train_dit.FlowMatching:
    prompts = text.PromptTable(text.build_tokenizer(), text.build_encoder())
    return train_dit.CrossFlowMatching(vae, prompts, padding.install(transformer))


KINDS: dict[Attention, Kind] = {
    "cross": Kind(WanTransformer3DModel, train_dit.build, _cross, package.assemble, ("blocks",)),
    "joint": Kind(
        MotifVideoTransformer3DModel, joint.build, lambda vae, transformer: joint.JointFlowMatching(vae), joint.assemble,
        ("transformer_blocks", "single_transformer_blocks"),
    ),
}  # fmt: skip
