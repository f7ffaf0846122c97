"""Put trained parts together into an ordinary diffusers pipeline folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline, WanTransformer3DModel

from cos_interp.interp.errors import InterpError
from cos_interp.interp.files import TEMPORARY
from cos_interp.interp.variants import ORGANISM
from cos_interp.organism import shapes, text, train_dit, widen


def assemble(vae: AutoencoderKLWan, transformer: WanTransformer3DModel) -> WanImageToVideoPipeline:
    """The pipeline around trained weights; the autoencoder is given as trained on dots."""
    return WanImageToVideoPipeline(
        tokenizer=text.build_tokenizer(),
        text_encoder=text.build_encoder(),
        vae=widen.widen(vae),
        scheduler=FlowMatchEulerDiscreteScheduler(**shapes.SCHEDULER),
        transformer=transformer.eval(),
    )


def untrained_twin(seed: int = 0) -> WanImageToVideoPipeline:
    """The null model: the shipped organism's autoencoder and text encoder, and a transformer of random weights.

    What it makes can be decoded and read; it knows nothing. InterpError where this installation has no organism.
    """
    if not (ORGANISM / "model_index.json").is_file():
        raise InterpError(f"{ORGANISM} is missing: this installation has no organism, whose autoencoder a twin keeps")
    trained = WanImageToVideoPipeline.from_pretrained(ORGANISM)
    return WanImageToVideoPipeline(**{**trained.components, "transformer": train_dit.build(seed).eval()})


@contextmanager
def written(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of ``folder`` at the end of the block."""
    made = folder.with_name(TEMPORARY.format(folder.name))
    shutil.rmtree(made, ignore_errors=True)  # of a writing that was killed
    yield made
    if folder.exists():
        shutil.rmtree(folder)
    made.replace(folder)


def save(pipe: WanImageToVideoPipeline, folder: Path) -> None:
    """Write the folder whole or not at all, with the organism's call defaults beside the parts."""
    with written(folder) as made:
        pipe.save_pretrained(made)
        for path in made.glob("*/config.json"):  # diffusers writes where a part was loaded from: a path of this machine
            config = json.loads(path.read_text())
            config.pop("_name_or_path", None)
            path.write_text(json.dumps(config, indent=2) + "\n")
        (made / "call_defaults.json").write_text(json.dumps(shapes.CALL_DEFAULTS, indent=1) + "\n")


def size(folder: Path) -> int:
    """Bytes of all weight files."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.suffix in {".safetensors", ".xz"})


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
