"""What an experiment concludes: a claim of the paper against a number with its interval and its control."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, TypeAdapter

Verdict = Literal["reproduced", "refuted", "undecided", "not testable"]
VERDICT_STYLE = {"reproduced": "ok", "refuted": "bad", "undecided": "maybe", "not testable": "none"}  # classes of a page


# kinds of the number of a twin of which it is not known what it shows
UNRUN = "did not run"  # it could not run, or its run is unfinished or damaged
UNASKED = "was not asked"  # it ran, and its run has no finding of the rule
UNKNOWN = (UNRUN, UNASKED)
NO_ITEM = "no item is eligible"  # why nothing can be said of a sample that is empty
# JSON has no NaN and says null
Measured = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]


# what an interval is called below a figure, by the kind of its estimate
INTERVALS = {
    "share": "exact (Clopper-Pearson)",
    "paired shares": "Newcombe's",
    "mean": "bootstrap-t",
    "normal mean": "Student's t",
    "counted mean": "exact, of the share with the most frequent value",
    "statistic": "BCa bootstrap",
    "constant": "exact, of the share with the most frequent value",
    "unpaired": "of two samples (Zou and Donner)",
}


@dataclass(frozen=True)
class Number:
    """A value with its 95 % interval over ``n`` items (NaN bounds: no interval). Values without variation are said as such."""

    value: Measured
    low: Measured = math.nan
    high: Measured = math.nan
    n: int = 0
    kind: str = ""  # of its interval: that of an Estimate, "constant" where the items do not differ; one of UNKNOWN of a twin
    why: str = ""  # of a twin without a value: why it has none, by its own finding

    def __str__(self) -> str:
        if self.kind in UNKNOWN:
            return self.kind
        if self.value != self.value:
            return f"no value (n = {self.n}){self.why and f': {self.why}'}"
        if self.kind == "share" and self.value in (0, 1):
            bound = f"at most {self.high:.2f}" if self.value == 0 else f"at least {self.low:.2f}"
            return f"{round(self.value * self.n)} of {self.n}; {bound}"
        if self.kind == "constant":
            return f"{self.value:z.2f} in all {self.n}{self._open_sides()}"
        digits, side = self.digits(), self.one_side()
        interval = f"; {side}" if side else ""
        if math.isfinite(self.low) and math.isfinite(self.high):
            interval = f" [{self.low:z.{digits}f}, {self.high:z.{digits}f}]"
        return f"{self.value:z.{digits}f}{interval} (n = {self.n})"

    @property
    def point(self) -> dict[str, Any]:
        """As a mark of a figure has it: the columns ``mean, low, high, n, interval``."""
        return {"mean": self.value, **self.ends}

    @property
    def ends(self) -> dict[str, Any]:
        """Its interval and ``n`` as columns of a mark; ``interval``: of which kind it is, in words."""
        return {"low": self.low, "high": self.high, "n": self.n, "interval": INTERVALS.get(self.kind)}

    def one_side(self) -> str:
        """The end of an interval of which the other end is open, in words; "" where both or none are known.

        >>> Number(-0.02, -math.inf, 0.03, 16).one_side(), Number(0.5, 0.25, math.inf, 16).one_side()
        ('at most 0.03', 'at least 0.25')
        """
        low, high = math.isfinite(self.low), math.isfinite(self.high)
        if low == high:
            return ""
        return f"at least {self.low:z.{self.digits()}f}" if low else f"at most {self.high:z.{self.digits()}f}"

    def digits(self) -> int:
        """Decimal places that tell the ends of the interval apart, two at least.

        >>> Number(0.5, 0.2, 0.8, 9).digits(), Number(0.001, -0.0004, 0.002, 24).digits()
        (2, 3)
        """
        return next((n for n in (2, 3, 4, 5) if round(self.low, n) != round(self.high, n)), 2)

    def _open_sides(self) -> str:
        """How far the mean of all may lie from a value without variation, where its quantity has bounds."""
        sides = [f"at least {self.low:.2f}"] * (self.low < self.value - 1e-9) + [f"at most {self.high:.2f}"] * (
            self.high > self.value + 1e-9
        )
        return f"; {', '.join(sides)}" if sides else ""


@dataclass(frozen=True)
class Finding:
    """What one rule says of one run.

    ``claim``: the paper's words, with section; ``rule``: when it counts as reproduced; ``statement``: what was found. ``number``
    decides; ``smallest`` is the smallest effect of interest that it is held against, ``p`` the one-sided test of that by
    inverting the interval; ``control`` stands beside it. ``twins``: the number on models that know nothing. ``why``: what is
    lacking for a decision, and what would change it. ``primary``: the one variant of a claim that has a verdict in a dossier.
    ``q``: the false discovery rate at which it is still told among all claims of a dossier, where it stands in one.
    ``short``: the statement for the first screen, where it is a long one. ``items``: the deciding number of each item, by name,
    where the estimate knows them. ``test``: a test that stands beside the interval and decides nothing, in words.
    """

    claim: str
    verdict: Verdict
    statement: str
    number: Number
    control_name: str
    control: Number
    rule: str
    key: str = ""
    smallest: Measured = math.nan
    p: Measured = math.nan
    twins: tuple[Number, ...] = ()
    why: str = ""
    primary: bool = True
    short: str = ""
    items: tuple[tuple[str, float], ...] = ()
    q: Measured = math.nan
    test: str = ""

    def line(self) -> str:
        """One plain sentence for the terminal."""
        beside = "".join(f"; twin: {twin}" for twin in self.twins)
        why = f" ({self.why})" if self.why else ""
        named = self.verdict if self.primary else "variant"
        said = f"{named}{why}: {self.statement}: {self.number}; control, {self.control_name}: {self.control}"
        return said + beside

    def data(self) -> dict[str, Any]:
        """As plain data, for JSON; :meth:`of` reads it."""
        return asdict(self)

    @classmethod
    def of(cls, data: dict[str, Any]) -> Finding:
        """The finding that :meth:`data` gave. pydantic's ValidationError for data that is none."""
        return TypeAdapter(cls).validate_python(data)


def decide(low: float, high: float, smallest: float = 0.0) -> Verdict:
    """Three zones around the smallest effect of interest: reproduced when the interval lies above it, refuted when it lies wholly
    below it, else undecided. Without an interval nothing is decided."""
    if low != low or high != high:
        return "not testable"
    if low > smallest:
        return "reproduced"
    return "refuted" if high < smallest else "undecided"
