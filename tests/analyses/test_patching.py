"""Patching as an experiment: planted effects, null models, exact controls, counts, resumption."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cos_interp.analyses.driver import experiment
from cos_interp.analyses.driver.command import command_line
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit import pairs
from cos_interp.analyses.kit.pairs import NoPair, Pair, Recorder, Side, find_pair
from cos_interp.analyses.kit.problems import Problem, call_for, item_call
from cos_interp.analyses.patching import ENTRY, PatchingConfig, measure, pair_grid
from cos_interp.analyses.patching.findings import best, compared
from cos_interp.analyses.patching.findings import findings as conclude
from cos_interp.analyses.patching.pair_grid import PairGrid
from cos_interp.analyses.patching.pieces import Piece
from cos_interp.analyses.patching.report import exact_controls, pairs_of
from cos_interp.analyses.patching.summary import against_controls, decisive, expected, headline, main_rows, profile, table
from cos_interp.interp import HookedVideoPipeline, InterpError
from cos_interp.interp.patching import record
from cos_interp.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
STEPS = {"num_inference_steps": 4}
SMALL = {"pairs": 1, "num_inference_steps": 6, "steps": (1, 4), "layers": (2, 7)}


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """One small real run on the organism, with its report."""
    config = PatchingConfig(**SMALL)
    folder = tmp_path_factory.mktemp("runs") / "small"
    result, report = experiment.run_and_report(load("patching"), config, folder, workers=1)
    return config, folder, result, report


def planted_work(organism, layer: int, step: int, group: str, **config) -> PairGrid:
    """A pair whose clean run differs from the corrupt one by one planted edit: a vector added at (layer, step, group)."""
    item = TASKS["maze"].sample(11, unique=False, difficulty=4)
    other = TASKS["maze"].with_answer(item, next(a for a in item.answers if a != item.answer))
    call = call_for(organism, item, 0, **STEPS)
    mask = torch.from_numpy(TASKS["maze"].groups(item, other)[group])
    vector = 3 * torch.randn(128, generator=torch.Generator().manual_seed(5))

    def plant(act, hook):
        return act + mask[None, ..., None] * vector

    corrupt = record(organism, **call)
    with organism.hooks([(f"blocks.{layer}.hook_resid_post @ step={step}", plant)]):
        clean = record(organism, **call)
    clean.run.edited = False  # the edit is the planted effect, which a replay of the clean run is to lack
    sides = [Side(Problem("planted", item_call(i), 0, 0, i), made) for i, made in ((item, corrupt), (other, clean))]
    settings = PatchingConfig(**{"pairs": 1, "num_inference_steps": 4, "controls": False, "span": "single", **config})
    return PairGrid.of(Recorder(organism, settings), settings, Piece("seed", 0), Pair("seed", *sides))


def test_a_planted_effect_is_found_there_and_nowhere_before(organism):
    layer, step, group = 4, 1, "donor_route"
    work = planted_work(organism, layer, step, group)
    rows = pd.DataFrame([row for k in range(step + 1) for row in work.at(k).rows])
    effect = rows.set_index(["step", "layer", "group"]).effect
    assert (effect.loc[step, layer, group], effect.loc[step, layer, "all"]) == (1.0, 1.0)
    assert (rows[rows.step < step].effect == 0).all()  # before the step: exactly nothing
    assert (rows[(rows.step == step) & (rows.layer < layer)].effect == 0).all()  # below the layer: exactly nothing
    elsewhere = rows[(rows.step == step) & (rows.layer == layer) & ~rows.group.isin([group, "all"])]
    assert len(elsewhere) >= 3 and (elsewhere.effect == 0).all()  # in the other tokens: exactly nothing
    above = rows[(rows.step == step) & (rows.layer > layer) & (rows.group == "all")]
    assert (above.effect == 1).all()  # the state above the planted layer carries all of it


def test_noising_breaks_exactly_what_denoising_restores(organism):
    groups = ("all", "target_route", "donor_route")  # the receiving run is the clean one: its route is the planted one
    work = planted_work(organism, 4, 1, "donor_route", direction="noising", layers=(4,), tokens=groups, steps=(1,))
    rows = {row["group"]: row["effect"] for row in work.at(1).rows}
    assert rows == {"all": 0.0, "target_route": 0.0, "donor_route": 1.0}


def test_spans_cover_what_they_say(organism):
    for span, at, value in (("from", 0, 1.0), ("until", 3, 1.0), ("until", 0, 0.0), ("from", 2, None)):
        work = planted_work(organism, 4, 1, "donor_route", span=span, layers=(4,), tokens=("all",))
        effect = work.at(at).rows[0]["effect"]
        assert effect == pytest.approx(value, abs=1e-6) if value is not None else effect < 1


@pytest.mark.slow
def test_the_untrained_twin_flips_no_answers():
    from cos_interp.organism.package import untrained_twin
    from cos_interp.organism.shapes import CALL_DEFAULTS

    model = HookedVideoPipeline(untrained_twin(), "untrained", CALL_DEFAULTS)
    with pytest.raises(NoPair, match="must solve both sides"):
        find_pair(Recorder(model, PatchingConfig(num_inference_steps=2)), "maze", "prompt", 0)
    item = TASKS["maze"].sample(3)
    other = TASKS["maze"].counterfactual(item, "prompt", np.random.default_rng(0))
    config = PatchingConfig(pairs=1, num_inference_steps=4, controls=False, layers=(0, 7))
    recorder = Recorder(model, config)
    sides = [recorder(Problem("untrained", item_call(i), 0, 0, i)) for i in (item, other)]
    work = PairGrid.of(recorder, config, Piece("prompt", 0), Pair("prompt", *sides))
    outcomes = {row["outcome"] for step in (0, 3) for row in work.at(step).rows}
    assert outcomes == {"undecided"}


def test_seed_pairs_need_a_task_with_several_answers(organism):
    with pytest.raises(NoPair, match="use maze or place"):
        find_pair(Recorder(organism, PatchingConfig()), "bounce", "seed", 0)


def test_a_run_holds_its_controls_and_costs_the_minimum(small_run):
    config, folder, result, report = small_run
    rows = result.rows
    assert set(rows.pair_kind) == {"prompt", "seed"} and set(rows.step) == {1, 4} and set(rows.layer.dropna()) == {2, 7}
    assert result.facts["block_calls"] == result.facts["block_calls_minimum"] > 0
    exact = exact_controls(rows, "denoising", [pair.pair for pair in pairs_of(result) if pair.whole_state])
    for check in exact:
        assert check["ok"], check
    assert len(exact) == 2
    assert {"clean", "random", "self"} <= set(rows.donor)
    named = rows[(rows.donor == "random") & (rows.group != "all")]  # one layer a step: of layers 2 and 7 the rotated one
    assert set(zip(named.step, named.layer)) == {(1, 2), (4, 7)}
    assert set(named.group) == set(rows[rows.pair_kind.isin(named.pair_kind)].group) - {"all"}
    assert rows.effect.notna().all() and set(rows.outcome) <= {"target", "donor", "other", "undecided"}
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "results.parquet"), rows, check_dtype=False)
    assert RunStore(folder).verify() == [] and (folder / "report.html").read_text() == report.html
    for line in headline(rows):
        assert "n = 1" in line
    assert all(np.isnan(r["low"]) for r in table(rows) if r["pairs"] == 1)  # one pair: no interval is claimed


def test_a_group_is_compared_with_other_donors_in_the_same_cells_only():
    cell = {"pair_kind": "prompt", "site": "hook_resid_post", "group": "goals", "step": 0, "head": None, "frame": None}
    made = [
        {**cell, "pair": pair, "layer": layer, "donor": donor, "effect": effect, "outcome": "donor" if effect == 1 else "target"}
        for pair, layer, donor, effect in [
            ("p0", 4, "clean", 1.0), ("p0", 5, "clean", 9.0), ("p0", 4, "random", 0.25),
            ("p1", 4, "clean", 0.5), ("p1", 4, "random", 0.25), ("p1", 4, "same_answer", 0.5),
        ]
    ]  # fmt: skip
    random, same = against_controls(pd.DataFrame(made))
    assert (random["donor"], random["pairs"], random["cells"]) == ("random", 2, 2)
    assert (random["effect"], random["control"], random["difference"]) == (0.75, 0.25, 0.5)  # layer 5 has no control
    assert (random["low"], random["high"]) == (0.25, 0.75) and random["flipped"] == 0.5
    assert (same["donor"], same["difference"], same["pairs"]) == ("same_answer", 0.0, 1) and np.isnan(same["low"])


def test_effects_are_recomputed_from_the_stored_latents(small_run):
    from cos_interp.analyses.driver.statistics import projection

    _, folder, result, _ = small_run
    store = RunStore(folder, ENTRY.facts)
    for unit in ("prompt-000-step-001", "seed-000-step-004"):
        pair = store.tensors(unit[:-9] + "-pair")
        rows, _ = store.unit(unit)
        for row, latent in zip(rows, store.tensors(unit)["latents"]):
            assert row["effect"] == projection(latent[None], pair["corrupt"], pair["clean"])


@pytest.mark.slow
def test_a_run_continues_after_an_interrupt_with_the_same_results(small_run, tmp_path):
    """A real process, interrupted in the middle and killed once more, then finished: same rows, same report."""
    _, whole, _, _ = small_run
    folder = tmp_path / "small"
    flags = ["--pairs", "1", "--num-steps", "6", "--steps", "1,4", "--layers", "2,7", "--workers", "1", "--out", str(folder)]
    line = [sys.executable, "cli.py", "analyze", "patching", *flags]
    for sign in (signal.SIGINT, signal.SIGKILL):
        had = len(list(folder.glob("shards/*.safetensors")))
        process = subprocess.Popen(
            line, cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )  # fmt: skip
        while len(list(folder.glob("shards/*.safetensors"))) == had and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(sign)
        _, errors = process.communicate()
        assert process.returncode == (130 if sign == signal.SIGINT else -9)
        assert sign == signal.SIGKILL or "run the same command again" in errors
        assert RunStore(folder).verify()[0].startswith("the run is running")
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert RunStore(folder).verify() == []
    for name in sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file()):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def test_one_and_two_workers_agree(small_run, tmp_path):
    config, whole, result, _ = small_run
    again = experiment.run(load("patching"), config, tmp_path / "two", workers=2)
    pd.testing.assert_frame_equal(again.rows, result.rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": (9,)}, "steps 0 to 5"), ({"layers": (8,)}, "layers 0 to 7"), ({"tokens": ("nose",)}, "maze has"),
        ({"frames": (5,)}, "latent frames 0 to 4"), ({"heads": (0,)}, "attn.hook_z"),
        ({"heads": (4,), "sites": ("attn.hook_z",)}, "heads 0 to 3"), ({"model": "nowhere"}, "no model"),
    ],
)  # fmt: skip
def test_bad_settings_name_what_there_is(change, message, tmp_path):
    with pytest.raises(InterpError, match=message):
        experiment.run(load("patching"), PatchingConfig(**{**SMALL, **change}), tmp_path / "run", workers=1)
    assert not (tmp_path / "run").exists()


def test_the_profile_is_a_mean_over_pairs_and_the_expectation_adds_up():
    rows = pd.DataFrame({
        "step": [0, 0, 0, 0], "sigma": 1.0, "pair": ["a", "a", "b", "b"], "layer": [0, 1, 0, 1], "effect": [0.0, 0.2, 0.4, 0.6],
    })  # fmt: skip
    line = profile(rows).iloc[0]
    assert line["mean"] == pytest.approx(0.3) and line.n == 2 and line.low <= 0.1 + 1e-9 and line.high >= 0.5 - 1e-9
    sigmas = [1.0, 0.7, 0.3, 0.0]
    single = expected(sigmas, [0, 1, 2], "single")["re-read velocity"]
    assert sum(single) == pytest.approx(1) and expected(sigmas, [0], "from")["re-read velocity"] == [1.0]


@pytest.mark.parametrize(("span", "step"), [("single", 1), ("from", 3), ("until", 1)])
def test_the_step_that_a_profile_points_at(span, step):
    """Patched at one step: the largest effect; from a step on: the last that carries half of it; up to a step: the first."""
    by_step = pd.DataFrame({"step": range(5), "mean": [0.4, 0.9, 0.7, 0.5, 0.2]})
    assert decisive(by_step, span)[0].step == step
    assert decisive(by_step.assign(mean=by_step["mean"] / 2), span)[0].step == 1


def test_the_command_in_the_report_makes_the_same_configuration():
    from typer.testing import CliRunner

    import cos_interp.analyses.driver.experiment as module
    from cos_interp import cli

    config = PatchingConfig(
        task="place", pair_kinds=("image",), pairs=2, steps=(0, 3), sites=("attn.hook_z", "hook_mlp_out"), heads=(1,),
        direction="noising", span="single", guidance_scale=2.0, controls=False, tokens=("all", "box"),
    )  # fmt: skip
    seen = []

    def stop(entry, config, *args, **kwargs):
        seen.append(config)
        raise RuntimeError("enough")

    kept, module.run_and_report = module.run_and_report, stop
    try:
        import shlex

        CliRunner().invoke(cli.app, shlex.split(command_line("patching", config))[1:])
    finally:
        module.run_and_report = kept
    assert seen == [config]


def test_the_headline_is_right_by_an_independent_sum(small_run):
    """All numbers of the sentence are of one step, and are those of results.parquet."""
    _, folder, _, report = small_run
    rows = pd.read_parquet(folder / "results.parquet")
    lines = [line for line in report.lines if "pairs (n =" in line and "tokens all" in line]
    assert len(lines) == 2
    for line in lines:
        kind, step = line.split()[0], int(re.search(r" step (\d+) \(sigma", line)[1])
        here = rows.query("donor == 'clean' and site == 'hook_resid_post' and group == 'all'")
        here = here[(here.pair_kind == kind) & (here.step == step)]
        by_layer = here.groupby("layer").effect.mean()
        shape = r"effect (\S+) \(n = 1\), mean over 2 layers; at this step from (\S+) .*? layer (\d) to (\S+) .*? layer (\d)"
        if by_layer.nunique() == 1:  # one step of a seed pair: all tokens of any layer are the donor's whole state
            assert f"effect {by_layer.iloc[0]:.2f} (n = 1), the same in each of 2 layers" in line
            continue
        said = re.search(shape, line)
        assert said, line
        assert float(said[1]) == pytest.approx(here.effect.mean(), abs=0.0051)
        assert float(said[2]) == pytest.approx(by_layer.min(), abs=0.0051) and int(said[3]) == by_layer.idxmin()
        assert float(said[4]) == pytest.approx(by_layer.max(), abs=0.0051) and int(said[5]) == by_layer.idxmax()
        assert float(said[2]) <= float(said[1]) <= float(said[4])


def test_a_pair_that_is_not_solved_is_left_out_and_named(organism, tmp_path, monkeypatch):
    def sometimes(recorder, task, kind, index):
        if index == 0:
            raise NoPair("not solved")
        return find_pair(recorder, task, kind, index)

    monkeypatch.setattr(measure, "find_pair", sometimes)
    config = PatchingConfig(pairs=2, pair_kinds=("prompt",), num_inference_steps=4, steps=(1,), layers=(4,))
    result, report = experiment.run_and_report(load("patching"), config, tmp_path / "run", model=organism, workers=1)
    assert set(result.rows.pair) == {"prompt-001"} and "1 pair(s) left out, prompt-000: not solved" in report.lines
    assert "prompt-000: not solved" in report.html and RunStore(tmp_path / "run").verify() == []


def test_a_model_that_solves_nothing_gives_a_page_that_says_so(tmp_path, monkeypatch):
    from cos_interp.organism.package import untrained_twin
    from cos_interp.organism.shapes import CALL_DEFAULTS

    monkeypatch.setattr(pairs, "TRIES", 3)
    model = HookedVideoPipeline(untrained_twin(), "untrained", CALL_DEFAULTS)
    config = PatchingConfig(pairs=1, num_inference_steps=2, steps=(0,))
    result, report = experiment.run_and_report(load("patching"), config, tmp_path / "run", model=model, workers=1)
    assert result.rows.empty and [f["verdict"] for f in report.data["findings"]] == ["not testable"] * 2
    assert "must solve both sides" in report.html and RunStore(tmp_path / "run").verify() == []


def test_a_misspelt_model_is_named_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "possible_groups", lambda task: pytest.fail("tasks were sampled first"))
    with pytest.raises(InterpError, match="no model"):
        experiment.run(load("patching"), PatchingConfig(model="orgnism", tokens=("goals",)), tmp_path / "run", workers=1)


def grid_of_effects(count: int, effects: dict[tuple[str, int], float], control: float = 0.0) -> pd.DataFrame:
    """Rows of pairs: ``(group, step) -> effect`` of the pair's donor, one layer a step, and of the random one."""
    return pd.DataFrame([
        {
            "pair": f"prompt-{i:03d}", "pair_kind": "prompt", "site": "hook_resid_post", "donor": donor, "group": group,
            "step": step, "sigma": 1 - step / 10, "layer": step, "head": None, "frame": None,
            "effect": (effect if donor == "clean" else control) + 0.01 * (i % 3), "outcome": "target",
        }
        for i in range(count) for (group, step), effect in effects.items() for donor in ("clean", "random")
    ])  # fmt: skip


def test_the_finding_is_about_named_tokens_against_the_random_donor_in_the_same_cell():
    effects = {("all", 0): 1.0, ("goals", 0): 0.1, ("goals", 1): 0.6, ("rest", 1): 0.2}
    found = conclude(grid_of_effects(6, effects), ("prompt",), noising=False)[0]
    assert found.verdict == "reproduced" and found.number.value == pytest.approx(0.6) and found.number.n == 6
    assert "tokens goals in layer 1 at step 1 (sigma 0.90)" in found.statement and found.control.value == pytest.approx(0.01)
    nothing = conclude(grid_of_effects(6, effects, control=0.6), ("prompt",), noising=False)[0]
    assert nothing.verdict == "refuted" and nothing.number.value == pytest.approx(0)
    noised = conclude(grid_of_effects(6, {k: 1 - v for k, v in effects.items()}, control=1.0), ("prompt",), noising=True)[0]
    assert noised.verdict == "reproduced" and noised.number.value == pytest.approx(0.6)
    single = conclude(grid_of_effects(1, effects), ("prompt", "seed"), noising=False)
    assert [f.verdict for f in single] == ["not testable"] * 2


def test_choosing_the_best_of_many_cells_finds_nothing_in_noise():
    rng = np.random.default_rng(0)
    rows = grid_of_effects(12, {(f"group {g}", k): 0.0 for g in range(20) for k in range(8)})
    rows["effect"] = rng.normal(0, 0.2, len(rows))
    cells = compared(rows, noising=False)
    assert best(cells).iloc[0] > 0.15  # the best of 160 cells looks large
    assert abs(conclude(rows, ("prompt",), noising=False)[0].number.value) < 0.15  # and is not, on pairs that did not choose it


BESIDE = ("hook_resid_post", "hook_x_t")


@pytest.mark.parametrize(("sites", "controls"), [(BESIDE, True), (BESIDE, False), (BESIDE[1:], True), (BESIDE[:1], True)])
def test_the_grid_holds_x_t_where_it_was_asked_for(sites, controls):
    config = PatchingConfig(sites=sites, controls=controls)
    cells = pair_grid.cells(config, step=0, layers=2, groups=["all", "goals"], whole_state=True)
    rows = pd.DataFrame([{"donor": cell.donor, "site": cell.site, "group": cell.group} for cell in cells])
    assert set(main_rows(rows).site) == set(sites)
    assert len(main_rows(rows)) == sum(2 if site == "hook_x_t" else 4 for site in sites)
