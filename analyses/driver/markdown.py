"""Parts of pages in Markdown."""

from __future__ import annotations


def row(*cells: str) -> str:
    """A row of a table; bars within cells stay text."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
