"""The tables of docs/performance.md, made of what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

BEGIN, END = "<!-- made by make bench: begin -->", "<!-- made by make bench: end -->"
SHORT = {
    "block outputs, plain hooks": "by plain hooks", "block outputs, plain nnsight": "by plain nnsight",
    "block outputs, norms, plain hooks": "by plain hooks", "self-attention patterns, by hand": "by hand",
}  # fmt: skip


def written(page: str, found: Mapping[str, Any]) -> str:
    """The page with its tables in the place of the old ones. ValueError for a page without the marks."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the marks {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{chr(10).join(tables(found))}\n\n{END}{tail}"


def tables(found: Mapping[str, Any]) -> Iterator[str]:
    """Markdown lines: the targets first, then reading by shape, then the rest."""
    yield from _targets({part: told["found"] for part, told in found.items()})
    if "reading" in found:
        yield from _reading(found["reading"]["found"])
    yield from _rest({part: told["found"] for part, told in found.items()})
    machines = dict.fromkeys(
        f"{m['processor']}, torch {m['torch']}, {m['date']}" for m in (told["machine"] for told in found.values())
    )
    yield from ("", f"Measured on: {'; '.join(machines)}.")


def _ratio(told: Mapping[str, float]) -> str:
    """The ratio with its quartiles; of what others are held against there are none."""
    if told["low"] == told["high"]:
        return f"{told['ratio']:.2f}"
    return f"{told['ratio']:.3f} [{told['low']:.3f}, {told['high']:.3f}]"


def _targets(found: Mapping[str, Any]) -> Iterator[str]:
    yield from ("| figure | measured | target |", "|---|---|---|")
    if "reading" in found:
        for shape, most in (("organism", "1.13"), ("12x384x320", "1.05")):
            yield f"| block outputs, {shape}, over plain | {_ratio(found['reading'][shape]['block outputs'])} | {most} |"
        norms = found["reading"]["12x384x320"]["all sites but patterns, norms"]
        yield f"| norms of all sites, 12x384x320, over plain | {_ratio(norms)} | 1.08 |"
    if "grids" in found:
        cells = found["grids"]["16 cells"]
        yield f"| 16 cells of the exact grid over a replay by hand, 1 row a forward | {_ratio(cells['this tool'])} | 1.05 |"
        yield f"| the same, 8 rows a forward | {_ratio(cells['this tool, 8 rows a forward'])} | 0.72 |"
        yield f"| `from` grid, 8 x 8, all tokens: block calls | {found['grids']['from']['block calls']:,} | 224 |"
    if "patching" in found:
        told = found["patching"]
        yield f"| default `cos analyze patching`: CPU seconds | {told['CPU seconds']:.0f} | 160 |"
        yield f"| the same: wall seconds, two processes | {told['wall seconds']:.0f} | 180 |"
    if "start" in found:
        yield f"| CPU of `cos --help` over `import typer, pydantic` | {found['start']['ratio']:.2f} | 2.0 |"


def _reading(found: Mapping[str, Any]) -> Iterator[str]:
    shapes = list(found)
    names = list(dict.fromkeys(name for shape in shapes for name in found[shape]))
    yield from ("", f"| CPU time of a generation over plain diffusers | {' | '.join(shapes)} |", f"|---|{'---|' * len(shapes)}")
    for name in names:
        cells = [f"{found[s][name]['ms']:.0f} ms" if name == "plain" else _ratio(found[s][name]) for s in shapes]
        yield f"| {SHORT.get(name, name)} | {' | '.join(cells)} |"


def _rest(found: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", "| what | over the first of its kind | |", "|---|---|---|")
    for part, kind in (("grids", "16 cells"), ("decoding", None), ("probes", None)):
        for name, told in (found.get(part, {}) if kind is None else found.get(part, {}).get(kind, {})).items():
            yield f"| {kind or part}: {name} | {_ratio(told)} | {told['ms']:.0f} ms |"
    if "grids" in found:
        apart = found["grids"]["batch of 8, largest difference"]
        yield f"| 8 rows a forward: largest difference of latents, relative | {apart:.1e} | |"
    for name, value in found.get("growth", {}).items():
        yield f"| twice as many {name} | {value:.2f} | 2 is linear |"
    if told := found.get("gradients"):
        yield (
            f"| gradient map of {told['cells']} cells of a seed pair | {told['generations']:.1f} generations | Spearman "
            f"{told['spearman']:.2f}, same sign {told['same sign']:.2f}, largest tenth found {told['largest tenth found']:.2f} |"
        )
    for name, told in found.get("memory", {}).items():
        grown = " and ".join(f"{what} {told[what] / 1e6:.2g} MB" for what in ("recorded", "replayed"))
        yield f"| peak over a plain run, budget for {name} of {told['budget'] / 1e6:.0f} MB | {grown} | 2 recordings |"
