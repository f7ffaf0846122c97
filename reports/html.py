"""One self-contained HTML file: everything inline, everything escaped, no network."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

HERE = Path(__file__).parent
TEMPLATES = HERE / "templates"
UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}  # what could end a script element, or a line of it


def number(value: float | None, digits: int = 2) -> str:
    """A number for people; a dash where there is none."""
    return "–" if value is None or value != value else f"{value:z.{digits}f}"


def worded(value: Any) -> str:
    """A value as a page says it, in a table and beside a figure.

    >>> worded(None), worded(3), worded(0.5), worded(-0.0012), worded("maze")
    ('–', '3', '0.50', '-0.0012', 'maze')
    """
    value = value.item() if hasattr(value, "item") else value
    if value is None or value is pd.NA or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:#.2g}" if 0 < abs(value) < 0.01 else number(value)
    return str(value)


def data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def drawing(svg: str) -> Markup:
    """SVG made by this package's own figures (their text is escaped by matplotlib) as inline markup."""
    return Markup(svg)


def embedded(data: Any) -> Markup:
    """Data as JSON for a script element, from which no text can break out."""
    return Markup(json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(UNSAFE))


@cache
def _inline(name: str) -> str:
    """The page's own script or style."""
    return (HERE / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """What a Content-Security-Policy calls a script that may run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def render(template: str, **values: Any) -> str:
    """Fill a template. A name that the template needs and does not get is an error."""
    env = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters["number"] = number
    script = _inline("page.js")
    parts = {"script": Markup(script), "script_hash": _hash(script), "style": Markup(_inline("page.css"))}
    return env.get_template(template).render(**parts, **values)
