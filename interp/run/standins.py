"""What a pipeline finds in place of its transformer and of its scheduler's methods while it is on stage."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from diffusers.models.modeling_outputs import Transformer2DModelOutput

from cos_interp.interp.families.contract import takes
from cos_interp.interp.run.engine import ExpertEngine

Method = Callable[..., Any]
Answer = Callable[[ExpertEngine, dict[str, Any]], Any]
Within = Callable[[str, int | None], contextlib.AbstractContextManager[None]]


class StandIn:
    """Answers in place of a method of the scheduler; in a copy of the scheduler (LTX-2 steps its audio with one) it is the
    copy's own method again."""

    def __init__(self, original: Method, answer: Method):
        self.original, self.answer = original, answer
        functools.update_wrapper(self, original)  # pipelines ask for the parameters of a step

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.answer(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Method:
        return copy.deepcopy(self.original, memo)


class Proxy:
    """Stands in for one expert, and is otherwise the expert itself.

    ``answer`` gets the engine and the arguments of every call by name; ``within`` is entered with the name of the branch, and the
    index of the step, where the pipeline says which it runs.
    """

    def __init__(self, engine: ExpertEngine, answer: Answer, within: Within):
        self._engine, self._answer, self._within = engine, answer, within
        forward = type(engine.module).forward
        self._signature, self._has_return_dict = inspect.signature(forward), takes(forward, "return_dict")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine.module, name)

    @property  # type: ignore[misc]  # object's own can be assigned, this one cannot
    def __class__(self) -> type:
        """Pipelines look among their torch modules for the device of an offloaded one."""
        return type(self._engine.module)

    @contextlib.contextmanager
    def cache_context(self, name: str, **facts: Any) -> Iterator[None]:
        with self._within(name, facts.get("step_index")), self._engine.module.cache_context(name, **facts):
            yield

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kwargs = dict(self._signature.bind(None, *args, **kwargs).arguments)
        kwargs.pop("self", None)
        kwargs |= kwargs.pop("kwargs", {})
        if not self._has_return_dict:
            return self._answer(self._engine, kwargs)
        plain = not kwargs.get("return_dict", True)
        out = self._answer(self._engine, kwargs | {"return_dict": False})
        return out if plain else Transformer2DModelOutput(sample=out[0] if isinstance(out, tuple) else out)


@contextlib.contextmanager
def swapped(
    pipe: Any,
    experts: Mapping[str, Proxy],
    methods: Mapping[str, Callable[[Method], Any]],
    of_scheduler: Mapping[str, Callable[[Method], Any]],
) -> Iterator[None]:
    """The pipeline with other experts and with what is made of its methods and its scheduler's; everything back at the end."""
    kept = {name: getattr(pipe, name) for name in experts}
    owners = ((pipe.scheduler, of_scheduler), (pipe, (*methods, "maybe_free_model_hooks")))
    before = [{name: vars(owner)[name] for name in names if name in vars(owner)} for owner, names in owners]  # as at_sigmas puts
    ended: list[None] = []  # the pipeline offloads its modules at the end, when the experts must be themselves again
    try:
        pipe.maybe_free_model_hooks = lambda: ended.append(None)
        for name, proxy in experts.items():
            object.__setattr__(pipe, name, proxy)  # diffusers would note it in the configuration
        for owner, made in ((pipe.scheduler, of_scheduler), (pipe, methods)):
            for name, make in made.items():
                if hasattr(owner, name):
                    setattr(owner, name, make(getattr(owner, name)))
        yield
    finally:
        for name, module in kept.items():
            object.__setattr__(pipe, name, module)
        for (owner, names), held in zip(owners, before, strict=True):
            for name in names:
                owner.__dict__.pop(name, None)
            owner.__dict__.update(held)
        if ended:
            pipe.maybe_free_model_hooks()


@contextlib.contextmanager
def silent(pipe: Any) -> Iterator[None]:
    """No progress bar of the pipeline's for the length of a block; afterwards it is as its owner set it."""
    missing = object()
    before = getattr(pipe, "_progress_bar_config", missing)
    pipe.set_progress_bar_config(disable=True)
    try:
        yield
    finally:
        if before is missing:
            del pipe._progress_bar_config
        else:
            pipe._progress_bar_config = before
