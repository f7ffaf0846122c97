"""Variants of the shipped organism: folders that hold what differs, all else is the organism's.

A variant's folder holds ``model_index.json``, its ``card.json``, the parts of its pipeline that the organism does not have, and
for a part of which only a few weights differ a file of these, ``PART.safetensors``. Weights are packed (xz), by a third.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cos_interp.interp.errors import InterpError
from cos_interp.interp.files import weights_digest

ORGANISM = Path(__file__).resolve().parent.parent / "organism" / "weights"
VARIANTS = ORGANISM.parent / "variants"
PREFIX = "organism:"
PACKED = ".xz"
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


def digest(folder: Path) -> str:
    """sha256 over the weights and configs of a variant's pipeline: its own, and those of the organism that it takes."""
    taken = {name: weights_digest(ORGANISM / name) for name in parts_of(folder) if not (folder / name).is_dir()}
    return hashlib.sha256(json.dumps({"own": weights_digest(folder), "organism's": taken}, sort_keys=True).encode()).hexdigest()


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A variant's pipeline as an ordinary folder, for as long as it is read: links to its files and to the organism's."""
    with tempfile.TemporaryDirectory(prefix="cos-organism-") as made:
        laid = Path(made)
        for name in parts_of(folder):
            own = folder / name
            if any(own.glob(f"*{PACKED}")):
                _unpacked(laid / name, own)
                continue
            (laid / name).symlink_to(own if own.is_dir() else ORGANISM / name)
            if (few := folder / f"{name}.safetensors").is_file():
                (laid / name).unlink()
                _with_weights(laid / name, ORGANISM / name, few)
        for name in ("call_defaults.json", "model_index.json"):
            (laid / name).symlink_to(folder / name if (folder / name).is_file() else ORGANISM / name)
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


def _with_weights(made: Path, part: Path, few: Path) -> None:
    """A component with a few weights of its own."""
    from safetensors.torch import load_file, save_file

    made.mkdir()
    for path in part.iterdir():
        if path.suffix == ".safetensors":
            save_file(load_file(path) | load_file(few), made / path.name, {"format": "pt"})
        else:
            (made / path.name).symlink_to(path)
