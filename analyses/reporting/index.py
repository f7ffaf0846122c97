"""All runs below a folder on a page: what each is, and the verdict on each claim. A damaged run is listed, and hides no other."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

from cos_interp.analyses.driver import manifest
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.findings import VERDICT_STYLE, Finding, Verdict
from cos_interp.analyses.driver.identity import shown_name
from cos_interp.analyses.driver.loaded import findings_in
from cos_interp.analyses.driver.store import RunStore
from cos_interp.reports.html import render

COMPLETE, DAMAGED = "complete", "damaged"


@dataclass(frozen=True)
class Indexed:
    """A run folder. ``state``: that of its ``run.json``, or damaged; ``why``: what is wrong with it."""

    folder: Path
    facts: Mapping[str, Any]
    state: str
    why: str = ""
    findings: tuple[Finding, ...] = ()

    @property
    def experiment(self) -> str:
        return str(self.facts.get("analysis", "not known"))

    @property
    def model(self) -> str:
        """Name and weights, without what is of one machine."""
        model = _mapping(self.facts.get("model"))
        weights = str(model.get("digest") or "")[:8]
        return f"{shown_name(model.get('name', 'not known'))}{f', weights {weights}' if weights else ''}"


def index(folder: Path, out: Path, verify: bool = False) -> tuple[str, list[dict[str, Any]]]:
    """The page, and its runs as plain data. The same folder gives the same bytes. RunError for what is no folder.

    ``out``: where the page will lie, to which its links are relative. ``verify``: read every file of every run.
    """
    if not folder.is_dir():
        raise RunError(f"{folder} is no folder: give one that holds run folders")
    runs = [read(path, verify) for path in run_folders(folder)]
    html = render(
        "index.html", title=f"Runs below {shown(Path(folder.resolve().name))}", summary=summary(runs), verdicts=VERDICT_STYLE,
        runs=[_row(run, folder, out) for run in runs], claims=[c for run in runs for c in _claims(run, folder, out)],
        matrix=matrix(runs),
    )  # fmt: skip
    return html, [_data(run, folder) for run in runs]


def run_folders(folder: Path) -> Iterator[Path]:
    """The folders of runs, in order; those of a dossier's experiments too, twins not. No link is followed."""
    for here, folders, files in os.walk(folder):
        at, inside = Path(here), {manifest.UNITS, manifest.MEDIA}
        if manifest.RUN in files:
            yield at
            inside |= {name for name in folders if name.startswith("twin-")}
        folders[:] = sorted(set(folders) - (inside if manifest.RUN in files else set()))


def read(folder: Path, verify: bool = False) -> Indexed:
    """What a run folder says; whatever is wrong with it becomes its state."""
    facts: Mapping[str, Any] = {}
    try:
        store = RunStore(folder)
        facts = store.facts() or {}
        state = str(facts.get("status", "not known"))
        if state != COMPLETE:
            return Indexed(folder, facts, state, str(facts.get("error", "continue it with the same command")))
        found = findings_in(store)
        problems = store.verify() if verify else []
    except (RunError, OSError, ValueError) as error:
        return Indexed(folder, facts, DAMAGED, str(error))
    return Indexed(folder, facts, DAMAGED if problems else COMPLETE, "; ".join(problems), found)


def summary(runs: Sequence[Indexed]) -> str:
    """All of it in a sentence."""
    whole = [run for run in runs if run.state == COMPLETE]
    count = Counter(finding.verdict for run in whole for finding in run.findings if finding.primary)
    damaged, others = (sum(run.state == DAMAGED for run in runs), sum(run.state not in (COMPLETE, DAMAGED) for run in runs))
    said = ", ".join(f"{count[verdict]} {verdict}" for verdict in get_args(Verdict))
    return (
        f"{_many(whole, 'finished run')} of {_many({run.experiment for run in whole}, 'experiment')} with "
        f"{_many({run.model for run in whole}, 'model')}: {said}. {others} unfinished, {damaged} damaged."
    )


def _many(things: Collection[object], name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


def matrix(runs: Sequence[Indexed]) -> dict[str, Any]:
    """The verdicts on each claim by model; where a model has several runs of it, how many have which."""
    held: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        for finding in run.findings if run.state == COMPLETE else ():
            if finding.primary:
                held.setdefault(finding.claim, {}).setdefault(run.model, []).append(finding.verdict)
    models = sorted({model for claim in held.values() for model in claim})
    rows = [{"claim": claim, "cells": [_counted(by.get(model, [])) for model in models]} for claim, by in held.items()]
    return {"models": models, "rows": rows}


def _counted(verdicts: Sequence[str]) -> list[tuple[str, int]]:
    return [(verdict, verdicts.count(verdict)) for verdict in get_args(Verdict) if verdict in verdicts]


def _row(run: Indexed, folder: Path, out: Path) -> dict[str, Any]:
    config = _mapping(run.facts.get("config"))
    count = Counter(finding.verdict for finding in run.findings if finding.primary)
    name = shown(run.folder.relative_to(folder))
    return {
        "name": name, "link": _link(run, out), "experiment": run.experiment, "model": run.model,
        "items": config.get("items") or config.get("pairs") or "–", "steps": config.get("num_inference_steps", "–"),
        "guidance": config.get("guidance_scale", "–"), "seed": config.get("seed", "–"), "state": run.state,
        "why": run.why.replace(str(run.folder), name),
        "style": {COMPLETE: "ok", DAMAGED: "bad"}.get(run.state, "maybe"),
        "said": ", ".join(f"{count[verdict]} {verdict}" for verdict in get_args(Verdict) if count[verdict]) or "–",
    }  # fmt: skip


def _claims(run: Indexed, folder: Path, out: Path) -> Iterator[dict[str, Any]]:
    about = {
        "name": shown(run.folder.relative_to(folder)),
        "link": _link(run, out),
        "experiment": run.experiment,
        "model": run.model,
    }
    for finding in run.findings if run.state == COMPLETE else ():
        yield {"finding": finding, **about}


def _mapping(value: Any) -> Mapping[str, Any]:
    """What a list says under a name, where it is of the kind that this version writes."""
    return value if isinstance(value, Mapping) else {}


def _link(run: Indexed, out: Path) -> str | None:
    """Where its page is, seen from the index; None where there is none."""
    page = run.folder / manifest.REPORT
    return quote(os.fsencode(os.path.relpath(page, out.parent))) if page.is_file() else None


def shown(path: Path) -> str:
    """A path in text; bytes of a name that are no text are written out."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode()


def _data(run: Indexed, folder: Path) -> dict[str, Any]:
    return {
        "run": shown(run.folder.relative_to(folder)), "experiment": run.experiment, "model": run.model, "state": run.state,
        "why": run.why, "verdicts": {f"{f.key or f.claim}": f.verdict for f in run.findings if f.primary},
    }  # fmt: skip
