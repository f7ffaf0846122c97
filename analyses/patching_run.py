"""Drives a patching run: opens the folder, shares the pairs among workers, gathers the rows, writes results."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from analyses.base import AnalysisResult, Progress
from analyses.command import command_line
from analyses.files import weights_digest
from analyses.patching import PatchingConfig, check_against, run_pair, units
from analyses.store import RunStore
from analyses.workers import default_workers, scatter
from interp.model import ORGANISM, HookedVideoPipeline

NAME = "patching"


def versions() -> dict[str, str]:
    from importlib.metadata import version

    packages = ("torch", "diffusers", "nnsight", "transformers", "numpy")
    return {"python": sys.version.split()[0]} | {p: version(p) for p in packages}


def model_facts(config: PatchingConfig) -> dict[str, Any]:
    """The resolved model: where it is from and the digest of its weights."""
    folder = ORGANISM if config.model == "organism" else Path(config.model)
    return {"name": config.model, "digest": weights_digest(folder) if folder.is_dir() else None}


def run(
    config: PatchingConfig,
    folder: Path,
    *,
    model: HookedVideoPipeline | None = None,
    fresh: bool = False,
    workers: int | None = None,
    progress: Progress = lambda done, total, what: None,
) -> AnalysisResult:
    """Compute, or continue, a patching run in ``folder``. Raises RunError for a folder that does not fit."""
    work = units(config)
    facts = {
        "analysis": NAME,
        "config": config.model_dump(mode="json"),
        "command": command_line(NAME, config),
        "model": model_facts(config),
        "versions": versions(),
    }
    model = model or HookedVideoPipeline.from_pretrained(config.model)
    check_against(config, model)
    store = RunStore.open(folder, facts, fresh)
    total = sum(len(steps) for *_, steps in work)
    progress(0, total, "finding pairs")
    job = _job(model, config, store)
    count = default_workers() if workers is None else workers
    for done, unit in enumerate(scatter(job, work, min(count, len(work))), 1):
        progress(done, total, unit)
    result = collect(config, store)
    store.write_results(result.rows)
    return result


def _job(model: HookedVideoPipeline, config: PatchingConfig, store: RunStore) -> Callable:
    def job(piece: tuple[str, int, tuple[int, ...]]):
        yield from run_pair(model, config, store, *piece)

    return job


def collect(config: PatchingConfig, store: RunStore) -> AnalysisResult:
    """Read all units of a finished run, in the order of the work list."""
    rows, pairs, calls, least = [], [], 0, 0
    for kind, index, steps in units(config):
        pairs.append(store.unit(f"{kind}-{index:03d}-pair")[1])
        for step in steps:
            found, facts = store.unit(f"{kind}-{index:03d}-step-{step:03d}")
            rows += found
            calls, least = calls + facts["block_calls"], least + facts["block_calls_minimum"]
    frame = pd.DataFrame(rows).astype({"layer": "Int64", "head": "Int64", "frame": "Int64"})
    facts = {"pairs": pairs, "block_calls": calls, "block_calls_minimum": least, **(store.facts() or {})}
    return AnalysisResult(NAME, config.model_dump(mode="json"), frame, facts)


def run_and_report(config: PatchingConfig, folder: Path, **options: Any) -> tuple[AnalysisResult, Path]:
    """Run, write the report and the videos, and mark the run complete. Options as in :func:`run`."""
    from analyses.patching_media import clips
    from analyses.patching_report import build

    result = run(config, folder, **options)
    store = RunStore(folder)
    shown = clips(result, store)
    for pair, each in shown.items():
        for name, _, mp4 in each:
            store.write(f"media/{pair}-{name.replace(' ', '-')}.mp4", mp4)
    store.write("report.html", build(result, shown).encode())
    facts = {k: v for k, v in store.facts().items() if k != "status"}
    store.complete(facts)
    return result, folder / "report.html"
