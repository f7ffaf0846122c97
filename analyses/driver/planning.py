"""``--plan``: an experiment's plan against what there is, and what would make it fit."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from cos_interp.analyses.driver import registry
from cos_interp.analyses.driver.experiment import settled, told
from cos_interp.analyses.driver.outlook import Outlook
from cos_interp.analyses.driver.pace import Pace, can_time, pace
from cos_interp.analyses.driver.plan import PAGE, Plan, fewer, planned
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.analyses.driver.workers import default_workers
from cos_interp.interp.errors import InterpError
from cos_interp.interp.limits import enough, host_memory, shown_size
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.placing import NAMES
from cos_interp.interp.planning.skeleton import skeleton

REMEDIES = 3  # that are named


@dataclass(frozen=True)
class Forecast:
    """A plan, where it would compute, how long, and the options that would make it fit."""

    outlook: Outlook
    plan: Plan
    device: str
    workers: int
    pace: Pace | None
    remedies: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """Of the transformers alone; None where this machine cannot tell."""
        return None if self.pace is None else self.plan.flops / self.pace.flops_a_second / self.workers

    def data(self) -> dict[str, Any]:
        """The same for ``--json``."""
        lines = [vars(line) for line in self.plan.lines]
        totals = {
            "block_calls": self.plan.blocks,
            "block_calls_at_most": self.plan.most,
            "flops": self.plan.flops,
            "seconds": self.seconds,
        }
        where = {"device": self.device, "workers": self.workers, "bytes": self.plan.places, "limits": self.plan.limits}
        return {"work": lines, **totals, **where, "problems": self.plan.problems, "remedies": self.remedies}

    def lines(self) -> Iterator[str]:
        """What is printed."""
        model, shape, plan = self.outlook.model, self.outlook.shape, self.plan
        frames, height, width = shape.pixels
        engine = shape.engine.module
        yield (
            f"{model.name}: {len(model.engines)} x {model.layers} blocks in {str(engine.dtype).removeprefix('torch.')} on "
            f"{self.device}; {width}x{height}, {frames} frames, {shape.grid.tokens:,} tokens; {self.outlook.steps} steps, "
            f"{len(self.outlook.run().calls)} calls a run"
        )
        for line in plan.lines:
            runs = f"{line.runs:,} x " if line.runs else ""
            most = "at most " if line.bound else ""
            further = f"up to {line.further:,} more: " if line.further else ""
            more = f"; {'' if line.bound else 'and '}{further}{line.more}" if line.more else ""
            yield f"  {runs}{line.what}: {most}{line.blocks:,} block calls, {line.flops:.3g} FLOP{more}"
        most = f" (at most {plan.most:,})" if plan.most > plan.blocks else ""
        yield f"  in all {plan.blocks:,} block calls{most}, {plan.flops:.3g} FLOP{self._time()}"
        for place, held in plan.places.items():
            parts = ", ".join(f"{what} {shown_size(size)}" for what, size in held.items() if size)
            limit = f" of {shown_size(plan.limits[place])}" if place in plan.limits else ", limit not known: give --memory"
            yield f"  {place}: {shown_size(plan.total(place))}{limit} ({parts or 'nothing'})"
        yield from self.unfit()

    def unfit(self) -> Iterator[str]:
        """What does not fit, and what would make it; nothing where all fits."""
        for problem in self.plan.problems:
            yield f"does not fit: {problem}"
        if self.plan.problems:
            yield f"what makes it fit: {self.remedy}"

    @property
    def remedy(self) -> str:
        """The options that would make it fit, in words."""
        return "; or ".join(self.remedies) or "nothing that was tried; take a smaller model"

    def summary(self) -> str:
        """All of it in a line."""
        plan = self.plan
        time = "" if self.seconds is None else f"{self._about(self.seconds)}: "
        most = f" (at most {plan.most:,})" if plan.most > plan.blocks else ""
        limit = lambda place: f" of {shown_size(plan.limits[place])}" if place in plan.limits else ""
        places = ", ".join(f"{place} {shown_size(plan.total(place))}{limit(place)}" for place in plan.places)
        return f"{time}{plan.runs:,} whole generations, {plan.blocks:,} block calls{most}; {places}"

    def _time(self) -> str:
        if self.pace is None or self.seconds is None:
            return "" if can_time(self.device) else f"; no time: there is no {self.device} here to time a call on"
        return f", {self._about(self.seconds)} at {self.pace.flops_a_second:.3g} FLOP/s ({self.pace.how})"

    def _about(self, seconds: float) -> str:
        return f"{'at most' if self.plan.bounded else 'about'} {_clock(seconds)}"


def _clock(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def forecast(name: str, config: AnalysisConfig, out: Path, workers: int | None = None, timed: bool = True) -> Forecast:
    """The forecast of an experiment with some settings; no weights are loaded but for timing a call of a model that is small
    enough. InterpError for an experiment that does not say what it takes, and for a model whose loop cannot be run."""
    known(name, config)
    return of_model(name, config, bare(config), out, workers, timed)


def refuse(
    name: str, config: AnalysisConfig, out: Path, workers: int | None = None, model: HookedVideoPipeline | None = None
) -> None:  # fmt: skip
    """InterpError for an experiment that takes more than its settings state. ``model``: a loaded one, where it was placed."""
    if model is None:
        found = forecast(name, config, out, workers, timed=False)
    else:
        found = of_model(name, where_it_is(config, model), model, out, workers, timed=False)
    if found.plan.problems:
        raise InterpError("\n".join([f"{name} is not run:", *found.unfit(), "--plan says more"]))


def refuse_uses(foresee: Callable[..., Any], config: AnalysisConfig, out: Path, model: HookedVideoPipeline | None = None) -> None:
    """The same of one process that is no experiment and says itself what it takes; nothing where no limits are stated."""
    if not config.limits():
        return
    asked = config if model is None else where_it_is(config, model)
    there = bare(asked) if model is None else model
    asked = settled(asked, there)
    told(there, asked)
    found = prepared(foresee, asked, there, kind_of_device(asked), out, 1, timed=False, page=0)
    if found.plan.problems:
        raise InterpError("\n".join(["this is not run:", *found.unfit()]))


def where_it_is(config: Any, model: HookedVideoPipeline) -> Any:
    """The settings with the device of a model that somebody else has placed."""
    device = getattr(model.pipe, "_execution_device", model.pipe.device)
    return config.model_copy(update={"device": str(device)})


def known(name: str, config: AnalysisConfig) -> Callable[..., Any]:
    """What an experiment says of its runs. InterpError where it says nothing, or runs no model."""
    foresee = registry.foresight(name) if name in registry.entries() else None
    if foresee is None:
        there = [one for one in registry.entries() if registry.foresight(one)]
        raise InterpError(f"{name} does not say what it takes: there are plans of {', '.join(there)}")
    if registry.load(name).modelless(config):
        raise InterpError(f"{name} runs no model with these settings: there is nothing to plan")
    return foresee


def bare(config: AnalysisConfig) -> HookedVideoPipeline:
    """The model of some settings without its weights. InterpError for files beside it that are not there."""
    config.placing().check()
    return skeleton(config.model, _type(config, kind_of_device(config)), config.revision)


def of_model(
    name: str, config: AnalysisConfig, model: HookedVideoPipeline, out: Path, workers: int | None = None, timed: bool = True
) -> Forecast:
    """As :func:`forecast`, of a model that is there, with weights or without. InterpError where it does not fit."""
    foresee, device = known(name, config), kind_of_device(config)
    config = settled(config, model)
    told(model, config)
    registry.load(name).check(config, model)
    return prepared(foresee, config, model, device, out, workers, timed)


def prepared(
    foresee: Callable[..., Any], config: AnalysisConfig, model: HookedVideoPipeline, device: str, out: Path, workers: int | None,
    timed: bool, remedied: bool = True, page: int = PAGE,
) -> Forecast:  # fmt: skip
    """As :func:`of_model`, of settings that are settled and checked. ``remedied``: look for what would make it fit;
    ``page``: bytes of a page at most, 0 where there is none."""
    outlook = Outlook.of(model, config)
    count = (default_workers() if workers is None else workers) if device == "cpu" else 1
    limits = limits_of(config, device, out)
    plan = planned(foresee, outlook, device, limits, count, page)
    remedies = tuple(_remedies(foresee, outlook, plan, device, count, page)) if plan.problems and remedied else ()
    return Forecast(outlook, plan, device, count, pace(outlook, device) if timed else None, remedies)


def kind_of_device(config: AnalysisConfig) -> str:
    """The kind of device that is asked for, whether this machine has it or not."""
    return config.placing().where().type if config.device == "auto" else config.device.partition(":")[0]


def _type(config: AnalysisConfig, device: str) -> torch.dtype:
    name = ("fp32" if device == "cpu" else "bf16") if config.dtype == "auto" else config.dtype
    return getattr(torch, NAMES[name])


def limits_of(config: AnalysisConfig, device: str, out: Path) -> dict[str, int]:
    """Bytes by place: what was said, else what this machine has."""
    said = config.limits()
    host = said.get("host_memory", host_memory())
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.is_dir())
    found = {"host": host, "disk": said.get("disk", shutil.disk_usage(there).free)}
    if device == "cpu":
        return found | {"host": min(host, said.get("memory", host))}
    if device == "cuda" and torch.cuda.is_available():
        found["device"] = torch.cuda.get_device_properties(config.placing().where()).total_memory
    return found | ({"device": said["memory"]} if "memory" in said else {})


def _remedies(
    foresee: Callable[..., Any], outlook: Outlook, plan: Plan, device: str, workers: int, page: int
) -> Iterator[str]:  # fmt: skip
    """The first options, alone or two together, with which everything fits."""
    if plan.over == ["disk"] and len(plan.problems) == 1:
        yield _more_disk(outlook.config, plan)
        if plan.limits["disk"] < page:  # less than any run takes
            return
    options = fewer(outlook.config, outlook.shape.pixels, outlook.model.layers, device)
    named = 0
    least = list({tuple(change): (word, change) for word, change in options}.values())  # the last, smallest of each setting
    for count in (1, 2, 3):
        for some in combinations(options if count == 1 else least, count):
            update: dict[str, Any] = {}
            for _, change in some:
                update |= change
            if len(update) < count or (again := _with(outlook, update)) is None:  # two words for one setting
                continue
            try:
                other = planned(foresee, again, device, plan.limits, workers, page)
            except InterpError:  # boxes that lie outside of a smaller video
                continue
            if not other.problems:
                taken = max(other.places, key=other.total)
                yield f"{' '.join(word for word, _ in some)} ({taken} {shown_size(other.total(taken))})"
                named += 1
            if named == REMEDIES:
                return
        if named:
            return


def _more_disk(config: AnalysisConfig, plan: Plan) -> str:
    """What helps where only the disk is too small: the limit that was given, or else another disk."""
    needed = enough(plan.total("disk"))
    return f"--disk {needed}" if "disk" in config.limits() else f"--out on a disk that has {needed} free"


def _with(outlook: Outlook, update: Mapping[str, Any]) -> Outlook | None:
    """The same with some other settings; None where they do not go together."""
    try:
        config = type(outlook.config)(**{**outlook.config.model_dump(), **update})
    except ValidationError:
        return None
    return Outlook.of(outlook.model, config, runs=outlook.runs_of(config), counting=False)
