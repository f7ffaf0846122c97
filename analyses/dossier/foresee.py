"""``cos analyze all --plan``: what each experiment takes at its first size, and how far the budget lets it grow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cos_interp.analyses.dossier import DossierConfig
from cos_interp.analyses.dossier.alike import Like
from cos_interp.analyses.dossier.run import (
    MORE_TWINS,
    PILOT,
    USUAL_TWINS,
    chosen,
    configured,
    fitting_items,
    seconds,
    settled_size,
    size_of,
)
from cos_interp.analyses.driver.planning import Forecast, bare, of_model, where_it_is
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline


@dataclass(frozen=True)
class Part:
    """One experiment of a dossier. ``items``: with which it begins; ``allowed``: seconds of the budget that are its share;
    ``found``: its forecast, None where it cannot run, for the reason ``why``. ``fixed``: no time decides its size."""

    name: str
    items: int
    allowed: float
    found: Forecast | None
    why: str = ""
    fixed: bool = False

    @property
    def most(self) -> int | None:
        """Items that fit into its share at most: by the transformers alone, without decoding and figures."""
        took = None if self.found is None else self.found.seconds
        return None if took is None or self.fixed else fitting_items(self.allowed - took, took)

    def data(self) -> dict[str, Any]:
        """For ``--json``."""
        about = {"experiment": self.name, "items": self.items, "allowed_seconds": self.allowed, "items_at_most": self.most}
        return about | (self.found.data() if self.found else {"error": self.why})

    def line(self) -> str:
        """What is printed."""
        if self.found is None:
            return f"  {self.name}: cannot run: {self.why}"
        grows = f"; its share of the budget is {self.allowed:.0f} s, for at most {self.most} items" if self.most else ""
        return f"  {self.name}, {self.items} items: {self.found.summary()}{grows}"


def parts(
    config: DossierConfig, out: Path, workers: int | None = None, given: HookedVideoPipeline | None = None, timed: bool = True
) -> Iterator[Part]:  # fmt: skip
    """The experiments of a dossier, in their order, each at the size that it begins with. ``given``: its model, where one is
    loaded."""
    entries, model, pace = chosen(config), bare(config) if given is None else given, None
    other = Like(Path(config.like), config, ()) if config.like else None
    for entry in entries:
        allowed = seconds(config.budget) * entry.seconds / sum(e.seconds for e in entries)
        sized = settled_size(entry, config, allowed, other)
        asked = sized or configured(entry, config, PILOT)
        part = Part(entry.name, size_of(entry, config, asked), allowed, None, fixed=sized is not None)
        try:
            found = of_model(entry.name, asked, model, out, workers, timed=timed and pace is None)
        except ValueError as error:  # as the dossier goes on without it
            yield replace(part, why=str(error))
            continue
        pace = pace or found.pace
        yield replace(part, found=replace(found, pace=pace))


def lines(config: DossierConfig, found: Sequence[Part]) -> Iterator[str]:
    """What is printed of all."""
    plans = possible(found)
    yield from (part.line() for part in found)
    times = [one.seconds for one in plans]
    took = f", about {sum(t for t in times if t):.0f} s" if all(t is not None for t in times) else ""
    calls = sum(one.plan.blocks for one in plans)
    yield f"in all {calls:,} block calls, {sum(one.plan.flops for one in plans):.3g} FLOP{took}, by the transformers alone"
    if not all(part.fixed for part in found):
        yield (
            f"That is how each begins, its {config.twins} twins included. What these {PILOT} items take on this machine decides "
            f"how many fit into its share of --budget {config.budget}: all together take about the budget, and longer only where "
            f"{PILOT} items of each do."
        )
    if config.twins == USUAL_TWINS and not config.like:
        yield f"A run of under a minute has {MORE_TWINS} twins, not {USUAL_TWINS}, which is not counted here."
    yield from unfit(found)


def possible(found: Sequence[Part]) -> list[Forecast]:
    """Of the experiments that can run. InterpError where none can."""
    plans = [part.found for part in found if part.found is not None]
    if not plans:
        raise InterpError(f"no experiment of the dossier can run: {found[0].why if found else 'none was asked for'}")
    return plans


def unfit(found: Sequence[Part]) -> list[str]:
    """What does not fit, by experiment, and what would make it; nothing where all fits."""
    said = []
    for part in found:
        if part.found is not None and part.found.plan.problems:
            said += [f"does not fit: {part.name}: {problem}" for problem in part.found.plan.problems]
            said.append(f"what makes {part.name} fit by itself: {part.found.remedy}; or leave it out (--only)")
    return said


def refuse(
    config: DossierConfig, out: Path, workers: int | None = None, model: HookedVideoPipeline | None = None
) -> None:  # fmt: skip
    """InterpError for a dossier of which an experiment takes more than its settings state. ``model``: a loaded one."""
    placed = config if model is None else where_it_is(config, model)
    found = list(parts(placed, out, workers, model, timed=False))
    possible(found)
    if said := unfit(found):
        raise InterpError("\n".join(["the dossier is not run:", *said, "--plan says more"]))
