"""Read activations along the denoising steps, decode the clean estimate, and edit a head. Runs in seconds on a laptop."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from PIL import Image

from cos_interp import HookedVideoPipeline
from cos_interp.tasks import get_task

model = HookedVideoPipeline.from_pretrained("organism")
task = get_task("maze")
item = task.sample(seed=8, difficulty=5, unique=False, split="test")
call = {"prompt": item.prompt, "image": Image.fromarray(item.first_frame), "seed": 0}

run, cache = model.run_with_cache(names="blocks.*.hook_resid_post", steps=range(0, 20, 5), **call)
print(
    "residual stream after block 3 at step 5:",
    tuple(cache["blocks.3.hook_resid_post", 5].shape),
    cache.axes["blocks.3.hook_resid_post"],
)

for step in (0, 5, 10, 19):
    verdict = task.verify(item, run.decode(step)[0])
    print(f"step {step:2}, sigma {run.sigmas[step]:.3f}: the clean estimate is {verdict.status} {verdict.answer}")


def ablate(act: torch.Tensor, hook) -> torch.Tensor:
    return torch.zeros_like(act)


edited = model.run_with_hooks(fwd_hooks=[("blocks.3.attn.hook_z @ step=0:10, head=2", ablate)], **call)
print("without head 2 of layer 3 in steps 0 to 9:", task.verify(item, edited.decode()[0]))
