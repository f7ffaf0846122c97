"""Path patching between found components (Wang et al. 2211.00593): what one hands to another directly, and by which road.

*Within* a step: the sender is patched while all else, latents too, is held at the target's own values, so that only the direct
road through the residual stream is open; what the receiver then writes is put into an untouched run. *Across* steps: the run with
the sender patched gives its latents alone to a run without it; what the receiver writes there is put into an untouched run.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from cos_interp.analyses.circuit import SITES, Component
from cos_interp.analyses.circuit.bench import Bench
from cos_interp.analyses.circuit.components import patches, spots
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.grid import EVERYWHERE
from cos_interp.interp.editing import Tap
from cos_interp.interp.patches import Donor, Patch
from cos_interp.interp.patching import replay, replay_run

MOST = 5  # components between which paths are measured, the strongest
INSIDE = ("attn", "cross", "mlp")  # the order within a block
ROADS = {"attn": ("q", "k", "v"), "cross": ("q",)}


def measured(bench: Bench, found: Sequence[Component]) -> list[Row]:
    """The effect of each path between the first of some components that the pair has tokens of."""
    nodes = [one for one in found if one.group in (EVERYWHERE, *bench.masks)][:MOST]
    named, rows = _within(bench, nodes)
    across, more = _across(bench, nodes)
    return [
        {"table": "path", **name, "effect": effect}
        for name, effect in zip([*named, *across], bench.effects([*rows, *more]), strict=True)
    ]


def before(sender: Component, receiver: Component) -> bool:
    """Whether a sender's result is there when the receiver of the same step runs."""
    place = lambda one: (one.layer, INSIDE.index(one.part))
    return place(sender) < place(receiver)


def _site(one: Component) -> str:
    return f"blocks.{one.layer}.{SITES[one.part]}"


def _held(bench: Bench) -> list[Patch]:
    """All that components write, and the latents, at the target's own values."""
    own = bench.target.recording
    sites = [f"blocks.{layer}.{SITES[part]}" for part, layer in spots(bench.model)]
    held = [Patch(site, bench.steps, own.donor(site), bench.branches) for site in sites]
    return [*held, Patch("hook_x_t", bench.steps[1:], own.donor("hook_x_t"))]


def _sent(bench: Bench, sender: Component) -> list[Patch]:
    if sender.group != EVERYWHERE:
        return patches([sender], bench.masks, bench.donor.recording, bench.branches)
    return [Patch(_site(sender), bench.steps, bench.donor.recording.donor(_site(sender)), bench.branches)]


def _put(bench: Bench, receiver: Component, tap: Tap, steps: Sequence[int]) -> list[Patch]:
    """What a tap has caught, at the receiver's tokens of an untouched run."""
    return [Patch(_site(receiver), tuple(steps), tap.donor, bench.branches, bench.masks.get(receiver.group))]


def _named(sender: Component, receiver: Component, road: str, when: str) -> Row:
    short = lambda one: f"{one.part} {one.layer} at {one.group}"
    return {"sender": short(sender), "receiver": short(receiver), "road": road, "when": when}


def _within(bench: Bench, nodes: Sequence[Component]) -> tuple[list[Row], list[list[Patch]]]:
    named: list[Row] = []
    rows: list[list[Patch]] = []
    for sender in nodes:
        receivers = [one for one in nodes if before(sender, one)]
        if not receivers:
            continue
        out, inputs = _caught(bench, sender, receivers)
        for receiver in receivers:
            named.append(_named(sender, receiver, "all", "within"))
            rows.append(_put(bench, receiver, out[receiver], bench.steps))
            for road, tap in inputs[receiver].items():
                named.append(_named(sender, receiver, road, "within"))
                rows.append(_put(bench, receiver, _alone(bench, receiver, road, tap), bench.steps))
    return named, rows


def _caught(
    bench: Bench, sender: Component, receivers: Sequence[Component]
) -> tuple[dict[Component, Tap], dict[Component, dict[str, Tap]]]:
    """What the receivers write, and what their attention is given, when the sender alone has changed."""
    out = {one: Tap() for one in receivers}
    inputs = {one: {road: Tap() for road in _roads(bench, one)} for one in receivers}
    taps = [tap.patch(_site(one), bench.steps, bench.branches) for one, tap in out.items()]
    for one, roads in inputs.items():
        taps += [tap.patch(_road(one, road), bench.steps, bench.branches) for road, tap in roads.items()]
    replay(bench.model, bench.target.recording, [[*taps, *_held(bench), *_sent(bench, sender)]])
    return out, inputs


def _roads(bench: Bench, one: Component) -> list[str]:
    """The inputs of a receiver's attention that can be patched apart from each other."""
    there = [road for road in ROADS.get(one.part, ()) if _road(one, road) in bench.model.hook_names]
    return there if len(there) > 1 else []


def _road(one: Component, road: str) -> str:
    return f"blocks.{one.layer}.{'attn' if one.part == 'attn' else 'cross_attn'}.hook_{road}"


def _alone(bench: Bench, receiver: Component, road: str, given: Tap) -> Tap:
    """What the receiver writes when one input of its attention is what a tap has caught, and all else the target's own."""
    tap, site = Tap(), _road(receiver, road)
    row = [
        Patch(site, bench.steps, given.donor, bench.branches),
        tap.patch(_site(receiver), bench.steps, bench.branches), *_held(bench),
    ]  # fmt: skip
    replay(bench.model, bench.target.recording, [row])
    return tap


def _of_run(x_t: Sequence[Tensor]) -> Donor:
    return lambda step, branch: x_t[step]


def _across(bench: Bench, nodes: Sequence[Component]) -> tuple[list[Row], list[list[Patch]]]:
    named: list[Row] = []
    rows: list[list[Patch]] = []
    later = bench.steps[1:]
    for sender in nodes:
        x_t = replay_run(bench.model, bench.target.recording, [_sent(bench, sender)]).x_t
        taps = {one: Tap() for one in nodes}
        states = Patch("hook_x_t", later, _of_run(x_t))
        caught = [tap.patch(_site(one), later, bench.branches) for one, tap in taps.items()]
        replay(bench.model, bench.target.recording, [[states, *caught]])
        for receiver, tap in taps.items():
            named.append(_named(sender, receiver, "all", "across"))
            rows.append(_put(bench, receiver, tap, later))
    return named, rows
