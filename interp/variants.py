"""Variants of the shipped organism: folders that hold what differs, all else is the organism's.

A variant's folder holds ``model_index.json``, its ``card.json``, the parts of its pipeline that the organism does not have, and
for a part of which only a few weights differ a file of these, ``PART.safetensors``. Weights are packed (xz), by a third.
A variant that is a LoRA of another organism names it in ``base.json`` and holds the LoRA's file, which is added to its weights.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cos_interp.interp.errors import InterpError
from cos_interp.interp.files import weights_digest

if TYPE_CHECKING:
    import torch

    Weights = dict[str, torch.Tensor]

ORGANISM = Path(__file__).resolve().parent.parent / "organism" / "weights"
VARIANTS = ORGANISM.parent / "variants"
PREFIX = "organism:"
PACKED = ".xz"
BASE, LORA = "base.json", "pytorch_lora_weights.safetensors"
# numbers of two bytes: the high bytes, sign and exponent, are alike
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 0, "lp": 1, "pb": 1}]


def names() -> list[str]:
    """The variants that are there, without their prefix."""
    return sorted(path.parent.name for path in VARIANTS.glob("*/model_index.json") if not path.parent.name.startswith("."))


def folder_of_variant(name: str) -> Path:
    """The folder of ``organism:NAME``. InterpError, which lists what there is, for another name."""
    asked = name.removeprefix(PREFIX)
    if asked not in names():
        there = ", ".join(f"'{PREFIX}{one}'" for one in names()) or "none beside 'organism'"
        raise InterpError(f"no variant {asked!r} of the organism: there are {there}; cos organism ship makes one")
    return VARIANTS / asked


def parts_of(folder: Path) -> list[str]:
    """The components that a pipeline folder names."""
    index: dict[str, Any] = json.loads((folder / "model_index.json").read_text())
    return [name for name, kind in index.items() if isinstance(kind, list) and kind[0] is not None]


def base_of(folder: Path) -> Path | None:
    """The folder of the organism that a variant is a LoRA of."""
    if not (folder / BASE).is_file():
        return None
    name = json.loads((folder / BASE).read_text())["base"]
    return ORGANISM if name == "organism" else folder_of_variant(name)


def digest(folder: Path) -> str:
    """sha256 over the weights and configs of an organism's pipeline: its own, and those of another that it takes."""
    if folder == ORGANISM:
        return weights_digest(folder)
    if base := base_of(folder):
        taken = {"base": digest(base)}
    else:
        taken = {name: weights_digest(ORGANISM / name) for name in parts_of(folder) if not (folder / name).is_dir()}
    return hashlib.sha256(json.dumps({"own": weights_digest(folder), "organism's": taken}, sort_keys=True).encode()).hexdigest()


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """An organism's pipeline as an ordinary folder, for as long as it is read: links to its files and to those that it takes."""
    if folder == ORGANISM:
        yield folder
        return
    with ExitStack() as held:
        laid = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="cos-organism-")))
        base = base_of(folder)
        under = held.enter_context(whole(base)) if base else ORGANISM
        for name in parts_of(folder):
            own = folder / name
            if any(own.glob(f"*{PACKED}")):
                _unpacked(laid / name, own)
            elif (few := folder / f"{name}.safetensors").is_file():
                _changed(laid / name, under / name, partial(_with_few, few))
            elif base and name == "transformer":
                _changed(laid / name, under / name, partial(_with_lora, folder / LORA))
            else:
                (laid / name).symlink_to(own if own.is_dir() else under / name)
        for name in ("call_defaults.json", "model_index.json"):
            (laid / name).symlink_to(folder / name if (folder / name).is_file() else under / name)
        yield laid


def pack(path: Path) -> None:
    """A file of weights in bfloat16 in the place of which its packed form is then."""
    path.with_name(path.name + PACKED).write_bytes(lzma.compress(path.read_bytes(), filters=FILTERS))
    path.unlink()


def _unpacked(made: Path, part: Path) -> None:
    """A component whose weights are packed."""
    made.mkdir()
    for path in part.iterdir():
        if path.suffix == PACKED:
            (made / path.stem).write_bytes(lzma.decompress(path.read_bytes()))
        else:
            (made / path.name).symlink_to(path)


def _changed(made: Path, part: Path, change: Callable[[Weights], Weights]) -> None:
    """A component with other weights."""
    from safetensors.torch import load_file, save_file

    made.mkdir()
    for path in part.iterdir():
        if path.suffix == ".safetensors":
            save_file(change(load_file(path)), made / path.name, {"format": "pt"})
        else:
            (made / path.name).symlink_to(path)


def _with_few(file: Path, weights: Weights) -> Weights:
    from safetensors.torch import load_file

    return weights | load_file(file)


def _with_lora(file: Path, weights: Weights) -> Weights:
    """Each matrix plus the product of its two of the LoRA, whose scale is 1, in float32."""
    from safetensors.torch import load_file

    low = {key.removeprefix("transformer."): value.float() for key, value in load_file(file).items()}
    out = dict(weights)
    for key, down in low.items():
        name, is_down, _ = key.partition(".lora_A.weight")
        if is_down:
            out[f"{name}.weight"] = weights[f"{name}.weight"].float() + low[f"{name}.lora_B.weight"] @ down
    return out
