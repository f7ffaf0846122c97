"""``cos tasks``. Heavy libraries are imported inside the commands, so that help answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cos_interp.interp.terminal import Failure, Json, print_json, progress_bar, refuse_other_content, write_file, writing
from cos_interp.tasks import NAMES

tasks_app = typer.Typer()


@tasks_app.command("list")
def tasks_list(as_json: Json = False) -> None:
    """The tasks, their difficulty scales and the errors that their verifiers name; and those that installed packages declare.

    Example: cos tasks list --json
    """
    from cos_interp.tasks import TASKS, outside

    rows = [
        {
            "task": t.name, "about": t.about,
            "difficulty": f"{t.difficulties.start}-{t.difficulties.stop - 1}: {t.difficulty_unit}", "errors": list(t.errors),
        }
        for t in TASKS.values()
    ]  # fmt: skip
    # declared by packages, which are not imported to be listed
    others = [{"task": name, "declared": found.value} for name, found in outside.declared(outside.TASK_GROUP).items()]
    if as_json:
        print_json([*rows, *others])
        return
    for row in rows:
        typer.echo(f"{row['task']}: {row['about']}\n  difficulty {row['difficulty']}\n  errors: {', '.join(row['errors'])}")
    for other in others:
        typer.echo(f"{other['task']}: of an installed package ({other['declared']}); cos tasks check {other['task']}")


@tasks_app.command("show")
def tasks_show(
    task: Annotated[str, typer.Argument(help=f"One of {', '.join(NAMES)}.")],
    seed: Annotated[int, typer.Option(min=0, help="The item's seed.")] = 0,
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

        write_file(out, encode_mp4(item.video))
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        typer.echo(f"{key}: {value}")
    typer.echo(as_text(item.cells))


@tasks_app.command("check")
def tasks_check(
    task: Annotated[str, typer.Argument(help="my.py:MyTask (the file is executed), an installed one, or one in the box.")],
    items: Annotated[int, typer.Option(min=2, help="How many of its items.")] = 20,
    as_json: Json = False,
) -> None:
    """Is a task fit to be used: the same items twice, true videos accepted; frozen, reversed, faded and foreign ones refused.

    Example: cos tasks check my.py:MyTask
    """
    from cos_interp.tasks.check import check

    found = check(task, items)
    failed = [one for one in found if one.passed is False]
    if as_json:
        print_json([{"check": one.name, "passed": one.passed, "text": one.text} for one in found])
    else:
        for one in found:
            typer.echo(one.line())
    if failed and not as_json:
        raise Failure(f"{len(failed)} of {len(found)} checks failed: {task} is not fit to be used")
    if failed:
        raise typer.Exit(1)


@tasks_app.command("export")
def tasks_export(
    folder: Annotated[Path, typer.Argument(help="Where to write.")],
    task: Annotated[str | None, typer.Option(help="One task only.")] = None,
    suite: Annotated[str, typer.Option(help="The suite.")] = "cos-500",
) -> None:
    """Write a suite in the layout of VBVR-Bench, for any video model.

    Example: cos tasks export data/cos-500, then generate MODEL/cos-500/maze/00000.mp4 and so on
    """
    refuse_other_content(folder)
    from cos_interp.tasks import vbvr

    items = _suite_items(suite, task)
    with writing(folder):
        typer.echo(f"{vbvr.export(folder, items, suite)} items written to {folder}")


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

    if not video_dir.is_dir():
        raise Failure(f"{video_dir} is no folder: it must hold <split>/<task>/<00000>.mp4, as cos tasks export names them")
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
        print_json({"summary": summary, "items": each})
        return
    for line in (*as_lines(summary), *vbvr.unread(scored)):
        typer.echo(line)


def _suite_items(suite: str, task: str | None) -> tuple:
    from cos_interp.tasks import get_task
    from cos_interp.tasks import suite as suites

    if task is None:
        return suites.load(suite)
    get_task(task)
    return tuple(item for item in suites.task_items(task) if suite == suites.NAME) or suites.load(suite)
