"""The ``cos probe`` commands. Heavy libraries are imported inside them, so that help answers at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cos_interp.analyses.driver.options import configured, with_options
from cos_interp.analyses.probing import ApplyConfig, EvalConfig, FollowConfig, TrainConfig
from cos_interp.interp.terminal import Failure, Json, check_writable, print_json, progress_bar

probe_app = typer.Typer()

Probes = Annotated[Path, typer.Argument(help="Folder of saved probes.")]
FOLDER = {"folder": (Path, ..., typer.Argument(help="Folder of saved probes."))}
AS_JSON = {"as_json": (bool, False, typer.Option("--json", help="Print machine-readable JSON."))}


def _number(score: float | None) -> str:
    return "no score" if score is None else f"{score:.2f}"


def _scored(row: Mapping[str, Any]) -> str:
    """A score with its interval, where its clips give one."""
    bounded = math.isfinite(row["low"]) and math.isfinite(row["high"])
    return f"{row['score']:.2f}" + (f" [{row['low']:.2f}, {row['high']:.2f}]" if bounded else "")


def _train(*, out: Path, overwrite: bool, as_json: bool, **given: Any) -> None:
    config = configured(TrainConfig, given)
    if not overwrite and out.exists() and any(out.iterdir()):
        raise Failure(f"{out} is not empty: choose another --out, or --overwrite the probes in it")
    check_writable(out)
    from cos_interp.analyses.probing.training import train

    bar, move = progress_bar()
    with bar:
        best = train(config, out, move)
    if as_json:
        print_json({"folder": str(out), "best": best})
        return
    typer.echo(f"best: layer {best['layer']}, step {best['step']}: {_scored(best)}")
    baselines = ("majority", "shuffled", "control", "x_t", "first frame", "position")
    typer.echo("baselines: " + ", ".join(f"{k} {best[k]:.2f}" for k in baselines if k in best))
    typer.echo(f"Probes: {out.resolve()}")


with_options(
    _train,
    TrainConfig,
    {
        "out": (Path, ..., typer.Option(help="Folder for the probes.")),
        "overwrite": (bool, False, typer.Option("--overwrite", help="Replace probes that are in the folder.")),
        **AS_JSON,
    },
    """Train probes of one target at layers and steps, cross-validated by clip, and save them with their card.

    Examples:

      cos probe train --target on_path --out runs/probes/on_path

      cos probe train --target next_direction --tasks maze --layers 3,4,5 --kind linear-svm --out runs/probes/turns
    """,
)
probe_app.command("train")(_train)


def _eval(*, folder: Path, as_json: bool, **given: Any) -> None:
    config = configured(EvalConfig, given)
    from cos_interp.analyses.probing.training import evaluate

    bar, move = progress_bar()
    with bar:
        rows = evaluate(folder, config, move)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        here = f"{row['name']} step {row['step']}: {_scored(row)} on {row['n_clips']} clips"
        typer.echo(f"{here}; {row['trained']:.2f} at training")


with_options(
    _eval,
    EvalConfig,
    {**FOLDER, **AS_JSON},
    """Test saved probes on clips that they were not trained on.

    Example: cos probe eval runs/probes/on_path --skip 100 --items 20
    """,
)
probe_app.command("eval")(_eval)


@probe_app.command("list")
def probe_list(folder: Annotated[Path, typer.Argument(help="Folder.")] = Path("runs/probes"), as_json: Json = False) -> None:
    """Saved probes below a folder.

    Example: cos probe list runs/probes --json
    """
    from cos_interp.analyses.probing.training import listing

    rows = listing(folder)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        if "problem" in row:
            typer.echo(f"{row['folder']}  {row['problem']}")
            continue
        best = f"{row['probes']} probes, best {_number(row['score'])} at {row['best']}"
        typer.echo(f"{row['folder']}  {row['target']}  {row['kind']}  {best}")
    if not rows:
        typer.echo(f"no probes below {folder}")


@probe_app.command("targets")
def probe_targets(as_json: Json = False) -> None:
    """What probes can read, by family.

    Example: cos probe targets
    """
    from cos_interp.analyses.probing.training import target_list

    rows = target_list()
    if as_json:
        print_json(rows)
        return
    for row in rows:
        typer.echo(f"{row['target']:<16} {row['family']:<14} {row['about']} ({row['tasks']})")


@probe_app.command("show")
def probe_show(folder: Probes, as_json: Json = False) -> None:
    """The card of saved probes: target, data, model, versions, scores.

    Example: cos probe show runs/probes/on_path
    """
    from cos_interp.analyses.probing.training import scored
    from cos_interp.probes.persistence import read_card

    card = read_card(folder)
    if as_json:
        print_json(card)
        return
    for part in ("target", "probe", "model", "versions"):
        typer.echo(f"{part}: " + ", ".join(f"{k} {v}" for k, v in card[part].items() if k != "names"))
    typer.echo(f"data: {len(card['data']['clips'])} clips, {card['data']['rows']} tokens, {card['data']['balance']}")
    for row in scored(card)[:10]:
        typer.echo(f"{row['name']} step {row['step']} (sigma {row['sigma']:.2f}): {_number(row['score'])}")


def _apply(*, folder: Path, out: Path, as_json: bool, **given: Any) -> None:
    config = configured(ApplyConfig, given)
    check_writable(out, is_file=True)
    from cos_interp.analyses.probing.training import apply

    facts = apply(folder, config, out)
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        typer.echo(f"{key}: {value}")


with_options(
    _apply,
    ApplyConfig,
    {**FOLDER, "out": (Path, ..., typer.Option(help="The overlay video (mp4).")), **AS_JSON},
    """Draw a probe's predictions over all tokens of a generated item, or of a clip that the model's flow inverts.

    Examples:

      cos probe apply runs/probes/on_path --task maze --item 3 --layer 4 --step 6 --out overlay.mp4

      cos probe apply runs/probes/on_path --video clip.mp4 --prompt "roll the ball forward" --out overlay.mp4
    """,
)
probe_app.command("apply")(_apply)


def _follow(*, out: Path, as_json: bool, **given: Any) -> None:
    config = configured(FollowConfig, given)
    check_writable(out, is_file=True)
    from cos_interp.analyses.probing.following import follow

    facts = follow(config, out)
    if as_json:
        print_json(facts)
        return
    typer.echo(f"Clip: {facts['clip']}")
    typer.echo(f"{facts['at']}; round trip error {facts['round trip error']:.3f}")
    for at in facts["track"]:
        place = f"frame {at['frame']}: row {at['row']}, column {at['col']}"
        typer.echo(f"{place}; {at['others']:.0%} of the other tokens' queries find the same")
    typer.echo(f"Video: {facts['video']}")


with_options(
    _follow,
    FollowConfig,
    {"out": (Path, ..., typer.Option(help="The clip with the track over it (mp4).")), **AS_JSON},
    """Follow a token of a clip through its frames by matching queries to keys, on the model's own way to that clip.

    Example: cos probe follow --video clip.mp4 --prompt "roll the ball forward" --cell 2,3 --layer 4 --step 10 --out track.mp4
    """,
)
probe_app.command("follow")(_follow)
