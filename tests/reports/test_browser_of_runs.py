"""Pages of several runs in a real browser: they ask for nothing, say nothing, filter, and take no text for markup."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
from made_up_page import HOSTILE, made_up_points
from made_up_page import cached as page_of_a_run
from made_up_runs import MORE, layers_run
from overheard import overheard
from test_browser import CHROMIUM, TAGS, browser, serious

pytest.importorskip("playwright", reason="playwright is not installed: pip install 'cos-interp[test]'")

from cos_interp.analyses import EXPERIMENTS
from cos_interp.analyses.dossier import DossierConfig, ExperimentFacts
from cos_interp.analyses.dossier.page import build, concluded
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.findings import VERDICT_STYLE, Finding, Number
from cos_interp.analyses.reporting.compare import compared
from cos_interp.analyses.reporting.index import Indexed, _claims, _row, matrix, summary
from cos_interp.reports.html import render
from cos_interp.reports.nested import nested

__all__ = ["browser"]  # the fixture
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")]
NUMBER = Number(0.5, 0.4, 0.6, 30)


@cache
def comparison(text: str) -> str:
    return compared([layers_run("a", 3, 2, text=text), layers_run("b", 4, 3, MORE, text=text)], EXPERIMENTS["layers"])[0]


def finding(text: str, verdict: str) -> Finding:
    return Finding(text, verdict, text, NUMBER, text, NUMBER, text, f"x.{verdict}", 0.1, why=text)


@cache
def listed(text: str) -> str:
    from pathlib import Path

    folder, facts = Path("/runs"), {"analysis": text, "model": {"name": text, "digest": text}, "config": {"items": 3}}
    runs = [
        Indexed(folder / "a", facts, "complete", "", (finding(text, "reproduced"), finding(text, "refuted"))),
        *(Indexed(folder / f"r{n}", facts, "damaged", text) for n in range(6)),
        Indexed(folder / "b", {**facts, "analysis": "other"}, "complete", "", (finding(text, "undecided"),) * 6),
    ]
    claims = [claim for run in runs for claim in _claims(run, folder, folder / "i.html")]
    rows = [_row(run, folder, folder / "i.html") for run in runs]
    said = {"title": text, "summary": summary(runs), "verdicts": VERDICT_STYLE, "matrix": matrix(runs)}
    return render("index.html", runs=rows, claims=claims, **said)


@cache
def dossier(text: str) -> str:
    model = {"name": text, "digest": text, "revision": None, "given": True}
    facts = {"model": model, "versions": {"torch": text}, "command": text}
    units = {"patching": ExperimentFacts(about=text, seconds=1, findings=(finding(text, "refuted"),), lines=(text,))}
    units["probes"] = ExperimentFacts(about=text, seconds=1, findings=(finding(text, "undecided"),), lines=(text,))
    units["noise"] = ExperimentFacts(about=text, seconds=1, error=text)
    pages = {name: nested(page(text), name, 10**9) for name, page in (("patching", page_of_a_run), ("probes", made_up_points))}
    result = concluded(AnalysisResult("all", DossierConfig(model=text), None, facts, units))
    return build(result, {"patching": b"<svg></svg>"}, pages).html


PAGES = {"compare": comparison, "index": listed, "dossier": dossier}


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page; afterwards it must have said nothing and asked for nothing but itself."""
    heard, contexts = [], []

    def go(name: str, text: str = "word", **ways):
        (tmp_path / "page.html").write_text(PAGES[name](text), encoding="utf-8")
        contexts.append(browser.new_context(**ways))
        page = overheard(contexts[-1].new_page(), heard)
        page.goto((tmp_path / "page.html").as_uri(), timeout=120_000)
        return page

    yield go
    for context in contexts:
        context.close()
    assert heard == []


@pytest.mark.parametrize("name", list(PAGES))
def test_hostile_text_adds_no_element(opened, name):
    drawn = ("path", "g", "use", "defs", "OPTION")  # glyphs of figures; what can be chosen
    plain, hostile = (Counter(opened(name, text).evaluate(TAGS)) for text in ("word", HOSTILE))
    assert {t: n for t, n in plain.items() if t not in drawn} == {t: n for t, n in hostile.items() if t not in drawn}


@pytest.mark.parametrize("name", list(PAGES))
@pytest.mark.parametrize("text", ["word", "x" * 3000], ids=["word", "long"])
def test_nothing_is_wider_than_the_window(opened, name, text):
    page = opened(name, text)
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("name", list(PAGES))
def test_without_scripts_the_answer_and_all_tables_are_there(opened, name):
    page = opened(name, java_script_enabled=False)
    assert page.locator("#answer .answer").first.is_visible()
    assert page.locator("main > section table tbody tr:visible, main > div table tbody tr:visible").count() > 0
    assert page.locator("select").count() == 0


@pytest.mark.parametrize("name", list(PAGES))
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_axe_finds_nothing_serious(opened, name, scheme, width):
    assert serious(opened(name, color_scheme=scheme, viewport={"width": width, "height": 800})) == []


def test_rows_are_picked_by_what_a_column_has(opened):
    page = opened("index")
    rows = page.locator("#claims tbody tr:visible")
    assert rows.count() == 8
    page.locator("#claims").get_by_label("verdict").select_option("refuted")
    assert rows.count() == 1
    page.locator("#claims").get_by_label("experiment").select_option("other")
    assert rows.count() == 0
    page.locator("#claims").get_by_label("verdict").select_option("")
    assert rows.count() == 6 and "6 of 8 rows" in page.locator("#claims").inner_text()
    page.locator("#runs").get_by_label("state").select_option("damaged")
    assert page.locator("#runs tbody tr:visible").count() == 6


def test_a_cell_of_the_difference_tells_its_interval(opened):
    page = opened("compare")
    page.get_by_role("gridcell").and_(page.get_by_label("map b less a")).first.hover()
    told = page.locator("figure.drawn .told").filter(has_text="map b less a")
    assert "difference 0.25" in told.inner_text() and "n 14" in told.inner_text()


def test_a_page_inside_a_dossier_is_explored_as_alone(opened):
    page = opened("dossier")
    cell = page.locator("#page-patching td[role=gridcell]").and_(page.get_by_label("tokens all, layer 1, step 1:")).first
    cell.click()
    assert page.locator("#patching-answer .drawn .player figure").count() == 3
    page.get_by_role("link", name="The whole page of patching").click()
    assert page.url.endswith("#page-patching")
    page.locator("#probes-answer svg.points").first.hover(position={"x": 125, "y": 240})  # step 1 of the first run
    assert page.locator("#probes-answer .preview canvas").count() == 1
    assert page.locator("#probes-answer table.rows th button").count() > 0
