"""How one run is played: the pipeline's own loop with stand-ins, one nnsight trace a call, a step clock."""

from __future__ import annotations

import sys


def _import_nnsight() -> None:
    """Import nnsight without what it mounts on every object of the process, ``.save()``, which breaks libraries that look for
    such a method. Who imported nnsight before keeps it; ``nnsight.save(value)`` does the same everywhere."""
    if "nnsight" in sys.modules:
        return
    import nnsight  # noqa: F401
    from nnsight._c import unmount

    if unmount is not None and hasattr(object, "save"):
        unmount("save")


_import_nnsight()
