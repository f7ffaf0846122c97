"""The ``cos`` command. Heavy libraries are imported inside the commands, so that help answers at once."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # parallelism is by processes; a thread pool would not survive the fork
for quiet in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
    os.environ.setdefault(quiet, "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import typer

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Find out at which denoising step, in which layer and in which tokens a video diffusion transformer computes its "
    "answer, and prove it causally. Add --debug anywhere for a traceback.",
)  # fmt: skip
analyze = typer.Typer(no_args_is_help=True, help="Experiments. Each writes a run folder with an HTML report.")
tasks_app = typer.Typer(no_args_is_help=True, help="The controlled video-reasoning tasks and their verifiers.")
organism_app = typer.Typer(no_args_is_help=True, help="The small trained model that ships with the tool.")
runs_app = typer.Typer(no_args_is_help=True, help="Finished and interrupted runs.")
for name, group in (("analyze", analyze), ("tasks", tasks_app), ("organism", organism_app), ("runs", runs_app)):
    app.add_typer(group, name=name)

Json = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")]


class Failure(Exception):
    """A message for the user; exit code 1."""


def numbers(text: str | None, what: str) -> tuple[int, ...] | None:
    """``0,4,8`` or ``0:8`` or ``0:8:2`` as integers; None stays None."""
    if text is None:
        return None
    try:
        if ":" in text:
            return tuple(range(*(int(part) for part in text.split(":"))))
        return tuple(int(part) for part in text.split(","))
    except (ValueError, TypeError):
        raise Failure(f"--{what} {text!r}: give numbers like 0,4,8 or a range like 0:8 or 0:8:2") from None


def words(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def progress_bar() -> tuple[Any, Any]:
    """A bar with time left, and the callback that moves it; silent when the output is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"))
    bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
    task = bar.add_task("starting")

    def move(done: int, total: int, what: str) -> None:
        bar.update(task, completed=done, total=total, description=what)

    return bar, move


# --- analyze -----------------------------------------------------------------------------------------------------


@analyze.command("patching")
def analyze_patching(
    model: Annotated[str, typer.Option(help="'organism', a folder in diffusers format, or a hub id.")] = "organism",
    task: Annotated[str, typer.Option(help="maze, occlusion, bounce or place.")] = "maze",
    pair_kind: Annotated[str, typer.Option(help="Kinds of pairs: prompt, image, seed; several with commas.")] = "prompt,seed",
    pairs: Annotated[int, typer.Option(help="Pairs of each kind.")] = 3,
    num_steps: Annotated[int, typer.Option(help="Denoising steps of every run.")] = 8,
    guidance: Annotated[float, typer.Option(help="Guidance scale; 1 is none.")] = 1.0,
    steps: Annotated[str | None, typer.Option(help="Patched steps: 0,4,8 or 0:8:2. All by default.")] = None,
    layers: Annotated[str | None, typer.Option(help="Patched layers. All by default.")] = None,
    sites: Annotated[
        str, typer.Option(help="Sites, with commas: hook_resid_post, attn.hook_z, hook_x_t, ...")
    ] = "hook_resid_post",
    heads: Annotated[str | None, typer.Option(help="Heads, each patched alone (for attn.hook_z).")] = None,
    tokens: Annotated[str | None, typer.Option(help="Token groups, with commas. All by default.")] = None,
    frames: Annotated[str | None, typer.Option(help="Latent frames, each patched alone.")] = None,
    direction: Annotated[str, typer.Option(help="denoising or noising.")] = "denoising",
    span: Annotated[
        str, typer.Option("--range", help="single, from (step k on), until (up to step k), or auto: from, for seed pairs single.")
    ] = "auto",
    branch: Annotated[str, typer.Option(help="cond, uncond or both.")] = "both",
    seed: Annotated[int, typer.Option(help="Picks the pairs and their noises.")] = 0,
    controls: Annotated[bool, typer.Option(help="Random donor, same-answer donor, self, whole x_t.")] = True,
    batch: Annotated[int, typer.Option(help="Patched rows in one forward; 1 is exact to the bit.")] = 1,
    workers: Annotated[int | None, typer.Option(help="Processes. One a core by default.")] = None,
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/patching"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete a run that is in the folder and start again.")] = False,
    as_json: Json = False,
) -> None:
    """Activation patching over steps, layers and token groups, with controls.

    Examples:

      cos analyze patching

      cos analyze patching --task place --pair-kind prompt --pairs 8 --out runs/place

      cos analyze patching --sites attn.hook_z --heads 0,1,2,3 --steps 0:10:3 --tokens goals,donor_route

      cos analyze patching --range single --direction noising --out runs/single

    Interrupt it and run the same command again: it continues.
    """
    from pydantic import ValidationError

    from analyses.patching import PatchingConfig

    settings = {
        "model": model, "task": task, "pair_kinds": words(pair_kind), "pairs": pairs, "num_inference_steps": num_steps,
        "guidance_scale": guidance, "steps": numbers(steps, "steps"), "layers": numbers(layers, "layers"),
        "sites": words(sites), "heads": numbers(heads, "heads"), "tokens": words(tokens),
        "frames": numbers(frames, "frames"), "direction": direction, "span": span, "branch": branch, "seed": seed,
        "controls": controls, "batch": batch,
    }  # fmt: skip
    try:
        config = PatchingConfig(**settings)
    except ValidationError as error:
        raise Failure("; ".join(_explain(e) for e in error.errors())) from error
    from analyses.patching_run import run_and_report

    bar, move = progress_bar()
    try:
        with bar:
            result, report = run_and_report(config, out, fresh=fresh, workers=workers, progress=move)
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to continue", err=True)
        raise typer.Exit(130) from None
    from analyses.patching_summary import headline, table

    if as_json:
        print(json.dumps({"report": str(report), "headline": headline(result.rows), "table": table(result.rows)}))
        return
    for line in headline(result.rows):
        typer.echo(f"- {line}")
    typer.echo(f"Report: {report.resolve()}")


def _explain(error: dict[str, Any]) -> str:
    from analyses.command import FLAGS

    field = str(error["loc"][0]) if error["loc"] else ""
    message = str(error["msg"]).removeprefix("Value error, ")
    if not field:
        return message
    flag = FLAGS.get(field, f"--{field.replace('_', '-')}")
    return f"{flag} {error.get('input')!r}: {message}"


# --- tasks -------------------------------------------------------------------------------------------------------


@tasks_app.command("list")
def tasks_list(as_json: Json = False) -> None:
    """The tasks, their difficulty scales and the errors that their verifiers name.

    Example: cos tasks list --json
    """
    from tasks import TASKS

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
    from tasks import get_task
    from tasks.text import as_text

    item = get_task(task).sample(seed, difficulty)
    facts = {"prompt": item.prompt, "answers": list(item.answers), "answer": item.answer, "difficulty": item.difficulty}
    facts |= {"split": item.split, **item.metadata}
    if out is not None:
        from tasks.video import encode_mp4

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
    from tasks import vbvr

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
    from tasks import vbvr
    from tasks.tally import as_lines, tally

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
    from tasks import get_task
    from tasks import suite as suites

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
    start_from: Annotated[Path | None, typer.Option(help="Continue from this pipeline's weights, its autoencoder kept.")] = None,
) -> None:
    """Train the organism from scratch: autoencoder, then transformer. Run it again to continue after a kill.

    Examples:

      cos organism train --out runs/organism

      cos organism train --device cuda --dit-steps 40000 --out runs/organism-gpu

      cos organism train --start-from organism/weights --dit-steps 2000 --out runs/longer
    """
    from organism.train import Plan, train

    folder = train(Plan(out, workers, dit_steps, vae_steps, device, compiled, start_from))
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
    from organism.evaluate import evaluate
    from tasks.tally import as_lines

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
    from organism.package import save, untrained_twin

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


# --- runs --------------------------------------------------------------------------------------------------------


@runs_app.command("list")
def runs_list(folder: Annotated[Path, typer.Argument(help="Folder of runs.")] = Path("runs"), as_json: Json = False) -> None:
    """The runs below a folder and their state.

    Example: cos runs list --json
    """
    from analyses.store import RunStore

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
    from analyses.store import RunStore

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
