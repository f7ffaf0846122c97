"""``cos export``. Heavy libraries are imported inside the commands, so that help answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cos_interp.interp.files import whole_folder
from cos_interp.interp.terminal import Failure, check_writable, progress_bar, refuse_other_content, writing
from cos_interp.tasks.steps import WRITTEN

export_app = typer.Typer(no_args_is_help=True, help="What is made here, for other programs.")


@export_app.callback()
def _group() -> None:
    """Keeps ``steps`` a command of its own while it is the only one."""


@export_app.command("steps")
def export_steps(
    run: Annotated[Path, typer.Argument(help="Run folder whose problems are generated again, by its model.")],
    out: Annotated[Path, typer.Argument(help="Where to write.")],
    layout: Annotated[str, typer.Option(help=f"One of {', '.join(WRITTEN)}.")] = WRITTEN[0],
    execute: Annotated[bool, typer.Option("--execute", help="Execute the run's own code, if it is unchanged.")] = False,
) -> None:
    """Every decoded step as a video, with the noise schedule, and labels.csv for people.

    Example: cos export steps runs/chain-of-steps outputs/steps --layout vbvr-checkpoints
    """
    if layout not in WRITTEN:
        raise Failure(f"--layout {layout}: there are {', '.join(WRITTEN)}")
    refuse_other_content(out)
    check_writable(out)
    from cos_interp.analyses import load
    from cos_interp.analyses.exporting.steps import export

    bar, move = progress_bar()
    with bar, writing(out), whole_folder(out) as made:
        written = export(load(run), made, layout, execute=execute, progress=move)
    typer.echo(f"{len(written)} videos written to {out}")
