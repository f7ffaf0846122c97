"""What the commitment tests found, by the rules: is the plan chosen early, can seeds be screened by then?"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cos_interp.analyses.commitment.measure import early_step
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import DIFFERENCE, Mean, Share
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.driver.rules import no_room
from cos_interp.analyses.kit.screening import screening_table
from cos_interp.analyses.kit.verdicts import whole

SHARE = 0.9  # of its ceiling: from there on the plan counts as chosen
ROOM = 0.2  # least ceiling above chance; below it independent noises choose the same
LOOKS = {"screening": "score", "screening-blind": "settled"}  # what a look sees, by claim


def findings(result: AnalysisResult, rows: pd.DataFrame, sigmas: Sequence[float]) -> list[Finding]:
    """The claims from all rows, judged."""
    found = [_chosen(result, rows, sigmas, by) for by in ("steps", "sigma")]
    return found + [_screening(result, rows[rows.kind == "look"], sigmas, key) for key in LOOKS]


def excess(rows: pd.DataFrame, value: str = "same") -> pd.DataFrame:
    """Agreement of re-noised runs with the run itself, above that of two independent noises: a row an item, a column a step.

    Items that end solved; the last column is the ceiling. ``value``: ``outlasts`` for how often an ideal observer would agree had
    the answer been chosen.
    """
    again = rows[rows.kind == "renoise"]
    again = again[again.eligible.astype(bool)] if len(again) else again.assign(**{value: [], "step": []})
    chance = rows[rows.kind == "independent"].astype({"same": float}).groupby("problem").same.agg(whole)
    agreed = again.assign(**{value: again[value].astype(float)}).pivot_table(value, "problem", "step", sort=True, aggfunc=whole)
    return agreed.sub(chance.reindex(agreed.index), axis=0)


def chosen_step(over: pd.DataFrame) -> int | None:
    """The first tested step from which the mean excess stays at SHARE of its ceiling; None without a ceiling above chance."""
    means = over.mean()
    if means.empty or means.iloc[-1] <= 0:
        return None
    below = [k for k, mean in means.items() if mean < SHARE * means.iloc[-1]]
    return min((int(k) for k in means.index if not below or k > below[-1]), default=None)


def named(rows: pd.DataFrame, step: int) -> Number:
    """Share of the items in which an ideal observer of x_t names the run's answer: the noise may have chosen what the estimate
    does not show yet."""
    if "named" not in rows:
        return Share([]).number()
    here = rows[(rows.kind == "renoise") & (rows.step == step) & rows.eligible.eq(True)]
    return Share(here.groupby("problem").named.first().to_numpy(float)).number()


def _excess(shares: pd.Series) -> Number:
    """The mean over items of how much more often something is so than by chance."""
    return Mean(shares, bounds=DIFFERENCE).number()


def forgets(rows: pd.DataFrame, over: pd.DataFrame, step: int, chosen: Mean) -> str | None:
    """Why little agreement at a step does not refute: fresh noise at its sigma hides even a plan that is chosen. None where it
    does not, and where the agreement is there, by what is ``chosen`` beyond what is asked."""
    asked = SHARE * over.iloc[:, -1].mean()
    if over.empty or chosen.interval()[0] > 0:
        return None
    if "outlasts" not in rows or rows[rows.kind == "renoise"].outlasts.isna().all():
        return (
            "whether a chosen plan would outlast noise at this step was not measured, or the model has no latents of the answers"
        )
    most = excess(rows, "outlasts")[step]
    if most.mean() >= asked:
        return None
    return (
        "noise at this step hides a plan that is chosen, too: from the run's own final video, noised anew, an ideal observer "
        f"names its answer {_excess(most)} more often than chance, and {asked:.2f} are asked"
    )


def _chosen(result: AnalysisResult, rows: pd.DataFrame, sigmas: Sequence[float], by: str) -> Finding:
    """Of each item the excess at the last early step minus SHARE of its ceiling: above 0 where the plan is chosen by then."""
    over = excess(rows)
    step = early_step([int(k) for k in over], sigmas, by)
    if step is None:
        return result.judge(f"commitment.early-{by}", Mean([]), "no tested step is early", Mean([]).number())
    ceiling, since = over.iloc[:, -1], chosen_step(over)
    chosen = Mean(over[step] - SHARE * ceiling, bounds=(-1 - SHARE, 1 + SHARE))
    unfit = None
    if len(over) and ceiling.mean() < ROOM:
        unfit = f"independent noises agree nearly as often as runs re-noised at the last step, {_excess(ceiling)} less"
    unfit = unfit or forgets(rows, over, step, chosen)
    reached = "never" if since is None else f"from step {since} (sigma {sigmas[since]:.2f})"
    return result.judge(
        f"commitment.early-{by}", chosen,
        f"re-noised runs give the run's answer {SHARE:g} as often above chance as at the last step {reached} on; at step {step} "
        f"(sigma {sigmas[step]:.2f}), the last early one, their excess over chance is {_excess(over[step])} (an ideal "
        f"observer of x_t names the run's answer there in {named(rows, step)}); beyond {SHARE:g} of the last step's, per item, "
        "that is",
        _excess(ceiling), unfit,
    )  # fmt: skip


def screened(looks: pd.DataFrame, sigmas: Sequence[float], key: str) -> pd.DataFrame:
    """Per item at the last early look: ``single``, ``screened``, ``best of equal compute``, ``best of all``, and the ``gain``
    over the control: whole runs for the same block calls, of which the verifier picks one where the look is its own, else none
    can be told from another."""
    step = early_step(sorted({int(k) for k in looks.step}), sigmas, "steps")
    table = screening_table(looks[looks.step == step], len(sigmas), LOOKS[key])
    if table.empty:
        return pd.DataFrame(columns=["step", "screened", "best of all", "compute", "control", "gain"], dtype=float)
    table = table.assign(control=table["best of equal compute" if key == "screening" else "single"])
    return table.assign(gain=table.screened - table.control).set_index("problem")


def _screening(result: AnalysisResult, looks: pd.DataFrame, sigmas: Sequence[float], key: str) -> Finding:
    found = screened(looks, sigmas, key)
    unfit = no_room(f"commitment.{key}", float((found["best of all"] - found.control).mean()), "the control")
    where = (
        "nowhere" if found.empty else f"at step {int(found.step.iloc[0])}, which costs {found.compute.iloc[0]:.2f} whole runs,"
    )
    solves = Mean(found.screened, bounds=(0, 1)).number()
    return result.judge(
        f"commitment.{key}", Mean(found.gain, bounds=DIFFERENCE),
        f"finishing only the seed that looks best {where} solves {solves}, more than the control by",
        Mean(found.control, bounds=(0, 1)).number(), unfit,
    )  # fmt: skip
