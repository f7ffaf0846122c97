"""``make bench``: measure everything, or the parts that are named, into a JSON file and the tables of docs/performance.md.

CPU seconds on one thread, whatever else the machine does; only the default patching run states wall seconds, which an idle
machine alone gives. ``python -m benchmarks reading grids --json FILE`` measures parts and keeps what FILE has of the others.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded

import torch

from benchmarks import grids, growth, others, processes, reading
from benchmarks.page import written

PARTS: dict[str, Callable[[], Any]] = {
    "reading": reading.measure,
    "grids": grids.measure,
    "decoding": others.decoding,
    "probes": others.probes,
    "gradients": others.gradients,
    "growth": growth.measure,
    "memory": processes.memory,
    "start": processes.started,
    "patching": processes.default_patching,
}


def plain(found: Any) -> Any:
    """Results as JSON has them."""
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        return {name: round(value, 4) for name, value in dataclasses.asdict(found).items()}
    if isinstance(found, dict):
        return {name: plain(value) for name, value in found.items()}
    return round(found, 8) if isinstance(found, float) else found


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {"processor": name, "cores": os.cpu_count(), "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument("--json", type=Path, default=Path("docs/performance.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/performance.md"))
    asked = parser.parse_args()
    if unknown := [part for part in asked.part if part not in PARTS]:
        parser.error(f"no part {unknown[0]!r}: there are {', '.join(PARTS)}")
    torch.set_num_threads(1)
    found = json.loads(asked.json.read_text()) if asked.json.exists() else {}
    for part in asked.part or PARTS:
        print(f"{part} ...", flush=True)
        found[part] = {"machine": machine(), "found": plain(PARTS[part]())}
        print(json.dumps(found[part]["found"], indent=1), flush=True)
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    asked.page.write_text(written(asked.page.read_text(), found))


if __name__ == "__main__":
    main()
