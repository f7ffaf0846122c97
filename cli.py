"""The ``cos`` command: its environment and its groups, each of which lives with its room."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from functools import cache
from importlib import import_module
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # parallelism is by processes; a thread pool would not survive the fork
for quiet in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
    os.environ.setdefault(quiet, "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
for talkative in ("torchao", "torch.utils._pytree"):  # diffusers imports torchao where it is installed
    logging.getLogger(talkative).setLevel(logging.ERROR)

import typer
from typer.core import TyperCommand, TyperGroup

from cos_interp.interp.terminal import Failure, plain_warnings

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Find out at which denoising step, in which layer and in which tokens a video diffusion transformer computes its "
    "answer, and prove it causally. Add --debug anywhere for a traceback.",
)  # fmt: skip
GROUPS = {  # name: where its commands are, and what they are about
    "analyze": ("analyses.commands:analyze", "Experiments. Each writes a run folder with an HTML report."),
    "probe": ("analyses.probing.commands:probe_app", "Linear probes that are kept: train, test, look at, apply."),
    "models": ("interp.check.commands:models_app", "The families of video models, and the proof of their hook names."),
    "tasks": ("tasks.commands:tasks_app", "The controlled video-reasoning tasks and their verifiers."),
    "organism": ("organism.commands:organism_app", "The small trained model that ships with the tool."),
    "runs": ("analyses.commands:runs_app", "Finished and interrupted runs."),
    "report": ("analyses.commands:report_app", "Pages of finished runs."),
    "export": ("analyses.exporting.commands:export_app", "What is made here, for other programs."),
}


SEVERAL = "several values in one, with commas, where it takes several"


class OnceEach(TyperCommand):
    """A command that refuses an option which is given twice: only the last would count, and the others be left out unsaid."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does, after a first look. Click's UsageError names what stands there twice."""
        _, _, said = self.make_parser(ctx).parse_args(args=[*args])
        for option, times in Counter(said).items():
            if times > 1 and not (getattr(option, "multiple", False) or option.is_eager):
                flags = " or ".join([*option.opts, *option.secondary_opts])
                ctx.fail(f"{flags} is given {times} times, of which the last would count: give it once ({SEVERAL})")
        return super().parse_args(ctx, args)


def _lazy(where: str) -> type[TyperGroup]:
    """A group whose commands are imported when one of them is asked for, so that ``cos --help`` answers at once."""

    @cache
    def found() -> TyperGroup:
        module, _, name = where.partition(":")
        room = getattr(import_module(f"cos_interp.{module}"), name)
        room.rich_markup_mode = app.rich_markup_mode
        for command in room.registered_commands:
            command.cls = OnceEach
        return typer.main.get_group(room)

    class Lazy(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            self.commands = found().commands
            return super().list_commands(ctx)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            self.commands = found().commands
            return super().get_command(ctx, cmd_name)

    return Lazy


for name, (where, about) in GROUPS.items():
    app.add_typer(typer.Typer(cls=_lazy(where), no_args_is_help=True, help=about), name=name)


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
