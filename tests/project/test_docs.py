"""The pages hold together: links lead somewhere, Python is executed or said not to be, commands and options exist, and every
experiment and every rule has its place."""

from __future__ import annotations

import ast
import doctest
import re
import shlex
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import typer.main
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.core import TyperGroup

from cos_interp import cli
from cos_interp.analyses.driver.registry import entries
from cos_interp.analyses.driver.rules import rules

ROOT = Path(__file__).resolve().parents[2]
EXTRA = re.compile(r"cos-interp\[(\w+)\]")
CARDS = (ROOT / "organism").glob("**/README.md")
PAGES = sorted(p for p in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *CARDS) if "_build" not in p.parts)
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
FENCED = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")

# Python on pages: which test executes it, in the order of the page
EXECUTED = {
    "README.md": "test_pages", "docs/instrument.md": "test_pages", "docs/patching-from-python.md": "test_pages",
    "docs/quick-start.md": "test_pages", "docs/experiments.md": "test_pages", "docs/probes.md": "test_pages",
    "docs/adding-a-task.md": "test_pages", "docs/adding-an-experiment.md": "test_pages",
    "docs/adding-a-family.md": "test_own_family", "docs/own-videos.md": "test_own_videos_page",
    "docs/activations.md": "test_activations_page", "docs/experiments/acceleration.md": "test_acceleration",
}  # fmt: skip
NOT_EXECUTED = {"docs/loading.md": "a list of names to load, of which most would have to be downloaded"}


def prose(text: str) -> str:
    """A page without its blocks of code, in which brackets mean other things."""
    return FENCED.sub("", text)


def anchors(text: str) -> set[str]:
    """What headings are called in links, as GitHub and MyST do."""
    heads = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def test_extras_that_somebody_is_told_to_install_are_there():
    """By pages, and by errors."""
    code = [
        path for room in ("analyses", "interp", "probes", "tasks", "reports", "organism") for path in (ROOT / room).rglob("*.py")
    ]
    told = {name for path in (*PAGES, *code) for name in EXTRA.findall(path.read_text())}
    there = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"cluster", "ray", "vbvr"} <= told <= set(there)
    assert not any("@" in line or "://" in line for lines in there.values() for line in lines)  # an index takes no addresses
    assert any(line.startswith("opencv") and line.endswith("<5") for line in there["vbvr"])  # what its scorers work with


def test_every_extra_can_be_installed_at_the_versions_that_the_tests_ran_with():
    """constraints.txt holds no version that an extra refuses: pip would install nothing of it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [
        Requirement(line) for lines in (project["dependencies"], *project["optional-dependencies"].values()) for line in lines
    ]
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    held = {canonicalize_name(name): version for name, version in (line.split("==") for line in pins)}
    known = [one for one in asked if canonicalize_name(one.name) in held]
    assert len(known) > 20 and all(held[canonicalize_name(one.name)] in one.specifier for one in known)


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_files_and_headings_that_are_there(name):
    page = ROOT / name
    for link in LINK.findall(prose(page.read_text())):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{name}: {link}"
        if anchor:
            assert anchor in anchors(target.read_text()), f"{name}: {link}"


def test_python_of_every_page_is_executed_or_said_not_to_be():
    found = {name for name, page in zip(NAMES, PAGES, strict=True) if "```python\n" in page.read_text()}
    assert found == {*EXECUTED, *NOT_EXECUTED} and not set(EXECUTED) & set(NOT_EXECUTED)
    tests = {path.stem: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    for name, test in EXECUTED.items():
        assert Path(name).name in tests[test], f"{name} is not in {test}"


@pytest.mark.parametrize("name", NOT_EXECUTED)
def test_python_that_is_not_executed_names_what_there_is(name):
    blocks = [text for language, text in FENCED.findall((ROOT / name).read_text()) if language == "python"]
    for node in ast.walk(ast.parse("\n".join(blocks))):
        if isinstance(node, ast.ImportFrom):
            assert all(hasattr(import_module(str(node.module)), alias.name) for alias in node.names)


def command_lines(text: str) -> list[str]:
    """What a page says to type: lines of blocks, and code within lines, that begin with ``cos``."""
    blocks = [block.replace("\\\n", " ") for language, block in FENCED.findall(text) if language != "python"]
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    lines += [" ".join(code.split()) for code in re.findall(r"`(cos [^`]*)`", prose(text))]
    return [re.split(r" \| | # |; ", line)[0].rstrip(" .") for line in lines if line.startswith("cos ")]


def refused(line: str) -> str | None:
    """What the command line would not know of a line; capitals and dots stand for something else."""
    command, words = typer.main.get_command(cli.app), shlex.split(line)[1:]
    while isinstance(command, TyperGroup) and words:
        name = words.pop(0)
        if name.isupper() or name in ("...", "--help"):
            return None
        command = command.get_command(None, name)
        if command is None:
            return f"no command {name}"
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    return next((f"no option {word}" for word in words if word.startswith("--") and word.split("=")[0] not in known), None)


@pytest.mark.parametrize("name", [name for name in NAMES if command_lines((ROOT / name).read_text())])
def test_commands_on_pages_are_there_with_their_options(name):
    lines = [line for line in command_lines((ROOT / name).read_text()) if "analyze settling" not in line]  # made by that page
    found = {line: reason for line in lines if (reason := refused(line))}
    if name == "CHANGELOG.md":  # tells of what was there before, too
        found = {}
    assert not found


def test_a_command_that_is_not_there_is_refused():
    assert refused("cos analyze nois") == "no command nois" and refused("cos runs list --jsn") == "no option --jsn"
    assert refused("cos analyze NAME") is None and refused("cos runs list --json") is None


@pytest.mark.parametrize("name", entries())
def test_every_experiment_has_a_page(name):
    text = (ROOT / "docs/experiments" / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    for part in ("\n## In one equation\n\n$$\n", "\n## Caveats\n\n- "):
        assert text.count(part) == 1, f"docs/experiments/{name}.md has no {part.strip()}"
    assert f"](experiments/{name}.md)" in (ROOT / "docs/experiments.md").read_text()


def test_every_rule_is_on_the_page_of_one_experiment(monkeypatch):
    pytest.importorskip("sphinx", reason="pip install '.[docs]'")
    monkeypatch.setattr(sys, "path", [str(ROOT / "docs/site"), *sys.path])
    site = import_module("site_experiments")
    assert doctest.testmod(import_module("site_architecture")) == (0, 2)
    homes = {key: [name for name, entry in entries().items() if key in site.claims_of(entry)] for key in rules()}
    assert all(len(names) == 1 for names in homes.values()), homes
    for name, entry in entries().items():
        made = site.page(entry, f"# {name}\n\nwritten\n")
        assert made.startswith(f"# {name}\n\n> **Question.** ") and "\n\nwritten\n\n## Claims" in made
        for key, rule in site.claims_of(entry).items():
            assert f"**{rule.claim}** (`{key}`" in made and f"interest:* {rule.smallest:g}" in made and rule.control in made
        assert all(f"\n{line}\n" in made for line in entry.examples)
