"""``cos organism``. Heavy libraries are imported inside the commands, so that help answers at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cos_interp.analyses.driver.command import integers
from cos_interp.interp.terminal import Failure, Json, check_writable, print_json, progress_bar, refuse_other_content, write_file

if TYPE_CHECKING:
    from cos_interp.organism.kinds import Attention

organism_app = typer.Typer()


@organism_app.command("train")
def organism_train(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and the finished pipeline.")] = Path("runs/organism"),
    workers: Annotated[int | None, typer.Option(min=1, help="Processes (CPU). One a core by default.")] = None,
    dit_steps: Annotated[int | None, typer.Option(min=0, help="Steps of the transformer; the recipe's by default.")] = None,
    vae_steps: Annotated[
        int | None, typer.Option(min=0, help="Steps of each autoencoder stage; the recipe's by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Compile the blocks (1.7 times as fast).")] = True,
    start_from: Annotated[Path | None, typer.Option(help="Start from these weights; the decoder too, with --vae-steps.")] = None,
    autoencoder: Annotated[Path | None, typer.Option(help="Pipeline folder whose autoencoder is used as it is.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the transformer's first weights and its samples.")] = 0,
    keep: Annotated[str | None, typer.Option(help="Also write the pipeline after these steps: 1000,2000.")] = None,
    attention: Annotated[str, typer.Option(help="cross (Wan in miniature) or joint (Motif-Video in miniature).")] = "cross",
) -> None:
    """Train the organism from scratch: autoencoder, then transformer. Run it again to continue after a kill.

    Examples:

      cos organism train --out runs/organism

      cos organism train --device cuda --dit-steps 40000 --out runs/organism-gpu

      cos organism train --start-from organism/weights --dit-steps 2000 --out runs/longer

      cos organism train --autoencoder organism/weights --seed 1 --workers 1 --keep 1000,2000,3500 --out runs/seed1

      cos organism train --autoencoder organism/weights --attention joint --workers 1 --out runs/joint
    """
    stages = [path.name for of in ("vae-*", "step-*") for path in out.glob(of)] if out.is_dir() else []
    refuse_other_content(out, ("transformer", "pipeline", *stages))
    from cos_interp.organism.kinds import KINDS
    from cos_interp.organism.train import Plan, train

    kind: Attention | None = next((name for name in KINDS if name == attention), None)
    if kind is None:
        raise Failure(f"--attention {attention}: there are {' and '.join(KINDS)}")
    steps = integers(keep) if keep else ()
    folder = train(Plan(out, workers, dit_steps, vae_steps, device, compiled, start_from, autoencoder, seed, steps, kind))
    typer.echo(f"Pipeline: {folder.resolve()}\nMeasure it: cos organism eval --model {folder}")


@organism_app.command("guide")
def organism_guide(
    base: Annotated[str, typer.Argument(help="'organism', 'organism:NAME' or a pipeline folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint and the finished LoRA.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Steps; the recipe's by default.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Compile the blocks.")] = True,
) -> None:
    """Tune a trained organism, as a LoRA, so that guidance up to 5 holds. Run it again to continue after a kill.

    Examples:

      cos organism guide organism:seed1 --out runs/guided1

      cos organism ship runs/guided1 --name seed1-guided --about "organism:seed1, tuned for guidance"
    """
    refuse_other_content(out, ("transformer", "lora"))
    from cos_interp.organism.guide import guide

    folder = guide(base, out, steps, device, compiled)
    typer.echo(f"LoRA: {folder.resolve()}\nUse it: cos analyze ... --model {base} --lora {folder} --guidance 5")


@organism_app.command("eval")
def organism_eval(
    model: Annotated[str, typer.Option(help="'organism', 'organism:NAME' or a pipeline folder.")] = "organism",
    num_steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 20,
    guidance: Annotated[float | None, typer.Option(min=1, help="Guidance scale; 1 is none. The model's own by default.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="First items of each task only.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Noise seed of item i is seed * 1,000,000 + i.")] = 0,
    fresh_items: Annotated[bool, typer.Option("--fresh-items", help="New test items instead of cos-500.")] = False,
    every_step: Annotated[bool, typer.Option("--every-step", help="Also score the clean estimate of every step.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. One a core by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures to this JSON file.")] = None,
    as_json: Json = False,
) -> None:
    """Accuracy on cos-500, per task, with intervals, from fresh noise.

    Examples:

      cos organism eval

      cos organism eval --every-step --seed 7 --fresh-items --limit 50
    """
    if out is not None:
        check_writable(out, is_file=True)
    from cos_interp.organism.evaluate import evaluate
    from cos_interp.tasks.tally import as_lines

    bar, move = progress_bar()
    with bar:
        found = evaluate(model, num_steps, guidance, limit, seed, fresh_items, every_step, workers, move)
    if out is not None:
        write_file(out, (json.dumps(found, indent=1) + "\n").encode())
    if as_json:
        print_json(found)
        return
    for line in as_lines(found["final"]):
        typer.echo(line)


@organism_app.command("untrained")
def organism_untrained(
    folder: Annotated[Path, typer.Argument(help="Where to write the pipeline.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random transformer.")] = 0,
) -> None:
    """Write an untrained twin: the organism's autoencoder and text encoder with a random transformer, the null model.

    Example: cos organism untrained runs/twin --seed 1
    """
    refuse_other_content(folder)
    from cos_interp.organism.package import save, untrained_twin

    save(untrained_twin(seed), folder)
    typer.echo(f"Pipeline: {folder.resolve()}")


@organism_app.command("ship")
def organism_ship(
    source: Annotated[Path, typer.Argument(help="Training folder (also an unfinished one), checkpoint, or pipeline folder.")],
    name: Annotated[str, typer.Option(help="The variant becomes organism:NAME.")],
    about: Annotated[str, typer.Option(help="What it is, in a sentence, for its card.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Measure it on the first items of each task only.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. One a core by default.")] = None,
) -> None:
    """Make a variant that ships with the organism: its transformer rounded to bfloat16, then measured for its card.

    Autoencoder, text encoder, tokenizer and scheduler stay the organism's. A variant that is there is not written over.

    Examples:

      cos organism ship runs/seed1 --name seed1 --about "Seed 1 of the recipe, whole"

      cos organism ship runs/seed1/step-02000 --name young --about "Seed 1 after 2,000 steps" --limit 50
    """
    from cos_interp.organism.ship import ship

    bar, move = progress_bar()
    with bar:
        folder = ship(source, name, about, limit, workers, move)
    typer.echo(f"Variant: {folder}\nUse it: --model organism:{name}")


@organism_app.command("list")
def organism_list(as_json: Json = False) -> None:
    """The organisms that ship, by the name that --model takes, with what their cards say.

    Example: cos organism list
    """
    found = [_told(model, folder) for model, folder in _shipped().items()]
    if as_json:
        print_json(found)
        return
    for one in found:
        solved = f"{one['solved']:.3f} of {one['n']} items solved" + (
            f" at guidance {one['guidance']:g}" if one["guidance"] > 1 else ""
        )
        typer.echo(f"{one['model']:24} {solved}  {one['digest'][:12]}  {one['about']}")


@organism_app.command("card")
def organism_card(
    model: Annotated[str, typer.Argument(help="organism or organism:NAME: cos organism list.")] = "organism",
    as_json: Json = False,
) -> None:
    """What a shipped organism is, how it was trained and what it can do.

    Examples:

      cos organism card

      cos organism card organism:young
    """
    shipped = _shipped()
    if model not in shipped:
        raise Failure(f"no organism {model!r}: there are {', '.join(shipped)}")
    path = shipped[model] / ("card.json" if as_json else "README.md")
    if not path.is_file():
        raise Failure(f"{path} is missing: this installation has no such organism; train one with cos organism train")
    typer.echo(path.read_text())


def _shipped() -> dict[str, Path]:
    """Folder of each organism by the name that --model takes."""
    from cos_interp.interp import variants

    return {"organism": variants.ORGANISM} | {variants.PREFIX + name: variants.VARIANTS / name for name in variants.names()}


def _told(model: str, folder: Path) -> dict[str, Any]:
    card = json.loads((folder / "card.json").read_text())
    line = card["cos-500"]["final"]["all"]
    about = card.get("about", "The first organism.")
    return {
        "model": model,
        "about": about,
        "digest": card["digest"],
        "guidance": card["cos-500"]["guidance"],
        **{key: line[key] for key in ("n", "solved", "low", "high")},
    }
