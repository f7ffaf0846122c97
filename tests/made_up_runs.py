"""Finished runs of made-up rows, as they are read from disk, with text of one's choice where a user or a model could put some."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cos_interp.analyses.driver.estimates import Mean
from cos_interp.analyses.driver.loaded import LoadedRun
from cos_interp.analyses.driver.rules import judge
from cos_interp.analyses.layers import LayersConfig
from cos_interp.analyses.steering import SteeringConfig

MORE = 0.25  # of the second run, at every point and item


def surface(sigma: float, depth: float) -> float:
    """What a model has at a noise level and depth, whatever its steps and layers: linear, so that it is found between them."""
    return 2 * sigma - depth


def layers_run(name: str, steps: int, layers: int, more: float = 0.0, text: str = "word", **settings) -> LoadedRun:
    """A run of the layers experiment. Of item ``i`` the energy is ``surface + more + i / 10``; a skipped layer moves the final
    latent by 1.5 at every depth. Its claim is that of a mean over items, named by them."""
    items, sigmas = 14, np.linspace(1, 0, steps, endpoint=False)
    energy = [
        {"problem": f"maze-{i:03d}", "measure": "energy", "step": k, "sigma": sigma, "layer": layer, "kind": None, "unit": None,
         "span": None, "distance": None, "energy_own_contrast": surface(sigma, layer / layers) + more + i / 10}
        for i in range(items) for k, sigma in enumerate(sigmas) for layer in range(layers)
    ]  # fmt: skip
    skipped = [
        {"problem": f"maze-{i:03d}", "measure": "ablation", "layer": layer, "kind": "skip", "unit": "layer", "span": text,
         "distance": 1.5}
        for i in range(items) for layer in range(layers)
    ]  # fmt: skip
    found = pd.Series({f"maze-{i:03d}": 1 + more + i / 10 for i in range(items)})
    finding = judge("layers.turn-energy", Mean(found), text, Mean(found * 0).number())
    config = LayersConfig(model=text, num_inference_steps=steps, **settings)
    model = {"name": text, "digest": "0" * 64, "layers": layers, "computed": text}
    command = f"cos analyze layers --model {text}"
    facts = {"model": model, "inputs": {}, "code": {}, "versions": {"torch": text}, "command": command}
    return LoadedRun(Path("/runs") / name, "layers", config, pd.DataFrame(energy + skipped), (finding,), facts, (), ())


def steering_run(name: str, more: float = 0.0, pairs: int = 14) -> LoadedRun:
    """A run of the steering experiment: at a place by layer, ``surface(0.5, depth)``; on unseen pairs the vector at two doses,
    a tenth of the dose and the dose times ``more``, a random direction 0, and a way that has no dose a tenth."""
    names = [f"check-{1000 + i}" for i in range(pairs)]
    checks = [
        {"table": "check", "pair": pair, "way": way, "size": size, "effect": value + i / 100, "outcome": outcome}
        for i, pair in enumerate(names)
        for way, size, value, outcome in (
            ("steer", 1.0, 0.1 + more, "donor"), ("steer", 2.0, 0.2 + 2 * more, "donor"),
            ("random direction", 1.0, 0.0, "target"), ("donor", None, 0.1, "donor"),
        )
    ]  # fmt: skip
    places = [
        {"table": "place", "pair": f"place-{i:04d}", "layer": layer, "group": "goals", "effect": surface(0.5, layer / 4)}
        for i in range(4) for layer in range(4)
    ]  # fmt: skip
    rows = pd.DataFrame(checks + places)
    model = {"name": "m", "digest": "0" * 64, "layers": 4, "computed": "fp32"}
    facts = {"model": model, "inputs": {"pair_file": {}}, "code": {}, "versions": {}, "command": "cos analyze steering"}
    config = SteeringConfig(pair_file="pairs.jsonl")  # whose pairs are the same in every run
    return LoadedRun(Path("/runs") / name, "steering", config, rows, (), facts, (), ())
