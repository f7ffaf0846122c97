"""Where the activations of a data set lie: in memory, or over the byte budget in plain ``.npy`` files, read by rows."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from cos_interp.probes.errors import ProbeError

DEFAULT_BYTES = 2 << 30


class Storage:
    """Arrays ``[step, row, d_model]`` by hook name, filled clip after clip."""

    def __init__(self, arrays: dict[str, np.ndarray], max_bytes: int, folder: tempfile.TemporaryDirectory | Path | None):
        self.arrays, self.max_bytes, self.folder, self.filled = arrays, max_bytes, folder, 0

    @classmethod
    def open(cls, example: dict[str, np.ndarray], tokens: int, clips: int, max_bytes: int, folder: Path | None) -> Storage:
        """Room for ``clips`` clips of ``tokens`` rows like ``example [step, token, d_model]``; on disk when over the budget."""
        shapes = {n: (a.shape[0], tokens * clips, a.shape[2]) for n, a in example.items()}
        total = sum(int(np.prod(s)) * example[n].itemsize for n, s in shapes.items())
        if total <= max_bytes:
            return cls({n: np.empty(s, example[n].dtype) for n, s in shapes.items()}, max_bytes, None)
        where = tempfile.TemporaryDirectory(prefix="probes-") if folder is None else folder
        path = Path(where.name if isinstance(where, tempfile.TemporaryDirectory) else where)
        path.mkdir(parents=True, exist_ok=True)
        try:
            made: dict[str, np.ndarray] = {
                n: np.lib.format.open_memmap(path / f"{i}.npy", "w+", example[n].dtype, s)
                for i, (n, s) in enumerate(shapes.items())
            }
        except OSError as error:
            raise ProbeError(
                f"{total / 1e9:.2f} GB of activations go to {path}, which cannot hold them ({error.strerror}): keep fewer "
                "names, steps or tokens, or give another folder"
            ) from error
        return cls(made, max_bytes, where)

    @property
    def in_memory(self) -> bool:
        return self.folder is None

    def add(self, clip: dict[str, np.ndarray]) -> None:
        """Put the next clip's rows. ProbeError when there is no room or a shape differs."""
        tokens = next(iter(clip.values())).shape[1]
        for name, values in clip.items():
            room = self.arrays[name][:, self.filled : self.filled + tokens]
            if room.shape != values.shape:
                raise ProbeError(f"{name}: activations of shape {values.shape} do not fit {room.shape}: all clips must be alike")
            room[:] = values
        self.filled += tokens

    def read(self, name: str, step: int, rows: np.ndarray) -> np.ndarray:
        """Activations ``[row, d_model]``, float32, of some rows at a place in the kept steps."""
        return np.asarray(self.arrays[name][step][rows], np.float32)

    def cell_bytes(self, name: str) -> int:
        """Bytes of all rows of one name at one step, as read."""
        return int(np.prod(self.arrays[name].shape[1:])) * 4

    def streams(self, name: str) -> bool:
        """Whether even one layer at one step is over the budget, so that a probe must be fitted by batches."""
        return self.cell_bytes(name) > self.max_bytes
