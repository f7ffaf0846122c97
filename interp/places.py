"""Where kept activations wait until they are read: where they were computed, in host memory, or on disk.

Whatever the place, what is read is bit for bit what was kept, on the device that computed it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cos_interp.interp.errors import InterpError
from cos_interp.interp.files import TEMPORARY

Key = tuple[str, int, str | None]  # name, step, branch


class Place(MutableMapping[Key, Tensor]):
    """The store of one :class:`~cos_interp.interp.cache.ActivationCache` that lies elsewhere; give a new one to each run."""

    nbytes = 0  # of all activations in it


class HostMemory(Place):
    """In host memory; pinned where a GPU computes, so that it is read back at the full speed of the bus."""

    def __init__(self) -> None:
        self._held: dict[Key, tuple[Tensor, torch.device]] = {}

    def __setitem__(self, key: Key, value: Tensor) -> None:
        self.pop(key, None)
        kept = torch.empty(value.shape, dtype=value.dtype)
        if value.is_cuda:
            _pin(kept)
        self._held[key] = kept.copy_(value), value.device
        self.nbytes += kept.nbytes

    def __getitem__(self, key: Key) -> Tensor:
        kept, device = self._held[key]
        return kept.to(device)

    def __delitem__(self, key: Key) -> None:
        self.nbytes -= self._held.pop(key)[0].nbytes

    def __iter__(self) -> Iterator[Key]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


class Disk(Place):
    """One safetensors file an activation, mapped into memory for as long as what was read is in use.

    The files lie in a folder of their own inside ``folder`` (None: where temporary files lie), which is deleted with this object,
    or at the end of the process. InterpError, which names the folder, where the disk refuses.
    """

    def __init__(self, folder: Path | None = None) -> None:
        prefix, suffix = TEMPORARY.split("{}")
        try:
            self.folder = Path(tempfile.mkdtemp(suffix, prefix, folder))
        except OSError as error:
            raise InterpError(f"activations cannot be kept in {folder}: {error.strerror}; give another folder") from error
        self._held: dict[Key, tuple[Path, int, torch.device]] = {}
        self._made = 0
        weakref.finalize(self, _removed, self.folder, os.getpid())

    def __setitem__(self, key: Key, value: Tensor) -> None:
        path, self._made = self.folder / f"{self._made:06d}.safetensors", self._made + 1
        try:
            save_file({"activation": value.detach().cpu().contiguous()}, path)
        except (OSError, SafetensorError) as error:
            raise InterpError(f"{key[0]} at step {key[1]} cannot be kept in {self.folder}: {error}; give it more room") from error
        self.pop(key, None)
        self._held[key] = path, value.nbytes, value.device
        self.nbytes += value.nbytes

    def __getitem__(self, key: Key) -> Tensor:
        path, _, device = self._held[key]
        with safe_open(path, "pt") as file:
            return file.get_tensor("activation").to(device)

    def __delitem__(self, key: Key) -> None:
        path, size, _ = self._held.pop(key)
        self.nbytes -= size
        path.unlink(missing_ok=True)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


def _pin(kept: Tensor) -> None:
    """Pin the memory of a tensor as it is: torch's own pinned memory comes in powers of two, up to twice of what was asked for.
    Where the driver refuses it is read as well, and slower."""
    cudart: Any = torch.cuda.cudart()
    with contextlib.suppress(RuntimeError):
        if kept.nbytes and not int(cudart.cudaHostRegister(kept.data_ptr(), kept.nbytes, 0)):
            weakref.finalize(kept, cudart.cudaHostUnregister, kept.data_ptr())


def _removed(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child has a copy of the object, not of the folder
        shutil.rmtree(folder, ignore_errors=True)
