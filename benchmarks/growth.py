"""How costs grow when one size doubles: 2 is linear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.shapes import random_model
from benchmarks.timing import paired
from cos_interp.interp import HookedVideoPipeline, record, sweep

ROUNDS = 7
PIXELS = (64, 64, 9)


def measure() -> dict[str, float]:
    """CPU time at twice the size over that at once, of a run whose block outputs are kept (of pairs: a small grid), by what is
    doubled."""
    one = {"prompt": "go", "num_inference_steps": 4, "guidance_scale": 1.0, "height": 64, "width": 64, "num_frames": 9, "seed": 0}
    shallow, deep = random_model(PIXELS, num_layers=8), random_model(PIXELS, num_layers=16)
    names = [name for name in deep.hook_names if name.startswith("blocks.")]
    kept = lambda model, names="blocks.*.hook_resid_post", **said: model.run_with_cache(names=names, **one | said)
    return {
        "steps": _twice(lambda: kept(shallow), lambda: kept(shallow, num_inference_steps=8)),
        "layers": _twice(lambda: kept(shallow), lambda: kept(deep)),
        "tokens": _twice(lambda: kept(shallow, width=128), lambda: kept(shallow, width=256)),
        "names, given one by one": _twice(lambda: kept(deep, names[::2]), lambda: kept(deep, names)),
        "names to match": _twice(lambda: deep.matching(names[::2] * 4), lambda: deep.matching(names * 4)),
        "pairs": _twice(lambda: _grids(shallow, one, 1), lambda: _grids(shallow, one, 2)),
        "rows": _twice(*(lambda n=n: kept(shallow, prompt=["go"] * n, seed=list(range(n))) for n in (4, 8))),
    }


def _grids(model: HookedVideoPipeline, call: dict[str, Any], pairs: int) -> None:
    for pair in range(pairs):
        target, donor = (record(model, **call | {"seed": seed}) for seed in (2 * pair, 2 * pair + 1))
        sweep(model, target, donor, metric=lambda latents: 0.0, steps=(0, 2), layers=(1, 5))


def _twice(once: Callable[[], object], twice: Callable[[], object]) -> float:
    with torch.no_grad():
        return float(np.round(paired({"once": once, "twice": twice}, ROUNDS)["twice"].ratio, 2))
