"""Reading activations during a generation, at four shapes, beside plain hooks and plain nnsight."""

from __future__ import annotations

from typing import Any

import nnsight
import torch

from benchmarks import by_hand
from benchmarks.shapes import SHAPES, model
from benchmarks.timing import Timed, paired

STEPS = {"organism": 8, "3x24x24": 8, "12x384x320": 2, "8x768x320": 2}
ROUNDS = {"organism": 9, "3x24x24": 15, "12x384x320": 7, "8x768x320": 5}
BLOCKS = "blocks.*.hook_resid_post"


def measure() -> dict[str, dict[str, Timed]]:
    """CPU time of a generation by shape and by what is kept; ratios are to plain diffusers."""
    return {shape: _of_shape(shape) for shape in SHAPES}


def _of_shape(shape: str) -> dict[str, Timed]:
    hooked, call = model(shape, STEPS[shape])
    pipe, layers = hooked.pipe, hooked.layers
    pipe.set_progress_bar_config(disable=True)
    plain_call: dict[str, Any] = {**hooked.defaults, **call}
    traced = nnsight.NNsight(by_hand.Whole(pipe))
    sites = [name for name in hooked.hook_names if name.startswith("blocks.") and "pattern" not in name]
    kept = lambda names, **said: hooked.run_with_cache(names=names, seed=0, **said, **call)
    cases = {
        "plain": lambda: by_hand.generate(pipe, plain_call),
        "run": lambda: hooked.run(seed=0, **call),
        "block outputs": lambda: kept(BLOCKS),
        "block outputs, plain hooks": lambda: by_hand.outputs(pipe, plain_call),
        "block outputs, plain nnsight": lambda: by_hand.nnsight_outputs(traced, layers, STEPS[shape], plain_call),
        "block outputs, norms": lambda: kept(BLOCKS, reduce="norm"),
        "block outputs, norms, plain hooks": lambda: by_hand.outputs(pipe, plain_call, norms=True),
        "self-attention patterns": lambda: kept("blocks.*.attn.hook_pattern"),
        "self-attention patterns, by hand": lambda: by_hand.patterns(pipe, plain_call),
        "all sites but patterns, norms": lambda: kept(sites, reduce="norm"),
        "all sites but patterns": lambda: kept(sites),
    }
    with torch.no_grad():
        _same(cases)
        return paired(cases, ROUNDS[shape])


def _same(cases: dict[str, Any]) -> None:
    """What is measured is the same thing: latents and block outputs are equal to the last bit."""
    plain, (run, cache) = cases["plain"](), cases["block outputs"]()
    if not torch.equal(run.latents, plain):
        raise AssertionError("the tool's latents are not those of plain diffusers")
    for name in ("block outputs, plain hooks", "block outputs, plain nnsight"):
        for (call, layer), out in cases[name]().items():
            if not torch.equal(cache[f"blocks.{layer}.hook_resid_post", call].flatten(1, 3), out):
                raise AssertionError(f"{name}: block {layer} of call {call} is not the tool's")
