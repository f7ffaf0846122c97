"""Linear probes by layer and step: data sets from runs, estimators, guard rails, transfer, use, persistence."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cos_interp.probes.clip import Clip
    from cos_interp.probes.crossval import out_of_fold
    from cos_interp.probes.dataset import ProbeDataset
    from cos_interp.probes.errors import ProbeError
    from cos_interp.probes.estimator import LinearProbe
    from cos_interp.probes.grid import ProbeGrid
    from cos_interp.probes.splits import shuffled
    from cos_interp.probes.targets import Target, register
    from cos_interp.probes.views import pca, umap

_HOME = {
    "ProbeDataset": "dataset", "ProbeError": "errors", "LinearProbe": "estimator", "ProbeGrid": "grid",
    "Clip": "clip", "Target": "targets", "register": "targets", "out_of_fold": "crossval", "shuffled": "splits",
    "pca": "views", "umap": "views",
}  # fmt: skip

__all__ = [
    "Clip", "LinearProbe", "ProbeDataset", "ProbeError", "ProbeGrid", "Target", "out_of_fold", "pca", "register", "shuffled",
    "umap",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import on first use: the command line answers before scikit-learn is loaded."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
