"""One self-contained HTML file: everything inline, everything escaped, no network."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


def number(value: float | None, digits: int = 2) -> str:
    """A number for people; a dash where there is none."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def drawing(svg: str) -> Markup:
    """SVG made by this package's own figures (their text is escaped by matplotlib) as inline markup."""
    return Markup(svg)


def render(template: str, **values: Any) -> str:
    """Fill a template. A name that the template needs and does not get is an error."""
    env = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters["number"] = number
    return env.get_template(template).render(**values)
