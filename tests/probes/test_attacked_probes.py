"""What an attack on probes found: nothing is taken for something else without a word, and what is refused is refused in words."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from cos_interp.probes import LinearProbe, ProbeDataset, ProbeError, ProbeGrid, Target, out_of_fold, pca, register, shuffled, umap
from cos_interp.probes.arrays import distinct
from cos_interp.probes.clip import ClipData, Source
from cos_interp.probes.collect import sources
from cos_interp.probes.crossval import ask
from cos_interp.probes.dataset import assemble
from cos_interp.probes.splits import grouped
from cos_interp.probes.streaming import fit_stream
from cos_interp.probes.targets import known, resolve
from cos_interp.probes.views import view

GRID, STEPS = (2, 2, 2), (0, 4, 9)
NAMES = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
ON = Target("on", "reasoning", "", lambda clip: None, names=("off", "on"))


def data(clips: int = 12) -> ProbeDataset:
    """Clips of noise, of which block 1 says the label along its first unit."""
    chance, made = np.random.default_rng(0), []
    position = np.stack(np.unravel_index(np.arange(8), GRID), 1)
    for clip in range(clips):
        on = chance.integers(0, 2, 8)
        acts = {name: chance.standard_normal((3, 8, 5)).astype(np.float32) for name in NAMES}
        acts[NAMES[1]][..., 0] += 8 * on
        x_t = chance.standard_normal((3, 8, 4)).astype(np.float32)
        made.append(ClipData(f"c{clip}", "a", acts, {"on": on}, x_t, None, position, STEPS, (1.0, 0.8, 0.3), GRID))
    return assemble(made, clips, [ON])


def grid() -> ProbeGrid:
    return ProbeGrid("on", "ridge-classifier", folds=3, controls=False, strength=1.0)


def rows(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(1).standard_normal((count, 4))
    return X, (X[:, 0] > 0).astype(int)


# --- items and their calls -------------------------------------------------------------------------------------------

MODEL = SimpleNamespace(takes_image=True)
ITEM = SimpleNamespace(prompt="a maze", first_frame=np.zeros((8, 8, 3), np.uint8), task="maze", seed=7)


@pytest.mark.parametrize("call", [{"prompt": "x"}, {"prompt": None}, {"image": None}, {"seed": 3}])
def test_a_keyword_does_not_replace_what_an_item_says(call):
    key = next(iter(call))
    with pytest.raises(ProbeError, match=f"^{key}=.*maze-7 has its own"):
        sources(MODEL, [ITEM], None, 0, call)
    with pytest.raises(ProbeError, match=f"^{key}=.*mine has its own"):
        sources(MODEL, [Source("mine", {"prompt": "p", "image": 0, "seed": 1})], None, 0, call)


def test_other_keywords_and_those_that_a_source_leaves_open_are_given():
    one, two = sources(MODEL, [ITEM, Source("mine", {"prompt": "p"})], None, 2, {"num_inference_steps": 4})
    assert one.call.pop("image").size == (8, 8)
    assert one.call == {"prompt": "a maze", "seed": 2_000_007, "num_inference_steps": 4}
    assert two.call == {"prompt": "p", "num_inference_steps": 4}
    assert sources(MODEL, [Source("mine", {"prompt": "p"})], None, 0, {"seed": 5})[0].call["seed"] == 5
    for seed in ("x", True, -1, 1.0):
        with pytest.raises(ProbeError, match="seed="):
            sources(MODEL, [ITEM], None, seed, {})


# --- copies of a clip ------------------------------------------------------------------------------------------------


def test_a_clip_under_another_name_is_on_the_same_side():
    """Labels without meaning in more units than rows: whoever has seen a row's copy knows its label, and nobody else does."""
    chance = np.random.default_rng(0)
    X, y, clip = chance.standard_normal((80, 200)), chance.integers(0, 2, 80), np.repeat(np.arange(20), 4)
    order = chance.permutation(80)
    twice = np.r_[X, X[order]], np.r_[y, y[order]], np.r_[clip, 100 + clip[order]]
    part = np.r_[X, X[::2]], np.r_[y, y[::2]], np.r_[clip, 100 + clip[::2]]
    scattered = np.r_[X, X], np.r_[y, y], np.r_[clip, 100 + np.arange(80)]
    probe = LinearProbe(strength=1.0)
    for made in (twice, part, scattered):
        splits = grouped(made[1], made[2], 4)
        leaks = [probe.fit(made[0][a], made[1][a]).score(made[0][b], made[1][b]) for a, b in splits]
        assert np.mean(leaks) > 0.75  # as it would be by the names alone
        assert (out_of_fold(probe, *made, folds=4) == made[1]).mean() < 0.66


def test_copies_are_found_by_what_they_hold():
    X, y = np.array([[0.0], [1], [2], [-0.0], [1], [2], [0], [1]]), np.zeros(8)
    clip = np.array(["a", "a", "a", "b", "b", "c", "d", "d"])
    assert distinct(X, y, clip).tolist() == [0] * 8  # b, c and d hold parts of a
    y[-1] = 1
    assert distinct(X, y, clip).tolist() == [0] * 6 + [1] * 2  # the same rows, which mean something else
    with pytest.raises(ProbeError, match=r"4 clips hold the rows of 1 only, fewer than 2 folds"):
        out_of_fold(LinearProbe(), np.tile(rows(9)[0], (4, 1)), np.tile(rows(9)[1], 4), np.repeat(np.arange(4), 9), folds=2)


def test_out_of_fold_takes_tensors_lists_and_names():
    X, y = rows()
    clip, probe = np.repeat(np.arange(12), 5), LinearProbe("ridge-classifier", strength=1.0)
    right = np.empty_like(y)
    for train, test in grouped(y, clip, 3):
        right[test] = LinearProbe("ridge-classifier", strength=1.0).fit(X[train], y[train]).predict(X[test])
    for given in ((X, y, clip), (X.tolist(), y.tolist(), clip.tolist()), (torch.tensor(X), torch.tensor(y), torch.tensor(clip))):
        assert np.array_equal(out_of_fold(probe, *given, folds=3), right)
    by_name = out_of_fold(probe, X, np.where(y, "yes", "no"), [f"clip {c}" for c in clip], folds=3)
    assert set(by_name) == {"yes", "no"} and (by_name == np.where(y, "yes", "no")).mean() > 0.8
    assert len(out_of_fold(probe, torch.tensor(X).bfloat16(), y, clip, folds=3)) == 60


def test_values_that_are_whole_numbers_are_not_predicted_as_whole_numbers():
    X, y = rows()
    clip, made = np.repeat(np.arange(12), 5), np.zeros(60)
    for train, test in grouped(y.astype(float), clip, 3):
        made[test] = LinearProbe("ridge", strength=1.0).fit(X[train], y[train]).predict(X[test])
    assert np.array_equal(out_of_fold(LinearProbe("ridge", strength=1.0), X, y, clip, folds=3), made)


# --- what is chosen of what was kept ---------------------------------------------------------------------------------


def test_a_grid_takes_what_is_asked_each_once():
    kept = data()
    for names, steps, cells in (
        (NAMES[1], 4, [(NAMES[1], 4)]), ([NAMES[0], NAMES[0]], [9, 9, np.int64(0)], [(NAMES[0], 0), (NAMES[0], 9)]),
        (None, "0,9", [(n, s) for n in NAMES for s in (0, 9)]), ([NAMES[1]], range(4, 5), [(NAMES[1], 4)]),
        (NAMES[:1], slice(4, 5), [(NAMES[0], 4)]), (NAMES[:1], "all", [(NAMES[0], s) for s in STEPS]),
    ):  # fmt: skip
        found = grid().fit(kept, names=names, steps=steps, refit=False).scores
        assert list(zip(found.name, found.step, strict=True)) == cells and found.step.dtype.kind == "i"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"names": []}, "names nothing"), ({"names": ["x"]}, "'x' is not there"), ({"names": "blocks.1"}, "is not there"),
     ({"names": 5}, "5 is not there"), ({"steps": [True]}, "True"), ({"steps": []}, "names nothing"), ({"steps": 1}, "step 1"),
     ({"steps": [0, 3]}, "no step 3"), ({"steps": slice(0, 9)}, "no step 1"), ({"steps": [-1]}, "from the end"),
     ({"steps": 4.0}, "4.0"), ({"steps": "last"}, "last"), ({"steps": [10]}, "no step 10")],
)  # fmt: skip
def test_a_grid_refuses_what_was_not_kept(wrong, message):
    with pytest.raises(ProbeError, match=message):
        grid().fit(data(3), **wrong)


def test_a_layer_and_a_name_must_agree():
    kept = data(6)
    made = grid().fit(kept, steps=[4])
    X, _ = kept.xy("on", layer=np.int64(1), step=np.int64(4), name=NAMES[1])
    assert np.array_equal(X, kept.storage.arrays[NAMES[1]][1]) and made.at(1, 4, NAMES[1]) is made.probes[NAMES[1], 4]
    for asked in ({"layer": 0, "name": NAMES[1]}, {"layer": True}, {"layer": 1.0}, {"layer": "1"}, {"layer": 1, "step": 4.0},
                  {"layer": 1, "step": True}, {"layer": 0, "step": False}, {"layer": 1, "step": "4"},
                  {"layer": 1, "step": -1}):  # fmt: skip
        asked = {"step": 4} | asked
        for read in (lambda asked: kept.xy("on", **asked), lambda asked: made.at(**asked)):
            with pytest.raises(ProbeError, match=r"means \d (of the kept|probes)|kept are"):
                read(asked)
    for wrong in (["on"], None):
        with pytest.raises(ProbeError, match="was not collected"):
            kept.xy(wrong, layer=1, step=4)
    for size in (0, -1, "x", 2.0):
        with pytest.raises(ProbeError, match="size="):
            kept.batches("on", layer=1, step=4, size=size)
    for wrong in ({"name": "x"}, {"points": 0}, {"step": 1}):
        with pytest.raises(ProbeError):
            view(kept, "on", **{"name": NAMES[0], "step": 4} | wrong)


def test_a_grid_that_was_not_fitted_says_so():
    for ask_it in (ProbeGrid.best, ProbeGrid.figure, ProbeGrid.bootstrap, ProbeGrid.at):
        with pytest.raises(ProbeError, match="call fit first"):
            ask_it(grid())


@pytest.mark.parametrize("folds", [0, 1, -2, 2.0, "x", True])
def test_folds_are_two_at_least(folds):
    X, y = rows()
    for ask_it in (lambda: out_of_fold(LinearProbe(), X, y, np.repeat(np.arange(12), 5), folds=folds),
                   lambda: ask(data(3), "on", folds), lambda: ProbeGrid("on", folds=folds).fit(data(3))):  # fmt: skip
        with pytest.raises(ProbeError, match=r"folds=.*at least 2"):
            ask_it()


@pytest.mark.parametrize("seed", ["x", -1, 1.5, True])
def test_a_seed_is_a_whole_number(seed):
    X, y = rows()
    clip = np.repeat(np.arange(12), 5)
    for ask_it in (lambda: LinearProbe(random_state=seed).fit(X, y), lambda: ProbeGrid("on", seed=seed).fit(data(3)),
                   lambda: shuffled(y, clip, seed), lambda: out_of_fold(LinearProbe(), X, y, clip, seed=seed),
                   lambda: fit_stream(LinearProbe(random_state=seed), lambda: iter([(X, y)]))):  # fmt: skip
        with pytest.raises(ProbeError, match=r"seed=|random_state="):
            ask_it()


# --- targets ---------------------------------------------------------------------------------------------------------


def target(label=lambda clip: 1, **how) -> Target:
    return Target(**{"name": "t", "family": "reasoning", "about": "", "label": label} | how)


class Seen:
    grid, item, name = GRID, SimpleNamespace(task="maze"), "clip"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"form": "zz"}, "form.*'zz'.*classes, values"), ({"family": "magic"}, "family.*perception, reasoning"),
     ({"label": 5}, "label=5"), ({"name": 3}, "name"), ({"tasks": ()}, "tasks"), ({"tasks": 5}, "tasks"),
     ({"names": "off"}, "names"), ({"names": ("a", "a")}, "each once"), ({"names": (1, 2)}, "names"), ({"names": None}, "names")],
)  # fmt: skip
def test_a_target_says_what_it_is(wrong, message):
    with pytest.raises(ProbeError, match=message):
        target(**wrong)


def test_a_task_is_meant_by_its_whole_name():
    assert (target(tasks="maze").read(Seen()) == 1).all() and (target(tasks=["place", "maze"]).read(Seen()) == 1).all()
    for tasks in ("mazes", ("mazes",), "amazed"):
        assert (target(tasks=tasks).read(Seen()) == -1).all()


@pytest.mark.parametrize("label", [-2, -1.5e9, np.full(GRID, -3), np.uint64(2**64 - 1), 1e30, float("inf")])
def test_only_minus_one_is_no_label(label):
    with pytest.raises(ProbeError, match="t' gave"):
        target(lambda clip: label).read(Seen())


@pytest.mark.parametrize("label", ["a", "3", np.inf, np.full(GRID, -np.inf), 1j, {1}, np.full(GRID, "3")])
def test_values_are_finite_numbers(label):
    with pytest.raises(ProbeError, match=r"t' gave .* no value"):
        target(lambda clip: label, form="values").read(Seen())


def test_values_may_be_tensors_and_missing():
    for label in (torch.full(GRID, 2.0).bfloat16(), 2, np.full(GRID, 2), True + 1):
        assert (target(lambda clip, label=label: label, form="values").read(Seen()) == 2).all()
    for label in (None, np.nan):
        assert np.isnan(target(lambda clip, label=label: label, form="values").read(Seen())).all()


def test_targets_are_asked_for_by_name_each_once():
    assert [t.name for t in resolve(["on_path", "goal", "on_path"])] == ["on_path", "goal"] and resolve("goal")[0].name == "goal"
    for wrong in ([], (), None, 5, [None], ["nose"], [target(), target(lambda clip: 2)]):
        with pytest.raises(ProbeError, match=r"names nothing|unknown target|two targets"):
            resolve(wrong)
    for wrong in ("x", None):
        with pytest.raises(ProbeError, match="register takes"):
            register(wrong)
    assert "t" not in known()


# --- a probe's numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["logistic", "ridge", "ridge-classifier", "mean-difference", "linear-svm", "pca+logistic"])
@pytest.mark.parametrize("unit", [1e200, 1e-200, 1e-160, 1e155])
def test_units_whose_squares_do_not_exist_are_refused(kind, unit):
    X, y = rows()
    one = X.copy()
    one[:, 2] *= unit
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for given in (X * unit, one):
            with pytest.raises(ProbeError, match="in another unit"):
                LinearProbe(kind, strength=1.0).fit(given, y)
            with pytest.raises(ProbeError, match="in another unit"):
                fit_stream(LinearProbe(kind, strength=1.0), lambda given=given: iter([(given, y)]))
        with pytest.raises(ProbeError, match="in another unit"):
            LinearProbe("ridge", strength=1.0).fit(X, X[:, 0] * unit)
        with pytest.raises(ProbeError, match="in another unit"):
            pca(X * unit)


def test_large_and_small_units_that_float64_squares_are_taken():
    X, y = rows()
    right = LinearProbe("ridge-classifier", strength=1.0).fit(X, y).predict(X)
    for unit in (2.0**400, 2.0**-400):
        assert np.array_equal(LinearProbe("ridge-classifier", strength=1.0).fit(X * unit, y).predict(X * unit), right)
    dead = np.c_[X, np.zeros(60), np.full(60, 1e-200)]  # units that never move
    assert np.array_equal(LinearProbe("ridge-classifier", strength=1.0).fit(dead, y).predict(dead), right)
    with pytest.raises(ProbeError, match="another unit"):
        LinearProbe("ridge-classifier", strength=1.0).fit(X * 1e-100, y).predict(X * 1e250)


def test_a_probe_answers_wrong_questions_in_words():
    X, y = rows()
    classes, values = LinearProbe(strength=1.0).fit(X, y), LinearProbe("ridge", strength=1.0).fit(X, X[:, 1])
    for ask_it in (lambda p: p.predict(X[:, :3]), lambda p: p.score(X, y[:-1]), lambda p: p.score(X, np.full(60, "a")),
                   lambda p: p.score(X, np.stack([X[:, 0]] * 2, 1)), lambda p: p.predict(X[0]), lambda p: p.predict([]),
                   lambda p: p.score(X, np.where(np.arange(60) == 3, np.nan, X[:, 0]))):  # fmt: skip
        for probe in (classes, values):
            with pytest.raises(ProbeError):
                ask_it(probe)
    with pytest.raises(ProbeError, match=r"3 features.*expecting 4"):
        classes.predict(X[:, :3])
    with pytest.raises(ProbeError, match="label of each row"):
        classes.score(X, y[:-1])
    assert classes.score(torch.tensor(X), torch.tensor(y)) == classes.score(X, y.tolist())
    fresh = LinearProbe("ridge")
    for ask_it in (lambda p: p.score(X, y), lambda p: p.predict(X), lambda p: p.basis(), lambda p: p.direction()):
        for probe in (fresh, LinearProbe()):
            with pytest.raises(ProbeError, match="call fit") as error:
                ask_it(probe)
            assert isinstance(error.value, NotFittedError)


def test_shuffled_takes_lists_and_tensors():
    y, clip = np.tile([0, 1, 2], 8), np.repeat(np.arange(6), 4)
    right = shuffled(y, clip, 3)
    assert sorted(right) == sorted(y) and not np.array_equal(right, y)
    for given in ((y.tolist(), clip.tolist()), (torch.tensor(y), torch.tensor(clip))):
        assert np.array_equal(shuffled(*given, 3), right)
    assert set(shuffled(torch.tensor([0.5, 1.5]).bfloat16(), [0, 1])) == {0.5, 1.5}
    for wrong in ((y, clip[:-1]), (y, np.full(24, np.nan)), (3, clip), (["a", None], [0, 1])):
        with pytest.raises(ProbeError):
            shuffled(*wrong)


def test_principal_axes_are_those_that_there_are():
    X = np.random.default_rng(2).standard_normal((30, 6))
    values, axes = np.linalg.eigh(np.cov(X, rowvar=False))
    flat, share = pca(X, 6)
    np.testing.assert_allclose(np.abs(flat), np.abs((X - X.mean(0)) @ axes[:, ::-1]), atol=1e-9)
    np.testing.assert_allclose(share, values[::-1] / values.sum())
    for given in (X.tolist(), torch.tensor(X), list(torch.tensor(X))):
        np.testing.assert_array_equal(pca(given, 6)[0], flat)
    assert pca(torch.tensor(X).bfloat16())[0].shape == (30, 2)
    assert pca(X[:2], 3)[0].shape == (2, 3)  # few points lie in few of the axes, and have no coordinate along the others
    for wrong in ((X, 9), (X, 0), (X, 2.0), (X, True), (X[0], 1), (X[:0], 1), (np.where(X > 2, np.nan, X), 2), ([[1, 2], [3]], 1),
                  (X * 1j, 1), ("x", 1)):  # fmt: skip
        with pytest.raises(ProbeError):
            pca(*wrong)
    for wrong in ((X[:4],), (X, 1), (X, "x"), (X * np.inf,)):
        with pytest.raises(ProbeError):
            umap(*wrong)
