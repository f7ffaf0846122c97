"""What a run was planned to take, and what it takes."""

from __future__ import annotations

from cos_interp.analyses.driver.experiment import loaded, run
from cos_interp.analyses.driver.planning import forecast
from cos_interp.analyses.driver.registry import load


def counted(name, config, at):
    """Block calls of a run, in one process."""
    config, model = loaded(config)
    before = model.block_calls
    result = run(load(name), config, at, model=model, workers=1)
    return model.block_calls - before, result


def planned(name, config, at):
    return forecast(name, config, at, workers=1, timed=False).plan
