"""The card of a variant of the organism: what it is, its training, its accuracy with intervals, its digest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cos_interp.interp import variants

TASK_KEYS = (
    "all",
    "maze",
    "occlusion",
    "bounce",
    "place",
    "/ unique",
    "/ ambiguous",
    "maze / ambiguous",
    "place / ambiguous",
)


def accuracy_table(found: dict[str, Any], key: str = "final") -> list[str]:
    lines = ["| items | n | solved | 95 % | wrong | undecided |", "|---|---|---|---|---|---|"]
    for name in (name for name in TASK_KEYS if name in found[key]):
        row = found[key][name]
        label = {"/ unique": "all unique", "/ ambiguous": "all ambiguous"}.get(name, name)
        lines.append(
            f"| {label} | {row['n']} | {row['solved']:.3f} | {row['low']:.3f} to {row['high']:.3f} | {row['wrong']:.3f} | "
            f"{row['undecided']:.3f} |"
        )
    return lines


def write_variant(folder: Path, name: str, about: str, training: dict[str, Any], found: dict[str, Any]) -> None:
    """Write ``README.md`` and ``card.json`` of a variant: what it is, how it was trained as far as is known, what it can do."""
    held = {"digest": variants.digest(folder), "about": about, "training": training, "cos-500": found}
    (folder / "card.json").write_text(json.dumps(held, indent=1) + "\n")
    items = found["final"]["all"]["n"]
    known = [f"- {key}: {value}" for key, value in training.items()]
    text = [
        f"# The organism `{variants.PREFIX}{name}`", "", about, "",
        f"Weights digest (sha256): `{held['digest']}`. Licence: Apache-2.0. The transformer is stored in bfloat16 and computes "
        "in float32; what is not in this folder is the shipped organism's (organism/weights).", "",
        "## Accuracy", "",
        f"{items} items of `cos-500`, {found['steps']} Euler steps, no guidance, strict verifier on decoded frames, exact 95 % "
        "intervals; measured on the weights as they are shipped:", "",
        *accuracy_table(found), "",
        "## Training", "", *known, "",
    ]  # fmt: skip
    (folder / "README.md").write_text("\n".join(text))
