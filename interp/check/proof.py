"""Proof that the names of a pipeline mean what they say: run on every family by the tests, and on your own by you.

    from cos_interp.interp.check import check_adapter
    print(check_adapter(pipe, prompt="a ball", height=256, width=256, num_frames=9, num_inference_steps=2))

Nothing is compared with stored numbers: each check compares the instrument with the untouched pipeline, with plain forward
hooks, or with what must hold algebraically.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cos_interp.interp.call import keywords_of, own_words
from cos_interp.interp.check.parts import Probe, identities, token_order
from cos_interp.interp.errors import InterpError
from cos_interp.interp.families import adapter_for, tiny
from cos_interp.interp.families.sites import EXPERTS
from cos_interp.interp.hooking import TRAJECTORY
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patches import Patch
from cos_interp.interp.patching import Recording, record, replay
from cos_interp.interp.sharing import Shared, is_all
from cos_interp.interp.views import GRID, take


@dataclass(frozen=True)
class Check:
    """One check: what was proven, on how many names, and what contradicts it."""

    title: str
    names: int
    problems: list[str]

    @property
    def passed(self) -> bool:
        return not self.problems


@dataclass
class CheckReport:
    """All checks of one pipeline."""

    pipeline: str
    family: str
    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        lines = [f"{self.pipeline} ({self.family}): {'all checks pass' if self.passed else 'NOT proven'}"]
        for check in self.checks:
            lines.append(f"  {'ok  ' if check.passed else 'FAIL'} {check.title} ({check.names})")
            lines += [f"       {problem}" for problem in check.problems[:5]]
        return "\n".join(lines)


def check_adapter(pipe: Any, seed: int | list[int] = 0, **call: Any) -> CheckReport:
    """Check every advertised name of a pipeline with a small generation; ``call`` are the pipeline's keywords.

    ``pipe`` is a pipeline or a HookedVideoPipeline; ``seed`` and ``prompt`` may be lists, for a batch of videos. Takes one
    forward of the transformer for every name, and some runs. Raises InterpError where a site cannot be read at all.
    """
    model = pipe if isinstance(pipe, HookedVideoPipeline) else HookedVideoPipeline.from_pipeline(pipe)
    report = CheckReport(type(model.pipe).__name__, model.adapter.family)
    probe = Probe(model, {**call, "seed": seed})
    for title, check in (
        ("the run equals that of the untouched pipeline, bit for bit", unchanged),
        ("every name is there at every step and branch", fires),
        ("values have the axes [batch, frame, row, col, ..] of the latent", shapes),
        ("values equal plain forward hooks, bit for bit", plain_hooks),
        ("identity edits at all names leave the run bit-equal", identity_edits),
        ("an edit changes the output of the transformer", edits),
        ("one perturbed latent cell moves its token and no other", token_order),
        ("algebraic identities: pattern, projection, residual sums", identities),
        ("a replayed patch equals the same edit in a full run, bit for bit", replays),
        ("another prompt changes cond, and not uncond", prompts),
    ):
        found = list(check(probe))
        report.checks.append(Check(title, sum(n for n, _ in found), [p for _, p in found if p]))
    return report


Outcome = Iterator[tuple[int, str | None]]  # (names looked at, what is wrong)


def unchanged(probe: Probe) -> Outcome:
    """The pipeline alone against the pipeline under the instrument, read everywhere."""
    plain, found = probe.untouched(), probe.as_returned()
    yield 1, None if torch.equal(found[:, :, -plain.shape[2] :], plain) else "the final latents differ"


def fires(probe: Probe) -> Outcome:
    steps, branches = range(probe.run.steps), probe.run.branches
    for name in probe.model.hook_names:
        wanted = {(k, None) for k in steps} if name in TRAJECTORY else {(k, b) for k in steps for b in branches}
        found = {(k, b) for n, k, b in probe.cache if n == name}
        yield 1, None if found == wanted else f"{name}: {len(found)} of {len(wanted)} values"


def shapes(probe: Probe) -> Outcome:
    rows, grid = probe.run.x_t[0].shape[0], probe.grid.shape
    width, heads = probe.engine.adapter.width(probe.engine.module)
    for name, step, branch in probe.cache:
        value, axes = probe.cache[name, step, branch or "cond"], probe.cache.axes[name]
        sizes = dict(zip(axes, value.shape, strict=True))
        want = {"batch": rows} | ({} if "channel" in axes else {a: s for a, s in zip(GRID, grid) if a in axes})
        want |= {"d_model": width} if name.endswith("hook_resid_post") else {}
        want |= {"head": heads} if name.endswith(".attn.hook_q") else {}
        wrong = {a: (sizes[a], n) for a, n in want.items() if sizes[a] != n}
        said = ", ".join(f"{axis} is {found}, not {n}" for axis, (found, n) in wrong.items())
        yield 1, f"{name}: {said}" if wrong else None


def plain_hooks(probe: Probe) -> Outcome:
    """Sites at a module boundary, at the first step, against hooks that PyTorch itself calls."""
    points = [p for p in probe.engine.points.values() if p.key in ("input", "output") and p.kind != "latent"]
    seen = probe.forward_hooks({(p.path, p.key) for p in points})
    for point in points:
        for forward, raw in enumerate(seen[point.path, point.key]):
            item = point.site.item or 0 if point.key == "input" else point.site.item
            value = raw if item is None else raw[item]
            expected = take(value, point.kind, probe.grid, point.site.part, point.site.fold)
            calls = [c for c in probe.run.calls if c.forward == forward]
            parts = expected.chunk(len(calls))
            same = all(torch.equal(probe.cache[point.name, c.step, c.branch], e) for c, e in zip(calls, parts, strict=True))
            yield 1, None if same else f"{point.name} differs from a forward hook on {point.path or 'the transformer'}"


def identity_edits(probe: Probe) -> Outcome:
    names = [n for n in probe.model.hook_names if n != "hook_x0hat"]  # (x - (x - s v)) / s rounds
    run = probe.model.run_with_hooks(fwd_hooks=[(name, lambda act, hook: act) for name in names], **probe.call)
    yield len(names), None if torch.equal(run.latents, probe.run.latents) else "the final latents differ"


def edits(probe: Probe) -> Outcome:
    base = probe.outputs({})
    for name in probe.engine.points:
        changed = probe.outputs({name: lambda act, rows: act * 1.5 + 0.1})
        same = all(torch.equal(a, b) for a, b in zip(changed, base, strict=True))
        yield 1, f"{name} changes nothing" if same else None


def replays(probe: Probe) -> Outcome:
    """At the first, the middle and the last layer: a patched replay against the same edit in a full run of one video."""
    if probe.run.x_t[0].shape[0] > 1:
        return
    model, step = probe.model, probe.run.steps - 1
    try:
        target = record(model, [n for n in model.hook_names if n.endswith("attn.hook_z")], **probe.call)
        for layer in sorted({0, model.layers // 2, model.layers - 1}):
            names = [f"blocks.{layer}.{s}" for s in ("hook_resid_post", "attn.hook_z")]
            for name in (n for n in names if n in model.hook_names):
                donor = lambda k, b, name=name: target.cache[name, k, b] * 0.5
                found = replay(model, target, [Patch(name, (step,), donor)])
                hooks = [(f"{name} @ step={step}, branch=cond", lambda act, hook: act * 0.5)]
                expected = model.run_with_hooks(fwd_hooks=hooks, **probe.call).latents
                yield 1, None if torch.equal(found, expected) else f"{name}: the replay differs by {_gap(found, expected)}"
        yield from _starts(probe, target)
    except InterpError as error:
        yield 1, f"refused: {error}"


def _starts(probe: Probe, target: Recording) -> Outcome:
    """An edit of a whole residual stream at the last step, after one from the first on with which it shares its calls."""
    model, engine, last = probe.model, probe.engine, probe.run.steps - 1
    alone = (n for n in range(model.layers) if is_all(engine, n) and not engine.adapter.rereads(engine.module, n))
    if (layer := next(alone, None)) is None:
        return
    name, shared = f"blocks.{layer}.hook_resid_post", Shared()
    donor = lambda step, branch: target.cache[name, step, branch] * 0.5
    for first in (0, last):
        found = replay(model, target, [Patch(name, slice(first, None), donor, target.run.branches)], shared)
    hooks = [(f"{name} @ step={last}", lambda act, hook: act * 0.5)]
    expected = model.run_with_hooks(fwd_hooks=hooks, **probe.call).latents
    yield 1, None if torch.equal(found, expected) else f"{name}: what follows also depends on the latents: see Adapter.rereads"


def prompts(probe: Probe) -> Outcome:
    """At the first step, where only the prompt differs; nothing to say for one branch, or a call without ``prompt``."""
    prompt = probe.call.get("prompt")
    if prompt is None or set(probe.run.branches) != {"cond", "uncond"}:
        return
    other = [_reversed(p) for p in prompt] if isinstance(prompt, list) else _reversed(prompt)
    run = probe.model.run(**{**probe.call, "prompt": other})
    moved = {"cond": 0.0, "uncond": 0.0}
    for mine, yours, call in zip(probe.run.outputs, run.outputs, run.calls):
        if call.step == 0:
            moved[call.branch] = float((mine[0] - yours[0]).abs().max())
    if not any(moved.values()):  # a prompt of which the text encoder keeps nothing
        return
    found = f"the output of cond moves by {moved['cond']:.1e}, of uncond by {moved['uncond']:.1e}"
    right = moved["cond"] > 10 * moved["uncond"]
    yield 1, None if right else f"{found}: which branch is first? See Adapter.doubled (one forward) and Adapter.in_turn (two)"


def _reversed(prompt: str) -> str:
    """Another prompt of the same length: some pipelines cut the negative prompt to the length of the prompt."""
    words = prompt.split()
    return " ".join(reversed(words)) if len(set(words)) > 1 else prompt[::-1]


def _gap(a: Tensor, b: Tensor) -> str:
    return f"{float((a - b).abs().max()):.1e}" if a.shape == b.shape else f"shapes {tuple(a.shape)} and {tuple(b.shape)}"


def small_call(pipe: Any, prompt: str = "a red ball rolls to the right", steps: int = 2, **wanted: Any) -> dict[str, Any]:
    """Keywords for a small generation with a pipeline: those of ``wanted`` that it takes, and a picture where it needs one.

    ``wanted``: ``height``, ``width`` (pixels), ``frames`` (pixel frames, whatever the pipeline calls them), or its keywords.
    """
    parameters = keywords_of(pipe)
    experts = [expert for name in EXPERTS if (expert := getattr(pipe, name, None)) is not None]
    made: dict[str, Any] = {"prompt": prompt, "num_inference_steps": steps, **adapter_for(experts[0]).needs}
    if "frames" in wanted:
        wanted["num_frames"] = wanted.pop("frames")
    made |= {k: v for k, v in own_words(pipe, wanted).items() if v is not None and k in parameters}
    if "image" in parameters:
        made["image"] = tiny.image(made.get("width") or 256)
        if made.get("height"):
            made["image"] = made["image"].resize((made["image"].width, made["height"]))
    videos = ("video", "pose_video", "face_video", "control_video", "controls")
    missing = [n for n in videos if n in parameters and parameters[n].default in (None, inspect._empty)]
    if missing and "image" not in parameters:
        raise InterpError(
            f"{type(pipe).__name__} needs {missing[0]}: call check_adapter(pipe, {missing[0]}=..., ...) from Python"
        )
    return made
