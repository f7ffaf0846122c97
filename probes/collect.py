"""Running a model on clips and keeping, by token, what probes read. It knows no data set: a data set collects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from cos_interp.interp.errors import InterpError
from cos_interp.interp.identity import combined, component_digest
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.selecting import token_mask, whole
from cos_interp.interp.trajectory import Run
from cos_interp.probes.asked import count
from cos_interp.probes.clip import Clip, ClipData, Shape, Source
from cos_interp.probes.errors import ProbeError
from cos_interp.probes.inputs import as_tokens, first_frame
from cos_interp.probes.targets import Target

OF_ITEMS = ("prompt", "image", "seed")  # what a task's item says itself
TOKEN_KINDS = ("tokens", "embed", "heads")
Tokens = Any  # a number, drawn at random, or what a cache takes: "all", a mask, cells (frame, row, col), a dictionary
Progress = Callable[[int, int], None]


def sources(model: HookedVideoPipeline, suite: Iterable[Any], n: int | None, seed: int, call: dict[str, Any]) -> list[Source]:
    """The first ``n`` items, tasks in turn, as pipeline calls. A noise seed belongs to its item, whatever the others are."""
    if n is not None and ((found := whole(n)) is None or found < 1):
        raise ProbeError(f"n={n!r}: give a whole number of clips of at least 1")
    seed = count(seed, "seed", 0)
    items = in_turn(list(suite))[:n]
    if n is not None and len(items) < n:
        raise ProbeError(f"n={n} clips were asked for; the suite has {len(items)} items")
    out = []
    for item in items:
        if isinstance(item, Source):
            _not_its_own(item.name, item.call, call)
            out.append(Source(item.name, {**item.call, **call}, item.item))
            continue
        name = f"{item.task}-{item.seed}"
        _not_its_own(name, OF_ITEMS, call)
        made: dict[str, Any] = {"prompt": item.prompt, "seed": seed * 1_000_000 + int(item.seed), **call}
        if model.takes_image:
            made["image"] = Image.fromarray(item.first_frame)
        out.append(Source(name, made, item))
    return out


def _not_its_own(name: str, own: Iterable[str], call: dict[str, Any]) -> None:
    """ProbeError for a keyword that would replace what an item sets: its labels are of its own prompt and first frame."""
    if both := sorted(set(own) & set(call)):
        raise ProbeError(
            f"{both[0]}={call[both[0]]!r:.80} was given for all clips, and {name} has its own, which its labels are of: "
            f"leave {both[0]} out, or collect clip.Source objects whose call says it"
        )


def in_turn(items: list[Any]) -> list[Any]:
    """Items reordered so that their tasks alternate: any first part is balanced.

    >>> from types import SimpleNamespace as S
    >>> [i.task for i in in_turn([S(task="a"), S(task="a"), S(task="b")])]
    ['a', 'b', 'a']
    """
    by: dict[Any, list[Any]] = {}
    for item in items:
        by.setdefault(getattr(item, "task", None), []).append(item)
    longest = max(map(len, by.values()), default=0)
    return [part[i] for i in range(longest) for part in by.values() if i < len(part)]


def chosen_tokens(tokens: Tokens, grid: Shape, seed: int) -> np.ndarray:
    """Flat indices of the kept tokens, sorted."""
    total = int(np.prod(grid))
    if isinstance(tokens, (int, np.integer)) and not isinstance(tokens, bool):
        if not 1 <= tokens <= total:
            raise ProbeError(f"tokens={tokens}: a clip of this model has {total}")
        return np.sort(np.random.default_rng([seed, total]).choice(total, int(tokens), replace=False))
    try:
        mask = token_mask(tokens, grid)
    except InterpError as error:
        raise ProbeError(f"{error}; or a number of tokens, drawn at random") from error
    return np.arange(total) if mask is None else np.flatnonzero(mask.numpy())


def token_names(model: HookedVideoPipeline, names: str | Sequence[str]) -> list[str]:
    """The hook names that are meant; ProbeError for one that has no activation by token."""
    found = model.matching(names)
    points = next(iter(model.engines.values())).points
    for name in found:
        if name not in points or points[name].kind not in TOKEN_KINDS:
            raise ProbeError(f"{name} has no activation by token; probe residual streams, sub-layer outputs or attn.hook_q/k/v/z")
    return found


def collect_clips(
    model: HookedVideoPipeline, chosen: Sequence[Source], names: str | Sequence[str], steps: Any, targets: Sequence[Target],
    tokens: Tokens, seed: int, progress: Progress,
) -> Iterator[ClipData]:  # fmt: skip
    """:func:`collect_clip` of every source in turn; each draws its tokens by a seed of its own."""
    for i, source in enumerate(chosen):
        progress(i, len(chosen))
        yield collect_clip(model, source, names, steps, targets, tokens, seed + i)
    progress(len(chosen), len(chosen))


def collect_clip(
    model: HookedVideoPipeline, source: Source, names: str | Sequence[str], steps: Any, targets: Sequence[Target], tokens: Tokens,
    seed: int, seen: Callable[[Clip], None] = lambda clip: None,
) -> ClipData:  # fmt: skip
    """Run one clip and keep its part. ``seen`` is shown the whole of it."""
    found = token_names(model, names)
    shapes: dict[str, Shape] = {}

    def keep(act: Tensor) -> Tensor:
        frames, rows, cols = act.shape[1:4]
        shapes["grid"] = (frames, rows, cols)
        picked = chosen_tokens(tokens, shapes["grid"], seed)
        return act.flatten(4).flatten(1, 3)[0, picked]

    run, cache = model.run_with_cache(names=found, steps=steps, branches="cond", reduce=keep, **source.call)
    if run.latents.shape[0] != 1:
        raise ProbeError("one clip a run: give one prompt, not a list")
    kept = sorted({step for _, step, _ in cache})
    activations = {n: np.stack([cache[n, k].float().cpu().numpy() for k in kept]) for n in found}
    grid = shapes["grid"]
    clip = Clip(source.name, run, source.item, grid)
    seen(clip)
    return _clip_data(clip, activations, targets, chosen_tokens(tokens, grid, seed), kept)


def _clip_data(
    clip: Clip, activations: dict[str, np.ndarray], targets: Sequence[Target], picked: np.ndarray, kept: list[int]
) -> ClipData:
    run, grid = clip.run, clip.grid
    for name, values in activations.items():
        if not np.isfinite(values).all():
            raise ProbeError(f"clip {clip.name}: {name} holds NaN or inf; run the model in a wider dtype or leave the clip out")
    labels = {}
    for target in targets:
        found = target.read(clip)
        labels[target.name] = found.reshape(-1, *found.shape[3:])[picked]
    x_t = np.stack([_flat(as_tokens(run.x_t[k][0], grid))[picked] for k in kept])
    first = first_frame(run, grid)
    return ClipData(
        clip.name, getattr(clip.item, "task", "prompts"), activations, labels, x_t,
        None if first is None else _flat(first)[picked], np.stack(np.unravel_index(picked, grid), 1), tuple(kept),
        tuple(run.sigmas[k] for k in kept), grid,
    )  # fmt: skip


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1])


def model_facts(model: HookedVideoPipeline) -> dict[str, Any]:
    return {"name": model.name, "digest": model_digest(model)}


def model_digest(model: HookedVideoPipeline) -> str:
    """Digest of the transformers as loaded, with their adapters and settings. Some 20 s for 14 B parameters."""
    return combined({expert: component_digest(engine.module) for expert, engine in model.engines.items()})


def grid_of(model: HookedVideoPipeline, run: Run) -> Shape:
    """The token grid of a run."""
    return model.token_grid(run.latents).shape
