"""Information propagation (CoS section 3.2, figure 3c): disturb one step, compare every later state with the undisturbed run's.

The undisturbed run goes along as row 0 of every batch, so that layer states are compared as they arise and none is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.kept import Clip, kept
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit import cka, perturb
from cos_interp.analyses.kit.problems import Problem, arguments, chosen_steps, each_problem, fits, generate, needs_flow, spread
from cos_interp.analyses.propagation import PropagationConfig, PropagationFacts
from cos_interp.interp.batch import chunks, joined
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.selecting import known_layers
from cos_interp.interp.trajectory import Run

Features = Callable[[Tensor], Tensor]


def compare(clean: Tensor, disturbed: Tensor, features: Features) -> Row:
    """Dissimilarity of two states (one row of a batch each), plain and debiased."""
    x, y = features(clean), features(disturbed)
    return {"dissimilarity": cka.dissimilarity(x, y, False), "debiased": cka.dissimilarity(x, y, True)}


def layers_of(model: HookedVideoPipeline, config: PropagationConfig) -> tuple[int, ...]:
    """The compared layers; InterpError for one that the model does not have."""
    if config.layers is None:
        return tuple(dict.fromkeys((0, (model.layers - 1) // 2, model.layers - 1)))
    return () if config.layers == () else known_layers(config.layers, model.layers)


def disturbed_states(model: HookedVideoPipeline, config: PropagationConfig, problem: Problem, run: Run) -> dict[int, Tensor]:
    """For each disturbed step the state ``[1, channel, frame, row, col]`` that takes the place of ``x_t``."""
    patch = model.patch(run.x_t[0])
    out = {}
    for step in chosen_steps(config, config.num_inference_steps):
        x_t, x0hat, sigma = run.x_t[step], run.x0hat[step], run.sigmas[step]
        noise = perturb.noise_like(x_t, problem.seed, step)
        out[step] = perturb.disturb(x_t, x0hat, sigma, config.mode, config.dose, noise, patch=patch)
    return out


class Comparison:
    """Hooks of one batch: row 0 undisturbed, row i disturbed at ``steps[i - 1]``. Fills ``rows``. ``sigmas``: of all steps, since
    a family may not know that of step 0 yet when its first latents are there."""

    def __init__(self, states: dict[int, Tensor], layers: tuple[int, ...], sigmas: Sequence[float]):
        self.steps, self.states, self.layers, self.sigmas = list(states), states, layers, sigmas
        self.rows: list[Row] = []

    def hooks(self) -> list[tuple[str, Any]]:
        layered = [(f"blocks.{layer}.hook_resid_post @ branch=cond", self.layer) for layer in self.layers]
        return [("hook_x_t", self.x_t), ("hook_x0hat", self.x0hat), *layered]

    def x_t(self, act: Tensor, hook: Any) -> Tensor:
        out = act.clone()
        for row, step in enumerate(self.steps, 1):
            if step == hook.step:
                out[row : row + 1] = self.states[step]
        self.note("x_t", None, hook.step, out, cka.latent_features)
        return out

    def x0hat(self, act: Tensor, hook: Any) -> None:
        self.note("x0hat", None, hook.step, act, cka.latent_features)

    def layer(self, act: Tensor, hook: Any) -> None:
        self.note("layer", hook.layer, hook.step, act, cka.state_features)

    def note(self, tensor: str, layer: int | None, step: int, act: Tensor, features: Features) -> None:
        for row, disturbed in enumerate(self.steps, 1):
            if disturbed <= step:
                at = {"tensor": tensor, "layer": layer, "disturbed": disturbed, "step": step, "sigma": self.sigmas[step]}
                self.rows.append(at | compare(act[0], act[row], features))


def final_rows(run: Run, final: Tensor, states: dict[int, Tensor]) -> list[Row]:
    """The final latents against the undisturbed one, and the control: the displacement carried to the end unchanged."""
    rows = []
    for row, (step, state) in enumerate(states.items(), 1):
        carried = final[:1] + (state - run.x_t[step])
        for tensor, latent in (("x_t", final[row]), ("carried", carried[0])):
            found = compare(final[0], latent, cka.latent_features)
            at = {"tensor": tensor, "layer": None, "disturbed": step, "step": run.steps, "sigma": 0.0}
            rows.append({**at, **found})
    return rows


def measure(model: HookedVideoPipeline, config: PropagationConfig, problem: Problem) -> Unit:
    """A row for every disturbed step, later step (``step``; the number of steps means the final latent) and tensor."""
    run = generate(model, config, problem)
    states = disturbed_states(model, config, problem, run)
    call = arguments(model, config, problem)
    rows: list[Row] = []
    finals: dict[int, Tensor] = {}
    for part in chunks(list(states), config.batch):
        comparison = Comparison({step: states[step] for step in part}, layers_of(model, config), run.sigmas)
        batch = model.run_with_hooks(fwd_hooks=comparison.hooks(), **joined([call] * (1 + len(part))))
        rows += comparison.rows + final_rows(run, batch.latents, comparison.states)
        finals |= dict(zip(part, batch.latents[1:].split(1), strict=True))
    for row in rows:
        row["disturbed_sigma"] = run.sigmas[row["disturbed"]]
    tensors, about = kept(videos(model, problem, run, finals, rows))
    facts = PropagationFacts(
        sigmas=tuple(run.sigmas), prompt=problem.call["prompt"], scheduler=type(model.pipe.scheduler).__name__,
        handoff=handoff(run), **about,
    )  # fmt: skip
    left = noise_kept(run)
    return Unit([{**problem.facts, "noise_kept": left, **row} for row in rows], tensors, facts)


def shown_steps(steps: Sequence[int]) -> list[int]:
    """The disturbed steps whose videos are shown: of many some spread ones."""
    return [steps[k] for k in spread(len(steps))]


def videos(model: HookedVideoPipeline, problem: Problem, run: Run, finals: dict[int, Tensor], rows: Sequence[Row]) -> list[Clip]:
    """For the page, of the first items of a task: some of the disturbed runs' videos with what is said of their final latent,
    then the undisturbed one."""
    if not problem.kept(0):  # whatever the size: nothing is decoded for it
        return []
    undisturbed = run.decode()[0]
    if not problem.kept(undisturbed.nbytes):
        return []
    ends = {row["disturbed"]: k for k, row in enumerate(rows) if row["tensor"] == "x_t" and row["step"] == run.steps}
    clips = [(f"disturbed at step {k}", ends[k], model.decode(finals[k])[0]) for k in shown_steps(list(finals))]
    return [*clips, ("undisturbed", None, undisturbed)]


def noise_kept(run: Run) -> float:
    """The share of the noise that a run begins with that its final latent still holds, by regression.

    0 when all of it is removed, about 1 for a model that does not look at its input.
    """
    noise, final = run.x_t[0].double().flatten() / run.sigmas[0], run.latents.double().flatten()
    return float(noise @ final / (noise @ noise))


def handoff(run: Run) -> int | None:
    """The first step that another expert runs than the step before; None for a model with one expert."""
    for before, after in zip(run.calls, run.calls[1:], strict=False):
        if before.expert != after.expert:
            return after.step
    return None


def check(config: PropagationConfig, model: HookedVideoPipeline) -> None:
    fits(config, model)
    needs_flow(config, model)
    layers_of(model, config)
    chosen_steps(config)


pieces = each_problem
work = each_unit(measure)
