"""Working memory (CoS section 4): are the first frame's objects kept in their tokens, and are these tokens used?

Read: attention they receive, how far they stay themselves, whether a hidden object can be decoded where it stands, and
query-key tracking. Caused: attention to an object's is knocked out, against another object's of the same frame.
"""

from __future__ import annotations

import dataclasses

from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.kit.problems import Problem, fits, generate, problems, verdict_of
from cos_interp.analyses.memory import MemoryConfig, MemoryFacts
from cos_interp.analyses.memory.knockout import knocked_rows
from cos_interp.analyses.memory.objects import pair_of
from cos_interp.analyses.memory.reading import read_run, token_shape
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.trajectory import Run
from cos_interp.tasks import get_task

Piece = tuple[Problem, bool]  # a problem, and whether it gets the knock-out


def pieces(config: MemoryConfig) -> list[tuple[Piece, list[str]]]:
    """The first so many problems of each task are cut that have two objects to compare."""
    left: dict[str, int] = {}
    out = []
    for problem in problems(config):
        compared = problem.item is None or pair_of(problem.item)[1] is not None
        cut = compared and left.setdefault(problem.task, config.knocked) > 0
        if cut:
            left[problem.task] -= 1
        out.append(((problem, cut), [problem.name]))
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
    if knocked:
        rows += knocked_rows(model, config, problem, run, reading.keys, reading.shape)
    axes = {"residual": ("step", "layer", "point", "d_model"), "x_t": ("step", "point", "feature")}
    axes |= {"label": ("point",), "kind": ("point",)}
    facts = MemoryFacts(
        axes={name: axes[name] for name in tensors}, sigmas=tuple(run.sigmas), prompt=problem.call["prompt"],
        steps=tuple(sorted({row["step"] for row in reading.rows})),
    )  # fmt: skip
    return Unit([{**problem.facts, **row} for row in rows], tensors, facts)


work = each_unit(measure, _name)
check = fits
