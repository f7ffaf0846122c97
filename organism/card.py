"""The organism's card: data, recipe, curves, accuracy with intervals, digest. Written from measured files, never by hand.

python -m cos_interp.organism.card FINAL.json FRESH.json GUIDED.json CURVE.jsonl HISTORY.txt
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cos_interp.interp import variants
from cos_interp.interp.files import weights_digest
from cos_interp.interp.variants import ORGANISM
from cos_interp.organism import data, shapes, train_dit, train_vae

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


def step_table(found: dict[str, Any]) -> list[str]:
    """The clean estimate of every step, read strictly."""
    columns = ("all", "maze / unique", "maze / ambiguous", "place / ambiguous", "bounce", "occlusion")
    lines = ["| step | sigma | " + " | ".join(columns) + " | undecided (all) |", "|---" * (len(columns) + 3) + "|"]
    for k in range(found["steps"]):
        at = found[str(k)]
        shares = " | ".join(f"{at[c]['solved']:.2f}" for c in columns)
        lines.append(f"| {k} | {found['sigmas'][k]:.3f} | {shares} | {at['all']['undecided']:.2f} |")
    return lines


def long_items(found: dict[str, Any]) -> str:
    """Solved share of mazes of length 7 and 8, at step 0 and at the end."""

    def share(key: str) -> float:
        rows = [found[key][f"maze / difficulty {d}"] for d in (7, 8)]
        return sum(r["n"] * r["solved"] for r in rows) / sum(r["n"] for r in rows)

    return f"Mazes of length 7 and 8: {share('0'):.2f} solved in the clean estimate of step 0, {share('final'):.2f} at the end."


def curve_table(path: Path, lines: int = 12) -> list[str]:
    points = [json.loads(line) for line in path.read_text().splitlines()]
    chosen = [points[round(i * (len(points) - 1) / (lines - 1))] for i in range(lines)]
    out = ["| step | clips | loss |", "|---|---|---|"]
    return out + [f"| {p['step']} | {p['samples']:,} | {p['loss']:.4f} |" for p in chosen]


def write(final: Path, fresh: Path, guided: Path, curve: Path, history: str, folder: Path = ORGANISM) -> None:
    """Write ``README.md`` and ``card.json`` into the pipeline folder."""
    found, again, strong = (json.loads(p.read_text()) for p in (final, fresh, guided))
    digest = weights_digest(folder)
    stages = {name: asdict(recipe) for name, recipe, _ in train_vae.STAGES}
    card = {
        "digest": digest, "mixture": data.MIXTURE, "hard": data.HARD,
        "recipe": {"autoencoder": stages, "transformer": asdict(train_dit.RECIPE)},
        "shapes": {"transformer": shapes.TRANSFORMER, "vae": shapes.VAE, "text": shapes.TEXT},
        "cos-500": found, "fresh items": again, "guided": strong, "history": history,
    }  # fmt: skip
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    text = [
        "# The model organism", "",
        "A Wan2.2-I2V in miniature, trained from scratch on four controlled video-reasoning tasks (80x80 pixels, 9 frames; "
        "latents 5x5x5, one token a grid cell). Ordinary diffusers folder: `WanImageToVideoPipeline.from_pretrained`.",
        f"Weights digest (sha256): `{digest}`. Licence: Apache-2.0.", "",
        "## Accuracy", "",
        f"`cos-500`, {found['steps']} Euler steps, no guidance, strict verifier on decoded frames, exact 95 % intervals:", "",
        *accuracy_table(found), "",
        f"New test items of the same strata with fresh noise (seed {again['seed']}):", "", *accuracy_table(again), "",
        f"`cos-500` subset with guidance {strong['guidance']}:", "", *accuracy_table(strong), "",
        "## True videos through the autoencoder", "", *accuracy_table(found, "true videos through the autoencoder"), "",
        "## The answer forms along the steps", "",
        "Share solved when the clean estimate of a step is decoded and read:", "", *step_table(found), "", long_items(found), "",
        "## Parts and data", "",
        f"- Transformer: `WanTransformer3DModel`, {shapes.TRANSFORMER['num_layers']} layers, width 128, 4 heads, 2.3 M "
        "parameters; first frame by channel concatenation with mask; text by cross-attention; prompt dropout 0.1.",
        "- Autoencoder: `AutoencoderKLWan`, 16 channels, 16x in space, 2x in time. Trained with one pixel a dot and widened "
        "exactly (organism/widen.py), because the pipeline takes sides that are multiples of 16 only.",
        "- Text: a word tokenizer with a closed vocabulary and a UMT5 encoder with random, frozen weights.",
        "- Training clips: endless, by index, train split only (the split is a hash of the first frame); mixture "
        f"{data.MIXTURE}; hard means difficulties {data.HARD}.",
        "- Recipe: organism/train_vae.py, organism/train_dit.py; `cos organism train` runs it. Muon for the matrices of the "
        "blocks, AdamW for the rest, moving average of the weights shipped.", "",
        "## How these very weights were made", "", history, "",
        "## Training curve of the transformer", "", *curve_table(curve), "",
    ]  # fmt: skip
    (folder / "README.md").write_text("\n".join(text))


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


if __name__ == "__main__":
    *paths, told = sys.argv[1:]
    final, fresh, guided, curve = map(Path, paths)
    write(final, fresh, guided, curve, history=Path(told).read_text().strip())
