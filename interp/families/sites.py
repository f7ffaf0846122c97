"""Sites, blocks and points: where the activations of a transformer lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

EXPERTS = ("transformer", "transformer_2")  # components of a pipeline
Transformer = Any  # of diffusers, which has no types: an nn.Module with a configuration `config`

# what text and history compute after their last keys and values went into the video: nothing reads it
DEAD = ("hook_q_text", "hook_pattern_text", "hook_z_text", "hook_attn_out_text", "hook_resid_mid_text", "hook_mlp_out_text",
        "hook_block_out_text", "hook_post_text", "hook_resid_post_text", "hook_resid_post_history")  # fmt: skip


@dataclass(frozen=True)
class Site:
    """One place in a block (or outside the blocks): its public name, and the nnsight location ``path`` + ``key``.

    ``name`` is what follows ``blocks.{i}.`` (or the whole name, outside the blocks). ``path`` is the module, relative to the
    block, with ``""`` for the block itself. ``key`` is ``input`` or ``output`` of that module, ``source.LABEL`` for an
    assignment in its forward (nnsight's label), for attentions ``hook_q``, ``hook_k``, ``hook_v``, ``hook_pattern``, ``hook_z``.

    ``kind`` is a key of :data:`cos_interp.interp.views.KINDS`, which say what axes the model's own tensor has, and those that
    users see. ``item`` picks from a tuple that is returned, or one of all arguments by its position (without it the first).

    ``part`` is the stretch of the token axis that is meant where the video shares one with others: ``lead`` and ``trail``
    are the video's tokens at the start and at the end, ``after`` and ``before`` the text around them, ``history`` earlier
    frames before ``lead``. ``fold`` says that frames (``spatial``) or positions (``temporal``) are folded into the batch axis.
    ``wanted`` leaves a site out of blocks that lack it.
    """

    name: str
    kind: str
    path: str
    key: str
    item: int | None = None
    part: str | None = None
    fold: str | None = None
    wanted: Callable[[nn.Module], bool] | None = None


@dataclass(frozen=True)
class Point:
    """A site of a real transformer: its full name and path, and its place in the order of execution."""

    name: str
    site: Site
    path: str
    order: int
    layer: int | None = None

    @property
    def kind(self) -> str:
        return self.site.kind

    @property
    def key(self) -> str:
        return self.site.key


Block = tuple[Site, ...]


@dataclass(frozen=True)
class Stack:
    """A list of equal blocks: the attribute that holds it, and the sites of one block in order of execution."""

    attribute: str
    sites: Block


def has(attribute: str) -> Callable[[nn.Module], bool]:
    """Whether a block has something: a dotted attribute that is there and not None."""
    return partial(_has, attribute)


def _has(attribute: str, block: nn.Module) -> bool:
    found: Any = block
    for part in attribute.split("."):
        found = getattr(found, part, None)
    return found is not None
