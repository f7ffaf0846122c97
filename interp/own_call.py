"""A call of the model as of the pipeline itself: what is said by place, and what comes back, whatever it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from cos_interp.interp.call import keywords_of
from cos_interp.interp.errors import InterpError
from cos_interp.interp.rows import Fed
from cos_interp.interp.run.director import Director
from cos_interp.interp.run.engine import ExpertEngine
from cos_interp.interp.run.generators import kept_global_noise, kept_states
from cos_interp.interp.run.stage import LATENTS, Stage
from cos_interp.interp.trajectory import Run


def named(pipe: Any, given: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the pipeline's call by name that were given by place, and the others. InterpError for too many or doubled."""
    names = list(keywords_of(pipe))
    if len(given) > len(names):
        raise InterpError(f"{len(given)} arguments by place: {type(pipe).__name__} takes {len(names)}, {', '.join(names)}")
    by_place = dict(zip(names, given, strict=False))
    if twice := [name for name in by_place if name in kwargs]:
        raise InterpError(f"{twice[0]!r} was given by place and by name: {type(pipe).__name__} takes ({', '.join(names)})")
    return {**by_place, **kwargs}


class OwnCall:
    """Plays a run in the form that its caller asked for; ``returned`` is then what the pipeline's own call returned.

    ``form``: what of ``output_type`` and ``return_dict`` was said.
    """

    def __init__(self, call: Mapping[str, Any]):
        self.form = {name: call[name] for name in LATENTS if name in call}
        self.returned: Any = None

    def stage(self, pipe: Any, engines: Mapping[str, ExpertEngine], director: Director) -> Stage:
        return _Asked(pipe, engines, director, self)

    def with_run(self, run: Run) -> Any:
        """What was returned; an object of the pipeline's (and no plain tuple) has the run beside its own."""
        if hasattr(self.returned, "__dict__"):
            self.returned.run = run
        return self.returned


class _Asked(Stage):
    def __init__(self, pipe: Any, engines: Mapping[str, ExpertEngine], director: Director, call: OwnCall):
        super().__init__(pipe, engines, director)
        self.call = call

    def play(self, **kwargs: Any) -> Run:
        self.call.returned = self._on_stage({**kwargs, **self.call.form})
        told = {name: value for name, value in kwargs.items() if not name.startswith("callback")}
        with kept_states(kwargs.get("generator")), kept_global_noise():
            return self._ended(_Again(self)._on_stage({**told, **LATENTS}))


class _Again(Stage):
    """A run that was decoded once more, for what the pipeline makes of its final latents before: nothing is computed, and
    whatever the scheduler makes, the loop goes on with what it was."""

    def __init__(self, done: Stage):
        super().__init__(done.pipe, done.engines, Fed(done.run, 1))
        self.done = done

    def _following(self, k: int, latents: Tensor) -> Tensor:
        known = self.done.run.x_t
        return self.view.changing(known[k], latents) if k < len(known) else self.done.last.clone()
