"""What a run is, by content: two runs of one identity end with the same bytes."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Set
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cos_interp.analyses.driver import inputs, prompt_lists, rules
from cos_interp.analyses.driver.command import command_line, flag
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.interp.files import digest
from cos_interp.tasks import outside

if TYPE_CHECKING:
    from cos_interp.interp.model import HookedVideoPipeline

Contents = dict[str, dict[str, str]]  # option -> entry or file -> sha256

FORMAT = 2  # of a run folder
LIBRARIES = ("torch", "diffusers", "nnsight", "transformers", "numpy", "scikit-learn", "umap-learn")
# settings of which what they lead to is compared, and those that decide no number
ELSEWHERE = ("model", "revision", "device", "dtype", "offload", "lora", "memory", "host_memory", "disk")
NO_MODEL: dict[str, Any] = {"name": "no model", "digest": "", "parts": {}, "revision": None, "given": False}
KEYS = ("format", "analysis", "config", "command", "model", "inputs", "code", "versions")  # what :func:`of` says
GROWING = ("items", "pairs", "twins")  # settings that may grow: what is there is a part of what is asked


def of(
    name: str, config: AnalysisConfig, model: HookedVideoPipeline | None, threads: int, given: bool = False,
    inputs: Contents | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What ``run.json`` says of a run beside its state: all that decides its numbers. ``given``: the model came from Python.
    ``inputs``: content of the user's files, where it has been read."""
    known = NO_MODEL if model is None else _known(model, config, given)
    command = command_line(name, config) + ("  # with a model given from Python" if given else "")
    return {
        "format": FORMAT, "analysis": name, "config": config.model_dump(mode="json"), "command": command,
        "model": known,
        "inputs": inputs_of(config) if inputs is None else inputs,
        "code": code_of(config),
        "versions": versions() | {"threads": str(threads)},
    }  # fmt: skip


def shown_name(name: object) -> str:
    """A model's name as others may read it: of a folder on this machine its last part.

    >>> shown_name("/home/me/wan"), shown_name("organism:seed1")
    ('wan', 'organism:seed1')
    """
    named = Path(str(name))
    return named.name if named.is_absolute() else str(named)


def shown_command(command: str) -> str:
    """A command as others may read it: of a path on this machine its last part.

    >>> shown_command("cos analyze all --like /home/me/runs/seed1 --lora '/my disk/a.safetensors:0.5'  # given")
    "cos analyze all --like seed1 --lora 'a.safetensors:0.5'  # given"
    """
    return re.sub(r"(?<=')/[^']*|(?<=[\s,=])/[^\s,']+", lambda path: shown_name(path[0]), command)


def _known(model: HookedVideoPipeline, config: AnalysisConfig, given: bool) -> dict[str, Any]:
    from cos_interp.interp import identity as content

    parts = content.identity(model.pipe)
    types = sorted({str(engine.module.dtype).removeprefix("torch.") for engine in model.engines.values()})
    return {
        "name": model.name, "digest": content.combined(parts), "parts": parts, "revision": config.revision, "given": given,
        "computed": f"{'/'.join(types)} on {_kind_of(model)}",
        "layers": model.layers, "frame_rate": model.frame_rate,
        "call": {key: _plain(value) for key, value in model.defaults.items()},
    }  # fmt: skip


def _kind_of(model: HookedVideoPipeline) -> str:
    """The kind of device that a model computes on, wherever its weights wait."""
    return str(getattr(model.pipe, "_execution_device", model.pipe.device).type)


def _content(field: str, path: Path) -> dict[str, str]:
    return prompt_lists.content(path, flag(field)) if field == "prompts" else inputs.content(path, flag(field))


def _plain(value: Any) -> Any:
    """What JSON holds; of anything else its kind."""
    return value if value is None or isinstance(value, (bool, int, float, str, list, dict)) else type(value).__name__


def inputs_of(config: AnalysisConfig) -> Contents:
    """Content of the user's files, by option and entry."""
    return {flag(field): _content(field, Path(getattr(config, field))) for field in files_of(config)}


def files_of(config: AnalysisConfig) -> list[str]:
    """The settings that name a file of the user's."""
    return [name for name in type(config).FILES if getattr(config, name) is not None]


def code_of(config: AnalysisConfig) -> dict[str, dict[str, str]]:
    """Content of the code from outside that a run executes, by what names it; of a command, the files that it names. Executes
    what is Python's."""
    named = {text: group for field, group in type(config).CODE.items() for text in _texts(getattr(config, field))}
    found = {text: outside.content(text, group) for text, group in named.items() if outside.is_outside(text, group)}
    if "vbvr" in named:  # a scorer in the box whose code is the benchmark's
        from cos_interp.tasks.scorers.vbvr import content

        found["vbvr"] = content()
    if (command := getattr(config, "scorer_cmd", None)) is not None:
        found[command] = {word: digest(Path(word)) for word in shlex.split(command) if Path(word).is_file()}
    return found


def is_of_own_code(config: AnalysisConfig) -> bool:
    """Whether a run executes code from outside, without executing it."""
    named = [(text, group) for field, group in type(config).CODE.items() for text in _texts(getattr(config, field))]
    return any(outside.is_outside(text, group) for text, group in named)


def _texts(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else value


def versions() -> dict[str, str]:
    """Of this package and its rules, the libraries that compute, and Python."""
    own = {"cos-interp": version("cos-interp"), "rules": rules.shown_digest()}
    return own | {"python": sys.version.split()[0]} | {p: version(p) for p in LIBRARIES}


def begun_with(facts: Mapping[str, Any]) -> str:
    """The versions that a run went on from (--accept-versions), in words; empty where it did not. Its units may be of either."""
    now = facts["versions"]
    told = [", ".join(f"{key} {was[key]}" for key in was if was[key] != now.get(key)) for was in facts.get("earlier", [])]
    return "; ".join(told)


def changes(held: Mapping[str, Any], asked: Mapping[str, Any], accept_versions: bool = False) -> list[str]:
    """What differs between the identity of a run on disk and the one that is asked for, in words; what may differ is left out."""
    files = {*held.get("inputs", {}), *asked["inputs"]}
    found = [*_settings(held.get("config", {}), asked["config"], files), *_model(held.get("model", {}), asked["model"])]
    if held.get("analysis") != asked["analysis"]:
        found = [f"analysis: {held.get('analysis')}, now {asked['analysis']}", *found]
    found += changed_inputs(held.get("inputs", {}), asked["inputs"])
    found += changed_inputs(held.get("code", {}), asked.get("code", {}))
    return found if accept_versions else [*found, *_versions(held.get("versions", {}), asked["versions"])]


def grown(held: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether some settings ask for more than others, which may be asked for."""
    return any(held.get(key) != asked.get(key) for key in GROWING)


def _settings(held: Mapping[str, Any], asked: Mapping[str, Any], files: Set[str]) -> Iterator[str]:
    """Settings in words of the command line, but those of files and of the model's loading."""
    for key in sorted(key for key in {*held, *asked} - {*ELSEWHERE} if flag(key) not in files):
        was, now = held.get(key), asked.get(key)
        grown = key in GROWING and isinstance(was, int) and isinstance(now, int) and now >= was
        if was != now and not grown:
            yield f"{flag(key)}: {was}, now {now}"


def _model(held: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[str]:
    was, now = held.get("parts", {}), asked["parts"]
    if different := sorted(part for part in {*was, *now} if was.get(part) != now.get(part)):
        yield f"the model: other {', '.join(different)}"
    told = asked.get("call", {})
    was_told = held.get("call", told)  # runs before this was kept do not say
    for key in sorted({*was_told, *told}):
        if was_told.get(key) != told.get(key):
            yield f"the model's own call: {key} {was_told.get(key)}, now {told.get(key)}"
    if (computed := held.get("computed")) is not None and computed != asked["computed"]:
        yield f"the model was computed in {computed}, now in {asked['computed']}"


def changed_inputs(held: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[str]:
    """What differs between the contents of files or of code, in words."""
    for option in sorted({*held, *asked}):
        was, now = held.get(option, {}), asked.get(option, {})
        for place in dict.fromkeys((*was, *now)):
            if was.get(place) != now.get(place):
                how = "is new" if place not in was else "is gone" if place not in now else "has changed"
                yield f"{option}: {place} {how}"


def _versions(held: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*held, *asked}):
        if held.get(key) != asked.get(key):
            yield f"version of {key}: {held.get(key)}, now {asked.get(key)} (go on with --accept-versions)"
