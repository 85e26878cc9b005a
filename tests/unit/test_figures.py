"""The three figures and the loss concentration against their definitions, and their intervals against repetition."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from softad.figures import (
    _deviations,
    _ginis,
    _means,
    _tail_means,
    _top_shares,
    cvar,
    lorenz,
    loss_concentration,
    three_figures,
)
from softad.resampling import bootstrap_counts

losses_strategy = st.lists(st.floats(0.0, 100.0, width=32), min_size=1, max_size=40)


def gini_by_pairs(losses: np.ndarray) -> float:
    """Mean absolute difference over twice the mean."""
    if losses.sum() == 0:
        return 0.0
    return float(np.abs(losses[:, None] - losses[None, :]).mean() / (2.0 * losses.mean()))


@given(losses_strategy, st.floats(0.0, 0.999))
def test_cvar_is_the_value_of_its_linear_programme(losses: list[float], level: float) -> None:
    n = len(losses)
    bounds = [(0.0, 1.0 / ((1.0 - level) * n))] * n
    expected = -linprog(-np.asarray(losses), A_eq=np.ones((1, n)), b_eq=[1.0], bounds=bounds).fun
    assert cvar(losses, level) == pytest.approx(expected, abs=1e-6)


@given(losses_strategy, st.integers(0, 2**32 - 1))
def test_statistics_of_counts_are_those_of_the_repeated_rows(losses: list[float], seed: int) -> None:
    ordered = np.sort(np.asarray(losses))[::-1]
    (counts,) = bootstrap_counts(ordered.size, 3, seed)
    for line, count in enumerate(counts):
        drawn = np.repeat(ordered, count.astype(int))
        assert _means(ordered, counts)[line] == pytest.approx(drawn.mean())
        assert _deviations(ordered, counts)[line] == pytest.approx(drawn.std(), abs=1e-5)
        for level in (0.0, 0.5, 0.9, 0.99):
            assert _tail_means(ordered, counts, level)[line] == pytest.approx(cvar(drawn, level))
        top = 0.1 * cvar(drawn, 0.9) * drawn.size / drawn.sum() if drawn.sum() > 0 else 0.0
        assert _top_shares(ordered, counts)[line] == pytest.approx(top)
        assert _ginis(ordered, counts)[line] == pytest.approx(gini_by_pairs(drawn), abs=1e-9)


def test_the_three_figures_of_known_losses() -> None:
    losses = np.arange(1, 101, dtype=float)
    figures = three_figures(losses)
    assert figures.mean.value == pytest.approx(50.5)
    assert figures.tail.value == pytest.approx(np.arange(91, 101).mean())
    assert figures.stability.value == pytest.approx(losses.std())
    assert figures.tail_95 == pytest.approx(98.0)
    assert figures.tail_99 == pytest.approx(100.0)
    assert (figures.rows, figures.level, figures.worst_slice) == (100, 0.9, None)
    assert three_figures(losses, level=0.5).tail.value == pytest.approx(75.5)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    tail = 1.0 - np.log(0.1)  # CVaR .9 of an exponential law
    hits = np.zeros(3)
    for seed in range(150):
        figures = three_figures(rng.exponential(size=800), resamples=300, seed=seed)
        for k, (interval, truth) in enumerate([(figures.mean, 1.0), (figures.tail, tail), (figures.stability, 1.0)]):
            hits[k] += interval.low <= truth <= interval.high
    # A true coverage of .95 falls below .88 in fewer than one of 1,000 such tests; the sd's is a little lower.
    assert (hits / 150 >= [0.88, 0.86, 0.85]).all()


def test_intervals_are_fixed_by_the_seed_and_narrow_with_rows() -> None:
    rng = np.random.default_rng(0)
    losses = rng.gamma(1.0, 0.5, 3000)
    assert three_figures(losses, seed=3) == three_figures(losses, seed=3)
    assert three_figures(losses, seed=3) != three_figures(losses, seed=4)
    wide, narrow = three_figures(losses[:300]).mean, three_figures(losses).mean
    assert narrow.high - narrow.low < 0.6 * (wide.high - wide.low)


def test_the_order_of_rows_does_not_matter() -> None:
    losses = np.random.default_rng(0).gamma(1.0, 0.5, 500)
    assert three_figures(losses) == three_figures(losses[::-1])


def test_slices_name_the_worst_and_how_they_spread() -> None:
    losses = np.concatenate([np.full(40, 1.0), np.full(40, 3.0), np.full(5, 9.0)])
    machine = np.array(["M1"] * 40 + ["M2"] * 40 + ["M3"] * 5)
    shift = np.array([None, np.nan, pd.NA] * 28 + [None], dtype=object)
    figures = three_figures(losses, slices={"machine": machine, "shift": shift})
    assert figures.worst_slice == ("machine", "M2", 3.0, 40)
    assert list(figures.slice_spread) == ["machine"]
    assert figures.slice_spread["machine"] == pytest.approx((1.0, 1.0))
    assert three_figures(losses, slices={"machine": machine}, min_slice_rows=1).worst_slice == ("machine", "M3", 9.0, 5)
    assert three_figures(losses, slices={"machine": machine}, min_slice_rows=100).worst_slice is None
    with pytest.raises(ValueError, match="slices: 'machine' has shape"):
        three_figures(losses, slices={"machine": machine[:3]})


def test_concentration_of_known_losses() -> None:
    one_hard = np.array([0.0] * 9 + [1.0])
    figures = loss_concentration(one_hard, theta=0.0, sigma=1.0)
    assert figures.top_share.value == pytest.approx(1.0)
    assert figures.gini.value == pytest.approx(0.9)
    assert figures.penalty.value == pytest.approx((np.sqrt(2) - 1) / 10)
    zero = loss_concentration(np.zeros(50), theta=0.0, sigma=1.0)
    for interval in (zero.penalty, zero.top_share, zero.gini):
        assert (interval.value, interval.low, interval.high) == (0.0, 0.0, 0.0)


@given(losses_strategy, st.floats(1e-3, 1e3))
def test_share_and_gini_do_not_depend_on_the_unit(losses: list[float], factor: float) -> None:
    plain = loss_concentration(losses, theta=0.1, sigma=1.0, resamples=2)
    scaled = loss_concentration(np.asarray(losses) * factor, theta=0.1, sigma=1.0, resamples=2)
    assert plain.gini.value == pytest.approx(gini_by_pairs(np.asarray(losses)), abs=1e-9)
    assert scaled.gini.value == pytest.approx(plain.gini.value, abs=1e-6)
    assert scaled.top_share.value == pytest.approx(plain.top_share.value, abs=1e-6)
    assert 0.0 <= plain.gini.value < 1.0
    assert 0.0 <= plain.top_share.value <= 1.0 + 1e-12


@given(losses_strategy)
def test_the_lorenz_curve_is_convex_below_the_diagonal_and_encloses_the_gini(losses: list[float]) -> None:
    population, share = lorenz(losses, points=len(losses) + 1)
    assert (share[0], share[-1]) == (0.0, 1.0)
    assert (np.diff(share) >= -1e-12).all()
    assert (np.diff(share, 2) >= -1e-9).all()
    assert (share <= population + 1e-12).all()
    area = float(np.sum((share[1:] + share[:-1]) / 2 * np.diff(population)))
    assert 1.0 - 2.0 * area == pytest.approx(gini_by_pairs(np.asarray(losses)), abs=1e-6)


def test_huge_losses_do_not_overflow() -> None:
    population, share = lorenz([1e308, 1e308, 1e308], points=4)
    np.testing.assert_allclose(share, population)


def test_a_thousand_resamples_of_a_hundred_thousand_rows_are_quick() -> None:
    losses = np.random.default_rng(0).gamma(1.0, 0.2, 100_000)
    started = time.process_time()
    three_figures(losses, resamples=1000)
    assert time.process_time() - started < 10.0  # about 1 s; the limit leaves room for a busy machine


def test_bootstrap_counts_are_multinomial() -> None:
    counts = np.concatenate(list(bootstrap_counts(4, 200_000, seed=1)))
    assert counts.shape == (200_000, 4)
    assert (counts.sum(axis=1) == 4).all()
    # Each draw falls on a row with probability 1/4: mean 1, variance 3/4, covariance -1/4.
    np.testing.assert_allclose(np.cov(counts.T), np.eye(4) - 0.25, atol=0.02)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: three_figures([]), "losses"),
        (lambda: three_figures([[1.0]]), "losses"),
        (lambda: three_figures([1.0, np.nan]), "losses: 1 of 2 are not finite, the first at row 1"),
        (lambda: three_figures([1.0], level=1.0), "level"),
        (lambda: three_figures([1.0], resamples=0), "resamples"),
        (lambda: three_figures([1.0], confidence=1.0), "confidence"),
        (lambda: cvar([1.0], -0.1), "level"),
        (lambda: loss_concentration([-1.0], theta=0.0, sigma=1.0), "losses"),
        (lambda: loss_concentration([1.0], theta=np.inf, sigma=1.0), "theta"),
        (lambda: loss_concentration([1.0], theta=0.0, sigma=0.0), "sigma"),
        (lambda: lorenz([-1.0]), "losses"),
        (lambda: lorenz([1.0], points=1), "points"),
    ],
)
def test_arguments_out_of_range_are_named_with_what_is_allowed(call, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}.*; allowed: "):
        call()
