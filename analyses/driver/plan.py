"""What a run will take, before it: generations, block calls, operations, time, and bytes by place and purpose."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cos_interp.analyses.driver import twins
from cos_interp.analyses.driver.lines import boxes_of
from cos_interp.analyses.driver.outlook import Kept, Outlook, Use, recording_budget
from cos_interp.analyses.driver.placed import Placed, placed
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.interp.cache_plan import DEFAULT_BUDGET
from cos_interp.interp.families.decoding import MOST, PIXELS
from cos_interp.interp.limits import enough, shown_size

Foresee = Callable[[Any, Outlook], list[Use]]
TWINS = "what comes on top above, too: a twin solves nothing, so that pairs with two right answers are sought in vain"
PAGE = 16_000_000  # bytes of a page and of what it shows, which lies beside it once more: at most twice those of a page
FLOAT, BYTE = 4, 1  # bytes of a value of a decoded video, on the way and at the end
SITES, COARSER = ("hook_resid_post", "others"), 4  # the first of several sites, and of how many layers one, where less would fit
ROUNDED = 3  # times that a decoded video is there in floats before it is bytes: as it came, scaled, rounded


@dataclass(frozen=True)
class Line:
    """One kind of work: whole generations, block calls (each row of a batch counted), and operations of the blocks. ``bound``,
    ``further``, ``more``: see :class:`~cos_interp.analyses.driver.outlook.Use`."""

    what: str
    runs: int
    blocks: int
    flops: float
    bound: bool = False
    further: int = 0
    more: str = ""


@dataclass(frozen=True)
class Plan:
    """``places``: bytes by purpose on ``device``, ``host`` and ``disk``; on the CPU the device is the host. ``limits``: bytes
    that there are, for the places where that is known. ``recording``: bytes that one recorded run takes,
    ``budget`` what it may. ``placed``: where recordings are kept for which that is chosen."""

    lines: tuple[Line, ...]
    places: Mapping[str, Mapping[str, int]]
    limits: Mapping[str, int]
    recording: int
    budget: int
    placed: Placed | None = None

    @property
    def runs(self) -> int:
        """Whole generations in all."""
        return sum(line.runs for line in self.lines)

    @property
    def blocks(self) -> int:
        """Block calls in all."""
        return sum(line.blocks for line in self.lines)

    @property
    def most(self) -> int:
        """Block calls that it takes at most, whatever the model's answers are."""
        return sum(line.blocks + line.further for line in self.lines)

    @property
    def bounded(self) -> bool:
        """Whether much of it, a tenth, is what it takes at most."""
        return 10 * sum(line.blocks for line in self.lines if line.bound) > self.blocks

    @property
    def flops(self) -> float:
        return sum(line.flops for line in self.lines)

    def total(self, place: str) -> int:
        """Bytes in a place."""
        return sum(self.places[place].values())

    @property
    def over(self) -> list[str]:
        """The places that have less than it takes."""
        return [place for place in self.places if place in self.limits and self.total(place) > self.limits[place]]

    @property
    def problems(self) -> list[str]:
        """What does not fit, in words."""
        found = [
            f"the {place} takes {shown_size(self.total(place))}, and has {shown_size(self.limits[place])}" for place in self.over
        ]
        if self.placed is not None and self.placed.nowhere:
            size = self.places[self.placed.place]["recordings"]  # of all processes
            found.append(
                f"recordings of {shown_size(size)} fit neither into memory, where they are counted above, nor on the disk: with "
                f"--disk {enough(self.total('disk') + size)} they would lie there"
            )
        if self.recording > self.budget:
            found.append(f"what is kept of one run takes {shown_size(self.recording)}, and may take {shown_size(self.budget)}")
        return found


def planned(
    foresee: Foresee, outlook: Outlook, device: str, limits: Mapping[str, int], workers: int = 1, page: int = PAGE
) -> Plan:  # fmt: skip
    """The plan of an experiment's runs. ``device``: the kind that computes; ``limits``: bytes by place; ``page``: of one."""
    uses = foresee(outlook.config, outlook)
    recording = max((use.recording for use in uses), default=0)
    lines = [_line(use, outlook) for use in uses]
    lines += [_again(lines, outlook.config.twins)] if outlook.config.twins else []
    places = _places(uses, outlook, device, workers, page)
    kept = max((use.kept for use in uses if use.kept is not None), key=lambda one: sum(one.whole), default=None)
    chosen = None if kept is None else _put(kept, places, limits, outlook.config, workers)
    if kept is not None and chosen is not None and chosen.lean:
        again = Use("recorded steps, one at a time again", blocks=kept.again * (1 + outlook.config.twins), bound=True)
        lines.append(_line(again, outlook))
    return Plan(tuple(lines), places, limits, recording, recording_budget(outlook.config), chosen)


def _put(
    kept: Kept, places: dict[str, dict[str, int]], limits: Mapping[str, int], config: AnalysisConfig, workers: int
) -> Placed:  # fmt: skip
    """Choose the place of recordings in what is left of each, and count them there."""
    room = {place: (limits[place] - sum(held.values())) // workers for place, held in places.items() if place in limits}
    chosen = placed(kept, room, None if config.limits() else DEFAULT_BUDGET)
    places[chosen.place]["recordings"] = sum(chosen.sizes) * workers
    return chosen


def _line(use: Use, outlook: Outlook) -> Line:
    each = outlook.blocks(use.steps) if use.each is None and use.runs else use.each or 0
    blocks = round(use.blocks + use.runs * each)
    return Line(use.what, use.runs, blocks, blocks * outlook.block_flops, use.bound, round(use.further), use.more)


def _again(lines: Sequence[Line], count: int) -> Line:
    """The same on every twin, which is another model: what its answers decide may be anything there."""
    runs, blocks, further = (count * sum(getattr(line, name) for line in lines) for name in ("runs", "blocks", "further"))
    decided = any(line.bound or line.further or line.more for line in lines)
    flops, what = count * sum(line.flops for line in lines), "the same on a twin" if count == 1 else f"the same on {count} twins"
    return Line(what, runs, blocks, flops, decided, further, TWINS if decided else "")


def _places(uses: Sequence[Use], outlook: Outlook, device: str, workers: int, page: int) -> dict[str, dict[str, int]]:
    shape, config = outlook.shape, outlook.config
    weights = sum(shape.weights.values())
    there = {"none": weights, "model": max(shape.weights.values(), default=0)}.get(config.offload, 2 * shape.block_weights)
    rows, decoded = max((use.rows for use in uses), default=1), max((use.decoded for use in uses), default=0)
    branches, recorded = len(outlook.run().branches), max((len(use.kept.whole) for use in uses if use.kept), default=0)
    run = {
        "activations of a forward": shape.forward(rows), "kept of runs": max((use.held for use in uses), default=0),
        "latents of runs": (2 + branches) * (outlook.steps + 1) * shape.latent_bytes * (rows + recorded),
    }  # fmt: skip
    together = min(at_once(outlook), decoded) * shape.clip_bytes
    pixels = together * FLOAT
    host = {
        "pixels": decoded * shape.clip_bytes * BYTE + together * ROUNDED * FLOAT,
        "finished": max((use.finished for use in uses), default=0),
    }
    folders = 1 + config.twins
    disk = {"run folder": folders * sum(use.disk for use in uses), "its page and the files of it, at most": folders * page}
    two = config.twins > 0 or twins.is_one(outlook.model)  # a twin and its model are there at once, whichever runs
    there_too = two and device != "cpu" and config.offload == "none"
    drawn = {"a twin": twins.drawn_bytes(outlook.model, stays=not there_too)} if two else {}
    if device == "cpu":
        each = {name: size * workers for name, size in (run | host).items()}
        return {"host": {"weights": weights, **drawn, **each}, "disk": disk}
    waiting = {} if config.offload == "none" else {"weights that wait": weights}
    beside = {"a twin": sum(shape.weights[name] for name in outlook.model.engines)} if there_too else {}
    return {"device": {"weights": there, **beside, **run, "pixels": pixels}, "host": waiting | drawn | host, "disk": disk}


def at_once(outlook: Outlook) -> int:
    """Videos that are decoded together, see :func:`interp.families.decoding.at_a_time`."""
    return outlook.config.decode_steps or max(1, min(MOST, PIXELS // math.prod(outlook.shape.pixels)))


def fewer(config: AnalysisConfig, pixels: tuple[int, int, int], layers: int, device: str) -> list[tuple[str, dict[str, Any]]]:
    """What may be asked for instead, as the option says it and as settings: other places first, then less. ``pixels``: frames,
    height and width as they are; ``layers``: of the model."""
    ways = ("model", "group") if device != "cpu" and config.offload == "none" else ()
    found: list[tuple[str, dict[str, Any]]] = [(f"--offload {way}", {"offload": way}) for way in ways]
    if config.twins:
        found.append(("--twins 0", {"twins": 0}))
    fields = type(config).model_fields
    if "controls" in fields:
        found.append(("--no-controls", {"controls": False}))
    if "batch" in fields:
        found.append(("--batch 1", {"batch": 1}))
    if "span" in fields and config.model_dump(include={"span"})["span"] != "single":
        found.append(("--range single", {"span": "single"}))
    if "tokens" in fields and (boxes := boxes_of(config)):
        found.append((f"--tokens {boxes[0]}", {"tokens": boxes[:1]}))
    for name in ("sites", "variants"):
        if name in fields and len(several := getattr(config, name) or SITES) > 1:
            found.append((f"--{name} {several[0]}", {name: several[:1]}))
    if "layers" in fields and layers > COARSER and config.model_dump(include={"layers"})["layers"] is None:
        found.append((f"--layers 0:{layers}:{COARSER}", {"layers": tuple(range(0, layers, COARSER))}))
    counts = {name: getattr(config, name, None) for name in ("items", "pairs")}
    found += [(f"--{name} {n // 4}", {name: n // 4}) for name, n in counts.items() if n and n >= 8]
    steps = config.num_inference_steps
    found += [(f"--num-steps {n}", {"num_inference_steps": n}) for n in (steps // 2, 8, 4, 2) if 2 <= n < steps]
    frames, height, width = pixels
    found += [(f"--num-frames {n}", {"num_frames": n}) for n in (frames // 2 // 4 * 4 + 1, 9) if 1 < n < frames]
    for part in (2, 4):
        w, h = width // part // 16 * 16, height // part // 16 * 16
        if w and h:
            found.append((f"--size {w}x{h}", {"size": f"{w}x{h}"}))
    return found
