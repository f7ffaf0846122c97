"""Small runs on disk, for the tests of the run folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from cos_interp.analyses.driver.facts import LeftOut
from cos_interp.analyses.driver.store import RunStore

ROOT = Path(__file__).resolve().parents[2]
MODEL = {"name": "m", "digest": "0", "parts": {"transformer": "0"}}
ASKED = {
    "format": 2, "analysis": "test", "command": "cos analyze test", "config": {"a": 1, "items": 3, "prompts": None},
    "model": MODEL, "inputs": {}, "versions": {"torch": "2"},
}  # fmt: skip


def asked(**config) -> dict:
    return {**ASKED, "config": {**ASKED["config"], **config}}


def fill(folder: Path, units: int = 3, facts: dict = ASKED, **options) -> list[int]:
    """A run of small units, or what is missing of it; the units that were made."""
    made = []
    with RunStore.open(folder, facts, **options) as store:
        for i in range(units):
            if store.unit(f"u{i}") is None:
                store.add_unit(f"u{i}", [{"i": i}], {"latents": torch.full((2,), float(i))}, LeftOut(reason=f"it is {i}"))
                made.append(i)
        store.write_results(pd.DataFrame({"i": range(units)}))
        store.write_page({"report.html": b"<p>" + str(units).encode(), "findings.json": b"[]\n", "media/a.svg": b"<svg/>"})
        store.complete()
    return made
