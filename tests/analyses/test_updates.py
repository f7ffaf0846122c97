"""Whole updates of blocks, in every stream: ablated, rounded and transplanted, bit for bit as plain forward hooks do it."""

from __future__ import annotations

import copy

import pytest
import torch

from cos_interp.analyses.acceleration.saving import Plan, Saving, rounded
from cos_interp.analyses.diff.apart import Updates, apart_rows, ends
from cos_interp.analyses.kit import ablation
from cos_interp.analyses.kit.ablation import Edit
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.analyses.kit.updates import before
from cos_interp.analyses.layers.measure import EnergyReader, token_norm
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.batch import joined
from cos_interp.interp.families import tiny
from cos_interp.interp.families.contract import latents_of

# joint attention: blocks of two kinds, both branches in one forward, text first, row by row, a decoder that starts again; a
# stream of audio; one stream, both branches in one forward
FAMILIES = ["hunyuan", "cogvideox", "easyanimate", "mochi", "motif", "ltx2", "allegro"]
STEP = 1  # of two, at which updates are replaced


def hooked(family):
    model = HookedVideoPipeline.from_pipeline(tiny.build(family))
    return model, {k: v for k, v in tiny.call(family, steps=2).items() if k != "generator"} | {"seed": 0}


def returned(model, run):
    """A run's final latents as the pipeline returns them."""
    return model.adapter.returned(model.pipe, run.shown(run.latents))


def plainly(model, call, layer, out, given=None, steps=(STEP,)):
    """Final latents of the pipeline alone, in which forward hooks put ``out(came, went, stream, call)`` in the place of what one
    block hands on, and ``given(came)`` in that of what it reads. States are ``[row, token, d_model]``; stream 0 is the video."""
    (engine,) = model.engines.values()
    run = model.run(**call)
    forwards = [[one for one in run.calls if one.forward == n] for n in range(1 + run.calls[-1].forward)]
    block, left, came = engine.module.get_submodule(engine.blocks[layer]), iter(forwards), {}

    def by_branch(edit, *states):
        parts = zip(*(state.chunk(len(came["calls"])) for state in states), strict=True)
        return torch.cat([edit(*part, one) for part, one in zip(parts, came["calls"], strict=True)])

    def coming(module, args, kwargs):
        came["calls"], values = next(left), [*args, *kwargs.values()]
        came["states"] = [value.clone() for value in values[:2]]
        if given is not None and came["calls"][0].step in steps:
            values[:2] = [by_branch(lambda state, one: given(state), value) for value in values[:2]]
        return tuple(values[: len(args)]), dict(zip(kwargs, values[len(args) :], strict=True))

    def going(module, args, kwargs, made):
        if came["calls"][0].step not in steps:
            return made
        went = [state for state in (made if isinstance(made, tuple) else (made,)) if state is not None]
        pairs = enumerate(zip(came["states"], went))  # a block of one stream reads the text beside it
        new = tuple(by_branch(lambda b, a, one, n=n: out(b, a, n, one), b, a) for n, (b, a) in pairs)
        return (*new, *made[len(new) :]) if isinstance(made, tuple) else new[0]

    handles = [
        block.register_forward_pre_hook(coming, with_kwargs=True), block.register_forward_hook(going, with_kwargs=True),
    ]  # fmt: skip
    keywords = {**model.call_arguments(dict(call)), "output_type": "latent", "return_dict": False}
    found, layout = latents_of(model.pipe, model.pipe(**keywords)), model.adapter.layout
    for handle in handles:
        handle.remove()
    return found if layout.packed and found.ndim == 5 else layout.to_canonical(found, run.dims)


def put(rows):
    """``rows[n](came, went, stream)`` of a batch: what one row of a stream is after the block."""

    def out(came, went, stream, call):
        new = went.clone()
        for row, of in rows.items():
            new[row] = of(came, went, stream)
        return new

    return out


def batch(call):
    """Row 0 gives what is put in the place of the others' updates."""
    return joined([{**call, "seed": 1, "prompt": "a green box"}, call, call])


@pytest.mark.parametrize("family", FAMILIES)
def test_ablated_rows_are_those_of_plain_hooks(family):
    """Skipped, and with another row's update, in every stream of every block; given its own, a block changes no bit."""
    model, call = hooked(family)
    both, wanted = batch(call), {1: lambda b, a, n: b[1], 2: lambda b, a, n: a[2] + ((a - b)[0] - (a - b)[2])}
    for layer in range(model.layers):
        edits = [Edit(kind, (layer,), (STEP,)) for kind in ("skip", "resample")]
        found = model.run_with_hooks(fwd_hooks=ablation.Ablation(edits, 1, True, 0).hooks(model), **both)
        assert torch.equal(returned(model, found), plainly(model, both, layer, put(wanted))), layer
        assert not torch.equal(found.latents[1], found.latents[2])
    assert torch.equal(ablation.identity(model, call, model.layers, 2), model.run(**call).latents)


@pytest.mark.parametrize("family", ["hunyuan", "allegro"])
def test_means_and_random_directions_are_of_their_own_stream(family):
    model, call = hooked(family)
    both, seeds = batch(call), [seed_for("ablation", 0, STEP, 1), seed_for("ablation", 0, STEP, 1, "_text")]
    edits = [Edit(kind, (1,), (STEP,)) for kind in ("mean", "random")]
    found = model.run_with_hooks(fwd_hooks=ablation.Ablation(edits, 1, True, 0).hooks(model), **both)
    wanted = {
        1: lambda b, a, n: b[1] + (a - b)[0].mean(0),
        2: lambda b, a, n: b[2] + ablation.random_like((a - b)[2], seeds[n]),
    }
    torch.testing.assert_close(returned(model, found), plainly(model, both, 1, put(wanted)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["hunyuan", "ltx2"])
def test_rounded_rows_are_those_of_plain_hooks(family):
    model, call = hooked(family)
    both = joined([call, call])
    branches = model.run(**call).branches
    for layer in range(model.layers):
        plans = [Plan("round", frozenset((STEP, layer, branch) for branch in branches), 4)]
        found = model.run_with_hooks(fwd_hooks=Saving(plans).hooks(model), **both)
        given = lambda b: torch.cat([b[:1], rounded(b[1:], 4)])
        wanted = put({1: lambda b, a, n: b[1] + rounded(a[1] - rounded(b[1], 4), 4)})
        assert torch.equal(returned(model, found), plainly(model, both, layer, wanted, given)), layer


# where the text alone is made: in a block, and before the first one
TEXT = {"hunyuan": ("transformer_blocks.1.ff_context.", "context_embedder."), "cogvideox": (None, "patch_embed.text_proj.")}


def planted(model, start):
    """A copy of a model with other weights whose names start so."""
    other, draw = copy.deepcopy(model), torch.Generator().manual_seed(0)
    changed = [weight for name, weight in other.pipe.transformer.named_parameters() if name.startswith(start)]
    for weight in changed:
        weight.data += 0.2 * torch.randn(weight.shape, generator=draw)
    assert changed
    return other


@pytest.mark.parametrize("family, start", [("hunyuan", TEXT["hunyuan"][0]), ("cogvideox", "transformer_blocks.1."),
                                           ("allegro", "transformer_blocks.1.")])  # fmt: skip
def test_a_transplanted_update_is_all_that_the_other_block_adds(family, start):
    """One block is all in which the two models differ, in the first only in its text: with its updates the one is the other."""
    model, call = hooked(family)
    other = planted(model, start)
    mine, theirs = model.run(**call), other.run(**call)
    _, kept = other.run_with_cache(names=ends(model), **call)
    found = model.run_with_hooks(fwd_hooks=Updates(kept, [1], "transformer").hooks(model), **call)
    gone, apart = (found.latents - theirs.latents).norm(), (mine.latents - theirs.latents).norm()
    assert gone < 1e-3 * apart

    def update(b, a, n, one):
        last = f"blocks.1.hook_resid_post{['', '_text'][n]}"
        there, here = (kept[name, one.step, one.branch].reshape(a.shape) for name in (last, before(last)))
        return a + ((there - here) - (a - b))

    assert torch.equal(returned(model, found), plainly(model, call, 1, update, steps=(0, 1)))


@pytest.mark.parametrize("family", TEXT)
def test_on_given_inputs_blocks_differ_by_what_they_do_alone(family):
    """Two models of the same blocks that read another text: every block is given the first model's text, too."""
    model, call = hooked(family)
    rows = apart_rows(model, planted(model, TEXT[family][1]), (0, 1), 10**9, call)
    far = {kind: [row["delta"] for row in rows if row["inputs"] == kind] for kind in ("own", "given")}
    assert max(far["own"]) > 0 == max(far["given"]) and len(far["own"]) == len(far["given"])


def test_what_lies_between_two_blocks_is_no_update():
    """Motif's decoder starts from the embedded latents again."""
    model, call = hooked("motif")
    reader, names = EnergyReader(), ["blocks.*.hook_resid_pre", "blocks.*.hook_resid_post"]
    model.run_with_hooks(fwd_hooks=reader.hooks(model), **call)
    _, cache = model.run_with_cache(names=names, branches="cond", **call)
    for (step, layer), found in reader.update.items():
        after, came = (cache[f"blocks.{layer}.hook_resid_{end}", step] for end in ("post", "pre"))
        assert torch.equal(found, token_norm(after - came)[0])
    assert len(reader.update) == 2 * model.layers
