"""What a memory run takes."""

from __future__ import annotations

import numpy as np

from cos_interp.analyses.driver.kept import keeps
from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit.problems import Problem, chosen_steps
from cos_interp.analyses.memory import MemoryConfig
from cos_interp.analyses.memory.knockout import SETS, compared_keys, cuts
from cos_interp.analyses.memory.measure import pieces
from cos_interp.analyses.memory.reading import own_cell

READ = 2  # runs of an item: as it is, and once more to be read


def foresee(config: MemoryConfig, outlook: Outlook) -> list[Use]:
    """Two generations an item, and one a cut of those whose attention is cut."""
    asked = [piece for piece, _ in pieces(config)]
    cut = sum(_cuts(config, outlook, problem) for problem, knocked in asked if knocked is not None)
    shown = sum(knocked is not None and keeps(knocked, outlook.shape.clip_bytes) for _, knocked in asked) * (1 + len(SETS))
    steps = len({0, *chosen_steps(config, 5)})
    shape, width = outlook.shape, outlook.model.adapter.width(outlook.shape.engine.module)[0]
    centred = (outlook.model.layers + 2) * shape.grid.tokens * width * 4
    places = (4 * outlook.model.layers + 1) * shape.grid.rows * shape.grid.cols
    rows = config.batch if cut else 1
    return [
        Use(
            "runs, as they are and read",
            READ * len(asked),
            held=centred,
            decoded=1,
            disk=len(asked) * (steps * centred // 8 + places),
        ),
        Use(
            "runs with attention cut",
            cut,
            rows=rows,
            decoded=rows if cut else 0,
            disk=shown * outlook.shape.clip_bytes,
        ),
    ]


def _cuts(config: MemoryConfig, outlook: Outlook, problem: Problem) -> int:
    """The cut runs of a problem."""
    shape, chance = outlook.shape.grid.shape, np.random.default_rng(0)
    return len(cuts(compared_keys(problem, own_cell(config.cell, 0, shape), shape, chance), shape, chance))
