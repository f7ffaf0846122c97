"""Coarse to fine: blocks find what is planted, their cells are those of the whole grid, and what was not refined is said."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from planned import counted, planned
from pydantic import ValidationError
from test_patching import planted_work

from cos_interp.analyses.driver.experiment import run, run_and_report
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.patching import ENTRY, PatchingConfig
from cos_interp.analyses.patching.blocks import Block, blocks_of, chosen, measured, patches
from cos_interp.analyses.patching.pieces import needs, pieces
from cos_interp.interp import HookedVideoPipeline

CELL = ["pair", "donor", "site", "step", "layer", "group"]
ASKED = {"model": "tiny:wan2.1", "num_inference_steps": 4, "steps": (0, 1, 2, 3), "span": "single", "batch": 1,
         "sites": ("hook_attn_out", "hook_x_t")}  # fmt: skip


@pytest.fixture
def pair_file(tmp_path):
    lines = [{"clean": {"prompt": f"a red ball {n}"}, "corrupt": {"prompt": f"a blue ball {n}"}} for n in range(2)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps({**line, "boxes": {"ball": [0, 0, 16, 16]}}) for line in lines))
    return str(path)


def test_a_planted_effect_is_refined_and_what_lies_before_it_is_not(organism):
    made = planted_work(organism, 4, 1, "donor_route", coarse=2, tokens=("donor_route", "rest"))
    unit = measured(made)
    rows = pd.DataFrame(unit.rows)
    assert len(rows) == unit.facts.blocks == len(blocks_of(made)) == 2 * 4 * 2  # of steps, layers, groups
    effect = rows.set_index(["group", "step", "layer"]).effect
    assert effect["donor_route", 0, 4] == 1.0  # both layers and both steps at once
    before = rows[(rows.step == 0) & (rows.layer < 4)]
    assert len(before) == 4 and (before.effect == 0).all()
    keys = chosen(rows, made.config)
    assert ("seed", "hook_resid_post", "donor_route", 0, 4) in keys
    assert not {key for key in keys if key[3] == 0 and key[4] < 4}


def test_a_block_is_all_of_its_cells_at_once(organism):
    made = planted_work(organism, 4, 1, "donor_route", coarse=3, frames=(1, 2), tokens=("all", "goals"), span="from",
                        steps=(0, 1, 2, 3))  # fmt: skip
    block = Block("hook_resid_post", "goals", (0, 1, 2), (3, 4, 5))
    assert block in blocks_of(made)
    found = patches(made, block)
    assert [(p.site, p.steps) for p in found] == [(f"blocks.{layer}.hook_resid_post", (0, 1, 2, 3)) for layer in (3, 4, 5)]
    goals = made.grid.masks["goals"].clone()
    goals[[0, *range(3, len(goals))]] = False
    assert all((p.tokens == goals).all() and p.branches == ("cond",) for p in found)


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_the_cells_are_those_of_the_whole_grid_to_the_bit(direction, pair_file, tmp_path):
    asked = ASKED | {"pair_file": pair_file, "direction": direction}
    _, whole = counted("patching", PatchingConfig(**asked), tmp_path / "whole")
    every = whole.rows.set_index(CELL).effect
    sizes = {}
    for refine in (1e-6, 0.05, 0.99):
        config = PatchingConfig(**asked, coarse=2, refine=refine)
        blocks, found = counted("patching", config, tmp_path / str(refine))
        plan = planned("patching", config, tmp_path)
        assert blocks <= plan.most and plan.bounded
        looked, cells = (part for _, part in sorted(iter(found.rows.groupby(found.rows.donor != "clean, a block"))))
        assert len(looked) == 2 * 3 * 2 * (2 + 1)  # pairs, groups, blocks of steps; of 3 layers two blocks, and x_t
        mine = cells.set_index(CELL).effect
        assert (mine == every[mine.index]).all()  # and the latents are of these
        moved = (1 - looked.effect if direction == "noising" else looked.effect).abs()
        largest = moved.groupby([looked[name].fillna(-1) for name in ("site", "group", "step", "layer")]).transform("max")
        assert (looked.refined == (largest > refine)).all()
        sizes[refine] = len(mine)
        for name in ("own-000", "own-001"):
            stored, full = (RunStore(tmp_path / at, ENTRY.facts) for at in (str(refine), "whole"))
            for step in range(4):
                rows, _ = stored.finished(f"{name}-step-{step:03d}")
                theirs, _ = full.finished(f"{name}-step-{step:03d}")
                places = [theirs.index(row) for row in rows]
                latents = full.tensors(f"{name}-step-{step:03d}")["latents"][places] if places else None
                assert latents is None or (latents == stored.tensors(f"{name}-step-{step:03d}")["latents"]).all()
    assert sizes[1e-6] == len(every) > sizes[0.05] > sizes[0.99]


def test_what_was_not_refined_is_said(pair_file, tmp_path):
    config = PatchingConfig(**ASKED, pair_file=pair_file, coarse=2, refine=0.05)
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    result, report = run_and_report(load("patching"), config, tmp_path / "run", model=model, workers=2)
    blocks = result.rows[result.rows.donor == "clean, a block"]
    left = blocks[~blocks.refined.astype(bool)]
    assert 0 < len(left) < len(blocks) and "What was looked at in blocks" in report.html
    (line,) = (line for line in report.lines if line.startswith("Coarse to fine: 18 blocks"))
    assert f"the cells of the other {len(left) // 2} are not on this page" in line.lower()
    again = run(load("patching"), config, tmp_path / "one", model=model, workers=1)
    pd.testing.assert_frame_equal(again.rows, result.rows)
    nothing = PatchingConfig(**ASKED | {"sites": ("hook_attn_out",)}, pair_file=pair_file, coarse=4, refine=0.99)
    result, report = run_and_report(load("patching"), nothing, tmp_path / "nothing", model=model, workers=1)
    assert set(result.rows.donor) <= {"clean, a block", "self", "clean"} and "the cells of 0 were finished" in report.html


def test_blocks_wait_for_no_cell_and_cells_for_all_blocks(pair_file):
    config = PatchingConfig(**ASKED, pair_file=pair_file, coarse=2)
    made = pieces(config)
    assert [units for part, units in made if part.step is None] == [[f"own-00{n}-pair", f"own-00{n}-blocks"] for n in (0, 1)]
    assert all(needs(config, part) == ([] if part.step is None else ["own-000-blocks", "own-001-blocks"]) for part, _ in made)
    assert len(made) == 2 * 5
    for wrong, message in (({"coarse": 2, "method": "gradient"}, "every cell at once"), ({"refine": 0.3}, "add coarse")):
        with pytest.raises(ValidationError, match=message):
            PatchingConfig(**wrong)
