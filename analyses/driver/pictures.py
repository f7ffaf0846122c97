"""The pictures of a page, which take most of its time, made by several processes: figures, and sheets of frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cos_interp.analyses.driver.parts import Section
from cos_interp.analyses.driver.workers import scatter


def make(sections: Sequence[Section], workers: int) -> None:
    """Draw all that some sections show, one picture at a time in each of so many processes; with one, here.

    Pictures are cached properties of what they are of: what another process drew is kept as if it had been drawn here, with the
    same bytes.
    """
    wanted = [(part, name) for part, name in _pictures(sections) if name not in vars(part)]

    def draw(number: int) -> Iterator[tuple[int, Any]]:
        part, name = wanted[number]
        yield number, getattr(part, name)

    for number, picture in scatter(draw, range(len(wanted)), workers):
        part, name = wanted[number]
        vars(part)[name] = picture


def _pictures(sections: Sequence[Section]) -> Iterator[tuple[Any, str]]:
    """What is drawn, with the name of the property that draws it."""
    yield from ((section.figure, "picture") for section in sections if section.figure is not None)
    yield from ((reel, "sheet") for section in sections for reel in section.reels)
