"""Several dossiers side by side, of other models or of unseen items: what all of them say of a claim."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cos_interp.analyses.dossier import DossierConfig, ExperimentFacts
from cos_interp.analyses.dossier.multiplicity import corrected
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.identity import shown_command, shown_name

if TYPE_CHECKING:
    from cos_interp.analyses.driver.loaded import LoadedRun


CALLED = {
    "num_inference_steps": "steps", "guidance_scale": "guidance", "size": "size", "num_frames": "frames", "dtype": "dtype",
}  # settings of a dossier that say how its model is called, in words  # fmt: skip


@dataclass(frozen=True)
class Told:
    """What is said of one model and one set of items, by a dossier or by several with other experiments. ``confirms``: its items
    and noises are others than those that rules were tried on. ``rules``: the digest of the rules, by experiment."""

    label: str
    commands: tuple[str, ...]
    confirms: bool
    units: Mapping[str, ExperimentFacts]
    rules: Mapping[str, str] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """Its name and weights, with which a label begins."""
        return ", ".join(self.label.split(", ")[:2])

    def finding(self, experiment: str, place: tuple[str, int]) -> Finding | None:
        """Its finding of a claim, None where it has none."""
        return dict(_placed(self.units, experiment)).get(place)


def told(run: LoadedRun) -> Told:
    """What a finished dossier says. RunError for a run of something else."""
    if not isinstance(run.config, DossierConfig):
        raise RunError(f"{run.folder} is a run of {run.name}, not a dossier: give one that cos analyze all made")
    units = {unit: _shown(facts) for unit in run.units if isinstance(facts := run.facts_of(unit), ExperimentFacts)}
    commands, rules = (shown_command(run.facts["command"]),), run.facts["versions"]["rules"]
    of = label(run.facts["model"], run.config)
    return Told(of, commands, run.config.confirm, units, dict.fromkeys(units, rules))


def _shown(unit: ExperimentFacts) -> ExperimentFacts:
    """An experiment as others may read of it."""
    return unit.model_copy(update={"command": shown_command(unit.command)})


def joined(dossiers: Iterable[Told]) -> list[Told]:
    """Those of one model and the same items as one, where they hold different experiments. RunError for an experiment of one
    model, with one setting, twice: its numbers would count as those of two."""
    made: dict[str, Told] = {}
    for one in dossiers:
        first = made.get(one.label)
        if first is None:
            made[one.label] = one
            continue
        if twice := sorted(first.units.keys() & one.units):
            raise RunError(f"{', '.join(twice)} of {one.label} was given twice, which is no second model: give one of them")
        commands = tuple(dict.fromkeys(first.commands + one.commands))
        units, rules = {**first.units, **one.units}, {**first.rules, **one.rules}
        made[one.label] = replace(first, commands=commands, units=units, rules=rules)
    return list(made.values())


def held(dossiers: Iterable[Told]) -> list[Told]:
    """With the false discovery rate held over the claims of each."""
    return [replace(one, units=corrected(one.units)) for one in dossiers]


def label(model: Mapping[str, Any], config: DossierConfig) -> str:
    """A dossier in a few words: the model, as ``run.json`` has it, which items, other noises than the usual ones, and how it is
    called where that was said."""
    usual = DossierConfig()
    noises = f", seed {config.seed}" if config.seed else ""
    asked = {words: getattr(config, field) for field, words in CALLED.items() if getattr(config, field) != getattr(usual, field)}
    ways = "".join(f", {words} {value}" for words, value in asked.items())
    weights = f"weights {(model['digest'] or 'hub')[:8]}"
    return f"{shown_name(model['name'])}, {weights}{', unseen items' * config.confirm}{noises}{ways}"


def claims(dossiers: Sequence[Told], experiment: str) -> Iterator[tuple[str, int]]:
    """The claims of an experiment, as (key of its rule, which of that key), in the order of the dossiers."""
    seen = dict.fromkeys(place for one in dossiers for place, _ in _placed(one.units, experiment))
    yield from seen


def _placed(units: Mapping[str, ExperimentFacts], experiment: str) -> Iterator[tuple[tuple[str, int], Finding]]:
    count: dict[str, int] = {}
    for finding in units[experiment].findings if experiment in units else ():
        name = finding.key or finding.claim
        yield (name, count.get(name, 0)), finding
        count[name] = count.get(name, 0) + 1


def verdict(dossiers: Sequence[Told], found: Sequence[Finding | None]) -> str:
    """A verdict that all dossiers have, of each model those that confirm where it has such; else that they differ."""
    confirmed = {one.model for one in dossiers if one.confirms}
    counted = [f for one, f in zip(dossiers, found, strict=True) if one.confirms or one.model not in confirmed]
    said = [finding.verdict if finding is not None else "no finding" for finding in counted]
    if len(set(said)) == 1:
        return said[0]
    return f"undecided: {', '.join(f'{said.count(one)} {one}' for one in dict.fromkeys(said))}"
