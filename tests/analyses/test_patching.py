"""Patching as an experiment: planted effects, null models, exact controls, counts, resumption."""

from __future__ import annotations

import os
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
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.command import command_line
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit import pairs
from cos_interp.analyses.kit.pairs import NoPair, Pair, Recorder, Side, find_pair
from cos_interp.analyses.kit.problems import Problem, call_for, item_call
from cos_interp.analyses.kit.shown import own_cells, shown
from cos_interp.analyses.patching import DEFAULT_SITES, ENTRY, PatchingConfig, measure, pair_grid
from cos_interp.analyses.patching.cells import cells as cells_of
from cos_interp.analyses.patching.findings import best, compared
from cos_interp.analyses.patching.findings import findings as conclude
from cos_interp.analyses.patching.pair_grid import PairGrid, difference_share
from cos_interp.analyses.patching.pieces import Piece, pieces
from cos_interp.analyses.patching.report import exact_controls, pairs_of
from cos_interp.analyses.patching.summary import (
    against_controls,
    best_cells,
    counted,
    expected,
    headline,
    main_rows,
    over_pairs,
    profile,
    table,
)
from cos_interp.interp import HookedVideoPipeline, InterpError
from cos_interp.interp.patching import record
from cos_interp.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
STEPS = {"num_inference_steps": 4}
EXACT = {"batch": 1, "sites": ("hook_resid_post",)}
SMALL = {
    "pairs": 1, "num_inference_steps": 6, "steps": (1, 4), "layers": (2, 7), "pair_kinds": ("prompt", "seed"), "batch": 1,
    "sites": ("hook_resid_post",), "tokens": ("all", "goals", "rest"),
}  # fmt: skip


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
    settings = PatchingConfig(**{"pairs": 1, "num_inference_steps": 4, "controls": False, "span": "single", **EXACT, **config})
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
def test_a_twin_reproduces_nothing(organism, tmp_path, monkeypatch):
    """Random transformers solve no pair; and between two runs that they make all the same, no patch gives an answer."""
    from cos_interp.analyses.driver.twins import twin_of

    model = twin_of(organism, 3)
    monkeypatch.setattr(pairs, "TRIES", 3)
    config = PatchingConfig(pairs=2, num_inference_steps=4, batch=12)
    _, report = experiment.run_and_report(load("patching"), config, tmp_path / "run", model=model, workers=1)
    assert {f["verdict"] for f in report.data["findings"]} == {"not testable"}
    item = TASKS["maze"].sample(3)
    other = TASKS["maze"].counterfactual(item, "prompt", np.random.default_rng(0))
    recorder = Recorder(model, config, [f"blocks.*.{site}" for site in DEFAULT_SITES])
    sides = [recorder(Problem("untrained", item_call(i), 0, 0, i)) for i in (item, other)]
    work = PairGrid.of(recorder, config, Piece("prompt", 0), Pair("prompt", *sides))
    assert {row["outcome"] for row in work.at(0).rows} == {"undecided"}


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
    named, rest = (rows[(rows.donor == "random") & rows.group.isin(g)] for g in (["goals"], ["rest"]))
    assert set(zip(named.step, named.layer)) == {(1, 2), (1, 7), (4, 2), (4, 7)}  # in every cell
    assert set(zip(rest.step, rest.layer)) == {(1, 2), (4, 7)}  # one layer a step
    assert (rows[rows.donor == "self"].moved == 0).all() and ((rows.share > 0) & (rows.share <= 1)).all()
    shown_now = rows[["donor_shown", "target_shown"]].astype(float)
    assert ((shown_now >= 0) & (shown_now <= 1)).all().all()
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
    assert random["low"] < 0.25 and random["high"] > 0.75 and random["flipped"] == 0.5
    assert (same["donor"], same["difference"], same["pairs"]) == ("same_answer", 0.0, 1) and np.isnan(same["low"])


def test_a_pair_that_diverges_counts_as_one_that_goes_all_the_way_back():
    """16 times as far the wrong way: without a bound it would decide for the other eleven."""
    rows = pd.DataFrame({"pair": [f"p{n}" for n in range(12)], "effect": [0.9] * 11 + [-16.0]})
    found = over_pairs(rows, "effect")
    assert found.value == pytest.approx((0.9 * 11 - 1) / 12) and -1 <= found.low < found.high <= 1
    assert over_pairs(counted(rows), "effect") == found and counted(rows).effect.min() == -1


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
    flags += ["--pair-kind", "prompt,seed", "--batch", "1", "--sites", "hook_resid_post", "--tokens", ",".join(SMALL["tokens"])]
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
    """The cell with the largest effect, its effect and both readings are those of results.parquet."""
    _, folder, _, report = small_run
    rows = pd.read_parquet(folder / "results.parquet")
    lines = [line for line in report.lines if "of all cells the largest effect" in line]
    assert len(lines) == 2
    for line, kind in zip(lines, ("prompt", "seed"), strict=True):
        here = rows.query("donor == 'clean' and site == 'hook_resid_post' and group != 'all' and pair_kind == @kind")
        top = here.loc[here.effect.idxmax()]
        assert line.startswith(f"{kind} pairs (n = 1)") and f"tokens {top.group} in layer {top.layer} at step {top.step} " in line
        assert f"{top.effect:.2f} (n = 1); the verifier reads " in line and f"{top.outcome} 1" in line
        assert f"the donor's answer {top.donor_shown:.2f}, the receiving run's own {top.target_shown:.2f}" in line


def test_a_pair_that_is_not_solved_is_left_out_and_named(organism, tmp_path, monkeypatch):
    def sometimes(recorder, task, kind, index, *asked):
        if index == 0:
            raise NoPair("not solved")
        return find_pair(recorder, task, kind, index, *asked)

    monkeypatch.setattr(measure, "find_pair", sometimes)
    config = PatchingConfig(pairs=2, pair_kinds=("prompt",), num_inference_steps=4, steps=(1,), layers=(4,), tokens=("goals",))
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
    assert result.rows.empty and [f["verdict"] for f in report.data["findings"]] == ["not testable"]
    assert "must solve both sides" in report.html and RunStore(tmp_path / "run").verify() == []


def test_a_misspelt_model_is_named_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "possible_groups", lambda task: pytest.fail("tasks were sampled first"))
    with pytest.raises(InterpError, match="no model"):
        experiment.run(load("patching"), PatchingConfig(model="orgnism", tokens=("goals",)), tmp_path / "run", workers=1)


def grid_of_effects(
    count: int, effects: dict[tuple[str, int], float], control: float = 0.0, share: float = 0.1, site: str = "hook_resid_post"
) -> pd.DataFrame:
    """Rows of pairs: ``(group, step) -> effect`` of the pair's donor, one layer a step, and of the random one; some spread."""
    return pd.DataFrame([
        {
            "pair": f"prompt-{i:03d}", "pair_kind": "prompt", "span": "from", "site": site, "donor": donor, "group": group,
            "step": step, "sigma": 1 - step / 10, "layer": step, "head": None, "frame": None, "share": share, "moved": 0.5,
            "effect": effect + 0.01 * (i % 3) if donor == "clean" else control + 0.01 * (i % 2), "outcome": "target",
            "donor_shown": 0.0, "target_shown": 1.0,
        }
        for i in range(count) for (group, step), effect in effects.items() for donor in ("clean", "random")
    ])  # fmt: skip


def concluded(rows: pd.DataFrame, **settings) -> list:
    return conclude(AnalysisResult("patching", PatchingConfig(**settings), rows))


EFFECTS = {("all", 0): 1.0, ("rest", 0): 1.0, ("goals", 0): 0.1, ("goals", 1): 0.6, ("agent", 1): 0.2}


def test_the_finding_is_about_named_tokens_against_the_larger_control_in_the_same_cell():
    (found,) = concluded(grid_of_effects(12, EFFECTS))
    assert found.verdict == "reproduced" and found.key == "patching.prompt" and found.primary
    by_hand = np.array([0.6 + 0.01 * (i % 3) - max(0.01 * (i % 2), 0.1) for i in range(12)])
    assert found.number.value == pytest.approx(by_hand.mean()) and found.number.n == 12
    assert "tokens goals, hook_resid_post of layer 1, step 1 (sigma 0.90)" in found.statement
    assert found.control.value == pytest.approx(0.1)
    (noised,) = concluded(grid_of_effects(12, {k: 1 - v for k, v in EFFECTS.items()}, control=1.0), direction="noising")
    assert noised.verdict == "reproduced" and noised.number.value == pytest.approx(0.49)  # what is left of 1


def test_one_pair_that_diverges_by_itself_counts_as_all_the_way_and_no_more():
    rows = grid_of_effects(12, EFFECTS)
    (calm,) = concluded(rows)
    wild = rows.effect.where((rows.pair != "prompt-000") | (rows.donor != "clean"), 300.0)
    (found,) = concluded(rows.assign(effect=wild))
    assert found.verdict == "reproduced" and found.number.value - calm.number.value <= (1 - 0.6) / 12 + 1e-9


def test_what_any_foreign_tokens_do_is_no_finding():
    (found,) = concluded(grid_of_effects(12, EFFECTS, control=0.6))
    assert found.verdict == "refuted" and abs(found.number.value) < 0.02  # the pair's own donor does no more
    (shuffled,) = concluded(_dealt_out_anew(grid_of_effects(24, EFFECTS)))
    assert shuffled.verdict != "reproduced"


def _dealt_out_anew(rows: pd.DataFrame) -> pd.DataFrame:
    """Which of the two donors is the pair's own is drawn for every pair."""
    rng = np.random.default_rng(3)
    swapped = {pair for pair in rows.pair.unique() if rng.random() < 0.5}
    other = {"clean": "random", "random": "clean"}
    return rows.assign(donor=[other[d] if p in swapped else d for p, d in zip(rows.pair, rows.donor)])


def test_tokens_that_are_only_their_own_share_of_the_difference_are_no_cause():
    """As in the last block: writing them moves the latent by just what they are of it."""
    (found,) = concluded(grid_of_effects(12, EFFECTS, share=0.6))
    assert found.verdict == "refuted" and found.number.value == pytest.approx(0.01)


def test_few_pairs_all_tokens_and_no_controls_decide_nothing():
    assert concluded(grid_of_effects(11, EFFECTS))[0].verdict == "not testable"
    unnamed = {key: value for key, value in EFFECTS.items() if key[0] in ("all", "rest")}
    assert concluded(grid_of_effects(12, unnamed))[0].verdict == "not testable"
    rows = grid_of_effects(12, EFFECTS)
    assert concluded(rows[rows.donor == "clean"])[0].verdict == "not testable"
    kinds = [f.key for f in concluded(grid_of_effects(1, EFFECTS), pair_kinds=("prompt", "seed"))]
    assert kinds == ["patching.prompt", "patching.seed"]


def test_a_broken_placebo_and_an_idle_control_make_nothing_testable():
    rows = grid_of_effects(12, EFFECTS)
    placebo = rows[rows.donor == "clean"].head(1).assign(donor="self", group="all", effect=0.0)
    assert concluded(pd.concat([rows, placebo]))[0].verdict == "reproduced"
    (broken,) = concluded(pd.concat([rows, placebo.assign(effect=1e-9)]))
    assert broken.verdict == "not testable" and "placebo" in broken.why
    idle = rows.assign(moved=np.where(rows.donor == "random", 0.01, 0.5))
    (found,) = concluded(idle)
    assert found.verdict == "not testable" and "does nothing" in found.why
    random = rows.donor == "random"
    for without in (rows.assign(effect=rows.effect.where(~random)), rows.assign(moved=rows.moved.where(~random))):
        assert concluded(without)[0].verdict == "not testable"
    one = rows.assign(effect=rows.effect.where(~(random & (rows.pair == "prompt-000"))))
    assert concluded(one)[0].number.n == 11  # the pair without its control does not count


def test_where_the_prompt_is_read_has_a_finding_of_its_own():
    both = pd.concat([grid_of_effects(12, EFFECTS, share=0.6), grid_of_effects(12, EFFECTS, site="cross_attn.hook_z")])
    assert [(f.key, f.verdict, f.primary) for f in concluded(both)] == [
        ("patching.prompt", "refuted", True), ("patching.read", "reproduced", False),
    ]  # fmt: skip


def test_the_graded_reading_sees_a_plan_that_the_strict_verdict_does_not():
    for task in ("maze", "place"):
        item = TASKS[task].sample(5, unique=True)
        other = TASKS[task].counterfactual(item, "prompt", np.random.default_rng(0))
        if other is None:
            continue
        video = other.video.copy()
        assert (shown(other, item, video), shown(item, other, video)) == pytest.approx((1, 0))
        size = video.shape[1] // item.cells.shape[1]
        row, col = np.argwhere(~own_cells(item, other) & ~own_cells(other, item))[0] * size
        video[3:, row : row + size, col : col + size] = 128  # one cell is unreadable
        assert TASKS[task].verify(other, video).status == "undecided" and shown(other, item, video) == pytest.approx(1)
        half = (item.video.astype(float) + other.video) / 2
        assert shown(other, item, half / 255) == pytest.approx(0.5, abs=0.01)
    assert np.isnan(shown(item, item, item.video))


def test_the_share_of_a_difference_is_that_of_writing_those_tokens():
    from cos_interp.analyses.driver.statistics import projection

    rng = torch.Generator().manual_seed(0)
    corrupt, clean = (torch.randn(1, 3, 2, 4, 4, generator=rng) for _ in range(2))
    mask = torch.rand(2, 2, 2, generator=rng) > 0.5  # a token is 2 x 2 latent cells
    wide = mask.repeat_interleave(2, 1).repeat_interleave(2, 2)
    written = torch.where(wide[None, None], clean, corrupt)
    assert difference_share(corrupt, clean, mask) == pytest.approx(projection(written, corrupt, clean))
    assert difference_share(corrupt, clean, None) == 1


def test_both_outcomes_stand_side_by_side():
    rows = grid_of_effects(3, EFFECTS).assign(outcome="undecided", donor_shown=0.9, target_shown=0.05)
    top = best_cells(rows, 1)[0]
    assert (top["group"], top["said"]["undecided"], top["said"]["donor"]) == ("rest", 3, 0)
    assert top["donor_shown"].value == pytest.approx(0.9)
    (line,) = headline(rows)
    assert "the verifier reads donor 0, target 0, other 0, undecided 3" in line and "the donor's answer 0.90" in line


def test_the_default_grid_is_of_named_tokens_in_one_range_of_steps():
    config = PatchingConfig()
    made = pieces(config)
    assert len(made) == 12 and made[0][1] == ["prompt-000-pair", "prompt-000-step-000"]
    seed = [units for _, units in pieces(PatchingConfig(pair_kinds=("seed",), pairs=1))]  # single steps, the pair with the first
    assert seed == [["seed-000-pair", "seed-000-step-000"], *[[f"seed-000-step-00{step}"] for step in range(1, 8)]]
    assert pieces(PatchingConfig(pairs=1, span="until"))[0][1][1] == "prompt-000-step-007"
    found = list(cells_of(config, DEFAULT_SITES, 0, 8, ["all", "goals", "rest"], False, flat=True))
    assert not [cell for cell in found if cell.site == "hook_resid_post" and cell.group == "all" and cell.donor != "self"]
    own, random = ({(c.site, c.layer) for c in found if c.group == "goals" and c.donor == d} for d in ("clean", "random"))
    assert own == random and len(own) == 16


def test_pairs_with_one_right_answer_and_a_donor_that_says_something_else(organism):
    recorder = Recorder(organism, PatchingConfig(num_inference_steps=8))
    pair = find_pair(recorder, "maze", "prompt", 1, unique=True)
    assert pair.clean.item.unique and pair.corrupt.item.unique
    prompts = [side.problem.call["prompt"] for side in (pair.clean, pair.corrupt)]
    assert all(pairs.stranger("maze", recorder.config, i, prompts).call["prompt"] not in prompts for i in range(6))
    seeds = [pairs.stranger("maze", recorder.config, 1, unlike).seed for unlike in ((), ["another"])]
    assert seeds[0] == seeds[1]


def test_choosing_the_best_of_many_cells_finds_nothing_in_noise():
    rng = np.random.default_rng(0)
    rows = grid_of_effects(12, {(f"group {g}", k): 0.0 for g in range(20) for k in range(8)}, share=-9.0)
    rows["effect"] = rng.normal(0, 0.5, len(rows))
    cells = compared(rows, noising=False)
    assert best(cells).iloc[0] > 0.3  # the best of 160 cells looks large
    (found,) = concluded(rows)
    assert abs(found.number.value) < 0.2 and found.verdict != "reproduced"  # and is not, on pairs that did not choose it


BESIDE = ("hook_resid_post", "hook_x_t")


@pytest.mark.parametrize(("sites", "controls"), [(BESIDE, True), (BESIDE, False), (BESIDE[1:], True), (BESIDE[:1], True)])
def test_the_grid_holds_x_t_where_it_was_asked_for(sites, controls):
    config = PatchingConfig(sites=sites, controls=controls)
    cells = pair_grid.cells(config, sites, step=0, layers=2, groups=["all", "goals"], whole_state=True)
    rows = pd.DataFrame([{"donor": cell.donor, "site": cell.site, "group": cell.group} for cell in cells])
    assert set(main_rows(rows).site) == set(sites)
    assert len(main_rows(rows)) == sum(2 if site == "hook_x_t" else 4 for site in sites)
