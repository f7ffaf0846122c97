"""How the weights of a loaded pipeline wait in host memory, and another transformer that waits as they do."""

from __future__ import annotations

from typing import Any

from torch import nn

from cos_interp.interp.placing import Offload


def offload_of(pipe: Any, module: nn.Module) -> Offload:
    """How the weights of a module of a pipeline wait: ``none`` where they lie where they are computed with."""
    parts = list(module.modules())
    registries = [part.__dict__.get("_diffusers_hook") for part in parts]
    if any("group_offloading" in hook for registry in registries if registry is not None for hook in registry.hooks):
        return "group"
    if any(getattr(part.__dict__.get("_hf_hook"), "offload", False) for part in parts):
        return "sequential"
    return "model" if getattr(pipe, "_all_hooks", None) else "none"


def wait_alike(module: Any, way: Offload, device: Any) -> None:
    """Let the weights of a transformer that is not of a pipeline yet lie or wait in a way, for a device. With ``model`` its
    pipeline has to see to it, see :func:`in_turn`."""
    if way == "none":
        module.to(device)
    elif way == "group":
        module.enable_group_offload(onload_device=device, offload_type="leaf_level", use_stream=device.type == "cuda")
    elif way == "sequential":
        from accelerate import cpu_offload

        cpu_offload(module, device, offload_buffers=len(module._parameters) > 0)


def in_turn(pipe: Any, device: Any) -> None:
    """Let the components of a pipeline wait as wholes for their turn, those too that another pipeline has had in its own."""
    pipe.enable_model_cpu_offload(device=device)
