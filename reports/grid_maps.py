"""Maps over the latent grid: a row of frames for each named map, one colour scale a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cos_interp.reports.drawing import Drawing, Numbers
from cos_interp.reports.style import drawn_on


def grid_maps(
    rows: Sequence[tuple[str, np.ndarray]],
    label: str,
    mark: tuple[int, int, int] | None = None,
    picture: np.ndarray | None = None,
) -> Drawing:
    """Each map ``[frame, row, col]`` as a line of pictures, scaled from 0 to its own largest value, which its name shows.

    ``mark``: frame, row and column of a crossed cell. ``picture``: uint8 first frame, shown once at the left.
    """
    frames = rows[0][1].shape[0]
    extra = picture is not None
    height, width = 0.95 * len(rows) + 0.5, 0.95 * (frames + extra) + 1.6

    def draw() -> Figure:
        figure = drawn_on((width, height))
        axes = figure.subplots(len(rows), frames + extra, squeeze=False)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
        for line, (name, values) in enumerate(rows):
            top = float(values.max()) or 1.0
            if extra:
                axes[line, 0].axis("off")
            for frame in range(frames):
                axis = axes[line, frame + extra]
                axis.imshow(values[frame], vmin=0, vmax=top, cmap="viridis")
                if line == 0:
                    axis.set_title(f"frame {frame}", fontsize=7)
                if mark and mark[0] == frame:
                    axis.plot(mark[2], mark[1], "x", color="red", ms=5, mew=1.2)
            place = axes[line, int(extra)]
            place.set_ylabel(f"{name}\nmax {top:.3f}", fontsize=6, rotation=0, ha="right", va="center")
        if extra:
            axes[0, 0].axis("on")
            axes[0, 0].imshow(picture)
            axes[0, 0].set_title("first frame", fontsize=7)
        figure.supxlabel(label, fontsize=7)
        return figure

    return Drawing(draw, Numbers(cells(rows)))


def cells(rows: Sequence[tuple[str, np.ndarray]]) -> pd.DataFrame:
    """A row a cell of named maps ``[frame, row, col]``."""
    tables = [
        pd.DataFrame(dict(zip(("frame", "row", "col"), np.indices(values.shape).reshape(3, -1), strict=True)))
        .assign(value=values.ravel()).assign(map=name)
        for name, values in rows
    ]  # fmt: skip
    return pd.concat(tables)[["map", "frame", "row", "col", "value"]]
