"""Circuits: every map, path and set is what plain hooks give, bit for bit."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from circuits import STEPS, asked, recorder
from planted import SIZE

from cos_interp.analyses.circuit import HEADS, SITES, Circuit, Component, paths, words
from cos_interp.analyses.circuit import measure as measuring
from cos_interp.analyses.circuit.bench import Bench
from cos_interp.analyses.circuit.words import read_words
from cos_interp.analyses.kit.split_pairs import pair_of
from cos_interp.analyses.kit.words import Word
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.families import tiny


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    config = asked(folder, batch=1)
    made = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    made.defaults |= SIZE
    record = recorder(made, config)
    return Bench.of(record, config, *pair_of(record, config, 0))


def plain(pipe, bench):
    """Final latents of the pair's receiving run on a pipeline."""
    call = dict(bench.target.problem.call) | {"num_inference_steps": STEPS, "guidance_scale": 1.0}
    generator = torch.Generator("cpu").manual_seed(bench.target.problem.seed)
    return pipe(**call, generator=generator, output_type="latent", return_dict=False)[0]


def by_hand(bench, module, change, before=False):
    """Final latents of the pair's receiving run with one plain hook: ``change(value, step)``."""
    pipe, count = tiny.build("wan2.1"), [0]

    def hook(_, given, output=None):
        count[0] += 1
        new = change(given[0] if before else output, count[0] - 1)
        return (new,) if before and new is not None else new

    found = pipe.transformer.get_submodule(module)
    found.register_forward_pre_hook(hook) if before else found.register_forward_hook(hook)
    return plain(pipe, bench)


MODULES = {"cross": "attn2", "attn": "attn1", "mlp": "ffn"}


@pytest.mark.parametrize(("part", "layer"), [("cross", 1), ("mlp", 2)])
def test_cells_of_the_coarse_map(bench, part, layer):
    given = lambda step: bench.donor.recording.cache[f"blocks.{layer}.{SITES[part]}", step, "cond"].flatten(1, 3)
    hand = by_hand(bench, f"blocks.{layer}.{MODULES[part]}", lambda value, step: given(step))
    assert torch.equal(bench.latents([bench.whole(part, layer)])[0], hand)


@pytest.mark.parametrize(("part", "layer", "group", "first"), [("attn", 1, "b", 0), ("cross", 0, "a", 1)])
def test_cells_by_token_group_and_step(bench, part, layer, group, first):
    one = Component(part=part, layer=layer, group=group, steps=tuple(range(first, STEPS)))
    given = lambda step: bench.donor.recording.cache[f"blocks.{layer}.{SITES[part]}", step, "cond"].flatten(1, 3)
    at = bench.masks[group].flatten()[None, :, None]
    hand = by_hand(
        bench,
        f"blocks.{layer}.{MODULES[part]}",
        lambda value, step: torch.where(at, given(step), value) if step >= first else value,
    )
    assert torch.equal(bench.latents(bench.rows([(one,)]))[0], hand)


@pytest.mark.parametrize(("part", "head"), [("cross", 0), ("attn", 1)])
def test_cells_by_head(bench, part, head):
    one = Component(part=part, layer=1, group="c", steps=(0, 1), heads=(head,))
    given = lambda step: bench.donor.recording.cache[f"blocks.1.{HEADS[part]}", step, "cond"].flatten(1, 3)

    def change(value, step):
        split = value.unflatten(-1, (bench.heads, -1)).clone()
        at = bench.masks["c"].flatten()
        split[:, at, head] = given(step)[:, at, head]
        return split.flatten(-2)

    hand = by_hand(bench, f"blocks.1.{MODULES[part]}.to_out.0", change, before=True)
    assert torch.equal(bench.latents(bench.rows([(one,)]))[0], hand)


def mapped(bench, found):
    """The rows of the map of places with the final latents of each."""
    latents: list[torch.Tensor] = []

    class Kept(Bench):
        def effects(self, rows):
            latents.extend(self.latents(rows))
            return super().effects(rows)

    held = {field.name: getattr(bench, field.name) for field in dataclasses.fields(bench)}
    return list(zip(measuring.fine(Kept(**held), found), latents, strict=True))


def test_cells_of_the_map_of_places(bench):
    """Two of each of its tables, in their places: by group, by head at all tokens, from a step on, and the stream of a block."""
    rows = mapped(bench, [("attn", 1), ("cross", 0)])
    value = lambda name: lambda step: bench.donor.recording.cache[name, step, "cond"].flatten(1, 3)
    out = lambda part, layer: value(f"blocks.{layer}.{SITES[part]}")
    at = lambda group: bench.masks[group].flatten()[None, :, None]
    named = lambda **asked: next(latent for row, latent in rows if asked.items() <= row.items())

    def head(given, number):
        def change(own, step):
            split = own.unflatten(-1, (bench.heads, -1)).clone()
            split[:, :, number] = given(step)[:, :, number]
            return split.flatten(-2)

        return change

    for part, layer, first in (("attn", 1, 0), ("cross", 0, 1)):
        given, module = out(part, layer), f"blocks.{layer}.{MODULES[part]}"
        by_group = by_hand(bench, module, lambda own, step, given=given: torch.where(at("c"), given(step), own))
        assert torch.equal(named(table="group", part=part, layer=layer, group="c"), by_group)
        late = by_hand(bench, module, lambda own, step, given=given, first=first: given(step) if step >= first else own)
        assert torch.equal(named(table="from", part=part, layer=layer, step=first), late)
        by_head = by_hand(bench, f"{module}.to_out.0", head(value(f"blocks.{layer}.{HEADS[part]}"), 1), before=True)
        assert torch.equal(named(table="head", part=part, layer=layer, head=1), by_head)
    for layer, group in ((0, "b"), (1, "rest")):
        given = value(f"blocks.{layer}.hook_resid_post")
        hand = by_hand(
            bench, f"blocks.{layer}", lambda own, step, given=given, group=group: torch.where(at(group), given(step), own)
        )
        assert torch.equal(named(table="flow", layer=layer, group=group), hand)
        assert not torch.equal(hand, bench.target.recording.run.latents)


def held_by_hand(bench, sender=False, given=None):
    """A run of plain hooks in which each part of a block writes what it wrote in the receiving run, and each step starts from its
    state. ``sender``: attention to the prompt of block 0 writes the donor's at A. ``given``: a module and its outputs by step.
    Returns what the modules of block 1's attention gave, by name, before anything was put in their place."""
    pipe, calls = tiny.build("wan2.1"), [0]
    own, donor = bench.target.recording, bench.donor.recording
    caught = {name: [] for name in ("attn1", "attn1.to_q", "attn1.to_k", "attn1.to_v")}

    def writes(part, layer):
        name = f"blocks.{layer}.{SITES[part]}"
        value = lambda run: run.cache[name, calls[0] - 1, "cond"].flatten(1, 3)

        def hook(*_):
            sent = sender and (part, layer) == ("cross", 0)
            return torch.where(bench.masks["a"].flatten()[None, :, None], value(donor), value(own)) if sent else value(own)

        return hook

    def keep(name):
        def hook(module, args, output):
            caught[name].append(output.clone())
            return given[1][calls[0] - 1] if given is not None and given[0] == name else None

        return hook

    def state(_, args, kwargs):
        calls[0] += 1
        return args, kwargs | {"hidden_states": own.run.x_t[calls[0] - 1]}

    pipe.transformer.register_forward_pre_hook(state, with_kwargs=True)
    for name in caught:
        pipe.transformer.blocks[1].get_submodule(name).register_forward_hook(keep(name))
    for layer, block in enumerate(pipe.transformer.blocks):
        for part, module in MODULES.items():
            block.get_submodule(module).register_forward_hook(writes(part, layer))
    plain(pipe, bench)
    return caught


@pytest.mark.parametrize(
    ("road", "module", "group"),
    [("all", None, "b"), ("q", "attn1.to_q", "a"), ("k", "attn1.to_k", "b"), ("v", "attn1.to_v", "b")],
)
def test_a_path_within_a_step_by_each_road(bench, road, module, group):
    """Attention of block 1 writes what it would with the sender alone changed, or with one of its inputs from there. Queries of
    other tokens than the sender's do not change."""
    sender = Component(part="cross", layer=0, group="a", steps=(0, 1))
    receiver = Component(part="attn", layer=1, group=group, steps=(0, 1))
    named, rows = paths._within(bench, [sender, receiver])
    found = bench.latents(rows)[[row["road"] for row in named].index(road)]
    caught = held_by_hand(bench, sender=True)
    if module is not None:
        caught = held_by_hand(bench, given=(module, caught[module]))
    at = bench.masks[group].flatten()[None, :, None]
    hand = by_hand(bench, "blocks.1.attn1", lambda value, step: torch.where(at, caught["attn1"][step], value))
    assert torch.equal(found, hand) and not torch.equal(hand, bench.target.recording.run.latents)


@pytest.mark.parametrize(("part", "layer", "group"), [("attn", 1, "b"), ("cross", 0, "a")])
def test_a_path_across_steps(bench, part, layer, group):
    """The states of a run with the sender changed, in a run without it; what the receiver writes there, in an untouched run."""
    sender = Component(part="cross", layer=0, group="a", steps=(0, 1))
    receiver = Component(part=part, layer=layer, group=group, steps=(0, 1))
    named, rows = paths._across(bench, list(dict.fromkeys((sender, receiver))))
    from_to = [(row["sender"], row["receiver"]) for row in named]
    found = bench.latents(rows)[from_to.index(("cross 0 at a", f"{part} {layer} at {group}"))]
    states, caught, module = [], [], f"blocks.{layer}.{MODULES[part]}"
    donor = bench.donor.recording
    given = lambda step: donor.cache[f"blocks.0.{SITES['cross']}", step, "cond"].flatten(1, 3)
    at_a = bench.masks["a"].flatten()[None, :, None]
    pipe = tiny.build("wan2.1")
    pipe.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: states.append(kwargs["hidden_states"].clone()), with_kwargs=True
    )
    pipe.transformer.blocks[0].attn2.register_forward_hook(lambda _, args, out: torch.where(at_a, given(len(states) - 1), out))
    plain(pipe, bench)
    pipe, calls = tiny.build("wan2.1"), [0]

    def state(_, args, kwargs):
        calls[0] += 1
        return args, kwargs | ({"hidden_states": states[calls[0] - 1]} if calls[0] > 1 else {})

    pipe.transformer.register_forward_pre_hook(state, with_kwargs=True)
    pipe.transformer.get_submodule(module).register_forward_hook(lambda _, args, out: caught.append(out.clone()))
    plain(pipe, bench)
    at = bench.masks[group].flatten()[None, :, None]
    hand = by_hand(bench, module, lambda value, step: torch.where(at, caught[step], value) if step else value)
    assert torch.equal(found, hand) and not torch.equal(hand, bench.target.recording.run.latents)


def test_a_set_and_everything_but_it_are_the_donors_run(bench):
    """The two runs start from one noise, so that all components together leave nothing of the receiving one: to the last bit."""
    chosen = [
        Component(part="cross", layer=0, group="a", steps=(1,)),
        Component(part="attn", layer=1, group="b", steps=(0, 1), heads=(1,)),
    ]  # fmt: skip
    without = bench.without(chosen)
    whole = bench.latents([bench.without(()), [*without, *bench.rows([chosen])[0]]])
    assert all(torch.equal(latent, bench.donor.recording.run.latents) for latent in whole)
    assert not torch.equal(bench.latents([without])[0], bench.donor.recording.run.latents)


def test_a_set_is_knocked_out_of_the_donors_run_by_a_plain_hook(bench):
    one, other = Component(part="cross", layer=1, group="a", steps=(0, 1)), bench.reversed
    own, at = bench.target.recording.cache, bench.masks["a"].flatten()[None, :, None]
    back = lambda value, step: torch.where(at, own["blocks.1.hook_cross_attn_out", step, "cond"].flatten(1, 3), value)
    found = other.latents(other.rows([[one]]))[0]
    assert torch.equal(found, by_hand(other, "blocks.1.attn2", back))
    assert not torch.equal(found, bench.donor.recording.run.latents)


def test_everything_but_a_set_by_plain_hooks(bench):
    """The donor's in all parts of all blocks, but for what is computed at A in block 0 in step 1, and by a head at B."""
    chosen = [
        Component(part="cross", layer=0, group="a", steps=(1,)),
        Component(part="attn", layer=1, group="b", steps=(0, 1), heads=(1,)),
    ]  # fmt: skip
    pipe, calls, donor = tiny.build("wan2.1"), [0], bench.donor.recording
    at = {name: bench.masks[name].flatten() for name in ("a", "b")}
    value = lambda name: donor.cache[name, calls[0] - 1, "cond"].flatten(1, 3)

    def count(*_):
        calls[0] += 1

    def hook(part, layer):
        def put(_, args, output):
            theirs = value(f"blocks.{layer}.{SITES[part]}")
            left = {("attn", 1): "b"} | ({("cross", 0): "a"} if calls[0] == 2 else {})
            own = at.get(left.get((part, layer), ""))
            return theirs if own is None else torch.where(own[None, :, None], output, theirs)

        return put

    def other_head(_, args):
        split = args[0].unflatten(-1, (bench.heads, -1)).clone()
        split[:, at["b"], 0] = value(f"blocks.1.{HEADS['attn']}")[:, at["b"], 0]
        return (split.flatten(-2),)

    pipe.transformer.register_forward_pre_hook(count)
    for layer, block in enumerate(pipe.transformer.blocks):
        for part, module in MODULES.items():
            block.get_submodule(module).register_forward_hook(hook(part, layer))
    pipe.transformer.blocks[1].attn1.to_out[0].register_forward_pre_hook(other_head)
    assert bench.heads == 2 and torch.equal(bench.latents([bench.without(chosen)])[0], plain(pipe, bench))


def test_the_words_that_are_read_by_plain_hooks(bench):
    """The mean over tokens and steps of a head's softmax over the text, summed over each word's tokens; in the giving run."""
    one = Component(part="cross", layer=1, group="b", steps=(0, 1))
    other = Component(part="mlp", layer=0, group="a", steps=(0, 1))
    circuit = Circuit(task=None, layers=3, num_inference_steps=STEPS, components=(one, other), narrow=(one,), effect=1, whole=1)
    rows = read_words(bench, bench.recorder.config, circuit)
    pipe, caught = tiny.build("wan2.1"), {"norm_q": [], "norm_k": []}
    for name, values in caught.items():
        module = pipe.transformer.blocks[1].attn2.get_submodule(name)
        module.register_forward_hook(lambda _, args, out, values=values: values.append(out.clone()))
    call = dict(bench.donor.problem.call) | {"num_inference_steps": STEPS, "guidance_scale": 1.0}
    pipe(**call, generator=torch.Generator("cpu").manual_seed(bench.donor.problem.seed), output_type="latent")
    heads, at = bench.heads, bench.masks["b"].flatten()
    split = lambda value: value[0].unflatten(-1, (heads, -1)).movedim(1, 0)
    pattern = torch.stack([
        torch.softmax(split(q)[:, at] @ split(k).mT / split(q).shape[-1] ** 0.5, -1).mean(1)
        for q, k in zip(caught["norm_q"], caught["norm_k"], strict=True)
    ]).mean(0)  # fmt: skip
    said = call["prompt"].split()
    assert [(row["head"], row["word"]) for row in rows] == [
        (head, word) for head in range(heads) for word in [*said, words.OTHERS]
    ]
    assert {(row["part"], row["layer"], row["group"]) for row in rows} == {("cross", 1, "b")}
    ids = [pipe.tokenizer(word, add_special_tokens=False).input_ids for word in said]
    start = 0
    for number, tokens in enumerate(ids):
        for head in range(heads):
            by_hand = pattern[head, start : start + len(tokens)].sum()
            found = next(row["weight"] for row in rows if (row["head"], row["number"]) == (head, number))
            assert found == pytest.approx(float(by_hand), abs=1e-6)
        start += len(tokens)


def test_a_word_has_what_all_its_tokens_have():
    one = Component(part="cross", layer=1, group="b", steps=(0,))
    heads = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
    rows = words._rows(one, heads, [Word("a", (0,)), Word("going", (1, 2))])
    named = [(row["head"], row["number"], row["word"]) for row in rows]
    assert named == [(head, *word) for head in (0, 1) for word in ((0, "a"), (1, "going"), (2, words.OTHERS))]
    assert [row["weight"] for row in rows] == pytest.approx([0.1, 0.5, 0.4, 0.4, 0.5, 0.1])
