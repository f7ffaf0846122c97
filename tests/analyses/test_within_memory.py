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
BUDGET = 95_000_000  # bytes: less than the recordings of this run take


def ran(folder: Path, budget: int | None, limit: int | None) -> subprocess.CompletedProcess[str]:
    asked = [str(folder), *("none" if size is None else str(size) for size in (budget, limit))]
    one_arena = {"MALLOC_ARENA_MAX": "1"}  # a thread reserves 64 MB of addresses for its own, and uses none of them
    environment = {**os.environ, **one_arena, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-W", "ignore", str(Path(__file__).parent / "within.py"), *asked]
    return subprocess.run(line, env=environment, capture_output=True, text=True)


def test_a_run_stays_within_the_budget_that_was_stated(tmp_path):
    """Under a limit of the address space too, where its recordings alone are larger; without a budget they are in memory,
    and the limit ends it."""
    found = ran(tmp_path, BUDGET, BUDGET)
    assert found.returncode == 0, found.stderr[-2000:]
    told = json.loads(found.stdout)
    assert told["problems"] == [] and told["plan"]["host"] <= BUDGET < told["recordings"]["disk"] / 1.3
    assert told["peak"] <= told["baseline"] + BUDGET, told
    assert len(told["effects"]) == 6 and told["effects"][-1] == 1
    (tmp_path / "other").mkdir()
    unlimited = ran(tmp_path / "other", None, BUDGET)
    assert unlimited.returncode != 0 and "allocate memory" in unlimited.stderr
