"""Pages of experiments: what the code says of each (question, rules, settings, commands) around what its page says in words.

It is made when the site is built, from the registry, the settings and ``analyses/rules.toml``, so that it cannot go stale.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from sphinx.application import Sphinx

from cos_interp.analyses.driver.answer import split_question
from cos_interp.analyses.driver.caveats import CAVEATS
from cos_interp.analyses.driver.command import as_text, flag
from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.registry import entries
from cos_interp.analyses.driver.rules import Rule, rules
from cos_interp.analyses.driver.settings import AnalysisConfig

FOLDER = "experiments"
DOCS = Path(__file__).resolve().parent.parent


def asked(entry: Entry) -> Iterator[str]:
    """The question, as the experiment's own page asks it, and what is done to answer it."""
    question, method = split_question(getattr(import_module(f"{entry.folder}.report"), "QUESTION", entry.about))
    yield f"> **Question.** {question or entry.about}"
    yield method


def claims_of(entry: Entry) -> dict[str, Rule]:
    """The rules of an experiment: their group has its name, or its folder's."""
    groups = {entry.name, entry.folder.rpartition(".")[2].replace("_", "-")}
    return {key: rule for key, rule in rules().items() if key.partition(".")[0] in groups}


def claims(entry: Entry) -> Iterator[str]:
    """Each claim with its number, smallest effect of interest and control, those with a verdict first."""
    yield "## Claims and their rules"
    yield "A claim is reproduced where the interval of its number lies above the smallest effect ([verdicts](../verdicts.md))."
    for key, rule in sorted(claims_of(entry).items(), key=lambda named: not named[1].primary):
        against = f"{rule.control}; not subtracted: {rule.alone}" if rule.alone else rule.control
        yield "\n".join([
            f"**{rule.claim}** (`{key}`{'' if rule.primary else ', a variant without a verdict'})\n",
            f"- *Number:* {rule.number}",
            f"- *Smallest effect of interest:* {rule.smallest:g}",
            f"- *Control:* {against}",
            f"- *Written* {rule.dated}{f', *changed* {rule.changed}' if rule.changed else ''}, *having seen* {rule.seen}",
        ])  # fmt: skip


def figure(entry: Entry) -> Iterator[str]:
    """What a real run drew, where the pages have it: ``make findings`` writes one for each experiment."""
    if (DOCS / "media" / f"{entry.name}.svg").exists():
        yield "## What a run shows"
        yield f"![{entry.about}](../media/{entry.name}.svg)"
        yield "A run on the shipped model; the verdicts are on [findings](../findings.md)."


def settings(entry: Entry) -> Iterator[str]:
    """The settings that are its own, or whose default is."""
    common = AnalysisConfig.model_fields
    own = {n: f for n, f in entry.config.model_fields.items() if n not in common or f.default != common[n].default}
    rows = [f"| `{flag(n)}` | {_default(f.default)} | {_cell(f.description or '')} |" for n, f in own.items()]
    yield "## Settings"
    yield "\n".join(["| option | default | what |", "|---|---|---|", *rows])
    yield "And those of every run: model, device, type, steps, guidance, twins ([loading](../loading.md))."


def commands(entry: Entry) -> Iterator[str]:
    yield "## Commands"
    yield "\n".join(["```sh", *entry.examples, "```"])


def page(entry: Entry, written: str) -> str:
    """A page of the site: the title, the question, what was written, and what the code says."""
    title, _, text = written.partition("\n")
    made = [*claims(entry), *figure(entry), *settings(entry), *commands(entry)]
    return "\n\n".join([title, *filter(None, asked(entry)), text.strip(), *made]) + "\n"


def listed() -> str:
    """The pages of all experiments, in the order of the registry."""
    return "\n".join(["", "```{toctree}", ":hidden:", *(f"{FOLDER}/{name}" for name in entries()), "```", ""])


def caveats() -> str:
    """The fixed list from which every page of a run takes its caveats."""
    return "\n".join(["", *(f"- {text}" for text in CAVEATS.values()), ""])


def _default(value: object) -> str:
    return "" if value in (None, ()) else f"`{as_text(value)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("{", "\\{")


def fill(app: Sphinx, name: str, source: list[str]) -> None:
    """Sphinx's ``source-read``: Markdown before it is parsed."""
    folder, _, last = name.rpartition("/")
    if folder == FOLDER and last in entries():
        source[0] = page(entries()[last], source[0])
    elif name == FOLDER:
        source[0] += listed()
    elif name == "caveats":
        source[0] += caveats()


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
