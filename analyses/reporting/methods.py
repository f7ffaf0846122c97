"""A paragraph on methods, from the settings of a run and the rules that it was judged by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cos_interp.analyses.driver.command import as_text, flag
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.identity import shown_name
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.analyses.driver.twins import FIRST

INTERVALS = {
    "share": "exact for shares (Clopper and Pearson 1934)",
    "paired shares": "Newcombe's hybrid score interval for paired outcomes (1998, method 10)",
    "mean": "bootstrap-t for means (Efron 1982)",
    "normal mean": "Student's t for means of fewer than twelve items, and of values that are known to be roughly normal",
    "counted mean": "for means of which hardly any item differs from the others, the exact interval of the share that does",
    "statistic": "the bias-corrected and accelerated bootstrap for other statistics (Efron 1987)",
}
# settings that have words of their own
SAID = {
    "model", "revision", "num_inference_steps", "guidance_scale", "seed", "confirm", "twins", "tasks", "task", "items", "pairs",
    "prompts", "pair_file", "device", "dtype", "offload", "memory", "host_memory", "disk", "size", "num_frames",
}  # fmt: skip


def methods(config: AnalysisConfig, facts: Mapping[str, Any], findings: Sequence[Finding], told: Mapping[str, str]) -> str:
    """Markdown. ``facts``: the run's ``run.json``; ``told``: question, method and source, as its page says them."""
    parts = [
        ("Model and sampling", " ".join(_model(config, facts["model"]))),
        ("Inputs", " ".join(_inputs(config, facts))),
        ("Measurement", " ".join(_measured(config, told))),
        ("Analysis", " ".join(_analysis(config, findings))),
        ("Software", " ".join(_software(facts))),
    ]
    return "# Methods\n\n" + "\n\n".join(f"**{name}.** {text}" for name, text in parts if text) + "\n"


def _model(config: AnalysisConfig, model: Mapping[str, Any]) -> Iterator[str]:
    if model["name"] == "no model":
        yield "No model was run: the inputs are videos made elsewhere."
        return
    revision = f", revision {model['revision']}" if model.get("revision") else ""
    weights = f"weights sha256 {model['digest'][:12]}" if model.get("digest") else "weights not hashed"
    computed = f", computed in {model['computed']}" if model.get("computed") else ""
    yield f"Videos were generated with {shown_name(model['name'])} ({weights}{revision}{computed})"
    scale = config.guidance_scale
    guided = "without classifier-free guidance" if scale == 1 else f"with classifier-free guidance of scale {scale:g}"
    sizes = [f"{config.size} pixels"] * (config.size is not None) + [f"{config.num_frames} frames"] * bool(config.num_frames)
    yield f"in {config.num_inference_steps} denoising steps {guided}{''.join(f', {one}' for one in sizes)}."
    if config.negative_prompt:
        yield f"Guidance led away from “{config.negative_prompt}”."


def _inputs(config: AnalysisConfig, facts: Mapping[str, Any]) -> Iterator[str]:
    files = {option: held for option, held in facts.get("inputs", {}).items() if held}
    for option, held in files.items():
        entries = sum(name.startswith("entry") for name in held)
        yield f"The inputs were our own ({option[2:]}{f', {entries} entries' if entries else ''})."
    values = config.model_dump()
    if not files and (tasks := values.get("tasks") or ([values["task"]] if values.get("task") else [])):
        many = (
            f"{values['items']} items" if values.get("items") else f"{values['pairs']} pairs" if values.get("pairs") else "Items"
        )
        of = "drawn outside cos-500, which no rule had seen when it was written" if config.confirm else "of cos-500"
        yield (
            f"{many} of each of {', '.join(tasks)} were used, {of}."
            if len(tasks) > 1
            else f"{many} of {tasks[0]} were used, {of}."
        )
    yield f"Every noise has a seed of its own, from the run's seed ({config.seed}) and what it is for."


def _measured(config: AnalysisConfig, told: Mapping[str, str]) -> Iterator[str]:
    if told.get("question"):
        yield f"The question was: {told['question']}"
    if told.get("method"):
        yield told["method"]
    if told.get("source"):
        yield f"It follows {told['source']}."
    values, defaults = config.model_dump(mode="json"), type(config)().model_dump(mode="json")
    own = [f"{flag(key)[2:]} {as_text(value)}" for key, value in values.items() if key not in SAID and value != defaults[key]]
    if own:
        yield f"Settings that differ from the defaults: {'; '.join(own)}."


def _analysis(config: AnalysisConfig, findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings:
        kind = "" if finding.primary else " (a variant, without a verdict of its own)"
        yield f"For the claim “{finding.claim}”{kind} what decides is the {finding.rule}."
    kinds = dict.fromkeys(number.kind for f in findings for number in (f.number, f.control) if number.kind in INTERVALS)
    if kinds:
        yield f"Intervals are of 95 % over items: {'; '.join(INTERVALS[kind] for kind in kinds)}."
    if findings:
        yield (
            "A claim counts as reproduced when the interval lies wholly above the smallest effect of interest, as refuted when "
            "it lies wholly below it, and as undecided else. The file of rules, whose digest stands below, says of each which "
            "numbers had been seen when it was written or changed."
        )
    if config.twins:
        yield (
            f"The same was run on {config.twins} models with transformers of random weights (seeds {FIRST} and following), "
            "beyond all of which the interval must lie."
        )
    if sum(finding.primary for finding in findings) > 1:
        yield "p-values are not corrected for one another."


def _software(facts: Mapping[str, Any]) -> Iterator[str]:
    yield ", ".join(f"{name} {value}" for name, value in facts["versions"].items()) + "."
    yield f"Command: `{facts['command']}`."
