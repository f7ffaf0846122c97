"""The search for the smallest set: arithmetic on effects, away from models."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cos_interp.analyses.circuit import Component

Set = tuple[Component, ...]
Value = Callable[[Sequence[Set]], list[float]]  # the mean effects of sets over pairs
NEXT = 10  # further candidates of which smaller sets are made
LOST = 0.05  # the effect that a component may lose when its steps and heads are narrowed


@dataclass(frozen=True)
class Found:
    """``components`` with their ``effect``; ``smaller``: the best set of one less, and how many of these were ``tried``."""

    components: Set
    effect: float
    smaller: Set = ()
    smaller_effect: float = 0.0
    tried: int = 1


def greedy(candidates: Sequence[Component], value: Value, goal: float, most: int) -> list[tuple[Set, float]]:
    """Sets that grow by the component that adds most, until one reaches the goal or has ``most``; each with its effect."""
    chosen: Set = ()
    path: list[tuple[Set, float]] = []
    while len(chosen) < most and (not path or path[-1][1] < goal):
        grown = [(*chosen, one) for one in candidates if one not in chosen]
        if not grown:
            break
        effects = value(grown)
        best = max(range(len(grown)), key=effects.__getitem__)
        chosen = grown[best]
        path.append((chosen, effects[best]))
    return path


def best_smaller(found: Set, candidates: Sequence[Component], value: Value) -> tuple[Set, float, int]:
    """The best of all sets with one component less, of the found ones and the next candidates (best first); and their number."""
    if len(found) == 1:
        return (), 0.0, 1
    pool = [*found, *[one for one in candidates if one not in found][:NEXT]]
    sets = list(itertools.combinations(pool, len(found) - 1))
    effects = value(sets)
    best = max(range(len(sets)), key=effects.__getitem__)
    return sets[best], effects[best], len(sets)


def smallest(
    candidates: Sequence[Component], value: Value, goal: float, most: int
) -> tuple[Found | None, list[tuple[Set, float]]]:
    """The smallest set that reaches the goal, and the way there; None where none of up to ``most`` does.

    ``candidates``: the best alone first. Greedy growth finds a set; as long as one of all sets with one component less reaches
    the goal too, that one takes its place.
    """
    path = greedy(candidates, value, goal, most)
    if not path or path[-1][1] < goal:
        return None, path
    chosen, effect = path[-1]
    while True:
        smaller, less, tried = best_smaller(chosen, candidates, value)
        if not smaller or less < goal:
            return Found(chosen, effect, smaller, less, tried), path
        chosen, effect = smaller, less


def narrowed(found: Set, value: Value, effect: float, heads: int) -> Set:
    """Each component at the steps and heads that it needs: dropped from either end, and head by head, the one that costs least
    first, as long as the set loses no more than LOST in all."""
    floor, current = effect - LOST, list(found)
    for place in range(len(current)):
        while smaller := _shorter(current[place]):
            kept = _kept(current, place, smaller, value, floor)
            if kept is None:
                break
            current[place] = kept
        while smaller := _fewer(current[place], heads):
            kept = _kept(current, place, smaller, value, floor)
            if kept is None:
                break
            current[place] = kept
    return tuple(current)


def _kept(current: Sequence[Component], place: int, ways: Sequence[Component], value: Value, floor: float) -> Component | None:
    effects = value([(*current[:place], way, *current[place + 1 :]) for way in ways])
    best = max(range(len(ways)), key=effects.__getitem__)
    return ways[best] if effects[best] >= floor else None


def _shorter(one: Component) -> list[Component]:
    if len(one.steps) == 1:
        return []
    return [one.model_copy(update={"steps": steps}) for steps in (one.steps[1:], one.steps[:-1])]


def _fewer(one: Component, heads: int) -> list[Component]:
    """Without one head each; none for a part that has no heads, which is asked for with ``heads=0``."""
    now = tuple(range(heads)) if one.heads is None else one.heads
    if one.part == "mlp" or len(now) < 2:
        return []
    return [one.model_copy(update={"heads": tuple(h for h in now if h != out)}) for out in now]
