"""Patching as an experiment of the driver: its pieces, its gathering, its report."""

from __future__ import annotations

from collections.abc import Iterator

from cos_interp.analyses.base import AnalysisResult
from cos_interp.analyses.experiment import Experiment, Report
from cos_interp.analyses.patching import check_against, run_pair, units
from cos_interp.analyses.patching_media import clips
from cos_interp.analyses.patching_report import build
from cos_interp.analyses.patching_summary import against_controls, headline, table
from cos_interp.analyses.settings import PatchingConfig
from cos_interp.analyses.store import RunStore
from cos_interp.interp.model import HookedVideoPipeline

Piece = tuple[str, int, tuple[int, ...]]  # pair kind, pair index, steps


def pieces(config: PatchingConfig) -> list[tuple[Piece, list[str]]]:
    return [(piece, [f"{piece[0]}-{piece[1]:03d}-step-{step:03d}" for step in piece[2]]) for piece in units(config)]


def work(model: HookedVideoPipeline, config: PatchingConfig, store: RunStore, piece: Piece) -> Iterator[str]:
    yield from run_pair(model, config, store, *piece)


def finish(result: AnalysisResult) -> AnalysisResult:
    """Add what was counted, and what the pairs were."""
    counts = {
        key: sum(unit[key] for unit in result.units.values() if key in unit) for key in ("block_calls", "block_calls_minimum")
    }
    rows = result.rows.astype({"layer": "Int64", "head": "Int64", "frame": "Int64"})
    return AnalysisResult(result.name, result.config, rows, {**result.facts, **counts}, result.units)


def report(result: AnalysisResult, store: RunStore) -> Report:
    names = dict.fromkeys(unit.rsplit("-step-", 1)[0] for unit in result.units)
    result.facts["pairs"] = [store.unit(f"{name}-pair")[1] for name in names]
    shown = clips(result, store)
    media = {f"{pair}-{name.replace(' ', '-')}.mp4": mp4 for pair, each in shown.items() for name, _, mp4 in each}
    lines = headline(result.rows)
    return Report(
        lines,
        {"headline": lines, "table": table(result.rows), "against_controls": against_controls(result.rows)},
        build(result, shown),
        media,
    )


EXPERIMENT = Experiment("patching", PatchingConfig, pieces, work, report, check_against, finish)
