"""The support matrix of docs/models.md, written from a run of the checks on a tiny pipeline of every family.

python -m cos_interp.interp.check.matrix docs/models.md
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from cos_interp.interp.check.proof import CheckReport, check_adapter
from cos_interp.interp.families import registry, tiny
from cos_interp.interp.families.unsupported import PIPELINES, REASONS
from cos_interp.interp.model import HookedVideoPipeline

PACKAGES = ("torch", "diffusers", "nnsight", "transformers")
NEEDS = {"consisid": "OpenCV (cv2), which ConsisID's pipeline imports"}


@dataclass(frozen=True)
class Row:
    """One checked pipeline, or the reason why it could not be checked here."""

    name: str
    family: str
    pipeline: str
    transformer: str
    scheduler: str
    guidance: str
    sites: str
    report: CheckReport | None
    problem: str = ""


def check(name: str) -> Row:
    """Build the tiny pipeline of a family and prove its names."""
    try:
        pipe = tiny.build(name)
    except ImportError:
        return Row(name, "", "", "", "", "", "", None, f"not checked here: needs {NEEDS.get(name, 'a package that is missing')}")
    call = tiny.call(name, steps=2)
    model = HookedVideoPipeline.from_pipeline(pipe)
    report = check_adapter(model, **call)
    return Row(
        name, model.adapter.family, type(pipe).__name__, type(pipe.transformer).__name__, type(pipe.scheduler).__name__,
        _guidance(model, call), _sites(model), report,
    )  # fmt: skip


def _guidance(model: HookedVideoPipeline, call: dict[str, Any]) -> str:
    run = model.run(seed=0, **call)
    forwards = {c.forward for c in run.calls if c.step == 0}
    if len(run.branches) == 1:
        return "none in this pipeline"
    return "two calls" if len(forwards) == 2 else f"one call, batch [{', '.join(run.branches)}]"


def _sites(model: HookedVideoPipeline) -> str:
    """Which kinds of sites the blocks have, in words."""
    names = {name.split(".", 2)[2] for name in model.hook_names if name.startswith("blocks.")}
    kinds = {
        "self-attention q k v pattern z": "attn.hook_pattern",
        "linear attention z": "" if "attn.hook_pattern" in names else "attn.hook_z",
        "cross-attention": "cross_attn.hook_pattern",
        "image attention": "cross_attn.hook_image_pattern",
        "text stream": "hook_resid_post_text",
        "audio stream": "hook_resid_post_audio",
        "history stream": "hook_resid_post_history",
        "parallel MLP": "mlp.hook_post",
    }
    return ", ".join(kind for kind, name in kinds.items() if name in names)


def as_markdown(rows: list[Row]) -> str:
    """The page docs/models.md."""
    versions = ", ".join(f"{p} {version(p).split('+')[0]}" for p in PACKAGES)
    lines = [
        "# Supported models",
        "",
        "Written by `make models`: every row is a tiny random pipeline of the family, on which `check_adapter` has just proven",
        "every hook name (`python -m cos_interp.interp.check.matrix docs/models.md`). Do not edit by hand.",
        "",
        f"Versions: {versions}. CPU, float32. Not claimed: results on released weights, or CUDA. Other precisions, quantised and",
        "offloaded pipelines, LoRA: [loading.md](loading.md).",
        "",
        "| family | pipeline | scheduler | guidance | inside the blocks | names | proven |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.report is None:
            lines.append(f"| {row.name} | | | | | | {row.problem} |")
            continue
        failed = [c.title for c in row.report.checks if not c.passed]
        state = "yes" if row.report.passed else "NO: " + "; ".join(failed)
        count = next(c.names for c in row.report.checks if c.title.startswith("every name"))
        lines.append(f"| {row.family} | {row.pipeline} | {row.scheduler} | {row.guidance} | {row.sites} | {count} | {state} |")
    lines += [
        "",
        "These are all video pipelines of diffusers around the transformers of these families, but for those that are refused",
        "(below). For a pipeline of your own, or from elsewhere, `cos models check MODEL` or `check_adapter(pipe)` tells.",
    ]
    lines += ["", "## What is proven for each name", ""]
    reference = next(row.report for row in rows if row.report is not None)
    lines += [f"- {check.title}" for check in reference.checks]
    lines += ["", "## Notes", ""]
    adapters = {a.family: a for a in registry().values()}
    lines += [f"- {family}: {adapters[family].notes}." for family in sorted(adapters) if adapters[family].notes]
    lines += ["", "## Not supported", "", "Loading says the same.", ""]
    lines += [f"- `{name}`: {reason}." for name, reason in {**REASONS, **PIPELINES}.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for name in tiny.TINY:
        rows.append(check(name))
        print(
            name,
            "ok" if rows[-1].report and rows[-1].report.passed else rows[-1].problem or str(rows[-1].report),
            file=sys.stderr,
        )
    Path(sys.argv[1]).write_text(as_markdown(rows))
    if any(row.report is not None and not row.report.passed for row in rows):
        sys.exit("not every name is proven")


if __name__ == "__main__":
    main()
