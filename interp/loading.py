"""Loading a pipeline by its name: nothing of it is run, and every weight comes from the files that are there."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from cos_interp.interp import variants
from cos_interp.interp.configs import broken_configs
from cos_interp.interp.errors import InterpError
from cos_interp.interp.files import weights_digest
from cos_interp.interp.variants import ORGANISM

DEFAULTS_FILE = "call_defaults.json"
KEYWORDS = "it must hold keywords of the pipeline's call, as a JSON object"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def load_pipeline(name: str | Path, kwargs: Mapping[str, Any]) -> tuple[Any, dict[str, Any] | None]:
    """A diffusers pipeline and the call defaults that its folder has. ``kwargs`` go to diffusers.

    Raises InterpError when there is no pipeline of that name, when it cannot be loaded, and when a component's files lack a
    weight or hold one that it does not have.
    """
    with laid_out(name) as folder:
        return _loaded(name, folder, kwargs)


@contextmanager
def laid_out(name: str | Path) -> Iterator[Path | None]:
    """The folder of :func:`folder_of` with all files of the pipeline in it, for as long as it is read. The weights that came with
    this package are held against their cards."""
    folder = folder_of(name)
    if folder is not None and str(name).startswith(variants.PREFIX):
        check_organism(folder, variants.digest)
        with variants.whole(folder) as whole:
            yield whole
        return
    if folder is not None and str(name) == "organism":
        check_organism(folder)
    yield folder


def _loaded(name: str | Path, folder: Path | None, kwargs: Mapping[str, Any]) -> tuple[Any, dict[str, Any] | None]:
    from diffusers import DiffusionPipeline
    from diffusers.utils.logging import disable_progress_bar
    from safetensors import SafetensorError

    disable_progress_bar()
    options = {"use_safetensors": True, **kwargs}  # pickles run code when they are read
    try:
        found = folder or Path(DiffusionPipeline.download(str(name), **_of_download(options)))
        pipe = DiffusionPipeline.from_pretrained(found, **options)
    except (OSError, ValueError, RuntimeError, ImportError, AttributeError, KeyError, TypeError, SafetensorError) as error:
        said = (str(error).strip() or repr(error)).splitlines()[0]
        raise InterpError(f"{name} could not be loaded: {said}{_pickled(folder, options)}") from error
    problems = itertools.chain(unlike_files(pipe, found, options.get("variant")), broken_configs(pipe, found))
    if problem := next(problems, None):
        raise InterpError(f"{name} could not be loaded: {problem}")
    return pipe, call_defaults(found)


def folder_of(name: str | Path) -> Path | None:
    """The folder that a name means; None for a hub id. InterpError for what is neither."""
    if str(name).startswith(variants.PREFIX):
        return variants.folder_of_variant(str(name))
    folder = ORGANISM if str(name) == "organism" else Path(name)
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise InterpError(f"{folder} is no diffusers pipeline: it has no model_index.json")
        return folder
    if str(name) == "organism" or str(name).count("/") != 1 or str(name).startswith((".", "/")):
        raise InterpError(
            f"no model {str(name)!r}: give 'organism' or 'organism:NAME' (where they are installed), a folder that holds a "
            "diffusers pipeline, a hub id owner/name, or tiny:NAME"
        )
    return None


def check_organism(folder: Path, digest: Callable[[Path], str] = weights_digest) -> None:
    """InterpError when the weights that came with this package are not those that its card was measured on."""
    try:
        said = json.loads((folder / "card.json").read_text())["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InterpError(f"{folder / 'card.json'} is missing or damaged ({error}): install the package again") from error
    if digest(folder) != said:
        raise InterpError(f"the weights in {folder} have been changed: their digest is not the card's; install the package again")


def _of_download(options: Mapping[str, Any]) -> dict[str, Any]:
    names = ("revision", "variant", "use_safetensors", "cache_dir", "token", "local_files_only", "force_download", "proxies",
             "custom_pipeline", "custom_revision", "trust_remote_code")  # fmt: skip
    return {name: options[name] for name in names if name in options}


def _pickled(folder: Path | None, options: Mapping[str, Any]) -> str:
    """A word on weights that were there and were not read."""
    if folder is None or not options["use_safetensors"]:
        return ""
    found = sorted(path for path in folder.rglob("*") if path.suffix in PICKLES)
    if not found:
        return ""
    return (
        f". It holds {found[0].relative_to(folder)}, a pickle, which can run code when it is read: convert it to safetensors, or "
        "pass use_safetensors=False if you trust it"
    )


def call_defaults(folder: Path) -> dict[str, Any] | None:
    """Keywords of every call that a model's folder says; None where it says nothing. InterpError for a damaged file."""
    path = folder / DEFAULTS_FILE
    if not path.is_file():
        return None
    try:
        held = json.loads(path.read_text())
    except ValueError as error:
        raise InterpError(
            f"{path} is damaged ({error}): it must hold keywords of the pipeline's call, as a JSON object"
        ) from error
    if not isinstance(held, dict):
        raise InterpError(f"{path} holds {type(held).__name__}: it must hold keywords of the pipeline's call, as a JSON object")
    return held


# --- weights and files -------------------------------------------------------------------------------------------------


def unlike_files(pipe: Any, folder: Path, variant: str | None = None) -> Iterator[str]:
    """What the weights of a pipeline's components lack in their files, or their files hold beside, in words.

    Components that were quantised on loading have other names for their weights, and are not compared.
    """
    for name, module in pipe.components.items():
        if not isinstance(module, nn.Module) or getattr(module, "hf_quantizer", None) is not None:
            continue
        held = names_in_files(folder / name, variant)
        if held is None:
            continue
        missing, beside = _by_name(module, held)
        if missing or beside:
            missing, beside = _of_transformers(module, folder / name, variant) or (missing, beside)
        if missing:
            yield f"its {name} lacks {_several(missing)}, which would be drawn at random: the files are incomplete"
        if whole := sorted(_whole_numbers(module, folder / name, variant)):
            yield f"the files of its {name} hold {_several(whole)} as whole numbers, whose scale is not known: they are quantised"
        if beside:
            yield f"the files of its {name} hold {_several(beside)}, which {type(module).__name__} does not have"


def _by_name(module: nn.Module, held: set[str]) -> tuple[list[str], list[str]]:
    """Weights that are in a component and not in its files, and the other way round."""
    own = list(names_of_weights(module))
    missing = sorted(names[0] for names in own if not held & set(names))
    return missing, sorted(key for key in held - {n for names in own for n in names} if not _ignored(module, key))


def _of_transformers(module: nn.Module, folder: Path, variant: str | None) -> tuple[list[str], list[str]] | None:
    """The same as transformers itself says it, which renames weights between its files and its modules; loaded once more, without
    any memory. None for other modules."""
    from transformers import PreTrainedModel
    from transformers.utils import logging

    if not isinstance(module, PreTrainedModel):
        return None
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        kind: Any = type(module)
        _, said = kind.from_pretrained(
            folder, output_loading_info=True, device_map="meta", variant=variant, use_safetensors=True, local_files_only=True
        )
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
    return sorted(said["missing_keys"]), sorted(said["unexpected_keys"])


def names_in_files(folder: Path, variant: str | None) -> set[str] | None:
    """The names of the weights in a component's safetensors files; None where there are none."""
    files = files_of(folder, variant)
    return {key for path in files for key in _keys(path)} if files else None  # what they hold, not what an index says


def files_of(folder: Path, variant: str | None) -> list[Path]:
    """A component's safetensors files that are loaded: those of its index, else those of the variant."""
    ending = f".{variant}" if variant else ""
    for path in sorted(folder.glob(f"*.safetensors.index{ending}.json")):
        shards = {folder / name for name in json.loads(path.read_text())["weight_map"].values()}
        return sorted(shard for shard in shards if shard.is_file())
    return [p for p in sorted(folder.glob("*.safetensors")) if p.stem.count(".") == ending.count(".") and p.stem.endswith(ending)]


def _keys(path: Path) -> set[str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as handle:
        return set(handle.keys())


def _whole_numbers(module: nn.Module, folder: Path, variant: str | None) -> Iterator[str]:
    """Weights that are floats in the module and whole numbers in its files."""
    from safetensors import safe_open

    floats = {name for name, weight in module.state_dict().items() if weight.is_floating_point()}
    for path in files_of(folder, variant):
        with safe_open(path, "pt") as handle:
            for key in floats & set(handle.keys()):
                if handle.get_slice(key).get_dtype()[0] in "IUB" and handle.get_slice(key).get_dtype() != "BF16":
                    yield key


def names_of_weights(module: nn.Module) -> Iterator[list[str]]:
    """Each weight and buffer by all its names: a file may hold a shared one under any of them."""
    same: dict[int, list[str]] = {}
    for name, weight in module.state_dict(keep_vars=True).items():
        same.setdefault(id(weight), []).append(name)
    yield from same.values()


def _ignored(module: nn.Module, key: str) -> bool:
    patterns = getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ()
    return any(re.search(pattern, key) for pattern in patterns)


def _several(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more weights"
