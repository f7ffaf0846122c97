"""A long run says what it will take before it begins. A short one does not pay for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.pace import pace
from cos_interp.analyses.driver.planning import kind_of_device, known, prepared
from cos_interp.analyses.driver.settings import AnalysisConfig, Loading
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline

LONG = 600.0  # seconds: who waits so long does something else meanwhile, and wants to know when to come back
SMALL = 20_000_000  # weights of transformers of a size of which Entry.seconds tells how long the usual run takes
SLOW, CALL = 1e9, 0.02  # operations a second, and seconds a block call, of machines slower than any that is used
ALIKE = {*Loading.model_fields, "seed", "batch"} - {"size", "num_frames", "set"}  # settings that leave the work as it is


def announce(
    entry: Entry, out: Path, workers: int | None, say: Callable[[str], None], config: AnalysisConfig, model: HookedVideoPipeline
) -> None:
    """Say in a line what a run will take, where that is longer than :data:`LONG`. Where nothing tells, nothing is said."""
    if is_usual(config, model):
        return
    try:
        foresee = known(entry.name, config)
        found = prepared(foresee, config, model, kind_of_device(config), out, workers, timed=False, remedied=False)
    except InterpError:  # of a class whose loop cannot be rehearsed: that keeps no run from being made
        return
    if found.plan.flops / SLOW + found.plan.blocks * CALL < LONG:
        return
    timed = replace(found, pace=pace(found.outlook, found.device, model))
    if timed.seconds is not None and timed.seconds > LONG:
        say(f"{timed.summary()}; --plan says more")


def is_usual(config: AnalysisConfig, model: HookedVideoPipeline) -> bool:
    """Whether a small model is asked for no more than by default, which takes minutes."""
    weights = sum(p.numel() for engine in model.engines.values() for p in engine.module.parameters())
    fields = type(config).model_fields
    return weights <= SMALL and not any(
        _is_more(getattr(config, name), field.default) for name, field in fields.items() if name not in ALIKE
    )


def _is_more(value: Any, default: Any) -> bool:
    if value == default or isinstance(value, bool):
        return False
    if isinstance(value, int | float) and isinstance(default, int | float):
        return value > default
    return not (isinstance(value, tuple) and isinstance(default, tuple) and len(value) <= len(default))
