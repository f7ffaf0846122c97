"""Experiments that run rows of one batch, on the shipped model of joint attention, whose pipeline takes one picture a call."""

from __future__ import annotations

import pytest

from cos_interp import analyses
from cos_interp.analyses.driver.store import RunStore

SMALL = {
    "acceleration": {"tasks": ("maze",), "items": 2, "num_inference_steps": 4, "bands": 1, "methods": ("cache",), "draws": 1},
    "attention": {"tasks": ("maze",), "items": 1, "num_inference_steps": 2, "steps": (0, 1)},
    "ensemble": {"tasks": ("maze",), "items": 1, "num_inference_steps": 2, "tensors": ("x_t", "hidden")},
    "layers": {"tasks": ("maze",), "items": 1, "num_inference_steps": 3, "spans": ("all",), "layers": (0, 4)},
    "memory": {"tasks": ("occlusion",), "items": 2, "knocked": 1, "batch": 14, "num_inference_steps": 3, "steps": (0, 2)},
    "noise": {"tasks": ("maze",), "items": 1, "num_inference_steps": 3, "steps": (0, 2), "modes": ("renoise",)},
    "propagation": {"tasks": ("maze",), "items": 1, "num_inference_steps": 3},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_it_runs_on_the_joint_organism(name, tmp_path):
    run = analyses.run(name, model="organism:joint", out=tmp_path, workers=1, guidance_scale=1.0, **SMALL[name])
    assert len(run.rows) and RunStore(tmp_path).verify() == []
    if name in ("noise", "propagation"):  # the family knows the noise level of step 0 only after its first latents
        of_steps = run.rows[run.rows.step.notna()]
        assert of_steps.sigma.notna().all() and (of_steps.sigma[of_steps.step == 0] == 1).all()
    if name == "memory":
        cut = run.rows[(run.rows.kind == "knockout") & (run.rows.tokens == "object") & (run.rows.layer_part == "all")]
        assert (cut.change > 0).all()
