"""A page within a notebook: in a frame of its own, from which its script reaches nothing of the notebook."""

from __future__ import annotations

from html import escape

MOST = 3_000_000  # bytes of a page; a notebook keeps what it shows
STYLE = "width: 100%; height: 640px; border: 1px solid #8888; resize: vertical"


def framed(page: str, name: str) -> str:
    """HTML that shows a page where it stands. ``name``: what the frame is called by screen readers.

    The frame is sandboxed with an origin of its own: the page's script runs, under the policy that the page itself brings, and
    can read neither the notebook nor its cookies, store nothing, and open or send nothing. Where a viewer lets no script run,
    the page shows its static twins.
    """
    return f'<iframe sandbox="allow-scripts" title="{escape(name)}" srcdoc="{escape(page)}" style="{STYLE}"></iframe>'
