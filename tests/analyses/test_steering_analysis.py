"""Steering as an experiment: directions by hand-made numbers, each way against plain hooks, a whole run on another family."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import planted
import pytest
import torch
from pydantic import ValidationError

from cos_interp.analyses.driver import experiment
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.pairs import Recorder
from cos_interp.analyses.kit.problems import Problem, item_call
from cos_interp.analyses.steering import SteeringConfig
from cos_interp.analyses.steering.directions import (
    Moments,
    exchanged,
    exchanged_as_far,
    foreign,
    mean_direction,
    random_basis,
    roles,
    subspace,
)
from cos_interp.analyses.steering.measure import Gathered
from cos_interp.analyses.steering.placing import by_frame, frames_of, grouped, in_frames, place, placed
from cos_interp.analyses.steering.report import findings
from cos_interp.analyses.steering.tried import Trial, elsewhere, place_of, without_cells
from cos_interp.interp import HookedVideoPipeline, InterpError, Steer, tiny
from cos_interp.tasks import get_task

SIZE = {"height": 64, "width": 64, "num_frames": 9, "max_sequence_length": 12}
WORDS = ("red ball", "blue ball", "two goals", "a box", "green square", "left")


def test_a_planted_direction_is_found_and_exchanged_alone():
    chance = torch.Generator().manual_seed(0)
    planted = torch.zeros(6)
    planted[2] = 3.0
    differences = planted + 0.01 * torch.randn(40, 6, generator=chance)
    parts = [Moments(6), Moments(6)]
    for part, some in zip(parts, differences.split(25), strict=True):
        part.add(some)
    basis, shares = subspace(Moments.joined(parts), 2)
    assert abs(basis[2, 0]) > 0.999 and shares[0] > 0.99
    assert torch.allclose(mean_direction(Moments.joined(parts)), planted, atol=0.02)
    _, sizes, rows = torch.linalg.svd(differences, full_matrices=False)
    assert torch.allclose((basis.T @ rows[:2].T).abs(), torch.eye(2), atol=1e-4)
    assert torch.allclose(shares, (sizes**2 / (sizes**2).sum())[:2], rtol=1e-4)
    assert subspace(parts[0], 40)[0].shape == (6, 6)
    few = Moments(6)
    few.add(differences[:3])
    assert subspace(few, 4)[0].shape == (6, 3)  # three differences have three axes
    own, donor = torch.zeros(3, 6), torch.arange(6.0).expand(3, 6)
    moved = exchanged(own, donor, torch.eye(6)[:, [2]])
    assert torch.equal(moved[0], torch.tensor([0, 0, 2.0, 0, 0, 0]))
    far = exchanged_as_far(own, donor, torch.eye(6)[:, [5]], torch.eye(6)[:, [2]])
    assert torch.allclose(far[0], torch.tensor([0, 0, 0, 0, 0, 2.0]))
    drawn = random_basis(6, 3, chance)
    assert torch.allclose(drawn.T @ drawn, torch.eye(3), atol=1e-6)


def test_the_weights_are_where_one_answer_alone_changes_the_scene():
    maze = get_task("maze")
    item = maze.sample(3, unique=True, split="test")
    other = maze.counterfactual(item, "prompt", np.random.default_rng(0))
    found, goals = roles(item, other), torch.from_numpy(maze.groups(item, other)["goals"]).any(0)
    assert sorted(found[goals].tolist()) == [-1.0, 1.0] and torch.equal(roles(other, item), -found)
    weights = found[None] * goals[None].float()
    there = elsewhere(weights, goals[None], torch.Generator().manual_seed(0))
    assert sorted(there[there != 0].tolist()) == [-1.0, 1.0] and not (there[goals[None]] != 0).any()


def test_differences_point_to_the_donors_answer_at_both_goals(organism):
    """At the goal that the donor is to go to: donor minus target; at the target's own: turned round. Of steps and tokens."""
    maze = get_task("maze")
    item = maze.sample(3, unique=True, split="test")
    other = maze.counterfactual(item, "prompt", np.random.default_rng(0))
    record = Recorder(organism, SteeringConfig(num_inference_steps=2))
    target, donor = (record(Problem("maze", item_call(one), 7, 0, one)) for one in (item, other))
    mask = torch.from_numpy(maze.groups(item, other)["goals"])
    seen, site = Gathered(), "blocks.1.hook_resid_post"
    for _ in range(2):  # as of two pairs
        seen.add(target, donor, site, mask)
    goes = lambda one: one.cells[-1] != one.cells[0]
    turned, given = {}, {}
    for frame, row, col in mask.nonzero().tolist():
        sign = float(goes(other)[row, col]) - float(goes(item)[row, col])
        assert abs(sign) == 1
        for step in range(2):
            own, theirs = (side.recording.cache[site, step, "cond"][0, frame, row, col] for side in (target, donor))
            turned.setdefault(frame, []).append(sign * (theirs - own).double())
            given.setdefault(frame, []).append(theirs)
    for frames in ((), (1,), (0, 2)):
        every, items = seen.within(frames)
        theirs = torch.stack([v for n, some in given.items() if n in frames or not frames for v in some])
        rows = torch.stack([v for n, some in turned.items() if n in frames or not frames for v in some])
        assert every.count == 2 * len(rows) and torch.allclose(every.total, 2 * rows.sum(0), rtol=1e-9)
        assert torch.allclose(every.products, 2 * rows.T @ rows, rtol=1e-9)
        assert len(items) == 2 and all(torch.allclose(one, theirs.mean(0), atol=1e-5) for one in items)
    assert seen.within((9,))[0].count == 0 and seen.within((9,))[1] == []


def test_the_verdict_without_the_steered_cells():
    maze = get_task("maze")
    item = maze.sample(3, unique=True, split="test")
    other = maze.counterfactual(item, "prompt", np.random.default_rng(0))
    goals = maze.groups(item, other)["goals"].any(0)
    grey = other.video.copy()
    for row, col in np.argwhere(goals):
        grey[:, row * 16 : row * 16 + 16, col * 16 : col * 16 + 16] = 120
    assert maze.verify(other, grey).status == "undecided" and without_cells(item, other, grey, goals) == "donor"
    assert without_cells(item, other, item.video, goals) == "target"
    assert without_cells(item, other, np.full_like(grey, 120), goals) == "undecided"


def test_the_place_is_the_best_alone_unless_two_are_needed():
    rows = lambda *cells: pd.DataFrame([{"layer": n, "group": g, "effect": e} for n, g, e in cells])
    ask = SteeringConfig()
    assert place(ask, rows((0, "a", 0.2), (1, "a", 0.8), (1, "a + b", 0.85))) == (1, ("a",))
    assert place(ask, rows((0, "a", 0.2), (1, "a", 0.5), (2, "a + b", 0.95))) == (2, ("a", "b"))
    assert place(SteeringConfig(layer=3, tokens=("x",)), rows()) == (3, ("x",))
    with pytest.raises(InterpError, match="give --layer too"):
        place(SteeringConfig(tokens=("x",)), rows((0, "a", 0.2)))


def test_one_frame_is_the_place_where_it_does_as_much_as_all():
    maps = lambda whole, *alone: pd.DataFrame(
        [{"frame": None, "effect": whole}, *({"frame": n, "effect": e} for n, e in enumerate(alone))]
    )
    assert frames_of(maps(1.0, 0.95, 0.2, 0.0)) == (0,)
    assert frames_of(maps(1.0, 0.5, 0.6, 0.2)) == ()  # they do it together
    assert frames_of(maps(1.0, 1.0)) == ()  # there is but one
    mask = torch.ones(3, 1, 2, dtype=torch.bool)
    assert in_frames(mask, (1,)).sum((1, 2)).tolist() == [0, 2, 0] and in_frames(mask, ()).all()


@pytest.fixture(scope="module")
def trial():
    """One pair on a tiny pipeline, with directions drawn at random; rows are finished one by one."""
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    record = Recorder(model, SteeringConfig(num_inference_steps=2))
    target, donor = (record(Problem("own", {"prompt": word, **SIZE}, 7, 0)) for word in WORDS[:2])
    mask = torch.zeros(3, 4, 4, dtype=torch.bool)
    mask[:, 1, 2] = True
    chance = torch.Generator().manual_seed(0)
    width = donor.recording.cache["blocks.1.hook_resid_post", 0].shape[-1]
    where = place_of("blocks.1.hook_resid_post", mask, target, donor)
    vector, basis, items = torch.randn(width, generator=chance), random_basis(width, 2, chance), torch.eye(2, width)
    return Trial(model, target, donor, where, vector, basis, items)


def by_hand(trial, change):
    """Final latents of the receiving run with a plain hook on block 1: ``change(value, step)`` at the place's token."""
    pipe, count, at = tiny.build("wan2.1"), [0], trial.place.mask.flatten()[None, :, None]

    def hook(_, given, output):
        count[0] += 1
        return torch.where(at, change(output, count[0] - 1), output)

    pipe.transformer.blocks[1].register_forward_hook(hook)
    call = {"prompt": WORDS[0], **SIZE, "num_inference_steps": 2, "guidance_scale": 1.0}
    return pipe(**call, generator=torch.Generator("cpu").manual_seed(7), output_type="latent", return_dict=False)[0]


def test_two_ways_against_plain_hooks(trial):
    rows = trial.rows((2.0,), (1, 2))
    found = trial.latents({way: rows[way] for way in ("steer 2", "exchange 1", "donor", "second half of the steps")}, 1)
    given = lambda step: trial.donor.recording.cache["blocks.1.hook_resid_post", step, "cond"].flatten(1, 3)
    one = trial.basis[:, :1]
    assert torch.equal(found["steer 2"], by_hand(trial, lambda value, step: value + 2 * trial.vector))
    assert torch.equal(found["exchange 1"], by_hand(trial, lambda value, step: value + ((given(step) - value) @ one) @ one.T))
    assert torch.equal(found["donor"], by_hand(trial, lambda value, step: given(step)))
    rows = {"two items' difference 1": rows["two items' difference 1"]}
    step = trial.vector.norm() * (trial.items[0] - trial.items[1]) / 2**0.5
    ways = [by_hand(trial, lambda value, k, sign=sign: value + sign * step) for sign in (1, -1)]
    (two,) = trial.latents(rows, 1).values()
    assert min(float((two - way).abs().max()) for way in ways) < 1e-5 < float((ways[0] - ways[1]).abs().max())
    row = {"random direction 1": trial.rows((), (1,))["random direction 1"]}
    ((change,),) = row.values()
    drawn = change.donor(torch.zeros(1, 3, 4, 4, len(trial.vector)), 0, "cond")[0, trial.place.mask]
    length = trial.vector.norm()
    assert torch.allclose(drawn.norm(dim=-1), length) and abs(float(drawn[0] @ trial.vector)) < 0.9 * length**2
    assert torch.equal(trial.latents(row, 1)["random direction 1"], by_hand(trial, lambda value, step: value + drawn[0]))
    late = by_hand(trial, lambda value, step: value + trial.vector if step == 1 else value)
    assert torch.equal(found["second half of the steps"], late)


def test_the_map_of_frames_is_that_of_plain_hooks(trial):
    asked = SteeringConfig(num_inference_steps=2, batch=1)
    record = Recorder(trial.model, asked)
    rows = by_frame(record, asked, trial.target, trial.donor, trial.place.site, trial.place.mask)
    assert [row["frame"] for row in rows] == [None, 0, 1, 2]
    own, theirs = (side.recording.run.latents.double() for side in (trial.target, trial.donor))
    given = lambda step: trial.donor.recording.cache["blocks.1.hook_resid_post", step, "cond"].flatten(1, 3)
    for row in rows:
        part = trial.place.mask if row["frame"] is None else in_frames(trial.place.mask, [row["frame"]])
        latent = by_hand(
            dataclasses.replace(trial, place=dataclasses.replace(trial.place, mask=part)), lambda value, step: given(step)
        )
        along = float(((latent.double() - own) * (theirs - own)).sum() / (theirs - own).square().sum())
        assert row["effect"] == pytest.approx(along, abs=1e-9)


def test_the_map_of_places_is_that_of_plain_hooks(tmp_path):
    line = {"clean": {"prompt": WORDS[1], **SIZE}, "corrupt": {"prompt": WORDS[0], **SIZE}, "boxes": planted.BOXES}
    (tmp_path / "pairs.jsonl").write_text(
        json.dumps({**line, "clean": line["clean"] | {"seed": 7}, "corrupt": line["corrupt"] | {"seed": 7}})
    )
    asked = SteeringConfig(pair_file=str(tmp_path / "pairs.jsonl"), pairs=2, num_inference_steps=2, batch=1)
    record = Recorder(HookedVideoPipeline.from_pretrained("tiny:wan2.1"), asked)
    rows = {(row["layer"], row["group"]): row["effect"] for row in placed(record, asked, 0)}
    pair, masks = grouped(record, asked, 0)
    target, donor = pair.corrupt, pair.clean
    own, theirs = (side.recording.run.latents.double() for side in (target, donor))
    for layer, names in ((1, ("b",)), (2, ("a", "c"))):
        pipe, count = tiny.build("wan2.1"), [0]
        at = torch.stack([masks[name] for name in names]).any(0).flatten()[None, :, None]

        def hook(_, given, output, layer=layer, at=at, count=count):
            count[0] += 1
            return torch.where(
                at, donor.recording.cache[f"blocks.{layer}.hook_resid_post", count[0] - 1, "cond"].flatten(1, 3), output
            )

        pipe.transformer.blocks[layer].register_forward_hook(hook)
        call = {"prompt": WORDS[0], **SIZE, "num_inference_steps": 2, "guidance_scale": 1.0, "output_type": "latent"}
        latent = pipe(**call, generator=torch.Generator("cpu").manual_seed(7), return_dict=False)[0]
        along = float(((latent.double() - own) * (theirs - own)).sum() / (theirs - own).square().sum())
        assert rows[layer, " + ".join(names)] == pytest.approx(along, abs=1e-9) != 0


def judged(steer, random, elsewhere_too=0.0, items=0.0, first=None, donor=1.0):
    """The verdicts of made-up effects of 16 pairs. ``first``: what the vector does in the first one."""
    chance = np.random.default_rng(0)
    rows = []
    for pair in range(16):
        for way, value in (
            ("steer", steer), ("random direction", random), ("wrong place", elsewhere_too), ("exchange", steer),
            ("two items' difference", items),
            ("random exchange", random), ("donor", donor),
        ):  # fmt: skip
            if value is None:
                continue
            size = np.nan if way == "donor" else 1.0
            effect = value + 0.05 * chance.standard_normal()
            if first is not None and (pair, way) == (0, "steer"):
                effect = first
            rows.append(
                {"table": "check", "pair": pair, "way": way, "size": size, "effect": effect, "donor_shown": min(effect, 1.0)}
            )
    at = pd.DataFrame(rows)
    result = AnalysisResult("steering", SteeringConfig(), at)
    return [finding.verdict for finding in findings(result, at)]


def test_verdicts_of_made_up_numbers():
    assert judged(0.9, 0.0) == ["reproduced"] * 3
    assert judged(0.1, 0.0) == ["refuted"] * 3
    assert judged(0.9, 0.9) == ["refuted"] * 3  # the placebo: a random direction does as much
    assert judged(0.9, 0.0, first=300.0)[0] == "reproduced"  # one pair that diverges by itself is one of 16
    assert judged(0.9, 0.0, elsewhere_too=0.9)[0] == "refuted"  # it does not matter where
    assert judged(0.9, 0.0, items=0.9)[0] == "refuted"  # nor what is added, as long as activations vary in that direction
    assert judged(0.9, np.nan) == ["not testable"] * 3
    assert (
        judged(0.9, 0.0, items=np.nan)[0] == judged(0.9, 0.0, elsewhere_too=np.nan)[0] == "not testable"
    )  # of three one is missing
    assert judged(0.9, 0.0, donor=None) == ["not testable"] * 3  # whether the answer is at the place is not known


def test_what_two_items_differ_by_has_the_length_and_is_of_two_of_them():
    items, chance = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    found = foreign(items, torch.tensor(3.0), chance)
    assert found.norm() == pytest.approx(3, rel=1e-6)
    along = [float(found @ (a - b) / (3 * (a - b).norm())) for a, b in itertools.permutations(items, 2)]
    assert max(along) == pytest.approx(1, abs=1e-6) and sum(value > 0.999 for value in along) == 1


def test_a_whole_run_on_another_pipeline(tmp_path):
    lines = [
        {"clean": {"prompt": a, **SIZE}, "corrupt": {"prompt": b, **SIZE}, "boxes": {"a": [0, 0, 16, 16]}}
        for a, b in zip(WORDS, WORDS[::-1], strict=True)
    ][:4]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    config = SteeringConfig(pair_file=str(tmp_path / "pairs.jsonl"), pairs=3, num_inference_steps=2, ranks=(1, 2), doses=(2.0,))
    result, report = experiment.run_and_report(load("steering"), config, tmp_path / "run", model=model, workers=1)
    at = result.rows[result.rows.table == "check"]
    assert at.effect.notna().all() and set(at.pair) == {"check-1000"}
    assert {"steer", "random direction", "wrong place", "exchange", "random exchange", "all but", "donor"} <= set(at.way)
    assert [f["verdict"] for f in report.data["findings"]] == ["not testable"] * 3
    one = Steer.load(tmp_path / "run/media/steering.safetensors")
    assert one.card["model"]["digest"] == result.facts["model"]["digest"] and one.where.endswith("hook_resid_post")
    assert RunStore(tmp_path / "run").verify() == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"tokens": ("zzz",)}, "asks for tokens of zzz; the pairs of .* have a, rest"),
        ({"tokens": ("a",), "frames": (77,)}, "in none of the latent frames 77, of 0 to 2: give other"),
        ({"frames": (-1,)}, "greater than or equal to 0"), ({"doses": (1e30,)}, "as far as a run is steered"),
    ],
)  # fmt: skip
def test_tokens_frames_and_doses_that_there_are_not_are_refused(tmp_path, more, said):
    lines = [
        {"clean": {"prompt": a, **SIZE}, "corrupt": {"prompt": b, **SIZE}, "boxes": {"a": [0, 0, 16, 16]}}
        for a, b in zip(WORDS, WORDS[::-1], strict=True)
    ][:3]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises((InterpError, ValidationError), match=said):
        config = SteeringConfig(pair_file=str(tmp_path / "pairs.jsonl"), pairs=2, num_inference_steps=2, layer=1, **more)
        model = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
        experiment.run_and_report(load("steering"), config, tmp_path / "run", model=model, workers=1)


def test_tokens_at_which_both_runs_are_alike_give_no_direction(tmp_path):
    """In the constructed model block 0 writes at A alone: at B there is nothing to steer along, and nothing is divided by 0."""
    lines = [
        {"clean": {"prompt": a, **planted.SIZE}, "corrupt": {"prompt": b, **planted.SIZE}, "boxes": planted.BOXES}
        for a, b in zip(WORDS, WORDS[::-1], strict=True)
    ][:3]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    asked = {"pairs": 2, "num_inference_steps": 2, "layer": 0, "tokens": ("b",)}
    config = SteeringConfig(pair_file=str(tmp_path / "pairs.jsonl"), **asked)
    _, report = experiment.run_and_report(load("steering"), config, tmp_path / "run", model=planted.model(), workers=1)
    assert any("have the same at these tokens" in line for line in report.lines), report.lines
    assert not any("No pair is left" in line for line in report.lines)
    every = SteeringConfig(pair_file=str(tmp_path / "pairs.jsonl"), **asked | {"pairs": 12, "tokens": ("a",)})
    _, report = experiment.run_and_report(load("steering"), every, tmp_path / "every", model=planted.model(), workers=1)
    assert any("No pair is left to test on: all of the file were looked at" in line for line in report.lines), report.lines
    assert any("The place: tokens a" in line for line in report.lines)
    assert not (tmp_path / "run/media/steering.safetensors").exists()
