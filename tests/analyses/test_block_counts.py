"""Circuits and steering run no transformer block that they could do without."""

from __future__ import annotations

import torch

from cos_interp.analyses.circuit import SITES, CircuitConfig
from cos_interp.analyses.circuit.bench import Bench
from cos_interp.analyses.kit.pairs import Recorder
from cos_interp.analyses.kit.split_pairs import pair_of
from cos_interp.analyses.steering import SteeringConfig
from cos_interp.analyses.steering.tried import Trial, place_of
from cos_interp.interp.patching import minimal_blocks

STEPS, LAYERS = 3, 8


def test_sets_of_components_start_at_their_first_block_and_share_forwards(organism):
    config = CircuitConfig(num_inference_steps=STEPS, batch=5, solved=False)
    made = Recorder(organism, config, [f"blocks.*.{site}" for site in SITES.values()])
    bench = Bench.of(made, config, *pair_of(made, config, 0, True))
    rows = [bench.whole("cross", layer) for layer in (0, 3, 7)]
    rows += [bench.whole("mlp", 5, (STEPS - 1,)), [*rows[1], *bench.whole("attn", 6)], []]
    # from the layer on in the first patched step, then whole; in the last step alone nothing comes after
    rest = LAYERS * (STEPS - 1)
    right = [LAYERS + rest, LAYERS - 3 + rest, 1 + rest, LAYERS - 5, LAYERS - 3 + rest, 0]
    before = organism.block_calls
    bench.latents(rows)
    assert organism.block_calls - before == sum(right)
    assert [minimal_blocks(organism, bench.target.recording, row) for row in rows if row] == right[:-1]


def test_steered_rows_start_after_the_steered_block(organism):
    config = SteeringConfig(num_inference_steps=STEPS, solved=False)
    pair, _ = pair_of(Recorder(organism, config), config, 0)
    shape = organism.token_grid(pair.corrupt.recording.run.x_t[0]).shape
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[:, 0, 0] = True
    width = organism.adapter.width(organism.engines["transformer"].module)[0]
    place = place_of("blocks.2.hook_resid_post", mask, pair.corrupt, pair.clean)
    trial = Trial(organism, pair.corrupt, pair.clean, place, torch.ones(width), torch.eye(width)[:, :2], torch.eye(2, width))
    rows = trial.rows((1.0, -1.0), (1, 2))
    before = organism.block_calls
    trial.latents(rows, 4)
    ran = organism.block_calls - before
    # all act in every step but the vector in the second half of them, which are the steps from the second on
    late = [name for name in rows if name == "second half of the steps"]
    first = [name for name in rows if name == "first half of the steps"]
    assert len(late) == len(first) == 1
    whole = LAYERS - 3 + LAYERS * (STEPS - 1)
    assert ran == (len(rows) - 1) * whole + LAYERS - 3 + LAYERS * (STEPS - 2)
    assert ran == sum(minimal_blocks(organism, pair.corrupt.recording, row) for row in rows.values())
