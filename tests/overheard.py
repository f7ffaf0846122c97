"""Listening to a page in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page


def overheard(page: Page, heard: list[str]) -> Page:
    """The page, of which everything is written down that it says, or asks of anything but itself."""
    page.set_default_timeout(120_000)
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("dialog", lambda dialog: (heard.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda r: None if r.url.startswith(("data:", "file:")) else heard.append(r.url))
    return page
