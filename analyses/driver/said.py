"""What a finished experiment says at the terminal: the first sentence of its page, and a small table of its findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cos_interp.analyses.driver.answer import answer
from cos_interp.analyses.driver.findings import Finding

if TYPE_CHECKING:
    from rich.table import Table

    from cos_interp.analyses.driver.experiment import Report

WIDE = 160  # characters a line where there is no terminal
KEPT = 40  # characters of a cell up to which its column is not broken


def show(report: Report) -> None:
    """Print it on the standard output: sentence, table, and what else the run has to say."""
    from rich.console import Console

    console = Console(highlight=False, emoji=False, markup=False)
    console = console if console.is_terminal else Console(highlight=False, emoji=False, markup=False, width=WIDE)
    findings = [Finding.of(one) for one in report.data.get("findings", [])]
    for line in sentences(findings):
        console.print(line, soft_wrap=True)
    if findings:
        console.print(table(findings))
    told = [finding.line() for finding in findings]
    for line in report.lines:
        if line not in told:  # which the table has
            console.print(f"- {line}", soft_wrap=True)


def sentences(findings: Sequence[Finding]) -> Iterator[str]:
    """The verdict and the first sentence of the page, on one line."""
    found = answer(findings)
    if found is not None:
        yield f"{found.finding.verdict}: {found.sentence()}" if found.finding.primary else found.sentence()


def table(findings: Sequence[Finding]) -> Table:
    """A row a finding: verdict, number, control, claim."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE, pad_edge=False)
    rows = [(_verdict(f), str(f.number), str(f.control), f.claim) for f in findings]
    for name, cells in zip(("verdict", "number", "control", "claim"), zip(*rows, strict=True), strict=True):
        made.add_column(name, overflow="fold", min_width=min(KEPT, max(map(len, cells))))
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def _verdict(finding: Finding) -> str:
    why = f" ({finding.why})" if finding.why else ""
    return f"{finding.verdict if finding.primary else 'variant'}{why}"
