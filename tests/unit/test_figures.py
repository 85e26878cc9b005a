"""The three figures and the loss concentration against their definitions, and their intervals against repetition."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from softad.calibration import cross_entropies, fit_temperature
from softad.curves import tail_mean
from softad.figures import (
    calibrated_figures,
    cvar,
    figures_by_slice,
    lorenz,
    loss_concentration,
    tail_curve,
    three_figures,
)
from softad.slices import rows_by_value

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


@given(losses_strategy, st.lists(st.floats(0.0, 0.999), max_size=6))
def test_the_tail_curve_is_cvar_level_by_level_and_rises(losses: list[float], levels: list[float]) -> None:
    levels = sorted(levels)
    curve = tail_curve(losses, levels)
    assert curve.shape == (len(levels),)
    assert curve.tolist() == [cvar(losses, level) for level in levels]
    assert (np.diff(curve) >= -1e-9 * max(losses)).all()
    assert tail_curve(losses, [0.0])[0] == pytest.approx(np.mean(losses))


def test_a_tail_shorter_than_a_row_is_the_largest_loss() -> None:
    assert tail_curve([1.0, 7.0, 2.0], [0.9, 0.999999, 1.0 - 2**-53]).tolist() == [7.0, 7.0, 7.0]
    assert tail_mean(np.array([3.0]), 0.0) == 3.0


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
    carried = 0.1 * cvar(losses, 0.9) * len(losses) / np.sum(losses) if np.sum(losses) > 0 else 0.0
    assert plain.top_share.value == pytest.approx(carried)
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


def test_slices_share_rows_and_loss_between_them() -> None:
    rng = np.random.default_rng(0)
    losses = rng.gamma(1.0, 0.5, 400)
    machine = rng.choice(["M1", "M2", "M3"], 400).astype(object)
    losses[machine == "M2"] *= 4.0
    table = pd.DataFrame(figures_by_slice(losses, {"machine": machine, "lot": pd.Series(np.arange(400) % 2)}))
    assert table["column"].tolist() == ["machine"] * 3 + ["lot"] * 2
    assert table["value"][0] == "M2"
    assert (table.groupby("column", sort=False)["mean"].diff().dropna() <= 0).all()
    np.testing.assert_allclose(table.groupby("column")[["row_share", "loss_share"]].sum(), 1.0)
    for _, row in table[table["column"] == "machine"].iterrows():
        part = losses[machine == row["value"]]
        assert row["rows"] == part.size
        expected = (part.mean(), cvar(part, 0.9), part.std(), part.sum() / losses.sum())
        assert tuple(row[["mean", "tail", "stability", "loss_share"]]) == pytest.approx(expected)


def test_slices_without_loss_rows_or_values() -> None:
    machine = np.array(["M1", None, "M2", np.nan], dtype=object)
    found = figures_by_slice([0.0] * 4, {"machine": machine, "empty": [None] * 4})
    assert [(one.value, one.rows, one.row_share, one.loss_share) for one in found] == [
        ("M1", 1, 0.25, 0.0),
        ("M2", 1, 0.25, 0.0),
    ]
    assert figures_by_slice([1.0] * 4, {"machine": machine}, min_rows=2) == ()


def test_values_that_are_equal_but_read_differently_are_different_slices() -> None:
    found = list(rows_by_value("mixed", np.array([1, True, 1.0, "1", pd.NA, "b"], dtype=object), 6))
    assert [(value, rows.tolist()) for value, rows in found] == [
        ("1", [0, 3]),
        ("1.0", [2]),
        ("True", [1]),
        ("b", [5]),
    ]


@pytest.mark.parametrize("values", [[10, 9, 10, 2], [True, False, True, True], ["b", "c", "a", "b"]])
def test_columns_of_any_kind_are_cut_alike(values: list[object]) -> None:
    expected = {str(one): [i for i, other in enumerate(values) if other == one] for one in sorted(values, key=str)}
    for column in (values, np.array(values), pd.Series(values), pd.Series(values, dtype="category"), tuple(values)):
        found = {value: rows.tolist() for value, rows in rows_by_value("column", column, 4)}
        assert found == expected
        assert list(found) == sorted(found)


def test_temperature_scaling_moves_the_tail_of_an_overconfident_model() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 2000)
    logits = 6.0 * (np.eye(3)[truth] + rng.normal(size=(2000, 3)))
    temperature = fit_temperature(logits, truth)
    found = calibrated_figures(logits, truth, temperature, level=0.8, resamples=50)
    assert (found.temperature, found.before.level, found.after.level) == (temperature, 0.8, 0.8)
    for figures, divisor in ((found.before, 1.0), (found.after, temperature)):
        assert figures == three_figures(cross_entropies(logits, truth, divisor), level=0.8, resamples=50)
    assert found.after.tail.high < found.before.tail.low
    assert found.after.mean.value < found.before.mean.value


@pytest.mark.parametrize("losses", [[0.0], [1e6], [0.3] * 50, [0.0] * 30 + [1e6], [1e6] * 70_000])
def test_one_row_equal_rows_and_extreme_rows(losses: list[float]) -> None:
    figures = three_figures(losses, resamples=20)
    for interval, value in (
        (figures.mean, np.mean(losses)),
        (figures.tail, cvar(losses, 0.9)),
        (figures.stability, np.std(losses)),
    ):
        assert interval.value == pytest.approx(value, abs=1e-9 * max(losses))
        assert interval.low <= interval.value + 1e-9 * max(losses)
        assert interval.high >= interval.value - 1e-9 * max(losses)
    if len(set(losses)) == 1:
        assert figures.stability.high <= 1e-9 * max(losses)


@settings(max_examples=20)
@given(st.floats(0.01, 100.0), st.integers(0, 1000))
def test_figures_scale_with_the_unit_resamples_included(factor: float, seed: int) -> None:
    losses = np.random.default_rng(seed).gamma(0.5, 1.0, 200)
    plain, scaled = (three_figures(losses * k, resamples=20, seed=seed) for k in (1.0, factor))
    for name in ("mean", "tail", "stability"):
        one, other = getattr(plain, name), getattr(scaled, name)
        assert (other.value, other.low, other.high) == pytest.approx(
            (one.value * factor, one.low * factor, one.high * factor)
        )


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: three_figures([]), "losses"),
        (lambda: three_figures([[1.0]]), "losses"),
        (lambda: three_figures([1.0, np.nan]), "losses: 1 of 2 are not finite, the first at row 1"),
        (lambda: three_figures([1.0], level=1.0), "level"),
        (lambda: three_figures([1.0], resamples=0), "resamples"),
        (lambda: three_figures([1.0], confidence=1.0), "confidence"),
        (lambda: three_figures([1.0], seed=-1), "seed"),
        (lambda: cvar([1.0], -0.1), "level"),
        (lambda: tail_curve([1.0], [0.5, 1.0]), "levels: 1.0"),
        (lambda: tail_curve([1.0], [[0.5]]), "levels: shape"),
        (lambda: tail_curve([np.inf], [0.5]), "losses"),
        (lambda: figures_by_slice([1.0], {"m": ["a"]}, min_rows=0), "min_rows"),
        (lambda: figures_by_slice([1.0], {"m": ["a", "b"]}), "slices: 'm' has shape"),
        (lambda: calibrated_figures([[0.0, 1.0]], [0], 0.0), "temperature"),
        (lambda: calibrated_figures([[0.0, 1.0]], [2], 1.0), "labels"),
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
