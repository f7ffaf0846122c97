"""A page within a notebook: what it holds stays in its frame, and its widgets work there."""

from __future__ import annotations

import html
import re
import shutil

import pytest
from made_up_page import HOSTILE, cached
from overheard import overheard

from cos_interp.reports.framed import framed

CHROMIUM = shutil.which("chromium")


def held(text: str) -> str:
    """What the frame of a text holds."""
    return html.unescape(
        re.fullmatch(r'<iframe sandbox="allow-scripts" title="[^"<]*" srcdoc="([^"<]*)" style="[^"<]*"></iframe>', text)[1]
    )


def test_a_frame_holds_the_page_and_no_text_leaves_it():
    name = "\"><script>alert(1)</script>'"
    for page in (cached("word"), cached(HOSTILE)):
        assert held(framed(page, name)) == page
    assert html.escape(name) in framed("", name)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")
def test_in_a_notebook_the_widgets_work_and_the_notebook_is_out_of_reach(tmp_path):
    play = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'cos-interp[test]'")
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><meta charset=utf-8><title>notebook</title>{framed(cached('word'), 'a run')}", "utf-8")
    heard: list[str] = []
    with play.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = overheard(browser.new_page(), heard)
        page.goto(notebook.as_uri(), timeout=120_000)
        frame = page.frame_locator("iframe")
        cell = frame.locator("#answer td[role=gridcell]").first
        cell.click()
        assert cell.get_attribute("aria-selected") == "true"
        page.wait_for_timeout(300)  # the address would be written by now
        frame.get_by_role("link", name="Evidence").first.click()
        assert page.url == notebook.as_uri() and frame.locator("html").evaluate("() => location.href") == "about:srcdoc"
        assert frame.locator("html").evaluate("() => scrollY") > 0
        out = "() => { try { return parent.document.title } catch (error) { return error.name } }"
        assert frame.locator("html").evaluate(out) == "SecurityError"
        assert frame.locator("html").evaluate("() => origin") == "null"  # no cookies, no storage
        browser.close()
    assert heard == []
