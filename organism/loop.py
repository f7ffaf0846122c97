"""One training loop for both networks: deterministic by step, checkpointed, resumed exactly, one or several processes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import nn
from torch.utils.data import DataLoader, Dataset

from cos_interp.interp.files import BLANK, SEAL, is_intact, sealed, write_atomic
from cos_interp.organism.graphed import Batch, Graphed
from cos_interp.organism.muon import StackedMuon

CHECKPOINT, CURVE = "checkpoint.safetensors", "curve.jsonl"
TOLD_EVERY = 50  # steps; checkpoints fall on these, so that a continued run means over the same steps
SEED_STRIDE = 50_000_000  # samples between the seeds of a recipe, more than any training takes: no two share one


class Objective(Protocol):
    """What is trained for: samples by index, drawn on the CPU, and the loss on them where the model is."""

    def batch(self, indices: range) -> Batch: ...

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor: ...


@dataclass(frozen=True)
class Recipe:
    """Sizes in samples and steps. The learning rate warms up, stays, and falls linearly over the last ``decay`` share."""

    steps: int
    batch: int
    lr: float
    muon_lr: float = 0.0  # 0: AdamW for every weight; else Muon for the matrices inside the blocks
    warmup: int = 100
    decay: float = 0.3
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    checkpoint_every: int = 200


def lr_factor(step: int, recipe: Recipe) -> float:
    """Share of the full learning rate at a step."""
    left = (recipe.steps - step) / max(1, round(recipe.decay * recipe.steps))
    return min(1.0, (step + 1) / recipe.warmup, left)


def world() -> tuple[int, int]:
    """(rank, number of processes)."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the hardware computes in bfloat16; a processor that emulates it has a hundredth of its float32 speed."""
    return device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()


def mixed(device: torch.device) -> torch.autocast:
    """bfloat16 where the hardware computes in it; a processor that emulates it is five times slower than in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_bfloat16(device))


def optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for the matrices inside the blocks when the recipe asks for it."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    matrices = [p for n, p in named if recipe.muon_lr and p.ndim == 2 and "blocks." in n]
    chosen = {id(p) for p in matrices}
    others = [p for _, p in named if id(p) not in chosen]
    out: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=recipe.lr, betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
    ]
    if matrices:
        format = torch.bfloat16 if computes_bfloat16(matrices[0].device) else torch.float32
        out.append(StackedMuon(matrices, format, lr=recipe.muon_lr, weight_decay=recipe.weight_decay))
    return out


class Run:
    """State of a training run in a folder: weights, their moving average, optimiser state, step."""

    def __init__(self, model: nn.Module, recipe: Recipe, folder: Path):
        self.model, self.recipe, self.folder, self.step = model, recipe, folder, 0
        self.optimizers = optimizers(model, recipe)
        self.graphed: Graphed | None = None
        self.ema = {n: p.detach().clone() for n, p in model.named_parameters()}
        folder.mkdir(parents=True, exist_ok=True)

    def save(self) -> None:
        """One safetensors file and one JSON line, each written beside and renamed; the JSON names the step it belongs to."""
        tensors = {f"model/{n}": p.detach() for n, p in self.model.named_parameters()}
        tensors |= {f"ema/{n}": t for n, t in self.ema.items()}
        for o, optimizer in enumerate(self.optimizers):
            for i, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer/{o}/{i}/{k}": torch.as_tensor(v) for k, v in state.items()}
        metadata = {"run": json.dumps({"seal": BLANK, "step": self.step, "recipe": asdict(self.recipe)})}
        write_atomic(self.folder / CHECKPOINT, sealed(save({k: v.contiguous().cpu() for k, v in tensors.items()}, metadata)))

    def resume(self) -> bool:
        """Load the newest checkpoint; False when there is none. ValueError when it is damaged, or made by another recipe."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return False
        metadata, tensors = checkpoint(path)
        found, asked = metadata["recipe"], asdict(self.recipe)
        fixed = {"steps", "checkpoint_every", "decay"}  # the length may be changed: it acts on later steps only
        if {k: v for k, v in found.items() if k not in fixed} != {k: v for k, v in asked.items() if k not in fixed}:
            raise ValueError(f"{path} was made by recipe {found}, not {asked}: choose another --out, or delete it")
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(tensors[f"model/{name}"])
                self.ema[name].copy_(tensors[f"ema/{name}"])
        for o, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"optimizer/{o}/"):
                    _, _, index, field = key.split("/")
                    state.setdefault(int(index), {})[field] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        self.step = metadata["step"]
        return True

    def average_gradients(self) -> None:
        """Mean over the processes, in one message."""
        _, size = world()
        if size == 1:
            return
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in grads])
        dist.all_reduce(flat)
        flat /= size
        for grad, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def share(self, step: int) -> range:
        """This process' part of the samples ``step * batch ...`` of the recipe's seed."""
        rank, size = world()
        part = self.recipe.batch // size
        start = self.recipe.seed * SEED_STRIDE + step * self.recipe.batch + rank * part
        return range(start, start + part)

    def advance(self, objective: Objective, batch: Batch | None = None) -> torch.Tensor:
        """One step on this process' share of the samples, or on a batch that was drawn ahead; returns the loss."""
        value = self._gradients(objective, objective.batch(self.share(self.step)) if batch is None else batch)
        self.average_gradients()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                base = self.recipe.muon_lr if isinstance(optimizer, StackedMuon) else self.recipe.lr
                group["lr"] = base * lr_factor(self.step, self.recipe)
            optimizer.step()
        self.step += 1
        rate = min(self.recipe.ema, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            names, values = zip(*self.model.named_parameters(), strict=True)
            torch._foreach_lerp_([self.ema[n] for n in names], [v.detach() for v in values], 1 - rate)
        return value

    def _gradients(self, objective: Objective, batch: Batch) -> torch.Tensor:
        if next(self.model.parameters()).device.type == "cuda":
            self.graphed = self.graphed or Graphed(objective.loss, self.model, batch)
            return self.graphed(batch)
        self.model.zero_grad(set_to_none=True)
        value = objective.loss(self.model, batch)
        value.backward()
        return value.detach()

    def load_average(self) -> nn.Module:
        """Put the moving average into the model (for evaluation and shipping)."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(self.ema[name])
        return self.model


def checkpoint(path: Path, unsealed: bool = False) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What a checkpoint says of itself (``step``, ``recipe``), and its tensors. ValueError when it is damaged. ``unsealed``: take
    one that has no seal, as version 0.1 wrote them: enough to read weights that are measured then, not to go on training."""
    data = path.read_bytes()
    if not is_intact(data) and not (unsealed and SEAL.encode() not in data):
        raise ValueError(f"{path} is damaged, or of version 0.1: delete it and train again, or choose another --out")
    size = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["run"]), load(data)


def curve(folder: Path, step: int) -> bytes:
    """The lines of the loss curve in a folder up to a step: what a killed run wrote after its checkpoint is made again."""
    path = folder / CURVE
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return b"".join(line for line in lines if json.loads(line)["step"] <= step)


@dataclass(frozen=True)
class Batches(Dataset):
    """The batch of each step, for a loader that draws them ahead in processes of its own."""

    run: Run
    objective: Objective

    def __getitem__(self, step: int) -> Batch:
        return self.objective.batch(self.run.share(step))


def drawn(run: Run, objective: Objective, ahead: int) -> Iterable[Batch]:
    """The batches from the run's step to its end. ``ahead``: processes that draw them meanwhile, for a GPU that would wait."""
    batches, steps = Batches(run, objective), range(run.step, run.recipe.steps)
    if not ahead:
        return (batches[step] for step in steps)
    return DataLoader(batches, None, sampler=steps, num_workers=ahead, pin_memory=True, prefetch_factor=4)


def fit(
    run: Run, objective: Objective, say: Callable[[str], None] = print, keep: Collection[int] = (),
    kept: Callable[[], None] = lambda: None, ahead: int = 0,
) -> None:  # fmt: skip
    """Train to the recipe's end; continue where an earlier call stopped. ``kept`` is called after each of the steps ``keep``.
    Progress every ``TOLD_EVERY`` steps, with time left. ``ahead``: processes that draw samples (see :func:`drawn`)."""
    recipe, (rank, _) = run.recipe, world()
    began, since = time.time(), run.step
    recent: list[torch.Tensor] = []
    for batch in drawn(run, objective, ahead):
        recent.append(run.advance(objective, batch))
        if run.step % TOLD_EVERY == 0 and rank == 0:
            speed = (run.step - since) / (time.time() - began)
            mean = sum(float(value) for value in recent) / len(recent)
            recent.clear()
            left = (recipe.steps - run.step) / speed / 60
            say(f"step {run.step}/{recipe.steps} loss {mean:.5f} {speed * recipe.batch:.0f} samples/s, {left:.1f} min left")
            said = json.dumps({"step": run.step, "samples": run.step * recipe.batch, "loss": mean}) + "\n"
            write_atomic(run.folder / CURVE, curve(run.folder, run.step - 1) + said.encode())
        if rank == 0 and run.step in keep:
            kept()  # before the checkpoint: a kill between the two makes it again
        if rank == 0 and (run.step % recipe.checkpoint_every == 0 or run.step == recipe.steps):
            run.save()
