"""The ``cos`` command: its environment and its groups, each of which lives with its room."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

os.environ.setdefault("OMP_NUM_THREADS", "1")  # parallelism is by processes; a thread pool would not survive the fork
for quiet in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
    os.environ.setdefault(quiet, "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
for talkative in ("torchao", "torch.utils._pytree"):  # diffusers imports torchao where it is installed
    logging.getLogger(talkative).setLevel(logging.ERROR)

import typer

from cos_interp.analyses.commands import analyze, report_app, runs_app
from cos_interp.analyses.exporting.commands import export_app
from cos_interp.analyses.probing.commands import probe_app
from cos_interp.interp.check.commands import models_app
from cos_interp.interp.terminal import Failure, plain_warnings
from cos_interp.organism.commands import organism_app
from cos_interp.tasks.commands import tasks_app

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Find out at which denoising step, in which layer and in which tokens a video diffusion transformer computes its "
    "answer, and prove it causally. Add --debug anywhere for a traceback.",
)  # fmt: skip
GROUPS = {
    "analyze": analyze, "probe": probe_app, "models": models_app, "tasks": tasks_app, "organism": organism_app, "runs": runs_app,
    "report": report_app, "export": export_app,
}  # fmt: skip
for name, group in GROUPS.items():
    app.add_typer(group, name=name)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from importlib.metadata import version as of

        typer.echo(of("cos-interp"))
        raise typer.Exit


def main() -> None:
    """Run the command line; known errors become one line and exit code 1."""
    debug = "--debug" in sys.argv
    sys.argv = [a for a in sys.argv if a != "--debug"]
    plain_warnings()
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
