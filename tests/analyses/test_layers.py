"""Layers: energies and ablations by hand, planted layers found, chance finds nothing, whole runs."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from support import build_tiny, tiny_call

from cos_interp.analyses.driver import experiment
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.driver.twins import twin_of
from cos_interp.analyses.kit import ablation
from cos_interp.analyses.kit.ablation import Edit
from cos_interp.analyses.kit.problems import arguments, problems
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.analyses.layers import LayersConfig
from cos_interp.analyses.layers import measure as layers
from cos_interp.analyses.layers import report as layers_report
from cos_interp.interp import HookedVideoPipeline, InterpError
from cos_interp.tasks import TASKS

SMALL = {"tasks": ("maze",), "items": 1, "num_inference_steps": 4}


def test_norms_scores_and_contrasts_by_hand():
    act = torch.tensor([[3.0, 4.0], [0.0, 1.0]]).view(1, 1, 1, 2, 2)
    assert layers.token_norm(act).flatten().tolist() == [5.0, 1.0]
    energy = torch.tensor([1.0, 3.0]).view(1, 1, 2)
    assert layers.z_scores(energy).flatten().tolist() == [-1.0, 1.0]
    assert layers.z_scores(energy * 4).flatten().tolist() == [-1.0, 1.0]
    assert (layers.z_scores(torch.full((1, 2, 2), 4.0)) == 0).all()
    mask = torch.tensor([False, True]).view(1, 1, 2)
    assert layers.contrast(energy, mask) == 2 and layers.ratio(energy, mask) == 3
    many = energy.expand(4, 5, 1, 1, 2)
    assert layers.contrast(many, mask).shape == (4, 5) and layers.ratio(many * 7, mask)[0, 0] == 3


def test_a_token_that_is_long_in_every_layer_is_like_the_others_over_layers():
    growth = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1, 1)
    lengths = torch.tensor([1.0, 100.0, 1.0]).view(1, 1, 1, 1, 3)
    found = layers.over_layers(growth * lengths)
    torch.testing.assert_close(found, (growth / 2).expand(1, 3, 1, 1, 3))
    assert layers.contrast(growth * lengths, torch.tensor([False, True, False]).view(1, 1, 3)).min() > 2


def test_cells_of_pixel_frames_become_tokens():
    seen = np.zeros((9, 4, 4), bool)
    seen[0, 0, 0] = seen[1, 3, 3] = seen[6, 0, 3] = True
    same = layers.on_tokens(seen, (5, 4, 4))
    assert [tuple(p) for p in same.nonzero().tolist()] == [(0, 0, 0), (1, 3, 3), (3, 0, 3)]
    coarse = layers.on_tokens(seen, (3, 2, 2))  # two latent frames of four, every second cell
    assert coarse.shape == (3, 2, 2) and coarse[0, 0, 0] and not coarse[2].any()
    assert layers.on_tokens(seen, (1, 4, 4))[0].sum() == 1
    item = TASKS["maze"].sample(3)
    things = layers.foreground(item, (5, 5, 5))
    start = np.argwhere(item.cells[0] == layers.grid.AGENT)[0]
    assert things[:, start[0], start[1]].all() and not things[:, item.cells[0] == layers.grid.WALL].any()


def test_thirds_and_replacements_by_hand():
    assert ablation.thirds(8) == {"all": tuple(range(8)), "early": (0, 1, 2), "middle": (3, 4), "late": (5, 6, 7)}
    assert ablation.thirds(2)["middle"] == ()
    before, after = torch.tensor([1.0]), torch.tensor([4.0])
    assert ablation.replaced(before, after, torch.tensor([10.0])) == 11
    tiny = torch.tensor([1e-8]), torch.tensor([1e8])
    assert ablation.replaced(*tiny, tiny[1] - tiny[0]) == tiny[1]  # exactly
    update = torch.randn(2, 3, 3, 16)
    random = ablation.random_like(update, 1)
    torch.testing.assert_close(random.norm(dim=-1), update.norm(dim=-1))
    assert torch.equal(random, ablation.random_like(update, 1)) and not torch.allclose(random, ablation.random_like(update, 2))
    assert ablation.token_mean(torch.arange(4.0).view(2, 1, 1, 2, 1)).item() == 1.5


def test_energies_are_those_of_the_cache(organism):
    config = LayersConfig(tasks=("maze",), items=1, num_inference_steps=2, guidance_scale=2.0)
    call = arguments(organism, config, problems(config)[0])
    reader = layers.EnergyReader()
    organism.run_with_hooks(fwd_hooks=reader.hooks(organism), **call)
    _, cache = organism.run_with_cache(names=["blocks.*.hook_resid_post", "blocks.5.hook_resid_pre"], branches="cond", **call)
    maps = reader.maps()
    assert maps["energy"].shape == maps["update"].shape == (2, 8, 5, 5, 5)
    post, pre = cache["blocks.5.hook_resid_post", 1], cache["blocks.5.hook_resid_pre", 1]
    assert torch.equal(maps["energy"][1, 5], post.norm(dim=-1)[0])
    assert torch.equal(maps["update"][1, 5], (post - pre).norm(dim=-1)[0])
    _, first = organism.run_with_cache(names=["blocks.0.hook_resid_pre"], branches="cond", **call)
    assert torch.equal(reader.starts()[1], first["blocks.0.hook_resid_pre", 1].norm(dim=-1)[0])


def by_hand(model, call: dict, layer: int, step: int, new) -> torch.Tensor:
    """One run in which ``new(before, after)`` replaces the state after a block at one step, by plain hooks."""
    held = {}
    hooks = [
        (f"blocks.{layer}.hook_resid_pre @ step={step}", lambda act, hook: held.update(before=act)),
        (f"blocks.{layer}.hook_resid_post @ step={step}", lambda act, hook: new(held["before"], act)),
    ]
    return model.run_with_hooks(fwd_hooks=hooks, **call).latents


def test_batched_ablations_equal_single_edits(organism):
    config = LayersConfig(**SMALL)
    problem = problems(config)[0]
    call, other = arguments(organism, config, problem), arguments(organism, config, layers.others(problem, config)[0])
    edits = [Edit(kind, (3,), (1,)) for kind in ("skip", "mean", "random", "resample", "own")]
    latents = ablation.ablate(organism, call, [other], edits, mean_over_items=False, batch=3)
    seed = seed_for("ablation", call["seed"], 1, 3)
    _, cache = organism.run_with_cache(names=["blocks.3.hook_resid_p*"], steps=[1], **other)
    given = cache["blocks.3.hook_resid_post", 1] - cache["blocks.3.hook_resid_pre", 1]
    made = {
        "skip": lambda b, a: b,
        "mean": lambda b, a: b + (a - b).mean(dim=(1, 2, 3), keepdim=True),
        "random": lambda b, a: b + ablation.random_like((a - b)[0], seed),
        "resample": lambda b, a: b + given,
        "own": lambda b, a: a,
    }
    for row, new in zip(latents, made.values(), strict=True):
        torch.testing.assert_close(row, by_hand(organism, call, 3, 1, new)[0], atol=2e-4, rtol=2e-4)
    over_items = ablation.ablate(organism, call, [other], [Edit("mean", (3,), (1,))])
    expected = by_hand(organism, call, 3, 1, lambda b, a: b + given.mean(dim=(1, 2, 3), keepdim=True))
    torch.testing.assert_close(over_items, expected, atol=2e-4, rtol=2e-4)


def test_a_planted_idle_layer_costs_nothing_and_its_neighbours_do(organism):
    """A model whose block 5 does nothing: skipping it is exactly no change, skipping another block is one."""
    config = LayersConfig(**SMALL, ablations=("skip",), spans=("all",), layers=(4, 5), batch=8)
    held = {}
    idle = [
        ("blocks.5.hook_resid_pre", lambda act, hook: held.update(before=act)),
        ("blocks.5.hook_resid_post", lambda act, hook: held["before"]),
    ]
    with organism.hooks(idle):
        unit = layers.measure(organism, config, problems(config)[0])
    rows = pd.DataFrame([row for row in unit.rows if row["measure"] == "ablation"])
    distance = rows[rows.unit == "layer"].set_index("layer").distance
    assert distance[5] < 1e-5 < 1e-2 < distance[4]
    assert rows[rows.kind == "own"].distance.item() == 0
    update = unit.tensors["update"]
    assert (update[:, 5] == 0).all() and (update[:, 4] > 0).all()


def energies(
    strength: float, items: int = 14, start: float = 0.0, constant: float = 0.0, given: float = 0.0
) -> pd.DataFrame:  # fmt: skip
    """Rows of random maps in which things have ``strength`` more energy from layer 2 of 8 on, and less before.

    ``start``: so much less from the first block's input on, in early layers too; ``constant``: so much more in every layer;
    ``given``: so much more in all tokens of the first frame, after every layer.
    """
    rng = torch.Generator().manual_seed(0)
    rows = []
    for i in range(items):
        item = TASKS["maze"].sample(i)
        maps, first = 20 + torch.randn(2, 8, 5, 5, 5, generator=rng), 20 + torch.randn(2, 5, 5, 5, generator=rng)
        things = layers.foreground(item, (5, 5, 5))
        maps[:, 2:] += strength * things
        maps[:, :2] -= (strength + start) * things
        first -= start * things
        maps, first = maps + constant * things, first + constant * things
        maps[:, :, 0] += given
        found = layers.energy_rows({"energy": maps, "update": maps}, first, item, i)
        rows += [{"problem": f"p{i}", "measure": "energy", "layers": 8, "sigma": 1.0, **row} for row in found]
    return pd.DataFrame(rows)


def ablated(window: float, random: float = 0.0, items: int = 14) -> pd.DataFrame:
    """Rows of ablated layers: those of the paper's window (layers 4 and 5 of 8) lose ``window`` of the items when skipped and
    ``random`` of them by random directions, about; the others nothing."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(items):
        for kind, share in (("skip", window), ("random", random)):
            for layer in range(8):
                lost = float(layer in (4, 5)) * (rng.random() < share)
                value = {"solved": 1 - lost, "solved_plain": 1.0, "distance": 0.05 + 0.4 * lost + 0.01 * rng.random()}
                common = {"problem": f"p{i}", "measure": "ablation", "layers": 8, "unit": "layer", "span": "all"}
                rows.append({**common, "kind": kind, "layer": layer, **value})
    return pd.DataFrame(rows)


def test_an_item_counts_where_every_ablated_video_was_judged():
    rows = ablated(0.5)
    rows.loc[(rows.problem == "p2") & (rows["kind"] == "skip") & (rows.layer == 4), "solved"] = None
    gain = layers_report.window_gain(layers_report.ablations_of(rows), "skip", "loss")
    assert "p2" not in gain and len(gain) == 13


def judged(*parts: pd.DataFrame) -> dict[str, Finding]:
    found = layers_report.findings(AnalysisResult("layers", LayersConfig(), pd.concat(parts, ignore_index=True)))
    return {f.key.removeprefix("layers."): f for f in found}


def test_planted_layers_are_found_and_chance_is_not():
    planted = judged(energies(3.0), ablated(0.8))
    assert {f.verdict for f in planted.values()} == {"reproduced"} and len(planted) == 5
    assert [key for key, f in planted.items() if f.primary] == ["background", "turn-energy", "window-loss"]
    chance = judged(energies(0.0), ablated(0.3, 0.3))
    assert {f.verdict for f in chance.values()} <= {"refuted", "undecided"} and len(chance) == 5


def test_what_random_directions_break_too_is_no_window():
    """What the reviewer measured: the window alone would count, its control has the same number."""
    both = judged(ablated(0.9, 0.9))
    assert both["window-distance"].control.low > 0.1  # by itself it would be above the rule
    assert both["window-loss"].verdict != "reproduced" and both["window-distance"].verdict != "reproduced"
    others = ablated(0.0, 0.8)
    assert "no layer loses more" in judged(others)["window-loss"].why
    others["solved"] = others.solved.where((others.kind == "random") | (others.layer != 0), 0.0)  # the first layer is needed
    assert judged(others)["window-loss"].verdict == "refuted"


def test_steps_in_which_random_directions_lose_everything_have_no_control():
    """There the control is 0 whatever the layers do, and what skipping one of them loses would be the whole number."""
    open_to_all = ablated(0.2, 0.2)
    fatal = ablated(0.9).assign(span="late")
    fatal["solved"] = fatal.solved.where(fatal.kind == "skip", 0.0)
    assert judged(open_to_all, fatal)["window-loss"].number == judged(open_to_all)["window-loss"].number
    assert "late" not in judged(open_to_all, fatal)["window-loss"].statement
    alone = judged(fatal)["window-loss"]
    assert alone.verdict == "not testable" and "random directions lose the answers" in alone.why


def test_steps_in_which_no_layer_costs_anything_do_not_halve_the_rest():
    planted, idle = ablated(0.3), ablated(0.0).assign(span="early")
    both = judged(planted, idle)["window-loss"]
    assert both.number == judged(planted)["window-loss"].number and "early" not in both.statement
    alone = judged(idle)["window-loss"]
    assert alone.verdict == "not testable" and "no layer loses more than 0.1" in alone.why


def test_what_was_long_before_the_first_block_or_is_in_every_layer_is_no_finding():
    before = energies(0.0, start=3.0)
    early = before[before.layer < 2]
    assert (early.energy_contrast - early.energy_control).mean() < -0.5  # the old rule: reproduced
    assert judged(before, ablated(0.3))["background"].verdict == "refuted"
    massive = judged(energies(0.0, constant=50.0), ablated(0.3, 0.3))  # things are massive activations, all along
    assert {f.verdict for f in massive.values()} <= {"refuted", "undecided"}
    given = judged(energies(0.0, given=50.0), ablated(0.3, 0.3))  # tokens of the first frame are, whatever stands there
    assert given["background"].verdict == given["turn-energy"].verdict == "refuted"


def test_deciding_numbers_by_hand():
    rows = pd.concat([energies(1.0), ablated(0.7, 0.2)], ignore_index=True)
    found = judged(rows)
    energy, cut = rows[rows.measure == "energy"], rows[rows.measure == "ablation"]
    by_hand: dict[str, list[float]] = {"background": [], "turn-energy": [], "window-loss": []}
    for name in sorted(set(rows.problem)):
        e, c = energy[energy.problem == name], cut[cut.problem == name]
        layer = e.layer.to_numpy()
        beyond = {w: (e[f"{w}_contrast"] - e[f"{w}_control"]).to_numpy() for w in ("energy", "start", "energy_own")}
        by_hand["background"].append((beyond["start"] - beyond["energy"])[layer < 2].mean())
        by_hand["turn-energy"].append(beyond["energy_own"][layer >= 2].mean() - beyond["energy_own"][layer < 2].mean())
        lost = {k: 1 - c[c.kind == k].sort_values("layer").solved.to_numpy(float) for k in ("skip", "random")}
        gain = {k: v[4:6].mean() - np.delete(v, [4, 5]).mean() for k, v in lost.items()}
        by_hand["window-loss"].append(gain["skip"] - gain["random"])
    for key, values in by_hand.items():
        assert found[key].number.n == 14 and found[key].number.value == pytest.approx(np.mean(values), abs=1e-9)


def test_too_few_items_unsolved_ones_and_ablations_without_effect_are_not_testable():
    few = judged(energies(3.0, items=11), ablated(0.8, items=11))
    assert {f.verdict for f in few.values()} == {"not testable"}
    unsolved = judged(ablated(0.8).assign(solved=0.0, solved_plain=0.0))["window-loss"]
    assert unsolved.number.n == 0 and unsolved.why == "no item is eligible"
    idle = judged(ablated(0.8).assign(distance=0.0))
    assert {f.why for f in idle.values()} == {"the ablations changed no final latent"}
    assert judged(ablated(0.8).query("kind == 'skip'")) == {}


def test_moved_cells_keep_what_differs_between_frames():
    """Frame 1 has more energy and all the things: the contrast is large, and so is the control; nothing is left between."""
    energy = torch.zeros(2, 4, 4) + torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0)) / 10
    energy[1] += 5
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[1, 0] = True
    assert layers.contrast(energy, mask) > 1
    assert abs(layers.contrast(energy, mask) - layers.moved_contrast(energy, mask, 0)) < 0.1


def test_a_run_on_the_organism(organism, tmp_path):
    config = LayersConfig(**SMALL, layers=(0, 5), spans=("all", "late"), references=1)
    result, report = experiment.run_and_report(load("layers"), config, tmp_path / "run", model=organism, workers=1)
    rows = result.rows
    assert RunStore(tmp_path / "run").verify() == []
    energy, ablations = layers_report.energy_of(rows), layers_report.ablations_of(rows)
    assert len(energy) == 4 * 8 and energy.energy_contrast.notna().all()
    assert len(ablations) == 4 * 2 * 2 + 2 * 2 * 3  # kinds x spans x layers, and thirds skipped or random
    assert ablations.distance.min() > 0 and set(ablations.solved) <= {0.0, 1.0}
    assert len(report.data["findings"]) == 5 and "exactly 0" in report.lines[-2]
    kept = RunStore(tmp_path / "run").tensors("maze-000")["energy"]
    assert kept.shape == (4, 8, 5, 5, 5)


@pytest.mark.parametrize("prompts", [1, 2])
def test_own_prompts_on_another_pipeline(prompts, tmp_path):
    call = tiny_call("wan21-t2v")
    model = HookedVideoPipeline(build_tiny("wan21-t2v"), "tiny", {k: v for k, v in call.items() if k != "prompt"})
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": p}) for p in ("a red box", "a blue circle")[:prompts]))
    config = LayersConfig(prompts=str(file), num_inference_steps=3, guidance_scale=3.0, ablations=("resample", "skip"))
    result, report = experiment.run_and_report(load("layers"), config, tmp_path / "run", model=model, workers=1)
    ablations = layers_report.ablations_of(result.rows)
    assert ablations.solved.isna().all() and (ablations.distance > 0).all()
    assert "energy_contrast" not in result.rows and any("no verifier" in line for line in report.lines)


def test_a_layer_that_is_not_there_is_named(organism, tmp_path):
    with pytest.raises(InterpError, match="layers 0 to 7"):
        experiment.run(load("layers"), LayersConfig(layers=(9,)), tmp_path / "run", model=organism, workers=1)


@pytest.mark.slow
def test_a_twin_shows_nothing(organism, tmp_path):
    config = LayersConfig(items=3, num_inference_steps=3, spans=("all",), ablations=("skip", "random"))
    run = experiment.run_and_report(load("layers"), config, tmp_path / "run", model=twin_of(organism, 3), workers=1)
    found = run[1].data["findings"]
    assert len(found) == 5 and run[0].rows.problem.nunique() == 12
    assert "reproduced" not in {f["verdict"] for f in found}, [(f["key"], f["number"]) for f in found]
