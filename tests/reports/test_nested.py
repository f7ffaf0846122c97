"""A page as a part of another: nothing of the two meets, and no text becomes markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from made_up_page import HOSTILE, cached, made_up_points

from cos_interp.reports.nested import LEFT_OUT, nested

EVERYTHING = 10**9


class Read(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags, self.ids, self.targets = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "xlink:href") and value.startswith("#"):
                self.targets.append(value[1:])


def main_of(page: str) -> str:
    return page[page.index("<main>") + len("<main>") : page.rindex("</main>")]


def test_all_ids_and_what_leads_to_them_have_the_name():
    before, after = Read(main_of(cached("word"))), Read(str(nested(cached("word"), "x", EVERYTHING)))
    assert after.ids == [f"x-{name}" for name in before.ids] and after.targets == [f"x-{name}" for name in before.targets]
    assert len(before.ids) > 10 and set(after.targets) <= set(after.ids)
    assert not re.search(r"url\(#(?!x-)", str(nested(cached("word"), "x", EVERYTHING)))


@pytest.mark.parametrize(("page_of", "kind"), [(cached, "maps"), (made_up_points, "points")])
def test_cells_and_points_still_lead_to_their_reels(page_of, kind):
    text = str(nested(page_of("word"), "x", EVERYTHING))
    before, after = figures(page_of("word"), kind), figures(text, kind)
    assert [cells(one) for one in after] == [[[f"x-{reel}" for reel in cell] for cell in cells(one)] for one in before]
    assert [without_names(one) for one in after] == [without_names(one) for one in before]
    reels = {reel for one in after for cell in cells(one) for reel in cell}
    assert reels and reels <= set(Read(text).ids)


def figures(text: str, kind: str) -> list[dict]:
    data = [json.loads(found) for found in re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)]
    return [one for one in data if one["kind"] == kind]


def cells(figure: dict) -> list[list[str]]:
    """The reels of each cell of maps, or of each of the different lists that points have."""
    return figure["reels"] if figure["kind"] == "maps" else figure["reels"]["values"]


def without_names(figure: dict) -> dict:
    return figure | {"reels": figure["reels"]["at"] if figure["kind"] == "points" else None}


def test_headings_are_a_level_deeper_and_nothing_else_changes():
    before, after = Read(main_of(cached("word"))).tags, Read(str(nested(cached("word"), "x", EVERYTHING))).tags
    deeper = {"h2": "h3", "h3": "h4"}
    assert after == [deeper.get(tag, tag) for tag in before] and "h2" in before


def test_hostile_text_stays_text():
    drawn = ("path", "g", "use", "defs")
    plain, hostile = (Read(str(nested(cached(text), "x", EVERYTHING))).tags for text in ("word", HOSTILE))
    assert [tag for tag in hostile if tag not in drawn] == [tag for tag in plain if tag not in drawn]


def test_the_largest_clips_are_left_out_first():
    page = f'<main><video src="data:a,{"1" * 500}" x></video><p>kept</p><img src="data:b,1" alt=""></main>'
    assert str(nested(page, "x", 200)) == f'{LEFT_OUT}<p>kept</p><img src="data:b,1" alt="">'
    assert str(nested(page, "x", len(page))) == main_of(page)
    small = str(nested(cached("word"), "x", 1000))
    assert small.count(LEFT_OUT) == 3 and "image/webp" in cached("word") and "image/webp" not in small  # three reels
    assert nested('<main><a href="media/a.mp4">a</a></main>', "x", 99) == '<a href="x/media/a.mp4">a</a>'
