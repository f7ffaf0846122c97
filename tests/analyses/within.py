"""One run of an experiment in a process of its own, under a limit: prints what its memory was and what its plan said, as JSON.

``within.py FOLDER EXPERIMENT BYTES|none LIMIT|none``: the budget that is stated, and the bytes of address space beyond those of
the process before the run.
"""

from __future__ import annotations

import gc
import json
import re
import resource
import sys
from pathlib import Path
from typing import Any

from cos_interp.analyses.driver import experiment
from cos_interp.analyses.driver.planning import of_model
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.families.tiny import wan

SIZE, FRAMES, LAYERS = 256, 13, 6  # 1024 tokens
CALL = {"height": SIZE, "width": SIZE, "num_frames": FRAMES, "max_sequence_length": 12}


def middle_sized() -> HookedVideoPipeline:
    """Random weights, small beside what a run of it holds: a residual stream of half a megabyte."""
    from diffusers import WanPipeline

    made = wan.transformer("WanTransformer3DModel", num_attention_heads=2, attention_head_dim=64, ffn_dim=256, num_layers=LAYERS)
    pipe = WanPipeline(transformer=made, **wan.parts(wan.flow()))
    pipe.set_progress_bar_config(disable=True)
    return HookedVideoPipeline(pipe, "middle", dict(CALL))


def of_process(field: str) -> int:
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


# the settings of a run whose recordings are large, and of how many steps it is
ASKED: dict[str, tuple[int, dict[str, Any]]] = {
    # every block's stream at all tokens from the first step on: the donor's are kept of all steps
    "patching": (40, {"pairs": 1, "steps": (0,), "span": "from", "controls": False, "sites": ("hook_resid_post",)}),
    "circuit": (8, {"pairs": 1, "check_pairs": 1, "most": 1}),
    "steering": (8, {"pairs": 2, "check_pairs": 1, "ranks": (1,), "doses": (2.0,)}),
    "swap": (8, {"items": 1, "steps": (0,), "tokens": ("all",)}),
}


def settings(name: str, folder: Path, budget: str, **more: Any) -> AnalysisConfig:
    path = folder / "pairs.jsonl"
    line = json.dumps({"clean": {"prompt": "a red ball"}, "corrupt": {"prompt": "a blue ball"}})
    path.write_text("\n".join([line] * 4))
    said = {} if budget == "none" else {"host_memory": f"{budget}B"}
    steps, asked = ASKED[name]
    return load(name).config(**{"pair_file": str(path), "num_inference_steps": steps, "batch": 1, **asked, **said, **more})


def main(folder: Path, name: str, budget: str, limit: str) -> None:
    model, asked = middle_sized(), load(name)
    for at in ("first", "second"):  # first all is imported and its room is taken, then it is what it takes to run and decode
        experiment.run(asked, settings(name, folder, "none", num_inference_steps=2), folder / at, model=model, workers=1)
    config = settings(name, folder, budget)
    plan = of_model(name, config, model, folder, workers=1, timed=False).plan
    gc.collect()
    baseline = of_process("VmHWM")  # with what the autoencoder takes to decode a video, which no plan counts
    addresses = of_process("VmPeak")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that of what follows
    if limit != "none":
        most = addresses + int(limit)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    result = experiment.run(asked, config, folder / "run", model=model, workers=1)
    told = {"addresses": of_process("VmPeak") - addresses, "baseline": baseline, "peak": of_process("VmHWM"),
            "plan": {place: plan.total(place) for place in plan.places},
            "recordings": {place: held["recordings"] for place, held in plan.places.items() if "recordings" in held},
            "effects": list(map(float, result.rows.effect)), "problems": plan.problems}  # fmt: skip
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
