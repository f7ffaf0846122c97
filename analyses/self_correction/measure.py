"""Answers that change without any injection (CoS section 4, "aha"): flips of the clean estimate's verdict along the steps."""

from __future__ import annotations

from collections.abc import Sequence

from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.kept import kept
from cos_interp.analyses.kit.problems import Problem, each_problem, fits, generate, spread
from cos_interp.analyses.kit.readings import clean_videos, read_steps
from cos_interp.analyses.self_correction import CorrectionFacts, SelfCorrectionConfig
from cos_interp.interp.model import HookedVideoPipeline

SPREAD = 6  # steps of a run whose estimates are kept, beside those about the last wrong one
UNCORRECTED = 12  # items of a task of which those are kept, too, that read as a wrong answer and do not end right


def mistaken(status: str | None, error: str | None) -> bool:
    """Whether a reading is a wrong answer: one that the verifier calls so (wrong goal, wrong side, wrong path). A video that is
    broken or unfinished (lost, frozen, late) is wrong, too, and gives no answer that could be corrected."""
    return status == "wrong" and str(error).startswith("wrong")


def shown_steps(steps: int, wrong: Sequence[int]) -> list[int]:
    """The steps whose estimates are kept: spread ones, the last wrong one and that after it, and the final video (``steps``).

    >>> shown_steps(20, [3, 4])
    [0, 4, 5, 8, 11, 15, 19, 20]
    """
    return sorted({*spread(steps, SPREAD), *([wrong[-1], wrong[-1] + 1] if wrong else []), steps})


def measure(model: HookedVideoPipeline, config: SelfCorrectionConfig, problem: Problem) -> Unit:
    run = generate(model, config, problem)
    clips = clean_videos(model, run)
    rows = [{**problem.facts, **row} for row in read_steps(problem, clips, run)]
    wrong = [row["step"] for row in rows[:-1] if mistaken(row["status"], row["error"])]
    corrected = bool(wrong) and rows[-1]["status"] == "solved"
    shows = corrected or problem.kept(clips[0].nbytes) or (bool(wrong) and problem.index < UNCORRECTED)
    names = [*(f"step {step}" for step in range(run.steps)), "final video"]
    tensors, about = kept([(names[k], k, clips[k]) for k in shown_steps(run.steps, wrong)] if shows else [])
    facts = CorrectionFacts(
        sigmas=tuple(run.sigmas), prompt=problem.call["prompt"], wrong=tuple(wrong), corrected=corrected, **about
    )
    return Unit(rows, tensors, facts)


pieces = each_problem
work = each_unit(measure)
check = fits
