"""What readers of visible objects name at hidden ones, from the stored features of all items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.memory import MemoryFacts
from cos_interp.analyses.memory.decoding import KINDS, read_out
from cos_interp.probes import shuffled

COLUMNS = ["task", "source", "step", "layer", "problem", *KINDS]


@dataclass(frozen=True)
class Samples:
    """The points of all items that are read: ``residual [step, layer, point, d_model]``, ``x_t [step, point, feature]``, and by
    point the class, the number of its kind and the item."""

    residual: np.ndarray
    x_t: np.ndarray
    labels: np.ndarray
    kinds: np.ndarray
    items: np.ndarray
    steps: tuple[int, ...]

    def asked(self) -> Iterator[tuple[str, int, int, np.ndarray, np.ndarray]]:
        """Source, step, layer (-1: none), features and what the reader is taught: on residuals shuffled labels, too."""
        placebo = shuffled(self.labels, self.items)
        for i, step in enumerate(self.steps):
            yield "x_t", step, -1, self.x_t[i], self.labels
            for layer in range(self.residual.shape[1]):
                yield "residual", step, layer, self.residual[i, layer], self.labels
                yield "shuffled", step, layer, self.residual[i, layer], placebo


def has_points(result: AnalysisResult) -> bool:
    """Whether in any of the problems there are objects to read."""
    return any("label" in facts.axes for facts in result.units_of(MemoryFacts).values())


def samples(result: AnalysisResult, store: RunStore) -> Samples | None:
    """Those of the items whose run is right: in others nothing is known to be hidden. None without any."""
    right = set(result.rows[result.rows.run_status == "solved"].problem)
    units = {unit: facts for unit, facts in result.units_of(MemoryFacts).items() if "label" in facts.axes and unit in right}
    held = [store.tensors(unit) for unit in units]
    if not held:
        return None
    joined = lambda name, axis: np.concatenate([t[name].numpy() for t in held], axis=axis)
    items = np.repeat(list(units), [len(t["label"]) for t in held])
    steps = next(iter(units.values())).steps
    return Samples(joined("residual", 2), joined("x_t", 1), joined("label", 0), joined("kind", 0), items, steps)


def reader_table(result: AnalysisResult, store: RunStore) -> pd.DataFrame:
    """What readers of visible objects name, a row an item: ``task, source, step, layer, problem, visible, hidden, bare``."""
    found = samples(result, store)
    made = [] if found is None else list(_tables(found))
    if not made:
        return pd.DataFrame(columns=COLUMNS)
    tasks = result.rows.drop_duplicates("problem").set_index("problem").task
    table = pd.concat(made, ignore_index=True)
    return table.assign(task=table.problem.map(tasks))[COLUMNS]


def _tables(found: Samples) -> Iterator[pd.DataFrame]:
    for source, step, layer, features, taught in found.asked():
        named = read_out(features, taught, found.items, found.kinds == KINDS.index("visible"))
        if named is not None:
            yield named_right(named, found.labels, found.items, found.kinds).assign(source=source, step=step, layer=layer)


def named_right(named: np.ndarray, labels: np.ndarray, items: np.ndarray, kinds: np.ndarray) -> pd.DataFrame:
    """Share of points at which the reader names the class: ``problem`` and a column a kind, a row an item. NaN without points."""
    table = pd.DataFrame({"problem": items, "kind": np.array(KINDS)[kinds], "right": (named == labels).astype(float)})
    each = table.groupby(["problem", "kind"]).right.mean().unstack().reindex(columns=list(KINDS))
    return each.rename_axis(columns=None).reset_index()
