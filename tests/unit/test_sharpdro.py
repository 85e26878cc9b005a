"""SharpDRO against explicit gradients group by group, and the bins of a severity."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD

from softad.sharpness import SharpDRO, severity_bins
from tests.unit.sharp_cases import network, rows_of, same


def reference(
    w: np.ndarray, p: np.ndarray, x: np.ndarray, y: np.ndarray, groups: np.ndarray, radius: float, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """The gradient and the new group weights for squared errors of a linear model, all derivatives by hand."""

    def loss(w: np.ndarray, k: int) -> float:
        return float(np.mean((x[groups == k] @ w - y[groups == k]) ** 2))

    def slope(w: np.ndarray, k: int) -> np.ndarray:
        return 2.0 * x[groups == k].T @ (x[groups == k] @ w - y[groups == k]) / (groups == k).sum()

    present, new = np.unique(groups), p.copy()
    for k in present:
        new[k] = p[k] * math.exp(step * loss(w, k))
    new[present] *= p[present].sum() / new[present].sum()
    gradient = np.zeros_like(w)
    for k in present:
        own = slope(w, k)
        gradient += new[k] * slope(w + radius * own / np.linalg.norm(own), k)
    return gradient, new


@given(st.integers(0, 2**31 - 1), st.sampled_from([0.0, 0.05, 2.0]), st.sampled_from([0.0, 0.01, 1.0]))
def test_sharpdro_is_the_reference_over_several_steps(seed: int, radius: float, step_size: float) -> None:
    rng = np.random.default_rng(seed)
    w, p = rng.normal(size=3), np.full(4, 0.25)
    weight = nn.Parameter(torch.tensor(w))
    optimizer = SharpDRO(SGD([weight], lr=0.1), groups=4, radius=radius, step_size=step_size)
    for _ in range(4):
        x, y, groups = rng.normal(size=(9, 3)), rng.normal(size=9), rng.integers(0, 4, size=9)
        inputs, targets = torch.tensor(x), torch.tensor(y)

        def closure(inputs: Tensor = inputs, targets: Tensor = targets) -> Tensor:
            return (inputs @ weight - targets).square()

        loss = optimizer.step(closure, torch.tensor(groups))
        assert loss.item() == pytest.approx(np.mean((x @ w - y) ** 2))
        gradient, p_new = reference(w, p, x, y, groups, radius, step_size)
        missing = np.setdiff1d(np.arange(4), groups)
        np.testing.assert_array_equal(p_new[missing], p[missing])
        w, p = w - 0.1 * gradient, p_new
        np.testing.assert_allclose(weight.detach().numpy(), w, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(optimizer.group_weights.numpy(), p, rtol=1e-9)
        assert float(optimizer.group_weights.sum()) == pytest.approx(1.0)


def test_group_weights_grow_with_the_loss_and_missing_groups_keep_theirs_exactly() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = SharpDRO(SGD([weight], lr=0.0), groups=3, step_size=0.5)
    targets = torch.tensor([1.0, 1.0, 3.0])

    def rows(targets: Tensor) -> Callable[[], Tensor]:
        return lambda: nn.functional.mse_loss(weight.expand_as(targets), targets, reduction="none")

    optimizer.step(rows(targets), torch.tensor([0, 1, 2]))
    first = optimizer.group_weights
    assert first[2] > 1 / 3 > first[0] == first[1]
    optimizer.step(rows(targets[1:]), torch.tensor([1, 2]))
    second = optimizer.group_weights
    assert second[0] == first[0]
    assert second[2] > first[2]
    assert float(second.sum()) == pytest.approx(1.0, abs=1e-12)
    # Far apart, and back: a weight in linear scale would have become 0 for good.
    optimizer.step(lambda: 0.0 * weight + torch.tensor([0.0, 0.0, 1e4]), torch.tensor([0, 1, 2]))
    assert optimizer.group_weights.tolist() == [0.0, 0.0, 1.0]
    optimizer.step(lambda: 0.0 * weight + torch.tensor([1e4, 1e4, 0.0]), torch.tensor([0, 1, 2]))
    torch.testing.assert_close(optimizer.group_weights, second, rtol=1e-9, atol=1e-9)


def test_sharpdro_restores_weights_bit_for_bit() -> None:
    model = network()
    before, places = copy.deepcopy(model), []
    inner = rows_of(model)

    def closure() -> Tensor:
        places.append(copy.deepcopy(model))
        return inner()

    SharpDRO(SGD(model.parameters(), lr=0.0), groups=3, radius=1e3).step(closure, torch.arange(12) % 3)
    assert same(model, before)
    assert [same(place, before) for place in places] == [True, False, False, False]
    assert not same(places[1], places[2])  # each group has its own perturbation


# --- severity bins ---


@given(st.lists(st.integers(-3, 5), min_size=1, max_size=60), st.integers(1, 8))
def test_severity_bins_keep_order_and_ties(severity: list[int], bins: int) -> None:
    groups = severity_bins(severity, bins)
    assert sorted(set(groups.tolist())) == list(range(groups.max() + 1))
    assert groups.max() < bins
    for a, g in zip(severity, groups, strict=True):
        for b, h in zip(severity, groups, strict=True):
            assert (g == h) if a == b else (g <= h if a < b else g >= h)


@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 99))
def test_severity_bins_without_ties_are_nearly_equal(rows: int, bins: int, seed: int) -> None:
    sizes = np.bincount(severity_bins(np.random.default_rng(seed).permutation(rows), bins))
    assert sizes.size == min(rows, bins)
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("easy", [30, 40, 60, 90])
def test_two_severities_are_two_groups_whatever_their_shares(easy: int) -> None:
    assert severity_bins([0] * easy + [1] * (100 - easy), 2).tolist() == [0] * easy + [1] * (100 - easy)
    assert severity_bins([0] * easy + [1] * (100 - easy), 4).max() == 1
