"""What reading activations costs: one transformer call of the organism, plain, with torch hooks, and traced.

Run it with ``make bench``. Prints the median of interleaved rounds, in milliseconds and as a ratio to the plain call.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from cos_interp.interp import HookedVideoPipeline

ROUNDS = 30


def torch_hooks(module: torch.nn.Module, kwargs: dict) -> None:
    kept = []
    handles = [b.register_forward_hook(lambda m, a, out: kept.append(out.clone())) for b in module.blocks]
    module(**kwargs)
    for handle in handles:
        handle.remove()


def cases(model: HookedVideoPipeline, batch: int) -> dict[str, Callable[[], object]]:
    """The things compared, on inputs of one batch size."""
    engine = model.engines["transformer"]
    kwargs = {
        "hidden_states": torch.randn(batch, 34, 5, 5, 5), "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": torch.randn(batch, 16, 64), "return_dict": False,
    }  # fmt: skip

    def traced(sites: list[str]) -> Callable[[], object]:
        kept: dict[str, torch.Tensor] = {}
        names = [n for n in engine.points if any(n.endswith(s) for s in sites)]
        return lambda: engine((), kwargs, {n: lambda act, rows, n=n: kept.__setitem__(n, act.clone()) for n in names})

    return {
        "plain": lambda: engine.module(**kwargs),
        "torch hooks, block outputs": lambda: torch_hooks(engine.module, kwargs),
        "this tool, block outputs": traced(["hook_resid_post"]),
        "this tool, q k v z": traced(["attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z"]),
        "this tool, attention patterns": traced(["attn.hook_pattern"]),
        "this tool, every name": traced([""]),
    }


def main() -> None:
    torch.set_num_threads(1)
    model = HookedVideoPipeline.from_pretrained("organism")
    with torch.no_grad():
        for batch in (1, 8):
            runs = cases(model, batch)
            times: dict[str, list[float]] = {name: [] for name in runs}
            for round_ in range(ROUNDS):
                for name in np.random.default_rng(round_).permutation(list(runs)):
                    start = time.perf_counter()
                    runs[name]()
                    times[name].append(time.perf_counter() - start)
            plain = np.median(times["plain"])
            print(f"batch {batch}, median of {ROUNDS} rounds")
            for name, values in times.items():
                print(f"  {name:32} {1000 * np.median(values):7.1f} ms   x{np.median(values) / plain:.2f}")


if __name__ == "__main__":
    main()
