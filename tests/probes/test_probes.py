"""Probes on planted data: found where the feature is and nowhere before, and every usual mistake is caught."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import check_estimator

from cos_interp.interp.files import sealed_json
from cos_interp.interp.views import pixel_to_latent
from cos_interp.probes import LinearProbe, ProbeDataset, ProbeError, ProbeGrid, Target, out_of_fold, pca, strength, umap
from cos_interp.probes.clip import ClipData
from cos_interp.probes.crossval import Question, ask, majority
from cos_interp.probes.dataset import assemble
from cos_interp.probes.estimator import KINDS
from cos_interp.probes.overlay import overlay
from cos_interp.probes.persistence import read_card
from cos_interp.probes.roles import centre, role
from cos_interp.probes.scoring import balanced_accuracy, class_tally, interval, r_squared, value_tally
from cos_interp.probes.splits import control_labels, grouped, shuffled
from cos_interp.probes.streaming import fit_stream
from cos_interp.probes.targets import REGRESS, register, resolve
from cos_interp.probes.transfer import sample_sizes, task_transfer, temporal_generalisation
from cos_interp.probes.use import (
    ENOUGH,
    by_step,
    erase,
    interchange,
    is_it_used,
    leace,
    matched_control,
    mean_ablation,
    random_erasure,
    steer,
)  # fmt: skip
from cos_interp.probes.views import view

LAYERS, STEPS, WIDTH, GRID = 3, (0, 4, 9), 16, (2, 2, 2)
CLASSES = tuple(k for k in KINDS if k != "ridge")
POSITION = np.stack(np.unravel_index(np.arange(8), GRID), 1)


def planted(
    clips: int = 24, layer: int = 1, step: int = 1, leak: float = 0.0, constant: bool = False, seed: int = 0
) -> ProbeDataset:
    """Random activations; from ``layer`` and step number ``step`` on, a direction carries the binary label ``on``.

    ``leak``: every clip has an offset of its own at all layers; ``constant``: one random label a clip instead of by token.
    """
    rng = np.random.default_rng(0)
    direction = np.eye(WIDTH)[3]
    made = []
    for clip in range(clips):
        on = np.full(8, clip % 2) if constant else rng.integers(0, 2, 8)
        offset = leak * rng.standard_normal(WIDTH)
        acts = {}
        for i in range(LAYERS):
            act = rng.standard_normal((len(STEPS), 8, WIDTH)) + offset
            if i >= layer:
                act[step:] += 4 * (on - 0.5)[:, None] * direction
            acts[f"blocks.{i}.hook_resid_post"] = act.astype(np.float32)
        labels = {"on": on, "value": acts["blocks.2.hook_resid_post"][0, :, :2].astype(float) * 2 + 1, "same": np.zeros(8, int)}
        x_t = rng.standard_normal((len(STEPS), 8, 4)).astype(np.float32)
        made.append(ClipData(f"c{clip}", "ab"[clip // 2 % 2], acts, labels, x_t, x_t[0], POSITION, STEPS, (1.0, 0.8, 0.3), GRID))
    targets = [
        Target("on", "reasoning", "", lambda clip: None, names=("off", "on")),
        Target("value", "consolidation", "", lambda clip: None, form=REGRESS),
        Target("same", "perception", "", lambda clip: None),
    ]
    return assemble(made, clips, targets)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_scikit_learns_own_checks_pass(kind):
    found = check_estimator(LinearProbe(kind), on_fail=None)
    failed = {r["check_name"]: str(r["exception"]) for r in found if r["status"] == "failed"}
    assert not failed and len(found) > 40


@pytest.mark.parametrize("kind", CLASSES)
def test_a_planted_feature_is_found_there_and_nowhere_before(kind):
    grid = ProbeGrid("on", kind, folds=4, strength=1.0).fit(planted(), refit=False)
    for row in grid.scores.itertuples():
        there = row.layer >= 1 and row.step >= 4
        assert (row.low > 0.85) if there else (row.low < 0.5 + 0.08 and row.score < 0.62), row
        assert abs(row.shuffled - 0.5) < 0.14 and abs(row.control - 0.5) < 0.2
    first = role(grid.scores).first
    assert first == (1, 4)


def test_shuffled_labels_give_chance():
    data = planted(40)
    question = ask(data, "on", 5)
    X, _ = data.xy("on", layer=2, step=9)
    noise = shuffled(question.y, question.clip)
    assert sorted(noise) == sorted(question.y)
    scores = [LinearProbe().fit(X[a], noise[a]).score(X[b], noise[b]) for a, b in question.splits]
    assert abs(np.mean(scores) - 0.5) < 0.1


def test_a_label_that_leaks_through_the_clip_is_caught():
    data = planted(24, layer=9, leak=5.0, constant=True)
    X, y = data.xy("on", layer=0, step=0)
    ungrouped = cross_val_score(LinearProbe(strength=1.0), X, y, cv=KFold(4, shuffle=True, random_state=0)).mean()
    grid = ProbeGrid("on", folds=4, strength=1.0).fit(data, steps=[0], refit=False)
    assert ungrouped > 0.9  # looks like knowledge, is clip identity
    assert (grid.scores.score < 0.75).all() and (grid.scores.low < 0.5).all()


def test_splits_keep_clips_whole_and_controls_mean_nothing():
    clip, y = np.repeat(np.arange(12), 8), np.tile([0, 1], 48)
    for train, test in grouped(y, clip, 4):
        assert not set(clip[train]) & set(clip[test])
    per_clip = np.repeat(np.arange(12) % 3, 8)
    mixed = shuffled(per_clip, clip)
    assert all(len(set(mixed[clip == c])) == 1 for c in range(12)) and sorted(mixed) == sorted(per_clip)
    control = control_labels(y, np.tile(POSITION, (12, 1)))
    assert all(len(set(control[i::8])) == 1 for i in range(8)) and set(control) == {0, 1}


def test_out_of_fold_predictions_of_plain_arrays():
    data = planted(24)
    X, y = data.xy("on", layer=2, step=9)
    right = out_of_fold(LinearProbe(strength=1.0), X, y, data.groups("on"), folds=4) == y
    assert right.mean() > 0.9
    nothing = out_of_fold(LinearProbe(strength=1.0), X, shuffled(y, data.groups("on")), data.groups("on"), folds=4) == y
    assert nothing.mean() < 0.65
    with pytest.raises(ProbeError, match="24 clips are fewer than 25 folds"):
        out_of_fold(LinearProbe(), X, y, data.groups("on"), folds=25)


def test_scores_by_hand():
    y, said, clip = np.array([0, 0, 0, 1, 1, 0]), np.array([0, 0, 1, 1, 0, 0]), np.array([5, 5, 5, 5, 9, 9])
    tally = class_tally(y, said, clip, np.array([5, 9]), np.array([0, 1]))
    assert tally.tolist() == [[[2, 1], [0, 1]], [[1, 0], [1, 0]]]
    assert float(balanced_accuracy(tally.sum(0))) == pytest.approx((3 / 4 + 1 / 2) / 2)
    values = np.array([1.0, 2.0, 4.0])
    assert float(r_squared(value_tally(values, values, np.zeros(3), np.array([0])).sum(0))) == 1
    assert float(r_squared(value_tally(values, np.full(3, 7 / 3), np.zeros(3), np.array([0])).sum(0))) == pytest.approx(0)
    value, low, high = interval(np.array([[[4, 0], [0, 4]]] * 6))
    assert value == low == high == 1
    assert np.isnan(interval(tally[:1])[1])
    assert centre(np.array([0.0, 0.0, 0.4])) == 1 and np.isnan(centre(np.array([0.0, -0.1])))
    assert centre(np.array([0.2, -0.3, 0.6])) == pytest.approx(0.75)  # 0.2 at the first, 0.6 at the last, below 0 is nothing


def test_the_majority_is_that_of_the_training_part():
    """Three clips, each left out in turn: clip 0 is all 1, the others all 0, so that clip 0 is always guessed wrong."""
    clip, y = np.repeat([0, 1, 2], 4), np.repeat([1, 0, 0], 4)
    splits = [(np.flatnonzero(clip != c), np.flatnonzero(clip == c)) for c in range(3)]
    question = Question("t", np.arange(12), y, clip, np.arange(3), np.array([0, 1]), splits, y, y)
    right = np.zeros((3, 2, 2), int)
    right[0, 1, 0] = 4  # of clip 0 its ones are said to be 0
    right[1] = right[2] = [[4, 0], [0, 0]]  # a tie in training, and the first class is taken
    assert majority(question).tolist() == right.tolist()


@pytest.mark.parametrize("strength", [0.1, 30.0])
def test_the_penalty_is_scikit_learns(strength):
    X, y = planted().xy("on", layer=2, step=9)
    X = X + 2  # scaling takes a mean away, which the intercept must give back
    own = {"logistic": LogisticRegression(C=1 / strength, class_weight="balanced", max_iter=1000),
           "ridge-classifier": RidgeClassifier(alpha=strength, class_weight="balanced"),
           "linear-svm": LinearSVC(C=1 / strength, class_weight="balanced", random_state=0, max_iter=5000)}  # fmt: skip
    for kind, estimator in own.items():
        right = make_pipeline(StandardScaler(), estimator).fit(X.astype(float), y).decision_function(X.astype(float))
        np.testing.assert_allclose(LinearProbe(kind, strength=strength).fit(X, y).decision_function(X), right, atol=1e-3)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_mean_difference_names_the_nearest_mean(classes):
    X = np.random.default_rng(0).normal(5, 2, (60, 4))
    y = np.arange(60) % classes
    means = np.stack([X[y == c].mean(0) for c in range(classes)])
    right = ((X[:, None] - means[None]) ** 2).sum(-1).argmin(1)
    assert np.array_equal(LinearProbe("mean-difference").fit(X, y).predict(X), right)


def test_no_clip_is_predicted_by_a_probe_that_has_seen_it():
    """Labels without meaning and more units than rows: what was seen is always known, what was not is a guess."""
    rng = np.random.default_rng(0)
    X, y, clip = rng.standard_normal((60, 200)), np.tile([0, 1], 30), np.repeat(np.arange(20), 3)
    assert LinearProbe(strength=1.0).fit(X, y).score(X, y) == 1
    assert (out_of_fold(LinearProbe(strength=1.0), X, y, clip, folds=4) == y).mean() < 0.75


def test_the_penalty_is_chosen_on_whole_clips(monkeypatch):
    X, y = planted().xy("on", layer=2, step=9)
    clip, seen = planted().groups("on"), []
    monkeypatch.setattr(strength, "_held_out", lambda recipe, X, y, train, test, penalty: seen.append((train, test)) or penalty)
    assert LinearProbe(inner=3).fit(X, y, clip).strength_ == max(strength.STRENGTHS)  # the one with the best score
    assert len(seen) == 3 * len(strength.STRENGTHS)
    assert not any(set(clip[train]) & set(clip[test]) for train, test in seen)


def test_it_is_a_scikit_learn_estimator():
    X, y = planted().xy("on", layer=2, step=9)
    search = GridSearchCV(LinearProbe("ridge-classifier"), {"strength": [1.0, 10.0]}, cv=3).fit(X, y)
    assert search.best_score_ > 0.85
    assert clone(LinearProbe("linear-svm", strength=3.0)).get_params()["strength"] == 3.0
    probe = LinearProbe().fit(X, y)
    assert abs(probe.direction()[3]) > 0.9 and np.allclose(probe.direction(0), -probe.direction(1))


@pytest.mark.parametrize("kind", KINDS)
def test_saved_exported_and_streamed_probes_predict_alike(kind, tmp_path):
    data = planted()
    target = "value" if kind == "ridge" else "on"
    grid = ProbeGrid(target, kind, folds=3, controls=False, strength=1.0).fit(data, steps=[9], names=data.names[2:])
    X, y = data.xy(target, layer=2, step=9)
    probe = grid.at(2, 9)
    loaded = ProbeGrid.load(grid.save(tmp_path / "p")).at(2, 9)
    assert np.array_equal(loaded.predict(X), probe.predict(X)) and loaded.get_params() == probe.get_params()
    exported = probe.to_sklearn()
    assert type(exported).__module__.startswith("sklearn.") and np.allclose(exported.predict(X), probe.predict(X))
    streamed = fit_stream(clone(probe), data.batches(target, layer=2, step=9, size=50))
    if kind in ("ridge", "ridge-classifier", "mean-difference"):
        assert np.allclose(streamed.coef_, probe.coef_, atol=1e-5) and np.allclose(
            streamed.intercept_, probe.intercept_, atol=1e-4
        )
    else:
        assert (streamed.predict(X) == probe.predict(X)).mean() > 0.9


def test_over_the_budget_the_grid_streams_from_disk(tmp_path):
    clips = planted()
    rows = [
        ClipData(f"c{i}", "a", {n: a[:, i * 8 : i * 8 + 8] for n, a in clips.storage.arrays.items()},
                 {"on": clips.labels["on"][i * 8 : i * 8 + 8]}, clips.x_t[:, i * 8 : i * 8 + 8], None, POSITION, STEPS,
                 clips.sigmas, GRID)
        for i in range(24)
    ]  # fmt: skip
    small = assemble(rows, 24, [clips.targets["on"]], max_bytes=4000, folder=tmp_path)
    assert not small.storage.in_memory and small.storage.streams(small.names[0]) and len(list(tmp_path.glob("*.npy"))) == 3
    assert np.array_equal(small.xy("on", layer=1, step=4)[0], clips.xy("on", layer=1, step=4)[0])
    grid = ProbeGrid("on", "ridge-classifier", folds=4, strength=1.0).fit(small)
    same = ProbeGrid("on", "ridge-classifier", folds=4, strength=1.0).fit(clips)
    assert np.allclose(grid.scores.score, same.scores.score, atol=0.02) and "first frame" not in grid.scores


def test_clear_errors(tmp_path):
    data = planted(6)
    X, y = data.xy("on", layer=1, step=4)
    for make, words in (
        (lambda: ProbeGrid("same", folds=3).fit(data), "1 class"),
        (lambda: LinearProbe().fit(X, np.zeros(len(X), int)), "1 class only"),
        (lambda: ProbeGrid("on", folds=7).fit(data), "6 clips, fewer than 7 folds"),
        (lambda: LinearProbe().fit(np.where(np.arange(len(X))[:, None] == 3, np.nan, X), y), "NaN or inf in 1 of 48 rows"),
        (lambda: LinearProbe().fit(X, y).predict(np.full((1, WIDTH), np.inf)), "NaN or inf"),
        (lambda: LinearProbe("lasso").fit(X, y), "there are logistic, ridge"),
        (lambda: ProbeGrid("value").fit(data), "needs kind='ridge'"),
        (lambda: data.xy("on", layer=7, step=4), "blocks.0.hook_resid_post"),
        (lambda: data.xy("on", layer=1, step=3), r"kept are \[0, 4, 9\]"),
        (lambda: data.xy("goal", layer=1, step=4), "was not collected"),
        (lambda: resolve(["nose"]), "cell_class"),
        (lambda: register(Target("on_path", "reasoning", "", lambda clip: 1)), "already"),
        (lambda: ProbeGrid.load(tmp_path), "holds no probes"),
    ):
        with pytest.raises(ProbeError, match=words):
            make()
    with pytest.raises(ValueError, match="features"):
        LinearProbe().fit(X, y).predict(X[:, :3])


def test_damaged_files_and_other_models_are_refused(tmp_path, organism):
    data = planted(8)
    data.model = {"name": "another", "digest": "0" * 64}
    folder = ProbeGrid("on", folds=3, strength=1.0).fit(data, steps=[9]).save(tmp_path / "p")
    with pytest.raises(ProbeError, match="trained on another"):
        ProbeGrid.load(folder, organism)
    assert ProbeGrid.load(folder, organism, force=True).at(1, 9).coef_.shape == (1, WIDTH)
    good, card = (folder / "probes.safetensors").read_bytes(), (folder / "card.json").read_bytes()
    (folder / "probes.safetensors").write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ProbeError, match="has changed"):
        ProbeGrid.load(folder)
    (folder / "probes.safetensors").write_bytes(good)
    wrong = json.loads(card)
    wrong["cells"][0]["shape"] = [1, 5]
    (folder / "card.json").write_bytes(sealed_json(wrong))
    with pytest.raises(ProbeError, match="the card says"):
        ProbeGrid.load(folder)
    for place in range(len(card)):
        flipped = card[:place] + bytes([card[place] ^ (1 << place % 8)]) + card[place + 1 :]
        (folder / "card.json").write_bytes(flipped)
        with pytest.raises(ProbeError, match="damaged"):
            read_card(folder)
    (folder / "card.json").write_bytes(card)
    for name, said in (("probes.safetensors", "cannot be read"), ("card.json", "holds no probes")):
        held = (folder / name).read_bytes()
        (folder / name).unlink()
        os.mkfifo(folder / name)  # which would block
        with pytest.raises(ProbeError, match=rf"{name}.*{said}|{said}.*{name}"):
            read_card(folder)
        (folder / name).unlink()
        (folder / name).write_bytes(held)
    (folder / "card.json").write_bytes(card[:50])
    with pytest.raises(ProbeError, match="damaged"):
        ProbeGrid.load(folder)


def test_transfer_between_cells_tasks_and_sizes():
    data = planted()
    probe = LinearProbe("ridge-classifier", strength=1.0)
    matrix = temporal_generalisation(data, "on", probe, folds=3)
    cells = [(layer, step) for layer in range(LAYERS) for step in range(len(STEPS))]
    has = np.array([layer >= 1 and step >= 1 for layer, step in cells])
    assert (matrix[np.ix_(has, has)] > 0.85).all() and (matrix[np.ix_(has, ~has)] < 0.65).all()
    table = task_transfer(data, "on", probe, [("blocks.2.hook_resid_post", 9)], folds=3)
    assert len(table) == 4 and (table.score > 0.85).all()
    curve = sample_sizes(data, "on", probe, ("blocks.2.hook_resid_post", 9), folds=3)
    assert curve["mean"].iloc[-1] > 0.85 and curve.clips.is_monotonic_increasing
    with pytest.raises(ProbeError, match="training clips"):
        sample_sizes(data, "on", probe, ("blocks.2.hook_resid_post", 9), [99], folds=3)


def test_erasing_leaves_nothing_to_read_and_the_control_has_the_same_dose():
    X, y = planted(60).xy("on", layer=2, step=9)
    X = X.astype(float) + 0.8 * (y[:, None] * np.linspace(0, 1, WIDTH))
    scrubbed = leace(X, y)
    gap = scrubbed(X)[y == 1].mean(0) - scrubbed(X)[y == 0].mean(0)
    assert scrubbed.rank == 1 and np.abs(gap).max() < 1e-8  # equal class means: no linear probe does better than chance
    probe = LinearProbe("mean-difference").fit(X, y)
    flat = mean_ablation(probe.basis(), X.mean(0))(X)
    assert np.ptp(flat @ probe.direction()) < 1e-9
    act, hook = torch.tensor(X[:16]).reshape(1, 2, 2, 4, WIDTH), SimpleNamespace(step=3)
    edit = erase(scrubbed)
    assert np.allclose(edit(act, hook).reshape(16, -1).numpy(), scrubbed(X[:16]))
    control = matched_control(edit, erase(random_erasure(X, 1)))(act, hook)
    assert torch.allclose((control - act).norm(dim=-1), (edit(act, hook) - act).norm(dim=-1))
    assert not torch.allclose(control, edit(act, hook))
    moved = steer(probe, 3.0, 0)(act, hook) - act
    assert torch.allclose(moved.norm(dim=-1), torch.tensor(3.0, dtype=moved.dtype))
    assert float((moved @ torch.tensor(probe.coef_[0])).max()) < 0
    assert by_step({3: edit})(act, SimpleNamespace(step=4)) is None


def test_an_exchange_gives_some_tokens_the_other_runs_coordinates_and_its_control_moves_them_as_far():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 8)) * np.array([5, 3, 2, 1.5, 1, 0.8, 0.5, 0.1])
    y = (X[:, 0] + X[:, 6] > 0).astype(int) + (X[:, 1] > 1)
    along, like = leace(X, y), random_erasure(X, 2, seed=3)
    assert along.rank == 2 and not np.allclose(like.reads, random_erasure(X, 2, seed=4).reads)
    act, given = (torch.from_numpy(rng.normal(size=(1, 2, 2, 2, 8))) for _ in range(2))
    tokens = torch.zeros(2, 2, 2, dtype=torch.bool)
    tokens[1, 0] = True
    edit, reads = interchange(along, given, tokens), torch.from_numpy(along.reads)
    made = edit(act, None)
    assert torch.equal(made[0][~tokens], act[0][~tokens])
    assert torch.allclose((made @ reads.T)[0][tokens], (given @ reads.T)[0][tokens])  # what is read is the other's
    best = np.linalg.lstsq(np.c_[X, np.ones(len(X))], np.eye(3)[y], rcond=None)[0][:-1].T  # a probe by least squares reads it
    assert torch.allclose((made @ torch.from_numpy(best).T)[0][tokens], (given @ torch.from_numpy(best).T)[0][tokens])
    writes = torch.from_numpy(
        np.linalg.svd(np.cov(X.T, np.eye(3)[y].T)[:8, 8:])[0][:, :2]
    )  # along the differences of class means
    rest = torch.eye(8, dtype=torch.float64) - writes @ writes.T
    assert torch.allclose(made @ rest, act @ rest)
    assert torch.allclose(interchange(along, act, tokens)(act, None), act)  # a run as its own donor
    twice = interchange(along, given, tokens, 2.0)(act, None)
    assert torch.allclose(twice - act, 2 * (made - act))
    control = matched_control(edit, interchange(like, given, tokens))(act, None)
    assert torch.allclose((control - act).norm(dim=-1), (made - act).norm(dim=-1))
    away = torch.from_numpy(like.writes)
    assert torch.allclose(((control - act) @ (torch.eye(8).double() - torch.linalg.pinv(away) @ away)), 0 * act, atol=1e-9)


def test_with_few_rows_erasing_whitens_by_a_shrunken_covariance():
    """As few rows as dimensions: the sample's covariance says that some directions do not vary, and an erasure that believes it
    moves fresh rows far away. Shrunk, it still leaves no class difference in its own rows."""
    rng = np.random.default_rng(1)
    width, (few, fresh) = 40, (rng.normal(size=(n, 40)) for n in (42, 400))
    y = (few[:, 0] > 0).astype(int)
    assert len(few) < ENOUGH * width
    scrubbed = leace(few, y)
    assert np.abs(scrubbed(few)[y == 1].mean(0) - scrubbed(few)[y == 0].mean(0)).max() < 1e-8
    mean, values, axes = few.mean(0), *np.linalg.eigh(np.cov(few, rowvar=False, bias=True))
    whiten, colour = ((axes * values**power) @ axes.T for power in (-0.5, 0.5))
    column = whiten @ ((few - mean).T @ (y - y.mean()))
    column /= np.linalg.norm(column)
    believed = fresh - (fresh - mean) @ np.outer(whiten @ column, colour @ column)
    moved = [np.linalg.norm(after - fresh, axis=1).mean() for after in (scrubbed(fresh), believed)]
    assert moved[0] < 0.5 * moved[1]


def test_overlay_and_views():
    assert pixel_to_latent(9, 3).tolist() == [0, 1, 1, 1, 1, 2, 2, 2, 2]
    frames = np.zeros((9, 80, 80, 3), np.uint8)
    video, legend = overlay(frames, np.arange(125).reshape(5, 5, 5) % 2, ("off", "on"))
    assert video.shape == (9, 240, 480, 3) and set(legend) == {"off", "on"} and not video[:, :, :240].any()
    assert (video[0, 0, 240] != video[0, 0, 300]).any()
    shades, ends = overlay(frames, np.random.default_rng(0).random((5, 5, 5)))
    assert shades.shape == video.shape and set(ends) == {"darkest", "brightest"}
    table = view(planted(4), "on", "blocks.2.hook_resid_post", 9)
    assert set(table.label) == {"off", "on"} and len(table) == 32


@pytest.mark.slow
def test_pca_by_hand_and_umap_keeps_clusters():
    line = np.outer(np.arange(5.0), [3.0, 4.0, 0.0])
    flat, share = pca(line)
    np.testing.assert_allclose(np.diff(flat[:, 0]), 5.0)
    assert share[0] == pytest.approx(1) and np.allclose(flat[:, 1], 0)
    constant, share = pca(np.ones((4, 3)))
    assert np.allclose(constant, 0) and share.sum() == 0
    rng = np.random.default_rng(0)
    two = np.concatenate([rng.normal(0, 1, (20, 6)), rng.normal(30, 1, (20, 6))])
    near = umap(two, neighbours=5)
    assert torch.get_num_threads() == 1, "numba raises torch's threads for the whole process, and with them the rounding"
    centres = near[:20].mean(0), near[20:].mean(0)
    assert np.linalg.norm(centres[0] - centres[1]) > 2 * max(near[:20].std(), near[20:].std())
    np.testing.assert_array_equal(near, umap(two, neighbours=5))


def test_the_five_lines_on_the_organism(organism, tmp_path):
    from cos_interp.tasks import suite

    names = ["blocks.1.hook_resid_post", "blocks.4.hook_resid_post"]
    targets = ["cell_class", "on_path", "goal", "final_class", "final_latent", Target("row", "perception", "", lambda c: ROWS)]
    data = ProbeDataset.collect(organism, suite.load(), names=names, steps="all", targets=targets, tokens="all", n=4,
                                num_inference_steps=2)  # fmt: skip
    assert len(data) == 4 * 125 and data.steps == (0, 1) and data.x_t.shape == (2, 500, 16) and data.first.shape == (500, 16)
    assert set(data.tasks) == {"maze", "occlusion", "bounce", "place"} and set(data.tasks[data.rows("goal")]) == {"maze"}
    probe = LinearProbe(kind="ridge-classifier", strength=10.0).fit(*data.xy("cell_class", layer=4, step=1))
    assert probe.score(*data.xy("cell_class", layer=4, step=1)) > 0.5
    grid = ProbeGrid("row", "ridge-classifier", folds=2, strength=10.0, controls=False).fit(data, steps=[1])
    assert (grid.scores.position == 1).all()  # a position says its row
    assert len(grid.figure().axes) >= 2
    again = ProbeGrid.load(grid.save(tmp_path / "row"), organism)  # same weights: no force
    X, _ = data.xy("row", layer=4, step=1)
    assert np.array_equal(again.at(4, 1).predict(X), grid.at(4, 1).predict(X))
    few = ProbeDataset.collect(organism, suite.load(), names=names[0], steps=[1], targets=["on_path"], tokens=7, n=1,
                               num_inference_steps=2)  # fmt: skip
    at = np.ravel_multi_index(few.position[:7].T, (5, 5, 5))
    assert np.array_equal(few.xy("on_path", step=1)[0][:7], data.storage.read(names[0], 1, at))


ROWS = np.broadcast_to(np.arange(5)[None, :, None], (5, 5, 5))


def test_use_is_judged_by_the_caller(organism):
    from PIL import Image

    from cos_interp.tasks import suite

    item = suite.task_items("maze")[0]
    call = {"prompt": item.prompt, "image": Image.fromarray(item.first_frame), "seed": 0, "num_inference_steps": 2}
    nothing = lambda act, hook: act
    wipe = lambda act, hook: act * 0
    rows = is_it_used(organism, "blocks.4.hook_resid_post", {"nothing": nothing, "wipe": wipe}, [call], lambda i, run: i + 0.5)
    assert [r["edit"] for r in rows] == ["none", "nothing", "wipe"] and {r["score"] for r in rows} == {0.5}
    assert rows[1]["moved"] == 0 and rows[2]["moved"] > 0.05
