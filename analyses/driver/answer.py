"""The first screen's sentence: what the deciding finding says, with its number, interval, n and control."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cos_interp.analyses.driver.findings import NO_ITEM, UNKNOWN, UNRUN, Finding, Number


@dataclass(frozen=True)
class Answer:
    """One sentence in parts: ``before``, the deciding ``number``, ``after``, and ``beside``, the control and the twins.
    ``measure``: what the number is held against; ``against``: how many items speak against the verdict, and ``these``, with
    their numbers, the furthest first."""

    finding: Finding
    before: str
    number: str
    after: str
    beside: str
    measure: str
    against: str = ""
    these: tuple[tuple[str, float], ...] = ()

    def sentence(self) -> str:
        """All of it as plain text."""
        return f"{self.before}{self.number}{self.after}{self.beside}."


def deciding(findings: Sequence[Finding]) -> Finding | None:
    """The first finding with a verdict of its own; without one the first variant."""
    return next((f for f in findings if f.primary), findings[0] if findings else None)


def answer(findings: Sequence[Finding]) -> Answer | None:
    """What the deciding finding says; None without findings."""
    found = deciding(findings)
    if found is None:
        return None
    said = found.short or found.statement
    before, after = f"{said[:1].upper()}{said[1:]} ", ""
    if found.verdict == "not testable":
        more = ": more items, or another model, may have some" if found.why == NO_ITEM else ""
        before, after = f"Nothing is decided ({found.why}{more}). Measured so far: {said} ", ""
    elif found.why:
        after = f" ({found.why})"
    beside = f"; the control has {in_words(found.control)}"
    if found.twins:
        beside += f"; {of_twins(found.twins)}"
    measure = f"Control: {found.control_name}. It counts as reproduced when the interval lies above {found.smallest:g}."
    measure = measure if found.smallest == found.smallest else ""
    return Answer(found, before, in_words(found.number), after, beside, measure, *against(found))


def of_twins(twins: Sequence[Number]) -> str:
    """What models of random weights have, each number once.

    >>> of_twins([Number(math.nan)] * 2), of_twins([Number(0.5, 0.2, 0.8, 9)])
    ('of both models of random weights no item counts', 'a model of random weights has 0.50 (95 % interval 0.20 to 0.80, n = 9)')
    >>> of_twins([Number(math.nan, kind=UNRUN), Number(math.nan)])
    'not all models of random weights did run'
    """
    if unknown := {twin.kind for twin in twins} & set(UNKNOWN):
        return f"not all models of random weights {'did run' if UNRUN in unknown else 'were asked'}"
    many = {1: "a model", 2: "both models"}.get(len(twins), f"all {len(twins)} models")
    if not any(twin.n for twin in twins):
        return f"of {many} of random weights no item counts"
    said = list(dict.fromkeys(map(in_words, twins)))
    if len(said) == 1:
        return f"{many} of random weights {'has' if len(twins) == 1 else 'have'} {said[0]}"
    return f"models of random weights have {', '.join(said[:-1])} and {said[-1]}"


def against(found: Finding) -> tuple[str, tuple[tuple[str, float], ...]]:
    """The items on whose own number a reader would say otherwise: at or below the smallest effect of interest, or above it where
    the claim is refuted. How many, in words, and which, the furthest first. None where it is not known what each item has."""
    if not found.items or math.isnan(found.smallest):
        return "", ()
    refuted = found.verdict == "refuted"
    lie = sorted(
        (item for item in found.items if (item[1] > found.smallest) == refuted), key=lambda item: item[1], reverse=refuted
    )
    who, side = ("For the claim all the same", "above") if refuted else ("Against the claim", "at or below")
    return f"{who}: {len(lie)} of {len(found.items)} items lie {side} {found.smallest:g}", tuple(lie)


def in_words(number: Number) -> str:
    """A number with its interval and n, in words.

    >>> in_words(Number(1.0, 0.75, 1.0, 13, "share")), in_words(Number(0.5, 0.2, 0.8, 9))
    ('13 of 13 (at least 0.75)', '0.50 (95 % interval 0.20 to 0.80, n = 9)')
    >>> in_words(Number(0.5, -math.inf, math.inf, 3))
    '0.50 (n = 3, too few for an interval)'
    >>> in_words(Number(0.5, -math.inf, 0.6, 16))
    '0.50 (at most 0.60, n = 16)'
    """
    if math.isnan(number.low) or math.isnan(number.value) or number.kind == "constant":
        return str(number)
    if side := number.one_side():
        return f"{number.value:z.{number.digits()}f} ({side}, n = {number.n})"
    if math.isinf(number.low) or math.isinf(number.high):
        return f"{number.value:z.2f} (n = {number.n}, too few for an interval)"
    if number.kind == "share" and number.value in (0, 1):
        return f"{str(number).replace('; ', ' (')})"
    digits = number.digits()
    return f"{number.value:z.{digits}f} (95 % interval {number.low:z.{digits}f} to {number.high:z.{digits}f}, n = {number.n})"


def split_question(text: str) -> tuple[str, str]:
    """The question, to its last question mark, and what is told after it.

    >>> split_question("When? Then we read.")
    ('When?', 'Then we read.')
    >>> split_question("Read.")
    ('Read.', '')
    """
    at = text.rfind("?") + 1
    return (text[:at], text[at:].strip()) if at else (text, "")
