"""What a page is made of: sections with a figure, reels, clips and a table. Plain data, by which an experiment says what
it shows."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from PIL import Image

from cos_interp.reports.drawing import Drawing
from cos_interp.reports.sheets import Sheet, sheet
from cos_interp.tasks.video import encode_mp4, played_at

MOST_SHADES = 1_000_000  # of maps that are laid over a video, a byte each


@dataclass(frozen=True)
class Clip:
    """A video ``[pixel frame, height, width, 3]`` or a picture ``[height, width, 3]``, uint8, with a caption."""

    name: str
    text: str
    pixels: np.ndarray
    _made: dict[float | None, bytes] = field(default_factory=dict, compare=False, repr=False)

    @property
    def still(self) -> bool:
        return self.pixels.ndim == 3

    def file(self, rate: float | None = None) -> bytes:
        """PNG, or mp4 of a model that makes so many frames a second; made once, for the page and for its folder."""
        if rate not in self._made:
            self._made[rate] = self._png() if self.still else encode_mp4(self.pixels, played_at(len(self.pixels), rate))
        return self._made[rate]

    def _png(self) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(self.pixels).save(buffer, "png")
        return buffer.getvalue()


@dataclass(frozen=True)
class Shown:
    """One clip of a reel. ``at``: its place by axis, with which it is linked to the figures; ``told``: what is said of it."""

    name: str
    told: Mapping[str, str | float] = field(default_factory=dict)
    at: Mapping[str, str | int] = field(default_factory=dict)
    bars: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Overlay:
    """Maps of tokens that are laid over the frames of a reel, one at a time. ``maps [choice of each axis..., frame, row, col]``,
    none negative; ``axes``: the choices by name, in that order; ``frames``: the token frame of each pixel frame; ``tokens``:
    frame, row and column of the token that each of the first choices of the first axis is about, by which a cell is picked."""

    maps: np.ndarray
    axes: Mapping[str, Sequence[str]]
    frames: Sequence[int]
    tokens: Sequence[tuple[int, int, int]] = ()

    @property
    def shades(self) -> bytes:
        """Each map in 256 shades of its own largest value."""
        top = self.maps.max((-3, -2, -1), keepdims=True)
        return np.round(255 * self.maps / np.where(top > 0, top, 1)).astype(np.uint8).tobytes()

    @property
    def tops(self) -> list[float]:
        """The largest value of each map."""
        return [float(f"{value:.3g}") for value in self.maps.max((-3, -2, -1)).ravel()]


@dataclass(frozen=True)
class Reel:
    """Clips ``[row, pixel frame, height, width, 3]``, uint8, that are looked at together: beside each other, or one after the
    other ``along`` an axis with the last one beside. ``mark``: a row that matters. Differences are shown to the first row (of
    those along an axis, to the last). ``looked_up``: no player of its own, its clips are shown where a figure names them."""

    name: str
    text: str
    clips: np.ndarray
    rows: Sequence[Shown]
    along: str = ""
    mark: int | None = None
    over: Overlay | None = None
    looked_up: bool = False

    @cached_property
    def sheet(self) -> Sheet:
        return sheet(self.clips)

    @property
    def data(self) -> bytes:
        return self.sheet.data


@dataclass(frozen=True)
class Link:
    """A cell of a table that leads to a reel of the page, by its name."""

    text: str
    reel: str


@dataclass(frozen=True)
class Section:
    """A heading with a figure, its caption, reels, clips and a table.

    ``key``: its figure is the one of the first screen, else the first figure is. ``of``: how many items the cells of its heat
    maps are of, where these do not say it themselves.
    """

    title: str
    figure: Drawing | None = None
    caption: str = ""
    table: pd.DataFrame | None = None
    clips: list[Clip] = field(default_factory=list)
    reels: Sequence[Reel] = ()
    key: bool = False
    of: Sequence[int] = ()
