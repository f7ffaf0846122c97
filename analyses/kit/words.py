"""Which text tokens a prompt's words are, and which cells of the first frame they name."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cos_interp.interp.errors import InterpError
from cos_interp.tasks import grid
from cos_interp.tasks.base import find

UNKNOWN = "the model has no attention to a text, or its pipeline encodes another text than the prompt, whose words are not known"
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


Tokenized = list[tuple[str, list[int]]]  # texts and their numbers, in the order in which they were asked for


@contextlib.contextmanager
def tokenizing(tokenizer: Any) -> Iterator[Tokenized]:
    """What a tokenizer is asked for meanwhile: pipelines clean a prompt, or write it into a text of their own."""
    seen: Tokenized = []
    if tokenizer is None:
        yield seen
        return
    kind, original = type(tokenizer), type(tokenizer).__call__

    def call(self: Any, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        out = original(self, text, *args, **kwargs)
        texts = [text] if isinstance(text, str) else list(text or ())
        if self is tokenizer and all(isinstance(one, str) for one in texts):
            rows = [out["input_ids"]] if isinstance(text, str) and not hasattr(out["input_ids"], "shape") else out["input_ids"]
            seen.extend((one, [int(n) for n in row]) for one, row in zip(texts, rows, strict=False))
        return out

    kind.__call__ = call
    try:
        yield seen
    finally:
        kind.__call__ = original


def prompt_words(tokenizer: Any, seen: Tokenized, prompt: str, length: int, picture_first: bool = False) -> list[Word]:
    """The words of a prompt among the ``length`` text tokens that the transformer gets.

    None where it is not known which token is which: the pipeline encodes another text than the prompt (a template around it), or
    hands on other tokens than the tokenizer's (some of them cut off, but for padding at the end). ``picture_first``: further
    tokens, of a picture, are those before.
    """
    same = lambda text: text.lower().split() == prompt.lower().split()
    mine = [row for text, row in seen if same(text)]
    numbers = next((row for row in mine if length in (len(row), _spoken(row, tokenizer.pad_token_id))), None)
    before = 0
    if numbers is None and picture_first and mine and (longest := max(mine, key=len)) and len(longest) < length:
        numbers, before = longest, length - len(longest)
    if numbers is None:
        return []
    words = group_tokens(tokenizer.convert_ids_to_tokens(numbers), tokenizer.all_special_tokens)
    return [Word(word.text, tuple(number + before for number in word.tokens)) for word in words]


def _spoken(numbers: Sequence[int], padding: int | None) -> int:
    """How many there are before the padding at the end, which some pipelines do not hand on.

    >>> _spoken([5, 0, 7, 0, 0], 0)
    3
    """
    return max((place + 1 for place, number in enumerate(numbers) if number != padding), default=0)


def chosen_words(words: list[Word], asked: Sequence[str] | None) -> list[Word]:
    """The words asked for (all by default); those of a prompt that lack in it are left out, unless all lack."""
    if asked is None:
        return words
    wanted = {w.lower() for w in asked}
    found = [w for w in words if w.text.lower().strip(".,;:!?") in wanted]
    if not found:
        known = f"the prompt has the words {', '.join(w.text for w in words)}" if words else UNKNOWN
        raise InterpError(f"--words {','.join(asked)}: {known}")
    return found


def word_cells(word: str, first: np.ndarray) -> list[tuple[int, int]]:
    """Cells of a first frame ``[row, col]`` whose sprite's name holds the word: 'red' names a red goal and a red circle."""
    classes = [number for number, name in enumerate(grid.CLASSES) if word.lower() in name.split()]
    return find(first, classes) if classes else []
