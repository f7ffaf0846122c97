"""``cos analyze probes`` and ``cos probe``, end to end and small."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from support import build_tiny, tiny_call
from typer.testing import CliRunner

from cos_interp import cli
from cos_interp.analyses.driver.experiment import run_and_report
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.probing import ProbesConfig
from cos_interp.analyses.probing.findings import Depth, order_findings, use_findings
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.errors import InterpError
from cos_interp.probes.roles import Role

SMALL = {
    "tasks": ("maze",), "items": 5, "num_inference_steps": 2, "layers": (1, 4), "probe_tokens": 10, "folds": 2, "used_items": 1,
    "targets": ("first_class", "on_path", "hidden_identity"), "views": False,
}  # fmt: skip


def small_run(model, folder, **more):
    return run_and_report(load("probes"), ProbesConfig(**SMALL | more), folder, model=model, workers=1)


def test_the_experiment_on_the_organism(organism, tmp_path):
    result, report = small_run(organism, tmp_path / "run", items=20)
    rows = result.rows
    scores = rows[rows.table == "score"]
    assert len(scores) == 2 * 2 * 2 and set(scores.layer) == {1, 4} and set(scores.step) == {0, 1}
    assert {"majority", "shuffled", "control", "selectivity", "x_t", "first frame", "position", "sigma"} <= set(scores)
    assert (scores.groupby("target").low.max() > scores.groupby("target").majority.max()).all()  # of 20 clips, by the interval
    use = rows[rows.table == "use"]
    assert set(use.edit) == {"none", "erase", "leace", "steer", "erase, random", "leace, random", "steer, random"}
    assert set(use.problem) == {"maze-020"} and (use[use.edit == "leace"].moved > 0).all()  # an item that no probe has seen
    assert any("hidden_identity" in note for note in report.data["notes"])
    assert result.units["transfer-on_path"].axes["matrix"] == ("train cell", "test cell")
    assert RunStore(tmp_path / "run").verify() == []
    page = (tmp_path / "run/report.html").read_text()
    assert "Is it used?" in page and "Selectivity" in page and "sigma" in page


@pytest.mark.slow
def test_an_untrained_model_knows_no_path(tmp_path):
    from cos_interp.organism.package import untrained_twin
    from cos_interp.organism.shapes import CALL_DEFAULTS

    twin = HookedVideoPipeline(untrained_twin(), "untrained", CALL_DEFAULTS)
    result, _ = small_run(twin, tmp_path / "run", targets=("on_path",), items=16, used_items=0, layers=(4,))
    scores = result.rows[result.rows.table == "score"]
    inputs = scores[["x_t", "first frame", "position", "majority"]].max(axis=1)
    assert (scores.low < inputs + 0.05).all()


def test_own_prompts_on_another_family_without_a_verifier(tmp_path):
    call = tiny_call("wan21-t2v")
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in ("a ball", "a box", "a door", "a cat")))
    model = HookedVideoPipeline(build_tiny("wan21-t2v"), "tiny", {k: v for k, v in call.items() if k != "prompt"})
    result, report = small_run(model, tmp_path / "run", prompts=str(tmp_path / "p.jsonl"), layers=(0, 2), guidance_scale=3.0)
    scores = result.rows[result.rows.table == "score"]
    assert set(scores.target) == {"final_latent"} and set(scores.kind) == {"ridge"} and len(scores) == 4
    assert "use" not in set(result.rows.table) and RunStore(tmp_path / "run").verify() == []
    with pytest.raises(InterpError, match="layers 0 to 2"):
        small_run(model, tmp_path / "other", prompts=str(tmp_path / "p.jsonl"), layers=(7,))


def _depth(family, layer, spread=0.1):
    drawn = np.random.default_rng(0).normal(layer, spread, 400)
    made = Role(family, family, (0, 0), (1, 1), 0.9, 0.8, 1.0, 0.5, layer, drawn)
    return Depth(made, 2.0, np.random.default_rng(1).normal(2, 1, 400), 20)


def test_the_order_in_depth_is_judged_by_its_interval():
    planted = order_findings([_depth("perception", 1.0), _depth("reasoning", 4.0), _depth("consolidation", 3.0)])
    assert [f.verdict for f in planted] == ["reproduced", "refuted"]
    assert planted[0].number.value == 3 and planted[0].control.low <= 0 <= planted[0].control.high
    vague = order_findings([_depth("perception", 2.0, 3.0), Depth(_depth("reasoning", 2.0).role, 2.0, np.full(400, np.nan), 20)])
    assert [f.verdict for f in vague] == ["undecided"]


def test_a_probe_that_decodes_but_does_not_matter_is_visible():
    def rows(target, leace, random=1.0):
        score = {"none": 1.0, "leace": leace, "leace, random": random}
        return [
            {"target": target, "name": "b", "problem": f"p{i}", "edit": e, "score": s} for i in range(8) for e, s in score.items()
        ]

    used, idle, drowned = use_findings(pd.DataFrame(rows("used", 0.0) + rows("idle", 1.0) + rows("drowned", 0.0, 0.0)))
    assert drowned.verdict == "not testable"  # any change of that size loses everything
    assert used.verdict == "reproduced" and used.number.value == 1 and used.control.value == 0
    assert idle.verdict == "undecided" and idle.number.value == 0


def cos(*args):
    return CliRunner().invoke(cli.app, ["probe", *map(str, args)])


def test_the_commands(tmp_path):
    folder = tmp_path / "probes" / "first"
    options = ["--tasks", "maze", "--num-steps", 2]
    done = cos("train", "--target", "first_class", "--out", folder, "--items", 4, "--layers", "3", "--steps", "1", "--folds", 2,
               "--kind", "ridge-classifier", *options)  # fmt: skip
    assert done.exit_code == 0 and "best: layer 3, step 1" in done.stdout and "first frame" in done.stdout
    listed = json.loads(cos("list", tmp_path, "--json").stdout)
    assert listed[0]["target"] == "first_class" and listed[0]["probes"] == 1
    assert "model: name organism" in cos("show", folder).stdout
    tested = json.loads(cos("eval", folder, "--items", 2, "--json", *options).stdout)
    assert tested[0]["n_clips"] == 2 and tested[0]["score"] > 0.3
    seen = cos("eval", folder, "--items", 2, "--skip", 2, *options)
    assert "were trained on" in str(seen.exception)
    made = cos("apply", folder, "--out", tmp_path / "o.mp4", "--item", 5, "--num-steps", 2)
    assert made.exit_code == 0 and "tokens right" in made.stdout

    from cos_interp.tasks.video import read_mp4

    frames = read_mp4(tmp_path / "o.mp4")
    assert len(frames) == 9 and frames.shape[2] == 2 * frames.shape[1]
    assert "cell_class" in cos("targets").stdout
    assert "no probes below" in cos("list", tmp_path / "nothing").stdout
