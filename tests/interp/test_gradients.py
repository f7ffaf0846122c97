"""Gradients against plain autograd over the whole unrolled generation, and against what small edits do."""

from __future__ import annotations

import inspect
import weakref

import diffusers
import pytest
import torch

from cos_interp.interp import HookedVideoPipeline, InterpError, UnknownHook, tiny
from cos_interp.interp.run.latents import canonical
from cos_interp.interp.run.prediction import SUPPORTED

SITE = "blocks.1.hook_resid_post"
NEAR = 2e-5  # of the largest number of a gradient: what float32 rounds, in another order of sums
EDITED = 1e-3  # of what a small edit does: rounding of the difference, and curvature


def model_of(name: str, scheduler=None) -> HookedVideoPipeline:
    return HookedVideoPipeline.from_pipeline(tiny.build(name, scheduler))


def number(latents: torch.Tensor) -> torch.Tensor:
    """A metric that is neither linear nor the same in every place."""
    weights = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    return (latents.double() * weights).sum() + 0.1 * latents.double().pow(2).sum()


def unrolled(name: str, call: dict, site: str, scheduler=None) -> tuple[float, list[torch.Tensor]]:
    """The metric and, a forward of the transformers, its gradient at a block's output (in the model's own layout): by plain
    PyTorch, with the pipeline's own loop unrolled in memory, and forward hooks that add zeros."""
    pipe, zeros = tiny.build(name, scheduler), []
    model = model_of(name, scheduler)  # says where the module is, and in which layout latents are
    run, point = model.run(seed=0, **call), model.engines["transformer"].points[site]

    def add(module, args, output):
        value = output if point.site.item is None else output[point.site.item]
        zeros.append(torch.zeros_like(value).requires_grad_())
        new = value + zeros[-1]
        return new if point.site.item is None else (*output[: point.site.item], new, *output[point.site.item + 1 :])

    for expert in (e for e in (pipe.transformer, getattr(pipe, "transformer_2", None)) if e is not None):
        expert.requires_grad_(False).get_submodule(point.path).register_forward_hook(add)
    raw, generator = inspect.unwrap(type(pipe).__call__), torch.Generator().manual_seed(0)
    with torch.enable_grad():
        latents = raw(pipe, **call, generator=generator, output_type="latent", return_dict=False)[0]
        latents = canonical(latents, model.adapter.layout, run.dims)
        value = number(latents * (run.latents.norm() / latents.detach().norm()))  # some pipelines return them in another scale
    torch.testing.assert_close(latents * (run.latents.norm() / latents.norm()), run.latents)
    return float(value), list(torch.autograd.grad(value, zeros))


# one forward a branch, two experts, both branches in one forward, attention by the row, latents as tokens, text beside the video
UNROLLED = ("wan2.1", "wan2.2", "cogvideox", "mochi", "ltx", "hunyuan1.5", "skyreels-v2")


def agrees(found, value: float, expected: list[torch.Tensor]) -> None:
    """Gradients of all calls are those of the unrolled generation; some are not 0."""
    assert found.value == pytest.approx(value, rel=1e-5)
    assert set(found.cache) == {(SITE, call.step, call.branch) for call in found.run.calls}
    largest = max(float(gradient.abs().max()) for gradient in expected)
    assert largest > 0
    for call in found.run.calls:
        together = [c.branch for c in found.run.calls if c.forward == call.forward]
        own = expected[call.forward].chunk(len(together))[together.index(call.branch)]
        mine = found.cache[SITE, call.step, call.branch].flatten(1, 3)
        assert mine.shape == own.shape
        assert float((mine - own).abs().max()) <= NEAR * float(own.abs().max()) + 1e-9 * largest, call


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("name", UNROLLED)
def test_all_steps_and_branches_are_those_of_the_unrolled_generation(name, guided):
    call, model = tiny.call(name, guided=guided, steps=4), model_of(name)
    run = model.run(seed=0, **call)
    before = model.block_calls
    found = model.gradients(number, run=run, names=SITE)
    assert found.run is run
    assert model.block_calls - before == len(run.calls) * model.layers  # one forward of each call, and no more
    if name == "wan2.2":
        assert {call.expert for call in run.calls} == {"transformer", "transformer_2"}
    agrees(found, *unrolled(name, call, SITE))


FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
SOLVERS = [
    ("wan2.1", "FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    ("wan2.1", "FlowMatchLCMScheduler", {"shift": 3.0}),
    ("wan2.1", "UniPCMultistepScheduler", FLOW),
    ("wan2.1", "UniPCMultistepScheduler", FLOW | {"solver_order": 3, "solver_type": "bh1"}),
    ("wan2.1", "DPMSolverMultistepScheduler", FLOW),
    ("wan2.1", "DPMSolverMultistepScheduler", FLOW | {"solver_order": 3, "solver_type": "heun"}),
    ("cogvideox", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    ("cogvideox", "DDIMScheduler", {"clip_sample": True}),
    ("cogvideox", "DDPMScheduler", {}),
    ("cogvideox", "CogVideoXDDIMScheduler", {"prediction_type": "v_prediction"}),
    ("cogvideox", "CogVideoXDPMScheduler", {"prediction_type": "v_prediction"}),
    ("allegro", "EulerDiscreteScheduler", {}),
    ("allegro", "EulerAncestralDiscreteScheduler", {}),
    ("cosmos1", "EDMEulerScheduler", {"sigma_data": 0.5, "sigma_max": 80.0, "sigma_min": 0.002}),
]


def test_every_solver_that_can_be_followed_is_tried():
    assert {kind for _, kind, _ in SOLVERS} == set(SUPPORTED)


@pytest.mark.parametrize(("name", "kind", "settings"), SOLVERS)
def test_solvers_are_followed_with_what_they_remember(name, kind, settings):
    scheduler = getattr(diffusers, kind)
    call, model = tiny.call(name, steps=5), model_of(name, scheduler(**settings))
    run = model.run(seed=0, **call)
    value, expected = unrolled(name, call, SITE, scheduler(**settings))
    agrees(model.gradients(number, run=run, names=SITE), value, expected)
