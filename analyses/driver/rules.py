"""The rules that findings are judged by: written down once, dated, in ``analyses/rules.toml``, whose digest is in every run."""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from cos_interp.analyses.driver.findings import UNKNOWN, Finding, Number, Verdict, decide

if TYPE_CHECKING:  # scipy, for which a run that is only shown does not wait
    from cos_interp.analyses.driver.estimates import Estimate

SHOWN = 12  # characters of the digest of the rules that a run says
SEEN = "its numbers were seen"
PATH = Path(__file__).resolve().parent.parent / "rules.toml"


class Rule(BaseModel):
    """When a claim counts as reproduced.

    ``number``: what decides, turned so that the claim says it is large, minus its ``control`` unless ``alone`` says why not.
    ``smallest``: the smallest effect of interest, in its unit. ``seen``: which numbers had been seen when the rule was written,
    ``dated``, or ``changed`` after numbers of its own had been.
    ``primary``: the one variant of a claim that has a verdict in a dossier; others show numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: str
    number: str
    smallest: float
    control: str
    alone: str = ""
    dated: date
    changed: date | None = None
    seen: str = Field(min_length=1)
    primary: bool = True

    def words(self) -> str:
        """The rule as a page prints it."""
        against = self.control if not self.alone else f"{self.control}, which is not subtracted: {self.alone}"
        since = "" if self.changed is None else f", changed on {self.changed}, after {SEEN}"
        return f"{self.number}, above {self.smallest:g}; control: {against} (rule of {self.dated}{since})"


@cache
def rules() -> dict[str, Rule]:
    """All rules by key, ``experiment.claim``."""
    held = tomllib.loads(PATH.read_text(encoding="utf-8"))
    return {f"{group}.{name}": Rule(**rule) for group, named in held.items() for name, rule in named.items()}


MOST_ITEMS = 100_000  # beyond which the number is not told
ROUNDING = 1e-9  # 1 - 0.9 is below 0.1


def digest() -> str:
    """sha256 of the file of rules."""
    return hashlib.sha256(PATH.read_bytes()).hexdigest()


def shown_digest() -> str:
    """What of it a run says."""
    return digest()[:SHOWN]


def judge(
    key: str, estimate: Estimate, statement: str, control: Number, twins: Sequence[Number] = (), unfit: str | None = None,
    short: str = "",
) -> Finding:  # fmt: skip
    """What the rule of a key says of an estimate.

    ``unfit``: why the experiment did not do what it was to do (a manipulation check), so that nothing is testable. ``twins``: the
    same number on models that know nothing; reproduced is only what lies beyond all of them. ``short``: see :class:`Finding`.
    """
    rule, number = rules()[key], estimate.number()
    verdict, why = _verdict(rule, estimate, number, twins, unfit)
    p = estimate.p(rule.smallest) if verdict != "not testable" else float("nan")
    return Finding(
        rule.claim, verdict, statement, number, rule.control, control, rule.words(), key, rule.smallest, p, tuple(twins), why,
        rule.primary, short, tuple(estimate.named.items()), test=estimate.beside(),
    )  # fmt: skip


def _verdict(rule: Rule, estimate: Estimate, number: Number, twins: Sequence[Number], unfit: str | None) -> tuple[Verdict, str]:
    lacking = unfit or estimate.lacking()
    if lacking:
        return "not testable", f"{lacking}{_more(estimate, rule) if not unfit and estimate.n else ''}"
    verdict = decide(number.low, number.high, rule.smallest)
    if verdict == "reproduced":
        if (short := estimate.lacking_to_reproduce()) is not None:
            return "undecided", short
        if (highest := beyond(number, twins)) is not None:
            return "undecided", f"a twin that knows nothing shows {highest}"
        if (unknown := next((twin.kind for twin in twins if twin.kind in UNKNOWN), None)) is not None:
            return "undecided", f"a twin {unknown}, so that what it shows is not known"
    return verdict, _more(estimate, rule).lstrip("; ") if verdict == "undecided" else ""


def no_room(key: str, most: float, over: str, hint: str = "", least: float | None = None) -> str | None:
    """Why a claim cannot be asked where its control leaves less than would count; None where there is room (or no control, NaN).

    ``most``: what the best outcome there is would gain ``over`` the control. ``least``: the smallest effect of the rule.
    """
    least = rules()[key].smallest if least is None else least
    if not most < least * (1 - ROUNDING):
        return None
    return f"nothing can gain more than {most:.3f} over {over}, and {least:g} counts{hint and f'; {hint}'}"


def beyond(number: Number, twins: Sequence[Number]) -> Number | None:
    """The twin that the interval does not lie beyond, in the claim's direction; None where it lies beyond all of them."""
    reached = [twin for twin in twins if twin.n and top(twin) >= number.low]
    return max(reached, key=top, default=None)


def top(twin: Number) -> float:
    """The most that a twin may show: the upper end of its interval, or its value where that is all there is (one item, or items
    that do not differ). An end that was read again as NaN was open: JSON has no infinity."""
    alone = twin.n < 2 or twin.kind == "constant"
    return twin.high if not math.isnan(twin.high) else twin.value if alone else math.inf


def _more(estimate: Estimate, rule: Rule) -> str:
    """What would decide: the number of items, were the true value this one."""
    needed = estimate.needed(rule.smallest)
    return "" if needed is None else f"; {roughly(needed)} items would decide, were {estimate.value:.2f} the true value"


def roughly(count: int) -> str:
    """A number of items that is known to two digits at best.

    >>> roughly(12), roughly(2859), roughly(1_656_270)
    ('about 12', 'about 2,900', 'more than 100,000')
    """
    if count > MOST_ITEMS:
        return f"more than {MOST_ITEMS:,}"
    return f"about {round(count, 2 - len(str(count))):,}"
