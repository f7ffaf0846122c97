"""What an experiment may ask about the runs that it is going to make: calls, blocks and bytes, from a model without weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.interp.cache_plan import DEFAULT_BUDGET
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.planning.costs import Shape
from cos_interp.interp.planning.loop import tiny_run
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

    ``runs``: whole generations, of ``steps`` steps (None: the run's own number). ``blocks``: block calls beside these, each row
    of a batch counted, as ``model.block_calls`` counts them. ``rows``: videos in one forward. ``held``: bytes of activations that
    are kept at once, ``recording`` those of one run; ``kept`` those of recordings whose place is chosen, see
    :mod:`driver.placed`. ``decoded``: latents that become pixels at once. ``disk``: bytes that are stored; ``finished``: of
    results in host memory until they are. Where the model's own answers decide: ``bound``, whether the block calls are the most
    that it may take; ``further``, how many may come on top at most; ``more``, what these are, in words.
    """

    what: str
    runs: int = 0
    steps: int | None = None
    blocks: int = 0
    rows: int = 1
    held: int = 0
    recording: int = 0
    kept: Kept | None = None
    decoded: int = 0
    disk: int = 0
    finished: int = 0
    bound: bool = False
    further: int = 0
    more: str = ""


@dataclass(frozen=True)
class Outlook:
    """A model without weights and the shape of its runs with some settings."""

    model: HookedVideoPipeline
    config: AnalysisConfig
    shape: Shape
    _runs: dict[int, Run] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, model: HookedVideoPipeline, config: AnalysisConfig) -> Outlook:
        return cls(model, config, Shape.of(model, config.call()))

    @property
    def steps(self) -> int:
        return self.config.num_inference_steps

    def run(self, steps: int | None = None) -> Run:
        """A run of so many steps on the tiny pipeline of the model's class: its ``calls`` are those of the model's own."""
        count = self.steps if steps is None else steps
        if count not in self._runs:
            asked = {"num_inference_steps": count, "guidance_scale": self.config.guidance_scale}
            self._runs[count] = tiny_run(self.model, {**self.config.call(), **self.model.adapter.needs, **asked})
        return self._runs[count]

    def runs_of(self, config: AnalysisConfig) -> dict[int, Run]:
        """The runs that are known, where they are those of other settings, too: size and number of steps do not matter."""
        same = all(getattr(config, key) == getattr(self.config, key) for key in ("guidance_scale", "negative_prompt", "set"))
        return self._runs if same else {}

    def blocks(self, steps: int | None = None) -> int:
        """Block calls of one generation."""
        return len(self.run(steps).calls) * self.model.layers

    def left(self, step: int) -> int:
        """Block calls of a run that is finished from a step on, from another state: those of this step and all later ones."""
        return sum(call.step >= step for call in self.run().calls) * self.model.layers

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
