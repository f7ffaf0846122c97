"""Rows of activations on disk: shards of rows, a file an item with its labels, and a manifest. Plain safetensors and JSON.

``shards/00000.safetensors``: by hook name ``NAME [row, width]``, and beside it ``NAME index``, int32 ``[row, 6]`` of
:data:`COLUMNS`. Shards cut one stream of rows, in the order of items and, within an item, of computing: a shard's header says
where in the stream it begins and where the next one does. ``items/000000.safetensors``: what holds for a whole item, with labels
``[frame, row, col]``. ``manifest.json``, written last, lists all files with their digests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cos_interp.interp.cache_file import content_digest
from cos_interp.interp.errors import InterpError

FORMAT = "cos-interp activation rows 1"
ASKED, MANIFEST, SHARDS, ITEMS = "export.json", "manifest.json", "shards", "items"
COLUMNS = ("item", "step", "branch", "frame", "row", "col")
BRANCH_NUMBERS = {None: -1, "cond": 0, "uncond": 1}
INDEX = " index"  # after the name of a hook
INDEX_BYTES = 4 * len(COLUMNS)


def shard_path(number: int) -> str:
    return f"{SHARDS}/{number:05d}.safetensors"


def item_path(number: int) -> str:
    return f"{ITEMS}/{number:06d}.safetensors"


def packed(tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> bytes:
    """A file of tensors with what is said of them, and the digest of both, in its header."""
    text = json.dumps(said, sort_keys=True)
    header = {"format": FORMAT, "said": text, "sha256": content_digest(tensors, text)}
    return save(dict(tensors), {"rows": json.dumps(header)})  # one key: the order of several is not fixed


def said_of(path: Path) -> dict[str, Any]:
    """What is said of the tensors of a file. InterpError for one that is none of ours; its content is not looked at."""
    return json.loads(_header(path)["said"])


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a file, and what is said of them. InterpError where they are not what was written."""
    header = _header(path)
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if content_digest(tensors, header["said"]) != header["sha256"]:
        raise InterpError(f"{path} is damaged: its content is not what its digest says; export again into the same folder")
    return tensors, json.loads(header["said"])


def _header(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("rows", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise InterpError(f"{path} cannot be read ({error}); export again into the same folder") from error
    if header.get("format") != FORMAT:
        raise InterpError(f"{path} is no file of an export of activations")
    return header


def index_of(item: int, step: int, branch: str | None, place: Tensor) -> Tensor:
    """The columns of some tokens of one activation, int32 ``[row, 6]``; ``place [row, 3]``."""
    same = torch.tensor([item, step, BRANCH_NUMBERS[branch]], dtype=torch.int32)
    return torch.cat([same.expand(len(place), 3), place.to(torch.int32)], dim=1)
