"""A model without its weights: everything on the meta device, from the configurations of a pipeline's folder or hub id."""

from __future__ import annotations

import inspect
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cos_interp.interp.errors import InterpError
from cos_interp.interp.loading import call_defaults, laid_out
from cos_interp.interp.model import HookedVideoPipeline

CONFIGS = ["*.json", "*.txt", "*.model"]  # of a hub id, what is downloaded


def skeleton(name: str, dtype: torch.dtype, revision: str | None = None) -> HookedVideoPipeline:
    """A model as :meth:`HookedVideoPipeline.from_pretrained` takes its name, with shapes and no weights: it has hook names,
    layers and defaults, and cannot run. Tokenizers and processors are left out.

    Raises InterpError where there is no such model, or a component cannot be made from its configuration.
    """
    if name.startswith("tiny:"):
        return HookedVideoPipeline.from_pretrained(name, dtype=dtype)
    with laid_out(name) as there:
        return _bare(name, there or _configurations(name, revision), dtype)


def _bare(name: str, folder: Path, dtype: torch.dtype) -> HookedVideoPipeline:
    index = json.loads((folder / "model_index.json").read_text())
    kind = _class("diffusers", index["_class_name"])
    parts: dict[str, Any] = {}
    for part, said in index.items():
        if isinstance(said, list):
            library, kind_of = said
            parts[part] = _component(folder / part, library, kind_of, dtype) if kind_of else None
    signature = set(inspect.signature(kind.__init__).parameters)
    settings = {key: said for key, said in index.items() if key in signature and key not in parts}
    try:
        pipe = kind(**parts, **settings)
    except (TypeError, ValueError, AttributeError) as error:
        raise InterpError(f"{name} could not be made from its configurations: {error}") from error
    return HookedVideoPipeline(pipe, name, call_defaults(folder))


def _configurations(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=CONFIGS))
    except (OSError, ValueError) as error:
        raise InterpError(f"the configurations of {name} could not be downloaded: {str(error).splitlines()[0]}") from error


def _class(library: str, name: str) -> Any:
    try:
        return getattr(import_module(library), name)
    except (ImportError, AttributeError) as error:
        raise InterpError(f"{library} has no {name}: install the version that the model needs") from error


def _component(folder: Path, library: str, name: str, dtype: torch.dtype) -> Any:
    """A scheduler as it is, a network on the meta device, None for what computes nothing."""
    if library not in ("diffusers", "transformers") or not folder.is_dir():
        return None
    kind = _class(library, name)
    if not issubclass(kind, nn.Module):
        return kind.from_config(kind.load_config(folder)) if (folder / "scheduler_config.json").is_file() else None
    try:
        with torch.device("meta"):
            made = kind.from_config(kind.load_config(folder)) if library == "diffusers" else kind(_text_config(kind, folder))
    except (OSError, ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        raise InterpError(f"{folder}: {name} cannot be made from its configuration: {str(error).splitlines()[0]}") from error
    return made.to(dtype).eval()


def _text_config(kind: Any, folder: Path) -> Any:
    return kind.config_class.from_pretrained(folder)
