"""The parts of the proof that look inside one forward: order of tokens, and identities of the block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from cos_interp.interp.families.adapter import Point
from cos_interp.interp.families.contract import latents_of
from cos_interp.interp.families.layouts import Dims
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.clock import Call
from cos_interp.interp.run.director import Director
from cos_interp.interp.run.engine import ExpertEngine, Visitor, streams
from cos_interp.interp.views import TokenGrid, take

Outcome = Iterator[tuple[int, str | None]]
CELL = (1, 2, 1)  # the latent cell that is perturbed: frame, row, column


class _FirstCall(Director):
    """Keeps what the first call gives the transformer."""

    arguments: dict[str, Any]

    def call(self, calls: tuple[Call, ...], engine: ExpertEngine, kwargs: dict[str, Any]) -> Any:
        if calls[0].index == 0:
            self.arguments = dict(kwargs)
        return super().call(calls, engine, kwargs)


class Probe:
    """One pipeline under test: a recorded run, and the transformer alone on the arguments of its first call."""

    def __init__(self, model: HookedVideoPipeline, call: dict[str, Any]):
        self.model, self.call = model, call
        self.run, self.cache = model.run_with_cache(names="*", **call)
        self.engine: ExpertEngine = model.engines[self.run.calls[0].expert]

    @cached_property
    def grid(self) -> TokenGrid:
        """The token grid of the first call."""
        return self.engine.adapter.call_grid(self.engine.module, self.arguments)

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """What the first call gives the transformer."""
        director = _FirstCall()
        self.model.play(director, **self.model.call_arguments(dict(self.call)))
        return director.arguments

    def untouched(self) -> Tensor:
        """Final latents of the pipeline without the instrument, in the canonical layout."""
        pipe, layout = self.model.pipe, self.engine.adapter.layout
        keywords = {**self.model.call_arguments(dict(self.call)), "output_type": "latent", "return_dict": False}
        out = latents_of(pipe, pipe(**keywords))
        return out if layout.packed and out.ndim == 5 else layout.to_canonical(out, self.run.dims)

    def as_returned(self) -> Tensor:
        """The run's final latents as the pipeline returns them."""
        return self.engine.adapter.returned(self.model.pipe, self.run.shown(self.run.latents))

    @torch.no_grad()
    def outputs(self, visits: Mapping[str, Visitor], hidden: Tensor | None = None) -> tuple[Tensor, ...]:
        """The transformer's outputs on the first call's arguments, with visits."""
        kwargs = self.arguments if hidden is None else {**self.arguments, "hidden_states": hidden}
        return streams(self.engine((), kwargs, visits))

    def forward(self, visits: Mapping[str, Visitor], hidden: Tensor | None = None) -> Tensor:
        """The prediction for the video among :meth:`outputs`."""
        return self.outputs(visits, hidden)[0]

    def read(
        self, names: list[str], hidden: Tensor | None = None, edits: Mapping[str, Visitor] | None = None
    ) -> dict[str, Tensor]:
        """Values at names in one forward; the rows of attention that runs row by row are joined."""
        kept: dict[str, list[Tensor]] = {name: [] for name in names}

        def keeping(name: str) -> Visitor:
            return lambda act, rows: kept[name].append(act.clone())

        self.forward({name: keeping(name) for name in names} | dict(edits or {}), hidden)
        return {name: values[0] if len(values) == 1 else _stacked(values) for name, values in kept.items()}

    def forward_hooks(self, places: set[tuple[str, str]]) -> dict[tuple[str, str], list[Any]]:
        """What PyTorch's own hooks see at modules in a run of the untouched pipeline, by forward."""
        seen: dict[tuple[str, str], list[Any]] = {place: [] for place in places}
        handles = []
        copy = lambda v: tuple(t.clone() if isinstance(t, Tensor) else t for t in v) if isinstance(v, tuple) else v.clone()
        for engine in self.model.engines.values():
            for path, key in places:
                module, into = engine.module.get_submodule(path), seen[path, key]
                if key == "output":
                    keep = lambda m, a, out, into=into: into.append(copy(out)) and None
                    handles.append(module.register_forward_hook(keep))
                else:
                    every = lambda m, a, k, into=into: into.append(copy((*a, *k.values()))) and None
                    handles.append(module.register_forward_pre_hook(every, with_kwargs=True))
        self.untouched()
        for handle in handles:
            handle.remove()
        return seen


def _stacked(values: list[Tensor]) -> Tensor:
    width = max(v.shape[-1] for v in values)
    return torch.cat([torch.nn.functional.pad(v, (0, width - v.shape[-1])) for v in values])


# --- order of tokens -----------------------------------------------------------------------------------------------


def token_order(probe: Probe) -> Outcome:
    """A change of one latent cell reaches its token in the embedding and the first block; a token reaches its own cells."""
    layout, grid = probe.engine.adapter.layout, probe.grid
    dims = probe.engine.adapter.dims(probe.arguments)
    patch = [d // g if d % g == 0 else -(-d // g) for d, g in zip(dims, grid.shape)]
    cell = tuple(min(c, d - 1) for c, d in zip(CELL, dims))
    token = tuple(c // p for c, p in zip(cell, patch))
    hidden = layout.to_canonical(probe.arguments["hidden_states"], dims).clone()
    hidden[:, 0, cell[0], cell[1], cell[2]] += 1.0
    first: list[str] = [n for n in ("hook_embed", "blocks.0.hook_resid_pre", "blocks.0.attn.hook_q") if n in probe.engine.points]
    base, moved = probe.read(first), probe.read(first, layout.from_canonical(hidden))
    for name in first:
        yield 1, _moved_only(name, base[name], moved[name], token)
    yield from _later_sites(probe, token)
    yield 1, _output_order(probe, token, patch, dims)


def _moved_only(name: str, base: Tensor, moved: Tensor, token: tuple[int, ...]) -> str | None:
    """Values are ``[batch, frame, row, col, ...]``."""
    touched = (base != moved).flatten(4).any(-1).any(0)
    expected = torch.zeros_like(touched)
    expected[token] = True
    return None if torch.equal(touched, expected) else f"{name}: tokens {touched.nonzero().tolist()[:4]} moved, not {list(token)}"


def _at(token: tuple[int, ...]) -> Visitor:
    def bump(act: Tensor, rows: slice) -> Tensor:
        out = act.clone()
        frame, row, col = token
        out[:, frame, row, col] += torch.linspace(0, 2, act.shape[-1]).to(act)  # a constant would vanish in a layer norm
        return out

    return bump


def _later_sites(probe: Probe, token: tuple[int, ...]) -> Outcome:
    """A change of one token after the attention stays in that token up to the end of the block (but for convolutions)."""
    points = probe.engine.points
    for layer in range(probe.model.layers):
        name = lambda site, layer=layer: f"blocks.{layer}.{site}"
        last = ("hook_resid_mid3", "hook_resid_mid2", "hook_resid_mid", "hook_block_out")
        start = next((name(s) for s in last if name(s) in points), None)
        ends = [name(s) for s in ("hook_mlp_out", "hook_resid_post") if name(s) in points]
        if start is None or points[ends[0]].kind == "grid":
            continue
        if start.endswith("hook_block_out"):
            ends = ends[-1:]
        base, moved = probe.read(ends), probe.read(ends, edits={start: _at(token)})
        for end in ends:
            yield 1, _moved_only(end, base[end], moved[end], token)


def _output_order(probe: Probe, token: tuple[int, ...], patch: list[int], dims: Dims) -> str | None:
    last = f"blocks.{probe.model.layers - 1}.hook_resid_post"
    out = probe.engine.adapter.layout
    base, moved = (out.to_canonical(probe.forward(v), dims) for v in ({}, {last: _at(token)}))
    touched = (base != moved).any(0).any(0)
    expected = torch.zeros_like(touched)
    expected[tuple(slice(t * p, (t + 1) * p) for t, p in zip(token, patch))] = True
    wrong = touched & ~expected
    return f"{last}: cells {wrong.nonzero().tolist()[:4]} of the output moved" if wrong.any() or not touched.any() else None


# --- identities ----------------------------------------------------------------------------------------------------


def identities(probe: Probe) -> Outcome:
    """Those of the attention at every layer, and of the residual stream."""
    points, breaks = probe.engine.points, probe.engine.adapter.breaks(probe.engine.module)
    for layer in range(probe.model.layers):
        for kind in ("attn", "cross_attn", "audio_attn"):
            if f"blocks.{layer}.{kind}.hook_pattern" in points:
                yield 1, pattern_gives_z(probe, f"blocks.{layer}.{kind}")
            if (outcome := z_gives_output(probe, layer, kind)) is not None:
                yield 1, outcome or None
        if layer and layer not in breaks:
            for name in (n for n in points if n.startswith(f"blocks.{layer}.hook_resid_pre")):
                left = name.replace(f"blocks.{layer}.hook_resid_pre", f"blocks.{layer - 1}.hook_resid_post")
                before, after = probe.read([left, name]).values()
                yield 1, None if torch.equal(before, after) else f"{name} is not {left}"
        yield from residual_sums(probe, layer)


def pattern_gives_z(probe: Probe, attention: str) -> str | None:
    """``pattern @ v = z`` for the video's queries, and rows of the pattern sum to 1."""
    points = probe.engine.points
    names = [f"{attention}.hook_{s}" for s in ("pattern", "v", "z")]
    others = [f"{attention}.hook_v_{s}" for s in ("history", "text") if f"{attention}.hook_v_{s}" in points]
    if probe.engine.adapter.per_sample_attention or points[names[1]].site.fold:
        return _rows_sum_to_one(probe, names[0])
    got = probe.read([*names, *others])
    pattern, v, z = (got[n] for n in names)
    values = v.flatten(1, 3) if v.ndim == 6 else v
    if others:  # all share one axis of keys
        before = [got[n] for n in others if points[n].site.part in ("before", "history")]
        after = [got[n] for n in others if points[n].site.part == "after"]
        values = torch.cat([*before, values, *after], dim=1)
    if values.shape[2] != z.shape[-2]:
        values = values.repeat_interleave(z.shape[-2] // values.shape[2], dim=2)
    found = torch.einsum("bhqk,bkhd->bqhd", pattern.flatten(2, 4), values)
    close = torch.allclose(found.float(), z.flatten(1, 3).float(), atol=_tolerance(z) * float(z.abs().max()), rtol=_tolerance(z))
    return _rows_sum_to_one(probe, names[0]) if close else f"{attention}: pattern @ v is not z"


def z_gives_output(probe: Probe, layer: int, kind: str) -> str | None:
    """z is what W_O gets and ``hook_attn_out`` what it gives: what is wrong, "" for nothing, None without such a projection."""
    points = probe.engine.points
    z, image, out = (f"blocks.{layer}.{n}" for n in (f"{kind}.hook_z", f"{kind}.hook_image_z", f"hook_{kind}_out"))
    if z not in points or out not in points or points[z].kind != "heads":
        return None
    projection = _projection(probe.engine.module.get_submodule(points[z].path))
    if projection is None:
        return None
    inside: dict[str, Tensor] = {}
    keep = lambda m, args, result: inside.update(given=args[0].clone(), made=result.clone())
    handle = projection.register_forward_hook(keep)
    try:
        got = probe.read([n for n in (z, image, out) if n in points])
    finally:
        handle.remove()
    site, grid = points[z].site, probe.grid
    part = None if inside["given"].shape[1] == grid.tokens else site.part
    given, made = (take(value, "tokens", grid, part, site.fold) for value in inside.values())
    heads = got[z] + got[image] if image in got else got[z]
    return "" if torch.equal(given, heads.flatten(-2)) and torch.equal(made, got[out]) else f"W_O {z} is not {out}"


def _projection(attention: nn.Module) -> nn.Module | None:
    """The output projection that follows z and nothing else."""
    if getattr(attention, "to_gate_logits", None) is not None:
        return None
    found = getattr(attention, "to_out", None)
    found = found[0] if isinstance(found, nn.ModuleList | nn.Sequential) else found
    return getattr(attention, "out_layer", None) if found is None else found


def _rows_sum_to_one(probe: Probe, name: str) -> str | None:
    total = probe.read([name])[name].sum(-1)
    return None if (total.float() - 1).abs().max() <= 10 * _tolerance(total) else f"{name}: rows do not sum to 1"


def _tolerance(value: Tensor) -> float:
    """Relative rounding of a value's precision; the fused kernel sums in another order."""
    return max(1e-4, 4 * torch.finfo(value.dtype).eps)


# the residual streams of a block in order, and what is added before each
ADDED_BEFORE = {
    "hook_resid_pre": "",
    "hook_resid_mid": "hook_attn_out",
    "hook_resid_mid2": "hook_cross_attn_out",
    "hook_resid_mid3": "hook_audio_attn_out",
    "hook_resid_post": "hook_mlp_out",
}


def residual_sums(probe: Probe, layer: int) -> Outcome:
    """With a sub-layer's result set to 0 the residual stream passes it unchanged, bit for bit."""
    points: Mapping[str, Point] = probe.engine.points
    adapter, module = probe.engine.adapter, probe.engine.module
    there = [s for s in ADDED_BEFORE if f"blocks.{layer}.{s}" in points]
    for stream, following in zip(there, there[1:]):
        before, after = f"blocks.{layer}.{stream}", f"blocks.{layer}.{following}"
        sublayer = "hook_block_out" if len(there) == 2 else ADDED_BEFORE[following]
        name = f"blocks.{layer}.{sublayer}"
        if sublayer == "hook_attn_out" and adapter.adds_before_attention(module):
            continue
        if sublayer == "hook_mlp_out" and layer in adapter.adds_after_mlp(module, probe.arguments):
            continue
        got = probe.read([before, after], edits={name: lambda act, rows: torch.zeros_like(act)})
        yield 1, None if torch.equal(got[before], got[after]) else f"{after} is not {before} when {name} is 0"
