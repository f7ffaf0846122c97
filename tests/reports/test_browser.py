"""The page in a real browser: what can be explored, by mouse and by keyboard, and that it asks for nothing and says nothing."""

from __future__ import annotations

import re
import shutil
from collections import Counter

import pandas as pd
import pytest
from made_up_page import (
    HOSTILE,
    cached,
    made_up_counterexamples,
    made_up_items,
    made_up_points,
    made_up_reading,
    made_up_result,
)  # fmt: skip
from overheard import overheard

pytest.importorskip("playwright", reason="playwright is not installed: pip install 'cos-interp[test]'")
from playwright.sync_api import Browser, Page, sync_playwright

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.experiment import run_and_report
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.noise import NoiseConfig
from cos_interp.reports.figures import scatters

CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")]
TAGS = "Array.from(document.querySelectorAll('body *'), e => e.tagName)"
GREY = "canvas => canvas.getContext('2d').getImageData(8, 8, 1, 1).data[0]"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as play:
        made = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def opened(browser: Browser, tmp_path):
    """Opens a page; afterwards it must have said nothing and asked for nothing but itself."""
    heard, contexts = [], []

    def go(text: str = "word", address: str = "", page_of=cached, **ways) -> Page:
        (tmp_path / "report.html").write_text(page_of(text), encoding="utf-8")
        contexts.append(browser.new_context(**ways))
        page = overheard(contexts[-1].new_page(), heard)
        page.goto((tmp_path / "report.html").as_uri() + address, timeout=120_000)
        return page

    yield go
    for context in contexts:
        context.close()
    assert heard == []


def cell(page: Page, step: int, layer: int):
    """The cell of all tokens in the first figure."""
    return page.locator("#answer td[role=gridcell]").and_(page.get_by_label(f"tokens all, layer {layer}, step {step}:")).first


def test_a_cell_by_mouse_tells_its_numbers_shows_its_clips_and_is_in_the_address(opened):
    page = opened()
    told = page.locator("#answer .told").first
    cell(page, 1, 1).hover()
    # effects 0.11 and 0.13 of two pairs, as of the random donor
    assert "tokens all, layer 1, step 1" in told.inner_text() and "effect 0.12" in told.inner_text()
    for words in ("random donor 0.12", "difference 0", "n 2", "reads donor 2", "share of tokens 0.20"):
        assert words in told.inner_text(), words
    cell(page, 1, 1).click()
    assert page.locator("#answer .drawn .player figure").count() == 3  # receives, gives, patched
    page.wait_for_url(re.compile("#tokens=all&layer=1&step=1$"))
    cell(page, 0, 1).click()
    assert page.locator("#answer .drawn .player").count() == 0
    assert "No video of this cell" in page.locator("#answer").inner_text()


def test_a_cell_by_keyboard(opened):
    page = opened()
    cell(page, 0, 1).focus()  # above: layer 1
    page.keyboard.press("ArrowRight")
    assert "step 1" in page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("Enter")
    assert cell(page, 1, 1).get_attribute("aria-selected") == "true"
    page.keyboard.press("Escape")
    assert cell(page, 1, 1).get_attribute("aria-selected") == "false"


def test_an_address_chooses_in_all_figures_and_in_the_scrubber(opened):
    page = opened(address="#step=1&layer=1&tokens=all")
    assert cell(page, 1, 1).get_attribute("aria-selected") == "true"
    assert page.locator("#evidence td.chosen").count() >= 2  # flips, shown
    assert page.locator("input[aria-label=step]").first.get_attribute("aria-valuetext") == "step 1"


def test_a_map_of_steps_says_their_sigma_and_is_addressed_without(opened):
    page = opened()
    heads = page.locator("#answer .maps table").first.locator("th[scope=col]")
    assert [head.inner_text() for head in heads.all()] == ["0\n1.00", "1\n0.60"]
    assert page.locator("#answer .maps th:not([scope])").first.inner_text() == "layer / step, sigma"


def test_the_scrubber_draws_the_step_and_frame_that_are_asked_for(opened):
    page = opened()
    player = page.get_by_role("group", name="player: scrubber")
    player.locator("input[aria-label=step]").focus()
    page.keyboard.press("Home")
    player.locator("input[aria-label='pixel frame']").focus()
    page.keyboard.press("Home")
    left, right = (player.locator("canvas").nth(n).evaluate(GREY) for n in (0, 1))
    assert abs(left - 0) <= 6 and abs(right - 80) <= 6
    page.keyboard.press("ArrowRight")
    player.locator("input[aria-label=step]").focus()
    page.keyboard.press("ArrowRight")
    assert abs(player.locator("canvas").first.evaluate(GREY) - 50) <= 6
    assert "step 1" in player.locator("canvas").first.get_attribute("aria-label")
    player.get_by_role("button", name="Play").click()
    assert player.get_by_role("button", name="Pause").count() == 1
    player.get_by_role("button", name="Pause").click()


def test_maps_lie_over_the_frames_and_follow_what_is_chosen(opened):
    """Grey 30 in the last frame of the clip; full shade is 0.85 of 230 red over 0.15 of it."""
    page = opened()
    player = page.get_by_role("group", name="player: laid over")
    canvas = player.locator("canvas").element_handle()
    red = lambda x, y: page.evaluate(f"c => c.getContext('2d').getImageData({x}, {y}, 1, 1).data[0]", canvas)
    plain, shaded = pytest.approx(30, abs=6), pytest.approx(0.85 * 230 + 0.15 * 30, abs=6)
    assert red(2, 2) == plain and red(13, 13) == plain  # the first map is empty
    player.get_by_label("look").select_option("other")
    assert red(2, 2) == shaded and red(13, 13) == plain and "strongest: 0.25" in player.inner_text()
    cell(page, 1, 1).click()  # layer 1 is chosen on the whole page
    assert red(2, 2) == shaded and "strongest: 0.50" in player.inner_text()
    player.get_by_label("look").select_option("word")
    assert red(2, 2) == plain and red(13, 13) == shaded
    player.get_by_role("slider", name="pixel frame").fill("0")  # token frame 0, where no map has anything
    assert red(13, 13) == pytest.approx(0, abs=6)


def test_a_cell_of_the_video_is_the_token_that_looks(opened):
    """The frame of the last clip frame's token: blue in the last frame, about the upper left cell, then the lower right one."""
    page = opened()
    player = page.get_by_role("group", name="player: laid over")
    canvas = player.locator("canvas")
    blue = lambda x, y: (
        canvas.evaluate(f"c => [...c.getContext('2d').getImageData({x}, {y}, 1, 1).data].slice(0, 3)") == [11, 92, 173]
    )
    assert blue(4, 0) and not blue(12, 15)
    wide = canvas.evaluate("c => c.clientWidth")
    canvas.click(position={"x": 0.8 * wide, "y": 0.8 * wide})
    assert player.get_by_label("look").input_value() == "other" and blue(12, 15) and not blue(4, 0)
    page.wait_for_url(re.compile("look=other"))
    player.get_by_role("slider", name="pixel frame").fill("0")
    assert not blue(12, 15)
    canvas.click(position={"x": 0.2 * wide, "y": 0.2 * wide})
    assert player.get_by_label("look").input_value() == "word"


def test_points_show_their_clips_by_mouse(opened):
    page = opened(page_of=made_up_points)
    figure = page.locator("#answer figure.drawn")
    rows, columns = (figure.locator("svg.points").nth(n) for n in (0, 1))
    assert figure.locator("svg.points").count() == 2 and page.locator("figure.reel .player").count() == 0
    rows.hover(position={"x": 125, "y": 240})  # below, in the middle: step 1 of the first run
    assert "run word 0" in figure.locator(".told").inner_text() and "step 1" in figure.locator(".told").inner_text()
    assert abs(figure.locator(".preview canvas").evaluate(GREY) - 100) <= 6
    columns.click(position={"x": 10, "y": 240})  # left, below: step 0 of the first run
    page.wait_for_url(re.compile("#run=word%200&step=0$"))
    shown = figure.locator(".player canvas")
    assert [abs(shown.nth(n).evaluate(GREY) - grey) <= 6 for n, grey in enumerate((50, 200))] == [True, True]  # and the end
    rows.click(position={"x": 240, "y": 10})  # right, above: step 2 of the other run
    assert shown.count() == 0 and "No clip of this point" in figure.locator(".preview").inner_text()


def test_points_show_their_clips_by_keyboard(opened):
    page = opened(page_of=made_up_points)
    figure = page.locator("#answer figure.drawn")
    canvas = figure.locator("svg.points").first
    canvas.focus()
    page.keyboard.press("ArrowRight")
    assert "step 1" in canvas.get_attribute("aria-label") and abs(figure.locator(".preview canvas").evaluate(GREY) - 100) <= 6
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("#run=word%200&step=0$"))
    assert figure.locator(".player canvas").count() == 2
    page.keyboard.press("Escape")
    assert figure.locator(".player").count() == 0


def test_hostile_names_of_counterexamples_add_no_element(opened):
    plain, hostile = (Counter(opened(text, page_of=made_up_counterexamples).evaluate(TAGS)) for text in ("word", HOSTILE))
    assert plain == hostile


def test_points_are_drawn_without_scripts_and_take_no_text_for_markup(opened):
    page = opened(page_of=made_up_points, java_script_enabled=False)
    assert page.locator("#answer figure.drawn details.twin svg").is_visible() and page.locator("canvas").count() == 0
    assert not page.locator("svg.points").first.is_visible()
    page.locator("details.all summary").first.click()
    assert page.locator("img.sheet").first.is_visible()
    plain, hostile = (Counter(opened(text, page_of=made_up_points).evaluate(TAGS)) for text in ("word", HOSTILE))
    drawn = ("path", "g", "use", "defs")
    assert {t: n for t, n in plain.items() if t not in drawn} == {t: n for t, n in hostile.items() if t not in drawn}


def test_a_player_stops_where_its_cell_is_left(opened):
    page = opened()
    cell(page, 1, 1).click()
    button = page.locator("#answer .drawn .player").get_by_role("button", name="Play").first.element_handle()
    button.click()
    assert button.text_content() == "Pause"
    cell(page, 0, 1).click()
    waited = 0
    while button.text_content() == "Pause" and (waited := waited + 1) < 50:
        page.wait_for_timeout(100)
    assert button.text_content() == "Play" and not button.evaluate("button => button.isConnected")


def test_escape_in_a_filter_leaves_what_is_chosen(opened):
    page = opened()
    cell(page, 1, 1).click()
    page.locator("label.filter input:visible").first.focus()
    page.keyboard.press("Escape")
    assert cell(page, 1, 1).get_attribute("aria-selected") == "true"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Escape")
    assert cell(page, 1, 1).get_attribute("aria-selected") == "false"


def test_tables_sort_and_filter(opened):
    page = opened()
    table = page.locator("table.rows").filter(has_text="its noise").first
    assert table.get_by_role("link").count() >= 1
    head = table.locator("th").first
    head.locator("button").click()
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert table.locator("tbody td").first.inner_text() == "seed-001"
    numbers = page.locator("table.rows").filter(has_text="mean effect").first
    field = page.locator("label.filter input").last
    before = numbers.locator("tbody tr:visible").count()
    field.fill("random")
    assert 0 < numbers.locator("tbody tr:visible").count() < before


def test_an_item_of_a_table_opens_its_clips(opened):
    page = opened(page_of=made_up_items)
    assert page.locator(".player").count() == 1  # that of the first item, the example
    page.locator("table.rows").get_by_role("link", name="word 3").click()
    player = page.get_by_role("group", name="player: word 3")
    player.wait_for()
    assert abs(player.locator("canvas").evaluate(GREY) - 120) <= 6 and page.locator(".player").count() == 2
    page = opened(page_of=made_up_items, address="#reel-0-4")
    page.get_by_role("group", name="player: word 4").wait_for()


@pytest.mark.parametrize("page_of", [made_up_items, made_up_reading])
def test_hostile_names_of_items_add_no_element(opened, page_of):
    plain, hostile = (Counter(opened(text, page_of=page_of).evaluate(TAGS)) for text in ("word", HOSTILE))
    assert plain == hostile


def test_items_are_picked_by_task_difficulty_and_verdict(opened):
    page = opened(page_of=made_up_items)
    rows = page.locator("table.rows tbody tr:visible td:first-child")
    assert page.locator("label.filter select").count() == 3  # and none of the items' names
    page.get_by_label("task").select_option("maze")
    assert rows.all_inner_texts() == ["word 0", "word 1", "word 2", "word 3"]
    page.get_by_label("reads").select_option("wrong (word)")
    assert rows.all_inner_texts() == ["word 1", "word 3"]
    page.get_by_label("difficulty").select_option("4")
    assert rows.all_inner_texts() == ["word 3"]


def test_what_the_verifier_reads_is_drawn_into_the_video(opened):
    """Cells are of 16 pixels; a pixel of the upper edge of each. Framed in yellow: a trail and the agent that were not there;
    crossed in red: what is none of both; the wall, as at first, has neither."""
    page = opened(page_of=made_up_reading)
    player = page.locator(".player").first
    colour = lambda x, y: player.locator("canvas").evaluate(
        f"c => [...c.getContext('2d').getImageData({x}, {y}, 1, 1).data].slice(0, 3)"
    )
    edges = [(8, 0), (24, 0), (8, 16), (8, 64)]
    assert [colour(*at) for at in edges[:3]] == [[255, 225, 0], [255, 225, 0], [208, 0, 0]]
    wall = colour(*edges[3])
    assert max(wall) < 80 and "trail 1, agent 1, cannot be read 1" in player.inner_text()
    player.get_by_label("draw what is read").uncheck()
    assert "read in this frame" not in player.inner_text() and colour(*edges[3]) == wall
    assert all(colour(*at) not in ([255, 225, 0], [208, 0, 0]) for at in edges)
    player.get_by_label("draw what is read").check()
    player.get_by_role("slider", name="pixel frame").fill("0")
    assert "nothing new" in player.inner_text() and colour(*edges[2]) not in ([255, 225, 0], [208, 0, 0])


def test_hostile_text_adds_no_element_to_what_the_script_builds(opened):
    plain, hostile = (Counter(opened(text).evaluate(TAGS)) for text in ("word", HOSTILE))
    drawn = ("path", "g", "use", "defs")  # glyphs of figures
    assert {t: n for t, n in plain.items() if t not in drawn} == {t: n for t, n in hostile.items() if t not in drawn}


def test_without_scripts_figures_frames_and_tables_are_there(opened):
    page = opened(java_script_enabled=False)
    for part in ("#answer figure.drawn svg", "figure.reel img.sheet", "#evidence > .scroll > table.rows", "#caveats li"):
        assert page.locator(part).first.is_visible(), part
    assert page.locator("#answer .answer .check").inner_text() == "not testable"


PAGES = [cached, made_up_points, made_up_counterexamples, made_up_items, made_up_reading]


@pytest.mark.parametrize("page_of", PAGES)
@pytest.mark.parametrize("text", ["word", "x" * 3000, "some words " * 300], ids=["word", "long", "words"])
def test_nothing_is_wider_than_the_window(opened, page_of, text):
    page = opened(text, page_of=page_of)
    for width in (390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_many_classes_wrap_on_a_phone(opened):
    """A legend of fourteen names below maps of points."""
    about = pd.DataFrame({"name": [f"class of number {n}" for n in range(14)]})
    tables = [("map", pd.DataFrame({"x": range(14), "y": range(14)}))]
    figure = scatters(tables, "name", "name", about, ("name",))
    section = pages.Section("Points", figure)
    page = opened(
        page_of=lambda _: pages.build(made_up_result("word"), "t", "q", "s", [], [section]).html,
        viewport={"width": 390, "height": 800},
    )
    assert page.locator(".scale .key").count() == 14
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("scripts", [True, False])
def test_in_print_all_that_is_folded_is_there_and_the_players_are_not(opened, scripts):
    page = opened(page_of=made_up_items, java_script_enabled=scripts)
    assert not page.locator("details.one img.sheet").last.is_visible()
    page.emulate_media(media="print")
    assert page.locator("img.sheet").count() == 5 and all(sheet.is_visible() for sheet in page.locator("img.sheet").all())
    assert not any(part.is_visible() for part in page.locator(".player, .switch").all())
    page = opened(java_script_enabled=scripts)
    page.emulate_media(media="print")
    assert page.locator("figure.drawn svg").count() > 2
    assert all(drawn.is_visible() for drawn in page.locator("figure.drawn svg").all())


@pytest.mark.parametrize("scripts", [True, False])
def test_controls_and_twins_are_switched_off_and_on(opened, scripts):
    page = opened(page_of=made_up_counterexamples, java_script_enabled=scripts)
    beside = page.locator(".beside")
    assert beside.count() > 1 and beside.first.is_visible()
    page.get_by_label("controls and twins").uncheck()
    assert not any(part.is_visible() for part in beside.all())
    page.get_by_label("controls and twins").check()
    assert beside.first.is_visible()
    assert not opened(page_of=made_up_items, java_script_enabled=scripts).locator(".switch").is_visible()  # nothing to switch


def test_what_is_said_of_each_clip_stands_by_its_frames_without_scripts(opened):
    page = opened(java_script_enabled=False)
    said = page.locator("figure.reel").filter(has_text="scrubber").first.locator(".said li")
    assert said.count() == 3 and said.nth(1).inner_text().split("\n")[:2] == ["step 1", "at: word"]
    assert said.nth(1).locator(".bar-of").evaluate("bar => bar.clientWidth || bar.offsetWidth") == 40  # a half of 80 pixels


@pytest.mark.parametrize("page_of", [cached, made_up_points])
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_axe_finds_nothing_serious(opened, scheme, width, page_of):
    assert serious(opened(page_of=page_of, color_scheme=scheme, viewport={"width": width, "height": 800})) == []


def serious(page: Page) -> list[tuple[str, list[str]]]:
    """What axe finds on a page that shuts somebody out."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [(v["id"], [n["html"][:120] for n in v["nodes"][:3]]) for v in found if v["impact"] in ("serious", "critical")]


def test_a_run_of_noise_is_read_by_everybody_and_keeps_to_itself(opened, organism, tmp_path):
    """A real one: curves, players, tables; light and dark."""
    config = NoiseConfig(tasks=("maze",), items=1, num_inference_steps=3, modes=("replace",))
    made = run_and_report(load("noise"), config, tmp_path / "run", model=organism, workers=1)[1]
    page = opened(page_of=lambda _: made.html)
    assert all(page.locator(part).count() for part in (".player", ".told.of-curves", "table.rows"))
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert serious(page) == [], scheme


def test_a_counterexample_is_one_click_away(opened):
    """The page of 12 items, of which three speak against the claim: the furthest is named first and leads to its clips."""
    page = opened(page_of=made_up_counterexamples)
    assert page.locator("#against").inner_text().startswith("Against the claim: 3 of 12 items lie at or below 0.25; furthest ")
    link = page.locator("#against").get_by_role("link", name="word 0")
    link.click()
    player = page.get_by_role("group", name="player: word 0")
    assert player.is_visible()
    page.wait_for_function("scrollY > 0")


def test_a_figure_that_cannot_be_explored_stops_nothing_else(browser, tmp_path):
    text = re.sub(r'("kind":"maps"[^<]*?)"reels":', r'\1"rolls":', cached("word"), count=1)
    assert text != cached("word")
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    heard = []
    page = overheard(browser.new_page(), heard)
    page.goto((tmp_path / "report.html").as_uri())
    assert len(heard) == 1 and "TypeError" in heard[0]
    assert page.locator("#answer figure.drawn svg").first.is_visible()
    assert page.locator("#answer td[role=gridcell]:visible").count() == 0
    assert all(page.locator(part).count() > 0 for part in ("#evidence td[role=gridcell]:visible", ".player", "th[aria-sort]"))


def test_the_policy_stops_a_foreign_script(browser, tmp_path):
    text = cached("word").replace("</main>", "<script>document.title = 'foreign'</script></main>")
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    heard = []
    page = browser.new_page()
    page.on("console", lambda message: heard.append(message.text))
    page.goto((tmp_path / "report.html").as_uri())
    assert page.title() != "foreign" and any("Content Security Policy" in text for text in heard)
