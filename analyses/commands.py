"""``cos analyze`` and ``cos runs``. Heavy libraries are imported inside the commands, so that help answers at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cos_interp.analyses import EXPERIMENTS, draw, load, runner
from cos_interp.analyses.before import before, refuse_over
from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.options import configured, with_options
from cos_interp.analyses.driver.registry import entries
from cos_interp.analyses.driver.sharing import shared, told, watched
from cos_interp.interp.terminal import Failure, Json, print_json, refuse_other_content, resumable, write_file

if TYPE_CHECKING:
    from cos_interp.analyses.driver.findings import Finding

analyze = typer.Typer()
report_app = typer.Typer()
runs_app = typer.Typer()


SHARE: dict[str, Any] = {
    "shard": (str | None, None, typer.Option(help="Compute only this share of the work, like 2/8; then see cos runs finish.")),
    "submit": (str | None, None, typer.Option(help="slurm, local or ray: a job a shard.")),
    "shards": (int | None, None, typer.Option(min=1, help="With --submit: how many. Here one a GPU by default.")),
    "job": (
        str | None,
        None,
        typer.Option(help="With --submit: for each job, like slurm_partition=gpu,timeout_min=600."),
    ),
}


def _common(name: str) -> dict[str, Any]:
    return (SHARE if name in entries() else {}) | {
        "workers": (int | None, None, typer.Option(min=1, help="Processes. One a core by default.")),
        "out": (Path, Path("runs") / name, typer.Option(help="Run folder.")),
        "plan": (bool, False, typer.Option("--plan", help="Only say what the run will take, and whether it fits.")),
        "fresh": (bool, False, typer.Option("--fresh", help="Delete a run that is in the folder and start again.")),
        "accept_versions": (bool, False, typer.Option("--accept-versions", help="Continue a run of other library versions.")),
        "as_json": (bool, False, typer.Option("--json", help="Print machine-readable JSON.")),
    }


def _analysis(entry: Entry) -> Callable[..., None]:
    """The command of one analysis: its options are the fields of its settings."""

    def command(
        *, workers: int | None, out: Path, plan: bool, fresh: bool, accept_versions: bool, as_json: bool,
        shard: str | None = None, submit: str | None = None, shards: int | None = None, job: str | None = None, **given: Any,
    ) -> None:  # fmt: skip
        config = configured(entry.config, given)
        first = before(entry, out, workers)
        if plan:
            first.plan(config, as_json)
            return
        if shard or submit or shards or job:
            refuse_over(entry.name, config, out, workers)
            asked = {"shard": shard, "submit": submit, "shards": shards, "job": job, "fresh": fresh}
            shared(entry, config, out, asked, as_json, workers=workers, accept_versions=accept_versions)
            return
        ways = {"fresh": fresh, "workers": workers, "accept_versions": accept_versions, **first.ways(config)}
        with resumable() as move:
            _, report = runner(entry.name)(config, out, progress=move, **ways)
        told(report, out, as_json)

    examples = "\n\n".join(f"  {line}" for line in entry.examples)
    help = f"{entry.about}\n\nExamples:\n\n{examples}\n\nInterrupt it and run the same command again: it continues."
    with_options(command, entry.config, _common(entry.name), help)
    return command


for entry in EXPERIMENTS.values():
    analyze.command(entry.name)(_analysis(entry))


@runs_app.command("list")
def runs_list(folder: Annotated[Path, typer.Argument(help="Folder of runs.")] = Path("runs"), as_json: Json = False) -> None:
    """The runs below a folder: when last written, size, experiment, model, items, state.

    Example: cos runs list --json
    """
    from cos_interp.analyses.driver.overview import overview

    rows = [overview(path.parent) for path in sorted(folder.glob("*/run.json"))]
    if as_json:
        print_json([row.data() for row in rows])
        return
    for row in rows:
        typer.echo(row.line())
    if not rows:
        typer.echo(f"no runs below {folder}")


@runs_app.command("show")
def runs_show(run: Annotated[Path, typer.Argument(help="Run folder.")], as_json: Json = False) -> None:
    """What a run was asked, with which model and versions, its state, and its verdicts.

    Example: cos runs show runs/recovery
    """
    from cos_interp.analyses.driver.identity import begun_with
    from cos_interp.analyses.driver.overview import overview
    from cos_interp.analyses.driver.store import RunError, RunStore

    facts = RunStore(run).facts()
    if facts is None:
        raise Failure(f"{run} holds no run")
    findings: Sequence[Finding] = ()
    unread = None
    try:
        findings = load(run).findings if facts.get("status") == "complete" else ()
    except RunError as error:
        unread = str(error)
    if as_json:
        print_json({**facts, "findings": [finding.data() for finding in findings], "unread": unread})
        return
    typer.echo(overview(run).line())
    typer.echo(f"{facts['command']}")
    for key in ("error", "model", "versions"):
        if key in facts:
            typer.echo(f"{key}: {_inline(facts[key])}")
    if earlier := begun_with(facts):
        typer.echo(f"begun with: {earlier}")
    for finding in findings:
        typer.echo(f"- {finding.line()}")
    if unread:
        raise Failure(unread)


def _inline(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items() if not isinstance(v, dict)) if isinstance(value, dict) else str(value)


@runs_app.command("verify")
def runs_verify(run: Annotated[Path, typer.Argument(help="Run folder.")], as_json: Json = False) -> None:
    """Check that a run is complete, that every file is as it was written, and that none was added.

    Example: cos runs verify runs/patching
    """
    from cos_interp.analyses.driver.store import RunStore

    problems = RunStore(run).verify()
    if as_json:
        print_json({"run": str(run), "problems": problems})
    elif not problems:
        typer.echo(f"{run}: complete, every file is as it was written")
    if problems and not as_json:
        raise Failure("; ".join(problems))
    if problems:
        raise typer.Exit(1)


@runs_app.command("merge")
def runs_merge(
    runs: Annotated[list[Path], typer.Argument(help="Run folders with shards of one command.")],
    out: Annotated[Path, typer.Option(help="Where their units go; one of the folders, or another.")],
    as_json: Json = False,
) -> None:
    """Put shards that were made in folders of their own together in one. Their digests are checked; another run is refused.

    Example: cos runs merge runs/part-1 runs/part-2 --out runs/whole
    """
    from cos_interp.analyses.driver.merging import merge

    made = merge(runs, out)
    if as_json:
        print_json({"run": str(out), "units": made.units, "copied": made.copied})
        return
    typer.echo(f"{made.units} units, of which {made.copied} were copied to {out}: cos runs finish {out}")


@runs_app.command("finish")
def runs_finish(
    run: Annotated[Path, typer.Argument(help="Run folder whose units are all there.")],
    accept_versions: Annotated[bool, typer.Option("--accept-versions", help="Finish units of other library versions.")] = False,
    as_json: Json = False,
) -> None:
    """Write results, findings and report of a run that was computed in shards. What is missing is named, with its shard.

    Example: cos runs finish runs/patching
    """
    from cos_interp.analyses.driver.finishing import finish

    told(finish(run, EXPERIMENTS, accept_versions), run, as_json)


@runs_app.command("watch")
def runs_watch(run: Annotated[Path, typer.Argument(help="Run folder.")], as_json: Json = False) -> None:
    """How far each shard of a run has come, and who is at it. Goes on until all units are there; one look where the output is
    no terminal, or JSON.

    Example: cos runs watch runs/patching
    """
    watched(run, EXPERIMENTS, as_json)


@runs_app.command("rm")
def runs_rm(run: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Delete a run: its own files, and the folder when nothing else is in it.

    Example: cos runs rm runs/recovery
    """
    from cos_interp.analyses.driver.store import RunStore

    left = RunStore(run).remove()
    typer.echo(f"the run in {run} is deleted; left are {', '.join(left)}" if left else f"{run} is deleted")


def outside_runs(path: Path) -> Path:
    """A file that is asked for, which lies in no run folder: what is there is sealed. Failure for one that does."""
    inside = next((above for above in path.absolute().parents if (above / "run.json").exists()), None)
    if inside is not None:
        raise Failure(f"{inside} is a run folder, which holds no other files: give another place than {path} (--out)")
    return path


@report_app.command("draw")
def report_draw(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    single_file: Annotated[Path | None, typer.Option(help="Of a dossier: all its pages in this one file, to be sent.")] = None,
) -> None:
    """Draw the page of a finished run again, without a model. Units and results stay as they are.

    Examples: cos report draw runs/recovery; cos report draw runs/all --single-file all.html
    """
    if single_file is None:
        typer.echo(f"Report: {draw(run).resolve()}")
        return
    from cos_interp.analyses.dossier.again import in_one_file
    from cos_interp.analyses.driver.store import RunStore

    name = (RunStore(run).facts() or {}).get("analysis")
    if name != "all":
        held = f"a run of {name}, whose page is one file already" if name else "no run"
        raise Failure(f"--single-file is for dossiers, and {run} holds {held}")
    write_file(outside_runs(single_file), in_one_file(run).encode())
    typer.echo(f"Report: {single_file.resolve()}")


@report_app.command("findings")
def report_findings(
    dossiers: Annotated[list[Path] | None, typer.Argument(help="Run folders of dossiers: other models, other items.")] = None,
    out: Annotated[Path, typer.Option(help="Markdown file; figures go to media beside it.")] = Path("findings.md"),
    opening: Annotated[Path | None, typer.Option(help="A text file that stands before the claims.")] = None,
    numbers: Annotated[Path | None, typer.Option(help="JSON of all numbers; what it holds of other runs stays.")] = None,
) -> None:
    """What several dossiers say together: a page with every claim, its numbers in each, and the verdict that all have.

    Examples: cos report findings runs/findings/seen runs/findings/unseen --out docs/findings.md; cos report findings runs/noise
    --numbers docs/findings.json --out docs/findings.md
    """
    from cos_interp.analyses.dossier import numbers as file
    from cos_interp.analyses.dossier.page import figures_of
    from cos_interp.analyses.dossier.text import markdown
    from cos_interp.analyses.dossier.together import joined, told

    outside_runs(out)
    runs = [load(folder) for folder in dossiers or ()]
    found = [told(run) for run in runs]
    made = joined(found) if numbers is None else file.added(file.read(numbers), found)
    if not made:
        raise Failure("there are no findings: give a dossier, or --numbers with a file that holds some")
    text = markdown(made, opening.read_text(encoding="utf-8") if opening else "")
    for name, figure in figures_of(dossiers or ()).items():
        write_file(out.parent / "media" / name, figure)
    if numbers is not None:
        write_file(numbers, file.written(made))
    write_file(out, text.encode())
    typer.echo(f"Findings: {out.resolve()}")


@report_app.command("account")
def report_account(
    runs: Annotated[list[Path], typer.Argument(help="Runs of posterior, seed-choice, circuit or steering, or dossiers.")],
    out: Annotated[Path, typer.Option(help="Markdown file; figures go to media beside it.")] = Path("plan.md"),
    opening: Annotated[Path | None, typer.Option(help="A text file that stands before the chapters.")] = None,
    trained: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=STEPS", help="A model of the runs, and its steps of training: a figure of when it forms."),
    ] = None,
) -> None:
    """Where a plan comes from, as several runs find it: an article with their figures, numbers and commands.

    Examples: cos report account runs/findings/seed1 runs/findings/seed2 runs/circuit-place --out docs/plan.md;
    cos report account runs/step-4000 runs/step-12000 --trained step-4000=4000 --trained step-12000=12000
    """
    from cos_interp.analyses.reporting import account, formation

    outside_runs(out)
    steps = formation.steps_of(trained or ())
    made = account.chapters([load(folder) for folder in account.folders(runs)], EXPERIMENTS)
    formed = formation.along({chapter.name: chapter.runs for chapter in made}, steps) if steps else None
    if formed is not None:
        write_file(out.parent / "media" / formation.FIGURE, formation.drawn(formed, account.CHAPTERS).svg.encode())
    for chapter in made:
        if chapter.figure is not None:
            write_file(out.parent / "media" / chapter.figure[0], chapter.figure[1].encode())
    text = opening.read_text(encoding="utf-8") if opening else ""
    write_file(out, account.article(made, text, formed).encode())
    typer.echo(f"Account: {out.resolve()}")


@report_app.command("figures")
def report_figures(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    folder: Annotated[Path, typer.Argument(help="Where the files go.")],
) -> None:
    """Every figure of a finished run for a paper: SVG, PDF, its numbers as CSV, and a paragraph on methods in methods.md.

    Example: cos report figures runs/noise paper/noise
    """
    from cos_interp.analyses.reporting.paper import METHODS, files

    outside_runs(folder / "any")
    made = files(run, EXPERIMENTS)
    refuse_other_content(folder, made)
    for name, data in made.items():
        write_file(folder / name, data)
    typer.echo(f"{len(made)} files written to {folder}, the methods to {METHODS}")


@report_app.command("compare")
def report_compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of one experiment; differences are to the first.")],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("compare.html"),
    as_json: Json = False,
) -> None:
    """How runs of other models, checkpoints, seeds or guidance differ: claim by claim, and along noise levels and depth.

    Example: cos report compare runs/base runs/tuned --out base-tuned.html
    """
    from cos_interp.analyses.reporting.compare import compared

    outside_runs(out)
    held = [load(folder) for folder in runs]
    page, data = compared(held, EXPERIMENTS[held[0].name])
    write_file(out, page.encode())
    if as_json:
        print_json({"report": str(out), **data})
        return
    typer.echo(f"Report: {out.resolve()}")


@report_app.command("index")
def report_index(
    folder: Annotated[Path, typer.Argument(help="Folder of runs, at any depth.")] = Path("runs"),
    out: Annotated[Path | None, typer.Option(help="The page; index.html in the folder by default.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file of every run, too.")] = False,
    as_json: Json = False,
) -> None:
    """All runs below a folder on one page: state, model, and the verdict on each claim. Damaged runs are listed as such.

    Example: cos report index runs
    """
    from cos_interp.analyses.reporting.index import index

    path = outside_runs(folder / "index.html" if out is None else out)
    page, data = index(folder, path, verify)
    write_file(path, page.encode())
    if as_json:
        print_json({"report": str(path), "runs": data})
        return
    typer.echo(f"{len(data)} runs, {sum(run['state'] == 'damaged' for run in data)} damaged. Report: {path.resolve()}")
