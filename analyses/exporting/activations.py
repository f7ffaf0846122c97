"""Activations of a model on many items, streamed to files while it generates: for data loaders and training elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cos_interp.analyses.driver import identity, lock, planning, saying
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.experiment import loaded, settled
from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.exporting import ActivationsConfig
from cos_interp.analyses.kit.problems import Problem, arguments, fits, judge, problems
from cos_interp.interp.address import Address
from cos_interp.interp.files import is_leftover, read_sealed_json, sealed_json, write_atomic
from cos_interp.interp.limits import shown_size
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.row_format import ASKED, ITEMS, MANIFEST, SHARDS
from cos_interp.interp.row_writer import RowWriter, manifest
from cos_interp.interp.streaming import bytes_at_most, stream
from cos_interp.interp.terminal import refuse_other_content
from cos_interp.interp.views import GRID
from cos_interp.probes.clip import Clip
from cos_interp.probes.targets import CLASSIFY, Target, known, resolve
from cos_interp.tasks.clips import task_of

NAME = "activations"
LOCKS = (lock.LOCK, lock.OWNER)
OWN = (ASKED, MANIFEST, SHARDS, ITEMS, *LOCKS)
COPIES = 3  # of a shard, while it is put together and written
Progress = Callable[[int, int, str], None]


def export(
    config: ActivationsConfig, folder: Path, model: HookedVideoPipeline | None = None,
    progress: Progress = lambda done, total, what: None,
) -> dict[str, Any]:  # fmt: skip
    """Write the activations that some settings select into ``folder``, or go on with an export of the same settings and model.

    A killed export goes on where its last whole file ends and ends with the same bytes; a finished one is checked, and its
    damaged files are made again. Read it with :class:`cos_interp.interp.ActivationRows`. Returns what it holds, in numbers.
    RunError for a folder of another export or with anything else in it, and, before a transformer runs, for more than the disk or
    the stated memory holds; InterpError, before the model is loaded, where a run does not fit into that.
    """
    refuse_other_content(folder, OWN if (folder / ASKED).is_file() else LOCKS)
    planning.refuse_uses(foresee, config, folder, model)
    config, model = loaded(config) if model is None else (settled(config, model), model)
    fits(config, model)
    found = problems(config)
    targets = _targets(config)
    asked = identity.of(NAME, config, model, torch.get_num_threads())
    asked["command"] = asked["command"].replace(f"cos analyze {NAME}", f"cos export {NAME} FOLDER", 1)
    folder.mkdir(parents=True, exist_ok=True)
    with lock.Writer(folder).holding() as writer:
        _same(folder, asked)
        _fits(folder, config, model, found)
        write_atomic(folder / ASKED, sealed_json(asked))  # first: by it the folder is known after a kill
        for part in (SHARDS, ITEMS):
            (folder / part).mkdir(exist_ok=True)
        for left in filter(is_leftover, folder.rglob("*")):
            left.unlink()
        rows = RowWriter(folder, saying.amount(config.shard_size))
        for number in rows.items(len(found)):
            progress(number, len(found), found[number].name)
            writer.check()
            _one(model, config, rows, number, found[number], targets)
        rows.finish(len(found), {"asked": asked, "labels": {target.name: list(target.names) for target in targets}})
        progress(len(found), len(found), "done")
    return summary(folder)


def foresee(config: ActivationsConfig, outlook: Outlook) -> list[Use]:
    """What an export takes beside the disk, of which :func:`_fits` knows exactly: one run at a time, and a shard."""
    found = problems(config)
    one = max((outlook.kept([name], [0]) for name in outlook.model.matching(list(config.names))), default=0)
    shard = COPIES * saying.amount(config.shard_size)
    return [Use("exported runs", len(found), held=one, finished=shard, decoded=int(any(problem.judged for problem in found)))]


def _one(
    model: HookedVideoPipeline, config: ActivationsConfig, rows: RowWriter, number: int, problem: Problem, targets: list[Target]
) -> None:
    """Generate one item, and write its rows and its record."""
    rows.begin(number)
    wanted: dict[str, Any] = {"names": config.names, "steps": config.steps, "branches": config.branches}
    wanted |= {"tokens": _tokens(config.tokens), "reduce": config.reduce}
    run = stream(model, rows.take, **wanted, **arguments(model, config, problem))
    clip = Clip(problem.name, run, problem.item, model.token_grid(run.latents).shape)
    labels = {target.name: torch.from_numpy(np.ascontiguousarray(target.read(clip), np.int32)) for target in targets}
    verdict = judge(problem, clip.frames) if problem.judged else None
    experts = [call.expert for call in run.calls if call.branch == "cond"]
    about = {"name": problem.name, "task": problem.task, "seed": problem.seed, "prompt": problem.call.get("prompt")}
    about |= {"status": "" if verdict is None else verdict.status, "answer": "" if verdict is None else verdict.answer}
    schedule = {"sigma": run.sigmas, "timestep": run.timesteps, "expert": experts}
    rows.end(labels, {**about, "grid": list(clip.grid), "schedule": schedule})


def _targets(config: ActivationsConfig) -> list[Target]:
    """The labels that are kept: those that were asked for, or all classes that some of the tasks have."""
    if config.targets is not None:
        found = resolve(config.targets)
        if values := [target.name for target in found if target.form != CLASSIFY]:
            raise RunError(f"--targets {values[0]} is no class: export the activations of {values[0]}'s place instead")
        return found
    tasks = set() if config.prompts is not None else {task_of(text).name for text in config.tasks}
    return [t for t in known().values() if t.form == CLASSIFY and t.tasks is not None and tasks & set(t.tasks)]


def _tokens(said: str | None) -> dict[str, Any] | None:
    """``frame=0:2,row=[1,3]`` as a cache takes it. AddressError for anything else."""
    if said is None:
        return None
    address = Address.parse(f"hook_x_t @ {said}")
    return {axis: index for axis in GRID if (index := getattr(address, axis)) is not None}


def _same(folder: Path, asked: dict[str, Any]) -> None:
    """RunError where the folder holds an export of other settings, another model or other inputs."""
    path = folder / ASKED
    if not path.is_file():
        return
    try:
        held = read_sealed_json(path.read_bytes())
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}): choose another folder") from error
    changed = identity.changes(held, asked)
    grown = held.get("config", {}).get("items") != asked["config"].get("items")  # other items would come between these
    if changed or grown:
        what = "; ".join(changed) or f"--items: {held['config'].get('items')}, now {asked['config']['items']}"
        raise RunError(f"{folder} holds another export ({what}): choose another folder")


def _fits(folder: Path, config: ActivationsConfig, model: HookedVideoPipeline, found: list[Problem]) -> None:
    """RunError for more than fits into the stated memory, or onto the disk."""
    limits, shard = config.limits(), saying.amount(config.shard_size)
    if COPIES * shard > limits.get("host_memory", COPIES * shard):
        raise RunError(
            f"--shard-size {config.shard_size} takes {COPIES} times as much memory, and --host-memory is less: halve it"
        )
    if config.reduce is not None:
        return
    call = arguments(model, config, found[0])
    each = bytes_at_most(model, config.names, config.steps, config.branches, _tokens(config.tokens), **call)
    there = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    total, room = each * len(found), limits.get("disk", shutil.disk_usage(folder).free + there)
    if total > room:
        raise RunError(
            f"{len(found)} items of {shown_size(each)} take {shown_size(total)} at most, and there are {shown_size(room)}: "
            f"{room // each} items fit; or ask for fewer names, steps or tokens, or --reduce mean"
        )


def summary(folder: Path) -> dict[str, Any]:
    """What a finished export holds, in numbers."""
    held = manifest(folder)
    rows = {name: sum(shard.get(name, 0) for shard in held["shards"]) for name in held["names"]}
    size = sum(file["bytes"] for file in held["files"])
    return {
        "items": len(held["items"]),
        "rows": rows,
        "shards": len(held["shards"]),
        "bytes": size,
        "labels": list(held["labels"]),
    }
