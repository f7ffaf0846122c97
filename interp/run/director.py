"""Who decides what happens in a run: a director answers the transformer's calls and may act before the steps and between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor

from cos_interp.interp.run.clock import Call, Step
from cos_interp.interp.run.engine import ExpertEngine

When = Literal["prepared", "stepped"]  # the first latents have been prepared; the scheduler is about to make its first step


class Director:
    """Lets the pipeline do what it does. A subclass overrides what it changes.

    The methods stand in the order in which a :class:`~cos_interp.interp.run.stage.Stage` asks them: the first four once, before
    the loop, then in every step :meth:`call` for each forward, :meth:`edit_x0hat`, and :meth:`edit_x_t` for the step that
    follows. Latents are ``[batch, channel, frame, row, col]`` on every family.
    """

    def encode(self, place: int, encode: Callable[[], Any]) -> Any:
        """What the pipeline's next encoder gives: ``encode_prompt`` and ``Adapter.recalls``, counted by ``place`` from 0.

        ``encode()`` runs it.
        """
        return encode()

    def prepare(self, prepare: Callable[[], Any]) -> Any:
        """What ``prepare_latents`` gives: first latents and conditions, as the pipeline has them. ``prepare()`` runs it."""
        return prepare()

    def generator_states(self, when: When) -> Sequence[Tensor]:
        """The states that the pipeline's generators are set to, one for all or one a generator; none leaves them alone."""
        return ()

    def prepared(self, latents: Tensor, steps: int | None) -> None:
        """Told the first latents, and the number of steps where the pipeline knows it by now; no transformer has run."""

    def edit_x_t(self, step: Step, x_t: Tensor) -> Tensor:
        """The latents before a step; ``x_t`` itself where nothing changes."""
        return x_t

    def call(self, calls: tuple[Call, ...], engine: ExpertEngine, kwargs: dict[str, Any]) -> Any:
        """What the transformer returns in one forward. ``calls`` are its branches, in the order of the batch."""
        return engine((), kwargs, {})

    def edit_x0hat(self, step: Step, x0hat: Tensor) -> Tensor | None:
        """The clean estimate of a step; None where nothing changes."""
        return None


class Around(Director):
    """Another director, of which a subclass changes some of the answers."""

    def __init__(self, inner: Director):
        self.inner = inner

    def encode(self, place: int, encode: Callable[[], Any]) -> Any:
        return self.inner.encode(place, encode)

    def prepare(self, prepare: Callable[[], Any]) -> Any:
        return self.inner.prepare(prepare)

    def generator_states(self, when: When) -> Sequence[Tensor]:
        return self.inner.generator_states(when)

    def prepared(self, latents: Tensor, steps: int | None) -> None:
        self.inner.prepared(latents, steps)

    def edit_x_t(self, step: Step, x_t: Tensor) -> Tensor:
        return self.inner.edit_x_t(step, x_t)

    def call(self, calls: tuple[Call, ...], engine: ExpertEngine, kwargs: dict[str, Any]) -> Any:
        return self.inner.call(calls, engine, kwargs)

    def edit_x0hat(self, step: Step, x0hat: Tensor) -> Tensor | None:
        return self.inner.edit_x0hat(step, x0hat)
