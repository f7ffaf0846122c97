"""States of random generators, so that a replay draws the noise that the recorded run drew."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cos_interp.interp.errors import InterpError


def listed(generator: Any) -> list[torch.Generator]:
    """One generator, several or none, as a list."""
    if generator is None:
        return []
    return list(generator) if isinstance(generator, (list, tuple)) else [generator]


def restore(found: list[torch.Generator], states: list[Tensor]) -> None:
    """Set generators to the recorded states; those of one recorded video serve every row of a batch."""
    if not found or not states:
        return
    if len(states) not in (1, len(found)):
        raise InterpError(f"{len(states)} generator states were recorded, the replay has {len(found)} generators")
    for row, generator in enumerate(found):
        generator.set_state(states[row if len(states) > 1 else 0])
