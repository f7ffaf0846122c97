"""``cos export``. Heavy libraries are imported inside the commands, so that help answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cos_interp.analyses.driver.options import configured, with_options
from cos_interp.analyses.exporting import ActivationsConfig
from cos_interp.interp.files import whole_folder
from cos_interp.interp.placing import Offload
from cos_interp.interp.terminal import Failure, check_writable, print_json, progress_bar, refuse_other_content, resumable, writing
from cos_interp.tasks.steps import WRITTEN

export_app = typer.Typer()


@export_app.command("steps")
def export_steps(
    run: Annotated[Path, typer.Argument(help="Run folder whose problems are generated again, by its model.")],
    out: Annotated[Path, typer.Argument(help="Where to write.")],
    layout: Annotated[str, typer.Option(help=f"One of {', '.join(WRITTEN)}.")] = WRITTEN[0],
    device: Annotated[str | None, typer.Option(help="Where to compute. Where the run did by default.")] = None,
    offload: Annotated[Offload | None, typer.Option(help="What waits in host memory. As in the run by default.")] = None,
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
        elsewhere = {name: said for name, said in (("device", device), ("offload", offload)) if said is not None}
        written = export(load(run), made, layout, elsewhere=elsewhere, execute=execute, progress=move)
    typer.echo(f"{len(written)} videos written to {out}")


def _activations(*, out: Path, as_json: bool, **given: Any) -> None:
    config = configured(ActivationsConfig, given)
    check_writable(out)
    from cos_interp.analyses.exporting.activations import export

    with resumable() as move, writing(out):
        held = export(config, out, progress=move)
    if as_json:
        print_json(held)
        return
    rows = sum(held["rows"].values())
    typer.echo(f"{held['items']} items, {rows} rows of {len(held['rows'])} names, {held['bytes']} bytes in {out}")


with_options(
    _activations,
    ActivationsConfig,
    {
        "out": (Path, ..., typer.Argument(help="Where to write, or to go on.")),
        "as_json": (bool, False, typer.Option("--json", help="Print machine-readable JSON.")),
    },
    """Activations by token, with their columns and labels, as safetensors that a torch data set reads, while generating.

    Examples:

      cos export activations outputs/rows --tasks maze --items 125 --names "blocks.4.hook_resid_post" --steps 0:20:5

      cos export activations outputs/means --reduce mean --shard-size 64MB --prompts prompts.jsonl

    Interrupt it and run the same command again: it goes on and ends with the same bytes.
    """,
)
export_app.command("activations")(_activations)
