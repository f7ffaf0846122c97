"""A block's update: what it adds to each of its streams, of video, and of text, audio and history where a family has them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from torch import Tensor

from cos_interp.interp.address import layer_of
from cos_interp.interp.hooking import FwdHook
from cos_interp.interp.run.clock import Hook

PRE, POST = "hook_resid_pre", "hook_resid_post"  # of the video; the names of other streams go on with _text, _audio, _history

# a stream before a block and after it, ``[row, ..., d_model]`` -> what it is after it instead; None: what it is
Edit = Callable[[Tensor, Tensor, Hook], Tensor | None]


def before(name: str) -> str:
    """The hook of a stream before a block, by that after it.

    >>> before("blocks.1.hook_resid_post_text")
    'blocks.1.hook_resid_pre_text'
    """
    return name.replace(POST, PRE)


def written(names: Iterable[str], layers: Collection[int]) -> list[str]:
    """Of hook names those at which blocks of some layers hand their streams on. A stream that nothing reads any more, as the text
    after the last block, has none.

    >>> written(["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post", "blocks.0.hook_resid_post_text", "hook_embed"], [0])
    ['blocks.0.hook_resid_post', 'blocks.0.hook_resid_post_text']
    """
    return [name for name in names if f".{POST}" in name and layer_of(name) in layers]


def around(names: Iterable[str], layers: Collection[int], edit: Edit) -> list[FwdHook]:
    """Hooks around blocks of some layers: ``edit`` is given every stream before and after each, and puts another in its place.

    ``names``: the hooks of the model. Only one block's streams are held at a time, each branch for itself, since a pipeline may
    run both in one forward.
    """
    held: dict[tuple[str, str | None], Tensor] = {}

    def keep(act: Tensor, hook: Hook) -> None:
        held[hook.name, hook.branch] = act

    def put(act: Tensor, hook: Hook) -> Tensor | None:
        return edit(held.pop((before(hook.name), hook.branch)), act, hook)

    return [hook for name in written(names, layers) for hook in ((before(name), keep), (name, put))]


def replaced(before: Tensor, after: Tensor, update: Tensor) -> Tensor:
    """The state after a block whose update is ``update`` instead of its own, ``[..., d_model]``.

    Its own update given back leaves ``after`` exactly as it is, which ``before + update`` would not, by rounding.
    """
    return after + (update - (after - before))
