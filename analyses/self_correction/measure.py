"""Answers that change without any injection (CoS section 4, "aha"): flips of the clean estimate's verdict along the steps."""

from __future__ import annotations

import torch

from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.facts import PIXELS
from cos_interp.analyses.kit.problems import Problem, each_problem, fits, generate
from cos_interp.analyses.kit.readings import clean_videos, read_steps
from cos_interp.analyses.self_correction import CorrectionFacts, SelfCorrectionConfig
from cos_interp.interp.model import HookedVideoPipeline

EXAMPLES = 4  # shown corrections, the first ones in the suite's order


def mistaken(status: str | None, error: str | None) -> bool:
    """Whether a reading is a wrong answer: one that the verifier calls so (wrong goal, wrong side, wrong path). A video that is
    broken or unfinished (lost, frozen, late) is wrong, too, and gives no answer that could be corrected."""
    return status == "wrong" and str(error).startswith("wrong")


def measure(model: HookedVideoPipeline, config: SelfCorrectionConfig, problem: Problem) -> Unit:
    run = generate(model, config, problem)
    clips = clean_videos(model, run)
    rows = [{**problem.facts, **row} for row in read_steps(problem, clips, run)]
    wrong = [row["step"] for row in rows[:-1] if mistaken(row["status"], row["error"])]
    corrected = bool(wrong) and rows[-1]["status"] == "solved"
    shown = [wrong[-1], wrong[-1] + 1, len(clips) - 1] if corrected else []
    kept = {"frames": torch.from_numpy(clips[shown])} if shown else {}
    facts = CorrectionFacts(
        axes=dict.fromkeys(kept, ("shown", *PIXELS)), sigmas=tuple(run.sigmas), prompt=problem.call["prompt"],
        wrong=tuple(wrong), corrected=corrected,
    )  # fmt: skip
    return Unit(rows, kept, facts)


pieces = each_problem
work = each_unit(measure)
check = fits
