"""A trained organism as a variant that ships beside the first: its transformer in bfloat16, measured as it is shipped."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from cos_interp.interp import variants
from cos_interp.interp.files import TEMPORARY
from cos_interp.interp.identity import component_digest
from cos_interp.interp.loading import load_pipeline
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.variants import ORGANISM
from cos_interp.organism import card, loop, package, shapes
from cos_interp.organism.evaluate import evaluate
from cos_interp.organism.kinds import KINDS
from cos_interp.organism.train import shipped_autoencoder

STEPS = 20  # of the measurement on the card
GUIDED = (5.0, 3.0, 1.0)  # guidance scales on the card of a tuned organism; the first is its default, at which the paper runs
Progress = Callable[[int, int, str], None]


def ship(source: Path, name: str, about: str, limit: int | None, workers: int | None, progress: Progress) -> Path:
    """Write ``organism:NAME`` from a training folder, one of its checkpoints or a pipeline folder; returns its folder.

    ``limit``: items of each task that its card is measured on; None for all of cos-500. Nothing is left behind on an error.
    ValueError for a name that is taken or none, and for what cannot be a variant.
    """
    folder = _new(name)
    made = folder.with_name(TEMPORARY.format(name))
    shutil.rmtree(made, ignore_errors=True)  # of a shipping that was killed
    try:
        tuned = (source / "lora" / variants.BASE).is_file()
        if tuned:
            facts = _lora(source / "lora", made)
        else:
            with tempfile.TemporaryDirectory() as whole:
                facts = _pipeline(source, Path(whole) / "pipeline")
                _differing(Path(whole) / "pipeline", made)
        with variants.whole(made) as whole:
            model = HookedVideoPipeline.from_pretrained(whole, dtype=torch.float32)
            found = [
                evaluate(model, STEPS, scale, limit, 0, False, False, workers, progress)
                for scale in (GUIDED if tuned else (1.0,))
            ]
        card.write_variant(made, name, about, facts, found)
        made.replace(folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return folder


def _lora(source: Path, made: Path) -> dict[str, Any]:
    """Write a variant that is a LoRA of an organism that ships; returns what is known of its training."""
    facts: dict[str, Any] = json.loads((source / variants.BASE).read_text())
    if facts["base"] != "organism" and facts["base"].removeprefix(variants.PREFIX) not in variants.names():
        raise ValueError(f"{source} is a LoRA of {facts['base']}, which does not ship: ship that first, and tune it by its name")
    made.mkdir(parents=True)
    (made / variants.BASE).write_text(json.dumps({"base": facts["base"]}) + "\n")
    weights = {key: value.bfloat16() for key, value in load_file(source / variants.LORA).items()}
    save_file(weights, made / variants.LORA, {"format": "pt"})
    base = variants.base_of(made) or ORGANISM
    shutil.copy(base / "model_index.json", made)
    (made / "call_defaults.json").write_text(json.dumps({**shapes.CALL_DEFAULTS, "guidance_scale": GUIDED[0]}, indent=1) + "\n")
    return {"source": "a LoRA", **facts}


def _new(name: str) -> Path:
    folder = variants.VARIANTS / name
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise ValueError(f"--name {name}: give lower-case letters, digits and hyphens")
    if folder.exists():
        raise ValueError(f"--name {name}: {folder} is there already: choose another name, or delete it yourself")
    return folder


def _pipeline(source: Path, made: Path) -> dict[str, Any]:
    """Write the whole pipeline that a source means; returns what is known of its training."""
    inner = source / "transformer" / loop.CHECKPOINT
    if source.is_file() or inner.is_file():
        return _of_checkpoint(source if source.is_file() else inner, made)
    for folder in (source, source / "pipeline"):
        if (folder / "model_index.json").is_file():
            shutil.copytree(folder, made)
            return {"source": "a pipeline folder"}
    raise ValueError(
        f"{source} holds no organism: give a training folder (with transformer/{loop.CHECKPOINT}), a checkpoint, or a pipeline "
        "folder"
    )


def _of_checkpoint(path: Path, made: Path) -> dict[str, Any]:
    """The moving average of a training's weights at its checkpoint, with the shipped autoencoder."""
    if stages := sorted(path.parent.parent.glob("vae-*")):
        raise ValueError(f"{stages[0]}: this training has an autoencoder of its own, and variants share the shipped one")
    said, tensors = loop.checkpoint(path, unsealed=True)
    weights = {key.removeprefix("ema/"): value for key, value in tensors.items() if key.startswith("ema/")}
    for attention, kind in KINDS.items():
        transformer = kind.build(0)
        shapes = {key: value.shape for key, value in transformer.named_parameters()}
        if shapes == {key: value.shape for key, value in weights.items()}:
            transformer.load_state_dict(weights, strict=False)  # buffers, if any, are as built
            package.save(kind.assemble(shipped_autoencoder(ORGANISM), transformer), made)
            return {"source": "a checkpoint", "step": said["step"], "attention": attention, "recipe": said["recipe"]}
    raise ValueError(f"{path} holds the weights of no transformer of the organism's kinds ({', '.join(KINDS)})")


def _differing(pipeline: Path, made: Path) -> None:
    """Write what a whole pipeline has beside the shipped organism; its transformer in bfloat16."""
    parts, shipped = (load_pipeline(name, {})[0].components for name in (pipeline, "organism"))
    made.mkdir(parents=True)
    shutil.copy(pipeline / "model_index.json", made)
    for name, part in parts.items():
        own = shipped.get(name)
        if part is None or (name != "transformer" and own is not None and component_digest(part) == component_digest(own)):
            continue
        if name == "vae":
            save_file(_few(part, own), made / "vae.safetensors")
        else:
            shutil.copytree(pipeline / name, made / name)
    for path in (made / "transformer").glob("*.safetensors"):
        rounded = {key: value.bfloat16() for key, value in load_file(path).items()}
        save_file(rounded, path, {"format": "pt"})
        variants.pack(path)


def _few(vae: Any, shipped: Any) -> dict[str, torch.Tensor]:
    """The weights that another pipeline has to set in the shipped autoencoder. The joint organism's differs in
    how wide its normal distribution is, whose mode is the same. ValueError where latents or pictures are others."""
    held = shipped.state_dict()
    few = {key: value for key, value in vae.state_dict().items() if key not in held or not torch.equal(value, held[key])}
    means = slice(0, vae.config.z_dim)
    for key, value in few.items():
        if not key.startswith("quant_conv.") or not torch.equal(value[means], held[key][means]):
            raise ValueError(
                f"its autoencoder is not the shipped one ({key} differs), which variants share: train with "
                f"--autoencoder {ORGANISM}"
            )
    return few
