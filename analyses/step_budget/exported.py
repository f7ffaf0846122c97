"""An allocation for other programs: its noise levels, and what diffusers' schedulers take in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cos_interp.analyses.step_budget import ScheduleFacts

CHANGING = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "shift_terminal", "invert_sigmas")


def before_shift(sigmas: Sequence[float], shift: float) -> tuple[float, ...]:
    """What a scheduler's shift ``s -> shift s / (1 + (shift - 1) s)`` turns into these levels.

    >>> [round(s, 4) for s in before_shift([1.0, 0.75], 3.0)]
    [1.0, 0.5]
    """
    return tuple(sigma / (shift - (shift - 1) * sigma) for sigma in sigmas)


def given_to(scheduler: Mapping[str, Any], sigmas: Sequence[float]) -> tuple[tuple[float, ...] | None, str]:
    """What ``set_timesteps(sigmas=...)`` of a scheduler with such a configuration turns into these levels; None where nothing
    does, with the reason."""
    shift, changed = scheduler.get("shift", scheduler.get("flow_shift")), [key for key in CHANGING if scheduler.get(key)]
    if scheduler.get("use_dynamic_shifting"):
        return None, "the scheduler's shift follows the size of the video"
    if changed or shift is None:
        return None, f"the scheduler changes the levels that it is given ({', '.join(changed) or 'it says no shift'})"
    return before_shift(sigmas, float(shift)), ""


def as_json(facts: ScheduleFacts) -> dict[str, Any]:
    """An allocation as data. ``set_timesteps``: keywords of the scheduler's method, which a pipeline that takes ``sigmas`` hands
    on. Where nothing leads there, ``cos_interp.at_sigmas`` does."""
    rounded = lambda sigmas: [round(sigma, 6) for sigma in sigmas]
    return {
        "allocation": facts.name, "num_inference_steps": len(facts.levels), "sigmas": rounded(facts.levels),
        "scheduler's own": rounded(facts.own), "set_timesteps": facts.given and {"sigmas": rounded(facts.given)},
        "not in diffusers because": facts.why or None,
    }  # fmt: skip
