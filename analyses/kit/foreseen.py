"""What recorded pairs and their patched runs will take, before any of them is there."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cos_interp.analyses.driver.outlook import Kept, Outlook, Use
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.analyses.kit import pair_file
from cos_interp.analyses.kit.grid import EVERYWHERE
from cos_interp.analyses.kit.groups import of_boxes
from cos_interp.analyses.kit.pairs import NOISES, TRIES, candidate_numbers, two_items
from cos_interp.analyses.kit.split_pairs import Pairs
from cos_interp.interp.cache import ActivationCache
from cos_interp.interp.patches import Row
from cos_interp.interp.patching import Minimum, Recording
from cos_interp.tasks import Item, get_task
from cos_interp.tasks.base import PairKind

OTHERS = "other candidates where the model does not solve both sides"
AGAIN = 2 * NOISES - 1  # further noises in which the same answer is looked for
SOME = {"frame": [0]}  # stands for any tokens that are not all


class Nothing:
    """A donor of which it only matters that it is one and the same."""

    def __call__(self, step: int, branch: str) -> Tensor:
        raise LookupError("a plan holds no activations")


def target(outlook: Outlook) -> Recording:
    """A target whose residual streams are there at every step."""
    streams = frozenset(name for name in outlook.model.hook_names if ".hook_resid_post" in name)
    return Recording(outlook.run(), ActivationCache(), passing=streams)


def blocks_of_rows(outlook: Outlook, rows: Iterable[Row], done: set[Hashable] | None = None) -> int:
    """Block calls of patched runs, 0 where these are not asked for. ``done``: of the calls that rows have in common, where they
    run once."""
    if not outlook.counting:
        return 0
    return sum(map(Minimum(outlook.model, target(outlook), done).blocks, rows))


def of_side(outlook: Outlook, config: Any, place: int, side: int) -> Outlook:
    """What is known of the runs of a side (0 gives, 1 receives) of the pair on a line of a file, as that line says them; all are
    alike of a task."""
    if config.pair_file is None:
        return outlook
    return outlook.at(pair_file.read(Path(config.pair_file), config)[place][side].call)


def recordings(
    outlook: Outlook, runs: Sequence[Outlook], kept: Kept, *, kind: PairKind = "prompt", pairs: int = 0, again: int = 0
) -> Use:  # fmt: skip
    """The recorded runs, each as its line says it. ``kept``: those that are there at once. Of ``pairs`` both sides must be
    solved, so that candidates are tried; in ``again`` of them a further noise is looked for that gives the same answer."""
    further = pairs * tried(kind) + again * AGAIN
    each = sum(one.blocks() for one in runs) / max(1, len(runs))
    return Use("recordings", len(runs), each=each, kept=kept, decoded=1, further=further * outlook.blocks(),
               more=OTHERS if further else "")  # fmt: skip


def tried(kind: PairKind) -> int:
    """Runs that finding a pair takes at most beside two."""
    return TRIES * (NOISES if kind == "seed" else 2) - 2


def candidates(
    config: AnalysisConfig, task: str, kind: PairKind, index: int, unique: bool = False
) -> Iterator[tuple[Item, Item]]:
    """The candidate items of a pair, in the order in which :func:`kit.pairs.find_pair` tries them, before anything is solved."""
    made = get_task(task)
    for number in candidate_numbers(config, task, kind, index):
        if kind == "seed":
            item = made.sample(number, unique=False, split="test")
            sides = [made.with_answer(item, answer) for answer in list(item.answers)[:2]]
            first, second = sides if len(sides) == 2 else (None, None)
            if first is not None and second is not None:
                yield first, second
            continue
        if (found := two_items(config, made, kind, number, unique)) is not None:
            yield found


def groups(
    outlook: Outlook, config: AnalysisConfig, task: str, kind: PairKind, index: int, unique: bool = False
) -> dict[str, Tensor]:
    """The token groups of a task's pair, bool ``[frame, row, col]``: those of its first candidate, which is the pair where the
    model solves it. None where the model's tokens are not the scene's cells."""
    masks = next((get_task(task).groups(*sides) for sides in candidates(config, task, kind, index, unique)), {})
    fit = all(mask.shape == outlook.shape.grid.shape for mask in masks.values())
    return {name: torch.from_numpy(mask) for name, mask in masks.items()} if fit else {}


def split_masks(outlook: Outlook, config: Any, index: int) -> Mapping[str, Tensor]:
    """The disjoint groups of pair ``index`` of :class:`~kit.split_pairs.Pairs`, as :func:`kit.groups.of_pair` makes them."""
    pairs: Pairs = config
    shape = outlook.shape.grid.shape
    if pairs.pair_file is None:
        named = groups(outlook, config, pairs.task_name, "prompt", index, pairs.unique)
        if found := {name: mask for name, mask in named.items() if mask.any()}:
            return found
    boxes = pair_file.boxes(Path(pairs.pair_file))[index] if pairs.pair_file else {}
    if not boxes:
        return {EVERYWHERE: torch.ones(shape, dtype=torch.bool)}
    own = outlook.at(pair_file.read(Path(str(pairs.pair_file)), config)[index][0].call).shape
    return of_boxes(boxes, own.grid.shape, own.pixels, f"--pair-file {pairs.pair_file}")
