"""What docs/architecture.md says of the rooms holds: the arrows of its picture, no circles, no experiment imports another."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("analyses", "interp", "organism", "probes", "reports", "tasks")
FILES = {path: ROOT / path for room in ROOMS for path in (str(p.relative_to(ROOT)) for p in (ROOT / room).rglob("*.py"))}


def module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module(path): file for path, file in FILES.items()} | {"cli": ROOT / "cli.py"}


def targets(node: ast.AST) -> set[str]:
    """The modules of the project that an import statement or a string like ``room.module:name`` names, without the package."""
    if isinstance(node, ast.Constant) and re.fullmatch(r"[\w.]+:\w+", str(node.value)):
        return {str(node.value).partition(":")[0]} & set(MODULES)
    if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("cos_interp"):
        return set()
    base = node.module.removeprefix("cos_interp").lstrip(".")
    deeper = {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
    return {name if name in MODULES else base for name in deeper} - {""}


def imports(name: str) -> set[str]:
    """What a module imports, also inside functions and for type checkers."""
    return {target for node in ast.walk(ast.parse(MODULES[name].read_text())) for target in targets(node)} - {name}


def test_the_picture_has_the_arrows_of_the_imports():
    page = (ROOT / "docs" / "architecture.md").read_text()
    drawn = set(re.findall(r"^  (\w+)(?:\[.*?\])? --> (\w+)", page, re.M))
    found = {(name.split(".")[0], target.split(".")[0]) for name in MODULES for target in imports(name)}
    assert {(a, b) for a, b in found if a != b} == drawn
    TopologicalSorter({a: {b for x, b in drawn if x == a} for a, _ in drawn}).prepare()


@pytest.mark.parametrize("room", ROOMS)
def test_no_circle(room):
    """Faces aside, which import on first use; imports inside functions and for type checkers count."""
    inside = {name: imports(name) for name in MODULES if name.split(".")[0] == room}
    packages = {name for name in inside if MODULES[name].name == "__init__.py"}
    TopologicalSorter({name: found - packages for name, found in inside.items() if name not in packages}).prepare()


def test_inside_analyses_imports_point_to_the_kit_and_the_driver():
    floors = {"driver": 0, "kit": 1}
    for name in MODULES:
        parts = name.split(".")
        if parts[0] != "analyses" or len(parts) == 1 or name in ("analyses.commands", "analyses.before"):
            continue
        for target in imports(name):
            other = target.split(".")
            if other[0] == "analyses" and len(other) > 1 and other[1] != parts[1]:
                assert floors.get(other[1], 9) < floors.get(parts[1], 2), f"{name} imports {target}"


def test_analyses_holds_folders_and_few_files():
    assert len(list((ROOT / "analyses").glob("*.py"))) <= 5


def test_every_import_is_by_the_one_name():
    for name, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            plain = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found = [node.module or ""] if isinstance(node, ast.ImportFrom) else plain
            assert not {f.split(".")[0] for f in found} & {*ROOMS, "cli"}, f"{name} imports {found}"
