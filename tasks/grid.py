"""The visual alphabet of the tasks: a small grid whose every cell shows one sprite.

A video is an integer array ``[frame, row, col]`` of cell classes; rendering looks each class up in a table of sprites,
so a cell class and a picture of it are two writings of the same thing, and a latent token of the organism (one per cell,
two pixel frames each) reads as a cell.
"""

from __future__ import annotations

from functools import cache

import numpy as np

ROWS = COLS = 5
DOTS = 8  # a sprite is drawn on so many dots a side
SCALE = 2  # pixels a dot
CELL = DOTS * SCALE  # pixels a side
FRAMES = 9  # pixel frames
LATENT_FRAMES = 5  # the organism's VAE halves time: pixel frame 0, then pairs (1, 2) (3, 4) (5, 6) (7, 8)
FPS = 4

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 50, 45),
    "green": (45, 165, 75),
    "blue": (50, 85, 215),
    "yellow": (228, 178, 20),
}
SHAPES = ("square", "circle")
OBJECT_COLOURS = ("red", "green", "blue")
HEADINGS = {"down-right": (1, 1), "down-left": (1, -1), "up-right": (-1, 1), "up-left": (-1, -1)}

FLOOR_RGB = (218, 218, 214)


def _blank(rgb: tuple[int, int, int] = FLOOR_RGB) -> np.ndarray:
    return np.tile(np.array(rgb, np.uint8), (DOTS, DOTS, 1))


def _masked(mask: np.ndarray, rgb: tuple[int, int, int]) -> np.ndarray:
    cell = _blank()
    cell[mask] = rgb
    return cell


def _disc(radius: float) -> np.ndarray:
    axis = np.arange(DOTS) - (DOTS - 1) / 2
    return axis[:, None] ** 2 + axis[None, :] ** 2 <= radius**2


def _shape_mask(shape: str) -> np.ndarray:
    if shape == "circle":
        return _disc(4.0) & ~_disc(1.6)  # a ring, so that it differs from the square in more than its corners
    mask = np.zeros((DOTS, DOTS), bool)
    mask[1:7, 1:7] = True
    return mask


def _border(width: int) -> np.ndarray:
    mask = np.ones((DOTS, DOTS), bool)
    mask[width:-width, width:-width] = False
    return mask


def _ball(heading: tuple[int, int]) -> np.ndarray:
    cell = _masked(_disc(4.0), (240, 130, 30))
    rows = slice(4, 8) if heading[0] > 0 else slice(0, 4)
    cols = slice(4, 8) if heading[1] > 0 else slice(0, 4)
    cell[rows, cols] = (30, 30, 40)
    return cell


def _board() -> np.ndarray:
    cell = _blank((150, 105, 65))
    cell[::4] = (100, 65, 40)
    return cell


def _sprites() -> dict[str, np.ndarray]:
    table = {
        "floor": _blank(),
        "wall": _blank((45, 45, 55)),
        "agent": _masked(_disc(3.6), (130, 40, 180)),
        "trail": _masked(~_border(1), (165, 105, 205)),
        "board": _board(),
        "box": _masked(_border(2), (95, 60, 35)),
    }
    table |= {f"{colour} goal": _masked(_border(2), rgb) for colour, rgb in COLOURS.items()}
    table |= {f"ball {name}": _ball(heading) for name, heading in HEADINGS.items()}
    table |= {f"{c} {s}": _masked(_shape_mask(s), COLOURS[c]) for c in OBJECT_COLOURS for s in SHAPES}
    return table


_TABLE = _sprites()
CLASSES: tuple[str, ...] = tuple(_TABLE)
CLASS_ID: dict[str, int] = {name: i for i, name in enumerate(CLASSES)}
FLOOR, WALL, AGENT, TRAIL, BOARD, BOX = (CLASS_ID[n] for n in ("floor", "wall", "agent", "trail", "board", "box"))
OBJECTS: tuple[str, ...] = tuple(f"{c} {s}" for c in OBJECT_COLOURS for s in SHAPES)
UNREADABLE = -1


@cache
def sprite_table() -> np.ndarray:
    """All sprites, uint8 ``[class, DOTS, DOTS, 3]``, in the order of ``CLASSES``."""
    table = np.stack(list(_TABLE.values()))
    table.setflags(write=False)
    return table


def draw_dots(cells: np.ndarray) -> np.ndarray:
    """Draw cell classes ``[..., row, col]`` with one pixel a dot, uint8 ``[..., row * DOTS, col * DOTS, 3]``."""
    tiles = sprite_table()[cells]
    *lead, rows, cols, _, _, _ = tiles.shape
    tiles = np.moveaxis(tiles, -4, -3)  # [..., row, DOTS, col, DOTS, 3]
    return np.ascontiguousarray(tiles).reshape(*lead, rows * DOTS, cols * DOTS, 3)


def render(cells: np.ndarray) -> np.ndarray:
    """Draw cell classes ``[..., row, col]`` as uint8 pictures ``[..., row * CELL, col * CELL, 3]``."""
    return draw_dots(cells).repeat(SCALE, -3).repeat(SCALE, -2)


@cache
def neighbours(row: int, col: int) -> tuple[tuple[int, int], ...]:
    """The up to four cells that share a side with a cell."""
    around = ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1))
    return tuple((r, c) for r, c in around if 0 <= r < ROWS and 0 <= c < COLS)
