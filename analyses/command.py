"""The command line that repeats a run, from its configuration."""

from __future__ import annotations

import shlex

from analyses.base import AnalysisConfig

# settings whose option on the command line has another name
FLAGS = {"pair_kinds": "--pair-kind", "num_inference_steps": "--num-steps", "guidance_scale": "--guidance", "span": "--range"}


def command_line(analysis: str, config: AnalysisConfig) -> str:
    """``cos analyze ...`` with every setting that differs from its default."""
    values, defaults = config.model_dump(mode="json"), type(config)().model_dump(mode="json")
    parts = ["cos", "analyze", analysis]
    for key, value in values.items():
        if value == defaults[key]:
            continue
        flag = FLAGS.get(key, f"--{key.replace('_', '-')}")
        if isinstance(value, bool):
            parts.append(flag if value else f"--no-{flag[2:]}")
        else:
            parts += [flag, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return shlex.join(parts)
