"""Accuracy of a pipeline on the suite, at the end and optionally at every step's clean estimate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from cos_interp.analyses.driver.workers import default_workers, scatter
from cos_interp.analyses.kit.problems import fits_tasks
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.tasks import TASKS, Item, Verdict, get_task, suite
from cos_interp.tasks.tally import tally

BATCH = 8
FRESH = 5_000_000  # first seed of items outside the suite


def chosen_items(limit: int | None, fresh: bool, seed: int) -> list[Item]:
    """The suite, or new test items of the same strata."""
    if not fresh:
        return [item for name in suite.OF for item in suite.task_items(name)[:limit]]
    out = []
    for name in suite.OF:
        strata = TASKS[name].strata
        for i in range(limit or suite.SIZE):
            difficulty, unique = strata[i % len(strata)]
            out.append(TASKS[name].sample(FRESH + seed * 10_000 + i, difficulty, unique, split="test"))
    return out


def judge_batch(
    model: HookedVideoPipeline, items: Sequence[Item], seeds: Sequence[int], every_step: bool, **kwargs: Any
) -> dict[str, list[Verdict]]:
    """Verdicts of a batch of items: ``final`` and, if asked, ``0``, ``1``, ... for the clean estimates."""
    if model.one_row and len(items) > 1:
        each = [judge_batch(model, [item], [own], every_step, **kwargs) for item, own in zip(items, seeds, strict=True)]
        return {key: [one[key][0] for one in each] for key in each[0]}
    given = {"image": [Image.fromarray(i.first_frame) for i in items]} if model.takes_image else {}
    run = model.run(prompt=[i.prompt for i in items], seed=list(seeds), **given, **kwargs)
    videos = {"final": run.decode()}
    if every_step:
        videos |= {str(k): run.decode(step=k) for k in range(run.steps)}
    return {
        key: [get_task(item.task).verify(item, frames) for item, frames in zip(items, video, strict=True)]
        for key, video in videos.items()
    }


@torch.no_grad()
def round_trip(model: HookedVideoPipeline, items: Sequence[Item]) -> list[Verdict]:
    """Verdicts of the true videos after encoding and decoding by the model's autoencoder."""
    vae, out = model.pipe.vae, []
    for start in range(0, len(items), 20):
        part = items[start : start + 20]
        video = torch.from_numpy(np.stack([i.video for i in part])).permute(0, 4, 1, 2, 3) / 127.5 - 1
        decoded = vae.decode(vae.encode(video.to(vae.dtype)).latent_dist.mode()).sample.float()
        frames = ((decoded + 1) / 2).clamp(0, 1).permute(0, 2, 3, 4, 1).numpy()
        out += [get_task(item.task).verify(item, clip) for item, clip in zip(part, frames, strict=True)]
    return out


def evaluate(
    name: str | HookedVideoPipeline, num_steps: int, guidance: float | None, limit: int | None, seed: int, fresh: bool,
    every_step: bool, workers: int | None, progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> dict[str, Any]:  # fmt: skip
    """Tallies by step (``final``, ``0``, ...), with the sigmas of the steps; of a model by name, or of one that is loaded.
    ``guidance``: the scale; None for the model's own."""
    # first: a name without a model is the cheapest mistake
    model = HookedVideoPipeline.from_pretrained(name) if isinstance(name, str) else name
    fits_tasks(model, "a model that makes such videos")
    guidance = float(model.default("guidance_scale") or 1) if guidance is None else guidance
    items = chosen_items(limit, fresh, seed)
    kwargs = {"num_inference_steps": num_steps, "guidance_scale": guidance}
    pieces = [range(i, min(i + BATCH, len(items))) for i in range(0, len(items), BATCH)]

    def work(piece: range):
        found = judge_batch(model, [items[i] for i in piece], [seed * 1_000_000 + i for i in piece], every_step, **kwargs)
        yield piece, found

    judged: dict[str, dict[int, Verdict]] = {}
    done = 0
    for piece, found in scatter(work, pieces, default_workers() if workers is None else workers):
        done += len(piece)
        progress(done, len(items), "generating and judging")
        for key, verdicts in found.items():
            judged.setdefault(key, {}).update(zip(piece, verdicts, strict=True))
    model.pipe.scheduler.set_timesteps(num_steps)
    sigmas = [float(s) for s in model.pipe.scheduler.sigmas]
    tallies = {key: tally([(items[i], v[i]) for i in range(len(items))]) for key, v in judged.items()}
    facts = {"steps": num_steps, "guidance": guidance, "seed": seed, "fresh_items": fresh, "sigmas": sigmas}
    tallies["true videos through the autoencoder"] = tally(list(zip(items, round_trip(model, items), strict=True)))
    return {**facts, **tallies}
