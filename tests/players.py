"""The players of a page, as its script gets them, and what a verifier says of the clips that they show."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.problems import Problem, judge

SAID, DATA = r'<ol class="said">(.*?)</ol>', r'<script type="application/json">(.*?)</script>'
REEL = re.compile(rf'<figure class="reel".*?{SAID}.*?{DATA}', re.DOTALL)
TABLE = re.compile(r'<table class="rows">(.*?)</table>', re.DOTALL)


def players(html: str) -> dict[str, dict[str, Any]]:
    """By name; ``told``: what the page says of each clip."""
    found = []
    for said, text in REEL.findall(html):
        one = json.loads(text)
        for row, lines in zip(one["rows"], said.split("</li>"), strict=False):
            told = [unescape(line) for line in re.findall(r"<span>([^<]+)</span>", lines)]
            row["told"] = dict(line.split(": ", 1) for line in told)
        found.append(one)
    return {one["name"]: one for one in found}


def item_table(html: str) -> list[dict[str, str]]:
    """The rows of the first table of a page that leads to clips, by the heads of its columns; ``opens``: where to."""
    for text in TABLE.findall(html):
        if 'href="#reel' in text:
            cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in text.split("</tr>")]
            heads, *rows = [[re.sub(r"<[^>]*>", "", unescape(cell)) for cell in row] for row in cells if row]
            opens = ["".join(re.findall(r'href="#(reel[^"]*)"', row[0])) for row in cells[1:] if row]
            return [dict(zip(heads, row, strict=True), opens=to) for row, to in zip(rows, opens, strict=True)]
    return []


def read_in(folder: Path, problem: Problem) -> list[str]:
    """The verifier's words on each clip that a unit kept, judged again."""
    verdicts = [judge(problem, clip) for clip in RunStore(folder).tensors(problem.name)["frames"].numpy()]
    return [v.status if v.solved or not v.error else f"{v.status} ({v.error})" for v in verdicts if v is not None]
