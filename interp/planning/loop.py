"""Which calls of its transformers a generation makes, found by running the loop: with the tiny pipeline of the same class."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import SequenceMatcher
from functools import cache
from typing import Any

from cos_interp.interp.call import FRAMES, SIZES, keywords_of
from cos_interp.interp.errors import InterpError
from cos_interp.interp.families import tiny
from cos_interp.interp.identity import settings_of
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.trajectory import Run

SHAPES = (*SIZES, *FRAMES, "max_sequence_length", "prompt", "image", "last_image", "seed", "generator", "video")


def tiny_run(model: HookedVideoPipeline, call: Mapping[str, Any]) -> Run:
    """A run of the tiny pipeline that is most like the model's, with the model's scheduler and settings and the keywords of
    ``call`` that are no sizes, texts or pictures: its ``calls`` are those that the model's own run has, in number, step, branch,
    expert and forward. InterpError where no tiny pipeline is of the model's class."""
    name = _twin(type(model.pipe).__name__, tuple(sorted(model.engines)), bool(model.pipe.config.get("expand_timesteps")))
    pipe = tiny.build(name, type(model.pipe.scheduler).from_config(model.pipe.scheduler.config))
    pipe.register_to_config(**{k: v for k, v in settings_of(model.pipe).items() if k in pipe.config and k != "class"})
    asked = {key: value for key, value in {**model.defaults, **call}.items() if key not in SHAPES}
    guided = asked.get("guidance_scale", model.default("guidance_scale"))
    own = tiny.call(name, guided=guided is None or guided > 1)
    if asked.get("negative_prompt") is None:
        own.pop("negative_prompt", None)
    twin = HookedVideoPipeline.from_pipeline(pipe)
    steps = {"num_inference_steps": model.default("num_inference_steps")}
    taken = keywords_of(pipe)
    strength = {"strength": 1.0} if "strength" in own and "strength" not in asked else {}
    return twin.run(**{**own, **steps, **strength, **{k: v for k, v in asked.items() if k in taken or k in own}, "seed": 0})


@cache
def _twin(kind: str, experts: tuple[str, ...], expands: bool) -> str:
    """The name of a tiny pipeline of a class with these experts."""
    near = sorted(tiny.TINY, key=lambda name: -SequenceMatcher(None, name, kind.lower()).ratio())
    for name in near:
        pipe = tiny.build(name)
        has = tuple(sorted(n for n in ("transformer", "transformer_2") if getattr(pipe, n, None) is not None))
        if type(pipe).__name__ == kind and has == experts and bool(pipe.config.get("expand_timesteps")) == expands:
            return name
    raise InterpError(f"no plan for {kind} with {', '.join(experts)}: there is no tiny pipeline of it whose loop could be run")
