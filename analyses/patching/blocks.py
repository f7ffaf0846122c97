"""``--coarse``: blocks of steps and layers are patched as one, and the cells of those that move the result are finished.

A block's patch is that of all its cells at once: every layer of the block, from the first to the last step in which one of its
cells acts, all asked heads and frames together. What a block does not show may still be there, where its cells cancel.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch

from cos_interp.analyses.driver.experiment import Unit
from cos_interp.analyses.driver.statistics import distance, projection
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.kit.grid import SELF, X_T, Cell, token_shape
from cos_interp.analyses.kit.refining import above
from cos_interp.analyses.patching import BlockFacts, PatchingConfig
from cos_interp.analyses.patching.cells import asked_layers, sites_of
from cos_interp.analyses.patching.pair_grid import PairGrid
from cos_interp.analyses.patching.pieces import pairs_of
from cos_interp.interp.patches import Patch
from cos_interp.interp.sweeping import finished, spanned

GIVER = "clean, a block"  # the donor of the rows of blocks
PLACE = ["pair_kind", "site", "group", "step", "layer"]  # a block by its first step and layer


@dataclass(frozen=True)
class Block:
    """``layers``: none of x_t, which lies between the calls."""

    site: str
    group: str
    steps: tuple[int, ...]
    layers: tuple[int, ...]

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What it is known by: site, group, first step and first layer, -1 for none."""
        return self.site, self.group, self.steps[0], self.layers[0] if self.layers else -1


def chunk_of(value: int, values: Sequence[int], size: int) -> tuple[int, ...]:
    """The values of the block in which one of them lies.

    >>> chunk_of(9, [0, 3, 6, 9, 12], 2)
    (6, 9)
    """
    start = values.index(value) // size * size
    return tuple(values[start : start + size])


def block_of(cell: Cell, steps: Sequence[int], layers: Sequence[int], size: int) -> Block:
    """The block in which a cell lies; ``steps`` and ``layers`` are those that are patched."""
    of_layers = () if cell.layer is None else chunk_of(cell.layer, layers, size)
    return Block(cell.site, cell.group, chunk_of(cell.step, steps, size), of_layers)


def blocks(cells: Iterable[Cell], steps: Sequence[int], layers: Sequence[int], size: int) -> list[Block]:
    """The blocks of a grid in the order of their first cells."""
    return list(dict.fromkeys(block_of(cell, steps, layers, size) for cell in cells))


def always(cell: Cell, sites: Collection[str]) -> bool:
    """Whether a cell is a control of the whole grid, which is finished whatever the blocks show."""
    return cell.donor == SELF or (cell.site == X_T and X_T not in sites)


def blocks_of(made: PairGrid) -> list[Block]:
    """The blocks of a pair's grid."""
    sites, grid = sites_of(made.config, made.grid.model), made.grid
    every = (cell for step in made.steps for cell in made.cells(step))
    main = [cell for cell in every if cell.donor == grid.donor_name and not always(cell, sites)]
    return blocks(main, made.steps, asked_layers(made.config, grid.model.layers), int(made.config.coarse or 1))


def patches(made: PairGrid, block: Block) -> list[Patch]:
    """All cells of a block at once."""
    grid, config = made.grid, made.config
    total = grid.target.recording.run.steps
    steps = tuple(sorted({k for step in block.steps for k in spanned(step, total, grid.span)}))
    out = []
    for layer in block.layers or (None,):
        patch = grid.patch(Cell(grid.donor_name, block.site, block.steps[0], layer, group=block.group))
        heads = config.heads if "hook_z" in block.site else None
        out.append(replace(patch, steps=steps, heads=heads, tokens=_of_frames(made, patch)))
    return out


def _of_frames(made: PairGrid, patch: Patch) -> torch.Tensor | None:
    """The tokens of a patch in the frames that are patched, each alone, in the cells; x_t is patched in all of its frames."""
    if made.config.frames is None or patch.site == X_T:
        return patch.tokens
    only = torch.zeros(token_shape(made.grid.model, made.grid.target), dtype=torch.bool)
    only[list(made.config.frames)] = True
    return only if patch.tokens is None else only & patch.tokens


def measured(made: PairGrid) -> Unit:
    """A row a block of a pair."""
    grid, found, model = made.grid, blocks_of(made), made.grid.model
    before = model.block_calls
    rows: dict[int, Row] = {}
    for place, latent in finished(model, grid.target.recording, [patches(made, b) for b in found], grid.batch, grid.shared):
        rows[place] = _row(made, found[place], latent)
    return Unit(
        [rows[place] for place in range(len(found))], facts=BlockFacts(blocks=len(found), block_calls=model.block_calls - before)
    )


def _row(made: PairGrid, block: Block, latent: torch.Tensor) -> Row:
    grid = made.grid
    target, giver = grid.target.recording.run, grid.donor.recording.run
    corrupt, clean = (giver, target) if grid.noising else (target, giver)
    return {
        "pair": made.name, "pair_kind": made.pair.kind, "span": grid.span, "donor": GIVER, "site": block.site,
        "step": block.steps[0], "layer": block.layers[0] if block.layers else None, "head": None, "group": block.group,
        "frame": None, "sigma": target.sigmas[block.steps[0]], "effect": projection(latent, corrupt.latents, clean.latents),
        "share": made.shares[block.group], "moved": distance(latent, target.latents), "outcome": None, "target_shown": None,
        "donor_shown": None, "last_step": block.steps[-1], "last_layer": block.layers[-1] if block.layers else None,
    }  # fmt: skip


# --- which are refined -------------------------------------------------------------------------------------------------


def change(rows: pd.DataFrame, config: PatchingConfig) -> pd.Series:
    """How far each row moved the run that receives: the clean one, when noising, has the effect 1 by itself."""
    effect = rows.effect.astype(float)
    return 1 - effect if config.direction == "noising" else effect


def chosen(rows: pd.DataFrame, config: PatchingConfig) -> set[tuple[str, str, str, int, int]]:
    """The blocks, by kind of pair and :attr:`Block.key`, that move the result of some pair by more than ``--refine``."""
    if rows.empty:
        return set()
    by_key = rows.assign(effect=change(rows, config), layer=rows.layer.astype(float).fillna(-1).astype(int))
    return {
        (kind, site, group, int(step), int(layer))
        for kind, site, group, step, layer in above(by_key, PLACE, config.refine, "largest")
    }


def refined(made: PairGrid, store: RunStore) -> PairGrid:
    """The grid of a pair with the cells of the blocks that are refined, and the controls of the whole grid."""
    config, model = made.config, made.grid.model
    units = [piece.blocks_unit for piece in pairs_of(config)]
    keys = chosen(pd.DataFrame([row for unit in units for row in store.finished(unit)[0]]), config)
    sites, layers, size = sites_of(config, model), asked_layers(config, model.layers), int(config.coarse or 1)

    def kept(step: int) -> Iterator[Cell]:
        for cell in made.cells(step):
            if always(cell, sites) or (made.pair.kind, *block_of(cell, made.steps, layers, size).key) in keys:
                yield cell

    return replace(made, only={step: list(kept(step)) for step in made.steps})


def split(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of cells, and those of blocks."""
    of_blocks = rows.donor == GIVER if len(rows) else pd.Series(dtype=bool)
    return rows[~of_blocks].reset_index(drop=True), rows[of_blocks].reset_index(drop=True)


def told(rows: pd.DataFrame, config: PatchingConfig) -> pd.DataFrame:
    """All rows, those of blocks with ``refined``, whether their cells were finished."""
    if rows.empty or not (rows.donor == GIVER).any():
        return rows
    keys, block = chosen(rows[rows.donor == GIVER], config), rows.donor == GIVER
    of = zip(rows.pair_kind, rows.site, rows.group, rows.step, rows.layer.astype(float).fillna(-1).astype(int), strict=True)
    looked = [key in keys if is_block else None for key, is_block in zip(of, block, strict=True)]
    return rows.assign(refined=pd.array(looked, dtype="boolean"))
