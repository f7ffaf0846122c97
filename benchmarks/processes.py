"""Whole commands: start-up, the default patching run, and peak memory of a recording, each in processes of their own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

STARTS = 9
COS = (sys.executable, "-W", "ignore", "-m", "cos_interp.cli")
PEAK = """
import gc, json, re, torch
from pathlib import Path
from benchmarks.shapes import model
from cos_interp.interp import record, replay, Patch

def highest(of):  # resident bytes while it is at work: the mark that the system keeps is put back to what there is
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    made = of()
    return made, int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

hooked, call = model("12x384x320", 4)
with torch.no_grad():
    hooked.run(seed=0, **call)
    _, plain = highest(lambda: hooked.run(seed=0, **call) and None)
    kept, recorded = highest(lambda: record(hooked, seed=0, recompute=True, max_bytes=BUDGET, **call))
    name = "blocks.3.hook_resid_post"

    def patched():
        given = record(hooked, names=[name], recompute=True, max_bytes=BUDGET, seed=1, **call)
        replay(hooked, kept, [Patch(name, steps=(2,), donor=given.donor(name))])

    _, replayed = highest(patched)
print(json.dumps({"before": plain, "recorded": recorded, "replayed": replayed}))
"""


def started() -> dict[str, float]:
    """CPU seconds (median) of ``cos --help``, of Python that imports typer and pydantic, and their ratio."""
    told, bare = _cpu(*COS, "--help"), _cpu(sys.executable, "-c", "import typer, pydantic")
    return {"cos --help": told, "import typer, pydantic": bare, "ratio": told / bare}


def _cpu(*command: str) -> float:
    spent = []
    for _ in range(STARTS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True, env=_environment())
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return float(np.median(spent))


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def default_patching() -> dict[str, float]:
    """CPU and wall seconds of ``cos analyze patching`` as it is, on an organism and two processes."""
    with tempfile.TemporaryDirectory() as folder:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        asked = [*COS, "analyze", "patching", "--out", f"{folder}/run"]
        subprocess.run(asked, check=True, capture_output=True, env=_environment())
        after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"CPU seconds": cpu, "wall seconds": wall, "folder MB": size / 1e6}


def memory() -> dict[str, Any]:
    """Peak resident bytes of a recording and a replay at 12 blocks of width 384 over those of a plain run, against the budget
    that was stated: one that holds all steps, and one that holds a single step. What is freed goes back to the system at once, so
    that a peak is what was held."""
    found = {}
    for name, budget in (("all steps", 10**9), ("one step", 8 * 10**6)):
        told = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PEAK.replace("BUDGET", str(budget))],
            check=True, capture_output=True, text=True, env=_environment() | {"MALLOC_MMAP_THRESHOLD_": "65536"},
        ).stdout  # fmt: skip
        peak = json.loads(told.splitlines()[-1])
        found[name] = {
            "budget": budget,
            "recorded": peak["recorded"] - peak["before"],
            "replayed": peak["replayed"] - peak["before"],
        }
    return found
