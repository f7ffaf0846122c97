"""Both kinds of organisms with a layer each, trained for a moment and shipped into a folder of variants of their own."""

from __future__ import annotations

import dataclasses
import shutil

import pytest

from cos_interp.interp import variants
from cos_interp.interp.loading import ORGANISM
from cos_interp.organism import joint, shapes, train_dit
from cos_interp.organism import ship as shipping
from cos_interp.organism.ship import ship
from cos_interp.organism.train import Plan, train

QUIET = {"limit": 1, "workers": 1, "progress": lambda done, total, what: None}


@pytest.fixture(scope="module")
def small():
    """Both kinds with a layer each, trained for a moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "TRANSFORMER", {**shapes.TRANSFORMER, "num_layers": 1})
        patch.setattr(joint, "TRANSFORMER", {**joint.TRANSFORMER, "num_layers": 1, "num_single_layers": 1})
        patch.setattr(train_dit, "RECIPE", dataclasses.replace(train_dit.RECIPE, batch=2, checkpoint_every=2))
        yield


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    """Training folders of the two kinds; that of joint attention was stopped before its end."""
    out = tmp_path_factory.mktemp("trainings")
    for attention in ("cross", "joint"):
        train(Plan(out / attention, 1, 2, compiled=False, autoencoder=ORGANISM, keep=(1,), attention=attention))
    shutil.rmtree(out / "joint" / "pipeline")
    return out


@pytest.fixture(scope="module")
def shipped(trained, tmp_path_factory):
    """Both, shipped from their checkpoints into a folder of variants of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "VARIANTS", tmp_path_factory.mktemp("organism") / "variants")
        patch.setattr(shipping, "STEPS", 2)
        for attention in ("cross", "joint"):
            ship(trained / attention, f"young-{attention}", "two steps", **QUIET)
        yield variants.VARIANTS
