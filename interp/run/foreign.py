"""Forward hooks of the user's own, put on the modules whose activations are read or edited: they may look, and not change.

PyTorch calls them after the forward in which our sites are read. One that changes a module's output makes the value that was
kept another than the one that the model goes on with, and a replay would leave it out.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as everywhere

from cos_interp.interp.errors import InterpError

PLACES = ("_forward_hooks", "_forward_pre_hooks")  # hooks by number, in every module


@contextlib.contextmanager
def only_reading(name: str, modules: Iterable[tuple[str, nn.Module]]) -> Iterator[None]:
    """For the length of a block a forward hook of a transformer's modules that returns something else, or writes into what it
    gets, raises InterpError."""
    with contextlib.ExitStack() as stack:
        for path, module in modules:
            for place in PLACES:
                if hooks := getattr(module, place):
                    stack.enter_context(_watched(hooks, f"{name}.{path}".rstrip(".")))
        for place in ("_global_forward_hooks", "_global_forward_pre_hooks"):
            if hooks := getattr(everywhere, place):
                stack.enter_context(_watched(hooks, "every module"))
        yield


@contextlib.contextmanager
def _watched(hooks: MutableMapping[int, Callable[..., Any]], where: str) -> Iterator[None]:
    own = dict(hooks)
    hooks.update({number: _watching(hook, where) for number, hook in own.items()})
    try:
        yield
    finally:
        hooks.update({number: hook for number, hook in own.items() if number in hooks})  # a hook may have removed itself


def _watching(hook: Callable[..., Any], where: str) -> Callable[..., Any]:
    @functools.wraps(hook, updated=())
    def watching(*given: Any) -> Any:
        before = [tensor.clone() for tensor in _tensors(given)]  # tensor.data writes past PyTorch's own count of changes
        returned = hook(*given)
        kept = all(map(torch.equal, before, _tensors(given)))
        if not kept or not _handed_back(returned, given):
            own = getattr(hook, "__qualname__", hook)
            raise InterpError(
                f"a PyTorch forward hook on {where} changes what it is given ({own}): activations "
                "are read before such hooks act. Edit by run_with_hooks(fwd_hooks=[...]), or remove it before this run"
            )
        return returned

    return watching


def _handed_back(returned: Any, given: tuple[Any, ...]) -> bool:
    """Whether a hook returned nothing, or the very tensors that it was given: the output, or the arguments."""
    if returned is None:
        return True
    same = lambda own: [id(tensor) for tensor in _tensors(own)] == [id(tensor) for tensor in _tensors(returned)]
    return same(given[-1]) or same(given[1:])


def _tensors(values: Any) -> list[Tensor]:
    """The tensors in arguments or results."""
    if isinstance(values, Tensor):
        return [values]
    inside = values.values() if isinstance(values, dict) else values if isinstance(values, tuple | list) else ()
    return [tensor for value in inside for tensor in _tensors(value)]
