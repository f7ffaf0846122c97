"""The sites of one block, for the four shapes of blocks that video transformers use.

Sites without a module boundary (the residual stream between the sub-layers) are read through nnsight's one-level
``source`` of the block; their labels are pinned to diffusers 0.42 and proven by ``check_adapter``.
"""

from __future__ import annotations

from cos_interp.interp.errors import InterpError
from cos_interp.interp.families.sites import Block, Site, has


def ordered(block: Block, *names: str) -> Block:
    """The block with the named sites in this order: the order in which the forward computes them.

    They share out the places that they have together; all other sites stay. Raises InterpError for a name that is not there.
    """
    site = {s.name: s for s in block}
    if missing := [name for name in names if name not in site]:
        raise InterpError(f"the block has no site {missing[0]}; it has {', '.join(site)}")
    following = iter(names)
    return tuple(site[next(following)] if s.name in names else s for s in block)


def attention(name: str, module: str, text: str | None = None, cross: bool = False, fold: str | None = None) -> Block:
    """q, k, v, pattern, z of an attention module. ``text``: where the text lies in joint attention (``first``, ``last``)."""
    part = {None: None, "first": "trail", "last": "lead"}[text]
    other = {None: None, "first": "before", "last": "after"}[text]
    keys = ("text_heads" if fold is None else "frame_text_heads") if cross else "heads"
    kinds = (("q", "heads"), ("k", keys), ("v", keys), ("pattern", "pattern"), ("z", "heads"))
    sites = []
    for letter, kind in kinds:
        sites.append(Site(f"{name}.hook_{letter}", kind, module, f"hook_{letter}", part=part, fold=fold))
        if text:
            shape = "text_pattern" if letter == "pattern" else "text_heads"
            sites.append(Site(f"{name}.hook_{letter}_text", shape, module, f"hook_{letter}", part=other))
    return tuple(sites)


def image_attention(module: str) -> Block:
    """The separate image attention of Wan 2.1 image-to-video, which runs before the text attention."""
    kinds = (("k", "text_heads"), ("v", "text_heads"), ("pattern", "pattern"), ("z", "heads"))
    there = has(f"{module}.add_k_proj")
    return tuple(Site(f"cross_attn.hook_image_{n}", kind, module, f"hook_image_{n}", wanted=there) for n, kind in kinds)


def cross_block(
    attn: str = "attn1",
    cross: str | None = "attn2",
    mlp: str = "ff",
    mid: str = "hidden_states_0",
    mid2: str | None = "hidden_states_1",
    image: bool = False,
    linear: bool = False,
    fold: str | None = None,
    mlp_kind: str = "tokens",
    attn_fold: str | None = None,
) -> Block:
    """Self-attention, attention to the text, MLP; one tensor of video tokens goes through (Wan, LTX, Cosmos, ...).

    - ``attn``, ``cross``, ``mlp``: names of the block's modules; ``cross=None`` for a block without attention to the text.
    - ``mid``, ``mid2``: nnsight's labels of the assignments after the self-attention and after the attention to the text.
    - ``fold``: frames (``spatial``) or positions (``temporal``) are in the batch axis of all that goes through the block;
      ``attn_fold``: only inside its self-attention.
    - ``linear`` self-attention has no pattern: of its inside only z is served, at the input of the output projection.
    - ``image``: the attention to the text has Wan 2.1's separate image attention. ``mlp_kind``: kind of the MLP's output.
    """
    inner = attn_fold or fold
    z = Site("attn.hook_z", "flat_heads", f"{attn}.to_out.0", "input", fold=inner)
    sites = [Site("hook_resid_pre", "tokens", "", "input", fold=fold)]
    sites += (z,) if linear else attention("attn", attn, fold=inner)
    sites += [Site("hook_attn_out", "tokens", attn, "output", fold=inner)]
    sites += [Site("hook_resid_mid", "tokens", "", f"source.{mid}", fold=fold)]
    if cross is not None:
        sites += image_attention(cross) if image else ()
        sites += attention("cross_attn", cross, cross=True, fold=fold)
        sites += [Site("hook_cross_attn_out", "tokens", cross, "output", fold=fold)]
        sites += [Site("hook_resid_mid2", "tokens", "", f"source.{mid2}", fold=fold)]
    sites += [Site("hook_mlp_out", mlp_kind, mlp, "output", fold=fold)]
    sites += [Site("hook_resid_post", "tokens", "", "output", fold=fold)]
    return tuple(sites)


def joint_block(
    attn: str = "attn1",
    text: str = "last",
    mlp: str = "ff",
    text_mlp: str | None = "ff_context",
    mid: str = "hidden_states_0",
    mid_text: str | None = "encoder_hidden_states_0",
    text_sites: bool = True,
    takes: int = 0,
    attn_returns: int = 0,
    returns: int = 0,
) -> Block:
    """Two streams that meet in one attention (CogVideoX, Mochi, HunyuanVideo, ...).

    - ``attn``, ``mlp``, ``text_mlp``: names of the block's modules. Without ``text_mlp`` the MLP runs on both streams, joined
      as in the attention.
    - ``text``: where the text lies on the token axis inside the attention (``first``, ``last``).
    - ``mid``, ``mid_text``: nnsight's labels of the assignments that end the attention's part of the block.
    - ``takes``, ``attn_returns``, ``returns``: position of the video among the block's arguments, what the attention returns
      and what the block returns; 0 for ``(video, text)``, 1 for ``(text, video)``.
    - ``text_sites``: whether the text's queries, keys and values are served.
    """
    video_part, text_part = {"first": ("trail", "before"), "last": ("lead", "after")}[text]
    heads = attention("attn", attn, text=text)
    out = [
        Site("hook_resid_pre", "tokens", "", "input", item=takes),
        Site("hook_resid_pre_text", "text", "", "input", item=1 - takes),
        *(s for s in heads if text_sites or not s.name.endswith("_text")),
        Site("hook_attn_out", "tokens", attn, "output", item=attn_returns),
        Site("hook_attn_out_text", "text", attn, "output", item=1 - attn_returns),
        Site("hook_resid_mid", "tokens", "", f"source.{mid}"),
    ]
    if mid_text is not None:
        out.append(Site("hook_resid_mid_text", "text", "", f"source.{mid_text}", wanted=_keeps_text))
    if text_mlp is None:
        out.append(Site("hook_mlp_out", "tokens", mlp, "output", part=video_part))
        out.append(Site("hook_mlp_out_text", "text", mlp, "output", part=text_part))
    else:
        out.append(Site("hook_mlp_out", "tokens", mlp, "output"))
        out.append(Site("hook_mlp_out_text", "text", text_mlp, "output", wanted=has(text_mlp)))
    out.append(Site("hook_resid_post", "tokens", "", "output", item=returns))
    out.append(Site("hook_resid_post_text", "text", "", "output", item=1 - returns))
    return tuple(out)


def _keeps_text(block: object) -> bool:
    return not getattr(block, "context_pre_only", False)


def single_block(attn: str = "attn1", text: str = "last", mlp: str = "ff", mid: str = "hidden_states_0") -> Block:
    """One stream that holds video and text on one token axis: the block takes and returns a single tensor.

    ``text``: where the text lies on that axis (``first``, ``last``); the other words are those of :func:`joint_block`.
    """
    video_part, text_part = {"first": ("trail", "before"), "last": ("lead", "after")}[text]
    both = lambda name, path, key: (
        Site(name, "tokens", path, key, part=video_part),
        Site(f"{name}_text", "text", path, key, part=text_part),
    )
    return (
        *both("hook_resid_pre", "", "input"),
        *attention("attn", attn, text=text),
        *both("hook_attn_out", attn, "output"),
        *both("hook_resid_mid", "", f"source.{mid}"),
        *both("hook_mlp_out", mlp, "output"),
        *both("hook_resid_post", "", "output"),
    )


def parallel_block(attn: str = "attn", mlp: str = "act_mlp", out: str = "proj_out") -> Block:
    """Attention and MLP side by side on [video, text]; no residual stream lies between them (HunyuanVideo's single blocks)."""
    return (
        Site("hook_resid_pre", "tokens", "", "input", item=0),
        Site("hook_resid_pre_text", "text", "", "input", item=1),
        Site("mlp.hook_post", "tokens", mlp, "output", part="lead"),
        Site("mlp.hook_post_text", "text", mlp, "output", part="after"),
        *attention("attn", attn, text="last"),
        Site("hook_attn_out", "tokens", attn, "output", item=0),
        Site("hook_attn_out_text", "text", attn, "output", item=1),
        Site("hook_block_out", "tokens", out, "output", part="lead"),
        Site("hook_block_out_text", "text", out, "output", part="after"),
        Site("hook_resid_post", "tokens", "", "output", item=0),
        Site("hook_resid_post_text", "text", "", "output", item=1),
    )
