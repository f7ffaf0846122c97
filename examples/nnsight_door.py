"""Where our names end: plain nnsight inside one transformer call of the running pipeline. Runs in seconds on a laptop."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import nnsight
import torch
from PIL import Image

from cos_interp import HookedVideoPipeline
from cos_interp.tasks import get_task

model = HookedVideoPipeline.from_pretrained("organism")
task = get_task("maze")
item = task.sample(seed=8, difficulty=5, unique=False, split="test")
keywords = {"prompt": item.prompt, "image": Image.fromarray(item.first_frame), "seed": 0}

# the six modulations of a block (shift, scale and gate of its attention and of its MLP) exist only inside its forward
with model.trace_call(step=4, branch="cond", **keywords) as call:
    shift, scale, gate = call.blocks[3].source.chunk_1.output[:3]
    norms = nnsight.save([float(part.norm()) for part in (shift, scale, gate)])
print("block 3, step 4: norms of shift, scale and gate of its attention:", [round(norm, 2) for norm in norms])
plain = call.run

# an edit in the same place: close the gate of the attention in this one call
with model.trace_call(step=4, branch="cond", **keywords) as call:
    parts = list(call.blocks[3].source.chunk_1.output)
    parts[2] = torch.zeros_like(parts[2])
    call.blocks[3].source.chunk_1.output = tuple(parts)
moved = (call.run.latents - plain.latents).norm() / plain.latents.norm()
print(f"with that gate closed the final latents move by {float(moved):.2%}:", task.verify(item, call.run.decode()[0]))
