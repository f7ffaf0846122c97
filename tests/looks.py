"""What a page looks like: small pictures of its parts, by screen and paper, light and dark, held against pictures that are kept.

Drawn again with ``python tests/looks.py`` (``make looks``) after a change of the style that was looked at and is meant.
"""

from __future__ import annotations

import io
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

KEPT = Path(__file__).parent / "reports" / "looks"
CHROMIUM = shutil.which("chromium")
WIDE = 160  # pixels of a kept picture
COLUMNS = 16  # squares across in which pictures are compared: a line of text is less than one of them
MOST_APART, LEAST_ALIKE, MOST_TALLER = 14, 0.7, 0.15
PARTS = {"answer": "#answer", "curves": "#evidence figure.drawn:has(input[type=range])"}


@dataclass(frozen=True)
class Look:
    """A window of some size, and what the reader asked for. Paper is always white, the screen's colours be what they may."""

    name: str
    width: int
    height: int
    scheme: str
    printed: bool = False

    def open(self, browser: Browser, file: Path) -> Page:
        """A page as it looks so, once its pictures are there."""
        window = {"width": self.width, "height": self.height}
        page = browser.new_context(viewport=window, color_scheme=self.scheme, reduced_motion="reduce").new_page()
        page.goto(file.as_uri(), timeout=120_000)
        if self.printed:
            page.emulate_media(media="print")
        page.evaluate("Promise.all(Array.from(document.images, image => image.decode()))")
        return page


LOOKS = (
    *(Look(f"phone-{scheme}", 390, 844, scheme) for scheme in ("light", "dark")),
    *(Look(f"desktop-{scheme}", 1280, 900, scheme) for scheme in ("light", "dark")),
    Look("paper", 794, 1123, "dark", printed=True),  # A4 at 96 pixels an inch
)


def pictures(browser: Browser, file: Path, look: Look) -> dict[str, np.ndarray]:
    """The parts of a page, ``[height, width, 3]``, uint8."""
    page = look.open(browser, file)
    shots = {name: page.locator(where).first.screenshot() for name, where in PARTS.items()}
    page.context.close()
    return {name: np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")) for name, shot in shots.items()}


def kept(look: Look, part: str) -> Path:
    return KEPT / f"{look.name}-{part}.webp"


def keep(picture: np.ndarray, file: Path) -> None:
    """A picture, small enough to be kept: a few KB, in which a person still sees what it shows."""
    height = round(WIDE * picture.shape[0] / picture.shape[1])
    Image.fromarray(picture).resize((WIDE, height), Image.Resampling.BOX).save(file, "webp", quality=80, method=6)


def squares(picture: np.ndarray, rows: int) -> np.ndarray:
    """Mean colour ``[row, column, 3]`` of equal rectangles, in which the shapes of letters are gone."""
    return np.asarray(Image.fromarray(picture).resize((COLUMNS, rows), Image.Resampling.BOX), float)


def wrong(seen: np.ndarray, before: np.ndarray) -> str | None:
    """In what a picture differs from the one that was kept; None where both show the same in the same colours.

    Of squares of a sixteenth of the width: the mean difference of their colours, of 255, and the correlation of their brightness,
    which says whether things are where they were. Other letters change both a little, a style that is gone at least one a lot.
    """
    (tall, wide), (tall_before, wide_before) = seen.shape[:2], before.shape[:2]
    taller = (tall / wide) / (tall_before / wide_before) - 1
    if abs(taller) > MOST_TALLER:
        return f"{abs(taller):.0%} {'taller' if taller > 0 else 'less tall'} than before"
    rows = max(4, round(COLUMNS * tall_before / wide_before))
    new, old = squares(seen, rows), squares(before, rows)
    apart = float(np.abs(new - old).mean())
    alike = float(np.corrcoef(new.mean(-1).ravel(), old.mean(-1).ravel())[0, 1])
    if apart > MOST_APART or alike < LEAST_ALIKE:
        return (
            f"colours {apart:.1f} of 255 apart (at most {MOST_APART}), brightness correlated {alike:.2f} (at least {LEAST_ALIKE})"
        )
    return None


def without(page: str, rule: str) -> str:
    """The text of a page without what a pattern finds in its style."""
    out, count = re.subn(rule, "", page, count=1, flags=re.DOTALL)
    assert count == 1, f"the style has nothing like {rule}"
    return out


def main() -> None:
    from made_up_page import cached
    from playwright.sync_api import sync_playwright

    KEPT.mkdir(exist_ok=True)
    page = KEPT / "page.html"
    page.write_text(cached("word"), encoding="utf-8")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for look in LOOKS:
            for part, picture in pictures(browser, page, look).items():
                keep(picture, kept(look, part))
                print(kept(look, part), kept(look, part).stat().st_size, "bytes")
        browser.close()
    page.unlink()


if __name__ == "__main__":
    main()
