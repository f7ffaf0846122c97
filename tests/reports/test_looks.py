"""A page still looks as it did, on a phone, a desktop and paper, light and dark; and this sees a style that is gone."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from looks import CHROMIUM, LOOKS, PARTS, Look, kept, pictures, without, wrong
from made_up_page import cached
from PIL import Image
from test_browser import browser

pytest.importorskip("playwright", reason="playwright is not installed: pip install 'cos-interp[test]'")

__all__ = ["browser"]  # the fixture
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")]
BY_NAME = {look.name: look for look in LOOKS}
GONE = {
    "the dark colours": (r"@media screen and \(prefers-color-scheme: dark\) \{ :root \{[^}]*\}", "phone-dark", "answer"),
    "the dark curves": (r"figure svg \{ fill: currentColor \}.*?#262626\"\] \{[^}]*\}", "desktop-dark", "curves"),
    "white paper": (r"(?<=@media )screen and (?=\(prefers-color-scheme: dark\))", "paper", "answer"),
    "the form for a phone": (r"@media \(max-width: 900px\) \{.*?\} \}", "phone-light", "answer"),
    "the form for paper": (r"@media print \{.*\} \}(?=\n</style>)", "paper", "answer"),
    "two columns": (r"(?<=\.first \{ )display: grid;", "desktop-light", "answer"),
}  # fmt: skip


@cache
def before(look: Look, part: str) -> np.ndarray:
    return np.asarray(Image.open(kept(look, part)).convert("RGB"))


@pytest.fixture
def seen(browser, tmp_path):
    """What is wrong with each part of a page in a look."""

    def see(text: str, look: Look) -> dict[str, str | None]:
        file = tmp_path / "report.html"
        file.write_text(text, encoding="utf-8")
        return {part: wrong(picture, before(look, part)) for part, picture in pictures(browser, file, look).items()}

    return see


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)
def test_a_page_looks_as_it_did(seen, look):
    assert seen(cached("word"), look) == dict.fromkeys(PARTS)


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)
def test_another_font_is_no_other_look(seen, look):
    text = cached("word").replace("system-ui, sans-serif", "serif")
    assert text != cached("word") and seen(text, look) == dict.fromkeys(PARTS)


@pytest.mark.parametrize("name", list(GONE))
def test_a_style_that_is_gone_is_seen(seen, name):
    rule, look, part = GONE[name]
    assert seen(without(cached("word"), rule), BY_NAME[look])[part] is not None
