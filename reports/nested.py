"""One page as a part of another: its content, with ids, links and headings that do not meet those of the rest."""

from __future__ import annotations

import json
import re
from typing import Any

from markupsafe import Markup

from cos_interp.reports.html import embedded

# in this order: data of figures, comments, tags. Text is escaped where pages are made, so that no tag stands in it
PARTS = re.compile(r'<script type="application/json">(?P<data>.*?)</script>|<!--.*?-->|(?P<tag></?[a-zA-Z][^>]*>)', re.DOTALL)
IDS = re.compile(r'(?<=\s)(id|aria-labelledby)="([^"]*)"')
TO_HERE = re.compile(r'(?<=\s)((?:xlink:)?href)="#([^"]*)"')
TO_MEDIA = re.compile(r'(?<=\s)href="media/')
URL = re.compile(r"url\(#")
HEADING = re.compile(r"^(</?h)([1-5])\b")
REEL = r'<details class="all"(?: open)?>.*?</details>\s*<template>.*?</template>\s*<script type="application/json">.*?</script>'
CLIP = re.compile(rf'<video src="data:[^"]*"[^>]*></video>|<img src="data:[^"]*"[^>]*>|{REEL}', re.DOTALL)
LEFT_OUT = "<p>Too large for this file: it is on the page of its own.</p>"


def nested(page: str, name: str, most: int) -> Markup:
    """What stands in a page's ``main``, as a part named ``name`` (letters, digits, dashes) of another page that lies in the
    folder above. Headings are one level deeper. Beyond ``most`` characters clips and reels are left out, the largest first."""
    main = page[page.index("<main>") + len("<main>") : page.rindex("</main>")]
    return Markup(PARTS.sub(lambda part: _part(part, name), _within(main, most)))


def _within(text: str, most: int) -> str:
    clips = sorted(CLIP.findall(text), key=len, reverse=True)
    for clip in clips:
        if len(text) <= most:
            break
        text = text.replace(clip, LEFT_OUT, 1)
    return text


def _part(found: re.Match[str], name: str) -> str:
    if found["data"] is not None:
        return f'<script type="application/json">{embedded(_renamed(json.loads(found["data"]), name))}</script>'
    return "" if found["tag"] is None else _tag(found["tag"], name)


def _renamed(data: dict[str, Any], name: str) -> dict[str, Any]:
    """Data of a figure, whose cells lead to reels by their ids; of points only the different cells are listed."""
    if "reels" not in data:
        return data
    reels = data["reels"]
    return {**data, "reels": {**reels, "values": _led(reels["values"], name)} if isinstance(reels, dict) else _led(reels, name)}


def _led(cells: list[list[str]], name: str) -> list[list[str]]:
    return [[f"{name}-{reel}" for reel in cell] for cell in cells]


def _tag(tag: str, name: str) -> str:
    tag = IDS.sub(rf'\1="{name}-\2"', tag)
    tag = TO_HERE.sub(rf'\1="#{name}-\2"', tag)
    tag = TO_MEDIA.sub(f'href="{name}/media/', tag)
    tag = URL.sub(f"url(#{name}-", tag)
    return HEADING.sub(lambda found: f"{found[1]}{int(found[2]) + 1}", tag)
