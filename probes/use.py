"""Is what a probe reads used? Erase or steer its directions while the model generates, with random directions as control.

Edits are functions ``(activation [..., d_model], hook) -> activation`` for ``model.run_with_hooks``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from cos_interp.interp.hooking import EditFn
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.trajectory import Run
from cos_interp.probes.arrays import plain
from cos_interp.probes.errors import ProbeError
from cos_interp.probes.estimator import LinearProbe


@dataclass(frozen=True)
class Erasure:
    """``x - (x - mean) @ reads.T @ writes``: ``reads``, ``writes`` ``[rank, d_model]``, ``mean [d_model]``. An orthogonal
    projection has ``reads == writes`` orthonormal; LEACE's is oblique."""

    reads: np.ndarray
    writes: np.ndarray
    mean: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x - (x - self.mean) @ self.reads.T @ self.writes

    @property
    def rank(self) -> int:
        return len(self.reads)


def mean_ablation(basis: np.ndarray, mean: np.ndarray) -> Erasure:
    """Set the coordinates along ``basis`` (orthonormal rows) to their mean over the data."""
    return Erasure(basis, basis, mean)


ENOUGH = 10  # rows a dimension; with fewer the covariance is shrunk


def covariance(X: np.ndarray) -> np.ndarray:
    """Of the rows of ``X``, ``[d_model, d_model]``; under ``ENOUGH`` rows a dimension shrunk to a sphere (Ledoit & Wolf 2004):
    whitening blows up the directions in which a few rows happen not to vary."""
    return ledoit_wolf(X)[0] if len(X) < ENOUGH * X.shape[1] else np.cov(X, rowvar=False, bias=True)


def whitening(X: np.ndarray, tolerance: float = 1e-6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean ``[d_model]`` of the data, ``Cov^(-1/2)`` (pseudo-inverse) and ``Cov^(1/2)``, both ``[d_model, d_model]``."""
    X = X.astype(np.float64)
    mean = X.mean(0)
    values, axes = np.linalg.eigh(covariance(X))
    kept = values > tolerance * values.max()
    root = np.sqrt(np.where(kept, values, 1.0))
    return mean, (axes * np.where(kept, 1 / root, 0)) @ axes.T, (axes * np.where(kept, root, 0)) @ axes.T


def leace(X: np.ndarray, y: np.ndarray, tolerance: float = 1e-6) -> Erasure:
    """The smallest change after which no linear probe can read the label: LEACE (Belrose et al. 2023, theorem 4.3).

    ``r(x) = x - W^+ P W (x - mean)`` with the whitening ``W = Cov(x)^(-1/2)`` and ``P`` the orthogonal projection onto the
    columns of ``W Cov(x, z)``; z is the label as indicators (classes) or as it is (values).
    """
    X, y = plain(X), np.asarray(plain(y))
    if X.ndim != 2 or len(y) != len(X) or not np.isfinite(X).all():
        raise ProbeError(f"LEACE needs X [row, d_model] of finite numbers and a label a row, got {X.shape} and {y.shape}")
    Z = y.reshape(len(y), -1) if y.dtype.kind == "f" else (y[:, None] == np.unique(y)).astype(float)
    mean, whiten, colour = whitening(X, tolerance)
    covariance = (X - mean).T @ (Z - Z.mean(0)) / len(X)
    columns, sizes, _ = np.linalg.svd(whiten @ covariance, full_matrices=False)
    columns = columns[:, sizes > tolerance * max(sizes[0], 1e-30)]
    return Erasure(columns.T @ whiten, columns.T @ colour, mean)


def random_erasure(X: np.ndarray, rank: int, seed: int = 0) -> Erasure:
    """As LEACE for a label without meaning: random directions of the whitened data, so that what is removed varies as the
    activations do. The same seed gives like directions for like data, as of neighbouring steps."""
    mean, whiten, colour = whitening(X)
    columns = np.linalg.qr(np.random.default_rng([seed, 3]).standard_normal((X.shape[1], rank)))[0]
    return Erasure(columns.T @ whiten, columns.T @ colour, mean)


Change = Callable[[Tensor, Any], Tensor]  # an edit that always changes


def erase(erasure: Erasure) -> Change:
    """The edit that erases."""
    reads, writes, mean = (torch.tensor(a) for a in (erasure.reads, erasure.writes, erasure.mean))

    def edit(act: Tensor, hook: Any) -> Tensor:
        wide = act.double()
        return (wide - (wide - mean.to(wide)) @ reads.to(wide).T @ writes.to(wide)).to(act.dtype)

    return edit


def matched_control(edit: Change, along: Change) -> Change:
    """At every token a change as long as the real edit's, in the direction in which ``along`` would move it: the same dose."""

    def control(act: Tensor, hook: Any) -> Tensor:
        wide = act.double()
        dose = (edit(act, hook).double() - wide).norm(dim=-1, keepdim=True)
        away = along(wide, hook) - wide
        return (wide + away * dose / away.norm(dim=-1, keepdim=True).clamp_min(1e-12)).to(act.dtype)

    return control


def steer(probe: LinearProbe, strength: float, towards: Any = None) -> Change:
    """Move every token by ``strength`` (in units of the activations) along the probe's direction of a class."""
    if isinstance(strength, bool) or not isinstance(strength, int | float | np.number) or not np.isfinite(strength):
        raise ProbeError(f"strength={strength!r}: give a finite number")
    direction = torch.tensor(probe.direction(towards))

    def edit(act: Tensor, hook: Any) -> Tensor:
        return act + strength * direction.to(act)

    return edit


def interchange(along: Erasure, given: Tensor, tokens: Tensor, dose: float = 1.0) -> Change:
    """The edit that gives some tokens (bool ``[frame, row, col]``) what ``along`` would erase of another run, read in ``given``,
    its activation at the same place and step. At dose 2 twice as far, and so on (Geiger et al. 2021)."""
    reads, writes = torch.tensor(along.reads), torch.tensor(along.writes)

    def edit(act: Tensor, hook: Any) -> Tensor:
        wide = act.double().flatten(4)
        moved = (given.to(wide).flatten(4) - wide) @ reads.to(wide).T @ writes.to(wide)
        return (wide + dose * moved * tokens.to(act.device)[..., None]).reshape(act.shape).to(act.dtype)

    return edit


def by_step(edits: dict[int, EditFn]) -> EditFn:
    """Each step with its own edit, because activations move with sigma; steps without one stay as they are."""
    return lambda act, hook: edits[hook.step](act, hook) if hook.step in edits else None


def edits_for(
    probe: LinearProbe, X: np.ndarray, y: np.ndarray, strength: float | None = None, towards: Any = None, seed: int = 0
) -> dict[str, Change]:
    """The edits of a fair test, by name: ``erase`` and ``leace`` each with a random control of the same dose, and ``steer`` with
    its control. ``strength`` defaults to two standard deviations of the activations along the direction."""
    X, y = plain(X), plain(y)
    basis, scrubbed = probe.basis(), leace(X, y)
    out = {"erase": erase(mean_ablation(basis, X.mean(0).astype(np.float64))), "leace": erase(scrubbed)}
    along = {"erase": random_erasure(X, len(basis), seed), "leace": random_erasure(X, scrubbed.rank, seed)}
    controls = {name: erase(erasure) for name, erasure in along.items()}
    if towards is None and probe.classifies:
        towards = probe.classes_[-1]
    if len(probe.coef_) == 1 or probe.classifies:
        direction = probe.direction(towards)
        out["steer"] = steer(probe, 2 * float((X @ direction).std()) if strength is None else strength, towards)
        other = torch.tensor(random_erasure(X, 1, seed).writes[0])
        controls["steer"] = lambda act, hook: act + other.to(act)
    return out | {f"{name}, random": matched_control(edit, controls[name]) for name, edit in out.items()}


def is_it_used(
    model: HookedVideoPipeline, address: str, edits: dict[str, EditFn], calls: Sequence[dict[str, Any]],
    judge: Callable[[int, Run], float],
) -> list[dict[str, Any]]:  # fmt: skip
    """Score clips with each edit at an address ("blocks.4.hook_resid_post @ step=6:") and without any (``none``).

    ``judge(i, run)`` scores the run of call ``i``, e.g. 1 when a verifier accepts its video. One row a clip and condition:
    ``clip, edit, score, moved`` (relative change of the final latent).
    """
    if not calls:
        raise ProbeError("is it used? needs at least one clip to generate")
    rows = []
    for i, call in enumerate(calls):
        plain = model.run(**call)
        rows.append({"clip": i, "edit": "none", "score": float(judge(i, plain)), "moved": 0.0})
        for name, edit in edits.items():
            run = model.run_with_hooks(fwd_hooks=[(address, edit)], **call)
            moved = float((run.latents - plain.latents).norm() / plain.latents.norm())
            rows.append({"clip": i, "edit": name, "score": float(judge(i, run)), "moved": moved})
    return rows
