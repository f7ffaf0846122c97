"""Circuits: a planted one is found exactly, an untrained model has none, and what is tested can be seen."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from circuits import STEPS, WORDS, asked, pair_file, recorder
from planted import BOXES, SIZE
from planted import model as planted

from cos_interp.analyses.circuit import Circuit, CircuitConfig, Component, PairFacts
from cos_interp.analyses.circuit import measure as measuring
from cos_interp.analyses.circuit.bench import Bench
from cos_interp.analyses.circuit.checks import READS, SHOWN
from cos_interp.analyses.circuit.pieces import pieces
from cos_interp.analyses.circuit.report import _heads, effects
from cos_interp.analyses.circuit.words import OTHERS
from cos_interp.analyses.driver import experiment
from cos_interp.analyses.driver.kept import kept_clips
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.statistics import effect
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.driver.twins import twin_of
from cos_interp.analyses.kit.groups import of_pair
from cos_interp.analyses.kit.split_pairs import pair_of
from cos_interp.interp import HookedVideoPipeline, InterpError
from cos_interp.interp.families import tiny


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
    assert circuit.model["digest"] == result.facts["model"]["digest"] and len(circuit.checks) == 6  # fmt: skip
    ways = result.rows[result.rows.table == "check"].groupby("way").effect.mean()
    assert ways["circuit"] == pytest.approx(1, abs=1e-4) and ways["random set"] < 0.2  # some of its tokens may be B's
    assert ways["knocked out"] == pytest.approx(1, abs=1e-4) and ways["a random set knocked out"] < 0.2
    first, _ = report.html.split('<section id="evidence"')
    assert "the circuit alone" in first  # what the verdict compares is the figure of the first screen
    checks = result.rows[result.rows.table == "check"]
    drawn = effects(checks.assign(effect=effect(checks.effect))).set_index("name")["mean"]
    assert drawn["the circuit alone"] == pytest.approx(1, abs=1e-4) and drawn["a random set"] == pytest.approx(ways["random set"])
    reads = [ways[name] for name in READS]
    assert reads == pytest.approx([1, 0, 1], abs=1e-6)  # block 2 reads nothing
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


def test_the_words_that_the_planted_attention_reads(found):
    """It has no queries, so that each head spreads evenly over the text tokens: a word's share is that of its tokens."""
    rows = found[1].rows
    words = rows[rows.table == "word"]
    assert set(words.part) == {"cross"} and set(words["head"]) == {0, 1}
    for pair, given in enumerate(WORDS[:2]):
        mine = words[words.pair == f"paths-{pair:04d}"]
        assert list(dict.fromkeys(mine.sort_values("number").word)) == [*given.split(), OTHERS]
        assert mine.groupby(["layer", "head"]).weight.sum().to_numpy() == pytest.approx(1, abs=1e-5)
        assert mine[mine.word != OTHERS].weight.to_numpy() == pytest.approx(1 / SIZE["max_sequence_length"], abs=1e-5)
    assert "Which words does it read?" in found[2].html and "Early and late" in found[2].html


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


def test_a_circuit_of_another_family_is_tested_with_a_warning(found, tmp_path):
    held = json.loads((found[0] / "run/media/circuit.json").read_text())
    assert held["transformer"] == "WanTransformer3DModel"
    circuit = held | {name: [ONE | {"part": "attn", "group": "a"}] for name in ("components", "narrow", "smaller")}
    (tmp_path / "circuit.json").write_text(json.dumps(circuit))
    other = HookedVideoPipeline.from_pretrained("tiny:cogvideox")
    config = asked(tmp_path, check=str(tmp_path / "circuit.json"))
    with pytest.warns(UserWarning, match="found in a WanTransformer3DModel, and tiny:cogvideox is a CogVideoXTransformer3DModel"):
        measuring.check(config, other)


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
    assert set(rows) == {"circuit", "all but it", "knocked out", "random set", "random item", *READS}
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


def test_a_moving_box_in_a_circuit_is_that_of_plain_hooks(tmp_path):
    """At pixel frame 0 the first token, at 1 and 6 the second one: what the MLP of block 1 writes there is the donor's."""
    boxes = {"ball": [[0, 0, 16, 16], [16, 0, 32, 16], *[None] * 4, [16, 0, 32, 16], None, None]}
    made = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    config = CircuitConfig(pair_file=pair_file(tmp_path, 1, boxes), num_inference_steps=STEPS, batch=1)
    record = recorder(made, config)
    bench = Bench.of(record, config, *pair_of(record, config, 0))
    one = Component(part="mlp", layer=1, group="ball", steps=(0, 1))
    tokens = torch.zeros(3, 4, 4, dtype=torch.bool)  # latent frames hold pixel frames 0, 1 to 4, 5 to 8
    tokens[0, 0, 0] = tokens[1:, 0, 1] = True
    pipe, written = tiny.build("wan2.1"), []

    def plain(side, hook):
        handle = pipe.transformer.blocks[1].ffn.register_forward_hook(hook)
        noise = torch.Generator().manual_seed(side.problem.seed)
        call = {"num_inference_steps": STEPS, "guidance_scale": 1.0, "generator": noise, "output_type": "latent"}
        out = pipe(**{**side.problem.call, **call}, return_dict=False)[0]
        handle.remove()
        return out

    given = plain(bench.donor, lambda module, _, out: written.append(out.clone()))
    own = plain(bench.target, lambda *_: None)
    left = iter(written)
    moved = plain(bench.target, lambda module, _, out: torch.where(tokens.reshape(1, -1, 1), next(left), out))
    along = (given - own).double().flatten()
    by_hand = float((moved - own).double().flatten() @ along / (along @ along))
    assert bench.effects(bench.rows([[one]])) == pytest.approx([by_hand], abs=1e-9) and by_hand != 0


def test_boxes_by_pixel_frame_are_refused_where_there_is_no_latent_frame_for_each(tmp_path):
    made = HookedVideoPipeline.from_pretrained("tiny:hunyuan-i2v-concat")
    run = SimpleNamespace(latents=torch.zeros(1, 4, 3, 4, 4))
    side = SimpleNamespace(problem=SimpleNamespace(item=None, source="line 1"), recording=SimpleNamespace(run=run))
    with pytest.raises(InterpError, match=r"no latent frame for a pixel frame \(its first latent frame is its picture's"):
        of_pair(made, side, side, {"ball": {0: (0, 0, 16, 16)}})
