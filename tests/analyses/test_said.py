"""The terminal says what the page says first, and has every finding in its table, whatever its text holds."""

from __future__ import annotations

import html
import re

import made_up_page

from cos_interp.analyses.driver import said
from cos_interp.analyses.driver.answer import answer
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Finding, Number


def finding(verdict="reproduced", claim="Noise hurts (3.2)", primary=True, why=""):
    number, control = Number(0.5, 0.25, 0.75, 20, "mean"), Number(0.125, 0.0, 0.25, 20, "mean")
    return Finding(claim, verdict, "it loses", number, "no noise", control, "rule", primary=primary, why=why, smallest=0.1)


def shown(found: list[Finding], notes=(), capsys=None) -> str:
    lines = [f.line() for f in found] + list(notes)
    said.show(Report(lines, {"findings": [f.data() for f in found], "notes": list(notes)}, ""))
    return capsys.readouterr().out


def test_sentence_table_and_notes(capsys):
    found = [finding(), finding("refuted", "Frames hurt", primary=False)]
    text = shown(found, ["a note"], capsys)
    first, *rest = text.splitlines()
    assert first == f"reproduced: {answer(found).sentence()}"
    assert first.startswith(
        "reproduced: It loses 0.50 (95 % interval 0.25 to 0.75, n = 20); the control has 0.12 (95 % interval "
    )
    rows = [re.split(r"\s{2,}", line.strip()) for line in rest]
    assert ["reproduced", "0.50 [0.25, 0.75] (n = 20)", "0.12 [0.00, 0.25] (n = 20)", "Noise hurts (3.2)"] in rows
    assert ["variant", "0.50 [0.25, 0.75] (n = 20)", "0.12 [0.00, 0.25] (n = 20)", "Frames hurt"] in rows
    assert rest[-1] == "- a note" and "it loses:" not in text  # the long lines are the page's


def test_the_page_says_the_same_sentence(capsys):
    report = made_up_page.page(made_up_page.made_up_result("word"), made_up_page.made_up_reels("word"))
    said.show(report)
    on_page = re.search(r'<p class="answer">(.*?)</p>', report.html, re.DOTALL)[1]
    verdict, _, sentence = html.unescape(re.sub(r"<[^>]*>", "", on_page)).strip().partition(" Nothing")
    assert capsys.readouterr().out.startswith(f"{verdict}: Nothing{sentence}\n") and sentence


def test_markup_in_a_claim_is_text_and_a_run_without_findings_says_its_notes(capsys):
    text = shown([finding(claim="[red]x[/red] :smile: <b>")], capsys=capsys)
    assert "[red]x[/red] :smile: <b>" in text
    assert shown([], ["nothing could be measured"], capsys) == "- nothing could be measured\n"
