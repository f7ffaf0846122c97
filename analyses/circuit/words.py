"""Which words of the prompt the circuit's attention reads, at its tokens, a head at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from cos_interp.analyses.circuit import Circuit, CircuitConfig, Component
from cos_interp.analyses.circuit.bench import Bench
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.attention_maths import softmax_scores
from cos_interp.analyses.kit.attention_reader import MOST_QUERIES, query_key_hooks, text_attention
from cos_interp.analyses.kit.problems import arguments
from cos_interp.analyses.kit.words import Word, encoded_text, prompt_words, tokenizing
from cos_interp.interp.run.clock import Hook

OTHERS = "(no word)"  # the end of the text, padding


def read_words(bench: Bench, config: CircuitConfig, circuit: Circuit) -> list[Row]:
    """The share of each word of the giving run's prompt in a component's attention to the text, and of the tokens that are no
    word: mean over its tokens and steps, a head at a time. Rows of the components that read a text; none where it is not known
    which token is which word."""
    reading = [one for one in circuit.components if _reads_text(bench, one)]
    if not reading:
        return []
    model, call = bench.model, arguments(bench.model, config, bench.donor.problem)
    layers = sorted({one.layer for one in reading})
    tokens = {one: _some(bench.masks[one.group]) for one in reading if one.group in bench.masks}
    seen: dict[Component, list[Tensor]] = {one: [] for one in reading}  # of each step [head, text token]

    def read(hook: Hook, q: Tensor, k: Tensor) -> None:
        for one in reading:
            at = tokens.get(one, ())
            if len(at) and one.layer == hook.layer and hook.step in one.steps:
                seen[one].append(softmax_scores(q.flatten(1, 3)[:, at], k).mean(1).cpu())

    tokenizer = getattr(model.pipe, "tokenizer", None)
    with tokenizing(tokenizer) as asked:
        model.run_with_hooks(fwd_hooks=query_key_hooks(model, "text", layers, bench.steps, read), **call)
    spread = {one: torch.stack(steps).mean(0) for one, steps in seen.items() if steps}
    text = encoded_text(model.pipe, call["prompt"])
    words = lambda length: prompt_words(tokenizer, asked, text, length, model.adapter.picture_first)
    return [row for one, heads in spread.items() for row in _rows(one, heads, words(heads.shape[1]))]


def _reads_text(bench: Bench, one: Component) -> bool:
    """Whether a component is an attention in which video meets text: to the prompt, or joint."""
    names = text_attention(bench.model, one.layer)
    return names is not None and names[0] == f"blocks.{one.layer}.{'cross_attn' if one.part == 'cross' else one.part}.hook_q"


def _some(mask: Tensor) -> list[int]:
    """Numbers of the tokens of a mask: of a large group evenly spread ones."""
    at = mask.flatten().nonzero()[:, 0].tolist()
    return at[:: max(1, -(-len(at) // MOST_QUERIES))]


def _rows(one: Component, heads: Tensor, words: list[Word]) -> list[Row]:
    """``heads [head, text token]``."""
    if not words:
        return []
    spoken = [(word.text, list(word.tokens)) for word in words]
    other = sorted(set(range(heads.shape[1])) - {token for _, tokens in spoken for token in tokens})
    where = {"table": "word", "part": one.part, "layer": one.layer, "group": one.group}
    return [
        {**where, "head": head, "number": number, "word": text, "weight": float(heads[head, tokens].sum())}
        for head in range(len(heads)) for number, (text, tokens) in enumerate([*spoken, (OTHERS, other)])
    ]  # fmt: skip
