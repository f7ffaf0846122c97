"""Circuits: a planted one is found exactly, an untrained model has none, and every map is what plain hooks give."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from planted import BOXES, SIZE
from planted import model as planted

from cos_interp.analyses.circuit import HEADS, SITES, Circuit, CircuitConfig, Component, PairFacts, paths
from cos_interp.analyses.circuit import measure as measuring
from cos_interp.analyses.circuit.bench import Bench
from cos_interp.analyses.circuit.checks import ALONE, FOREIGN, LEFT, LESS, OUT, RANDOM, RANDOM_LEFT, RANDOM_OUT, SHOWN, WHOLE
from cos_interp.analyses.circuit.components import drawn
from cos_interp.analyses.circuit.findings import findings
from cos_interp.analyses.circuit.pieces import pieces
from cos_interp.analyses.circuit.report import _heads
from cos_interp.analyses.circuit.search import narrowed, smallest
from cos_interp.analyses.driver import experiment
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.kept import kept_clips
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.driver.twins import twin_of
from cos_interp.analyses.kit.pairs import Recorder
from cos_interp.analyses.kit.split_pairs import pair_of
from cos_interp.interp import HookedVideoPipeline, InterpError
from cos_interp.interp.families import tiny

WORDS = ("red ball", "blue ball", "two goals", "a box", "green square", "left", "right of it", "the agent")
STEPS = 2


def pair_file(folder, count=4, boxes=BOXES):
    lines = [
        {"clean": {"prompt": WORDS[n], **SIZE}, "corrupt": {"prompt": WORDS[-1 - n], **SIZE}, "boxes": boxes}
        for n in range(count)
    ]
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def asked(folder, **more):
    return CircuitConfig(**{"pair_file": pair_file(folder), "pairs": 2, "num_inference_steps": STEPS, "batch": 4, **more})


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    config = asked(folder)
    result, report = experiment.run_and_report(load("circuit"), config, folder / "run", model=planted(), workers=1)
    return folder, result, report


def test_the_planted_parts_are_all_that_the_maps_show(found):
    rows = found[1].rows
    parts = rows[rows.table == "part"].groupby(["part", "layer"]).effect.mean()
    there = {("cross", 0), ("cross", 1), ("attn", 2)}
    assert {place for place, effect in parts.items() if abs(effect) > 1e-6} == there
    assert parts["cross", 0] == pytest.approx(parts["attn", 2]) and parts["cross", 0] + parts["cross", 1] == pytest.approx(1)
    assert (rows[rows.table == "whole"].effect - 1).abs().max() < 1e-9
    heads = next(section.table for section in _heads(found[1], rows))
    assert len(heads) == 2 * 3 and set(heads.place) == {"cross 0", "cross 1", "attn 2"}  # of two pairs
    first = heads[heads.place == "cross 1"].set_index("pair")
    assert set(first.index) == {f"“{WORDS[-1 - n]}” gets “{WORDS[n]}”" for n in range(2)}
    at = rows[(rows.table == "head") & (rows.part == "cross") & (rows.layer == 1) & (rows.pair == "fine-0001")].set_index("head")
    assert first.loc[f"“{WORDS[-2]}” gets “{WORDS[1]}”", ["head 0", "head 1"]].tolist() == at.effect.loc[[0, 1]].tolist()
    groups = rows[rows.table == "group"].groupby(["part", "layer", "group"]).effect.mean()
    named = {place for place, effect in groups.items() if abs(effect) > 1e-6}
    assert named == {("cross", 0, "a"), ("cross", 1, "c"), ("attn", 2, "b")}


def test_the_planted_circuit_is_found_exactly(found):
    """The first hop or the second, which carry the same, and the road of its own; one of them alone does not reach the goal."""
    folder, result, report = found
    circuit = Circuit.model_validate_json((folder / "run/media/circuit.json").read_bytes())
    places = {(one.part, one.layer, one.group) for one in circuit.components}
    assert places in ({("cross", 0, "a"), ("cross", 1, "c")}, {("attn", 2, "b"), ("cross", 1, "c")})
    assert circuit.effect == pytest.approx(1, abs=1e-4) and len(circuit.smaller) == 1 and circuit.smaller_effect < 0.8
    assert circuit.model["digest"] == result.facts["model"]["digest"] and len(circuit.checks) == 4  # fmt: skip
    ways = result.rows[result.rows.table == "check"].groupby("way").effect.mean()
    assert ways["circuit"] == pytest.approx(1, abs=1e-4) and ways["random set"] < 0.2  # some of its tokens may be B's
    assert ways["knocked out"] == pytest.approx(1, abs=1e-4) and ways["a random set knocked out"] < 0.2
    assert RunStore(folder / "run").verify() == []
    assert any("circuit" in line for line in report.lines)


def test_the_full_map_has_every_part_and_the_same_circuit(found, tmp_path):
    folder = found[0]
    config = asked(folder, full=True, check_pairs=1)
    result, _ = experiment.run_and_report(load("circuit"), config, tmp_path / "full", model=planted(), workers=1)
    rows, closer = result.rows, found[1].rows
    for table in ("group", "head", "from"):
        every = rows[rows.table == table].groupby(["part", "layer"]).effect.agg(lambda effects: effects.abs().max())
        assert set(every.index) == {(part, layer) for part in ("cross", "attn", "mlp") for layer in range(3)} - (
            {("mlp", layer) for layer in range(3)} if table == "head" else set()
        )
        assert set(every.index[every > 1e-6]) == {("cross", 0), ("cross", 1), ("attn", 2)}
    of = lambda name, rows: rows[rows.table == name].set_index(["pair", "part", "layer", "group"]).effect
    few = of("group", closer)
    assert len(few) < len(of("group", rows)) and of("group", rows)[few.index].equals(few)
    made = [json.loads((where / "media/circuit.json").read_text()) for where in (tmp_path / "full", folder / "run")]
    assert made[0]["components"] == made[1]["components"] and made[0]["effect"] == made[1]["effect"]


def test_all_but_the_circuit_is_what_the_other_hop_of_the_road_still_carries(found):
    """Either hop is enough for its share of the answer, so that the set suffices and is not necessary: both are said."""
    rows = found[1].rows
    ways = rows[rows.table == "check"].groupby("way").effect.mean()
    share = rows[(rows.table == "group") & (rows.group == "b")].effect.max()
    assert ways["everything"] == pytest.approx(1)
    assert ways["all but it"] == pytest.approx(share, abs=1e-4) == pytest.approx(1 - ways["one less"], abs=1e-4)


def test_paths_show_the_two_hops_by_its_values_and_no_other_road(found):
    rows = found[1].rows
    paths = rows[rows.table == "path"].assign(ends=lambda r: r.sender.str[:7] + " > " + r.receiver.str[:6])
    means = paths.groupby(["when", "road", "ends"]).effect.mean()
    means = means.rename(index=lambda name: name.replace(" a >", " >"))
    large = {key for key, effect in means.items() if abs(effect) > 1e-6}
    assert {(when, road) for when, road, _ in large} == {("within", "all"), ("within", "v")}
    assert all("cross 0" in ends and "attn 2" in ends for *_, ends in large)


def test_a_circuit_is_tested_on_another_model_and_refused_where_it_cannot_be(found, tmp_path):
    folder = found[0]
    path = str(folder / "run/media/circuit.json")
    config = asked(folder, check=path, check_pairs=2)
    result, report = experiment.run_and_report(load("circuit"), config, tmp_path / "again", model=planted(), workers=1)
    assert set(result.rows.table) == {"check"} and result.rows[result.rows.way == "circuit"].effect.min() == pytest.approx(
        1, abs=1e-4
    )
    assert json.loads((tmp_path / "again/media/circuit.json").read_text()) == json.loads(
        (folder / "run/media/circuit.json").read_text()
    )
    joint = HookedVideoPipeline.from_pretrained("tiny:cogvideox")
    for given, other, said in (
        ({}, joint, "has the parts attn, mlp"), ({"num_inference_steps": 3}, planted(), "give --num-steps 2"),
        ({"pair_file": None}, planted(), "--pair-file"),
        ({"check": str(folder / "pairs.jsonl")}, planted(), "is no circuit.json"),
    ):  # fmt: skip
        with pytest.raises(InterpError, match=said):
            measuring.check(asked(folder, **{"check": path, **given}), other)


ONE = {"part": "cross", "layer": 1, "group": "a", "steps": [0, 1], "heads": None}


@pytest.mark.parametrize(
    ("one", "more", "said"),
    [
        ({"heads": [7]}, {}, "cross of tiny:wan2.1 has 2 heads"), ({"part": "mlp", "heads": [0]}, {}, "mlp of tiny:wan2.1 has 0"),
        ({"heads": []}, {}, "is no circuit.json"), ({"steps": [-1]}, {}, "is no circuit.json"),
        ({"steps": [5]}, {}, "beyond the 2 steps"), ({}, {"layers": 30}, "of a model of 30 layers, tiny:wan2.1 has 3"),
        ({"group": "goals"}, {}, "asks for tokens of goals; the pairs of .* have a, b, c, rest"),
    ],
)  # fmt: skip
def test_a_circuit_of_another_build_or_other_tokens_is_refused(tmp_path, one, more, said):
    """Before anything runs: patched at what is not there it would have moved nothing, and that would have passed for a result."""
    held = {"task": None, "layers": 3, "num_inference_steps": STEPS, "effect": 1.0, "whole": 1.0, **more}
    for name in ("components", "narrow"):
        (tmp_path / "circuit.json").write_text(json.dumps(held | {"components": [ONE], "narrow": [ONE], name: [ONE | one]}))
        with pytest.raises(InterpError, match=said):
            measuring.check(
                asked(tmp_path, check=str(tmp_path / "circuit.json")), HookedVideoPipeline.from_pretrained("tiny:wan2.1")
            )


def test_a_pair_without_tokens_of_the_circuit_is_left_out(tmp_path):
    """Two pairs have a box of its name, two have not; nothing is patched in these."""
    path = pair_file(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    (tmp_path / "pairs.jsonl").write_text(
        "\n".join(json.dumps(line | {"boxes": {"d": BOXES["b"]}} if n % 2 else line) for n, line in enumerate(lines))
    )
    held = {"task": None, "layers": 3, "num_inference_steps": STEPS, "effect": 1.0, "whole": 1.0}
    (tmp_path / "circuit.json").write_text(json.dumps(held | {"components": [ONE], "narrow": [ONE]}))
    config = CircuitConfig(pair_file=path, check=str(tmp_path / "circuit.json"), num_inference_steps=STEPS)
    result, report = experiment.run_and_report(load("circuit"), config, tmp_path / "run", model=planted(), workers=1)
    assert set(result.rows.pair) == {"check-1000", "check-1002"}
    assert any("no tokens of the circuit's groups a; it has d, rest" in line for line in report.lines), report.lines


def test_no_circuit_in_a_model_of_random_weights(tmp_path):
    made = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    made.defaults |= SIZE
    _, report = experiment.run_and_report(load("circuit"), asked(tmp_path, most=2), tmp_path / "run", model=made, workers=1)
    assert any("No circuit was found" in line for line in report.lines), report.lines
    assert all(f["verdict"] == "not testable" for f in report.data["findings"])
    assert not (tmp_path / "run/media/circuit.json").exists()


def test_a_tested_pair_can_be_seen(organism, tmp_path):
    """A made-up circuit on one pair: each clip stands with the row that was read in it, and the page shows it first."""
    one = Component(part="cross", layer=1, group="goals", steps=(0, 1))
    made = Circuit(task="maze", layers=8, num_inference_steps=2, components=(one,), narrow=(one,), effect=1, whole=1)
    (tmp_path / "circuit.json").write_text(made.model_dump_json())
    asked = {"check": str(tmp_path / "circuit.json"), "pairs": 1, "check_pairs": 1, "solved": False, "num_inference_steps": 2}
    config = CircuitConfig(**asked)
    result, report = experiment.run_and_report(load("circuit"), config, tmp_path / "run", model=organism, workers=1)
    (kept,) = kept_clips(result, RunStore(tmp_path / "run", [PairFacts]), PairFacts)
    assert set(kept.names) == {"own", "donor", *SHOWN.values()}
    clip = dict(zip(kept.names, kept.clips, strict=True))
    rows = {row["way"]: row for row in kept.rows if row}
    assert set(rows) == {"circuit", "all but it", "knocked out", "random set", "random item"}
    assert not np.array_equal(clip["own"], clip["donor"])
    unmoved = [name for name, row in zip(kept.names, kept.rows, strict=True) if row and abs(row["effect"]) < 1e-9]
    assert all(np.array_equal(clip[name], clip["own"]) for name in unmoved)
    assert "Videos" in report.html and '"name":"check-1000"' in report.html


@pytest.mark.slow
def test_no_circuit_in_the_untrained_twin_of_the_organism(organism, tmp_path):
    """With its autoencoder and text encoder, and weights drawn at random; on one pair, whatever it makes of it."""
    config = CircuitConfig(solved=False, pairs=1, check_pairs=0, num_inference_steps=2)
    result, report = experiment.run_and_report(load("circuit"), config, tmp_path / "run", model=twin_of(organism, 0), workers=1)
    assert any("No circuit was found" in line for line in report.lines), report.lines
    goals = result.rows[(result.rows.table == "flow") & (result.rows.group == "goals")].effect
    assert goals.abs().max() < 0.5  # the organism has 0.99 there


# --- maps against plain hooks ------------------------------------------------------------------------------------------


def recorder(model, config) -> Recorder:
    """Runs with all that components write, and give, kept."""
    return Recorder(model, config, [f"blocks.*.{site}" for site in (*SITES.values(), *HEADS.values())])


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
    given = lambda step: bench.donor.recording.cache[f"blocks.{layer}.{measuring.SITES[part]}", step, "cond"].flatten(1, 3)
    hand = by_hand(bench, f"blocks.{layer}.{MODULES[part]}", lambda value, step: given(step))
    assert torch.equal(bench.latents([measuring.whole_of(bench, part, layer)])[0], hand)


@pytest.mark.parametrize(("part", "layer", "group", "first"), [("attn", 1, "b", 0), ("cross", 0, "a", 1)])
def test_cells_by_token_group_and_step(bench, part, layer, group, first):
    one = Component(part=part, layer=layer, group=group, steps=tuple(range(first, STEPS)))
    given = lambda step: bench.donor.recording.cache[f"blocks.{layer}.{measuring.SITES[part]}", step, "cond"].flatten(1, 3)
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


# --- arithmetic --------------------------------------------------------------------------------------------------------


def component(layer, part="cross", group="a"):
    return Component(part=part, layer=layer, group=group, steps=(0, 1, 2))


def test_the_smallest_set_is_not_what_greed_alone_finds():
    """0 is the best alone, and of no use to the two that do it together."""
    zero, one, two, three = map(component, range(4))
    worth = {frozenset({zero}): 0.5, frozenset({one, two}): 1.0, frozenset({zero, one}): 0.6, frozenset({zero, one, two}): 1.0}
    value = lambda sets: [worth.get(frozenset(chosen), 0.1) for chosen in sets]
    found, path = smallest([zero, one, two, three], value, 0.8, 4)
    assert set(found.components) == {one, two} and found.smaller == (zero,) and found.smaller_effect == 0.5 and found.tried == 4
    assert len(path) == 3 and set(path[-1][0]) == {zero, one, two}


def test_nothing_reaches_the_goal():
    assert smallest([component(0)], lambda sets: [0.3 for _ in sets], 0.8, 4)[0] is None
    assert smallest([], lambda sets: [], 0.8, 4) == (None, [])


def test_narrowing_keeps_the_steps_and_heads_that_are_needed():
    def worth(chosen):
        one = chosen[0]
        return 1.0 if {1, 2} <= set(one.steps) and (one.heads is None or 2 in one.heads) else 0.0

    (thin,) = narrowed((component(0),), lambda sets: [worth(chosen) for chosen in sets], 1.0, heads=3)
    assert thin.steps == (1, 2) and thin.heads == (2,)
    (whole,) = narrowed((component(0, "mlp"),), lambda sets: [worth(chosen) for chosen in sets], 1.0, heads=3)
    assert whole.heads is None


def test_a_random_set_is_as_large_elsewhere():
    mask = torch.zeros(3, 4, 4, dtype=torch.bool)
    mask[:, 0, 0] = True
    for draw in range(5):
        made, masks = drawn([component(1)], {"a": mask}, [("cross", n) for n in range(3)], np.random.default_rng(draw))
        assert made[0].layer != 1 and made[0].part == "cross"
        assert masks[made[0].group].sum() == 3 and not (masks[made[0].group] & mask).any()


def test_unseen_pairs_do_not_depend_on_how_many_are_searched(tmp_path):
    names = lambda **more: {piece.name for piece, _ in pieces(CircuitConfig(check_pairs=3, **more)) if piece.stage == "check"}
    assert names(pairs=2) == names(pairs=9) == {"check-1000", "check-1001", "check-1002"}
    config = asked(tmp_path)
    assert [piece.name for piece, _ in pieces(config) if piece.stage == "check"] == ["check-1000", "check-1001"]


@pytest.mark.parametrize(
    ("box", "said"),
    [([0, 0, 0, 8], "left below right"), ([0, 0, 200, 8], "has 64x64 pixels"),
     ([0, 0, 4, 4], "middle of no token"), ("no", "whole pixels")],
)  # fmt: skip
def test_boxes_that_are_none_are_said(tmp_path, box, said):
    made = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    config = CircuitConfig(pair_file=pair_file(tmp_path, 1, {"a": box}), num_inference_steps=STEPS)
    with pytest.raises(InterpError, match=said):
        measuring.check(config, made)
        Bench.of(recorder(made, config), config, *pair_of(recorder(made, config), config, 0))


TRUE = {
    ALONE: 0.95, RANDOM: 0.05, FOREIGN: 0.1, LEFT: 0.2, RANDOM_LEFT: 0.98, OUT: 0.9, RANDOM_OUT: 0.03, LESS: 0.4, WHOLE: 1.0,
}  # all four claims hold  # fmt: skip


def verdicts(**more: float) -> list[str]:
    """Of made-up effects on 16 unseen pairs that differ a little: sufficient, necessary, knocked out, smallest."""
    chance = np.random.default_rng(0)
    rows = [
        {"table": "check", "pair": f"check-{n}", "way": way, "effect": effect + 0.02 * chance.standard_normal()}
        for n in range(16) for way, effect in (TRUE | more).items()
    ]  # fmt: skip
    return [one.verdict for one in findings(AnalysisResult("circuit", CircuitConfig(), pd.DataFrame(rows)))]


def test_verdicts_of_made_up_effects():
    assert verdicts() == ["reproduced"] * 4
    assert verdicts(**{ALONE: 0.5})[0] == "refuted"  # it goes less than half of the way beyond the controls
    assert verdicts(**{RANDOM: 0.9})[0] == verdicts(**{FOREIGN: 0.9})[0] == "refuted"  # as far as any components, or any donor
    assert verdicts(**{LEFT: 0.97})[1] == verdicts(**{RANDOM_LEFT: 0.2})[1] == "refuted"  # nothing is lost, or as much by any set
    assert verdicts(**{OUT: 0.04})[2] == verdicts(**{RANDOM_OUT: 0.8})[2] == "refuted"  # there is another road, or none matters
    assert verdicts(**{LESS: 0.93})[3] == "refuted"  # one is too many
    assert verdicts(**{WHOLE: 0.5}) == ["not testable"] * 4  # something else carries it


def test_a_set_of_one_is_not_found_to_be_the_smallest():
    """With one component less nothing is patched, and nothing moves by definition."""
    chance = np.random.default_rng(0)
    rows = pd.DataFrame([
        {"table": "check", "pair": f"check-{n}", "way": way, "effect": (way != LESS) * (effect + 0.02 * chance.standard_normal())}
        for n in range(16) for way, effect in TRUE.items()
    ])  # fmt: skip
    found = findings(AnalysisResult("circuit", CircuitConfig(), rows))
    assert [one.verdict for one in found] == ["reproduced"] * 3 + ["not testable"] and "set of one" in found[3].why
