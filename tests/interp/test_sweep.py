"""A sweep's cells against hand-written forward hooks on the same pipeline, bit for bit; its table; what it refuses."""

from __future__ import annotations

import pytest
import torch
from support import plain

from cos_interp.interp import HookedVideoPipeline, InterpError, Patch, UnknownHook, record, sweep, tiny
from cos_interp.interp.errors import NotFinite
from cos_interp.interp.patching import replay_run

STEPS = 3
BLOCKS = {"wan2.1": "blocks", "ltx": "transformer_blocks", "cogvideox": "transformer_blocks"}
ATTENTION = {"wan2.1": "attn1", "ltx": "attn1"}


def distance(latents):
    return latents.double().sum()


def pair(family, names=(), **changes):
    """A model and two recordings of other seeds."""
    model = HookedVideoPipeline.from_pipeline(tiny.build(family))
    call = tiny.call(family, steps=STEPS) | changes
    return model, call, record(model, names, seed=0, **call), record(model, names, seed=1, **call)


def hand_patched(family, call, path, steps, given, mask):
    """The final latents with a module's video output replaced on some tokens, in the conditional half, by a plain hook."""
    pipe, forwards = tiny.build(family), [0]

    def hook(module, args, output):
        split = family == "wan2.1"  # two forwards a step, the conditional one first; else one, the conditional half second
        step, branch = divmod(forwards[0], 2) if split else (forwards[0], 0)
        forwards[0] += 1
        if branch != 0 or step not in steps:
            return None
        video = output[0] if isinstance(output, tuple) else output
        new, rows = video.clone(), slice(0, None) if split else slice(1, None)
        new[rows] = torch.where(mask.flatten()[None, :, None], given[step].flatten(1, 3), video[rows])
        return (new, *output[1:]) if isinstance(output, tuple) else new

    pipe.transformer.get_submodule(path).register_forward_hook(hook)
    return plain(pipe, call)


@pytest.mark.parametrize("span", ["single", "from", "until"])
@pytest.mark.parametrize("family", BLOCKS)
def test_every_cell_equals_a_hand_written_hook(family, span):
    sites = ["hook_resid_post", "hook_attn_out"] if family in ATTENTION else ["hook_resid_post"]
    model, call, target, donor = pair(family, [f"blocks.*.{s}" for s in sites])
    mask = torch.rand(model.token_grid(target.run.x_t[0]).shape, generator=torch.Generator().manual_seed(3)) < 0.5
    seen = []
    table = sweep(
        model, target, donor, sites=sites, steps=[1], layers=[0, 2] if model.layers > 2 else [0, 1],
        tokens={"some": mask, "all": None}, span=span, metric=lambda latents: seen.append(latents) or distance(latents),
    )  # fmt: skip
    acting = {"single": [1], "from": [1, 2], "until": [0, 1]}[span]
    assert len(table) == 2 * 2 * len(sites) == len(seen)
    for (_, row), found in zip(table.iterrows(), seen, strict=True):
        name = f"blocks.{row.layer}.{row.site}"
        path = f"{BLOCKS[family]}.{row.layer}" + (f".{ATTENTION[family]}" if row.site == "hook_attn_out" else "")
        given = {step: donor.cache[name, step] for step in acting}
        where = mask if row.group == "some" else torch.ones_like(mask)
        expected = hand_patched(family, call, path, acting, given, where)
        expected = model.adapter.layout.to_canonical(expected, target.run.dims)
        assert torch.equal(found, expected), (name, row.group)
        assert row.value == float(distance(expected)) and row.sigma == target.run.sigmas[1] and row.span == span
        assert not torch.equal(found, target.run.latents)


def test_the_target_as_its_own_donor_is_exactly_the_target():
    model, _, target, _ = pair("wan2.1", "blocks.*.attn.hook_z")
    mask = torch.zeros(model.token_grid(target.run.x_t[0]).shape, dtype=torch.bool)
    mask[0] = True
    sites = ["hook_resid_post", "attn.hook_z", "hook_x_t"]
    for span in ("single", "from"):
        table = sweep(
            model, target, target, sites=sites, tokens={"first": mask, "all": None}, span=span, branches=target.run.branches,
            metric=lambda latents: {"same": torch.equal(latents, target.run.latents)},
        )  # fmt: skip
        assert table.same.eq(1).all()
        assert len(table) == STEPS * 2 * (2 * model.layers + 1)


def test_the_table_is_tidy_and_does_not_depend_on_the_batch():
    model, _, target, donor = pair("wan2.1")
    metric = lambda latents: {"sum": latents.sum(), "first": latents.flatten()[0].item()}
    one = sweep(model, target, donor, sites=["hook_x_t", "hook_resid_post"], metric=metric)
    many = sweep(model, target, donor, sites=["hook_x_t", "hook_resid_post"], metric=metric, batch=4)
    assert list(one.columns) == ["site", "layer", "step", "sigma", "group", "span", "sum", "first"]
    places = list(one.columns[:6])
    assert one[places].equals(many[places]) and not one[places].duplicated().any()
    assert one[one.site == "hook_x_t"].layer.isna().all() and one.layer.dtype == "Int64"
    torch.testing.assert_close(torch.tensor(one["sum"]), torch.tensor(many["sum"]), rtol=1e-4, atol=1e-4)


def test_some_cells_of_the_latent_are_those_of_their_tokens():
    """A token of Wan's is 2 x 2 latent cells: all before the last step are the donor's there, and the target's elsewhere."""
    model, _, target, donor = pair("wan2.1")
    latents = target.run.x_t[0]
    mask = torch.zeros(model.token_grid(latents).shape, dtype=torch.bool)
    mask[1, 0, 1] = True
    seen = []
    assert model.patch(latents) == (1, 2, 2)
    cells = torch.zeros(latents.shape[2:], dtype=torch.bool)
    cells[1, :2, 2:4] = True
    run = replay_run(model, target, [Patch("hook_x_t", (2,), donor.donor("hook_x_t"), tokens=cells)])
    assert torch.equal(run.x_t[2][:, :, cells], donor.run.x_t[2][:, :, cells])
    assert torch.equal(run.x_t[2][:, :, ~cells], target.run.x_t[2][:, :, ~cells])
    sweep(model, target, donor, sites="hook_x_t", steps=[2], tokens={"one": mask}, metric=lambda x: seen.append(x) or 0.0)
    assert torch.equal(seen[0], run.latents)


def test_what_does_not_fit_is_refused_with_the_remedy():
    model, call, target, donor = pair("wan2.1")
    ask = lambda **changed: sweep(model, target, donor, **{"metric": distance, "steps": [0], **changed})
    with pytest.raises(InterpError, match=r"record\(model, names=\['blocks.\*.attn.hook_z'\], ...\)"):
        ask(sites="attn.hook_z")
    with pytest.raises(UnknownHook, match=r"blocks.0.attn.hook_zz"):
        ask(sites=["attn.hook_zz"])
    with pytest.raises(InterpError, match="there are steps 0 to 2"):
        ask(steps=[3])
    with pytest.raises(InterpError, match=r"sites=\[\] names nothing"):
        ask(sites=[])
    with pytest.raises(InterpError, match="layers 0 to"):
        ask(layers=[9])
    with pytest.raises(InterpError, match="there are single, from, until"):
        ask(span="before")
    with pytest.raises(InterpError, match="several of cond, uncond"):
        ask(branches=["both"])
    with pytest.raises(InterpError, match=r"branches=\[\] names nothing"):
        ask(branches=[])
    with pytest.raises(InterpError, match="give a bool mask"):
        ask(tokens={"a": torch.ones(1, 1, 1)})
    with pytest.raises(InterpError, match="'step', which is a column"):
        ask(metric=lambda latents: {"step": 1.0})
    shorter = record(model, seed=1, **call | {"num_inference_steps": 2})
    with pytest.raises(InterpError, match="the donor has 2 steps, the target 3"):
        sweep(model, target, shorter, metric=distance)
    text = record(model, ["blocks.*.cross_attn.hook_k"], seed=1, **call)
    with pytest.raises(InterpError, match="no tokens of the video: patch all of it"):
        mask = torch.ones(model.token_grid(target.run.x_t[0]).shape, dtype=torch.bool)
        sweep(model, target, text, sites="cross_attn.hook_k", tokens={"a": mask}, metric=distance)


@pytest.mark.parametrize("bad", [float("nan"), torch.tensor(float("inf")), {"fine": 1.0, "share": float("-inf")}], ids=str)
def test_a_metric_without_a_finite_number_is_an_error_that_names_the_cell(bad):
    model, _, target, donor = pair("wan2.1")
    values = iter([{"fine": 0.5, "share": 0.5} if isinstance(bad, dict) else 0.5, bad])
    name = "share" if isinstance(bad, dict) else "value"
    with pytest.raises(NotFinite, match=rf"for '{name}' in the cell site hook_resid_post, layer 1, step 2, .*group all"):
        sweep(model, target, donor, steps=[2], layers=[0, 1], metric=lambda latents: next(values))


def test_what_cannot_be_swept_says_what_to_write():
    model, _, target, donor = pair("wan2.1")
    ask = {"metric": distance, "steps": [1]}
    whole = sweep(model, target, donor, sites="blocks.1.hook_resid_post", **ask)
    assert whole["layer"].tolist() == [1]
    inside = sweep(model, target, donor, sites="hook_resid_post", layers=[1], **ask)
    assert whole["value"].tolist() == inside["value"].tolist()
    for wrong, message in (
        ({"sites": "blocks.1.hook_resid_post", "layers": [0]}, "names its layer already"),
        ({"sites": "blocks.*.hook_resid_post"}, "the name inside a block"),
        ({"tokens": torch.ones(3, 2, 2, dtype=torch.bool)}, "name the groups"),
        ({"batch": 0}, "batch=0"),
        ({"metric": lambda latents: None}, "the metric gave None for 'value'"),
        ({"metric": lambda latents: latents}, r"the metric gave a tensor \(1, 4, 3, 4, 4\)"),
        ({"metric": lambda latents: {"a": "much"}}, "the metric gave 'much' for 'a'"),
    ):
        with pytest.raises(InterpError, match=message):
            sweep(model, target, donor, **{**ask, **wrong})
