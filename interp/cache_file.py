"""A cache as one safetensors file, whose header carries the axes and a digest of everything in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, uint8

from cos_interp.interp.errors import InterpError
from cos_interp.interp.files import write_atomic

FORMAT = "cos-interp activation cache 2"
Key = tuple[str, int, str | None]  # name, step, branch


def content_digest(tensors: Mapping[str, Tensor], said: str) -> str:
    """sha256 over what is said of the cache and every tensor's key, type, shape and bytes, in sorted order."""
    total = hashlib.sha256(said.encode())
    for key in sorted(tensors):
        value = tensors[key].contiguous()
        total.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.flatten().view(uint8).numpy().data)
    return total.hexdigest()


def write(path: Path, store: Mapping[Key, Tensor], axes: Mapping[str, tuple[str, ...]]) -> None:
    """Write a cache; a reader never sees half of it."""
    tensors = {json.dumps(key): value.detach().cpu().contiguous() for key, value in store.items()}
    said = json.dumps({"axes": axes, "order": list(tensors)})  # the file has its own order
    header = {"format": FORMAT, "said": said, "sha256": content_digest(tensors, said)}
    try:
        write_atomic(path, save(tensors, header))
    except OSError as error:
        raise InterpError(
            f"{path} cannot be written ({error.strerror}): give the path of a file in a folder that is there"
        ) from error


def read(path: Path) -> tuple[dict[Key, Tensor], dict[str, tuple[str, ...]]]:
    """The tensors and axes of a written cache. InterpError for a file that is damaged, or is no cache."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InterpError(f"{path} is damaged, or no safetensors file ({error}): save the cache again") from error
    except OSError as error:
        raise InterpError(f"{path} cannot be read ({error}): give the file that cache.save(path) wrote") from error
    if header.get("format") != FORMAT or not {"said", "sha256"} <= set(header):
        raise InterpError(f"{path} holds no activation cache: ActivationCache.load reads what cache.save(path) wrote")
    found = content_digest(tensors, header["said"])
    if found != header["sha256"]:
        raise InterpError(f"{path} is damaged: its content has sha256 {found[:12]}.., its header says {header['sha256'][:12]}..")
    said = json.loads(header["said"])
    store = {(name, step, branch): tensors[key] for key in said["order"] for name, step, branch in [json.loads(key)]}
    return store, {name: tuple(named) for name, named in said["axes"].items()}
