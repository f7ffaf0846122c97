"""The verdicts as Markdown: of one dossier or several, a section for each claim, with the command that gives each number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import get_args

from cos_interp.analyses.dossier.together import Told, claims, held, verdict
from cos_interp.analyses.driver.findings import Finding, Verdict
from cos_interp.analyses.driver.markdown import row
from cos_interp.analyses.driver.registry import entries
from cos_interp.analyses.driver.rules import SEEN

PREFACE = (
    "Reproduced: the interval (95 %, over n items) of the number that decides lies above the smallest effect of interest, and "
    "beyond what models of random weights (twins) show; refuted: wholly below it; undecided: neither; not testable: too few "
    "items, or the experiment did not do what it says. Over the primary claims of a model the false discovery rate is held at "
    "5 % (Benjamini-Hochberg); q is the rate at which a claim would just be told still. A twin without a value has no item of "
    "which the question can be asked, for the reason that stands there: it neither supports nor opposes a claim."
)
SEVERAL = (
    "With several models or runs, a claim has the verdict that all of them have, of each model those on unseen items where it "
    "has such."
)
UNSEEN = (
    "Unseen items lie outside cos-500, and no rule had seen them when it was written. {changed} of the {all} claims have a rule "
    "that was changed after its numbers were seen, and say so: where these were of these items, they are seen ones, and only "
    "items of another --seed would confirm them."
)
ALONE = "No models of random weights ran beside it (--twins), so that what is reproduced need not be what was learnt: {}."


def markdown(dossiers: Sequence[Told], opening: str = "") -> str:
    """The page. ``opening``: what stands before the claims, in the writer's own words; a heading of its own where it begins with
    one."""
    dossiers = held(dossiers)
    title = [] if opening.startswith("# ") else ["# Findings", ""]
    out = [*title, *([opening.strip(), ""] if opening else []), summary(dossiers) + ".", ""]
    out += [" ".join([PREFACE, *([SEVERAL] if len(dossiers) > 1 else []), *_unseen(dossiers), *_alone(dossiers)]), ""]
    out += [f"- {one.label}: {_commands(one)}" for one in dossiers] + [*_rules(dossiers), ""]
    out += [*_overview(dossiers), ""]
    for experiment in _experiments(dossiers):
        out += _experiment(dossiers, experiment)
    return "\n".join(out)


def _unseen(dossiers: Sequence[Told]) -> Iterator[str]:
    """What unseen items are, and for which claims they are none: as its rule says, which stands with the claim."""
    found = (f for one in dossiers if one.confirms for unit in one.units.values() for f in unit.findings if f.primary)
    rules = {f.key or f.claim: f.rule for f in found}
    if changed := sum(SEEN in rule for rule in rules.values()):
        yield UNSEEN.format(changed=changed, all=len(rules))


def _alone(dossiers: Sequence[Told]) -> Iterator[str]:
    """Which dossiers have no twins."""
    alone = [one.label for one in dossiers if not any(f.twins for unit in one.units.values() for f in unit.findings)]
    if alone:
        yield ALONE.format("; ".join(alone))


def _overview(dossiers: Sequence[Told]) -> Iterator[str]:
    """A line for each primary claim: its number in every dossier, and its verdict."""
    yield row("experiment", "claim", *(one.label.split(",")[0] for one in dossiers), "verdict")
    yield "|---" * (len(dossiers) + 3) + "|"
    for experiment in _experiments(dossiers):
        for place in claims(dossiers, experiment):
            found = [one.finding(experiment, place) for one in dossiers]
            first = next(finding for finding in found if finding is not None)
            if first.primary:
                numbers = (str(finding.number) if finding else "" for finding in found)
                yield row(f"[{experiment}](#{experiment})", first.claim, *numbers, verdict(dossiers, found))


def _experiments(dossiers: Sequence[Told]) -> list[str]:
    """All that ran, in the order in which a dossier has them."""
    order = {name: place for place, name in enumerate(entries())}
    return sorted(dict.fromkeys(name for one in dossiers for name in one.units), key=lambda name: order.get(name, len(order)))


def _commands(one: Told) -> str:
    if len(one.commands) == 1:
        return f"`{one.commands[0]}`"
    return f"{len(one.units)} experiments of several dossiers; the command of each is with its claims"


def _rules(dossiers: Sequence[Told]) -> list[str]:
    """Which rules judged what, where they are not the same for all."""
    under: dict[str, list[str]] = {}
    for one in dossiers:
        for name, digest in one.rules.items():
            under.setdefault(digest, []).append(name)
    if len(under) < 2:
        return []
    return [f"- rules {digest}: {', '.join(dict.fromkeys(names))}" for digest, names in under.items()]


def summary(dossiers: Sequence[Told]) -> str:
    """How many primary claims have which verdict."""
    count: Counter[str] = Counter()
    for experiment in _experiments(dossiers):
        for place in claims(dossiers, experiment):
            found = [one.finding(experiment, place) for one in dossiers]
            if any(finding is not None and finding.primary for finding in found):
                count[verdict(dossiers, found).partition(":")[0]] += 1
    return ", ".join(f"{count[one]} {one}" for one in get_args(Verdict))


def _experiment(dossiers: Sequence[Told], experiment: str) -> Iterator[str]:
    units = [(one, one.units[experiment]) for one in dossiers if experiment in one.units]
    yield from (f"## {experiment}", "", units[0][1].about, "")
    for one, unit in units:
        ran = f"`{unit.command}`" if unit.command else f"could not run: {unit.error}"
        yield f"{one.label}: {ran}\n" if len(units) > 1 else f"{ran[:1].upper()}{ran[1:]}\n"
    for place in claims(dossiers, experiment):
        yield from _claim(dossiers, [one.finding(experiment, place) for one in dossiers])
    if units[0][1].figure:
        yield from (f"![{experiment}](media/{experiment}.svg)", "")
    if len(units) == 1:
        yield from (f"- {line}" for line in units[0][1].lines if not line.startswith(get_args(Verdict)))
        yield ""


def _claim(dossiers: Sequence[Told], found: Sequence[Finding | None]) -> Iterator[str]:
    first = next(finding for finding in found if finding is not None)
    said = verdict(dossiers, found) if first.primary else "variant, without a verdict"
    yield from (f"### {first.claim}", "", f"**{said[:1].upper()}{said[1:]}.** Decides: {first.rule}.{apart(found)}", "")
    yield row("", "found", "number that decides", "control", "twins", "verdict")
    yield "|---|---|---|---|---|---|"
    for one, finding in zip(dossiers, found, strict=True):
        if finding is None:
            yield row(one.label, "no finding", "", "", "", "")
            continue
        twins = "; ".join(map(str, finding.twins)) or "none ran"
        yield row(one.label, finding.statement, str(finding.number), str(finding.control), twins, _told(finding))
    yield ""


def apart(found: Sequence[Finding | None]) -> str:
    """How far the numbers of several runs lie apart, in words; nothing of one. No interval is made of them: of so few it would
    cover too little."""
    values = sorted(finding.number.value for finding in found if finding is not None and finding.number.n)
    return (
        f" Over these {len(values)} runs the number goes from {values[0]:z.2f} to {values[-1]:z.2f}." if len(values) > 1 else ""
    )


def _told(finding: Finding) -> str:
    """The verdict, why it is none and how sure it is; of a variant what keeps it from having one."""
    said = [finding.why] * bool(finding.why)
    if not finding.primary:
        return "variant" + (f" (not testable: {finding.why})" if finding.verdict == "not testable" else "")
    if finding.verdict == "reproduced" and finding.q == finding.q:
        said.append("q < 0.001" if finding.q < 0.001 else f"q = {finding.q:.3f}")
    return finding.verdict + (f" ({', '.join(said)})" if said else "")
