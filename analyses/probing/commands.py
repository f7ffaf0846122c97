"""The ``cos probe`` commands. Heavy libraries are imported inside them, so that help answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cos_interp.analyses.driver.options import configured, with_options
from cos_interp.analyses.probing import TrainConfig
from cos_interp.interp.terminal import Failure, Json, print_json, progress_bar
from cos_interp.tasks import NAMES

probe_app = typer.Typer(no_args_is_help=True, help="Linear probes that are kept: train, test, look at, apply.")

EVERY = ",".join(NAMES)
KINDS = "logistic, ridge-classifier, mean-difference, linear-svm, pca+logistic."
Model = Annotated[str, typer.Option(help="'organism', a folder in diffusers format, a hub id, or tiny:NAME.")]
Tasks = Annotated[str, typer.Option(help="Tasks, with commas.")]
Items = Annotated[int, typer.Option(help="Items of cos-500 of each task.")]
Steps = Annotated[int, typer.Option("--num-steps", help="Denoising steps of every run.")]
Seed = Annotated[int, typer.Option(help="Picks the noises.")]
Force = Annotated[bool, typer.Option("--force", help="Use probes of a model with other weights.")]
Probes = Annotated[Path, typer.Argument(help="Folder of saved probes.")]


def _suite(**given: Any) -> Any:
    from cos_interp.analyses.driver.command import words
    from cos_interp.analyses.probing.training import suite_config

    return suite_config(**{k: words(v) if k == "tasks" else v for k, v in given.items()})


def _train(*, out: Path, overwrite: bool, as_json: bool, **given: Any) -> None:
    config = configured(TrainConfig, given)
    if not overwrite and out.exists() and any(out.iterdir()):
        raise Failure(f"{out} is not empty: choose another --out, or --overwrite the probes in it")
    from cos_interp.analyses.probing.training import train

    bar, move = progress_bar()
    with bar:
        best = train(config, out, move)
    if as_json:
        print_json({"folder": str(out), "best": best})
        return
    typer.echo(f"best: layer {best['layer']}, step {best['step']}: {best['score']:.2f} [{best['low']:.2f}, {best['high']:.2f}]")
    baselines = ("majority", "shuffled", "control", "x_t", "first frame", "position")
    typer.echo("baselines: " + ", ".join(f"{k} {best[k]:.2f}" for k in baselines if k in best))
    typer.echo(f"Probes: {out.resolve()}")


with_options(
    _train,
    TrainConfig,
    {
        "out": (Path, ..., typer.Option(help="Folder for the probes.")),
        "overwrite": (bool, False, typer.Option("--overwrite", help="Replace probes that are in the folder.")),
        "as_json": (bool, False, typer.Option("--json", help="Print machine-readable JSON.")),
    },
    """Train probes of one target at layers and steps, cross-validated by clip, and save them with their card.

    Examples:

      cos probe train --target on_path --out runs/probes/on_path

      cos probe train --target next_direction --tasks maze --layers 3,4,5 --kind linear-svm --out runs/probes/turns
    """,
)
probe_app.command("train")(_train)


@probe_app.command("eval")
def probe_eval(
    folder: Probes,
    skip: Annotated[int, typer.Option(help="First item of each task, so that no trained clip is tested.")] = 100,
    model: Model = "organism",
    tasks: Tasks = EVERY,
    items: Items = 20,
    num_steps: Steps = 20,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Test saved probes on clips that they were not trained on.

    Example: cos probe eval runs/probes/on_path --skip 100 --items 20
    """
    from cos_interp.analyses.probing.training import evaluate

    config = _suite(model=model, tasks=tasks, items=items, num_inference_steps=num_steps, seed=seed)
    bar, move = progress_bar()
    with bar:
        rows = evaluate(folder, config, skip, force, move)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        interval = f"{row['score']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        typer.echo(f"{row['name']} step {row['step']}: {interval} on {row['n_clips']} clips; {row['trained']:.2f} at training")


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
        best = f"{row['probes']} probes, best {row['score']:.2f} at {row['best']}"
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
    from cos_interp.probes.persistence import read_card

    card = read_card(folder)
    if as_json:
        print_json(card)
        return
    for part in ("target", "probe", "model", "versions"):
        typer.echo(f"{part}: " + ", ".join(f"{k} {v}" for k, v in card[part].items() if k != "names"))
    typer.echo(f"data: {len(card['data']['clips'])} clips, {card['data']['rows']} tokens, {card['data']['balance']}")
    for row in sorted(card["scores"], key=lambda row: -row["score"])[:10]:
        typer.echo(f"{row['name']} step {row['step']} (sigma {row['sigma']:.2f}): {row['score']:.2f}")


@probe_app.command("apply")
def probe_apply(
    folder: Probes,
    out: Annotated[Path, typer.Option(help="The overlay video (mp4).")],
    task: Annotated[str, typer.Option(help=f"One of {', '.join(NAMES)}.")] = "maze",
    item: Annotated[int, typer.Option(help="Number of the item of cos-500.")] = 0,
    layer: Annotated[int | None, typer.Option(help="Layer; with --step. The best probe by default.")] = None,
    step: Annotated[int | None, typer.Option(help="Step; with --layer.")] = None,
    model: Model = "organism",
    num_steps: Steps = 20,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Generate an item and draw a probe's predictions over all its tokens, beside the video.

    Example: cos probe apply runs/probes/on_path --task maze --item 3 --layer 4 --step 6 --out overlay.mp4
    """
    from cos_interp.analyses.probing.training import apply

    config = _suite(model=model, tasks=task, num_inference_steps=num_steps, seed=seed)
    facts = apply(folder, config, task, item, layer, step, force, out)
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        typer.echo(f"{key}: {value}")
