"""More items than before: a run that grew has the bytes of one that was asked for them at once."""

from __future__ import annotations

import pytest
from faults import content

from cos_interp import analyses

SMALL = {"num_inference_steps": 2, "tasks": ("maze",)}
LESS = {
    "recovery": {"doses": (1.0,), "steps": (1,)},
    "probes": {"targets": ("on_path",), "layers": (4,), "views": False, "used_items": 0, "folds": 2},
}
NAMES = ("self-correction", "recovery", "layers", "probes")  # donors, references and fitted probes come from several items


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_grew_is_the_whole_run(name, organism, tmp_path):
    most = 4 if name == "probes" else 2
    asked = {k: v for k, v in (SMALL | LESS.get(name, {})).items() if k in analyses.EXPERIMENTS[name].config.model_fields}
    analyses.run(name, model=organism, out=tmp_path / "grown", workers=1, items=most - 1, **asked)
    for folder in ("grown", "whole"):
        analyses.run(name, model=organism, out=tmp_path / folder, workers=1, items=most, **asked)
    grown, whole = content(tmp_path / "grown"), content(tmp_path / "whole")
    assert set(grown) == set(whole)
    assert not {file for file in whole if grown[file] != whole[file]}
