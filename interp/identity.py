"""What a model is, by content: digests of everything loaded that decides a number. Names and paths decide none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

# of a configuration: where it came from and who wrote it, and what the weights say themselves
PROVENANCE = (
    "architectures",
    "dtype",
    "_name_or_path",
    "_diffusers_version",
    "transformers_version",
    "_commit_hash",
    "_class_name",
    "_use_default_values",
)


def identity(pipe: Any) -> dict[str, str]:
    """sha256 by component of a pipeline: weights and buffers as loaded (LoRA layers too), configurations, vocabularies.

    Some 30 s for 14 B parameters. A component of a kind without weights, configuration or vocabulary counts by its class.
    """
    return {name: component_digest(part) for name, part in sorted(pipe.components.items()) if part is not None}


def combined(parts: Mapping[str, str]) -> str:
    """One digest for all components."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def component_digest(part: Any) -> str:
    """sha256 of one component of a pipeline."""
    total = hashlib.sha256(f"{type(part).__name__}\n".encode())
    total.update(_text(_configuration(part)))
    if isinstance(part, nn.Module):
        update_with_weights(total.update, part)
    if hasattr(part, "get_vocab"):
        total.update(_text(part.get_vocab()))
    return total.hexdigest()


def weights_of(module: nn.Module) -> str:
    """sha256 over the names, types and values of a module's weights and buffers."""
    total = hashlib.sha256()
    update_with_weights(total.update, module)
    return total.hexdigest()


def update_with_weights(update: Callable[[Any], None], module: nn.Module) -> None:
    """Feed a module's weights and buffers to a hash, in the order of their names."""
    for name, weight in sorted(_state(module).items()):
        _update(update, name, weight)


def _update(update: Callable[[Any], None], name: str, weight: Any) -> None:
    if hasattr(weight, "__tensor_flatten__"):  # a quantised weight is made of several tensors
        for part in weight.__tensor_flatten__()[0]:
            _update(update, f"{name}.{part}", getattr(weight, part))
    elif isinstance(weight, Tensor):
        update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    else:  # a quantised layer's settings
        update(_text({name: weight}))


def _state(module: nn.Module) -> dict[str, Any]:
    if any(p.is_meta for p in module.parameters()):  # offloaded one by one
        from accelerate.utils import get_state_dict_offloaded_model

        return get_state_dict_offloaded_model(module)
    return module.state_dict()


def _configuration(part: Any) -> Any:
    config: Any = getattr(part, "config", None)
    if config is None and hasattr(part, "to_dict"):  # processors
        config = part
    held = config.to_dict() if hasattr(config, "to_dict") else config
    return {k: v for k, v in held.items() if k not in PROVENANCE} if isinstance(held, Mapping) else None


def _text(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()
