"""The claims of Chain-of-Steps: tables and trajectories on which each is true, false, or shows nothing."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from cos_interp.analyses.chain_of_steps import ChainOfStepsConfig
from cos_interp.analyses.chain_of_steps import measure as chain
from cos_interp.analyses.chain_of_steps.findings import findings, pruned, timed_step
from cos_interp.analyses.chain_of_steps.forming import first_right, forming, slope, within_bound
from cos_interp.analyses.driver import experiment
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.driver.twins import twin_of
from cos_interp.analyses.kit import belief
from cos_interp.analyses.kit.candidates import Candidates
from cos_interp.analyses.kit.problems import arguments, generate, problems
from cos_interp.analyses.kit.readings import frames_right, right_from_first
from cos_interp.tasks import get_task, grid, reader

STEPS = 20
SIGMAS = [1 - k / STEPS * 0.4 for k in range(STEPS)]  # 0.92 at step 4
FRAMES = 8


def run_rows(name: str, right: list[bool], unique: bool = True, frames=None, noise: int = 0, **beside) -> list[dict]:
    """One run: is its estimate right at each step (the last is the final video), its frames at each step (default: all as it)."""
    rows = []
    for step, solved in enumerate(right):
        row = {"kind": "steps", "problem": name, "task": "maze", "difficulty": 3, "unique": unique, "noise": noise, "step": step}
        row |= {"status": "solved" if solved else "undecided", "answer": "a", "frame_0": True}
        row |= {f"frame_{f}": bool(solved if frames is None else frames[step][f - 1]) for f in range(1, FRAMES + 1)}
        rows.append(row | {key: values[step] for key, values in beside.items()})
    return rows


def since(step: int) -> list[bool]:
    """Right from a step on."""
    return [k >= step for k in range(STEPS + 1)]


def judged(rows: list[dict], sigmas=SIGMAS, twins=()) -> dict:
    result = AnalysisResult("chain-of-steps", ChainOfStepsConfig(), pd.DataFrame(rows), twins=twins)
    return {f.key.split(".")[1]: f for f in findings(result, result.rows, sigmas)}


def items(starts: list[int], unique: bool = True) -> list[dict]:
    return [row for i, step in enumerate(starts) for row in run_rows(f"{unique}-{i}", since(step), unique)]


# --- the rise and its timing -----------------------------------------------------------------------------------------


def test_a_rise_of_items_with_one_answer_is_one():
    found = judged(items([0] * 15 + [5] * 25))["rise"]
    assert found.verdict == "reproduced" and found.number.value == pytest.approx(25 / 40) and found.number.kind == "paired shares"
    assert found.control.value == pytest.approx(15 / 40)


def test_a_rise_of_ambiguous_items_alone_is_none():
    """These are blends at step 0 by construction: they alone made most of the old rise."""
    rows = items([0] * 60) + items([5] * 60, unique=False)
    found = judged(rows)["rise"]
    assert found.verdict == "refuted" and found.number.value == 0 and "0 of 60" in found.statement
    assert judged(items([5] * 29))["rise"].verdict == "not testable"


def test_with_several_noises_the_rise_is_a_mean_of_differences():
    rows = [
        row for i in range(20) for noise in (0, 1)
        for row in run_rows(f"p{i}", since(0 if noise == 0 else 3 + i) if i % 3 else since(2), noise=noise)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    ends = [(table[table.step == k].status == "solved").groupby(table.problem).mean() for k in (STEPS, 0)]
    found = judged(rows)["rise"]
    assert found.number.kind == "mean" and found.number.value == pytest.approx(float(np.mean(ends[0] - ends[1])))


@pytest.mark.parametrize(
    ("starts", "by_steps", "by_sigma"),
    [([3] * 40, "reproduced", "reproduced"), ([6] * 40, "reproduced", "refuted"), ([12] * 40, "refuted", "refuted"),
     ([0] * 24 + [12] * 16, "refuted", "refuted"), ([0] * 40, "not testable", "not testable"),
     ([21] * 40, "not testable", "not testable")],
)  # fmt: skip
def test_the_timing_is_of_a_level_that_was_not_there_at_step_0(starts, by_steps, by_sigma):
    found = judged(items(starts))
    assert (timed_step("steps", SIGMAS), timed_step("sigma", SIGMAS)) == (6, 4)
    assert (found["timing-steps"].verdict, found["timing-sigma"].verdict) == (by_steps, by_sigma)
    assert found["timing-steps"].primary and not found["timing-sigma"].primary
    ended = [s for s in starts if s <= STEPS]
    if ended:
        assert found["timing-steps"].number.value == pytest.approx(np.mean([s <= 6 for s in ended]))


def test_items_that_were_not_read_at_step_0_are_not_timed():
    """It is not known whether they were right before anything could form."""
    unread = [row | {"error": "scorer failed: x" * (row["step"] == 0 and row["problem"] < "True-2")} for row in items([3] * 40)]
    known = [name for name in (f"True-{i}" for i in range(40)) if name >= "True-2"]
    assert judged(unread)["timing-steps"].number.n == len(known) < 40


def test_what_is_right_in_time_and_lost_again_does_not_stay():
    flickers = [k in (6, 7) or k >= 10 for k in range(STEPS + 1)]
    rows = items([5] * 20) + [row for i in range(20) for row in run_rows(f"lost-{i}", flickers)]
    found = judged(rows)["timing-steps"]
    assert found.verdict == "refuted" and found.number.value == 0.5 and "40 of 40" in found.statement


def test_a_rise_is_told_by_task():
    rows = items([0] * 20) + [row | {"task": "bounce"} for i in range(20) for row in run_rows(f"b{i}", since(5))]
    assert "the rise by task: maze 0.00 (n = 20), bounce 1.00 (n = 20)" in judged(rows)["rise"].statement
    frames = [[k >= 3 + f // 2 for f in range(FRAMES)] for k in range(STEPS + 1)]
    rows = [row | {"task": task} for task in ("maze", "bounce") for row in run_rows(task, since(8), frames=frames)]
    assert "by task: bounce 1.00 (n = 1), maze 1.00 (n = 1)" in judged(rows)["frames"].statement


def test_without_a_step_at_that_noise_level_nothing_is_timed():
    found = judged(items([3] * 40), [1 - k / STEPS for k in range(2)] + [0.8 - k / 40 for k in range(18)])
    assert found["timing-sigma"].verdict == "refuted" and "step 1 of 20 (sigma 0.950)" in found["timing-sigma"].statement
    assert "no step near" in judged(items([3] * 40), [1.0] + [0.8 - k / 40 for k in range(19)])["timing-sigma"].why


# --- candidates ------------------------------------------------------------------------------------------------------


def planted(estimates, candidates: Candidates) -> SimpleNamespace:
    """A run whose clean estimates are given; the last is its final latent."""
    chance = torch.Generator().manual_seed(0)
    sigmas = [1 - k / len(estimates) for k in range(len(estimates) - 1)]
    noise = torch.randn(candidates.latents[:1].shape, generator=chance)
    x_t = [(1 - s) * estimates[-1][None] + s * noise for s in sigmas]
    return SimpleNamespace(
        steps=len(sigmas), sigmas=sigmas, x_t=x_t, x0hat=[e[None] for e in estimates[:-1]], latents=estimates[-1][None]
    )


def answers(seed: int, count: int = 3) -> Candidates:
    drawn = torch.randn(count + 1, 4, 2, 5, 5, generator=torch.Generator().manual_seed(seed))
    return Candidates(tuple("abcdef"[:count]), drawn[1:], drawn[0])


SHOWN = {
    "a blend": lambda c, noise: c.latents.mean(0) + noise,
    "nothing": lambda c, noise: c.nothing + noise,
    "one answer": lambda c, noise: c.latents[0] + noise,
    "noise": lambda c, noise: 3 * noise,
}


def items_that_show(what: str, size: float, count: int = 20) -> list[dict]:
    rows = []
    for i in range(count):
        found = answers(i)
        noise = size * torch.randn(found.nothing.shape, generator=torch.Generator().manual_seed(100 + i))
        estimates = [SHOWN[what](found, noise)] * STEPS + [found.latents[0] + 0.01 * noise]
        told = pd.DataFrame(chain.believed(planted(estimates, found), found))
        rows += run_rows(f"p{i}", since(STEPS), False, **{column: told[column].tolist() for column in told})
    return rows


@pytest.mark.parametrize(("what", "size", "verdict"), [
    ("a blend", 0.3, "reproduced"), ("a blend", 0.01, "reproduced"), ("nothing", 0.3, "refuted"), ("one answer", 0.01, "refuted"),
    ("one answer", 1.0, "refuted"), ("one answer", 2.0, "not reproduced"), ("noise", 1.0, "not reproduced"),
])  # fmt: skip
def test_candidates_count_where_a_blend_is_shown(what, size, verdict):
    """Neither an estimate that shows nothing (in the middle of all answers) nor one answer under noise passes for a blend."""
    found = judged(items_that_show(what, size))["candidates"]
    assert found.verdict == verdict if verdict != "not reproduced" else found.verdict in ("refuted", "undecided")


def test_the_number_of_candidates_by_hand():
    rows = items_that_show("a blend", 0.3, 12)
    table = pd.DataFrame(rows)
    ends = [table[table.step == k].set_index("problem") for k in (0, STEPS)]
    by_hand = (ends[0].shown - ends[0].one) - (ends[1].shown - ends[1].one)
    assert judged(rows)["candidates"].number.value == pytest.approx(by_hand.mean()) and 1.5 < by_hand.mean() < 2.2
    wrong = table.assign(status="wrong")  # what becomes of an item chooses none: a model that solves nothing is asked, too
    assert judged(wrong.to_dict("records"))["candidates"].number == judged(rows)["candidates"].number and len(pruned(wrong)) == 12
    assert judged(rows[: len(rows) // 2])["candidates"].verdict == "not testable"
    assert judged([{k: v for k, v in row.items() if k != "shown"} for row in rows])["candidates"].number.n == 0


def test_a_blend_that_stays_one_is_not_pruned():
    """A model that shows all answers to the end solves nothing, and is refuted."""
    rows = []
    for i in range(20):
        found = answers(i)
        noise = 0.1 * torch.randn((STEPS + 1, *found.nothing.shape), generator=torch.Generator().manual_seed(100 + i))
        told = pd.DataFrame(chain.believed(planted([found.latents.mean(0) + one for one in noise], found), found))
        rows += run_rows(f"p{i}", since(STEPS + 1), False, **{column: told[column].tolist() for column in told})
    found = judged(rows)["candidates"]
    assert found.verdict == "refuted" and found.number.n == 20 and abs(found.number.value) < 0.1


def test_what_is_believed_of_a_run_is_the_kits():
    found = answers(1)
    run = planted([found.latents[:2].mean(0), found.latents[1], found.latents[1]], found)
    rows = chain.believed(run, found)
    assert rows[0]["shown"] == pytest.approx(2) and rows[1]["shown"] == rows[2]["one"] == pytest.approx(1)
    for step in (0, 1):
        posterior = belief.bayes_posterior(run.x_t[step], found.latents, run.sigmas[step])
        assert rows[step]["bayes"] == belief.effective(posterior)
        shares = torch.tensor([0.5, 0.5, 0]) if step == 0 else torch.tensor([0.0, 1, 0])
        assert rows[step]["apart"] == pytest.approx(belief.total_variation(shares, posterior), abs=1e-6)
    assert rows[0]["bayes"] == pytest.approx(3) and rows[2]["bayes"] == 1
    shown = chain.weighed(run, found)  # of each step and the final latent
    torch.testing.assert_close(shown, torch.tensor([[0.5, 0.5, 0], [0, 1, 0], [0, 1, 0]]), atol=1e-5, rtol=0)


def test_the_rest_is_moved_whole():
    found = answers(2)
    spot = torch.zeros_like(found.nothing)
    spot[0, 0, 1, 1] = 5.0
    left = chain.rest(found.latents[0] + spot, found)
    assert left.norm() <= spot.norm() + 1e-5
    assert torch.allclose(
        torch.stack([left.flatten() @ (c - found.nothing).flatten() for c in found.latents]), torch.zeros(3), atol=1e-3
    )


# --- steps against frames --------------------------------------------------------------------------------------------


def frame_rows(name: str, starts: list[int], unique: bool = True) -> list[dict]:
    """A run whose latent frames 1 to 4 are right from given steps on."""
    frames = [[k >= starts[f // 2] for f in range(FRAMES)] for k in range(STEPS + 1)]
    return run_rows(name, [all(flags) for flags in frames], unique, frames)


def together(chance, count: int = 24) -> list[dict]:
    return [r for i in range(count) for r in frame_rows(f"p{i}", list(chance.integers(0, 2, 4) + chance.integers(2, 14)))]


def test_frames_that_form_together_are_along_the_steps():
    found = judged(together(np.random.default_rng(0)))["frames"]
    assert found.verdict == "reproduced" and 0.2 < found.number.value <= 0.5


@pytest.mark.parametrize(("a", "b"), [(0, 1), (2, 2), (1, 4), (12, 1), (17, -3)])
def test_frames_that_form_one_after_the_other_are_not(a, b):
    """Frame f becomes right at step a + b f, early or late, fast or slow, or backwards."""
    chance = np.random.default_rng(1)
    rows = [
        r for i in range(24) for r in frame_rows(f"p{i}", [a + b * f + int(chance.integers(0, 2)) for f in range(1, 5)])
    ]  # fmt: skip
    found = judged(rows)["frames"]
    assert found.verdict == "refuted" and found.number.value == pytest.approx(0.5 - abs(b), abs=0.25)
    assert found.control.value == 0.5  # inside a latent frame nothing comes later
    alike = judged([row | {"frame_1": row["frame_2"], "frame_7": row["frame_8"]} for row in rows])["frames"]
    assert alike.number == found.number


def pixel_rows(name: str, starts: list[int]) -> list[dict]:
    """A run whose pixel frames 1 to 8 are right from given steps on."""
    frames = [[k >= start for start in starts] for k in range(STEPS + 1)]
    return run_rows(name, [all(flags) for flags in frames], True, frames)


@pytest.mark.parametrize(
    ("starts", "verdict"),
    [
        (lambda f, at: at + f, "not testable"),  # every pixel frame is harder than the one before it: 2 steps a latent frame
        (lambda f, at: at + 2 * ((f - 1) // 2), "refuted"),  # as fast, latent frame after latent frame
        (lambda f, at: at + 3 * ((f - 1) // 2) + (f - 1) % 2, "refuted"),  # 2 of these 3 steps are inside: 1 more is not
        (lambda f, at: at + 2 * (1 - f % 2), "reproduced"),  # the decoder reads every second one late: no slope
    ],
)
def test_what_comes_later_inside_a_latent_frame_is_no_order_of_frames(starts, verdict):
    chance = np.random.default_rng(2)
    at = lambda: 1 + int(chance.integers(0, 2))
    rows = [r for i in range(24) for r in pixel_rows(f"p{i}", [starts(f, at()) for f in range(1, 9)])]
    found = judged(rows)["frames"]
    assert found.verdict == verdict and ("inside a latent frame" in found.why) == (verdict == "not testable")


def test_inside_by_hand():
    rows = pd.DataFrame(pixel_rows("p", [1, 3, 4, 4, 9, 12, 5, 2]))
    assert forming(rows).inside.tolist() == [2 * np.mean([2, 0, 3, -3])]
    assert forming(rows).slope.tolist() == pytest.approx([np.polyfit(range(4), [3, 4, 12, 5], 1)[0]])
    half = rows[rows.step % 2 == 0].assign(step=lambda r: r.step // 2)  # a run of ten: told in steps of twenty
    assert forming(half).inside.tolist() == [2 * np.mean([2, 0, 2, -4])]
    there = pd.DataFrame(pixel_rows("p", [0, 3, 4, 5, 9, 12, 5, 0]))  # two latent frames are half there at step 0
    assert forming(there).inside.tolist() == [2 * np.mean([1, 3])]
    assert np.isnan(forming(pd.DataFrame(pixel_rows("p", [0, 3] * 4))).inside.item())


def test_only_items_that_form_in_the_run_are_asked():
    chance = np.random.default_rng(0)
    there = [r for i in range(50) for r in frame_rows(f"there-{i}", [0, 0, 0, 0])]
    never = [r for i in range(50) for r in frame_rows(f"never-{i}", [0, 3, 9, 21])]
    several = [r for i in range(50) for r in frame_rows(f"several-{i}", [1, 5, 9, 13], unique=False)]
    found = judged(there + never + several)["frames"]
    assert found.verdict == "not testable" and found.number.n == 0
    assert judged(together(chance) + there + never + several)["frames"].verdict == "reproduced"


def test_slopes_by_hand():
    flags = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [1, 1, 1]], bool)
    assert first_right(flags).tolist() == [3, 1, 2]
    assert slope(np.array([1.0, 2.0, 4.0, 4.0])) == pytest.approx(np.polyfit(range(4), [1, 2, 4, 4], 1)[0])
    rows = pd.DataFrame(frame_rows("p", [4, 6, 8, 13]))
    assert forming(rows).slope.tolist() == pytest.approx([np.polyfit(range(4), [4, 6, 8, 13], 1)[0]])
    rows = rows[rows.step % 2 == 0].assign(step=lambda r: r.step // 2)  # a run of ten: told in steps of twenty
    assert forming(rows).slope.tolist() == pytest.approx([np.polyfit(range(4), [4, 6, 8, 14], 1)[0]])


def test_the_bound_is_two_sided_and_a_scatter_about_0_is_inside():
    scatter = np.random.default_rng(0).normal(0, 1, 400)
    assert within_bound(scatter).mean() == pytest.approx(0.5 - abs(scatter.mean()))
    assert within_bound(-scatter).mean() == within_bound(scatter).mean()
    assert (0.5 - np.abs(scatter)).mean() < 0  # what the absolute slope of each item would have said
    assert within_bound(np.array([])).size == 0


def test_a_skewed_slope_is_inside_the_bound_on_both_sides_or_not_at_all():
    """A mean of 0.01 whose interval, by an independent bootstrap-t, goes from far below -0.5 to 0.3: nothing is shown of it."""
    slopes = np.array(
        [0.39, 0.31, 0.4, 0.33, 0.42, 0.36, 0.3, 0.41, 0.37, 0.35, 0.4, 0.34, 0.44, 0.38, 0.36, 0.4, 0.38, -2.0, -1.9, -2.2]
    )
    chance = np.random.default_rng(5)
    drawn = chance.choice(slopes, (9999, 20))
    t = (drawn.mean(1) - slopes.mean()) / drawn.std(1, ddof=1)
    low, high = slopes.mean() - np.quantile(t, [0.975, 0.025]) * slopes.std(ddof=1)
    assert 0 < slopes.mean() < high < 0.5 and low < -0.5
    for signed in (slopes, -slopes):
        held = Mean(within_bound(signed)).interval()
        assert held == (pytest.approx(0.5 + low, rel=0.15), pytest.approx(0.5 + high, abs=0.02))


@pytest.mark.slow
def test_the_organisms_own_videos_staggered_by_frame_are_refuted(organism):
    """What one model really made, as a Chain-of-Frames would have shown it: latent frames of the first estimate until their turn
    comes, decoded together and read."""
    config, chance = ChainOfStepsConfig(tasks=("bounce",), items=24, num_inference_steps=4), np.random.default_rng(0)
    rows, count = [], FRAMES // 2
    for problem in problems(config):
        run = generate(organism, config, problem)
        turned = [torch.cat([run.latents[:, :, : t + 1], run.x0hat[0][:, :, t + 1 :]], 2) for t in range(count + 1)]
        read = [frames_right(problem, clip)[1:] for clip in organism.decode(torch.cat(turned))]
        late = int(chance.integers(1, 4))
        frames = [read[min(max((k - late) // 2 + 1, 0), count)].tolist() for k in range(STEPS + 1)]
        rows += run_rows(problem.name, [all(f) for f in frames], True, frames)
    found = judged(rows)["frames"]
    assert found.number.n >= 12 and found.verdict == "refuted", (found.number, found.control, found.why)


# --- fewer frames ----------------------------------------------------------------------------------------------------


def in_fewer(whole: int, other: int, fewer: int, items: int = 40) -> dict:
    """Of so many items the first ``whole`` are right in the whole video, and of those the first so many in the two others."""
    about = {"kind": "fewer", "task": "maze", "unique": True, "frames": 5}
    rows = [{**about, "problem": f"p{i:02d}", "whole": i < whole, "other": i < other, "fewer": i < fewer} for i in range(items)]
    result = AnalysisResult("chain-of-steps", ChainOfStepsConfig(), pd.DataFrame(run_rows("p", since(3)) + rows), twins=())
    steps = result.rows[result.rows.kind == "steps"]
    return {f.key: f for f in findings(result, steps, SIGMAS)}


@pytest.mark.parametrize(
    ("whole", "other", "fewer", "verdict"),
    [(38, 38, 37, "reproduced"), (38, 37, 30, "undecided"), (38, 38, 12, "refuted"), (40, 20, 10, "not testable"),
     (19, 19, 19, "not testable"), (0, 0, 0, "not testable")],
)  # fmt: skip
def test_fewer_frames_keep_what_whole_videos_of_another_noise_keep(whole, other, fewer, verdict):
    found = in_fewer(whole, other, fewer)["chain-of-steps.fewer-frames"]
    assert found.verdict == verdict and found.number.n == whole == found.control.n, found.why
    if whole:
        assert (found.number.value, found.control.value) == (fewer / whole, other / whole)
        assert ("another noise" in found.why) == (other < 0.8 * whole)


def test_a_run_without_fewer_frames_says_nothing_of_them():
    assert "fewer-frames" not in judged(items([3] * 4))


def test_the_first_frames_are_read_of_videos_of_the_same_and_another_noise(organism):
    config = ChainOfStepsConfig(tasks=("bounce",), items=2, num_inference_steps=3)
    for problem in problems(config):
        row = chain.measure(organism, config, ("fewer", problem, 0)).rows[0]
        calls = [{}, {"seed": problem.noise(1)}, {"seed": problem.noise(1), "num_frames": 5}]
        clips = [organism.run(**arguments(organism, config, problem) | call).decode()[0][:5] for call in calls]
        by_hand = [all(np.array_equal(a, b) for a, b in zip(reader.read(c, 5), problem.item.cells, strict=False)) for c in clips]
        assert [row["whole"], row["other"], row["fewer"]] == by_hand and len(clips[2]) == 5 == row["frames"]


def test_a_video_begins_right_that_is_the_beginning_of_a_right_answer():
    problem = next(p for p in problems(ChainOfStepsConfig(tasks=("place",), items=20)) if not p.item.unique)
    whole = [grid.render(video) for video in get_task("place").right_videos(problem.item)]
    assert len(whole) > 1 and all(right_from_first(problem.item, clip[:count]) == count for clip in whole for count in (1, 5, 9))
    mixed = np.concatenate([whole[0][:5], whole[1][5:]])  # every frame is one of a right answer's, the video of none
    assert frames_right(problem, mixed).all() and right_from_first(problem.item, mixed) < len(mixed)
    assert right_from_first(problem.item, np.zeros_like(whole[0][:5])) == 0


# --- whole runs ------------------------------------------------------------------------------------------------------


def test_labels_dealt_out_anew_show_nothing():
    """A placebo: what was read is given to another step of another item."""
    chance = np.random.default_rng(0)
    rows = pd.DataFrame(items([0] * 20 + [8] * 20) + items([8] * 20, False))
    columns = ["status", *[f"frame_{f}" for f in range(1, 9)]]
    dealt = rows.assign(**{c: rows[columns].iloc[chance.permutation(len(rows))][c].to_numpy() for c in columns})
    assert {f.verdict for f in judged(dealt.to_dict("records")).values()} <= {"refuted", "undecided", "not testable"}


def test_a_sweep_is_of_one_noise_and_has_no_verdict(organism, tmp_path, monkeypatch):
    monkeypatch.setattr(chain, "SWEEP", (1, 3))
    config = ChainOfStepsConfig(tasks=("place",), items=2, sweep_items=1, fewer_items=1, num_inference_steps=3)
    result, report = experiment.run_and_report(load("chain-of-steps"), config, tmp_path / "run", model=organism, workers=1)
    sweep, steps = (result.rows[result.rows.kind == kind] for kind in ("sweep", "steps"))
    assert sweep.num_steps.tolist() == [1, 3] and set(sweep.problem) == {"place-000"}
    same = steps[(steps.problem == "place-000") & (steps.step == 3)]
    assert sweep[sweep.num_steps == 3].status.tolist() == same.status.tolist()  # the same noise, so the same video
    assert "As many steps" in report.html and "Fewer frames" in report.html and len(report.data["findings"]) == 6
    several = steps[~steps["unique"].astype(bool)]
    assert several.shown.notna().all() and steps[steps["unique"].astype(bool)].shown.isna().all()
    assert RunStore(tmp_path / "run").verify() == []


@pytest.mark.slow
def test_a_twin_reproduces_nothing(organism, tmp_path):
    config = ChainOfStepsConfig(items=10, num_inference_steps=4, sweep_items=0)
    _, report = experiment.run_and_report(load("chain-of-steps"), config, tmp_path / "run", model=twin_of(organism, 3), workers=1)
    assert "reproduced" not in {f["verdict"] for f in report.data["findings"]} and len(report.data["findings"]) == 6
