"""States of random generators, so that a replay draws the noise that the recorded run drew."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from cos_interp.interp.errors import InterpError


class GlobalNoise:
    """Watches PyTorch's global generator while the pipeline has control: noise from there cannot be drawn again."""

    def __init__(self) -> None:
        self.drawn = False
        self.leave()

    def leave(self) -> None:
        """The pipeline gets control."""
        self._state = torch.get_rng_state()

    def enter(self) -> None:
        """The pipeline calls us; ``drawn`` says whether it has drawn since :meth:`leave`, now or earlier."""
        self.drawn |= not torch.equal(self._state, torch.get_rng_state())


def listed(generator: Any) -> list[torch.Generator]:
    """One generator, several or none, as a list."""
    if generator is None:
        return []
    return list(generator) if isinstance(generator, (list, tuple)) else [generator]


@contextlib.contextmanager
def kept_states(generator: Any) -> Iterator[None]:
    """Around what draws and is not to have drawn: generators as they were."""
    found = listed(generator)
    states = [one.get_state() for one in found]
    try:
        yield
    finally:
        restore(found, states)


@contextlib.contextmanager
def kept_global_noise() -> Iterator[None]:
    """PyTorch's global generators as they were."""
    with torch.random.fork_rng(range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
        yield


def restore(found: Sequence[torch.Generator], states: Sequence[Tensor]) -> None:
    """Set generators to the recorded states; those of one recorded video serve every row of a batch."""
    if not found or not states:
        return
    if len(states) not in (1, len(found)):
        raise InterpError(f"{len(states)} generator states were recorded, the replay has {len(found)} generators")
    for row, generator in enumerate(found):
        generator.set_state(states[row if len(states) > 1 else 0])
