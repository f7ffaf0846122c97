"""Averaged weights: the mean by hand, equal checkpoints give exactly nothing, and two wrong ones whose mean is right."""

from __future__ import annotations

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch

from cos_interp.analyses.averaging import AveragingConfig
from cos_interp.analyses.averaging.findings import by_variant, findings
from cos_interp.analyses.averaging.merged import apart, averaged, weights_of, with_weights
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import run_and_report
from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.planning import forecast
from cos_interp.analyses.driver.registry import load
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.errors import InterpError
from tests.support import hooked_tiny

TINY = "tiny:wan2.2"  # two experts


def moved(model: HookedVideoPipeline, size: float, seed: int = 0) -> HookedVideoPipeline:
    """A copy of a model whose weights all lie elsewhere."""
    other, draw = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for engine in other.engines.values():
        for weight in engine.module.parameters():
            weight.data += size * torch.randn(weight.shape, generator=draw)
    return other


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mean_is_that_of_numpy(dtype):
    models = [HookedVideoPipeline.from_pretrained(TINY, dtype=dtype)]
    models += [moved(models[0], 0.3, seed) for seed in (1, 2)]
    found = averaged(weights_of(models[0]), map(weights_of, models[1:]), 2)
    assert set(found) == {"transformer", "transformer_2"}
    for expert, held in found.items():
        for name, weight in held.items():
            each = [weights_of(model)[expert][name].detach().double().numpy() for model in models]
            tolerance = 1e-6 if dtype == torch.float32 else 2**-8
            np.testing.assert_allclose(weight.double().numpy(), np.mean(each, 0), rtol=tolerance, atol=tolerance)
            assert weight.dtype == weights_of(models[0])[expert][name].dtype


def test_the_mean_of_equal_weights_is_their_own_bit_for_bit():
    model = hooked_tiny()
    own = weights_of(model)
    found = averaged(own, [weights_of(copy.deepcopy(model)) for _ in range(6)], 6)
    assert all(torch.equal(found[expert][name], w) for expert, held in own.items() for name, w in held.items())
    assert apart(own, found) == 0.0


def test_apart_by_hand_and_weights_are_put_back():
    model = hooked_tiny()
    own = {e: {n: w.detach().clone() for n, w in held.items()} for e, held in weights_of(model).items()}
    twice = {e: {n: 1.5 * w for n, w in held.items()} for e, held in own.items()}
    assert apart(own, twice) == pytest.approx(0.5)
    with pytest.raises(ZeroDivisionError), with_weights(model, twice):
        assert torch.equal(next(iter(weights_of(model)["transformer"].values())), next(iter(twice["transformer"].values())))
        raise ZeroDivisionError
    assert apart(own, weights_of(model)) == 0.0


# --- runs ------------------------------------------------------------------------------------------------------------


JUDGE = """
def judge(video, case):
    off = abs(video.astype(float).mean() - case.expected["shade"])
    return {"status": "solved" if off < case.expected["within"] else "wrong"}
"""


@pytest.fixture(scope="module")
def apart_from_one(tmp_path_factory):
    """A tiny model, and two checkpoints on opposite sides of it, so that their mean is the model itself."""
    folder = tmp_path_factory.mktemp("checkpoints")
    base = HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    draw = torch.Generator().manual_seed(0)
    noise = {n: 0.15 * torch.randn(w.shape, generator=draw) for n, w in base.pipe.transformer.named_parameters()}
    for name, sign in (("last", 1), ("earlier", -1)):
        other = copy.deepcopy(base)
        for weight, value in other.pipe.transformer.named_parameters():
            value.data += sign * noise[weight]
        other.pipe.save_pretrained(folder / name)
    return base, folder


def test_two_wrong_checkpoints_whose_mean_is_right(apart_from_one, tmp_path):
    base, folder = apart_from_one
    last = HookedVideoPipeline.from_pretrained(folder / "last")
    last.defaults, last.small = dict(base.defaults), base.small
    lines = []
    for n in range(8):
        about = {"prompt": f"a ball {n}", "seed": n}
        call = about | {"num_inference_steps": 2, "guidance_scale": 1.0}
        shades = [float(model.run(**call).decode()[0].mean()) for model in (base, last)]
        lines.append(about | {"expected": {"shade": shades[0], "within": abs(shades[0] - shades[1]) / 4}})
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "judge.py").write_text(JUDGE)
    config = AveragingConfig(
        prompts=str(tmp_path / "prompts.jsonl"), scorer=f"{tmp_path}/judge.py:judge", num_inference_steps=2,
        checkpoints=(str(folder / "earlier"),),
    )  # fmt: skip
    result, report = run_and_report(load("averaging"), config, tmp_path / "run", model=last, workers=1)
    more_than_last, more_than_best = report.data["findings"]
    assert more_than_last["number"]["value"] == 1.0 and more_than_last["number"]["n"] == 8
    assert more_than_best["number"]["value"] == 1.0 and more_than_best["number"]["n"] == 4
    solved = result.rows[result.rows.kind == "run"].groupby("variant").solved.mean()
    assert solved["average"] == 1.0 > solved["last"] == 0.0
    read = result.rows[result.rows.kind == "run"].drop_duplicates("problem").iloc[-1]
    assert f"<td>{read.problem}</td>" in report.html and f"<td>{read.status}" in report.html  # the last item, which has no clips
    weights = result.rows[result.rows.kind == "weights"].set_index("variant").delta
    assert weights["checkpoint 1"] == pytest.approx(2 * weights["average"], rel=1e-3)


def test_equal_checkpoints_differ_by_exactly_0(prompts, tmp_path):
    config = AveragingConfig(model=TINY, prompts=prompts, num_inference_steps=2, guidance_scale=3.0, checkpoints=(TINY, TINY))
    result, report = run_and_report(load("averaging"), config, tmp_path / "run", workers=1)
    runs = result.rows[result.rows.kind == "run"]
    assert set(runs.variant) == {"last", "average", "checkpoint 1", "checkpoint 2"} and (runs.moved == 0.0).all()
    assert (result.rows[result.rows.kind == "weights"].delta == 0.0).all() and len(result.config.checkpoint_digests) == 2
    assert {f["verdict"] for f in report.data["findings"]} == {"not testable"}
    assert any("the same videos as the last checkpoint" in line for line in report.lines)


def test_what_has_no_average_is_refused(prompts):
    check, tiny = load("averaging").check, HookedVideoPipeline.from_pretrained("tiny:wan2.1")
    with pytest.raises(InterpError, match="give --checkpoints"):
        check(AveragingConfig(prompts=prompts), tiny)
    with pytest.raises(InterpError, match="differ in"):
        check(AveragingConfig(prompts=prompts, checkpoints=("tiny:cogvideox",)), tiny)
    with pytest.raises(InterpError, match=r"have no average: .* is of another kind"):
        check(AveragingConfig(prompts=prompts, checkpoints=("tiny:wan2.1",), dtype="bf16"), tiny)
    with pytest.raises(InterpError, match="--checkpoint-digests asks for 0123"):
        check(AveragingConfig(prompts=prompts, checkpoints=("tiny:wan2.1",), checkpoint_digests=("0123",)), tiny)


# --- verdicts --------------------------------------------------------------------------------------------------------


def made_up(shares: dict[str, float], items: int = 400, seed: int = 0) -> pd.DataFrame:
    rng, rows = np.random.default_rng(seed), []
    for i in range(items):
        hard = rng.random()
        for variant, share in shares.items():
            about = {"problem": f"p{i:03}", "task": "maze", "kind": "run", "variant": variant}
            rows.append(about | {"solved": float(hard < share), "moved": 0.0 if variant == "last" else 0.1})
    return pd.DataFrame(rows)


def judged(rows: pd.DataFrame, twins=()):
    return findings(AnalysisResult("averaging", AveragingConfig(), rows, twins=twins))


def test_an_average_that_solves_more_is_reproduced_and_the_best_one_is_chosen_elsewhere():
    rows = made_up({"last": 0.6, "average": 0.8, "checkpoint 1": 0.5, "checkpoint 2": 0.79})
    last, best = judged(rows)
    table = rows.pivot_table("solved", "problem", "variant")
    assert last.verdict == "reproduced" and last.number.value == pytest.approx((table.average - table["last"]).mean())
    assert "checkpoint 2" in best.statement and best.number.n == 200 and best.verdict != "reproduced" and not best.primary
    assert judged(rows, [{"averaging.last": Number(0.3, 0.2, 0.4, 400)}])[0].verdict == "undecided"


def test_ten_checkpoints_stand_in_their_order_of_training():
    names = ["last", "average", *(f"checkpoint {n}" for n in range(1, 11))]
    rows = made_up(dict.fromkeys(names, 0.5), items=3)
    assert list(by_variant(rows, "solved")) == names
    assert list(by_variant(rows[rows.variant != "average"], "moved"))[2:] == names[2:]


def test_an_average_that_solves_as_many_is_refuted_and_one_without_room_not_testable():
    assert judged(made_up({"last": 0.7, "average": 0.7, "checkpoint 1": 0.5}))[0].verdict == "refuted"
    assert judged(made_up({"last": 0.99, "average": 1.0, "checkpoint 1": 0.5}))[0].verdict == "not testable"


def test_the_size_that_papers_use_is_priced_by_a_call_of_the_model_itself(tmp_path):
    """The last of three checkpoints, the mean and the two others on all 500 items. A variant's weights lie packed: priced by a
    product of its width, which no block beats, it had a sixth of the time."""
    config = AveragingConfig(model="organism:seed1", checkpoints=("organism:young", "organism:seed2"), items=125)
    found = forecast("averaging", config, tmp_path)
    (line,) = found.plan.lines
    assert line.runs == 4 * 500 and found.plan.blocks == 2000 * 10 * 8  # steps, blocks
    assert found.pace.how == "one timed call; transformers alone" and found.seconds > 0
