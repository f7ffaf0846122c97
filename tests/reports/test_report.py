"""The report: self-contained, escaped, and of bounded size; what it does in a browser is tested beside."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from made_up_page import HOSTILE, build, cached, made_up_result

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.answer import answer, in_words, of_twins
from cos_interp.analyses.driver.caveats import CAVEATS, caveats
from cos_interp.analyses.driver.estimates import Mean, PairedShares, Share, Statistic
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.driver.layout import LARGEST, UNREAD, counterexamples, laid_out
from cos_interp.analyses.driver.pages import Clip, Link, Reel, Section, Shown
from cos_interp.analyses.driver.statistics import points
from cos_interp.reports import figures, html
from cos_interp.reports.drawing import INTERVAL, Maps
from cos_interp.reports.explored import explored
from cos_interp.reports.figures import Curve, Panel, panels, written_map
from cos_interp.reports.grouped import grouped_points
from cos_interp.reports.html import embedded, number
from cos_interp.reports.sheets import LONGEST, MOST_PIXELS, plan
from cos_interp.reports.style import drawn_on, picture


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def parsed(text: str) -> Elements:
    parser = Elements()
    parser.feed(text)
    return parser


def test_hostile_text_stays_text():
    plain, hostile = (parsed(cached(t)) for t in ("word", HOSTILE))
    assert [t for t in hostile.tags if t not in ("path", "g", "use", "defs")] == [
        t for t in plain.tags if t not in ("path", "g", "use", "defs")
    ]
    assert not [name for name, _ in hostile.attributes if name.startswith("on")]


def test_data_for_the_script_cannot_end_it_and_comes_back():
    data = {HOSTILE: [HOSTILE + "x" * 100_000, 0.5, None], "\u2029-->": "]]>"}
    text = str(embedded(data))
    assert json.loads(text) == data and not set(text) & set("<>&\u2028\u2029")
    with pytest.raises(ValueError):
        embedded({"x": float("nan")})


def test_nothing_is_loaded_from_elsewhere_and_bytes_repeat():
    text = cached("word")
    assert text == build("word")
    for name, value in parsed(text).attributes:
        if name in ("src", "href", "xlink:href", "poster", "data", "action") and value:
            assert value.startswith(("data:", "#")), (name, value[:80])
    assert "default-src 'none'" in text
    assert not re.search(r"url\((?!#)", text)


def test_the_policy_lets_only_the_pages_own_script_run():
    text = cached("word")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digests = [f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts]
    assert re.findall(r"script-src ([^;]*)", policy) == digests and len(scripts) == 1


def test_the_numbers_on_the_page_are_those_of_the_rows():
    text = cached("word")
    for words in (
        "n = 2",
        "exactly 0",
        "holds",
        "5 transformer blocks",
        "minimal",
        "0.600",
        "cos analyze patching --model word",
    ):
        assert words in text, words


def test_the_colour_scale_is_symmetric_and_the_sigma_is_on_the_axis():
    table = pd.DataFrame([[0.1, -0.9], [0.2, 0.3]], columns=[0, 4])
    drawn = figures.heat_maps([("a", table)], {0: 1.0, 4: 0.5}, "effect")
    assert drawn.svg.startswith("<svg") and drawn.svg == figures.heat_maps([("a", table)], {0: 1.0, 4: 0.5}, "effect").svg
    assert (drawn.shown.low, drawn.shown.high) == (-0.9, 0.9) and drawn.shown.colours[16] == "#f7f6f6"  # 0 is white
    assert drawn.shown.words() == "effect from -0.90 to 0.30; the largest at map a, layer 1, step 4"


def test_that_no_counterexample_has_a_video_is_said():
    found = replace(finding(), items=(("a", 0.4), ("b", -0.2)))
    page = pages.build(made_up_result("word"), "t", "q?", "s", [found], []).html
    assert "furthest b (-0.20), of which no video is kept." in page
    reel = Reel("b", "", np.zeros((1, 2, 16, 16, 3), np.uint8), [Shown("video")])
    page = pages.build(made_up_result("word"), "t", "q?", "s", [found], [Section("Videos", reels=[reel])]).html
    assert 'furthest <a href="#reel-0-0">b</a> (-0.20).' in page


def test_a_heat_map_says_of_how_many_items_its_cells_are():
    """By its cells, with what their interval is; else by what its section says."""
    plain = figures.matrix_maps([("a", pd.DataFrame([[0.1, 0.2]]))], "x", "y", "z")
    caption = lambda figure, of=(): laid_out([Section("x", figure, "A caption.", of=of)])["sections"][0]["caption"]
    assert caption(plain) == "A caption." and caption(plain, [7, 4, 7]) == "A caption. Of each cell n = 4 to 7."
    told = plain.shown.cells.assign(low=[0.0, None], high=[0.3, None], n=[12, 3], interval=["bootstrap-t", "Student's t"])
    assert caption(plain.explored(told)) == "A caption. Of each cell n = 3 to 12; 95 % interval: bootstrap-t."


def test_a_figure_says_of_which_kinds_its_intervals_are():
    """Estimates of each kind as marks, in curves and as bars."""
    chance = np.random.default_rng(0)
    numbers = {
        0: Share([1, 0, 1] * 8).number(), 1: PairedShares([1, 0] * 20, [0, 0] * 20).number(), 2: Mean(chance.random(12)).number(),
        3: Mean(chance.random(11)).number(), 4: Mean([0.5] * 30 + [0.7], bounds=(0, 1)).number(),
        5: Mean([0.5] * 30, bounds=(0, 1)).number(), 6: Statistic(list(chance.random(20)), np.median).number(), 7: Number(0.5),
    }  # fmt: skip
    of = {at: points({at: number}, "step").interval[0] for at, number in numbers.items()}
    exact, few = "exact (Clopper-Pearson)", "exact, of the share with the most frequent value"
    assert list(of.values()) == [exact, "Newcombe's", "bootstrap-t", "Student's t", few, few, "BCa bootstrap", None]
    caption = lambda figure: laid_out([Section("x", figure, "A caption.")])["sections"][0]["caption"]
    some = points({at: numbers[at] for at in (3, 0, 7)}, "step")
    said = f"A caption. Of each mark n = 0 to 24; 95 % interval: Student's t or {exact}."
    line = figures.panels([figures.Panel("p", [figures.Curve("c", some)], "step", "step", "value")])
    assert caption(line) == said == caption(figures.bars(some.rename(columns={"step": "name"}), "value"))
    assert INTERVAL not in "".join(words for place in explored(line.shown, {}).told for _, words in place)  # once, and below


def test_where_a_scorer_from_outside_judged_it_is_said_that_nothing_is_drawn_in():
    clips = np.zeros((1, 2, 16, 16, 3), np.uint8)

    def unread(told: dict, reads: bool) -> bool:
        (section,) = laid_out([Section("x", reels=[Reel("a", "", clips, [Shown("video", told)])])], reads=reads)["sections"]
        return section["reels"][0]["unread"] == UNREAD

    verdict = {"reads": "wrong (too far left)"}
    assert unread(verdict, False) and not unread(verdict, True) and not unread({"sigma": 0.5}, False)


def test_a_wide_interval_leaves_the_curves_legible_and_is_said():
    table = pd.DataFrame(
        {"step": [0, 1, 2], "mean": [0.0, 0.5, 1.0], "low": [-0.2, 0.4, -np.inf], "high": [0.1, 0.6, 40.0], "n": [9, 9, 2]}
    )
    panel = figures.Panel("p", [figures.Curve("c", table)], "step", "step", "value")
    assert figures.limits(panel) == pytest.approx((-0.36, 3.16))  # -0.2 to 1 + 2 x 1, and 5 % about it
    assert figures.limits(replace(panel, bounds=(0, 1))) == (0, 1)
    (section,) = laid_out([Section("x", figures.panels([panel]), "A caption.")])["sections"]
    assert section["caption"].startswith("A caption. Of each mark n = 2 to 9; 95 % interval. Triangles at the edge")
    steep = figures.Curve("c", pd.DataFrame({"step": [0, 1], "mean": [1.0, 569.0]}))
    assert figures.panels([replace(panel, curves=[steep], bounds=(0, 10))]).shown.cut
    narrow = figures.panels([replace(panel, curves=[figures.Curve("c", table.head(2))])])
    (section,) = laid_out([Section("x", narrow, "A caption.")])["sections"]
    assert section["caption"] == "A caption. Of each mark n = 9; 95 % interval."


def test_bars_of_too_few_for_an_interval_have_none():
    groups = pd.DataFrame({"name": ["a", "b"], "mean": [0.5, 0.2], "low": [0.4, -np.inf], "high": [0.6, np.inf], "n": [9, 2]})
    none = groups.assign(low=[0.4, np.nan], high=[0.6, np.nan])
    assert figures.bars(groups, "share").svg == figures.bars(none, "share").svg


# --- the first sentence ----------------------------------------------------------------------------------------------


def finding(**more) -> Finding:
    number, control = Mean(np.array([0.4, 0.5, 0.6, 0.7])).number(), Share(np.ones(20)).number()
    return Finding("claim", "reproduced", "it moves by", number, "nothing done", control, "rule", smallest=0.1, **more)


def test_the_answer_is_that_of_the_first_finding_with_a_verdict():
    variant = replace(finding(), primary=False, statement="a variant")
    found = answer([variant, finding(short="in short by")])
    assert found is not None
    number = finding().number
    said = f"In short by 0.55 (95 % interval {number.low:.2f} to {number.high:.2f}, n = 4); the control has 20 of 20 (at least"
    assert found.sentence().startswith(said) and "above 0.1" in found.measure
    assert answer([]) is None


def test_an_answer_that_is_none_says_what_would_make_it_testable():
    found = answer([replace(finding(), verdict="not testable", why="4 of at least 12 items")])
    assert found is not None and found.sentence().startswith("Nothing is decided (4 of at least 12 items). Measured so far: it")
    assert in_words(Number(float("nan"))) == "no value (n = 0)"
    empty = answer([replace(finding(), verdict="not testable", why=Share([]).lacking() or "")])
    assert empty is not None and "(no item is eligible: more items, or another model, may have some)" in empty.sentence()


def test_items_against_the_answer_are_counted_and_the_furthest_are_named():
    items = (("a", 0.4), ("b", -0.2), ("c", 0.1), ("d", 0.05))
    found = answer([replace(finding(), items=items)])
    assert found is not None and found.against == "Against the claim: 3 of 4 items lie at or below 0.1"
    assert found.these == (("b", -0.2), ("d", 0.05), ("c", 0.1))
    refuted = answer([replace(finding(), items=items, verdict="refuted")])
    assert refuted is not None and refuted.against == "For the claim all the same: 1 of 4 items lie above 0.1"
    assert refuted.these == (("a", 0.4),)
    unknown = answer([finding()])
    assert unknown is not None and unknown.against == "" and unknown.these == ()


def test_an_item_with_clips_is_named_where_none_of_the_furthest_has_any():
    items = [(name, float(n)) for n, name in enumerate("abcdef")]
    names = lambda reels: [(one["name"], one["link"]) for one in counterexamples(items, reels)]
    assert names({}) == [("a", None), ("b", None), ("c", None)]
    assert names({"e": "reel-1", "f": "reel-2"}) == [("a", None), ("b", None), ("c", None), ("e", "reel-1")]
    assert names({"b-noise-0": "reel-1", "bc": "reel-2"}) == [("a", None), ("b", "reel-1"), ("c", None)]


def test_what_twins_have_is_said_once():
    some, other = Number(0.5, 0.2, 0.8, 9), Number(0.1, 0.0, 0.2, 9)
    assert of_twins([some, some]) == "both models of random weights have 0.50 (95 % interval 0.20 to 0.80, n = 9)"
    assert (
        of_twins([some, other, some]).startswith("models of random weights have 0.50")
        and of_twins([some, other]).count(" and ") == 1
    )
    assert of_twins([Number(float("nan"))] * 3) == "of all 3 models of random weights no item counts"


def test_dollar_signs_in_names_are_text():
    """matplotlib would read formulas between them, and stop at what is none."""
    name = r"runs/$\nonsense{$ and $x_1$"
    points = pd.DataFrame(
        {"place": [name, "b"], "series": [name, name], "mean": [0.1, 0.2], "low": [0.0, 0.1], "high": [0.2, 0.3]}
    )
    curve = Curve(name, pd.DataFrame({"step": [0, 1], "mean": [0.1, 0.2]}))
    table = pd.DataFrame([[0.1, 0.2]], index=[name], columns=[name, "c"])
    for drawn in (
        grouped_points([(name, points)]), panels([Panel(name, [curve], "step", name, name)]),
        figures.matrix_maps([(name, table)], name, name, name),
    ):  # fmt: skip
        assert drawn.svg.startswith("<svg")


def test_no_number_is_minus_nothing():
    tiny = Number(-0.0001, -0.004, 0.004, 9)
    assert str(tiny) == "0.000 [-0.004, 0.004] (n = 9)" and in_words(tiny).startswith("0.000 (95 %")
    assert str(Number(-0.001, -0.002, 0.3, 9)) == "0.00 [0.00, 0.30] (n = 9)" and number(-0.001) == "0.00"


# --- what fits on a page ---------------------------------------------------------------------------------------------


def large() -> list[Section]:
    """More than fits: noise does not compress."""
    noise = np.random.default_rng(0).integers(0, 256, (850, 1100, 3), np.uint8)
    tiny = np.zeros((2, 3, 8, 8, 3), np.uint8)
    rows = [Shown("a"), Shown("b")]
    return [Section("Stills", clips=[Clip(f"still {i}", "", noise) for i in range(3)], reels=[Reel("r", "", tiny, rows)])]


def test_a_page_stays_within_its_size_and_says_where_the_rest_is():
    made = laid_out(large())
    sizes = [len(clip["uri"]) for clip in made["sections"][0]["clips"]]
    assert sizes[0] > 3_000_000 and sizes[1] and sizes[2] == 0 and sum(sizes) < LARGEST
    assert made["sections"][0]["clips"][2]["file"] == "stills-still-2.png" and made["example"]["uri"]


@pytest.mark.parametrize(("clips", "along", "stacked"), [(4, "", False), (5, "", True), (20, "step", False)])
def test_many_clips_stand_below_the_figure_of_the_first_screen(clips, along, stacked):
    reel = Reel("a", "", np.zeros((clips, 2, 16, 16, 3), np.uint8), [Shown(f"row {n}") for n in range(clips)], along)
    assert laid_out([Section("x", reels=[reel])])["stacked"] == stacked


def test_a_wide_figure_stands_alone_and_items_are_found():
    lines = [Curve("a", pd.DataFrame({"place": [0, 1], "mean": [0.1, 0.2]}))]
    one = Panel("p", lines, "place", "number of steps", "solved", {0: "4", 1: "50"})
    parts = [Section("narrow", panels([one])), Section("wide", panels([one, one]), key=True)]
    listed = Section("items", table=pd.DataFrame({"item": [Link("a", "r"), "b"]}), reels=large()[0].reels)
    made = laid_out([*parts, listed])
    assert made["key"]["wide"] and not made["sections"][0]["wide"] and made["listed"] == made["sections"][2]["id"]
    assert laid_out(parts)["listed"] is None and made["stacked"] and not laid_out(parts[:1])["stacked"]


@pytest.mark.parametrize("shape", [(1, 9, 80, 80), (51, 81, 480, 832), (400, 3, 2000, 20), (2, 1, 8000, 8000)])
def test_sheets_are_bounded(shape):
    rows, frames, height, width = shape
    picked, scale = plan(*shape)
    assert (picked[0] == 0 and picked[-1] == frames - 1) or len(picked) == 1
    assert rows * len(picked) * height * width * scale**2 <= MOST_PIXELS * 1.01
    assert max(rows * height, len(picked) * width) * scale <= LONGEST * 1.01


# --- caveats ---------------------------------------------------------------------------------------------------------


def caveats_of(named: tuple[str, ...] = (), **columns) -> list[str]:
    result = replace(made_up_result("word"), rows=pd.DataFrame(columns or {"step": [0]}), units={})
    found = caveats(result, [finding()], named)
    return [key for key, text in CAVEATS.items() if text in found]


def test_caveats_follow_what_was_run():
    assert caveats_of() == ["correlation", "seeds", "untrained", "few"]
    assert caveats_of(dose=[1.0], status=["solved"]) == ["cause", "dose", "strict", "seeds", "untrained", "few"]
    assert caveats_of(("correlation",), donor=["a"], expert=["x"]) == ["correlation", "seeds", "untrained", "few"]
    assert "experts" in caveats_of(expert=["transformer", "transformer_2"])
    with pytest.raises(ValueError, match="unknown caveat 'other'; the caveats are cause"):
        caveats_of(("other",))


def test_the_largest_cell_is_found_among_rows_of_one_index():
    parts = [pd.DataFrame({"m": name, "y": [0, 1], "x": [3, 4], "value": [0.1, top]}) for name, top in (("a", 0.2), ("b", 0.9))]
    assert Maps(pd.concat(parts), "x", "y", "m", "share", 0, 1).words().endswith("0.90; the largest at m b, y 1, x 4")


def test_columns_of_one_name_are_refused_and_many_labels_are_thinned():
    """Two columns without a label would be one on the page, and its cells the last one's."""
    table = pd.DataFrame(np.arange(6.0).reshape(2, 3), columns=["0", "", ""])
    with pytest.raises(ValueError, match="names of their own"):
        figures.matrix_maps([("map", table)], "x", "y", "z")
    wide = pd.DataFrame(np.zeros((1, 40)), columns=[str(k) for k in range(40)])
    drawn = figures.matrix_maps([("map", wide)], "x", "y", "z")
    assert len(drawn.table) == 40 and drawn.svg.count("<!-- 39 -->") == 1 and "<!-- 1 -->" not in drawn.svg


def test_numbers_on_cells_are_read_in_every_light():
    """By the contrast of WCAG on the cell's own colour, in colours that the dark page does not turn with the paper's."""
    figure, table = drawn_on((9, 2)), pd.DataFrame([np.linspace(-1, 1, 21)])
    axis = figure.subplots()
    written_map(axis, table, np.full(table.shape, "8"), vmin=-1, vmax=1, cmap="RdBu_r")
    drawn = picture(lambda: figure).svg
    linear = lambda part: part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
    light = lambda colour: np.dot([0.2126, 0.7152, 0.0722], [linear(part) for part in matplotlib.colors.to_rgb(colour)]) + 0.05
    used = set()
    for text, value in zip(axis.texts, table.loc[0], strict=True):
        on = light(matplotlib.colormaps["RdBu_r"]((value + 1) / 2))
        written = light(text.get_color())
        assert max(on, written) / min(on, written) >= 3.8, value  # seaborn's own choice has 2.3 on some
        used.add(matplotlib.colors.to_hex(text.get_color()))
    turned = set(re.findall(r'(?:fill|stroke): (#[0-9a-f]{6})"\]', (Path(html.__file__).parent / "page.css").read_text()))
    assert len(used) == 2 and turned and not used & turned
    assert all(f"fill: {colour}" in drawn for colour in used)


def test_a_picture_is_a_file_beside_the_page():
    drawn = figures.matrix_maps([("a", pd.DataFrame([[1.0]]))], "x", "y", "z")
    made = pages.build(made_up_result("word"), "t", "q", "s", [], [Section("One", drawn)])
    assert made.media["one.svg"].count(b"<svg ") == 1


def test_a_long_text_is_cut_in_figures_and_in_what_is_read_out():
    """Its glyphs and labels would be many times its own size; the numbers behind the figure have the whole."""
    text = "y" * 20_000
    page = build(text)
    pictures = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    assert pictures and all(len(picture) < 200_000 for picture in pictures)
    said = re.findall(r'(?:alt|role="img" aria-label)="([^"]*)"', page)
    assert any("y…" in words for words in said) and all(len(words) < 40 * 450 for words in said)
    figure = figures.matrix_maps([(text, pd.DataFrame([[1.0]], columns=[text]))], "x", "y", "z")
    assert len(figure.svg) < 60_000 and text in set(figure.table.x)


def test_counts_are_whole_and_shares_are_not():
    """Where some are missing pandas has floats of both."""
    table = pd.DataFrame({
        "n": [1.0, None], "layer": [0.0, 1.0], "items": [12.0, 3.0], "share": [1.0, 0.0], "mean": [2.0, 2.5],
        "far": [2.0, np.inf],
    })  # fmt: skip
    (section,) = laid_out([Section("x", table=table)])["sections"]
    texts = [[cell["text"] for cell in row] for row in section["table"]["rows"]]
    assert texts == [["1", "0", "12", "1.00", "2.00", "2.00"], ["–", "1", "3", "0.00", "2.50", "inf"]]


def test_crosses_are_crosses():
    """A style that is a mark has no other mark over it, and no line."""
    table = pd.DataFrame({"step": [0, 1], "mean": [0.1, 0.2]})
    axis = drawn_on((3, 2)).subplots()
    figures._draw(axis, Panel("", [Curve("a", table), Curve("b", table, "x"), Curve("c", table, "--")], "step", "", ""))
    assert [line.get_marker() for line in axis.lines] == ["o", "x", "o"]
    assert [line.get_linestyle() for line in axis.lines] == ["-", "None", "--"]
