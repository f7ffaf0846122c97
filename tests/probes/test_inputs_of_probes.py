"""What people give to probes: tensors of every kind, names of classes, clips that come twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cos_interp.interp import InterpError
from cos_interp.probes import LinearProbe, ProbeDataset, ProbeError, Target
from cos_interp.probes.clip import ClipData
from cos_interp.probes.collect import chosen_tokens
from cos_interp.probes.dataset import assemble
from cos_interp.probes.scoring import class_tally, interval
from cos_interp.probes.splits import grouped
from cos_interp.probes.use import edits_for, leace, steer
from cos_interp.tasks import suite

RANDOM = np.random.default_rng(0)
GRID = (2, 2, 2)


def test_tensors_of_every_type_and_in_a_graph_are_arrays():
    X, y = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 2
    X[:, 0] += 2 * y
    right = LinearProbe("ridge-classifier", strength=1.0).fit(X.numpy(), y.numpy())
    for given in (X, X.clone().requires_grad_() * 1, X.double()):
        found = LinearProbe("ridge-classifier", strength=1.0).fit(given, y)
        assert np.allclose(found.coef_, right.coef_, atol=1e-6) and (found.predict(given) == right.predict(X.numpy())).all()
    for kind in (torch.bfloat16, torch.float16):
        found = LinearProbe("ridge-classifier", strength=1.0).fit(X.to(kind), y)
        again = LinearProbe("ridge-classifier", strength=1.0).fit(X.to(kind).float().numpy(), y.numpy())
        assert np.array_equal(found.coef_, again.coef_) and found.score(X.to(kind), y) > 0.8

    found = LinearProbe("ridge-classifier", strength=1.0).fit([row.bfloat16() for row in X], list(y))
    assert np.array_equal(found.predict(list(X.bfloat16())), found.predict(X.bfloat16()))


@pytest.mark.parametrize(
    "wrong",
    [{"strength": 0}, {"strength": -1.0}, {"strength": np.nan}, {"strength": "best"}, {"strength": True}, {"inner": 0},
     {"inner": -1}, {"inner": 2.0}, {"components": 0}, {"kind": "forest"}],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(wrong):
    X, y = RANDOM.standard_normal((20, 3)), np.arange(20) % 2
    with pytest.raises(ProbeError, match=next(iter(wrong))):
        LinearProbe(**wrong).fit(X, y)


def test_a_direction_is_one_that_the_probe_has():
    X = RANDOM.standard_normal((90, 3))
    two = LinearProbe("ridge-classifier", strength=1.0).fit(X, np.where(X[:, 0] > 0, "red", "blue"))
    assert np.array_equal(two.direction("red"), two.direction()) and np.array_equal(two.direction("blue"), -two.direction())
    assert two.direction()[0] > 0.9
    three = LinearProbe("ridge-classifier", strength=1.0).fit(X, np.digitize(X[:, 1], [-0.4, 0.4]))
    values = LinearProbe("ridge", strength=1.0).fit(X, X[:, [2, 0]])
    assert abs(three.direction(2)[1]) > 0.9 and values.direction(0)[2] > 0.99 and values.direction(np.int64(1))[0] > 0.99
    for probe, wrong in ((two, 7), (two, "green"), (three, None), (three, 3), (values, None), (values, 2)):
        with pytest.raises(ProbeError, match=r"direction towards which (class|output)\? .* is none of \["):
            probe.direction(wrong)


@pytest.mark.parametrize("wrong", [{"n": -1}, {"n": 0}, {"n": 1.5}, {"names": []}, {"names": 5}])
def test_a_collection_of_nothing_is_refused(organism, wrong):
    with pytest.raises((InterpError, ProbeError), match=next(iter(wrong))):
        ProbeDataset.collect(organism, suite.task_items("maze"), num_inference_steps=2, **{"n": 1, **wrong})


def test_rows_that_are_masked_or_have_no_clip_are_not_learnt_from():
    X, y = RANDOM.standard_normal((20, 3)), np.arange(20) % 2
    LinearProbe("ridge-classifier", strength=1.0).fit(np.ma.array(X), y)  # nothing is masked
    for given, target in ((np.ma.array(X, mask=X.max() == X), y), (X, np.ma.array(y, mask=y == 1))):
        with pytest.raises(ProbeError, match="masked values"):
            LinearProbe("ridge-classifier", strength=1.0).fit(given, target)
    for groups in (np.arange(5), np.full(20, np.nan)):
        with pytest.raises(ProbeError, match="give the clip of each row"):
            LinearProbe("ridge-classifier", strength=1.0).fit(X, y, groups)
    for name in ("scale", "balanced"):
        with pytest.raises(ProbeError, match=f"{name}='no': give True or False"):
            LinearProbe(**{name: "no"}).fit(X, y)


def test_a_penalty_is_not_chosen_on_the_one_clip_that_there_is():
    X, y = RANDOM.standard_normal((20, 3)), np.arange(20) % 2
    with pytest.raises(ProbeError, match=r"all 20 rows are of one clip .*give the clip of each row, or a strength"):
        LinearProbe().fit(X, y, np.zeros(20))
    assert LinearProbe(strength=3.0).fit(X, y, np.zeros(20)).strength_ == 3.0
    assert LinearProbe("mean-difference").fit(X, y, np.zeros(20)).strength_ == 1.0  # which has no penalty


def test_the_share_of_a_variance_that_is_not_there_is_refused():
    X = RANDOM.standard_normal((20, 3))
    y = X @ np.array([1.0, -2.0, 0.5]) + RANDOM.standard_normal(20)
    probe = LinearProbe("ridge", strength=1.0).fit(X, y)
    for rows in (slice(0, 1), slice(0, 0)):
        with pytest.raises(ProbeError, match="R2 is the share of a variance"):
            probe.score(X[rows], y[rows])
    with pytest.raises(ProbeError, match=r"4 row.s. has none"):
        probe.score(X[:4], np.ones(4))
    two, seen = y[:2], probe.predict(X[:2])
    assert probe.score(X[:2], two) == pytest.approx(1 - ((two - seen) ** 2).sum() / ((two[0] - two[1]) ** 2 / 2))


def test_the_unit_of_the_activations_does_not_matter():
    X = RANDOM.standard_normal((80, 4)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    right = LinearProbe("ridge-classifier", strength=1.0).fit(X, y).predict(X)
    for unit in (1e-30, 1e30):
        tiny = X * np.float32(unit)
        assert (LinearProbe("ridge-classifier", strength=1.0).fit(tiny, y).predict(tiny) == right).all()


def test_edits_take_tensors_and_names_and_refuse_what_is_no_number():
    X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(60) % 2
    X[:, 0] += 3 * y
    probe = LinearProbe("ridge-classifier", strength=1.0).fit(X, y)
    by_array, by_tensor = edits_for(probe, X.numpy(), y.numpy()), edits_for(probe, X, y)
    for name in by_array:
        assert torch.equal(by_array[name](X, None), by_tensor[name](X, None))
    named = leace(X, np.where(y.numpy() == 1, "red", "blue"))
    assert np.allclose(named.writes, leace(X, y).writes)
    for wrong in (float("nan"), "3", True):
        with pytest.raises(ProbeError, match="give a finite number"):
            steer(probe, wrong)
    with pytest.raises(ProbeError, match="finite numbers and a label a row"):
        leace(X, y[:-1])


class Seen:
    grid, item, name = GRID, None, "clip"


@pytest.mark.parametrize(
    ("label", "right"),
    [(lambda clip: "red", 1), (lambda clip: np.full(GRID, "blue"), 0), (lambda clip: 1.0, 1), (lambda clip: np.float32(0), 0),
     (lambda clip: None, -1), (lambda clip: True, 1), (lambda clip: np.zeros(GRID, np.uint8), 0)],
)  # fmt: skip
def test_a_class_may_be_a_name_or_a_whole_number(label, right):
    target = Target("colour", "perception", "about", label, names=("blue", "red"))
    assert (target.read(Seen()) == right).all() and target.read(Seen()).shape == GRID


@pytest.mark.parametrize(
    ("label", "message"),
    [(lambda clip: 0.9, "0.9.* is no class"), (lambda clip: np.full(GRID, 0.5), "no class"), (lambda clip: "green", "'green'"),
     (lambda clip: np.zeros((*GRID, 1), int), "labels of shape"), (lambda clip: np.zeros((2, 2), int), "labels of shape"),
     (lambda clip: np.nan, "no class"), (lambda clip: {1}, "no class")],
)  # fmt: skip
def test_what_is_no_class_is_refused(label, message):
    with pytest.raises(ProbeError, match=message):
        Target("colour", "perception", "about", label, names=("blue", "red")).read(Seen())


def clip(number: int, name: str) -> ClipData:
    values = np.random.default_rng(number)
    act, position = values.standard_normal((1, 8, 6)).astype(np.float32), np.stack(np.unravel_index(np.arange(8), GRID), 1)
    return ClipData(
        name, "prompts", {"blocks.0.x": act}, {"t": np.full(8, number % 2)}, act[..., :2], None, position, (0,), (1.0,), GRID
    )


def test_a_clip_that_comes_twice_lies_on_one_side_of_every_split():
    target = Target("t", "perception", "about", lambda c: 0)
    data = assemble([clip(n % 6, f"clip-{n}") for n in range(12)], 12, [target])
    assert sorted(np.unique(data.clip)) == list(range(6))
    for train, test in grouped(data.label("t"), data.clip, 3):
        seen = {tuple(row) for row in data.storage.arrays["blocks.0.x"][0][train]}
        assert not any(tuple(row) in seen for row in data.storage.arrays["blocks.0.x"][0][test])


def test_a_resample_without_a_class_says_nothing_about_the_score():
    """A majority of one class, always guessed: balanced accuracy 0.5, and no resample says more."""
    y = np.r_[np.zeros(9, int), np.ones(1, int)]
    tally = class_tally(y, np.zeros(10, int), np.arange(10), np.arange(10), np.array([0, 1]))
    value, low, high = interval(tally)
    assert (value, low, high) == (0.5, 0.5, 0.5)


def test_tokens_of_clips_are_chosen_as_in_a_cache():
    mask = np.zeros(GRID, bool)
    mask[1, 0] = True
    for form in (mask, torch.from_numpy(mask), [(1, 0, 0), (1, 0, 1)], {"frame": 1, "row": 0}):
        assert chosen_tokens(form, GRID, 0).tolist() == [4, 5]
    assert len(chosen_tokens(np.int64(3), GRID, 0)) == 3 and len(chosen_tokens("all", GRID, 0)) == 8
    for wrong in ("some", 0, 9, [(9, 0, 0)], {"frames": 1}, np.zeros(GRID, bool), 2.5):
        with pytest.raises(ProbeError):
            chosen_tokens(wrong, GRID, 0)
