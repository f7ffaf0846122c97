"""A run of several videos: in one call of the pipeline's own, as a call of lists, or of rows that are begun one by one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from torch import Tensor

from cos_interp.interp.batch import each_prompt, each_video, rows_of
from cos_interp.interp.errors import InterpError
from cos_interp.interp.run.begun import Begun, Play, rows_begun
from cos_interp.interp.run.clock import Step
from cos_interp.interp.run.director import Director
from cos_interp.interp.run.generators import kept_global_noise, kept_states


def several(
    director: Director, call: dict[str, Any], play: Play, name: str, apart: Callable[[dict[str, Any]], bool]
) -> tuple[Director, dict[str, Any]]:
    """Director and keywords of a call of several videos. What the pipeline, called ``name``, makes of ``num_videos_per_prompt``
    is left to it where it makes them all; ``apart`` says whether the rows of a call must be begun one by one.

    ``play`` runs the pipeline with keywords. InterpError where one generator is to draw for videos that no such call makes.
    """
    if each_prompt(call) > 1:
        if makes_all(call, play):
            return director, call
        call = each_video(call)
        if not isinstance(call.get("generator"), list) and not makes_all(call, play):
            raise InterpError(
                f"{name} does not make {rows_of(call)} videos in one run from one generator: give seed=[...] or a list of "
                "generators, one a video"
            )
    return rows_begun(director, call, play, name) if apart(call) else (director, call)


class Trying(Director):
    """Ends a run after its first step; ``rows`` are then the videos in it."""

    rows = 0

    def edit_x0hat(self, step: Step, x0hat: Tensor) -> Tensor | None:
        self.rows = x0hat.shape[0]
        raise Begun


def makes_all(call: dict[str, Any], play: Play) -> bool:
    """Whether a pipeline makes all videos of a call, tried by its first step: some leave ``num_videos_per_prompt`` out, and some
    forget to repeat a part of what they have encoded."""
    trying = Trying()
    with kept_states(call.get("generator")), kept_global_noise(), suppress(Exception):  # whatever a pipeline says of it
        play(trying, call)
    return trying.rows == rows_of(call)
