"""``cos models``. Heavy libraries are imported inside the commands, so that help answers at once."""

from __future__ import annotations

from typing import Annotated

import typer

from cos_interp.interp.placing import Dtype, Offload, Placing
from cos_interp.interp.terminal import Json, print_json

models_app = typer.Typer()


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
        print_json({"supported": supported, "not_supported": missing, "tiny": list(TINY)})
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
    num_steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 2,
    height: Annotated[int | None, typer.Option(min=1, help="Pixels; the pipeline's own default if not given.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Pixels.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Pixel frames.")] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda, cuda:1 or mps.")] = "auto",
    dtype: Annotated[Dtype, typer.Option(help="auto (fp32 on the CPU, bf16 on a GPU), bf16, fp16 or fp32.")] = "auto",
    offload: Annotated[Offload, typer.Option(help="What waits in host memory: none, model, group or sequential.")] = "none",
    lora: Annotated[str | None, typer.Option(help="LoRA weights, PATH or PATH:scale, with commas.")] = None,
    as_json: Json = False,
) -> None:
    """Prove every hook name of a model: it fires, equals a plain forward hook, and an edit there changes the output.

    Examples:
      cos models check tiny:cogvideox
      cos models check THUDM/CogVideoX-2b --height 256 --width 256 --frames 9 --device cuda --dtype fp32
    """
    from cos_interp.interp.check.proof import check_adapter, small_call
    from cos_interp.interp.families.tiny import call
    from cos_interp.interp.model import HookedVideoPipeline

    placing = Placing(device, dtype, offload, lora=tuple(lora.split(",")) if lora else ())
    hooked = HookedVideoPipeline.from_pretrained(model, dtype=placing.type(), **({"revision": revision} if revision else {}))
    placing.place(hooked.pipe)
    if model.startswith("tiny:"):
        keywords = call(model.removeprefix("tiny:"), steps=num_steps)
    else:
        own = {k: v for k, v in hooked.defaults.items() if k in ("height", "width")}
        own |= {k: v for k, v in {"height": height, "width": width, "frames": frames}.items() if v is not None}
        keywords = small_call(hooked.pipe, prompt, num_steps, **own)
    report = check_adapter(hooked, **keywords)
    if as_json:
        checks = [{"check": c.title, "names": c.names, "problems": c.problems} for c in report.checks]
        print_json({"pipeline": report.pipeline, "family": report.family, "passed": report.passed, "checks": checks})
    else:
        typer.echo(str(report))
    if not report.passed:
        raise typer.Exit(1)
