"""``cos organism train``: all stages in order, each resumed from its checkpoint, on one or several processes."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from diffusers import AutoencoderKLWan

from organism import package, padding, text, train_dit, train_vae
from organism.loop import Recipe, Run, fit, world


def train(
    out: Path, *, workers: int | None, dit_steps: int | None, vae_steps: int | None, device: str, compiled: bool
) -> Path:
    """Train everything that is missing under ``out``; returns the pipeline folder.

    The result depends on the number of processes by rounding only: samples are addressed by step.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda was asked for, and torch sees no CUDA GPU: use --device cpu")
    count = 1 if device == "cuda" else workers or len(os.sched_getaffinity(0))
    out.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    args = (count, port, out, dit_steps, vae_steps, device, compiled)
    if count == 1:
        _work(0, *args)
    else:
        mp.spawn(_work, args=args, nprocs=count)
    return out / "pipeline"


def _work(
    rank: int, count: int, port: int, out: Path, dit_steps: int | None, vae_steps: int | None, device: str, compiled: bool
) -> None:
    if device == "cpu":
        torch.set_num_threads(1)
    if count > 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        dist.init_process_group("gloo", rank=rank, world_size=count)
    vae = train_autoencoder(out, vae_steps, device)
    transformer = train_transformer(out, vae, dit_steps, device, compiled)
    if rank == 0:
        package.save(package.assemble(vae.cpu(), transformer.cpu()), out / "pipeline")
    if count > 1:
        dist.destroy_process_group()


def _sized(recipe: Recipe, steps: int | None) -> Recipe:
    return recipe if steps is None else dataclasses.replace(recipe, steps=steps)


def _stage(name: str) -> Callable[[str], None]:
    def say(line: str) -> None:
        if world()[0] == 0:
            print(f"{name}: {line}", flush=True)

    return say


def train_autoencoder(out: Path, steps: int | None, device: str) -> AutoencoderKLWan:
    """The three stages of the autoencoder, then its latent statistics."""
    vae = train_vae.build().to(device)
    for name, recipe, loss in train_vae.STAGES:
        if name.endswith("decoder"):
            train_vae.freeze_encoder(vae)
        run = Run(vae, _sized(recipe, steps), out / f"vae-{name}")
        run.resume()
        fit(run, loss, _stage(f"autoencoder, {name}"))
        run.load_average()
        vae.requires_grad_(True)
    vae = vae.cpu()
    train_vae.set_statistics(vae)
    return vae


def train_transformer(out: Path, vae: AutoencoderKLWan, steps: int | None, device: str, compiled: bool) -> torch.nn.Module:
    """Flow matching; the returned transformer holds the averaged weights and plain attention processors."""
    transformer = train_dit.build().to(device)
    processor = padding.install(transformer)
    prompts = text.PromptTable(text.build_tokenizer(), text.build_encoder())
    run = Run(transformer, _sized(train_dit.RECIPE, steps), out / "transformer")
    run.resume()
    if compiled:
        for block in transformer.blocks:
            block.compile(dynamic=False)
    fit(run, train_dit.FlowMatching(vae.to(device), prompts, processor), _stage("transformer"))
    trained = train_dit.build()
    trained.load_state_dict({k: v.cpu() for k, v in run.load_average().state_dict().items()})
    return trained
