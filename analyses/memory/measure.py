"""Working memory (CoS section 4): are the first frame's objects kept in their tokens, and are these tokens used?

Read: attention they receive, how far they stay themselves, whether a hidden object can be decoded where it stands, and
query-key tracking. Caused: attention to an object's is knocked out, against another object's of the same frame.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.kept import Clip, keeps, kept
from cos_interp.analyses.kit.problems import Problem, fits, generate, problems, verdict_of
from cos_interp.analyses.memory import MemoryConfig, MemoryFacts, label
from cos_interp.analyses.memory.knockout import knocked_rows, whole_attention
from cos_interp.analyses.memory.objects import pair_of
from cos_interp.analyses.memory.reading import read_run, token_shape
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.trajectory import Run
from cos_interp.tasks import get_task

Piece = tuple[Problem, int | None]  # a problem, and which one of its task it is whose attention is cut; None where it is not


def pieces(config: MemoryConfig) -> list[tuple[Piece, list[str]]]:
    """The first so many problems of each task are cut that have two objects to compare."""
    cut: Counter[str] = Counter()
    out: list[tuple[Piece, list[str]]] = []
    for problem in problems(config):
        compared = problem.item is None or pair_of(problem.item)[1] is not None
        knocked = cut[problem.task] if compared and cut[problem.task] < config.knocked else None
        cut[problem.task] += knocked is not None
        out.append(((problem, knocked), [problem.name]))
    return out


def _name(piece: Piece) -> str:
    return piece[0].name


def settled(problem: Problem, run: Run) -> tuple[Problem, str | None]:
    """The problem with the right answer that the run gives as the true video, and the verdict: where several answers are
    right, the object goes where the model takes it."""
    if problem.item is None:
        return problem, None
    verdict = verdict_of(problem, run.decode()[0])
    if verdict.solved and verdict.answer is not None and not problem.item.unique:
        taken = get_task(problem.task).with_answer(problem.item, verdict.answer)
        problem = problem if taken is None else dataclasses.replace(problem, item=taken)
    return problem, verdict.status


def measure(model: HookedVideoPipeline, config: MemoryConfig, piece: Piece) -> Unit:
    problem, knocked = piece
    plain = generate(model, config, problem)
    problem, status = settled(problem, plain)
    run, reading, tensors = read_run(model, config, problem, token_shape(model, plain.latents))
    rows = [{**row, "run_status": status} for row in reading.rows]
    shown: list[Clip] = []
    if knocked is not None:
        for row, clip in knocked_rows(model, config, problem, run, reading.keys, reading.shape):
            if clip is not None and (name := label(row)) is not None and keeps(knocked, clip.nbytes):
                shown.append((name, len(rows), clip))
            rows.append(row)
    clips, about = kept(shown)
    axes = {"residual": ("step", "layer", "point", "d_model"), "x_t": ("step", "point", "feature")}
    axes |= {"label": ("point",), "kind": ("point",), "received": ("layer", "row", "col"), "followed": ("row", "col")}
    facts = MemoryFacts(
        sigmas=tuple(run.sigmas), prompt=problem.call["prompt"], steps=tuple(sorted({row["step"] for row in reading.rows})),
        **about | {"axes": {name: axes[name] for name in tensors} | about.get("axes", {})},
    )  # fmt: skip
    return Unit([{**problem.facts, **row} for row in rows], tensors | clips, facts)


work = each_unit(measure, _name)


def check(config: MemoryConfig, model: HookedVideoPipeline) -> None:
    fits(config, model)
    if config.knocked:
        whole_attention(model)
