"""Which model, settings and versions made a run: what ``run.json`` says."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cos_interp.analyses.driver.command import command_line
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.analyses.driver.store import FORMAT
from cos_interp.interp.files import weights_digest
from cos_interp.interp.model import ORGANISM, HookedVideoPipeline


def run_facts(name: str, config: AnalysisConfig, model: dict[str, Any]) -> dict[str, Any]:
    """All that decides the numbers of a run; ``model`` as :func:`named` or :func:`given` say it."""
    command = command_line(name, config) + ("  # with a model given from Python" if model["given"] else "")
    return {
        "format": FORMAT, "analysis": name, "config": config.model_dump(mode="json"), "command": command, "model": model,
        "versions": versions(),
    }  # fmt: skip


def versions() -> dict[str, str]:
    from importlib.metadata import version

    packages = ("torch", "diffusers", "nnsight", "transformers", "numpy")
    return {"python": sys.version.split()[0]} | {p: version(p) for p in packages}


def named(config: AnalysisConfig) -> dict[str, Any]:
    """A model that is loaded by its name: the digest of its folder, or the hub's revision."""
    folder = ORGANISM if config.model == "organism" else Path(config.model)
    digest = weights_digest(folder) if folder.is_dir() else None
    return {"name": config.model, "digest": digest, "revision": config.revision, "given": False}


def given(model: HookedVideoPipeline) -> dict[str, Any]:
    """A loaded model that is used as it is: the digest of what it holds now, which no name or folder vouches for."""
    return {"name": model.name, "digest": memory_digest(model.pipe), "revision": None, "given": True}


def memory_digest(pipe: Any) -> str | None:
    """sha256 over the weights of a pipeline's parts, as they are in memory, and its scheduler's settings.

    None where weights cannot be read as plain tensors: offloaded (on the meta device) or packed by a quantiser.
    """
    settings = sorted(item for item in pipe.scheduler.config.items() if not item[0].startswith("_"))
    total = hashlib.sha256(f"{type(pipe.scheduler).__name__} {settings}".encode())
    for part, module in sorted(pipe.components.items()):
        if not isinstance(module, torch.nn.Module):
            continue
        for name, weight in sorted(module.state_dict().items()):
            if type(weight) is not Tensor or weight.is_meta:
                return None
            total.update(f"{part}.{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
            total.update(weight.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
