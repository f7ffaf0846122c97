"""What an experiment may ask about the runs that it is going to make: calls, blocks and bytes, from a model without weights."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cos_interp.analyses.driver.lines import Said, of_files, said
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.interp.cache_plan import DEFAULT_BUDGET
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.planning.costs import Shape
from cos_interp.interp.planning.loop import SHAPES, tiny_run
from cos_interp.interp.trajectory import Run


def recording_budget(config: AnalysisConfig) -> int:
    """Bytes that may be kept of one recorded run: those of the device, else of the machine, where they were said."""
    said = config.limits()
    return said.get("memory", said.get("host_memory", DEFAULT_BUDGET))


@dataclass(frozen=True)
class Kept:
    """Bytes of the recordings that are there at once, each of all its steps, and where one step at a time is enough, of one.
    ``again``: block calls that it takes in all to make the steps again, one at a time."""

    whole: tuple[int, ...]
    lean: tuple[int, ...]
    again: int = 0


@dataclass(frozen=True)
class Use:
    """One kind of work of an experiment.

    ``runs``: whole generations, of ``steps`` steps (None: the run's own number), each of so many block calls as ``each`` says
    (None: as the lines take in the mean). ``blocks``: block calls beside these, each row of a batch counted, as
    ``model.block_calls`` counts them. ``rows``: videos in one forward. ``held``: bytes of activations that
    are kept at once, ``recording`` those of one run; ``kept`` those of recordings whose place is chosen, see
    :mod:`driver.placed`. ``decoded``: latents that become pixels at once. ``disk``: bytes that are stored; ``finished``: of
    results in host memory until they are. Where the model's own answers decide: ``bound``, whether the block calls are the most
    that it may take; ``further``, how many may come on top at most; ``more``, what these are, in words.
    """

    what: str
    runs: int = 0
    steps: int | None = None
    each: float | None = None
    blocks: float = 0
    rows: int = 1
    held: int = 0
    recording: int = 0
    kept: Kept | None = None
    decoded: int = 0
    disk: int = 0
    finished: int = 0
    bound: bool = False
    further: float = 0
    more: str = ""


@dataclass(frozen=True)
class Outlook:
    """A model without weights and the runs that it makes with some settings. ``shape``: of the largest video; ``call``: the
    keywords of that, as the settings and the user's line say them; ``lines``: what each line of the user's files says."""

    model: HookedVideoPipeline
    config: AnalysisConfig
    shape: Shape
    call: Mapping[str, Any]
    lines: Sequence[Said]
    counting: bool = True  # whether block calls are asked for, which take one look at every row; bytes do not
    _runs: dict[str, Run] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        model: HookedVideoPipeline,
        config: AnalysisConfig,
        lines: Sequence[Said] | None = None,
        runs: dict[str, Run] | None = None,
        counting: bool = True,
    ) -> Outlook:
        """``lines``: some instead of all; ``runs``: what is known of them, see :meth:`runs_of`."""
        asked = of_files(config) if lines is None else lines
        calls = [{**config.call(), **line} for line in _distinct(asked)]
        shapes = [Shape.of(model, call) for call in calls]
        largest = max(range(len(calls)), key=lambda n: (shapes[n].grid.tokens, math.prod(shapes[n].pixels)))
        return cls(model, config, shapes[largest], calls[largest], asked, counting, {} if runs is None else runs)

    def at(self, call: Mapping[str, Any]) -> Outlook:
        """The same of one problem alone. ``call``: its keywords."""
        return (
            self
            if len(_distinct(self.lines)) == 1
            else Outlook.of(self.model, self.config, [said(call, self.config)], self._runs, self.counting)
        )

    @property
    def steps(self) -> int:
        return self.config.num_inference_steps

    def run(self, steps: int | None = None) -> Run:
        """A run of so many steps on the tiny pipeline of the model's class: its ``calls`` are those of the model's own, of
        several lines those of the longest."""
        return max((self._run(line, steps) for line in _distinct(self.lines)), key=lambda run: len(run.calls))

    def _run(self, line: Said, steps: int | None = None) -> Run:
        count = self.steps if steps is None else steps
        told = {key: value for key, value in line.items() if key not in SHAPES}
        key = f"{count} {_key(told)}"
        if key not in self._runs:
            asked = {"num_inference_steps": count, "guidance_scale": self.config.guidance_scale}
            self._runs[key] = tiny_run(self.model, {**self.config.call(), **self.model.adapter.needs, **told, **asked})
        return self._runs[key]

    def runs_of(self, config: AnalysisConfig) -> dict[str, Run]:
        """The runs that are known, where they are those of other settings, too: size and number of steps do not matter."""
        same = all(getattr(config, key) == getattr(self.config, key) for key in ("guidance_scale", "negative_prompt", "set"))
        return self._runs if same else {}

    def blocks(self, steps: int | None = None) -> float:
        """Block calls of one generation; of several lines their mean."""
        return self._mean(lambda line: len(self._run(line, steps).calls)) * self.model.layers

    def left(self, step: int) -> float:
        """Block calls of a run that is finished from a step on, from another state: those of this step and all later ones."""
        return self._mean(lambda line: sum(call.step >= step for call in self._run(line).calls)) * self.model.layers

    @cached_property
    def block_flops(self) -> float:
        """Operations of one block call; of several lines their mean, by how often each is called."""
        calls = [len(self._run(line).calls) for line in self.lines]
        known: dict[str, float] = {}
        for line in _distinct(self.lines):
            known[_key(line)] = Shape.of(self.model, {**self.config.call(), **line}).block_flops
        each = zip(self.lines, calls, strict=True)
        return sum(count * known[_key(line)] for line, count in each) / max(1, sum(calls))

    def _mean(self, of: Callable[[Said], int]) -> float:
        counts = {_key(line): of(line) for line in _distinct(self.lines)}
        return sum(counts[_key(line)] for line in self.lines) / len(self.lines)

    def kept(self, names: Sequence[str], steps: Iterable[int] | None = None) -> int:
        """Bytes of activations of one generation, in all branches and in some steps (None: all)."""
        chosen = None if steps is None else set(steps)
        calls = sum(chosen is None or call.step in chosen for call in self.run().calls)
        return calls * sum(self.shape.activation(name) for name in self.model.matching(list(names)))

    def recording(self, sites: Sequence[str] = (), steps: Iterable[int] | None = None) -> int:
        """Bytes of a recording for patching: the residual streams after all blocks, and sites of all blocks that have them, in
        some steps (None: all)."""
        streams = {name for name in self.model.hook_names if ".hook_resid_post" in name}
        return self.kept(sorted(streams | {name for site in sites for name in self._inside(site)}), steps)

    def _inside(self, site: str) -> list[str]:
        """The hooks of a site, in all blocks where it names none."""
        return self.model.matching(site if site.startswith("blocks.") else f"blocks.*.{site}")


def _key(line: Said) -> str:
    return json.dumps(line, sort_keys=True, default=str)


def _distinct(lines: Sequence[Said]) -> list[Said]:
    return list({_key(line): line for line in lines}.values())
