"""A page as a part of another: nothing of the two meets, and no text becomes markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

from made_up_page import HOSTILE, cached

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


def test_cells_still_lead_to_their_reels():
    text = str(nested(cached("word"), "x", EVERYTHING))
    data = [json.loads(found) for found in re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)]
    reels = {reel for one in data if one["kind"] == "maps" for cell in one["reels"] for reel in cell}
    assert reels and reels <= set(Read(text).ids)


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
