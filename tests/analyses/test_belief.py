"""Belief: planted blends, the posterior by brute force, margins by hand; latents of right answers on the organism."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support import hooked_tiny

from cos_interp.analyses.kit import belief
from cos_interp.analyses.kit.candidates import candidates, encoded
from cos_interp.tasks import get_task, suite


def drawn(count: int, seed: int = 0, size: int = 60) -> torch.Tensor:
    return torch.randn(count, 3, size // 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 2, 3, 6])
@pytest.mark.parametrize("seed", range(5))
def test_weights_recover_a_planted_blend(count, seed):
    rows = drawn(count, seed)
    planted = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    planted = planted / planted.sum()
    blend = torch.einsum("k,kab->ab", planted, rows.double())
    torch.testing.assert_close(belief.weights(blend, rows), planted, atol=1e-9, rtol=0)
    rest = drawn(1, seed + 100)[0].double()  # what lies off the candidates' plane changes nothing
    plane = (rows.double()[1:] - rows.double()[0]).flatten(1)
    off = rest.flatten() - (plane.T @ torch.linalg.pinv(plane.T) @ rest.flatten() if count > 1 else 0)
    torch.testing.assert_close(belief.weights(blend + off.view_as(blend), rows), planted, atol=1e-8, rtol=0)


def test_weights_beyond_the_candidates_are_cut_for_display_only():
    rows = drawn(2)
    beyond = 1.5 * rows[0] - 0.5 * rows[1]
    found = belief.weights(beyond, rows)
    assert found.tolist() == pytest.approx([1.5, -0.5]) and belief.clipped(found).tolist() == [1, 0]
    equal = torch.stack([rows[0], rows[0], rows[1]])
    assert float(belief.weights(rows[1], equal)[2]) == pytest.approx(1)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_shares_recover_a_planted_blend_and_leave_out_what_is_not_there(count):
    rows = drawn(count, count)
    planted = torch.rand(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    planted = planted / planted.sum()
    blend = torch.einsum("k,kab->ab", planted, rows.double())
    torch.testing.assert_close(belief.shares(blend, rows), planted, atol=1e-6, rtol=0)
    for one in range(count):
        found = belief.shares(rows[one] + 1e-3 * drawn(1, 7)[0], rows)
        assert int(found.argmax()) == one and float(found[one]) > 0.99 and bool((found >= 0).all())


def test_shares_tell_candidates_apart_that_depend_on_one_another():
    """Two places, each with two ways: the fourth route is the sum of two differences, and affine weights have many answers."""
    a, b, c = drawn(3)
    rows = torch.stack([a, b, c, b + c - a])
    for one in range(4):
        assert belief.shares(rows[one] + 1e-3 * drawn(1, 8)[0], rows)[one] == pytest.approx(1, abs=1e-2)
    assert belief.weights(rows[3] + 1e-3 * drawn(1, 8)[0], rows).abs().max() > 10  # rounding decides
    beyond = belief.shares(1.5 * a - 0.5 * b, rows[:2])  # nearest to the first
    assert beyond.tolist() == pytest.approx([1, 0], abs=1e-6)


def test_how_many_are_shown():
    rows, nothing = drawn(3), drawn(1, 9)[0]
    assert belief.shown(rows.mean(0), rows, nothing) == pytest.approx(3)
    assert belief.shown(rows[1], rows, nothing) == pytest.approx(1)
    assert belief.shown(nothing, rows, nothing) == pytest.approx(0, abs=1e-6)  # without it: three
    assert belief.effective(belief.clipped(belief.weights(torch.zeros_like(nothing), rows * 0 + nothing))) == pytest.approx(1)
    assert belief.shown((rows[0] + nothing) / 2, rows, nothing) == pytest.approx(0.5)
    assert belief.effective(torch.tensor([1.0, 0.0])) == 1 and belief.effective(torch.ones(4) / 4) == pytest.approx(4)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 0.7, 0.95, 0.999, 1.0])
def test_the_posterior_is_that_of_brute_force(sigma):
    rows = drawn(4).double()
    x_t = (1 - sigma) * rows[2] + sigma * drawn(1, 5)[0].double()
    logs = [-0.5 * float((((x_t - (1 - sigma) * c) / sigma) ** 2).sum()) for c in rows]
    each = [math.exp(log - max(logs)) for log in logs]
    found = belief.bayes_posterior(x_t, rows, sigma)
    assert found.tolist() == pytest.approx([e / sum(each) for e in each], abs=1e-9)
    if sigma == 1:
        assert found.tolist() == pytest.approx([0.25] * 4, abs=1e-15)
    else:
        assert belief.pick(x_t, rows, sigma) == int(found.argmax())


def test_the_posterior_is_calibrated():
    """Of draws whose candidate has a posterior of p, a share p is that candidate's: its mean over draws is the hit rate."""
    rows, sigma, chance = 0.3 * drawn(3), 0.6, torch.Generator().manual_seed(3)
    held, hit = [], []
    for n in range(600):
        true = n % 3
        x_t = (1 - sigma) * rows[true] + sigma * torch.randn(rows[0].shape, generator=chance)
        posterior = belief.bayes_posterior(x_t, rows, sigma)
        held.append(float(posterior.max()))
        hit.append(int(posterior.argmax()) == true)
    assert np.mean(held) == pytest.approx(np.mean(hit), abs=0.06) and 0.5 < np.mean(hit) < 0.95


def test_without_noise_the_nearest_is_sure():
    rows = drawn(3)
    assert belief.bayes_posterior(rows[1] + 0.01, rows, 0.0).tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="sigma is 0"):
        belief.margin(rows[1], rows, 0.0)


@pytest.mark.parametrize("sigma", [0.2, 0.8, 1.0])
def test_a_margin_is_the_move_that_changes_the_pick(sigma):
    rows = drawn(3, 2)
    x_t = (1 - sigma) * rows[0] + sigma * drawn(1, 8)[0]
    best, far = belief.pick(x_t, rows, sigma), belief.margin(x_t, rows, sigma)
    moved = []
    for other in set(range(3)) - {best}:
        way = (rows[other] - rows[best]) / (rows[other] - rows[best]).norm()
        moved += [belief.pick(x_t + share * far * sigma * way, rows, sigma) == best for share in (0.99, 1.01)]
    assert all(moved[::2]) and not all(moved[1::2])
    assert belief.margin(x_t, rows[:1], sigma) == math.inf


def test_total_variation_by_hand():
    assert belief.total_variation(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])) == 1
    assert belief.total_variation(torch.tensor([0.5, 0.5]), torch.tensor([0.75, 0.25])) == 0.25


def test_right_answers_become_latents_that_decode_to_them(organism):
    item = next(i for i in suite.task_items("place") if not i.unique)
    found = candidates(organism, item, torch.zeros(1, 16, 5, 5, 5))
    assert found is not None and found.answers == item.answers
    for answer, clip in zip(item.answers, organism.decode(found.latents), strict=True):
        verdict = get_task("place").verify(item, clip)
        assert verdict.solved and verdict.answer == answer
    still = organism.decode(found.nothing[None])[0]
    assert not get_task("place").verify(item, still).solved
    blend = 0.6 * found.latents[0] + 0.4 * found.latents[1]
    assert belief.weights(blend, found.latents)[:2].tolist() == pytest.approx([0.6, 0.4], abs=1e-5)
    assert candidates(organism, item, torch.zeros(1, 16, 3, 5, 5)) is None


def test_an_autoencoder_that_does_not_say_its_statistics_gives_none():
    model = hooked_tiny()
    model.pipe.vae.register_to_config(latents_mean=None)
    assert encoded(model, np.zeros((1, 9, 32, 32, 3), np.uint8)) is None
