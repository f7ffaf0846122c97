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


def write_variant(folder: Path, name: str, about: str, training: dict[str, Any], found: list[dict[str, Any]]) -> None:
    """Write ``README.md`` and ``card.json`` of a variant: what it is, how it was trained as far as known, what it can do (at its
    default guidance first)."""
    held: dict[str, Any] = {"digest": variants.digest(folder), "about": about, "training": training, "cos-500": found[0]}
    if len(found) > 1:
        held["at other guidance"] = found[1:]
    (folder / "card.json").write_text(json.dumps(held, indent=1) + "\n")
    known = [f"- {key}: {value}" for key, value in training.items()]
    rest = f"that of {training['base']}" if variants.base_of(folder) else "the shipped organism's (organism/weights)"
    text = [
        f"# The organism `{variants.PREFIX}{name}`", "", about, "",
        f"Weights digest (sha256): `{held['digest']}`. Licence: Apache-2.0. The weights are stored in bfloat16 and compute "
        f"in float32; what is not in this folder is {rest}.", "",
        "## Accuracy", "",
        *(line for one in found for line in _measured(one)),
        "## Training", "", *known, "",
    ]  # fmt: skip
    (folder / "README.md").write_text("\n".join(text))


def _measured(found: dict[str, Any]) -> list[str]:
    guided = f"guidance {found['guidance']:g}" if found["guidance"] > 1 else "no guidance"
    return [
        f"{found['final']['all']['n']} items of `cos-500`, {found['steps']} Euler steps, {guided}, strict verifier on decoded "
        "frames, exact 95 % intervals; measured on the weights as they are shipped:", "", *accuracy_table(found), "",
    ]  # fmt: skip
