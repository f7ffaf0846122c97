"""An allocation for other programs: its noise levels, and what diffusers' schedulers take in their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cos_interp.analyses.step_budget import ScheduleFacts

CHANGING = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "shift_terminal", "invert_sigmas")
NEAR = 1e-4  # within which a scheduler has the levels that were asked for


def before_shift(sigmas: Sequence[float], shift: float) -> tuple[float, ...]:
    """What a scheduler's shift ``s -> shift s / (1 + (shift - 1) s)`` turns into these levels.

    >>> [round(s, 4) for s in before_shift([1.0, 0.75], 3.0)]
    [1.0, 0.5]
    """
    return tuple(sigma / (shift - (shift - 1) * sigma) for sigma in sigmas)


def given_to(scheduler: Any, sigmas: Sequence[float]) -> tuple[tuple[float, ...] | None, str]:
    """What ``set_timesteps(sigmas=...)`` of such a scheduler turns into these levels, tried on a fresh one; None where nothing
    does, with the reason."""
    config = scheduler.config
    shift, changed = config.get("shift", config.get("flow_shift")), [key for key in CHANGING if config.get(key)]
    if config.get("use_dynamic_shifting"):
        return None, "the scheduler's shift follows the size of the video"
    if changed or shift is None:
        return None, f"the scheduler changes the levels that it is given ({', '.join(changed) or 'it says no shift'})"
    given, tried = before_shift(sigmas, float(shift)), type(scheduler).from_config(config)
    try:
        tried.set_timesteps(sigmas=list(given))
    except (TypeError, ValueError) as error:  # many take none, UniPC no list
        return None, f"{type(scheduler).__name__} takes no list of levels ({error})"
    made = [float(sigma) for sigma in tried.sigmas[: len(sigmas)]]
    if any(abs(a - b) > NEAR for a, b in zip(made, sigmas, strict=True)):
        return None, f"{type(scheduler).__name__} changes the levels that it is given"
    return given, ""


def as_json(facts: ScheduleFacts) -> dict[str, Any]:
    """An allocation as data. ``set_timesteps``: keywords of the scheduler's method, which a pipeline that takes ``sigmas`` hands
    on. Where nothing leads there, ``cos_interp.at_sigmas`` does."""
    rounded = lambda sigmas: [round(sigma, 6) for sigma in sigmas]
    return {
        "allocation": facts.name, "num_inference_steps": len(facts.levels), "sigmas": rounded(facts.levels),
        "scheduler's own": rounded(facts.own), "set_timesteps": facts.given and {"sigmas": rounded(facts.given)},
        "not in diffusers because": facts.why or None,
    }  # fmt: skip
