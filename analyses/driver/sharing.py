"""What the command line says and does about shards: one here, all as jobs, and how far they are. Light until it is asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.said import show
from cos_interp.analyses.driver.saying import assignments, keywords
from cos_interp.analyses.driver.shard import Shard
from cos_interp.interp.terminal import Failure, print_json, resumable

if TYPE_CHECKING:
    from cos_interp.analyses.driver.experiment import Report
    from cos_interp.analyses.driver.progress import Standing
    from cos_interp.analyses.driver.settings import AnalysisConfig

CLUSTERS = ("slurm", "local", "ray")
EVERY = 2.0  # seconds between looks of ``cos runs watch``


def told(report: Report, out: Path, as_json: bool) -> None:
    """Print what a finished run says."""
    if as_json:
        print_json({"report": str(out / "report.html"), **report.data})
        return
    show(report)
    typer.echo(f"Report: {(out / 'report.html').resolve()}")


def shared(entry: Entry, config: AnalysisConfig, out: Path, asked: Mapping[str, Any], as_json: bool, **ways: Any) -> None:
    """``--shard`` and ``--submit``, the options ``asked`` for; ``ways`` are those of :class:`experiment.Ways`."""
    if asked["fresh"]:
        raise Failure(f"--fresh would delete what other shards have made: use cos runs rm {out} first")
    if asked["submit"] is None:
        if asked["shard"] is None or asked["shards"] or asked["job"]:
            raise Failure(f"--shards and --job go with --submit {' or '.join(CLUSTERS)}")
        _one(entry, config, out, Shard.of(asked["shard"]), as_json, ways)
        return
    if asked["shard"] is not None:
        raise Failure("--submit submits all shards: leave out --shard")
    if asked["submit"] not in CLUSTERS:
        raise Failure(f"--submit {asked['submit']}: there are {', '.join(CLUSTERS)}")
    try:
        parameters = keywords(assignments(asked["job"] or ""))
    except ValueError:
        raise Failure(
            f"--job {asked['job']!r}: give key=value, the key a parameter of submitit's executor, or of Ray's task"
        ) from None
    _all(entry, config, out, asked, parameters, as_json, ways)


def _one(entry: Entry, config: AnalysisConfig, out: Path, shard: Shard, as_json: bool, ways: Mapping[str, Any]) -> None:
    from cos_interp.analyses.driver.registry import load
    from cos_interp.analyses.driver.share import share

    with resumable() as move:
        done = share(load(entry.name), config, out, shard=shard, progress=move, **ways)
    if as_json:
        print_json({"run": str(out), "shard": str(shard), "units": done.own, "there": done.there, "total": done.total})
        return
    end = f"cos runs finish {out}" if done.there == done.total else "the other shards are missing"
    typer.echo(f"shard {shard}: {done.own} units; {done.there} of {done.total} are in {out}: {end}")


def _all(
    entry: Entry, config: AnalysisConfig, out: Path, asked: Mapping[str, Any], parameters: Mapping[str, Any], as_json: bool,
    ways: Mapping[str, Any],
) -> None:  # fmt: skip
    """All shards as jobs: of SLURM until they are in the queue, else to the end and the page."""
    from cos_interp.analyses.driver import cluster
    from cos_interp.analyses.driver.finishing import finish
    from cos_interp.analyses.driver.registry import entries

    count = asked["shards"] or (len(cluster.gpus()) if asked["submit"] == "local" else 0)
    if not count:
        raise Failure("--submit needs --shards, how many there are to be")
    made = cluster.jobs(entry.name, config, out, count, **ways)
    if asked["submit"] == "ray":
        cluster.in_ray(made, parameters)
    else:
        submitted = cluster.submit(made, asked["submit"], parameters)
    if asked["submit"] == "local":
        counted = _counter(out)
        with resumable() as move:
            cluster.wait(submitted, [job.shard for job in made], lambda: move(*counted()))
    if asked["submit"] != "slurm":
        told(finish(out, entries(), ways["accept_versions"]), out, as_json)
        return
    numbers = [str(job.job_id) for job in submitted]
    if as_json:
        print_json({"run": str(out), "jobs": numbers, "logs": str(cluster.log_folder(out))})
        return
    typer.echo(f"jobs {', '.join(numbers)} write {out}; what they say is in {cluster.log_folder(out)}")
    typer.echo(f"cos runs watch {out} shows how far they are; then cos runs finish {out}")


def _counter(out: Path) -> Callable[[], tuple[int, int, str]]:
    """Says how many units are there, of how many, and how many shards are at it."""
    from cos_interp.analyses.driver.progress import Watched
    from cos_interp.analyses.driver.registry import entries

    looked: list[Watched] = []  # when the first job has begun

    def counted() -> tuple[int, int, str]:
        if not looked and not (out / "run.json").is_file():
            return 0, 1, "jobs begin"
        if not looked:
            looked.append(Watched(out, entries()))
        parts = looked[0].look().parts
        at_it = sum(part.state == "running" for part in parts)
        return sum(part.done for part in parts), sum(part.total for part in parts), f"{at_it} of {len(parts)} shards are at it"

    return counted


def watched(run: Path, known: Mapping[str, Entry], as_json: bool) -> None:
    """Print how far the shards of a run are; on a terminal until all units are there."""
    from rich.console import Console
    from rich.live import Live

    from cos_interp.analyses.driver.progress import Watched

    looked = Watched(run, known)
    now = looked.look()
    console = Console()
    if as_json:
        print_json(now.data())
        return
    if console.is_terminal and not now.whole:
        with Live(_drawn(now), console=console) as live:
            while not now.whole:
                time.sleep(EVERY)
                now = looked.look()
                live.update(_drawn(now))
        return
    for line in now.lines():
        typer.echo(line)


def _drawn(now: Standing) -> Any:
    """Bars, one a shard."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table.grid(padding=(0, 1))
    for part in now.parts:
        bar = ProgressBar(total=max(part.total, 1), completed=part.done, width=30)
        table.add_row(part.shard, bar, f"{part.done}/{part.total}", part.state, part.by)
    return Group(table, *now.lines()[len(now.parts) :])
