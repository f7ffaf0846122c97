"""Attention maps and statistics of heads (as Wen et al., 2504.10317, look at them; CoS section 5.1 for the prompt's words).

Queries and keys are read call by call and turned into numbers at once, so that a pattern is never kept. Statistics are of
every head; maps are of one query, of the prompt's words and, of the first item, of all cells of the query's frame where a
page can hold them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.attention import AttentionConfig, AttentionFacts
from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.facts import PIXELS
from cos_interp.analyses.driver.parts import MOST_SHADES
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit import attention_maths as maths
from cos_interp.analyses.kit.attention_maths import Grid
from cos_interp.analyses.kit.attention_reader import checked_layers, query_key_hooks, some_queries
from cos_interp.analyses.kit.problems import Problem, arguments, chosen_steps, each_problem, fits, problems
from cos_interp.analyses.kit.tracks import tokens_of, tracks
from cos_interp.analyses.kit.words import Word, chosen_words, encoded_text, prompt_words, tokenizing, word_cells
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.clock import Hook

WORDS = 16  # of a prompt that are mapped, about


class Reader:
    """Rows and maps of one run."""

    def __init__(self, config: AttentionConfig, problem: Problem, calls: int, words: Callable[[int], list[Word]]):
        """``calls``: of a self-attention that are read, over steps and layers, where further queries are shown; else 0."""
        self.config, self.problem, self.calls, self._prompt = config, problem, calls, words
        self.words: list[Word] | None = None  # known from the first text attention on
        self.rows: list[Row] = []
        self.self_maps: dict[tuple[int, int], Tensor] = {}  # (step, layer) -> [head, frame, row, col]
        self.word_maps: dict[tuple[int, int], Tensor] = {}  # (step, layer) -> [word, frame, row, col]
        # of the item that is shown, (step, layer) -> [head, query or word, frame, row, col]
        self.looks: dict[tuple[int, int], Tensor] = {}
        self.query: tuple[int, int, int] | None = None
        self.queries: list[tuple[int, int, int]] = []  # whose maps are laid over the video

    def shown_heads(self, per_head: Tensor) -> Tensor:
        """The heads asked for, one by one; else their mean as the only one."""
        heads = self.config.heads
        if heads is None:
            return per_head.mean(0, keepdim=True)
        bad = [h for h in heads if not 0 <= h < len(per_head)]
        if bad:
            raise InterpError(f"head {bad[0]} was asked for; the model has heads 0 to {len(per_head) - 1}")
        return per_head[list(heads)]

    def within(self, hook: Hook, q: Tensor, k: Tensor) -> None:
        """Self-attention: q ``[head, frame, row, col, d]``, k ``[head, token, d]``."""
        frames, rows, cols = q.shape[1:4]
        grid: Grid = (frames, rows, cols)
        if self.query is None:
            self.query = chosen_query(self.config, self.problem, grid)
            self.queries = shown_queries(self.query, grid, self.calls * len(q)) if self.calls else [self.query]
        flat, asked = q.flatten(1, 3), some_queries(grid).to(q.device)
        found = self_statistics(maths.softmax_scores(flat[:, asked], k), asked, grid)
        self._add(hook, "self", found)
        place = lambda at: (at[0] * grid[1] + at[1]) * grid[2] + at[2]
        one = maths.softmax_scores(flat[:, [place(self.query)]], k)[:, 0]
        self.self_maps[hook.step, hook.block] = self.shown_heads(one).unflatten(-1, grid).cpu()
        if self.problem.first:
            self._look(hook, maths.softmax_scores(flat[:, [place(at) for at in self.queries]], k), grid)

    def across(self, hook: Hook, q: Tensor, k: Tensor) -> None:
        """Text attention: q ``[head, frame, row, col, d]``, k ``[head, text token, d]``."""
        frames, rows, cols = q.shape[1:4]
        grid: Grid = (frames, rows, cols)
        if self.words is None:
            self.words = self._prompt(k.shape[1])
        pattern = maths.softmax_scores(q.flatten(1, 3), k)
        self._add(hook, "text", text_statistics(pattern, self.words))
        if self.words:
            each = torch.stack([pattern[..., list(w.tokens)].sum(-1) for w in self.words], 1)  # [head, word, token]
            self.word_maps[hook.step, hook.block] = self.shown_heads(each).mean(0).unflatten(-1, grid).cpu()
            self._words(hook, self.words, each.cpu(), grid)
            if self.problem.first:
                self._look(hook, each, grid)

    def _look(self, hook: Hook, each: Tensor, grid: Grid) -> None:
        """Keep maps ``[head, query or word, token]`` of the item that is shown, those of the queries first."""
        place, own = (hook.step, hook.block), each.unflatten(-1, grid).cpu()
        self.looks[place] = torch.cat([self.looks[place], own], 1) if place in self.looks else own

    def _add(self, hook: Hook, kind: str, found: dict[str, Tensor]) -> None:
        where = {"kind": kind, "layer": hook.layer, "step": hook.step, "sigma": hook.sigma}
        for head in range(len(next(iter(found.values())))):
            self.rows.append({**where, "head": head, **{name: float(value[head]) for name, value in found.items()}})

    def _words(self, hook: Hook, words: list[Word], each: Tensor, grid: Grid) -> None:
        """Rows of words at the objects of the first frame, ``each [head, word, token]``: of the heads' mean one a word and
        place, for the figures, and one a head over all of them, for the verdict."""
        if self.problem.item is None:
            return
        first = self.problem.item.cells[0]
        places = {w.text: tokens_of(word_cells(w.text, first), 0, grid) for w in words}
        named = {text: place for text, place in places.items() if place.any()}
        if not named:
            return
        where = {"layer": hook.layer, "step": hook.step, "sigma": hook.sigma}
        about = [
            {"word": word.text, "place": text, "own": word.text == text, "other": word.text not in named}
            for word in words for text in named
        ]  # fmt: skip
        ratios = word_ratios(each, list(named.values()), maths.frame_of(grid) == 0)
        mean = word_ratios(each.mean(0, keepdim=True), list(named.values()), maths.frame_of(grid) == 0)[0]
        self.rows += [{"kind": "word", **where, **one, "log2_ratio": float(v)} for one, v in zip(about, mean, strict=True)]
        own, other = (torch.tensor([one[name] for one in about]) for name in ("own", "other"))
        for head, found in enumerate(ratios):
            pair = {"own_ratio": float(found[own].mean()), "other_ratio": float(found[other].mean())}  # NaN of none
            self.rows.append({"kind": "named", **where, "head": head, **pair})


def word_ratios(each: Tensor, places: list[Tensor], first_frame: Tensor) -> Tensor:
    """log2 of a word's mean attention at a place over its mean in the first frame, ``[head, word x place]``, words outermost.

    ``each [head, word, token]``; places and first frame are bool ``[token]``.
    """
    at = torch.stack([each[..., place].mean(-1) for place in places], -1)
    return (at / each[..., first_frame].mean(-1)[..., None]).log2().flatten(1)


def self_statistics(pattern: Tensor, asked: Tensor, grid: Grid) -> dict[str, Tensor]:
    """Per head ``[head]``, means over queries, of a pattern ``[head, query, key]``; ``asked``: token numbers of the queries.

    ``shuffled_distance`` is the control of ``distance``: the same rows given to other queries.
    """
    other = asked[torch.from_numpy(np.random.default_rng(0).permutation(len(asked))).to(asked.device)]
    first = maths.frame_of(grid).to(pattern.device) == 0
    return {
        "entropy": maths.entropy_bits(pattern).mean(-1),
        "distance": maths.locality(pattern, asked, grid).mean(-1),
        "shuffled_distance": maths.locality(pattern, other, grid).mean(-1),
        "frame_distance": maths.frame_distance(pattern, asked, grid).mean(-1),
        "own_frame": maths.own_frame_share(pattern, asked, grid).mean(-1),
        "first_frame": maths.mass(pattern, first).mean(-1),
        "sink": maths.sink_share(pattern),
    }


def text_statistics(pattern: Tensor, words: list[Word]) -> dict[str, Tensor]:
    """Per head ``[head]``, means over queries, of text attention ``[head, query, text token]``."""
    spoken = torch.zeros(pattern.shape[-1], dtype=torch.bool, device=pattern.device)
    spoken[[t for w in words for t in w.tokens]] = True
    return {
        "entropy": maths.entropy_bits(pattern).mean(-1),
        "words": maths.mass(pattern, spoken).mean(-1) if words else torch.full((len(pattern),), float("nan")),
        "sink": maths.sink_share(pattern),
    }


def chosen_query(config: AttentionConfig, problem: Problem, grid: Grid) -> tuple[int, int, int]:
    """The query of the maps: asked for, else where the moving thing ends, else the centre of the last frame."""
    if config.query is not None:
        if any(not 0 <= at < size for at, size in zip(config.query, grid, strict=True)):
            shown = ",".join(map(str, config.query))
            raise InterpError(
                f"--query {shown} was asked for; the latent grid has {grid[0]} frames, {grid[1]} rows, {grid[2]} columns"
            )
        frame, row, col = config.query
        return frame, row, col
    if problem.item is None:
        return grid[0] - 1, grid[1] // 2, grid[2] // 2
    last = tokens_of(tracks(problem.item)[0].cells[-1:], grid[0] - 1, grid).view(grid)
    frame, row, col = last.nonzero()[0].tolist()
    return frame, row, col


def shown_queries(query: tuple[int, int, int], grid: Grid, maps: int) -> list[tuple[int, int, int]]:
    """The query and, where a page can hold the maps of all of them and of words, the other cells of its frame. ``maps``: of one
    query, over steps, layers and heads."""
    frame, rows, cols = query[0], grid[1], grid[2]
    if maps * math.prod(grid) * (rows * cols + WORDS) > MOST_SHADES:
        return [query]
    return [query, *(at for at in ((frame, row, col) for row in range(rows) for col in range(cols)) if at != query)]


def measure(model: HookedVideoPipeline, config: AttentionConfig, problem: Problem) -> Unit:
    layers, steps = checked_layers(model, config.layers), chosen_steps(config, 5)
    call = arguments(model, config, problem)
    tokenizer, text = getattr(model.pipe, "tokenizer", None), encoded_text(model.pipe, call["prompt"])
    with tokenizing(tokenizer) as seen:
        named = lambda length: prompt_words(tokenizer, seen, text, length, model.adapter.picture_first)
        further = problem.first and problem.name == problems(config)[0].name  # a page holds them of one item
        reader = Reader(
            config, problem, further * len(steps) * len(layers), lambda length: chosen_words(named(length), config.words)
        )
        hooks = query_key_hooks(model, "attn", layers, steps, reader.within)
        hooks += query_key_hooks(model, "text", layers, steps, reader.across)
        run = model.run_with_hooks(fwd_hooks=hooks, **call)
    words = chosen_words([], config.words) if reader.words is None else reader.words  # nothing reads a text
    tensors = {"self": stacked(reader.self_maps, steps, layers)}
    axes: dict[str, tuple[str, ...]] = {"self": ("step", "layer", "head", "frame", "row", "col")}
    if words:
        tensors["words"] = stacked(reader.word_maps, steps, layers)
        axes["words"] = ("step", "layer", "word", "frame", "row", "col")
    if problem.first:
        tensors |= {"looks": stacked(reader.looks, steps, layers), "frames": torch.from_numpy(run.decode()[0])}
        axes |= {"looks": ("step", "layer", "head", "look", "frame", "row", "col"), "frames": PIXELS}
    assert reader.query is not None  # every run has self-attention
    facts = AttentionFacts(
        axes=axes, sigmas=tuple(run.sigmas), prompt=call["prompt"], steps=steps, layers=tuple(layers), query=reader.query,
        queries=tuple(reader.queries), words=tuple(w.text for w in words),
    )  # fmt: skip
    return Unit([{**problem.facts, **row} for row in reader.rows], tensors, facts)


def stacked(maps: dict[tuple[int, int], Tensor], steps: tuple[int, ...], layers: list[int]) -> Tensor:
    """``[step, layer, ...]``; NaN where a layer lacks what others have, as attention to the text."""
    largest = max(maps.values(), key=lambda one: one.numel())
    return torch.stack([torch.stack([_padded(maps.get((step, layer)), largest) for layer in layers]) for step in steps])


def _padded(one: Tensor | None, like: Tensor) -> Tensor:
    """A map in the shape of the largest one, which may have more looks ``[head, look, ...]``."""
    out = torch.full(like.shape, float("nan"))
    if one is not None:
        out[tuple(slice(0, n) for n in one.shape)] = one.float()
    return out


pieces = each_problem
work = each_unit(measure)
check = fits
