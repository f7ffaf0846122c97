"""The ``cos`` command. Heavy libraries are imported inside the commands, so that help answers at once."""

from __future__ import annotations

import inspect
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # parallelism is by processes; a thread pool would not survive the fork
for quiet in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
    os.environ.setdefault(quiet, "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
for talkative in ("torchao", "torch.utils._pytree"):  # diffusers imports torchao where it is installed
    logging.getLogger(talkative).setLevel(logging.ERROR)

import typer
from pydantic.fields import FieldInfo

from cos_interp.analyses import EXPERIMENTS, runner
from cos_interp.analyses.driver.command import as_text, explain, flag, reader
from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.analyses.probing.commands import probe_app
from cos_interp.interp.terminal import Failure, Json, progress_bar

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Find out at which denoising step, in which layer and in which tokens a video diffusion transformer computes its "
    "answer, and prove it causally. Add --debug anywhere for a traceback.",
)  # fmt: skip
analyze = typer.Typer(no_args_is_help=True, help="Experiments. Each writes a run folder with an HTML report.")
tasks_app = typer.Typer(no_args_is_help=True, help="The controlled video-reasoning tasks and their verifiers.")
organism_app = typer.Typer(no_args_is_help=True, help="The small trained model that ships with the tool.")
models_app = typer.Typer(no_args_is_help=True, help="The families of video models, and the proof of their hook names.")
runs_app = typer.Typer(no_args_is_help=True, help="Finished and interrupted runs.")
GROUPS = {
    "analyze": analyze, "probe": probe_app, "models": models_app, "tasks": tasks_app, "organism": organism_app, "runs": runs_app,
}  # fmt: skip
for name, group in GROUPS.items():
    app.add_typer(group, name=name)

# --- analyze -----------------------------------------------------------------------------------------------------


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    """The command-line option of one setting."""
    text = reader(field.annotation) is not None
    default = field.default if not text or field.default is None else as_text(field.default)
    kind = field.annotation if field.annotation in (bool, int, float) else str
    if not text and kind is str and field.default is None:
        kind = str | None
    flags = [f"{flag(name)}/--no-{flag(name)[2:]}"] if kind is bool else [flag(name)]
    annotation = Annotated[str | None if text else kind, typer.Option(*flags, help=field.description)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _common(name: str) -> list[inspect.Parameter]:
    made = {
        "workers": (int | None, None, typer.Option(help="Processes. One a core by default.")),
        "out": (Path, Path("runs") / name, typer.Option(help="Run folder.")),
        "fresh": (bool, False, typer.Option("--fresh", help="Delete a run that is in the folder and start again.")),
        "as_json": (bool, False, typer.Option("--json", help="Print machine-readable JSON.")),
    }
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(k, keyword, default=d, annotation=Annotated[t, o]) for k, (t, d, o) in made.items()]


def _configured(entry: Entry, given: dict[str, Any]) -> AnalysisConfig:
    """The settings of an analysis from the options of its command; Failure names the option that does not fit."""
    from pydantic import ValidationError

    settings = {}
    for name, field in entry.config.model_fields.items():
        value, read = given[name], reader(field.annotation)
        try:
            settings[name] = read(value) if read and value is not None else value
        except ValueError as error:
            raise Failure(f"{flag(name)} {error}") from None
    try:
        return entry.config(**settings)
    except ValidationError as error:
        raise Failure("; ".join(explain(e) for e in error.errors())) from error


def _analysis(entry: Entry) -> Callable[..., None]:
    """The command of one analysis: its options are the fields of its settings."""

    def command(*, workers: int | None, out: Path, fresh: bool, as_json: bool, **given: Any) -> None:
        config = _configured(entry, given)
        bar, move = progress_bar()
        try:
            with bar:
                _, report = runner(entry.name)(config, out, fresh=fresh, workers=workers, progress=move)
        except KeyboardInterrupt:
            typer.echo("interrupted; run the same command again to continue", err=True)
            raise typer.Exit(130) from None
        page = (out / "report.html").resolve()
        if as_json:
            print(json.dumps({"report": str(out / "report.html"), **report.data}))
            return
        for line in report.lines:
            typer.echo(f"- {line}")
        typer.echo(f"Report: {page}")

    fields = [_option(name, field) for name, field in entry.config.model_fields.items()]
    command.__signature__ = inspect.Signature([*fields, *_common(entry.name)])
    examples = "\n\n".join(f"  {line}" for line in entry.examples)
    command.__doc__ = f"{entry.about}\n\nExamples:\n\n{examples}\n\nInterrupt it and run the same command again: it continues."
    return command


for entry in EXPERIMENTS.values():
    analyze.command(entry.name)(_analysis(entry))


# --- tasks -------------------------------------------------------------------------------------------------------


@tasks_app.command("list")
def tasks_list(as_json: Json = False) -> None:
    """The tasks, their difficulty scales and the errors that their verifiers name.

    Example: cos tasks list --json
    """
    from cos_interp.tasks import TASKS

    rows = [
        {
            "task": t.name, "about": sys.modules[type(t).__module__].__doc__.strip().splitlines()[0],
            "difficulty": f"{t.difficulties.start}-{t.difficulties.stop - 1}: {t.difficulty_unit}", "errors": list(t.errors),
        }
        for t in TASKS.values()
    ]  # fmt: skip
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        typer.echo(f"{row['about']}\n  difficulty {row['difficulty']}\n  errors: {', '.join(row['errors'])}")


@tasks_app.command("show")
def tasks_show(
    task: Annotated[str, typer.Argument(help="maze, occlusion, bounce or place.")],
    seed: Annotated[int, typer.Option(help="The item's seed.")] = 0,
    difficulty: Annotated[int | None, typer.Option(help="Restrict to a difficulty.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the true video here (mp4).")] = None,
    as_json: Json = False,
) -> None:
    """One item: prompt, answer, the video as text, and optionally as a file.

    Example: cos tasks show maze --seed 3 --difficulty 6 --out maze.mp4
    """
    from cos_interp.tasks import get_task
    from cos_interp.tasks.text import as_text

    item = get_task(task).sample(seed, difficulty)
    facts = {"prompt": item.prompt, "answers": list(item.answers), "answer": item.answer, "difficulty": item.difficulty}
    facts |= {"split": item.split, **item.metadata}
    if out is not None:
        from cos_interp.tasks.video import encode_mp4

        out.write_bytes(encode_mp4(item.video))
    if as_json:
        print(json.dumps(facts))
        return
    for key, value in facts.items():
        typer.echo(f"{key}: {value}")
    typer.echo(as_text(item.cells))


@tasks_app.command("export")
def tasks_export(
    folder: Annotated[Path, typer.Argument(help="Where to write.")],
    task: Annotated[str | None, typer.Option(help="One task only.")] = None,
    suite: Annotated[str, typer.Option(help="The suite.")] = "cos-500",
) -> None:
    """Write a suite in the layout of VBVR-Bench, for any video model.

    Example: cos tasks export data/cos-500, then generate MODEL/cos-500/maze/00000.mp4 and so on
    """
    from cos_interp.tasks import vbvr

    typer.echo(f"{vbvr.export(folder, _suite_items(suite, task), suite)} items written to {folder}")


@tasks_app.command("score")
def tasks_score(
    video_dir: Annotated[Path, typer.Argument(help="The model's folder: <split>/<task>/<00000>.mp4 below it.")],
    task: Annotated[str | None, typer.Option(help="One task only.")] = None,
    suite: Annotated[str, typer.Option(help="The suite.")] = "cos-500",
    as_json: Json = False,
) -> None:
    """Score generated videos with the verifiers: solved, wrong (with the error) or undecided. A missing video is not solved.

    Example: cos tasks score outputs/my-model --json
    """
    from cos_interp.tasks import vbvr
    from cos_interp.tasks.tally import as_lines, tally

    bar, move = progress_bar()
    items = _suite_items(suite, task)
    with bar:
        done = iter(range(1, len(items) + 1))
        scored = vbvr.score(video_dir, items, suite, lambda: move(next(done), len(items), "scoring"))
    summary = tally([(item, verdict) for item, _, verdict in scored])
    if as_json:
        each = [
            {
                "file": str(p),
                "status": v.status if v else "missing",
                "error": v.error if v else "",
                "answer": v.answer if v else "",
            }
            for _, p, v in scored
        ]
        print(json.dumps({"summary": summary, "items": each}))
        return
    for line in as_lines(summary):
        typer.echo(line)


def _suite_items(suite: str, task: str | None) -> tuple:
    from cos_interp.tasks import get_task
    from cos_interp.tasks import suite as suites

    if task is None:
        return suites.load(suite)
    get_task(task)
    return tuple(item for item in suites.task_items(task) if suite == suites.NAME) or suites.load(suite)


# --- organism ----------------------------------------------------------------------------------------------------


@organism_app.command("train")
def organism_train(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and the finished pipeline.")] = Path("runs/organism"),
    workers: Annotated[int | None, typer.Option(help="Processes (CPU). One a core by default.")] = None,
    dit_steps: Annotated[int | None, typer.Option(help="Steps of the transformer; the recipe's by default.")] = None,
    vae_steps: Annotated[int | None, typer.Option(help="Steps of each autoencoder stage; the recipe's by default.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Compile the blocks (1.7 times as fast).")] = True,
    start_from: Annotated[Path | None, typer.Option(help="Start from these weights; the decoder too, with --vae-steps.")] = None,
    autoencoder: Annotated[Path | None, typer.Option(help="Pipeline folder whose autoencoder is used as it is.")] = None,
    seed: Annotated[int, typer.Option(help="Of the transformer's first weights and its samples.")] = 0,
) -> None:
    """Train the organism from scratch: autoencoder, then transformer. Run it again to continue after a kill.

    Examples:

      cos organism train --out runs/organism

      cos organism train --device cuda --dit-steps 40000 --out runs/organism-gpu

      cos organism train --start-from organism/weights --dit-steps 2000 --out runs/longer

      cos organism train --autoencoder organism/weights --seed 1 --workers 1 --out runs/seed1
    """
    from cos_interp.organism.train import Plan, train

    folder = train(Plan(out, workers, dit_steps, vae_steps, device, compiled, start_from, autoencoder, seed))
    typer.echo(f"Pipeline: {folder.resolve()}\nMeasure it: cos organism eval --model {folder}")


@organism_app.command("eval")
def organism_eval(
    model: Annotated[str, typer.Option(help="'organism' or a pipeline folder.")] = "organism",
    num_steps: Annotated[int, typer.Option(help="Denoising steps.")] = 20,
    guidance: Annotated[float, typer.Option(help="Guidance scale; 1 is none.")] = 1.0,
    limit: Annotated[int | None, typer.Option(help="First items of each task only.")] = None,
    seed: Annotated[int, typer.Option(help="Noise seed of item i is seed * 1,000,000 + i.")] = 0,
    fresh_items: Annotated[bool, typer.Option("--fresh-items", help="New test items instead of cos-500.")] = False,
    every_step: Annotated[bool, typer.Option("--every-step", help="Also score the clean estimate of every step.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes. One a core by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures to this JSON file.")] = None,
    as_json: Json = False,
) -> None:
    """Accuracy on cos-500, per task, with intervals, from fresh noise.

    Examples:

      cos organism eval

      cos organism eval --every-step --seed 7 --fresh-items --limit 50
    """
    from cos_interp.organism.evaluate import evaluate
    from cos_interp.tasks.tally import as_lines

    bar, move = progress_bar()
    with bar:
        found = evaluate(model, num_steps, guidance, limit, seed, fresh_items, every_step, workers, move)
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n")
    if as_json:
        print(json.dumps(found))
        return
    for line in as_lines(found["final"]):
        typer.echo(line)


@organism_app.command("untrained")
def organism_untrained(
    folder: Annotated[Path, typer.Argument(help="Where to write the pipeline.")],
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
) -> None:
    """Write the untrained twin: the same shapes with random weights, the null model.

    Example: cos organism untrained runs/twin --seed 1
    """
    from cos_interp.organism.package import save, untrained_twin

    save(untrained_twin(seed), folder)
    typer.echo(f"Pipeline: {folder.resolve()}")


@organism_app.command("card")
def organism_card(as_json: Json = False) -> None:
    """What the shipped organism is, how it was trained and what it can do.

    Example: cos organism card
    """
    folder = Path(__file__).resolve().parent / "organism" / "weights"
    path = folder / ("card.json" if as_json else "README.md")
    if not path.is_file():
        raise Failure(f"{path} is missing: this installation has no organism; train one with cos organism train")
    typer.echo(path.read_text())


# --- models ------------------------------------------------------------------------------------------------------


@models_app.command("list")
def models_list(as_json: Json = False) -> None:
    """Supported families by transformer class, those out of reach with the reason, and the tiny pipelines to try.

    Example: cos models list --json
    """
    from cos_interp.interp.families import registry
    from cos_interp.interp.families.tiny import TINY
    from cos_interp.interp.families.unsupported import PIPELINES, REASONS

    supported = [{"transformer": n, "family": a.family, "notes": a.notes} for n, a in sorted(registry().items())]
    missing = [{"name": n, "reason": r} for n, r in {**REASONS, **PIPELINES}.items()]
    if as_json:
        print(json.dumps({"supported": supported, "not_supported": missing, "tiny": list(TINY)}))
        return
    for row in supported:
        typer.echo(f"{row['family']:17} {row['transformer']}" + (f"  ({row['notes']})" if row["notes"] else ""))
    typer.echo("\nNot supported:")
    for row in missing:
        typer.echo(f"{row['name']}: {row['reason']}")
    typer.echo(f"\nTiny random pipelines, as tiny:NAME: {', '.join(TINY)}")


@models_app.command("check")
def models_check(
    model: Annotated[str, typer.Argument(help="organism, a folder, a hub id, or tiny:NAME.")],
    revision: Annotated[str | None, typer.Option(help="Commit of a hub model.")] = None,
    prompt: Annotated[str, typer.Option(help="Text of the generation.")] = "a red ball rolls to the right",
    num_steps: Annotated[int, typer.Option(help="Denoising steps.")] = 2,
    height: Annotated[int | None, typer.Option(help="Pixels; the pipeline's own default if not given.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    frames: Annotated[int | None, typer.Option(help="Pixel frames.")] = None,
    as_json: Json = False,
) -> None:
    """Prove every hook name of a model: it fires, equals a plain forward hook, and an edit there changes the output.

    Examples:
      cos models check tiny:cogvideox
      cos models check THUDM/CogVideoX-2b --height 256 --width 256 --frames 9
    """
    from cos_interp.interp.check.proof import check_adapter, small_call
    from cos_interp.interp.families.tiny import build, call
    from cos_interp.interp.model import HookedVideoPipeline

    if model.startswith("tiny:"):
        name = model.removeprefix("tiny:")
        hooked, keywords = HookedVideoPipeline.from_pipeline(build(name)), call(name, steps=num_steps)
    else:
        hooked = HookedVideoPipeline.from_pretrained(model, **({"revision": revision} if revision else {}))
        own = {k: v for k, v in hooked.defaults.items() if k in ("height", "width")}
        own |= {k: v for k, v in {"height": height, "width": width, "frames": frames}.items() if v is not None}
        keywords = small_call(hooked.pipe, prompt, num_steps, **own)
    report = check_adapter(hooked, **keywords)
    if as_json:
        checks = [{"check": c.title, "names": c.names, "problems": c.problems} for c in report.checks]
        print(json.dumps({"pipeline": report.pipeline, "family": report.family, "passed": report.passed, "checks": checks}))
    else:
        typer.echo(str(report))
    if not report.passed:
        raise typer.Exit(1)


# --- runs --------------------------------------------------------------------------------------------------------


@runs_app.command("list")
def runs_list(folder: Annotated[Path, typer.Argument(help="Folder of runs.")] = Path("runs"), as_json: Json = False) -> None:
    """The runs below a folder and their state.

    Example: cos runs list --json
    """
    from cos_interp.analyses.driver.store import RunStore

    found = [RunStore(p.parent) for p in sorted(folder.glob("*/run.json"))]
    rows = [{"run": str(s.folder), **{k: (s.facts() or {}).get(k) for k in ("analysis", "status")}} for s in found]
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        typer.echo(f"{row['run']}  {row['analysis']}  {row['status']}")
    if not rows:
        typer.echo(f"no runs below {folder}")


@runs_app.command("verify")
def runs_verify(run: Annotated[Path, typer.Argument(help="Run folder.")], as_json: Json = False) -> None:
    """Check that a run is complete and that every file still has its digest.

    Example: cos runs verify runs/patching
    """
    from cos_interp.analyses.driver.store import RunStore

    problems = RunStore(run).verify()
    if as_json:
        print(json.dumps({"run": str(run), "problems": problems}))
    elif not problems:
        typer.echo(f"{run}: complete, every digest holds")
    if problems and not as_json:
        raise Failure("; ".join(problems))
    if problems:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; known errors become one line and exit code 1."""
    debug = "--debug" in sys.argv
    sys.argv = [a for a in sys.argv if a != "--debug"]
    try:
        app(standalone_mode=True)
    except Exception as error:
        if debug:
            raise
        lines = str(error).strip() or type(error).__name__
        known = isinstance(error, (Failure, ValueError, RuntimeError, OSError))
        typer.echo(f"error: {lines}" if known else f"error: {type(error).__name__}: {lines} (see --debug)", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
