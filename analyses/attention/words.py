"""Which text tokens a prompt's words are, and which cells of the first frame they name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cos_interp.interp.errors import InterpError
from cos_interp.tasks import grid
from cos_interp.tasks.base import find

WORD_START = ("▁", "Ġ")  # how subword tokenizers mark the start of a word


@dataclass(frozen=True)
class Word:
    """A word of the prompt and the numbers of its text tokens."""

    text: str
    tokens: tuple[int, ...]


def group_tokens(tokens: Sequence[str], special: Sequence[str] = ()) -> list[Word]:
    """Text tokens grouped into words; special tokens are no words. Without any word marks each token is a word.

    >>> [w.text for w in group_tokens(["▁mov", "ing", "▁cat", "</s>"], ["</s>"])]
    ['moving', 'cat']
    """
    marked = any(t.startswith(WORD_START) for t in tokens)
    found: list[tuple[str, list[int]]] = []
    for number, token in enumerate(tokens):
        if token in special:
            continue
        text = token.lstrip("".join(WORD_START))
        if not found or not marked or token.startswith(WORD_START):
            found.append((text, [number]))
        else:
            found[-1] = (found[-1][0] + text, [*found[-1][1], number])
    return [Word(text, tuple(numbers)) for text, numbers in found if text]


def encoded_text(pipe: Any, prompt: str) -> str:
    """The text that a pipeline encodes for a prompt: several of diffusers' clean it first (HTML entities, quotes, spaces)."""
    clean = getattr(sys.modules[type(pipe).__module__], "prompt_clean", None)
    return prompt if clean is None else clean(prompt)


def prompt_words(tokenizer: Any, prompt: str, length: int) -> list[Word]:
    """The words of a prompt by the pipeline's own tokenizer, as far as it keeps them."""
    numbers = tokenizer(prompt, truncation=True, max_length=length).input_ids
    return group_tokens(tokenizer.convert_ids_to_tokens(numbers), tokenizer.all_special_tokens)


def chosen_words(words: list[Word], asked: Sequence[str] | None) -> list[Word]:
    """The words asked for (all by default); those of a prompt that lack in it are left out, unless all lack."""
    if asked is None:
        return words
    wanted = {w.lower() for w in asked}
    found = [w for w in words if w.text.lower().strip(".,;:!?") in wanted]
    if not found:
        raise InterpError(f"--words {','.join(asked)}: the prompt has the words {', '.join(w.text for w in words)}")
    return found


def word_cells(word: str, first: np.ndarray) -> list[tuple[int, int]]:
    """Cells of a first frame ``[row, col]`` whose sprite's name holds the word: 'red' names a red goal and a red circle."""
    classes = [number for number, name in enumerate(grid.CLASSES) if word.lower() in name.split()]
    return find(first, classes) if classes else []
