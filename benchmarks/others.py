"""Decoding, probes and gradient maps: each beside the plain way."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from benchmarks.shapes import ORGANISM, model
from benchmarks.timing import Timed, paired
from cos_interp.interp import Patch, record, replay
from cos_interp.interp.gradient.attribution import attribute

STEPS = 8


def decoding() -> dict[str, Timed]:
    """CPU time of 16 clips through the autoencoder, in rows of 8 and alone."""
    hooked, call = model(ORGANISM, 2)
    with torch.no_grad():
        latents = hooked.run(seed=0, **call).latents.repeat(16, 1, 1, 1, 1)
        return paired(
            {
                "alone": lambda: [hooked.decode(row) for row in latents.split(1)],
                "8 rows": lambda: [hooked.decode(rows) for rows in latents.split(8)],
            },
            3,
        )


def probes() -> dict[str, Timed]:
    """CPU time of a logistic probe at 16 places, its strength chosen on three splits: by scikit-learn, and ours."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from cos_interp.probes import LinearProbe
    from cos_interp.probes.strength import STRENGTHS

    chance = np.random.default_rng(0)
    places = [chance.normal(size=(600, 64)) for _ in range(16)]
    y, groups = chance.integers(0, 4, 600), np.repeat(np.arange(60), 10)
    plain = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    strengths = {"logisticregression__C": [1 / strength for strength in STRENGTHS]}
    return paired(
        {
            "scikit-learn": lambda: [GridSearchCV(plain, strengths, cv=GroupKFold(3)).fit(X, y, groups=groups) for X in places],
            "LinearProbe": lambda: [LinearProbe("logistic").fit(X, y, groups) for X in places],
        },
        3,
    )


def gradients() -> dict[str, Any]:
    """A gradient map of a seed pair, every layer and step by token frames: CPU time in generations, and agreement with the exact
    cells, all of them (Spearman, sign, share of the largest tenth that is the map's largest tenth)."""
    from scipy.stats import spearmanr

    hooked, call = model(ORGANISM, STEPS)
    target, donor = (record(hooked, seed=seed, **call) for seed in (0, 1))
    along = (donor.run.latents - target.run.latents).double()
    along = along / along.square().sum()
    metric = lambda latents: ((latents.double() - target.run.latents.double()) * along).sum()
    patches = [patch for layer in range(hooked.layers) for patch in _by_frame(hooked, donor, layer)]
    began = time.process_time()
    guessed = np.array(attribute(hooked, target, patches, metric))
    between = time.process_time()
    hooked.run(seed=0, **call)
    generations = (between - began) / (time.process_time() - between)
    with torch.no_grad():
        exact = np.array([float(metric(replay(hooked, target, [patch]))) for patch in patches])
    tenth = max(1, len(exact) // 10)
    top = lambda values: set(np.argsort(-np.abs(values), kind="stable")[:tenth])
    agreement = {
        "spearman": float(spearmanr(guessed, exact).statistic),
        "same sign": float(np.mean(np.sign(guessed) == np.sign(exact))),
        "largest tenth found": len(top(guessed) & top(exact)) / tenth,
    }
    return {"cells": len(patches), "generations": generations, **agreement}


def _by_frame(hooked: Any, donor: Any, layer: int) -> list[Patch]:
    name = f"blocks.{layer}.hook_resid_post"
    grid = hooked.token_grid(donor.run.latents).shape
    masks = [torch.arange(grid[0])[:, None, None].eq(frame).expand(grid) for frame in range(grid[0])]
    return [Patch(name, steps=(step,), donor=donor.donor(name), tokens=mask) for step in range(STEPS) for mask in masks]
