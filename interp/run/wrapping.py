"""nnsight around a transformer that other libraries have hooked as well: LoRA, offloading, casting, quantisation.

nnsight takes the ``forward`` slot of every module. accelerate and diffusers use the same slot for their offloading hooks, add
and remove them between runs, and LoRA replaces modules, so that a wrapping that was right once need not be right for the
next run: :func:`wrapped` says whether it is, and :func:`wrap` makes it so. Modules that cannot be traced at all are refused.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import nnsight
from nnsight.intervention.source import STATE, Controller
from torch import nn

from cos_interp.interp.errors import InterpError

# hooks of diffusers that move or cast weights and leave what a module computes alone
HARMLESS = (
    "group_offloading", "lazy_prefetch_group_offloading", "layer_execution_tracker", "layerwise_casting", "peft_autocast_disable",
)  # fmt: skip

# nnsight looks for its controller in the outermost place only
warnings.filterwarnings("ignore", message=".*`forward` was replaced after nnsight wrapped this module")


class Traced(nnsight.NNsight):
    """Leaves the inputs where the pipeline put them: offloaded weights lie on another device than the computation."""

    @property
    def device(self) -> None:
        return None


def refuse_untraceable(name: str, transformer: nn.Module, modules: Sequence[tuple[str, nn.Module]]) -> None:
    """Raise InterpError for what runs around or instead of the hooks: compiled code, block caches, parallel layouts."""
    if getattr(transformer, "is_cache_enabled", False):
        raise InterpError(f"{name} has a block cache, which skips layers: call {name}.disable_cache() first")
    if getattr(transformer, "_parallel_config", None) is not None:
        raise InterpError(f"{name} is split over processes, each of which sees a part of it: load it without parallel_config")
    for path, module in modules:
        where = f"{name}.{path}".rstrip(".")
        if "_orig_mod" in module._modules or module._compiled_call_impl is not None:
            raise InterpError(f"{where} is compiled; hooks do not fire in compiled code: load the pipeline without torch.compile")
        for hook in _registry_hooks(module):
            if hook not in HARMLESS:
                raise InterpError(
                    f"{where} has the diffusers hook {hook!r}, which may skip or replace what it computes: "
                    f"call {where}._diffusers_hook.remove_hook({hook!r}) first"
                )


def wrapped(known: Sequence[tuple[str, nn.Module]], modules: Sequence[tuple[str, nn.Module]]) -> bool:
    """Whether a wrapping made when a transformer had the modules ``known`` sees every one that it has now."""
    same = len(known) == len(modules) and all(one is other for (_, one), (_, other) in zip(known, modules, strict=True))
    return same and all(_held(module) for _, module in modules)


def _held(module: nn.Module) -> bool:
    """Whether nnsight's place is the one that it made last: a forward that was replaced and put back brings an older one."""
    forward = _innermost(module)
    return isinstance(forward, Controller) and forward.state is module.__dict__.get(STATE)


def wrap(transformer: nn.Module) -> Traced:
    """nnsight in the innermost place of every module's forward, inside the hooks of diffusers."""
    outer = {module: module.__dict__["forward"] for module in transformer.modules() if _references(module)}
    for module in outer:
        module.__dict__["forward"] = _innermost(module)
    for module in transformer.modules():
        _put_back(module)
    env = Traced(transformer)
    for module in transformer.modules():
        if "_old_forward" in module.__dict__:  # what accelerate puts back when it removes its hook
            module.__dict__["_old_forward"] = module.__dict__["forward"]
    for module, forward in outer.items():
        first = _references(module)[0]
        setattr(first, "forward" if first.original_forward is None else "original_forward", module.__dict__["forward"])
        module.__dict__["forward"] = forward
    return env


def _put_back(module: nn.Module) -> None:
    """nnsight wraps a module once; where a hook that came or went took its controller away, it is put back."""
    state, forward = module.__dict__.get(STATE), module.__dict__.get("forward")
    own = inspect.ismethod(forward) and forward.__func__ is type(module).forward
    if isinstance(forward, Controller):
        module.__dict__[STATE] = forward.state
        return
    if state is not None and ("_hf_hook" in module.__dict__ or forward is None or own):
        module.__dict__["forward"] = Controller(module, state)
        return
    module.__dict__.pop(STATE, None)  # a forward of somebody else: that is what runs
    if own:
        del module.__dict__["forward"]  # nnsight would take a bound method for somebody else's


def _references(module: nn.Module) -> list[Any]:
    """The hooks of diffusers on a module, the innermost first."""
    registry = module.__dict__.get("_diffusers_hook")
    return [] if registry is None else registry._fn_refs


def _registry_hooks(module: nn.Module) -> Iterator[str]:
    registry = module.__dict__.get("_diffusers_hook")
    return iter(() if registry is None else registry.hooks)


def _innermost(module: nn.Module) -> Callable[..., Any] | None:
    """The forward inside the hooks of diffusers."""
    references = _references(module)
    if not references:
        return module.__dict__.get("forward")
    return references[0].original_forward or references[0].forward
