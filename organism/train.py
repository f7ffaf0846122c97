"""``cos organism train``: all stages in order, each resumed from its checkpoint, on one or several processes."""

from __future__ import annotations

import copy
import dataclasses
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from diffusers import AutoencoderKLWan

from cos_interp.interp.files import TEMPORARY
from cos_interp.organism import package, train_dit, train_vae, widen
from cos_interp.organism.kinds import KINDS, Attention, Kind
from cos_interp.organism.loop import Recipe, Run, fit, world


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to train and how. None: the recipe's number of steps, one process a core.

    ``workers``: processes that train, on the CPU; that draw samples, beside a GPU. ``autoencoder``: a pipeline folder whose
    autoencoder is used as it is. ``seed``: of the first weights and of the samples of the transformer. ``keep``: steps of the
    transformer after which the pipeline is written as it is then. ``attention``: how the prompt is read, and with it the
    architecture: see :mod:`cos_interp.organism.kinds`.
    """

    out: Path
    workers: int | None = None
    dit_steps: int | None = None
    vae_steps: int | None = None
    device: str = "cpu"
    compiled: bool = True
    start_from: Path | None = None
    autoencoder: Path | None = None
    seed: int = 0
    keep: tuple[int, ...] = ()
    attention: Attention = "cross"


def train(plan: Plan) -> Path:
    """Train everything that is missing under ``plan.out``; returns the pipeline folder.

    The result depends on the number of processes by rounding only: samples are addressed by step. Raises ValueError for a
    device or a starting point that is not there.
    """
    check_device(plan.device)
    for option, folder in (("--start-from", plan.start_from), ("--autoencoder", plan.autoencoder)):
        if folder is not None and not (folder / "model_index.json").is_file():
            raise ValueError(f"{option} {folder}: no diffusers pipeline is there (no model_index.json)")
    count = 1 if plan.device == "cuda" else plan.workers or len(os.sched_getaffinity(0))
    plan.out.mkdir(parents=True, exist_ok=True)
    for leftover in plan.out.rglob(TEMPORARY.format("*")):  # of a training that was killed
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if count == 1:
        _work(0, count, port, plan)
    else:
        mp.spawn(_work, args=(count, port, plan), nprocs=count)
    return plan.out / "pipeline"


def check_device(device: str) -> None:
    """ValueError where it is not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda was asked for, and torch sees no CUDA GPU: use --device cpu")


def _work(rank: int, count: int, port: int, plan: Plan) -> None:
    if plan.device == "cpu":
        torch.set_num_threads(1)
    if count > 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        dist.init_process_group("gloo", rank=rank, world_size=count)
    vae = autoencoder(plan)
    transformer = train_transformer(plan, vae)
    if rank == 0:
        package.save(KINDS[plan.attention].assemble(vae.cpu(), transformer), plan.out / "pipeline")
    if count > 1:
        dist.destroy_process_group()


def _sized(recipe: Recipe, steps: int | None) -> Recipe:
    return recipe if steps is None else dataclasses.replace(recipe, steps=steps)


def _ahead(plan: Plan) -> int:
    """Processes that draw samples beside a GPU."""
    return (plan.workers or max(1, len(os.sched_getaffinity(0)) - 1)) if plan.device == "cuda" else 0


def _stage(name: str) -> Callable[[str], None]:
    def say(line: str) -> None:
        if world()[0] == 0:
            print(f"{name}: {line}", flush=True)

    return say


def shipped_autoencoder(folder: Path) -> AutoencoderKLWan:
    """The autoencoder of a pipeline folder, back at one pixel a dot as the trainer uses it."""
    return widen.narrow(AutoencoderKLWan.from_pretrained(folder / "vae"))


def autoencoder(plan: Plan) -> AutoencoderKLWan:
    """The autoencoder that the plan asks for: frozen, sharpened or new."""
    if plan.autoencoder is not None:
        return shipped_autoencoder(plan.autoencoder).to(plan.device)
    return train_autoencoder(plan) if plan.start_from is None else sharpened(shipped_autoencoder(plan.start_from), plan)


def train_autoencoder(plan: Plan) -> AutoencoderKLWan:
    """All stages of the autoencoder, then its latent statistics."""
    vae = train_vae.build().to(plan.device)
    for stage in train_vae.STAGES:
        _autoencoder_stage(vae, plan, *stage)
    vae = vae.cpu()
    train_vae.set_statistics(vae)
    return vae


def sharpened(vae: AutoencoderKLWan, plan: Plan) -> AutoencoderKLWan:
    """A finished autoencoder after the last stage once more, for ``--vae-steps`` steps; its latents stay as they are."""
    if plan.vae_steps:
        _autoencoder_stage(vae.to(plan.device), plan, *train_vae.STAGES[-1])
    return vae


def _autoencoder_stage(vae: AutoencoderKLWan, plan: Plan, name: str, recipe: Recipe, loss: train_vae.Objective) -> None:
    if loss.frozen:
        train_vae.freeze_encoder(vae)
    run = Run(vae, _sized(recipe, plan.vae_steps), plan.out / f"vae-{name}")
    run.resume()
    fit(run, loss, _stage(f"autoencoder, {name}"), ahead=_ahead(plan))
    run.load_average()
    vae.requires_grad_(True)


def train_transformer(plan: Plan, vae: AutoencoderKLWan) -> Any:
    """Flow matching; the returned transformer holds the averaged weights and plain attention processors."""
    kind = KINDS[plan.attention]
    loaded = plan.start_from and kind.transformer.from_pretrained(plan.start_from / "transformer")  # type: ignore[attr-defined]
    transformer = (loaded or kind.build(plan.seed)).to(plan.device)
    objective = kind.objective(vae.to(plan.device), transformer)
    recipe = dataclasses.replace(_sized(train_dit.RECIPE, plan.dit_steps), seed=plan.seed)
    if plan.start_from:
        recipe = dataclasses.replace(recipe, decay=1.0)  # trained weights: the learning rate falls from the first step on
    run = Run(transformer, recipe, plan.out / "transformer")
    run.resume()
    if plan.compiled:
        for block in (block for name in kind.blocks for block in getattr(transformer, name)):
            block.compile(dynamic=False)
    made = lambda: kind.assemble(copy.deepcopy(vae).cpu(), averaged(kind, run))
    kept = lambda: package.save(made(), plan.out / f"step-{run.step:05d}")
    fit(run, objective, _stage("transformer"), plan.keep, kept, _ahead(plan))
    return averaged(kind, run)


def averaged(kind: Kind, run: Run) -> Any:
    """A transformer with the moving average of a training's weights, on the CPU."""
    made = kind.build(0)
    made.load_state_dict({name: weight.cpu() for name, weight in run.ema.items()})
    return made
