"""Patches whose value depends on what is there: edits of the activation itself, and taps that only read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from cos_interp.interp.patches import Patch

Change = Callable[[Tensor, int, str], Tensor]  # (activation [1, ...], step, branch) -> activation of the same shape


@dataclass(frozen=True, eq=False)
class Edit(Patch):
    """A row of a patched batch in which ``donor(activation, step, branch)`` gives what takes the activation's place.

    What was patched at the same site by patches before it in the row is in the activation already.
    """

    donor: Change  # type: ignore[assignment]

    def check_donor(self) -> None:
        """InterpError for a donor that is no function of (activation, step, branch)."""
        self._check_donor("(activation, step, branch)", 3)

    def _asked(self, act: Tensor, step: int, branch: str) -> Tensor:
        return self.donor(act, step, branch)


@dataclass
class Tap:
    """What came by at a site in a replay: ``tap.patch(site, steps, branches)`` goes into a row, and :meth:`donor` gives it on."""

    held: dict[tuple[int, str], Tensor] = field(default_factory=dict)

    def patch(self, site: str, steps: Any, branches: tuple[str, ...]) -> Edit:
        """An edit that changes nothing and keeps what it sees."""

        def keep(act: Tensor, step: int, branch: str) -> Tensor:
            self.held[step, branch] = act.clone()
            return act

        return Edit(site, steps, keep, branches)

    def donor(self, step: int, branch: str) -> Tensor:
        """The activation of a step. KeyError for one that the replay did not come to."""
        return self.held[step, branch]
