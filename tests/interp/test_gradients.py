"""Gradients against plain autograd over the whole unrolled generation, and against what small edits do."""

from __future__ import annotations

import inspect
import weakref

import diffusers
import pytest
import torch

from cos_interp.interp import HookedVideoPipeline, InterpError, Patch, attribute, record, replay, tiny
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
        latents = latents * (run.latents.norm() / latents.detach().norm())  # some pipelines return them in another scale
        value = number(latents)
    torch.testing.assert_close(latents, run.latents, rtol=1e-4, atol=1e-3)
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
    ("sana-video", "FlowMatchLCMScheduler", {"shift": 3.0}),
    ("wan2.1", "UniPCMultistepScheduler", FLOW),
    ("wan2.1", "UniPCMultistepScheduler", FLOW | {"solver_order": 3}),
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


# --- what small edits do -------------------------------------------------------------------------------------------------


def moved(model, call, metric, address: str, gradient: torch.Tensor, size: float = 0.1) -> float:
    """The slope of a metric along its gradient, by two runs with a small edit at an address; over the slope that it should be."""
    along = gradient / gradient.norm()
    edited = lambda by: model.run_with_hooks(fwd_hooks=[(address, lambda act, hook: act + by * along)], seed=0, **call)
    return float(metric(edited(size)) - metric(edited(-size))) / (2 * size) / float(gradient.norm())


def of_final(run) -> torch.Tensor:
    return number(run.latents)


def places(model, run) -> list[tuple[str, int, str | None]]:
    middle = f"blocks.{model.layers // 2}.hook_resid_post"
    return [("hook_x_t", 0, None), ("hook_x_t", 1, None), (middle, 0, "cond"), (SITE, 1, run.branches[-1])]


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny.TINY)
def test_a_small_edit_moves_the_metric_by_the_gradient_in_every_family(name):
    call, model = tiny.call(name), model_of(name)
    run = model.run(seed=0, **call)
    found = model.gradients(number, run=run, names=["hook_x_t", "blocks.*.hook_resid_post"])
    for site, step, branch in places(model, run):
        address = f"{site} @ step={step}" + ("" if branch is None else f", branch={branch}")
        slope = moved(model, call, of_final, address, found.cache[site, step, branch])
        assert slope == pytest.approx(1, abs=0.02), (site, step, branch)  # Kandinsky's rounding is the largest


SITES = (
    "hook_x_t", "hook_x0hat", "hook_time_emb", "blocks.1.hook_resid_pre", "blocks.1.hook_attn_out", "blocks.1.attn.hook_q",
    "blocks.1.attn.hook_k", "blocks.1.attn.hook_v", "blocks.1.attn.hook_pattern", "blocks.1.attn.hook_z",
    "blocks.1.cross_attn.hook_pattern", "blocks.1.mlp.hook_post", "blocks.2.hook_resid_post", "hook_model_out",
)  # fmt: skip


@pytest.mark.parametrize("name", ["wan2.1", "wan2.2"])
def test_a_small_edit_moves_the_metric_by_the_gradient_at_every_kind_of_site(name):
    call, model = tiny.call(name), model_of(name)
    run = model.run(seed=0, **call)
    sites = [site for site in SITES if site in model.hook_names]
    assert len(sites) >= 13
    found, own = model.gradients(number, run=run, names=sites), model.run_with_cache(names=sites, seed=0, **call)[1]
    assert found.cache.axes == own.axes
    for place, site in enumerate(sites):
        step, branch = place % 3, None if site in ("hook_x_t", "hook_x0hat") else run.branches[place % 2]
        address = f"{site} @ step={step}" + ("" if branch is None else f", branch={branch}")
        gradient = found.cache[site, step, branch]
        size = 0.1 if "pattern" not in site and "time" not in site else 0.01
        assert moved(model, call, of_final, address, gradient, size) == pytest.approx(1, abs=5 * EDITED), address
        assert gradient.shape == own[site, step, branch].shape


@pytest.mark.parametrize(
    "of", ["hook_x0hat @ step=1", "hook_x_t @ step=-1", "blocks.2.attn.hook_pattern @ step=1, branch=uncond, head=1, frame=0"]
)
def test_a_metric_may_be_of_any_hook(of):
    """Its gradient with respect to what lies before it, in the same step and in those before."""
    call, model = tiny.call("wan2.1"), model_of("wan2.1")
    run = model.run(seed=0, **call)
    name, _, _ = of.partition(" @ ")
    seen: list[torch.Tensor] = []
    reads = (of, lambda act, hook: seen.append(act.clone()) or None)

    def number_there(edited) -> torch.Tensor:
        return number(seen[-1])

    found = model.gradients(number, of=of, run=run, names=["hook_x_t", SITE])
    model.run_with_hooks(fwd_hooks=[reads], seed=0, **call)
    assert found.value == pytest.approx(float(number(seen[-1])), rel=1e-6)
    last = max(step for _, step, _ in found.cache)
    assert last == (2 if name == "hook_x_t" else 1)
    for site, step, branch in [("hook_x_t", 0, None), (SITE, 0, "uncond"), (SITE, 0, "cond"), (SITE, 1, "uncond")]:
        gradient = found.cache[site, step, branch]
        along = gradient / gradient.norm()
        values = []
        for by in (0.05, -0.05):
            address = f"{site} @ step={step}" + ("" if branch is None else f", branch={branch}")
            model.run_with_hooks(fwd_hooks=[(address, lambda act, hook, step=by * along: act + step), reads], seed=0, **call)
            values.append(float(number(seen[-1])))
        assert (values[0] - values[1]) / 0.1 / float(gradient.norm()) == pytest.approx(1, abs=5 * EDITED), (site, step, branch)
    if "pattern" in name:  # the conditional branch of the same step has no part in it
        assert not found.cache[SITE, 1, "cond"].any()


# --- what is kept, and what it costs ---------------------------------------------------------------------------------------


def test_gradients_are_selected_and_reduced_as_activations_are():
    call, model = tiny.call("wan2.1"), model_of("wan2.1")
    run = model.run(seed=0, **call)
    whole = model.gradients(number, run=run, names="blocks.*.hook_resid_post").cache
    tokens = {"frame": [1]}
    some = model.gradients(number, run=run, names=SITE, steps=[-1], branches="uncond", tokens=tokens).cache
    assert list(some) == [(SITE, 2, "uncond")] and some.axes[SITE] == ("batch", "token", "d_model")
    assert torch.equal(some[SITE, 2, "uncond"], whole[SITE, 2, "uncond"][:, 1].flatten(1, 2))
    normed = model.gradients(number, run=run, names=SITE, reduce="norm").cache
    assert torch.equal(normed[SITE, 0], whole[SITE, 0].norm(dim=-1))
    alone = model.gradients(number, seed=0, names=SITE, steps="1:3", **call)
    assert sorted({step for _, step, _ in alone.cache}) == [1, 2]
    assert torch.equal(alone.cache[SITE, 1], whole[SITE, 1]) and torch.equal(alone.run.latents, run.latents)


@pytest.mark.parametrize("name", ["wan2.1", "cogvideox"])
def test_in_half_precision_gradients_have_the_direction_of_those_in_float32(name):
    call, found = tiny.call(name), {}
    for dtype in (torch.float32, torch.bfloat16):
        model = HookedVideoPipeline.from_pretrained(f"tiny:{name}", dtype=dtype)
        found[dtype] = model.gradients(lambda latents: latents.float().pow(2).mean(), names=SITE, seed=0, **call).cache
    for key, exact in found[torch.float32].items():
        half = found[torch.bfloat16].store[key]
        assert half.dtype == torch.bfloat16
        assert float(torch.nn.functional.cosine_similarity(half.float().flatten(), exact.flatten(), dim=0)) > 0.98, key


def test_only_the_steps_that_are_needed_run_again():
    call, model = tiny.call("wan2.1", steps=6), model_of("wan2.1")
    run = model.run(seed=0, **call)
    before = model.block_calls
    model.gradients(number, run=run, names=SITE, steps=[4, 5])
    assert model.block_calls - before == 2 * 2 * model.layers
    before = model.block_calls
    model.gradients(number, of="hook_x0hat @ step=2", run=run, names=SITE, steps=[1])
    assert model.block_calls - before == 2 * 2 * model.layers  # steps 1 and 2


class Held:
    """A tensor that autograd keeps, counted while it does."""

    now = most = 0

    def __init__(self, tensor: torch.Tensor):
        self.tensor, size = tensor, tensor.numel() * tensor.element_size()
        Held.now += size
        Held.most = max(Held.most, Held.now)
        weakref.finalize(self, Held.gone, size)

    @staticmethod
    def gone(size: int) -> None:
        Held.now -= size


def test_the_graph_of_one_forward_is_in_memory_at_a_time():
    model, most = model_of("wan2.1"), {}
    for steps in (2, 8):
        run = model.run(seed=0, **tiny.call("wan2.1", steps=steps))
        Held.now = Held.most = 0
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
            model.gradients(number, run=run, names="blocks.*.hook_resid_post")
        most[steps] = Held.most
    assert 0 < most[8] <= 1.01 * most[2]


def test_a_sweep_leaves_no_trace():
    call, model = tiny.call("wan2.1"), model_of("wan2.1")
    run = model.run(seed=0, **call)
    kept = [tensor.clone() for tensor in (*run.x_t, *run.v, run.latents)]
    asked = [weight.requires_grad for weight in model.pipe.transformer.parameters()]
    with torch.no_grad():
        model.gradients(number, run=run, names=SITE)
        model.gradients(number, of="hook_x0hat @ step=1, frame=0", run=run, names=SITE)
    assert all(map(torch.equal, kept, (*run.x_t, *run.v, run.latents)))
    assert asked == [weight.requires_grad for weight in model.pipe.transformer.parameters()] and all(asked)
    assert all(weight.grad is None for weight in model.pipe.transformer.parameters())
    assert torch.equal(model.run(seed=0, **call).latents, run.latents)


# --- what is refused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"metric": lambda latents: latents.detach().sum()}, "autograd does not see"),
        ({"metric": lambda latents: latents}, "one number"),
        ({"metric": lambda latents: float(latents.sum())}, "gave float"),
        ({"metric": lambda latents: latents.sum() / 0}, "NaN or infinity"),
        ({"of": "hook_x0hat"}, "names 3 steps"),
        ({"of": "blocks.*.hook_resid_post @ step=1"}, "names 3 hooks"),
        ({"of": f"{SITE} @ step=1"}, "branch=cond, or uncond"),
        ({"of": "hook_x0hat @ step=1", "steps": [2]}, "step 2 comes after step 1"),
        ({"of": "hook_x0hat @ step=7"}, "there is no step 7"),
        ({"names": "blocks.9.hook_resid_post"}, "no hook matches"),
        ({"steps": [5]}, "there is no step 5"),
        ({"tokens": {"frame": [9]}}, "there is no frame 9"),
        ({"max_bytes": 10}, "budget"),
        ({"seed": 0}, "run= was given, and seed"),
    ],
)
def test_what_cannot_be_asked_is_refused(asked, said):
    model = model_of("wan2.1")
    run = model.run(seed=0, **tiny.call("wan2.1"))
    with pytest.raises(InterpError, match=said):
        model.gradients(**{"metric": number, "run": run, "names": SITE} | asked)


def test_runs_that_are_not_what_they_seem_are_refused():
    call, model = tiny.call("wan2.1"), model_of("wan2.1")
    run = model.run(seed=0, **call)
    edited = model.run_with_hooks(fwd_hooks=[(f"{SITE} @ step=1", lambda act, hook: act * 2)], seed=0, **call)
    with pytest.raises(InterpError, match=r"differs from it .* model.hooks"):
        model.gradients(number, run=edited, names=SITE)
    last = model.run_with_hooks(fwd_hooks=[("hook_x0hat @ step=-1", lambda act, hook: act * 2)], seed=0, **call)
    with pytest.raises(InterpError, match="the final latents, made again"):
        model.gradients(number, run=last, names=SITE, steps=[2])
    with model.hooks(fwd_hooks=[(SITE, lambda act, hook: act)]), pytest.raises(InterpError, match="runs without edits"):
        model.gradients(number, run=run, names=SITE)
    several = model.run(seed=[0, 1], **call | {"prompt": ["a", "b"]})
    with pytest.raises(InterpError, match="this one has 2: run each alone"):
        model.gradients(number, run=several, names=SITE)
    with torch.inference_mode():
        inferred = model.run(seed=0, **call)
    with pytest.raises(InterpError, match="inference_mode"):
        model.gradients(number, run=inferred, names=SITE)
    with torch.no_grad():
        model.pipe.transformer.blocks[0].ffn.net[2].weight.mul_(1.5)
    with pytest.raises(InterpError, match="another model or other weights"):
        model.gradients(number, run=run, names=SITE)


class Forgetful(diffusers.UniPCMultistepScheduler):
    """A multistep solver whose memory is off the tape: its steps are right, and autograd's word on them is not."""

    def multistep_uni_p_bh_update(self, *args, **kwargs):
        self.model_outputs = [None if output is None else output.detach() for output in self.model_outputs]
        return super().multistep_uni_p_bh_update(*args, **kwargs)


def test_a_solver_whose_memory_is_off_the_tape_is_refused():
    Forgetful.__name__ = "UniPCMultistepScheduler"
    call, model = tiny.call("wan2.1", steps=5), model_of("wan2.1", Forgetful(**FLOW))
    run = model.run(seed=0, **call)
    assert torch.equal(run.latents, model_of("wan2.1", diffusers.UniPCMultistepScheduler(**FLOW)).run(seed=0, **call).latents)
    with pytest.raises(InterpError, match="the loop of WanPipeline with UniPCMultistepScheduler cannot be differentiated"):
        model.gradients(number, run=run, names=SITE)


def test_weights_that_come_and_go_are_refused():
    model = model_of("wan2.1")
    run = model.run(seed=0, **tiny.call("wan2.1"))
    model.pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float16, compute_dtype=torch.float32)
    with pytest.raises(InterpError, match="load it with offload none"):
        model.gradients(number, run=run, names=SITE)


# --- attribution -----------------------------------------------------------------------------------------------------------


def test_attribution_is_the_slope_of_patches_towards_their_donors():
    """Patches a hundredth of the way to the donor move the metric by a hundredth of what attribution says; the own run by 0."""
    call, model = tiny.call("wan2.1", steps=4), model_of("wan2.1")
    sites = ["blocks.*.hook_resid_post", "blocks.1.attn.hook_z", "blocks.2.hook_mlp_out"]
    target, donor = (record(model, sites, seed=seed, **call) for seed in (0, 1))
    part = 0.01

    def nearly(site: str):
        own, other = target.donor(site), donor.donor(site)
        return lambda step, branch: own(step, branch) + part * (other(step, branch) - own(step, branch))

    wheres = [
        {"site": "blocks.0.hook_resid_post", "steps": 1, "branches": ("cond",)},
        {"site": "blocks.1.attn.hook_z", "steps": (2, 3), "branches": ("cond", "uncond"), "heads": 1},
        {"site": "blocks.2.hook_mlp_out", "steps": 0, "branches": "uncond", "tokens": {"frame": [1], "row": [0]}},
        {"site": "hook_x_t", "steps": 2, "tokens": {"frame": [0]}},
    ]
    whole = attribute(model, target, [Patch(donor=donor.donor(w["site"]), **w) for w in wheres], number)
    assert attribute(model, target, [Patch(donor=target.donor(w["site"]), **w) for w in wheres], number) == [0.0] * len(wheres)
    before = float(number(target.run.latents))
    for where, told in zip(wheres, whole, strict=True):
        moved = float(number(replay(model, target, Patch(donor=nearly(where["site"]), **where)))) - before
        assert moved / part == pytest.approx(told, rel=0.05, abs=1e-2), where
    with pytest.raises(InterpError, match="there is no step 9"):
        attribute(model, target, [Patch("hook_x_t", 9, donor.donor("hook_x_t"))], number)
