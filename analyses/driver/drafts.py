"""What is finished of a unit before all of it is: a kill then loses the forward that it met, and not what came before it.

A unit is written whole or not at all. One that takes long keeps what its forwards gave in files of their own, and takes it from
there when the run is continued, with the same bytes in the end. These files are gone with the unit.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cos_interp.interp.files import BLANK, TEMPORARY, is_intact, read_regular, sealed

if TYPE_CHECKING:  # a run is listed without waiting for torch
    from torch import Tensor

FOLDER = TEMPORARY.format("drafts")
SECONDS = 2.0  # of work that is done again sooner than a file for it is worth: small models leave none
Made = tuple["Tensor", int]  # what a forward gave, and the transformer blocks that it took


class Drafts:
    """The finished forwards of one unit, each by a key of its own: what a run before this one kept, and what is kept now.

    Drafts of another run, of other versions, or made on another kind of processor are not used. ``taken``: blocks of what came
    from files.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], write: Callable[[str, bytes], None]):
        """``about``: what decides the bytes of the unit, as JSON holds it; ``write``: writes a file into the ``folder``."""
        self.about, self.taken, self._save = about, 0, write
        self._known = dict[str, tuple[Path, int]]()  # the file that holds a forward, and its blocks
        self._waiting = dict[str, Made]()
        self._files, self._last, self._number = 0, time.monotonic(), 0
        for path in sorted(folder.glob("*.safetensors")):
            self._files = int(path.stem) + 1 if path.stem.isdigit() else self._files
            self._known |= {key: (path, blocks) for key, blocks in self._counts(path).items()}

    def __call__(self, key: str, make: Callable[[], Made]) -> Tensor:
        """What the forward of a key gave, from a file where there is one. RunError where the disk refuses."""
        if key in self._known:
            path, blocks = self._known.pop(key)
            self.taken += blocks
            return self._latents(path, key)
        self._waiting[key] = made = make()
        if time.monotonic() - self._last >= SECONDS:
            self._write()
            self._last = time.monotonic()
        return made[0]

    def in_order(self, rows: Sequence[int], make: Callable[[], Tensor]) -> Tensor:
        """What a forward of some rows gave, in a unit whose forwards always come in the same order, by which they are known."""
        self._number += 1
        return self(f"{self._number:06d} of {len(rows)}", lambda: (make(), 0))

    def _write(self) -> None:
        from safetensors.torch import save

        tensors = {key: latents.detach().cpu().contiguous() for key, (latents, _) in self._waiting.items()}
        counts = {key: count for key, (_, count) in self._waiting.items()}
        header = {"draft": json.dumps({"seal": BLANK, **self.about, "counts": counts})}
        self._save(f"{self._files:06d}.safetensors", sealed(save(tensors, metadata=header)))
        self._waiting, self._files = {}, self._files + 1

    def _counts(self, path: Path) -> dict[str, int]:
        """Forwards in a file, with their blocks; none where it is damaged, or no draft of this unit as it would be made now."""
        try:
            data = read_regular(path)
        except OSError:
            return {}
        if not is_intact(data):
            return {}
        size = int.from_bytes(data[:8], "little")
        said = json.loads(json.loads(data[8 : 8 + size])["__metadata__"].get("draft", "{}"))
        return said["counts"] if {key: said.get(key) for key in self.about} == self.about else {}

    def _latents(self, path: Path, key: str) -> Tensor:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            return file.get_tensor(key)


def dropped(folder: Path, unit: str | None = None) -> None:
    """Take away the drafts of a unit, or of all (None)."""
    there = folder / FOLDER
    shutil.rmtree(there if unit is None else there / unit, ignore_errors=True)
    with contextlib.suppress(OSError):  # others are there
        there.rmdir()
