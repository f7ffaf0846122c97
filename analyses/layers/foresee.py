"""What a run of layers takes."""

from __future__ import annotations

from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit.problems import problems
from cos_interp.analyses.kit.updates import written
from cos_interp.analyses.layers import LayersConfig
from cos_interp.analyses.layers.measure import grid_of_ablations, others
from cos_interp.interp.batch import chunks

MAPS = 2  # energy and update


def foresee(config: LayersConfig, outlook: Outlook) -> list[Use]:
    """A generation an item that is read, one a row of its ablations, those that give the replacements with every batch, and
    the control that changes nothing."""
    found, edits = problems(config), len(grid_of_ablations(config, outlook.model.layers))
    parts = len(list(chunks(range(edits), config.batch)))
    beside = [len(others(problem, config)) for problem in found]
    rows = min(config.batch, edits) + max(beside, default=0)
    maps = MAPS * outlook.steps * outlook.model.layers * outlook.shape.grid.tokens * 4
    shown = sum(problem.first for problem in found) * outlook.shape.clip_bytes
    one = sum(outlook.shape.activation(name) for name in written(outlook.model.hook_names, [0]))
    return [
        Use("runs that are read, and their controls", 2 * len(found), held=maps + one, decoded=1, disk=len(found) * maps + shown),
        Use("ablated runs", len(found) * edits, rows=rows, held=rows * one, decoded=1 + edits if found[0].judged else 0),
        Use("runs that give what is put in their place", parts * sum(beside), rows=rows),
    ]
