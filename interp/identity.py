"""What a model is, by content: digests of everything loaded that decides a number. Names and paths decide none."""

from __future__ import annotations

import hashlib
import json
import zlib
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
    """sha256 by component of a pipeline: weights and buffers as loaded (LoRA layers and their scales too), configurations,
    tokenizers; and ``pipeline``, its own settings, like the boundary between two experts.

    Some 30 s for 14 B parameters. A component of a kind without weights, configuration or vocabulary counts by its class.
    """
    parts = {name: component_digest(part) for name, part in sorted(pipe.components.items()) if part is not None}
    return parts | {"pipeline": hashlib.sha256(_text(settings_of(pipe))).hexdigest()}


def settings_of(pipe: Any) -> dict[str, Any]:
    """What a pipeline is made with beside its components."""
    own = {key: value for key, value in pipe.config.items() if key not in (*PROVENANCE, *pipe.components)}
    return {"class": type(pipe).__name__, **own}


def combined(parts: Mapping[str, str]) -> str:
    """One digest for all components."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def whole(pipe: Any) -> str:
    """One digest for all that a pipeline is."""
    return combined(identity(pipe))


def component_digest(part: Any) -> str:
    """sha256 of one component of a pipeline."""
    total = hashlib.sha256(f"{type(part).__name__}\n".encode())
    total.update(_text(_configuration(part)))
    if isinstance(part, nn.Module):
        update_with_weights(total.update, part)
        total.update(_text(constants_of(part)))
    if hasattr(part, "get_vocab"):
        total.update(_text(_tokenizer(part)))
    return total.hexdigest()


def constants_of(module: nn.Module) -> dict[str, Any]:
    """What a module computes with that is no weight: numbers and switches (an epsilon), adapters with their scales and whether
    they are on, and a forward that is not that of its class. Offloading puts its own forward there, which computes the same."""
    held: dict[str, Any] = {}
    for path, inner in module.named_modules():
        for name, value in vars(inner).items():
            if isinstance(value, bool | int | float) and not name.startswith("_") and name != "training":
                held[f"{path}.{name}"] = value
            elif name == "forward" and (own := getattr(value, "__qualname__", "")) != type(inner).forward.__qualname__:
                held[f"{path}.forward"] = own
        if isinstance(scales := getattr(inner, "scaling", None), Mapping):  # a LoRA layer of peft
            switches = (getattr(inner, name, None) for name in ("active_adapters", "disable_adapters", "merged_adapters"))
            held[f"{path}.adapters"] = [sorted(scales.items()), *map(str, switches)]
    return held


def _tokenizer(part: Any) -> dict[str, Any]:
    """How a tokenizer makes numbers of a text: its vocabulary, rules and settings."""
    inner: Any = getattr(part, "backend_tokenizer", None)
    rules = json.loads(inner.to_str()) if hasattr(inner, "to_str") else {}
    for state in ("padding", "truncation"):  # of the last call
        rules.pop(state, None)
    names = ("padding_side", "truncation_side", "model_max_length", "special_tokens_map", "chat_template", "add_bos_token",
             "add_eos_token", "add_prefix_space", "clean_up_tokenization_spaces")  # fmt: skip
    return {"rules": rules, "vocabulary": part.get_vocab(), **{name: str(getattr(part, name, None)) for name in names}}


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


# --- at a glance -------------------------------------------------------------------------------------------------------


def glance(pipe: Any, modules: Mapping[str, nn.Module]) -> str:
    """A digest of what a pipeline denoises with, of its ``modules`` by checksums of their weights: what a replay must have in
    common with its recording. Some 10 ms for 2 M parameters; it reads every weight once."""
    levels = getattr(vars(pipe.scheduler).get("set_timesteps"), "levels", None)  # of at_sigmas
    total = hashlib.sha256(_text([settings_of(pipe), type(pipe.scheduler).__name__, _configuration(pipe.scheduler), levels]))
    for name, module in modules.items():
        total.update(_text([name, type(module).__name__, constants_of(module)]))
        for kind in (module.named_parameters(), module.named_buffers()):
            for weight, value in kind:
                total.update(f"{weight} {value.dtype} {tuple(value.shape)} {_checksum(value.detach())}".encode())
    return total.hexdigest()


BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _checksum(value: Tensor) -> list[int]:
    """Of all bits of a tensor: a CRC on the CPU, and on a GPU, which is not read out for this, sums along rows and columns. Empty
    for an offloaded tensor, which is not there."""
    if hasattr(value, "__tensor_flatten__"):  # quantised
        return [number for part in value.__tensor_flatten__()[0] for number in _checksum(getattr(value, part))]
    if value.is_meta or not value.numel():
        return []
    flat = value.contiguous().reshape(value.shape[0] if value.ndim else 1, -1)
    if value.device.type == "cpu":
        return [zlib.crc32(flat.view(torch.uint8).numpy().data)]
    bits = flat.view(BITS[value.element_size()])
    sums = torch.cat([bits.sum(axis, dtype=torch.int64) for axis in (0, 1)])
    return [zlib.crc32(sums.cpu().numpy().data)]


def _state(module: nn.Module) -> dict[str, Any]:
    if not any(p.is_meta for p in module.parameters()):
        return module.state_dict()
    from accelerate.utils.modeling import get_state_dict_offloaded_model  # offloaded one by one

    held = get_state_dict_offloaded_model(module)
    return {name: held[name] if name in held else _waiting(module, name, value) for name, value in module.state_dict().items()}


def _waiting(module: nn.Module, name: str, value: Tensor) -> Tensor:
    """A weight of the outermost module, which accelerate's own list leaves out, from where it waits."""
    hook: Any = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", [hook]):
        if value.is_meta and name in (getattr(one, "weights_map", None) or ()):
            return one.weights_map[name]
    return value


def _configuration(part: Any) -> Any:
    config: Any = getattr(part, "config", None)
    if config is None and hasattr(part, "to_dict"):  # processors
        config = part
    held = config.to_dict() if hasattr(config, "to_dict") else config
    return {k: v for k, v in held.items() if k not in PROVENANCE} if isinstance(held, Mapping) else None


def _text(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()
