"""Beliefs against the exact posterior: an ideal denoiser, three that are not, rows by hand, small runs on any family."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from cos_interp import analyses
from cos_interp.analyses.driver import experiment
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.kept import kept_clips
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.driver.twins import twin_of
from cos_interp.analyses.kit import belief
from cos_interp.analyses.kit.choices import Choices, coinciding
from cos_interp.analyses.kit.problems import generate, problems
from cos_interp.analyses.posterior import PosteriorConfig, PosteriorFacts
from cos_interp.analyses.posterior.measure import rows_of
from cos_interp.analyses.posterior.report import CONTROLS, closer, findings, narrowed
from cos_interp.interp import HookedVideoPipeline, InterpError, tiny
from cos_interp.tasks.video import encode_mp4

STEPS = 12
SIGMAS = [1 - k / STEPS for k in range(STEPS)]


def trajectory(among: torch.Tensor, true: int, seed: int, estimate) -> SimpleNamespace:
    """States of one noise around a candidate, whose clean estimate is what ``estimate(x_t, sigma)`` says."""
    noise = torch.randn(among[0].shape, generator=torch.Generator().manual_seed(seed))
    x_t = [((1 - sigma) * among[true] + sigma * noise)[None] for sigma in SIGMAS]
    x0hat = [torch.einsum("k,kcfxy->cfxy", estimate(x, s).to(among), among)[None] for x, s in zip(x_t, SIGMAS, strict=True)]
    return SimpleNamespace(sigmas=SIGMAS, x_t=x_t, x0hat=x0hat)


def planted(estimate, items: int = 40) -> pd.DataFrame:
    """Rows of items of three candidates. ``estimate(among)`` gives the weights of a denoiser, from a state and its sigma."""
    rows = []
    for i in range(items):
        among = 0.45 * torch.randn(3, 4, 2, 4, 4, generator=torch.Generator().manual_seed(i))
        run, other = (trajectory(among, (i + n) % 3, 1000 * n + i, estimate(among)) for n in (1, 2))
        found = rows_of(run, other, Choices(("a", "b", "c"), among), (i + 1) % 3, [1 - s for s in SIGMAS])
        rows += [{"problem": f"p{i}", "task": "place", **row} for row in found]
    return pd.DataFrame(rows)


def judged(rows: pd.DataFrame) -> dict:
    return {f.key.split(".")[1]: f for f in findings(AnalysisResult("posterior", PosteriorConfig(), rows), rows)}


def one_hot(among, x_t, sigma):
    return torch.eye(len(among))[belief.pick(x_t, among, sigma)]


IDEAL = lambda among: lambda x, s: belief.bayes_posterior(x, among, s)
BLIND = lambda among: lambda x, s: torch.full((len(among),), 1 / len(among))
SURE = lambda among: lambda x, s: one_hot(among, x, s)
HASTY = lambda among: lambda x, s: belief.bayes_posterior(x, among, max(s / 3, 0.02), 1 - s)


def test_an_ideal_denoiser_is_the_posterior_and_beliefs_that_use_less_are_not():
    found = judged(planted(IDEAL))
    assert found["exact"].verdict == "reproduced" and found["exact"].primary and not found["together"].primary
    rows = planted(IDEAL)
    assert rows.apart.max() < 1e-4 and (rows.model - rows.bayes).abs().max() < 1e-3
    for less in (BLIND, SURE):
        verdict = judged(planted(less))["exact"]
        assert verdict.verdict in ("refuted", "not testable") and verdict.number.value <= 1e-6  # at best the control that it is
    assert judged(planted(HASTY))["exact"].number.value < found["exact"].number.value


def test_a_denoiser_that_is_ahead_or_late_does_not_narrow_together():
    assert judged(planted(IDEAL))["together"].verdict in ("reproduced", "not testable")  # no lag at all has no interval
    assert judged(planted(HASTY))["together"].verdict == "refuted"
    late = lambda among: lambda x, s: belief.bayes_posterior(x, among, min(1.0, 6 * s), 1 - s)
    rows = planted(late)
    assert (narrowed(rows, "model") - narrowed(rows, "bayes")).mean() > 0.05


def test_another_problems_posterior_is_no_evidence():
    """Placebo: posteriors dealt out anew among the problems, which leaves the mean lag as it is."""
    steps, chance = np.arange(12), np.random.default_rng(0)
    narrows = chance.integers(1, 11, 40)
    wide = lambda at: np.where(steps < at, 3.0, 1.0)
    rows = pd.concat([
        pd.DataFrame({"problem": f"p{i}", "task": "place", "step": steps, "candidates": 3, "model": wide(at), "bayes": wide(at),
                      "apart": 0.1 + 0.01 * chance.random(), **dict.fromkeys(CONTROLS, 0.3)})
        for i, at in enumerate(narrows)
    ])  # fmt: skip
    assert judged(rows)["together"].verdict == "reproduced"
    dealt = chance.permutation(narrows)
    placebo = rows.assign(bayes=np.concatenate([wide(at) for at in dealt]))
    lag = (narrows - dealt) / 12
    found = judged(placebo)["together"]
    assert lag.mean() == pytest.approx(0) and found.number.value == pytest.approx(0.1 - np.abs(lag).mean())
    assert found.verdict == "refuted"
    other = [np.abs(at - np.delete(dealt, i)).mean() / 12 for i, at in enumerate(narrows)]
    assert found.control.value == pytest.approx(0.1 - np.mean(other))


def test_the_number_by_hand():
    rows, by_hand = planted(HASTY, 6), []
    for _, item in rows.groupby("problem", sort=False):
        by_hand.append(min(item[name].mean() for name in CONTROLS) - item.apart.mean())
    assert closer(rows).closer.tolist() == pytest.approx(by_hand)
    assert closer(rows.assign(other=np.nan)).closer.isna().all()  # of three controls one is missing
    steps = pd.DataFrame({"problem": "p", "step": range(5), "candidates": 3, "wide": [3.0, 2.5, 1.9, 2.2, 1.2]})
    assert narrowed(steps, "wide").tolist() == [0.8] and narrowed(steps[:4], "wide").isna().all()
    assert narrowed(steps.assign(wide=1.0), "wide").tolist() == [0.0]


def test_a_row_by_hand():
    rows = planted(IDEAL, 1)
    assert rows.none.iloc[0] == pytest.approx(0, abs=1e-9) and rows.bayes.iloc[0] == pytest.approx(3)  # sigma 1 tells nothing
    assert rows.sure.iloc[0] == pytest.approx(2 / 3) and rows.named_bayes.iloc[-1] and rows.margin.gt(0).all()
    assert rows.bayes.iloc[-1] == pytest.approx(1, abs=1e-3) and rows.other.iloc[-1] == pytest.approx(1, abs=1e-3)


def test_few_problems_are_not_testable():
    assert judged(planted(IDEAL, 11))["exact"].verdict == "not testable"


def test_candidates_that_coincide_are_named():
    among = torch.randn(3, 4, 2, 4, 4)
    assert coinciding(Choices(("a", "b", "c"), among)) is None
    among[2] = among[0] * (1 + 1e-6)
    assert coinciding(Choices(("a", "b", "c"), among)) == ("a", "c")


# --- whole runs ------------------------------------------------------------------------------------------------------


def test_a_run_on_the_organism(organism, tmp_path):
    config = PosteriorConfig(tasks=("place",), items=8, num_inference_steps=6)
    result, report = experiment.run_and_report(load("posterior"), config, tmp_path / "run", model=organism, workers=1)
    rows = result.rows
    assert not rows["unique"].astype(bool).any() and rows.groupby("problem").step.count().eq(6).all()
    assert rows[["apart", *CONTROLS]].stack().between(0, 1 + 1e-9).all()
    first, last = rows[rows.step == 0], rows[rows.step == 5]
    assert first.bayes.sub(first.candidates).abs().max() < 1e-6 and last.bayes.mean() < first.bayes.mean()
    assert [f["key"] for f in report.data["findings"]] == ["posterior.exact", "posterior.together"]
    assert "How far from the exact posterior" in report.html
    (one, *_) = kept_clips(result, RunStore(tmp_path / "run", [PosteriorFacts]), PosteriorFacts)
    assert one.names == (*(f"step {k}" for k in range(6)), "final video")
    run = generate(organism, config, next(p for p in problems(config) if p.name == one.unit))
    assert all(np.array_equal(one.clips[k], run.decode(k)[0]) for k in (0, 3)) and np.array_equal(one.clips[-1], run.decode()[0])
    assert '<a href="#reel-' in report.html and "Against the claim: " in report.html


@pytest.mark.slow
def test_a_twin_reproduces_nothing(organism, tmp_path):
    config = PosteriorConfig(items=30, num_inference_steps=4)
    _, report = experiment.run_and_report(load("posterior"), config, tmp_path / "run", model=twin_of(organism, 3), workers=1)
    assert "reproduced" not in {f["verdict"] for f in report.data["findings"]} and len(report.data["findings"]) == 2


@pytest.fixture
def one_prompt(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "move the red circle"}))
    return str(path)


@pytest.fixture
def clips(tmp_path):
    """Two clips of the tiny pipelines' size, one saved by numpy and one as a film."""
    folder = tmp_path / "clips"
    folder.mkdir()
    chance = np.random.default_rng(0)
    np.save(folder / "a.npy", chance.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8))
    (folder / "b.mp4").write_bytes(encode_mp4(np.full((9, 16, 16, 3), 90, np.uint8)))  # written at twice its size
    return folder


@pytest.mark.parametrize("name", ["wan2.1", "cogvideox", "allegro", "ltx"])
def test_other_noises_videos_are_candidates_on_any_family(name, tmp_path, one_prompt):
    model = HookedVideoPipeline.from_pretrained(f"tiny:{name}")
    config = PosteriorConfig(prompts=one_prompt, noises=3, num_inference_steps=2, model=model.name)
    result, report = experiment.run_and_report(load("posterior"), config, tmp_path / "run", model=model, workers=1)
    assert set(result.rows.ends) == {"noise 0"} and set(result.rows.candidates) == {3}
    assert np.isfinite(result.rows[["model", "bayes", "apart", "margin"]].to_numpy(float)).all()
    assert {f["verdict"] for f in report.data["findings"]} == {"not testable"}


def test_clips_of_the_users_are_candidates_and_decide_what_a_run_is(tmp_path, one_prompt, clips):
    settings = {"prompts": one_prompt, "candidates": str(clips), "num_inference_steps": 2, "model": "tiny:wan2.1"}
    run = analyses.run("posterior", out=tmp_path / "run", workers=1, **settings)
    assert set(run.rows.candidates) == {2} and set(run.rows.ends) <= {"a.npy", "b.mp4"}
    np.save(clips / "a.npy", np.full((9, 32, 32, 3), 200, np.uint8))
    with pytest.raises(RunError, match=r"a\.npy has changed"):
        analyses.run("posterior", out=tmp_path / "run", workers=1, **settings)


def test_clips_that_cannot_be_candidates_are_refused(tmp_path, one_prompt, clips):
    ask = lambda: analyses.run(
        "posterior", out=tmp_path / "run", workers=1, prompts=one_prompt, candidates=str(clips), model="tiny:wan2.1",
        num_inference_steps=2,
    )  # fmt: skip
    np.save(clips / "c.npy", np.load(clips / "a.npy"))
    with pytest.raises(InterpError, match=r"a\.npy and c\.npy coincide"):
        ask()
    np.save(clips / "c.npy", np.zeros((5, 32, 32, 3), np.uint8))
    with pytest.raises(InterpError, match=r"several sizes.*c\.npy \[5, 32, 32\]"):
        ask()
    np.save(clips / "c.npy", np.zeros((9, 32, 32, 3)))
    with pytest.raises(InterpError, match="not uint8"):
        ask()
    for given, said in ((clips / "none", "is not there"), (clips / "a.npy", "is a file")):
        with pytest.raises(InterpError, match=f"{said}: give a folder of clips"):
            analyses.run("posterior", out=tmp_path / "run", prompts=one_prompt, candidates=str(given), model="tiny:wan2.1")
    (clips / "c.npy").unlink(), (clips / "b.mp4").unlink()
    with pytest.raises(InterpError, match="holds 1 clips"):
        ask()
    (clips / "b.mp4").write_bytes(b"no film")
    with pytest.raises(InterpError, match="no readable video"):
        ask()
    np.save(clips / "a.npy", np.zeros((5, 32, 32, 3), np.uint8)), (clips / "b.mp4").unlink()
    np.save(clips / "b.npy", np.full((5, 32, 32, 3), 255, np.uint8))
    with pytest.raises(InterpError, match="of the size and length that the model makes"):
        ask()


def saved(save, *given, **named):
    held = io.BytesIO()
    save(held, *given, **named)
    return held.getvalue()


CLIP = np.zeros((9, 32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "b.NPY is no readable clip"), (saved(np.savez, CLIP), "b.NPY is no readable clip"),
        (saved(np.save, CLIP)[:-7], "b.NPY is no readable clip"), (b"a film", "b.NPY is no readable clip"),
        (saved(np.save, np.array([{}]), allow_pickle=True), "b.NPY is no readable clip"),
        (saved(np.save, CLIP[:0]), r"b.NPY holds uint8 \[0, 32, 32, 3\]"),
    ],
)  # fmt: skip
def test_a_damaged_array_is_named(tmp_path, one_prompt, clips, content, said):
    (clips / "b.NPY").write_bytes(content)
    with pytest.raises(InterpError, match=said):
        analyses.run("posterior", out=tmp_path / "run", prompts=one_prompt, candidates=str(clips), model="tiny:wan2.1")


@pytest.mark.parametrize("shape", [(12, 32, 32), (9, 35, 32)])
def test_what_an_autoencoder_would_drop_of_a_clip_is_said(tmp_path, one_prompt, shape):
    """Its latents have the shape of the run's."""
    for name, grey in (("a", 40), ("b", 90)):
        np.save(tmp_path / f"{name}.npy", np.full((*shape, 3), grey, np.uint8))
    frames, height, width = shape
    with pytest.raises(InterpError, match=f"have {frames} frames of {width}x{height}, and the model makes 9 frames of 32x32"):
        analyses.run(
            "posterior", out=tmp_path / "run", prompts=one_prompt, candidates=str(tmp_path), model="tiny:wan2.1",
            num_inference_steps=2, workers=1,
        )  # fmt: skip


def test_an_items_candidates_are_its_answers():
    with pytest.raises(ValueError, match="leave out candidates"):
        PosteriorConfig(candidates="clips")
    with pytest.raises(ValueError, match="leave out candidates or noises"):
        PosteriorConfig(prompts="p", candidates="clips", noises=3)
    with pytest.raises(InterpError, match="several right answers"):
        load("posterior").check(PosteriorConfig(tasks=("bounce",), items=3), _sized())


def _sized():
    """A tiny pipeline that makes videos of the tasks' size where it is asked to."""
    return HookedVideoPipeline(tiny.build("wan2.1"), "wan2.1", {"height": 40, "width": 40, "num_frames": 9})
