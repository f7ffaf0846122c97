"""The memory that a patching run really takes, measured in a process of its own: never above what was stated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")]
ROOT = Path(__file__).resolve().parents[2]
# bytes: less than the recordings and what else there is
BUDGETS = {"patching": 95_000_000, "circuit": 95_000_000, "steering": 60_000_000, "swap": 70_000_000}


def ran(folder: Path, name: str, budget: int | None, limit: int) -> subprocess.CompletedProcess[str]:
    asked = [str(folder), name, "none" if budget is None else str(budget), str(limit)]
    # else a thread reserves 64 MB of addresses that it never uses, and up to 64 MB of what was freed stays with the process
    exact = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    environment = {**os.environ, **exact, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-W", "ignore", str(Path(__file__).parent / "within.py"), *asked]
    return subprocess.run(line, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(("name", "budget"), BUDGETS.items())
def test_a_run_stays_within_the_budget_that_was_stated(tmp_path, name, budget):
    """Under a limit of the address space too, where it would take more with its recordings."""
    found = ran(tmp_path, name, budget, budget)
    assert found.returncode == 0, found.stderr[-2000:]
    told = json.loads(found.stdout)
    assert told["problems"] == [] and told["plan"]["host"] <= budget < told["plan"]["host"] + told["recordings"]["disk"]
    assert name in ("steering", "swap") or budget < told["recordings"]["disk"] / 1.3  # of the others, these alone are larger
    assert told["peak"] <= told["baseline"] + budget, told
    assert told["effects"] and (name != "patching" or (len(told["effects"]) == 6 and told["effects"][-1] == 1))


def test_without_a_budget_the_recordings_are_in_memory_and_the_limit_ends_the_run(tmp_path):
    found = ran(tmp_path, "patching", None, BUDGETS["patching"])
    assert found.returncode != 0 and "allocate memory" in found.stderr
