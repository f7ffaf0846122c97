"""The picture of the rooms, which GitHub draws by itself, as SVG: boxes in layers, an arrow for each import."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from docutils import nodes
from sphinx.application import Sphinx

WIDTH, HEIGHT, GAP, DROP = 250, 44, 40, 50
NODE = re.compile(r'(\w+)(?:\["(.*?)"\])?')
Arrow = tuple[str, str]


def read(text: str) -> tuple[dict[str, str], list[Arrow]]:
    """Names with what is written in their boxes, and arrows.

    >>> read('graph TD\\n  a["a: one"] --> b\\n  b --> c')
    ({'a': 'a: one', 'b': 'b', 'c': 'c'}, [('a', 'b'), ('b', 'c')])
    """
    names: dict[str, str] = {}
    arrows = []
    for line in text.splitlines():
        if "-->" not in line:
            continue
        ends = [NODE.fullmatch(part.strip()) for part in line.split("-->")]
        for end in ends:
            assert end, line
            names[end[1]] = end[2] or names.get(end[1], end[1])
        arrows.append((ends[0][1], ends[1][1]))  # type: ignore[index]
    return names, arrows


def layers(names: Sequence[str], arrows: Sequence[Arrow]) -> dict[str, int]:
    """How many arrows the longest way to a name has.

    >>> layers("abc", [("a", "b"), ("b", "c"), ("a", "c")])
    {'a': 0, 'b': 1, 'c': 2}
    """
    depth = dict.fromkeys(names, 0)
    for _ in names:
        for a, b in arrows:
            depth[b] = max(depth[b], depth[a] + 1)
    return depth


def svg(text: str) -> str:
    """The picture. Names of one layer stand beside each other; arrows leave below and arrive above, spread over the box."""
    names, arrows = read(text)
    depth = layers(list(names), arrows)
    rows = [[name for name in names if depth[name] == level] for level in range(max(depth.values()) + 1)]
    wide = max(map(len, rows)) * (WIDTH + GAP)
    left = {name: (wide - len(row) * (WIDTH + GAP) + GAP) / 2 + i * (WIDTH + GAP) for row in rows for i, name in enumerate(row)}
    top = {name: depth[name] * (HEIGHT + DROP) + 4 for name in names}
    made = [_arrow(a, b, arrows, left, top) for a, b in arrows]
    for name, said in names.items():
        x, y = left[name], top[name]
        made.append(
            f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="5" fill="var(--color-background-secondary)"/>'
        )
        made.append(f'<text x="{x + WIDTH / 2:g}" y="{y + HEIGHT / 2 + 4:g}" stroke="none">{escape(said)}</text>')
    words = escape("; ".join(f"{a} imports {b}" for a, b in arrows), quote=True)
    head = '<marker id="to" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto"><path d="M1 1 7 4 1 7"/></marker>'
    return (
        f'<svg class="rooms" role="img" aria-label="{words}" viewBox="0 0 {wide} {max(top.values()) + HEIGHT + 4:g}" fill="none" '
        f'stroke="currentColor" font-size="13" text-anchor="middle"><defs>{head}</defs>'
        + "".join(made).replace("<text", '<text fill="currentColor"') + "</svg>"
    )  # fmt: skip


def _arrow(a: str, b: str, arrows: Sequence[Arrow], left: dict[str, float], top: dict[str, float]) -> str:
    out, into = [y for x, y in arrows if x == a], [x for x, y in arrows if y == b]
    out, into = sorted(out, key=left.__getitem__), sorted(into, key=left.__getitem__)
    x1, x2 = (left[n] + WIDTH * (side.index(o) + 1) / (len(side) + 1) for n, side, o in ((a, out, b), (b, into, a)))
    y1, y2 = top[a] + HEIGHT, top[b] - 1
    return (
        f'<path d="M{x1:g} {y1:g} C{x1:g} {y1 + DROP:g} {x2:g} {y2 - DROP:g} {x2:g} {y2:g}" opacity=".6" marker-end="url(#to)"/>'
    )


def draw(app: Sphinx, tree: nodes.document) -> None:
    for block in list(tree.findall(nodes.literal_block)):
        if block.get("language") == "mermaid":
            block.replace_self(nodes.raw("", svg(block.astext()), format="html"))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
