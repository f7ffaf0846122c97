"""The address grammar: ``NAME @ key=value, key=value`` names activations by site, step, branch, head and token.

``blocks.3.attn.hook_z @ step=4:8, branch=cond, head=2, frame=1``. NAME may hold ``*`` (any text). A value is an integer, a
range ``start:stop`` or ``start:stop:stride`` (either end may be left out), or a list ``[0,4,8]``; branch and expert take a
word. Negative numbers count from the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from torch import Tensor

from cos_interp.interp.errors import InterpError
from cos_interp.interp.scalars import has_numbers, whole

BRANCHES = ("cond", "uncond")
NUMERIC = ("step", "frame", "row", "col", "head")
WORDS = {"branch": BRANCHES, "expert": None}
_NAME = re.compile(r"[A-Za-z0-9_.*]+")
_NUMBER = re.compile(r"-?\d+")
_WORD = re.compile(r"[a-z_0-9]+")
_HOW_NAME = "write Address('blocks.3.hook_resid_post', step=4), or Address.parse('blocks.3.hook_resid_post @ step=4')"

HOW = "give a number, several, a range, a slice, a text like '0:8:2' or '0,4', or 'all'"

Index = slice | tuple[int, ...]


class AddressError(InterpError):
    """A malformed address; the message points at the character, ``position`` counts it from 0."""

    def __init__(self, text: str, position: int, problem: str):
        super().__init__(f"{problem}\n  {text}\n  {' ' * position}^")
        self.position = position


@dataclass(frozen=True)
class Address:
    """Which activations are meant: a hook name, which may hold ``*``, and selectors of which None means all.

    The grammar is that of :meth:`parse`: ``blocks.3.attn.hook_z @ step=4:8, branch=cond, head=2, frame=1``. Indices count from
    0; ``frame``, ``row`` and ``col`` are those of the token grid (of the latent, for ``hook_x_t`` and ``hook_x0hat``). They
    may be given as anything that :func:`cos_interp.interp.selecting.numbers` takes. InterpError for what names nothing.

    >>> address = Address.parse("blocks.*.hook_resid_post @ step=-2:, branch=cond")
    >>> address.matches("blocks.3.hook_resid_post"), address.selects(step=6, steps=8, branch="cond", expert=None)
    (True, True)
    """

    name: str
    step: Index | None = None
    branch: str | None = None
    expert: str | None = None
    head: Index | None = None
    frame: Index | None = None
    row: Index | None = None
    col: Index | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or "@" in self.name:
            raise InterpError(f"{self.name!r} is no hook name: {_HOW_NAME}")
        for key in NUMERIC:
            found = as_index(asked := getattr(self, key), key)
            if found == ():
                raise InterpError(f"{key}={shown(asked)} names nothing: {HOW}")
            object.__setattr__(self, key, found)
        for key, there in WORDS.items():
            word = getattr(self, key)
            if word is not None and not (isinstance(word, str) and (word in there if there else _WORD.fullmatch(word))):
                how = f"give {' or '.join(there)}" if there else "give the name of one component"
                raise InterpError(f"{key}={shown(word)}: {how}, or leave it out for all")

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address; AddressError points at the first character that does not fit, InterpError for what is no text."""
        if not isinstance(text, str):
            raise InterpError(f"{text!r} is no address: {_HOW_NAME}")
        return _Parser(text).address()

    def matches(self, name: str) -> bool:
        """Whether a hook name is addressed."""
        return fnmatchcase(name, self.name)

    def selects(self, *, step: int, steps: int, branch: str | None, expert: str | None) -> bool:
        """Whether a call at this step (of ``steps``), branch and expert is addressed."""
        return (
            (self.step is None or step in chosen(self.step, steps))
            and (self.branch is None or branch is None or self.branch == branch)
            and (self.expert is None or expert is None or self.expert == expert)
        )

    def __str__(self) -> str:
        pairs = [(k, getattr(self, k)) for k in (*NUMERIC, *WORDS) if getattr(self, k) is not None]
        shown = ", ".join(f"{k}={index_text(v)}" for k, v in pairs)
        return f"{self.name} @ {shown}" if shown else self.name


def chosen(index: Index | int | Iterable[int], length: int) -> list[int]:
    """The positions below ``length`` that an index names."""
    if isinstance(index, slice):
        return list(range(*index.indices(length)))
    numbers = (index,) if isinstance(index, int) else tuple(index)
    return [n + length if n < 0 else n for n in numbers if -length <= n < length]


def parse_index(text: str, what: str) -> Index:
    """The index in a text of the grammar: ``3``, ``0:8:2``, ``[0,4]``, or ``0,4`` without brackets. AddressError for another."""
    parser = _Parser(f"[{text}]" if "," in text and not text.lstrip().startswith("[") else text)
    found = parser.number_index()
    if parser.at < len(parser.text):
        raise parser.fail(f"the end of the {what}s was expected")
    return found


def as_index(asked: Any, what: str) -> Index | None:
    """A selection of numbers, in any form that people write, as an index; None for all of them. InterpError for what is none."""
    if asked is None or (isinstance(asked, str) and asked == "all"):
        return None
    if isinstance(asked, str):
        try:
            return parse_index(asked, what)
        except AddressError as error:
            raise InterpError(f"{what}={asked!r}: {HOW}") from error
    if isinstance(asked, slice):
        given = (asked.start, asked.stop, asked.step)
        ends = [None if n is None else whole(n) for n in given]
        if all(end is not None or n is None for end, n in zip(ends, given, strict=True)) and ends[2] != 0:
            return slice(*ends)
    elif (one := whole(asked)) is not None:
        return (one,)
    elif isinstance(asked, Iterable) and not isinstance(asked, (Mapping, bytes, Iterator)):
        found = [whole(n) for n in _elements(asked)]
        if None not in found:
            return tuple(n for n in found if n is not None)
    raise InterpError(f"{what}={shown(asked)}: {HOW}")


def _elements(asked: Iterable[Any]) -> list[Any]:
    """The elements of what holds several; of an array that is no row, or has no numbers, one that is no number."""
    if isinstance(asked, (Tensor, np.ndarray)):
        fits = asked.ndim == 1 and (isinstance(asked, np.ndarray) or has_numbers(asked))
        return asked.tolist() if fits else [None]
    return list(asked)


def shown(asked: Any) -> str:
    """What was asked, in an error: short."""
    if isinstance(asked, slice):
        parts = (asked.start, asked.stop, asked.step) if asked.step is not None else (asked.start, asked.stop)
        return ":".join("" if n is None else str(n) for n in parts)
    text = repr(asked)
    return text if len(text) < 80 else f"{text[:77]}..."


def index_text(value: Index | str) -> str:
    """A selector's value as the grammar writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, slice):
        parts = [value.start, value.stop] + ([value.step] if value.step is not None else [])
        return ":".join("" if p is None else str(p) for p in parts)
    return str(value[0]) if len(value) == 1 else f"[{','.join(map(str, value))}]"


class _Parser:
    def __init__(self, text: str):
        self.text, self.at = text, 0

    def fail(self, problem: str) -> AddressError:
        return AddressError(self.text, self.at, problem)

    def space(self) -> None:
        while self.at < len(self.text) and self.text[self.at] == " ":
            self.at += 1

    def take(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self.text, self.at)
        if not found:
            return None
        self.at = found.end()
        return found.group()

    def peek(self, char: str) -> bool:
        if self.text.startswith(char, self.at):
            self.at += len(char)
            return True
        return False

    def address(self) -> Address:
        self.space()
        name = self.take(_NAME)
        if name is None:
            raise self.fail("a hook name was expected, like blocks.3.hook_resid_post")
        self.space()
        fields: dict[str, Any] = {}  # as in Address: an Index, or a word
        if self.at < len(self.text):
            if not self.peek("@"):
                raise self.fail("' @ ' was expected between the hook name and its selectors")
            self.selector(fields)
            while self.peek(","):
                self.selector(fields)
            if self.at < len(self.text):
                raise self.fail("',' or the end was expected")
        return Address(name, **fields)

    def selector(self, fields: dict[str, Any]) -> None:
        self.space()
        start, key = self.at, self.take(re.compile(r"[a-z]+"))
        if key not in NUMERIC and key not in WORDS:
            self.at = start
            raise self.fail(f"a selector was expected: one of {', '.join((*NUMERIC, *WORDS))}")
        if key in fields:
            self.at = start
            raise self.fail(f"{key} is given twice")
        self.space()
        if not self.peek("="):
            raise self.fail(f"'=' was expected after {key}")
        self.space()
        fields[key] = self.number_index() if key in NUMERIC else self.word(key)
        self.space()

    def word(self, key: str) -> str:
        start, value = self.at, self.take(_WORD)
        allowed = WORDS[key]
        if value is None or (allowed and value not in allowed):
            self.at = start
            raise self.fail(f"{key} takes {' or '.join(allowed) if allowed else 'a component name'}")
        return value

    def number(self) -> int | None:
        self.space()
        found = self.take(_NUMBER)
        self.space()
        return None if found is None else int(found)

    def number_index(self) -> Index:
        if self.peek("["):
            return self.number_list()
        first = self.number()
        if not self.peek(":"):
            if first is None:
                raise self.fail("a number, a range a:b or a list [a,b] was expected")
            return (first,)
        stop, stride = self.number(), None
        if self.peek(":"):
            stride = self.number()
            if stride == 0:
                self.at -= 1
                raise self.fail("a stride of 0 selects nothing")
        return slice(first, stop, stride)

    def number_list(self) -> tuple[int, ...]:
        numbers = []
        while True:
            number = self.number()
            if number is None:
                raise self.fail("a number was expected in the list")
            numbers.append(number)
            if self.peek("]"):
                return tuple(numbers)
            if not self.peek(","):
                raise self.fail("',' or ']' was expected in the list")


def layer_of(name: str) -> int | None:
    """The block of a hook name.

    >>> layer_of("blocks.12.hook_resid_post"), layer_of("hook_embed")
    (12, None)
    """
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blocks" else None
