"""``cos analyze probes`` and ``cos probe``, end to end and small."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from support import build_tiny, tiny_call
from typer.testing import CliRunner

from cos_interp import cli
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import run_and_report
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.pairs import Pair, Recorder, find_pair
from cos_interp.analyses.probing import ProbesConfig
from cos_interp.analyses.probing.findings import Depth, decided_at, order_findings, selectivity, use_findings
from cos_interp.analyses.probing.following import followed
from cos_interp.analyses.probing.report import small_clips
from cos_interp.analyses.probing.use import Reader, changed, edited, exchanged, kind_of, steps_of_span, told
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.errors import InterpError
from cos_interp.interp.files import read_sealed_json, sealed_json
from cos_interp.probes.targets import resolve
from cos_interp.probes.use import mean_ablation
from cos_interp.tasks import TASKS, grid
from cos_interp.tasks.video import encode_mp4, read_mp4

SMALL = {
    "num_inference_steps": 2, "layers": (1, 4), "probe_tokens": 10, "folds": 2, "used_items": 1,
    "targets": ("first_class", "on_path", "hidden_identity"), "views": False, "used_doses": (1.0,),
}  # fmt: skip


def small_run(model, folder, **more):
    of_items = {} if "prompts" in more else {"tasks": ("maze",), "items": 5}
    return run_and_report(load("probes"), ProbesConfig(**SMALL | of_items | more), folder, model=model, workers=1)


def test_the_experiment_on_the_organism(organism, tmp_path):
    result, report = small_run(organism, tmp_path / "run", items=16, num_inference_steps=4)
    rows = result.rows
    scores = rows[rows.table == "score"]
    assert len(scores) == 2 * 2 * 4 and set(scores.layer) == {1, 4} and set(scores.step) == {0, 1, 2, 3}
    assert {"majority", "shuffled", "control", "selectivity", "x_t", "first frame", "position", "sigma"} <= set(scores)
    assert (scores.groupby("target").low.max() > scores.groupby("target").majority.max()).all()  # of 20 clips, by the interval
    use = rows[rows.table == "use"]
    assert set(use.edit) == {"none", "own", "random"} and set(use.dose) == {0.0, 1.0}
    assert (use[use.edit != "none"].moved > 0).all() and (use[use.edit == "none"].outcome == "target").all()
    assert {f["key"] for f in report.data["findings"]} == {
        "probes.perception-first",
        "probes.use-perception",
        "probes.use-reasoning",
    }
    assert any("hidden_identity" in note for note in report.data["notes"])
    (small,) = small_clips(RunStore(tmp_path / "run"), [unit for unit in result.units if unit.startswith("clip-")])
    assert sorted(row.at["clip"] for row in small.rows) == sorted(rows[rows.table == "clip"].problem) and small.looked_up
    assert small.clips.shape == (16, 5, 40, 40, 3) and small.clips.std((1, 2, 3, 4)).min() > 0
    assert result.units["transfer-on_path"].axes["matrix"] == ("train cell", "test cell")
    assert RunStore(tmp_path / "run").verify() == []
    page = (tmp_path / "run/report.html").read_text()
    assert "Is it used?" in page and "Selectivity" in page and "sigma" in page
    first, _ = page.split('<section id="evidence"')
    assert "perception: first_class, mean layer 0." in first and "(n = 16)" in first


@pytest.mark.slow
def test_a_twin_knows_no_path_and_uses_none(organism, tmp_path, monkeypatch):
    from cos_interp.analyses.driver.twins import twin_of
    from cos_interp.analyses.kit import pairs

    monkeypatch.setattr(pairs, "TRIES", 2)
    targets = ("on_path", "first_class", "final_class")
    result, report = small_run(twin_of(organism, 3), tmp_path / "run", targets=targets, items=24, layers=(1, 4, 6))
    assert "reproduced" not in {f["verdict"] for f in report.data["findings"]}
    scores = result.rows[(result.rows.table == "score") & (result.rows.target == "on_path")]
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


LAYERS = 8


def depth(family: str, readable: list[float], position: float = 0.0, clips: int = 24, first: int = 0) -> Depth:
    """Confusions of two classes at two steps, 20 tokens a class and clip: right with 0.5 + ``readable`` by layer, and random
    labels by position with 0.5 + ``position``."""
    rng = np.random.default_rng([len(family), first])

    def tally(more: list[float]) -> np.ndarray:
        right = rng.binomial(20, np.broadcast_to(0.5 + np.array(more)[:, None, None], (clips, LAYERS, 2, 2)))
        out = np.stack([right, 20 - right], -1)
        out[..., 1, :] = out[..., 1, ::-1]
        return out

    return Depth(f"{family} target", family, tally(readable), tally([position] * LAYERS), tuple(range(first, first + clips)))


EARLY, LATE = [0.4, 0.4, 0.3, 0.1, 0, 0, 0, 0], [0, 0, 0, 0, 0.1, 0.3, 0.4, 0.4]


def ordered(*found: Depth) -> list:
    return order_findings(AnalysisResult("probes", ProbesConfig(), pd.DataFrame()), found)


def test_the_order_in_depth_is_found_where_it_was_planted():
    first, then = ordered(depth("perception", EARLY), depth("reasoning", LATE), depth("consolidation", EARLY))
    assert [(f.key, f.verdict) for f in (first, then)] == [
        ("probes.perception-first", "reproduced"), ("probes.reasoning-first", "refuted"),
    ]  # fmt: skip
    middle = [0, 0, 0.1, 0.4, 0.4, 0.1, 0, 0]
    assert [f.verdict for f in ordered(depth("perception", EARLY), depth("reasoning", middle), depth("consolidation", LATE))] == [
        "reproduced", "reproduced",
    ]  # fmt: skip
    (same,) = ordered(depth("perception", EARLY), depth("reasoning", EARLY))
    assert same.verdict == "refuted" and abs(same.number.value) < 0.05


def test_the_order_by_hand_on_the_clips_that_both_have():
    a, b = depth("perception", EARLY, clips=30), depth("reasoning", LATE, clips=30, first=8)
    (found,) = ordered(a, b)

    def middle(part: Depth, clips: slice) -> float:
        made = []
        for tally in (part.score[clips], part.control[clips]):
            summed = tally.sum(0)
            recall = np.stack([summed[..., c, c] / summed[..., c, :].sum(-1) for c in (0, 1)], -1)
            made.append(recall.mean(-1).mean(-1))
        weight = np.clip(made[0] - made[1], 0, None)
        return float((weight * np.arange(LAYERS) / (LAYERS - 1)).sum() / weight.sum())

    assert found.number.n == 22
    assert found.number.value == pytest.approx(middle(b, slice(0, 22)) - middle(a, slice(8, 30)))


def test_what_the_position_gives_away_is_subtracted():
    """The target is read late, but so, as well, are labels by position: nothing is left of it to have a place in depth."""
    by_position = depth("reasoning", LATE)
    shadow = Depth(by_position.target, "reasoning", by_position.score, by_position.score, by_position.clips)
    (found,) = ordered(depth("perception", EARLY), shadow)
    assert found.verdict == "not testable" and "no" in found.why and (selectivity(shadow) == 0).all()
    (given,) = ordered(depth("perception", EARLY), replace(depth("reasoning", LATE), gain=0.04))
    assert given.verdict == "not testable" and "from what goes in" in given.why
    (nothing,) = ordered(depth("perception", EARLY), depth("reasoning", [0.0] * LAYERS))
    assert nothing.verdict != "reproduced"  # shuffled labels


def test_few_clips_have_no_order():
    assert ordered(depth("perception", EARLY, 0, 19), depth("reasoning", LATE, 0, 19))[0].verdict == "not testable"
    assert ordered(depth("perception", EARLY), depth("reasoning", LATE, first=100))[0].number.n == 0


def exchanges(
    own: float, random: float = 0.0, kept: float = 1.0, read: float = 1.0, pairs: int = 16, far: float = 0.0
) -> pd.DataFrame:
    """Rows of pairs: how much of the other's answer is shown at dose 1 (at dose 2 ``far`` more of both), by how many the random
    exchange leaves the answer (dose 2: by none), and how many of the tokens the probe reads right."""
    about = {"target": "on_path", "name": "blocks.4.hook_resid_post", "tokens": 20, "told": read}
    return pd.DataFrame([
        {
            **about, "problem": f"p{i}", "edit": edit, "dose": dose,
            "donor_shown": value + (far if dose == 2 else 0) + (0.01 * (i % 4) if edit == "own" else 0.0),
            "outcome": "target" if edit == "none" or (dose == 1 and i < kept * pairs) else "undecided",
        }
        for i in range(pairs)
        for edit, dose, value in (("none", 0, 0), ("own", 1, own), ("random", 1, random), ("own", 2, own), ("random", 2, random))
    ])  # fmt: skip


def used(rows: pd.DataFrame):
    (found,) = use_findings(AnalysisResult("probes", ProbesConfig(), pd.DataFrame()), rows, {"on_path": "reasoning"})
    return found


def test_a_probe_that_decodes_but_does_not_matter_is_visible():
    found = used(exchanges(own=0.8, random=0.1))
    assert found.key == "probes.use-reasoning" and found.verdict == "reproduced"
    assert found.number.value == pytest.approx(0.7 + np.mean([0.01 * (i % 4) for i in range(16)])) and found.control.value == 0.1
    assert used(exchanges(own=0.0)).verdict == "refuted"
    assert used(exchanges(own=0.8, random=0.8)).verdict == "refuted"  # any change of that size does it
    assert used(exchanges(own=0.8, pairs=11)).verdict == "not testable"


def test_a_family_without_a_pair_has_no_item():
    """As of a twin, which solves none."""
    result = AnalysisResult("probes", ProbesConfig(), pd.DataFrame())
    asked = {"first_class": "perception", "on_path": "reasoning", "next_direction": "reasoning"}
    perception, reasoning = use_findings(result, exchanges(own=0.8), asked)
    assert perception.key == "probes.use-perception" and perception.why == "no item is eligible" and reasoning.number.n == 16
    assert [f.number.n for f in use_findings(result, pd.DataFrame(), asked)] == [0, 0]


def test_the_dose_is_the_whole_or_the_largest_that_the_control_survives():
    assert decided_at({0.5: 0.95, 1.0: 0.9, 2.0: 0.85}) == 1.0 and decided_at({0.5: 0.9, 1.0: 0.8}) == 0.5
    assert decided_at({1.0: 0.8}) is None and decided_at({2.0: 0.9}) is None
    far = used(exchanges(own=0.0, far=0.9))  # at dose 2 there would be an effect, where the control leaves nothing
    assert far.verdict == "refuted" and "dose 1 " in far.statement
    drowned = used(exchanges(own=0.8, kept=0.5))
    assert drowned.verdict == "not testable" and "loses the answer" in drowned.why


def test_a_part_of_an_exchange_shows_use_and_refutes_none():
    half = {1: 0.5, 2: 1}
    nothing, much = (used(exchanges(own=own).replace({"dose": half})) for own in (0.0, 0.8))
    assert nothing.verdict == "not testable" and "survives dose 0.5 only" in nothing.why and much.verdict == "reproduced"


def test_pairs_count_that_the_probe_has_told_apart():
    misread = exchanges(own=0.0, pairs=10).assign(told=0.5).replace({"problem": {f"p{i}": f"q{i}" for i in range(10)}})
    assert used(pd.concat([exchanges(own=0.8), misread])).number.n == 16
    nothing = used(exchanges(own=0.8, read=0.4))
    assert nothing.verdict == "not testable" and "none of 16 pairs" in nothing.why


class Planted:
    """A probe that reads one coordinate: above 0 is class 1."""

    def __init__(self, direction: np.ndarray):
        self.direction = direction

    def predict(self, X: np.ndarray) -> np.ndarray:
        return (X @ self.direction > 0).astype(int)


@pytest.fixture
def recorded(organism):
    config = ProbesConfig(num_inference_steps=4, used_doses=(1.0,))
    return config, find_pair(Recorder(organism, config, ["blocks.4.hook_resid_post"]), "maze", "prompt", 0, unique=True)


def test_an_exchange_between_runs_and_its_placebo(organism, recorded):
    """What is exchanged is what the labels differ in; a run as its own donor stays what it is, to the bit."""
    config, pair = recorded
    target, name = resolve(["on_path"])[0], "blocks.4.hook_resid_post"
    exchange = exchanged(organism, target, pair)
    routes = [side.item.answer.split(">") for side in (pair.corrupt, pair.clean)]
    assert int(exchange.tokens.sum()) == 5 * len(set(routes[0]) ^ set(routes[1])) > 0
    rng = np.random.default_rng(0)
    direction = rng.normal(size=128) / np.sqrt(128)
    direction /= np.linalg.norm(direction)
    along = mean_ablation(direction[None], np.zeros(128))
    planted = {k: Planted(direction) for k in range(4)}
    reader = Reader(target, name, planted, dict.fromkeys(planted, along), rng.normal(size=(300, 128)))
    rows = list(edited(organism, config, reader, exchange, seed=0))
    assert [(r["edit"], r["dose"]) for r in rows] == [("none", 0.0), ("own", 1.0), ("random", 1.0)]
    assert rows[0]["moved"] == rows[0]["effect"] == 0 and rows[0]["outcome"] == "target" and rows[1]["moved"] > 0
    assert rows[0]["donor_shown"] < 0.1 and rows[0]["target_shown"] > 0.9
    alone = exchanged(organism, target, Pair("prompt", pair.corrupt, pair.corrupt))
    assert not alone.tokens.any() and np.isnan(told(reader, alone))
    assert [r["edit"] for r in edited(organism, config, reader, alone, seed=0)] == ["none"]
    act, hook = pair.corrupt.recording.cache[name, 1, "cond"], type("H", (), {"step": 1, "branch": "cond"})
    same = type(exchange)(Pair("prompt", pair.corrupt, pair.corrupt), exchange.labels, exchange.tokens)
    assert all(torch.equal(changed(reader, same, r, 1.0, act, hook), act) for r in (None, reader.random(0)))
    given = pair.clean.recording.cache[name, 1, "cond"]
    at = lambda a: (a.double() @ torch.from_numpy(direction))[0][exchange.tokens]
    assert torch.allclose(at(changed(reader, exchange, None, 1.0, act, hook)), at(given), atol=1e-5)


def test_told_is_the_share_of_tokens_that_are_right_in_both_runs(organism, recorded):
    _, pair = recorded
    target, name = resolve(["on_path"])[0], "blocks.4.hook_resid_post"
    exchange = exchanged(organism, target, pair)
    reader = Reader(target, name, {k: Planted(np.eye(128)[k]) for k in range(4)}, {}, np.zeros((2, 128)))
    by_hand = []
    for step in steps_of_span(4):
        both = True
        for side, labels in zip((pair.corrupt, pair.clean), exchange.labels):
            values = side.recording.cache[name, step, "cond"][0, ..., step].numpy()[exchange.tokens.numpy()]
            both = both & ((values > 0) == labels[exchange.tokens.numpy()].astype(bool))
        by_hand.append(both.mean())
    assert told(reader, exchange) == pytest.approx(np.mean(by_hand)) and list(steps_of_span(4)) == [0, 1, 2]
    assert [kind_of(resolve([t])[0]) for t in ("first_class", "on_path", "final_class")] == ["image", "prompt", "prompt"]


def test_a_token_is_followed_to_where_its_key_is():
    shape, heads, width = (3, 2, 2), 2, 8
    codes = 9 * torch.eye(width)[:4]  # of four things, one in each cell
    places = [[0, 1, 2, 3], [1, 0, 3, 2], [3, 3, 3, 0]]  # which thing is where, by frame
    tokens = torch.cat([codes[row] for row in places]).expand(heads, -1, -1)
    found = followed(tokens, tokens, shape, (0, 0))
    assert [(at.frame, at.row, at.col) for at in found] == [(0, 0, 0), (1, 0, 1), (2, 1, 1)]
    assert [at.others for at in found[:2]] == [0, 0]
    same = followed(tokens, tokens[:, :1].expand(-1, 12, -1), shape, (0, 0))  # keys that tell nothing apart
    assert all(at.others == 1 for at in same)


def cos(*args):
    return CliRunner().invoke(cli.app, ["probe", *map(str, args)])


def test_the_commands(tmp_path, organism):
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
    card = read_sealed_json((folder / "card.json").read_bytes())
    (tmp_path / "probes" / "none").mkdir()
    shutil.copy(folder / "probes.safetensors", tmp_path / "probes" / "none")
    nothing = {"score": None, "low": None, "high": None}  # NaN, where no fold has both classes
    (tmp_path / "probes" / "none" / "card.json").write_bytes(sealed_json({**card, "scores": [{**card["scores"][0], **nothing}]}))
    assert "best no score at layer 3, step 1" in cos("list", tmp_path).stdout
    assert "no score" in cos("show", tmp_path / "probes" / "none").stdout
    assert "nan at training" in cos("eval", tmp_path / "probes" / "none", "--items", 2, *options).stdout
    level = {}
    for steps in (2, 3):
        scheduler = type(organism.pipe.scheduler).from_config(organism.pipe.scheduler.config)
        scheduler.set_timesteps(steps)
        level[steps] = f"{float(scheduler.sigmas[1]):.3f}"
    for command in (("eval", folder, "--items", 1, "--tasks", "maze"), ("apply", folder, "--out", tmp_path / "no.mp4")):
        other = cos(*command, "--num-steps", 3)  # its step 1 is another noise level
        assert f"step 1 has sigma {level[3]} here, and the probes were trained at {level[2]}" in str(other.exception)
    assert level[2] != level[3] and not (tmp_path / "no.mp4").exists()
    alone = cos("eval", folder, "--items", 1, *options)
    assert alone.exit_code == 0 and "nan" not in alone.stdout and "on 1 clips" in alone.stdout
    made = cos("apply", folder, "--out", tmp_path / "o.mp4", "--item", 5, "--num-steps", 2)
    assert made.exit_code == 0 and "tokens right" in made.stdout

    frames = read_mp4(tmp_path / "o.mp4")
    assert len(frames) == 9 and frames.shape[2] == 2 * frames.shape[1]
    item = TASKS["bounce"].sample(3, split="test")
    (tmp_path / "clip.mp4").write_bytes(encode_mp4(grid.render(item.cells)))  # twice as large as the model's own
    clip = ("apply", folder, "--out", tmp_path / "c.mp4", "--video", tmp_path / "clip.mp4", "--num-steps", 2)
    facts = json.loads(cos(*clip, "--prompt", item.prompt, "--json").stdout)
    assert 0 < facts["round trip error"] < 0.1 and "tokens right" not in facts
    assert facts["clip"] == "9 of 9 frames, 160 x 160 as 80 x 80; 4 frames a second"  # as the own commands show nine frames
    assert read_mp4(tmp_path / "c.mp4").shape == frames.shape
    assert "video and prompt belong together" in str(cos(*clip).exception)
    track = ("follow", *clip[4:], "--out", tmp_path / "t.mp4", "--prompt", item.prompt, "--layer", 2, "--step", 1)
    facts = json.loads(cos(*track, "--cell", "1,2", "--json").stdout)
    assert facts["clip"].startswith("9 of 9 frames")
    assert [at["frame"] for at in facts["track"]] == list(range(5)) and read_mp4(tmp_path / "t.mp4").shape == frames.shape
    assert "a frame of this clip has 5 x 5 tokens" in str(cos(*track, "--cell", "5,0").exception)
    assert "cell_class" in cos("targets").stdout
    assert "no probes below" in cos("list", tmp_path / "nothing").stdout
