"""What a probe run concludes: the order of perception, reasoning and consolidation in depth, and whether directions are used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cos_interp.analyses.driver.findings import Finding, Number, decide
from cos_interp.analyses.driver.statistics import mean_number
from cos_interp.analyses.driver.store import RunStore
from cos_interp.probes.roles import Role, expected_layer, role
from cos_interp.probes.scoring import draws, resampled, score
from cos_interp.tasks.labels import FAMILIES

SATURATED = 0.8  # above this loss by the control there is no room left to see an effect of meaning
CLAIM = "Early layers perceive, middle layers reason, late layers consolidate (5.1)"


@dataclass(frozen=True)
class Depth:
    """A target's role, and the expected layer of its control labels with draws over the same clips."""

    role: Role
    control: float
    control_draws: np.ndarray
    clips: int


def depths(scores: pd.DataFrame, store: RunStore, steps: dict[str, int]) -> list[Depth]:
    """One a target, families in order. ``steps``: unit -> step."""
    held = {unit: store.tensors(unit) for unit in steps}
    out = []
    for target, rows in scores.groupby("target", sort=False):
        parts = {k: [held[u][f"{k}.{target}"].numpy() for u in steps] for k in ("score", "control")}
        tallies = {k: np.stack(v, 2) for k, v in parts.items()}  # [clip, layer, step, ...]
        clips = len(tallies["score"])
        drawn = draws(clips)
        made = {k: resampled(t, drawn) for k, t in tallies.items()}
        control = score(tallies["control"].sum(0)).mean(-1)
        floor = float(rows.majority.mean())
        out.append(
            Depth(
                role(rows, made["score"]), float(expected_layer(control, floor)),
                expected_layer(made["control"].mean(-1), floor), clips,
            )
        )  # fmt: skip
    return sorted(out, key=lambda d: FAMILIES.index(d.role.family))


def _difference(first: tuple[float, np.ndarray], second: tuple[float, np.ndarray], n: int) -> Number:
    both = second[1][: len(first[1])] - first[1][: len(second[1])]
    if not np.isfinite(both).any():
        return Number(float("nan"), n=n)
    low, high = np.nanquantile(both, [0.025, 0.975])
    return Number(second[0] - first[0], float(low), float(high), n)


def order_findings(found: list[Depth]) -> list[Finding]:
    """Each family's first target against the next family's: is its expected layer deeper?"""
    by: dict[str, Depth] = {}
    for depth in found:
        by.setdefault(depth.role.family, depth)
    out = []
    for a, b in (("perception", "reasoning"), ("reasoning", "consolidation")):
        if a not in by or b not in by:
            continue
        first, second = by[a], by[b]
        n = min(first.clips, second.clips)
        number = _difference((first.role.depth, first.role.draws), (second.role.depth, second.role.draws), n)
        control = _difference((first.control, first.control_draws), (second.control, second.control_draws), n)
        out.append(
            Finding(
                f"{CLAIM}: {a} before {b}", decide(number.low, number.high),
                f"{b} ({second.role.target}) becomes readable deeper than {a} ({first.role.target}), in expected layers by",
                number, "the same with random labels by position", control, "the interval lies above 0",
            )
        )  # fmt: skip
    return out


def _solved_without(part: pd.DataFrame, edit: str) -> pd.Series:
    return part[part.edit == edit].set_index("problem").score.astype(float)


def use_findings(use: pd.DataFrame) -> list[Finding]:
    """Solved share under a random change of the same size minus under LEACE, paired by clip."""
    out = []
    for target, part in use.groupby("target", sort=False):
        plain, erased, random = (_solved_without(part, e) for e in ("none", "leace", "leace, random"))
        kept = plain.index[plain == 1]
        if not len(kept):
            continue
        difference, dose = mean_number((random - erased)[kept].to_numpy()), mean_number((plain - random)[kept].to_numpy())
        where = part["name"].iloc[0]
        verdict = "not testable" if dose.value > SATURATED else decide(difference.low, difference.high)
        out.append(
            Finding(
                f"What a probe reads is used: {target}", verdict,
                f"among solved items, erasing {target} at {where} in all steps loses more of them than a random change of the "
                "same size, by", difference, "loss by the random change", dose,
                f"the interval lies above 0; not testable when the random change alone loses more than {SATURATED}",
            )
        )  # fmt: skip
    return out
