"""Who receives and who gives in a swap: pairs of runs from one noise, and the donors of the controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from cos_interp.analyses.kit import pair_file
from cos_interp.analyses.kit.kinds import PairKind
from cos_interp.analyses.kit.pair_file import Boxes
from cos_interp.analyses.kit.pairs import BESIDE, Recorder, Side, find_pair, other_noises, same_answer, stranger
from cos_interp.analyses.kit.problems import Problem, problems
from cos_interp.analyses.swap import SwapConfig

Piece = tuple[str, PairKind | Literal["own"], int]  # task ("prompts", "pairs": the user's own), kind of pair, index


@dataclass(frozen=True)
class Sides:
    """Who receives and who gives. ``donors`` by name: ``pair``, and the controls ``random item``, ``same answer``."""

    name: str
    kind: str
    target: Side
    donors: dict[str, Side]
    tried: int = 1
    boxes: Boxes = field(default_factory=dict)


def unit_name(piece: Piece) -> str:
    return f"{piece[0]}-{piece[1]}-{piece[2]:03d}"


def _task_sides(recorder: Recorder, piece: Piece) -> Sides:
    """A pair of the task's items, both solved by the model, and the donors of the controls."""
    task, kind, index = piece
    assert kind != "own"  # those have sides of their own
    pair = find_pair(recorder, task, kind, index)
    seed = pair.corrupt.problem.seed
    donors = {"pair": pair.clean, "random item": recorder(replace(stranger(task, recorder.config, index), seed=seed))}
    again = same_answer(recorder, pair.corrupt)
    if again is not None:
        donors["same answer"] = again
    return Sides(unit_name(piece), kind, pair.corrupt, donors, pair.tried)


def _own_sides(recorder: Recorder, config: SwapConfig, piece: Piece) -> Sides:
    """Own prompts: the next is the donor, one after it the random item, from the same noise. NoPair for a next one that is guided
    where this one is not."""
    made, index = problems(config), piece[2]
    target, donors = made[index], donors_of(made, index)
    side = {"pair": "clean"}
    given = {name: recorder(replace(problem, seed=target.seed), side.get(name, BESIDE)) for name, problem in donors.items()}
    given["same prompt"] = recorder(replace(target, seed=other_noises(target.seed)[0]))
    corrupt = recorder(target, "corrupt")
    pair_file.guided_alike(given["pair"], corrupt)
    return Sides(unit_name(piece), "own", corrupt, given)


def donors_of(made: Sequence[Problem], index: int) -> dict[str, Problem]:
    """What gives to own prompt ``index``: the next one, and the first after it that is ``alike``, if any."""
    later = [*made[index + 1 :], *made[:index]]
    random = next((other for other in later[1:] if pair_file.alike(made[index], other)), None)
    return {"pair": later[0]} | ({} if random is None else {"random item": random})


def _file_sides(recorder: Recorder, config: SwapConfig, piece: Piece) -> Sides:
    """A pair of a file: its clean side gives, the clean side of another pair is the random item, from the same noise."""
    path, index = Path(str(config.pair_file)), piece[2]
    found = pair_file.read(path, config)
    pair = pair_file.recorded(recorder, pair_file.of_one_noise(found[index]))
    target, other = pair.corrupt.problem, pair_file.stranger(found, index)
    beside = {} if other is None else {"random item": other}
    beside["same prompt"] = replace(target, seed=other_noises(target.seed)[0])
    donors = {"pair": pair.clean} | {name: recorder(problem) for name, problem in beside.items()}
    return Sides(unit_name(piece), "own", pair.corrupt, donors, boxes=pair_file.boxes(path)[index])


def sides_of(recorder: Recorder, config: SwapConfig, piece: Piece) -> Sides:
    """Raises NoPair when the model does not solve both sides of any candidate."""
    if config.pair_file is not None:
        return _file_sides(recorder, config, piece)
    return _own_sides(recorder, config, piece) if config.prompts is not None else _task_sides(recorder, piece)
