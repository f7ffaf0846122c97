"""Distances between runs of one problem: further apart when their answers differ?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from cos_interp.analyses.driver.store import Row
from cos_interp.tasks.scorer import SILENT

CLOSE_FAR = {"same_answer": (True, False), "relation": ("right-right", "right-wrong")}


def relative_distance(a: Tensor, b: Tensor) -> float:
    """``|a - b|`` over the root mean square of ``|a|`` and ``|b|``; 0 for equal vectors, about 1.41 for unrelated ones."""
    scale = (0.5 * (a.square().sum() + b.square().sum())).sqrt()
    return float((a - b).norm() / scale) if scale > 0 else 0.0


def relation(first: str | None, second: str | None) -> str | None:
    """``right-right``, ``right-wrong`` or ``wrong-wrong`` from two verdicts' statuses; undecided counts as not right."""
    if first is None or second is None:
        return None
    names = sorted("right" if status == "solved" else "wrong" for status in (first, second))
    return "-".join(names)


def status_of(run: Mapping[str, Any]) -> str | None:
    """The status of a run; None where its scorer failed, which says nothing of it."""
    return None if str(run.get("error") or "").startswith(SILENT) else run["status"]


def same_answer(first: Row, second: Row) -> bool | None:
    """Do two runs give one readable answer? None when one of them gives none."""
    if not first["answer"] or not second["answer"] or "undecided" in (first["status"], second["status"]):
        return None
    return first["answer"] == second["answer"]


def separation(rows: pd.DataFrame, by: str = "same_answer") -> pd.DataFrame:
    """How much further apart runs with different answers are: a row a problem, space and step with ``separation``.

    ``by``: ``same_answer`` (different minus same) or ``relation`` (right-wrong minus right-right pairs). Only problems that
    have both kinds of pairs count.
    """
    close, far = CLOSE_FAR[by]
    keys = ["problem", "space", "step", "sigma"]
    means = rows.groupby([*keys, rows[by].astype(object).rename("kind")], sort=False).distance.mean().unstack("kind")
    for kind in (close, far):
        if kind not in means:
            means[kind] = np.nan
    apart = (means[far] - means[close]).rename("separation").dropna()
    return apart.reset_index()


def relabelled(rows: pd.DataFrame, runs: Mapping[str, Sequence[Mapping[str, Any]]], rng: np.random.Generator) -> pd.DataFrame:
    """Each problem's verdicts and answers dealt out anew among its runs. ``runs``: verdicts by problem."""
    parts = []
    for problem, part in rows.groupby("problem", sort=False):
        order = rng.permutation(len(runs[str(problem)]))
        dealt = [runs[str(problem)][i] for i in order]
        pairs = [(dealt[a], dealt[b]) for a, b in zip(part["first"], part["second"], strict=True)]
        relations = [relation(status_of(a), status_of(b)) for a, b in pairs]
        parts.append(part.assign(same_answer=[same_answer(a, b) for a, b in pairs], relation=relations))
    return pd.concat(parts)


def chance_separation(
    rows: pd.DataFrame, runs: Mapping[str, Sequence[Mapping[str, Any]]], by: str, draws: int = 20, seed: int = 0
) -> pd.DataFrame:
    """The control of :func:`separation`: its mean over ``draws`` of :func:`relabelled`, about 0 whatever the distances are."""
    rng = np.random.default_rng(seed)
    drawn = pd.concat([separation(relabelled(rows, runs, rng), by) for _ in range(draws)])
    return drawn.groupby(["problem", "space", "step", "sigma"], sort=False).separation.mean().reset_index()
