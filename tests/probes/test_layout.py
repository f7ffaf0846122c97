"""What a probe predicts does not depend on how its coefficients or the activations lie in memory."""

from __future__ import annotations

import numpy as np
import pytest

from cos_interp.probes import LinearProbe

rng = np.random.default_rng(0)
X = rng.normal(size=(101, 37))
TARGETS = {"ridge": rng.normal(size=(101, 5)), "ridge-classifier": rng.integers(0, 7, 101), "logistic": rng.integers(0, 4, 101)}


def layouts(array: np.ndarray) -> dict[str, np.ndarray]:
    """The same numbers by rows, by columns, with gaps between columns, with gaps between rows, and backwards."""
    rows, columns = array.shape
    wide, tall = np.zeros((rows, 2 * columns)), np.zeros((3 * rows, columns))
    wide[:, ::2], tall[::3] = array, array
    backwards = np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1]
    return {"C": array.copy("C"), "F": array.copy("F"), "columns": wide[:, ::2], "rows": tall[::3], "backwards": backwards}


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("layout", ["F", "columns", "rows", "backwards"])
def test_layouts_predict_the_same_bits(kind, layout):
    probe = LinearProbe(kind, strength=1.0).fit(X, TARGETS[kind])
    probe.coef_ = layouts(probe.coef_)["C"]
    expected = probe._scores(X)
    assert np.array_equal(probe._scores(layouts(X)[layout]), expected)
    probe.coef_ = layouts(probe.coef_)[layout]
    assert np.array_equal(probe._scores(X), expected)
    assert np.array_equal(probe.predict(layouts(X)[layout]), probe.predict(X))


@pytest.mark.parametrize("kind", TARGETS)
def test_a_fit_does_not_depend_on_the_layout_of_the_activations(kind):
    first, *others = (LinearProbe(kind, strength=1.0).fit(x, TARGETS[kind]) for x in layouts(X).values())
    for other in others:
        assert np.array_equal(first.coef_, other.coef_) and np.array_equal(first.intercept_, other.intercept_)
