"""One transformer call under nnsight: read, edit, skip.

Every call of the denoising loop is a trace of its own. That removes nnsight's iteration numbers from the picture, and with
them its silent ways of binding a read to the wrong call; inside the one call the visits are sorted into execution order.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import nnsight
import torch
from nnsight.intervention.interleaver import OutOfOrderError
from nnsight.intervention.source import SourceNotAvailable
from torch import Tensor, nn

from cos_interp.interp.errors import InterpError
from cos_interp.interp.families import adapter_for
from cos_interp.interp.families.adapter import Block, Point
from cos_interp.interp.families.contract import wrong_tensor
from cos_interp.interp.run import sdpa
from cos_interp.interp.run.foreign import only_reading
from cos_interp.interp.run.wrapping import refuse_untraceable, wrap, wrapped
from cos_interp.interp.views import TokenGrid, give, take

# receives the activation with named axes and the rows of the forward's batch that it covers; returns its replacement or None
Visitor = Callable[[Tensor, slice], Tensor | None]
Plan = list[tuple[Point, Visitor]]


@dataclass(frozen=True)
class Skip:
    """Start the call at block ``layer``: earlier blocks do not run.

    ``residual`` is what the last skipped block hands on: the value with named axes of each of its ``hook_resid_post`` sites.
    """

    layer: int
    residual: Mapping[str, Tensor]


def streams(out: Any) -> tuple[Tensor, ...]:
    """What a transformer returned, one tensor for every latent that it predicts (LTX-2: video, audio)."""
    return out if isinstance(out, tuple) else (out,)


def handed_on(sites: Block, residual: Mapping[str, Tensor], grid: TokenGrid) -> Any:
    """What a block returns, put together from its ``hook_resid_post`` sites (named axes)."""
    items: dict[int | None, list[Tensor]] = {}
    before, after = ("history", "before"), ("after",)  # the video, on the token axis that a block's streams share
    for site in sorted(sites, key=lambda s: (s.part in after) - (s.part in before)):
        if site.name.startswith("hook_resid_post"):
            # a model of one joint block has no text to give, and nothing reads it
            value = residual.get(site.name, residual["hook_resid_post"].flatten(1, 3)[:, :1])
            items.setdefault(site.item, []).append(give(value, value, site.kind, grid, fold=site.fold))
    joined = {item: torch.cat(parts, dim=1) if len(parts) > 1 else parts[0] for item, parts in items.items()}
    return joined[None] if None in joined else tuple(joined[item] for item in sorted(item for item in joined if item is not None))


def split_visitor(parts: Sequence[Callable[[Tensor], Tensor | None] | None], each: int) -> Visitor:
    """A visitor that hands every branch its own rows.

    ``parts`` has one function a branch, in the order of the batch, and ``each`` is the number of rows of a branch.
    """

    def visit(act: Tensor, rows: slice) -> Tensor | None:
        if rows.stop is not None and rows.stop - rows.start < each * len(parts):  # attention by the row
            part = parts[rows.start // each]
            return None if part is None else part(act)
        pieces = list(act.chunk(len(parts))) if len(parts) > 1 else [act]
        new = [None if part is None else part(piece) for part, piece in zip(parts, pieces, strict=True)]
        if all(n is None for n in new):
            return None
        return torch.cat([p if n is None else n for n, p in zip(new, pieces, strict=True)]) if len(parts) > 1 else new[0]

    return visit


class ExpertEngine:
    """One transformer, wrapped once. Not for concurrent use."""

    def __init__(self, name: str, transformer: nn.Module):
        self.modules = list(transformer.named_modules())  # as they were wrapped
        refuse_untraceable(name, transformer, self.modules)
        self.name, self.adapter = name, adapter_for(transformer)
        self.module: Any = transformer  # with what diffusers adds to a module: config, dtype, cache_context
        reason = self.adapter.refuses(transformer.config)
        if reason is not None:
            raise InterpError(f"this {self.adapter.family} model is not supported: {reason}")
        self.points = self.adapter.points(transformer)
        streams = Counter(p.layer for name, p in self.points.items() if name.startswith(f"blocks.{p.layer}.hook_resid_post"))
        self.sole_streams = {layer for layer, count in streams.items() if count == 1}  # blocks that hand on one stream only
        self.blocks = [path for path, _ in self.adapter.blocks(transformer)]
        self.env = wrap(transformer)
        self.block_calls = 0  # blocks run so far, each row of a batch counted

    @property
    def layers(self) -> int:
        return len(self.blocks)

    def ready(self) -> None:
        """Before a run: what was loaded, hooked or replaced in the transformer since the last one is wrapped, or refused."""
        modules = list(self.module.named_modules())
        refuse_untraceable(self.name, self.module, modules)
        blocks = [path for path, _ in self.adapter.blocks(self.module)]
        if blocks != self.blocks:
            raise InterpError(
                f"{self.name} has {len(blocks)} blocks now, and had {len(self.blocks)} when this model was made: make another "
                "with from_pipeline(pipe)"
            )
        if not wrapped(self.modules, modules):
            self.env, self.modules = wrap(self.module), modules

    def envoy(self, path: str) -> nnsight.Envoy:
        found = self.env
        for part in filter(None, path.split(".")):
            found = found[int(part)] if part.isdigit() else getattr(found, part)
        return found

    def __call__(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], visits: Mapping[str, Visitor], skip: Skip | None = None
    ) -> Any:
        """Run the transformer; ``visits`` maps hook names to visitors. Returns what the transformer returns."""
        hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        self.block_calls += hidden.shape[0] * (self.layers - (skip.layer if skip else 0))
        if not visits and skip is None:
            read = self.env.interleaver.interleaving  # by the block of trace_call
            with only_reading(self.name, self.modules) if read else contextlib.nullcontext():
                return self.module(*args, **kwargs)
        call = {"hidden_states": hidden, **kwargs}
        dims, grid = self.adapter.dims(call), self.adapter.call_grid(self.module, call)
        ordered = sorted((self.points[name] for name in visits), key=lambda p: p.order)
        for point in ordered:
            if point.key.startswith("source."):
                self._source(point)  # installed before the forward, else the first trace misses it
        outer = [(p, visits[p.name]) for p in ordered if p.key not in sdpa.INNER]
        serving = self._serving([(p, visits[p.name]) for p in ordered if p.key in sdpa.INNER], grid)
        with only_reading(self.name, self.modules), serving:  # whose own hooks need no watching
            if not outer and skip is None:
                out = self.module(*args, **kwargs)
            else:
                out = self._trace(args, kwargs, outer, skip, grid, dims)
        self._all_fired(ordered, serving)
        return out

    def _trace(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], plan: Plan, skip: Skip | None, grid: TokenGrid, dims: Any
    ) -> Any:
        if self.env.interleaver.interleaving:
            raise InterpError(
                f"{plan[0][0].name} is edited by model.hooks(...) in the call of model.trace_call(...): edit it in that block"
            )
        places = [list(group) for _, group in groupby(plan, key=lambda pv: (pv[0].path, pv[0].key))]
        returned = self._skipped(skip, grid)
        with self.env.trace(*args, **kwargs) as tracer:
            for envoy, value in returned:
                envoy.skip(value)
            for place in places:
                self._visit(place, grid, dims)
            out = nnsight.save(tracer.result)
        return out

    def _serving(self, plan: Plan, grid: TokenGrid) -> sdpa.ServeAttention:
        """The servers of attention internals, several points of one location joined."""
        servers: dict[nn.Module, dict[str, sdpa.Server]] = {}
        for (path, key), group in groupby(plan, key=lambda pv: (pv[0].path, pv[0].key)):
            place = list(group)
            server = lambda value, rows, place=place: self._changed(place, value, rows, grid, None)
            servers.setdefault(self.module.get_submodule(path), {})[key] = server
        return sdpa.ServeAttention(servers, self.image_calls, self.adapter.per_sample_attention)

    @property
    def image_calls(self) -> dict[nn.Module, int]:
        """The modules that attend to an image as well, and whether they do so in their first or second call (0 or 1)."""
        second = lambda p: int(p.order > self.points[p.name.replace("image_", "")].order)
        return {self.module.get_submodule(p.path): second(p) for p in self.points.values() if p.key == "hook_image_z"}

    def _all_fired(self, points: list[Point], serving: sdpa.ServeAttention) -> None:
        for point in points:
            if point.key in sdpa.INNER and (self.module.get_submodule(point.path), point.key) not in serving.served:
                raise self.did_not_fire(point)

    def did_not_fire(self, point: Point) -> InterpError:
        """What is wrong where nothing of an attention was seen."""
        return InterpError(
            f"{point.name} did not fire: the attention of {point.path} does not run through PyTorch's "
            f"scaled_dot_product_attention. Choose the native backend: {self.name}.set_attention_backend('native')"
        )

    def _skipped(self, skip: Skip | None, grid: TokenGrid) -> list[tuple[nnsight.Envoy, Any]]:
        """What each skipped block returns; only the last one's value is used, the others must have its shape."""
        if skip is None:
            return []
        skipped = self.adapter.blocks(self.module)[: skip.layer]
        return [(self.envoy(path), handed_on(sites, skip.residual, grid)) for path, sites in skipped]

    def _visit(self, place: Plan, grid: TokenGrid, dims: Any) -> None:
        """All points of one location: one read, at most one write."""
        point = place[0][0]
        value, write = self._location(point)
        for item, group in groupby(place, key=lambda pv: pv[0].site.item):
            tensor = value if item is None else _picked(point, value, item)
            new = self._changed(list(group), tensor, slice(0, None), grid, dims)
            if new is None:
                continue
            value = new if item is None else (*value[:item], new, *value[item + 1 :])
            write(value)

    def _location(self, point: Point) -> tuple[Any, Callable[[Any], None]]:
        """The value at a point (all arguments of a module, where its item picks one), and what writes it."""
        owner, key = self.envoy(point.path), point.key
        if key.startswith("source."):
            label = key.removeprefix("source.")
            owner, key = getattr(self._source(point), label), "output"
        try:
            if key == "input" and point.site.item is not None:
                args, named = owner.inputs
                return (*args, *named.values()), partial(_write_arguments, owner, len(args), tuple(named))
            return getattr(owner, key), partial(setattr, owner, key)
        except OutOfOrderError as error:
            raise InterpError(
                f"{point.name} was not reached in time: the {self.adapter.family} adapter does not list its sites in the order "
                f"of execution (one that it lists before, {self._before(point)} or earlier, runs after it; "
                "interp.families.shapes.ordered moves sites, interleaved=True is for stacks that take turns), or "
                f"{point.path or 'the transformer'} does not run in this call"
            ) from error

    def _source(self, point: Point) -> Any:
        """The forward of a block, in which a label is looked up; InterpError where there is no such label or no source."""
        label = point.key.removeprefix("source.")
        try:
            source = self.envoy(point.path).source
        except SourceNotAvailable as error:
            block = type(self.module.get_submodule(point.path)).__name__
            raise InterpError(f"{point.name}: the source of {block} is not to be had: define the class in a file") from error
        if not hasattr(source, label):
            raise InterpError(f"{point.name}: the forward of {point.path} has no {label}; it has {', '.join(source.names)}")
        return source

    def _before(self, point: Point) -> str:
        """The site that the adapter lists before one."""
        return next((p.name for p in self.points.values() if p.order == point.order - 1), "none")

    def _changed(self, place: Plan, tensor: Tensor, rows: slice, grid: TokenGrid, dims: Any) -> Tensor | None:
        """The model's tensor after its visitors; None when none changed it."""
        changed, layout = None, self.adapter.layout
        for point, visitor in place:
            current, site = tensor if changed is None else changed, point.site
            latent = site.kind == "latent"
            act = layout.to_canonical(current, dims) if latent else _taken(point, current, grid)
            new = visitor(act, rows)
            if new is None:
                continue
            if new.shape != act.shape or new.dtype != act.dtype:
                raise _unfit(point, new, act)
            new = layout.from_canonical(new) if latent else give(current, new, site.kind, grid, site.part, site.fold)
            if new.dtype != tensor.dtype or new.shape != tensor.shape:
                raise _unfit(point, new, tensor)
            changed = new if new.stride() == tensor.stride() else torch.empty_like(tensor).copy_(new)  # kernels round by strides
        return changed


def _write_arguments(owner: Any, positional: int, names: tuple[str, ...], values: tuple[Any, ...]) -> None:
    owner.inputs = (values[:positional], dict(zip(names, values[positional:], strict=True)))


def _picked(point: Point, value: Any, item: int) -> Any:
    """One of a tuple; InterpError where there is no such one."""
    if not isinstance(value, tuple | list) or item >= len(value):
        found = f"a tuple of {len(value)}" if isinstance(value, tuple | list) else type(value).__name__
        field = "Adapter.output_item" if point.name == "hook_model_out" else "Site.item"
        where = f"{point.name} (at {point.path or 'the transformer'}, {point.key})"
        raise InterpError(f"{where}: {field}={item} picks from a tuple, found {found}; None means that there is no tuple")
    return value[item]


def _taken(point: Point, tensor: Tensor, grid: TokenGrid) -> Tensor:
    """The model's tensor with named axes; InterpError with the site's name where it does not have the tokens of its kind."""
    site = point.site
    problem = wrong_tensor(tensor, site, grid)
    if problem:
        raise InterpError(f"{point.name} (at {point.path or 'the transformer'}, {point.key}): {problem}")
    return take(tensor, site.kind, grid, site.part, site.fold)


def _unfit(point: Point, new: Tensor, tensor: Tensor) -> InterpError:
    return InterpError(
        f"{point.name}: the replacement is {new.dtype} {tuple(new.shape)}, the model needs {tensor.dtype} "
        f"{tuple(tensor.shape)} in its own layout: return the same dtype and shape that were given"
    )
