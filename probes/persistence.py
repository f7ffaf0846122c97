"""Probes on disk: coefficients in safetensors, everything about them in a JSON card. No pickle. It knows probes, not grids."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load, save

from cos_interp.interp.files import plain, read_regular, read_sealed_json, sealed_json, write_atomic
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.probes.collect import model_digest
from cos_interp.probes.errors import ProbeError
from cos_interp.probes.estimator import LinearProbe

Cell = tuple[str, int]  # hook name and step
CARD, COEFFICIENTS = "card.json", "probes.safetensors"
FORMAT = 2  # the card seals itself


def versions() -> dict[str, str]:
    return {p: version(p) for p in ("scikit-learn", "numpy", "torch", "diffusers")}


def save_probes(folder: Path, probes: dict[Cell, LinearProbe], about: dict[str, Any]) -> Path:
    """Write fitted probes with what the card says ``about`` them, the card last, so that a folder with a card is whole."""
    if not probes:
        raise ProbeError("this grid holds no fitted probes: call fit with refit=True before save")
    tensors: dict[str, np.ndarray] = {}
    cells = []
    for number, ((name, step), probe) in enumerate(probes.items()):
        key = f"{number:05d}"
        tensors |= {f"{key}.{k}": np.ascontiguousarray(v) for k, v in _arrays(probe).items()}
        cells.append({"key": key, "name": name, "step": step, **_facts(probe)})
    data = save(tensors)
    facts = {"versions": versions(), "cells": cells, "sha256": hashlib.sha256(data).hexdigest()}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / COEFFICIENTS, data)
    write_atomic(folder / CARD, sealed_json(plain({"format": FORMAT, **about, **facts})))
    return folder


def _arrays(probe: LinearProbe) -> dict[str, np.ndarray]:
    return {"coef": probe.coef_, "intercept": probe.intercept_}


def _facts(probe: LinearProbe) -> dict[str, Any]:
    classes = probe.classes_.tolist() if probe.classifies else None
    outputs = None if probe.classifies else probe.outputs_
    return {"params": probe.get_params(), "strength": probe.strength_, "classes": classes, "outputs": outputs,
            "shape": list(probe.coef_.shape)}  # fmt: skip


def read_card(folder: Path) -> dict[str, Any]:
    """The card of saved probes; ProbeError where there is none, or it or the coefficients are damaged."""
    path = folder / CARD
    try:
        card = read_sealed_json(read_regular(path))
    except OSError as error:
        raise ProbeError(f"{folder} holds no probes ({CARD}: {error.strerror}): train some with cos probe train") from error
    except ValueError as error:  # cards of 0.1 had no seal
        raise ProbeError(f"{path} is damaged, or was made by version 0.1 ({error}): train the probes again") from error
    if card.get("format") == FORMAT:
        _tensors(folder, card)  # without which a card says nothing
    else:
        raise ProbeError(f"{path} has format {card.get('format')}; this version reads {FORMAT}: train the probes again")
    return card


def load_probes(
    folder: Path, model: HookedVideoPipeline | None = None, force: bool = False
) -> tuple[dict[Cell, LinearProbe], dict[str, Any]]:
    """Probes and their card; ProbeError for a damaged file, a wrong shape, or a model with other weights (unless ``force``)."""
    card = read_card(folder)
    if model is not None and not force:
        _same_model(card, model, folder)
    tensors = _tensors(folder, card)
    return {(cell["name"], cell["step"]): _probe(cell, tensors, folder) for cell in card["cells"]}, card


def _tensors(folder: Path, card: dict[str, Any]) -> dict[str, np.ndarray]:
    path = folder / COEFFICIENTS
    try:
        data = read_regular(path)
    except OSError as error:
        raise ProbeError(f"{path} cannot be read ({error.strerror}): train the probes again") from error
    if hashlib.sha256(data).hexdigest() != card["sha256"]:
        raise ProbeError(f"{path} has changed since it was written (its digest differs from the card's): train the probes again")
    try:
        return load(data)
    except safetensors.SafetensorError as error:
        raise ProbeError(f"{path} is damaged ({error}): train the probes again") from error


def _probe(cell: dict[str, Any], tensors: dict[str, np.ndarray], folder: Path) -> LinearProbe:
    probe = LinearProbe(**cell["params"])
    coef, intercept = tensors.get(f"{cell['key']}.coef"), tensors.get(f"{cell['key']}.intercept")
    where = f"{folder}: the probe of {cell['name']} at step {cell['step']}"
    if coef is None or intercept is None:
        raise ProbeError(f"{where} has no coefficients: train the probes again")
    outputs = len(cell["classes"]) if cell["classes"] and len(cell["classes"]) > 2 else len(coef)
    if list(coef.shape) != cell["shape"] or coef.shape[:1] != intercept.shape or len(coef) != outputs:
        raise ProbeError(f"{where}: coefficients of shape {coef.shape} and {intercept.shape}, the card says {cell['shape']}")
    probe.coef_, probe.intercept_, probe.strength_, probe.n_features_in_ = coef, intercept, cell["strength"], coef.shape[1]
    if probe.classifies:
        probe.classes_ = np.array(cell["classes"])
    else:
        probe.outputs_ = cell["outputs"]
    return probe


def _same_model(card: dict[str, Any], model: HookedVideoPipeline, folder: Path) -> None:
    wanted, found = card["model"].get("digest"), model_digest(model)
    if wanted != found:
        raise ProbeError(
            f"{folder} was trained on {card['model'].get('name')} with weights {str(wanted)[:12]}; {model.name} has "
            f"{found[:12]}: its directions mean nothing there. Train probes on this model, or force it"
        )


def saved(folder: Path) -> list[Path]:
    """Folders of saved probes below a folder (or the folder itself)."""
    return sorted({p.parent for p in [*folder.glob(CARD), *folder.glob(f"*/{CARD}"), *folder.glob(f"*/*/{CARD}")]})
