"""The objectives against their definitions: by linear programming, convex minimisation and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize_scalar

from softad.criteria import ChiSquareDRO, Criterion, CVaR, Flooding, IFlood, Mean, SoftAD, Tilted, rho, rho_slope

values = st.floats(0.0, 50.0, allow_nan=False, width=32)
rows = st.lists(values, min_size=1, max_size=30)
tied_rows = st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=20)
some_rows = st.one_of(rows, tied_rows)
levels = st.floats(0.0, 0.999)
thetas = st.floats(-3.0, 30.0)
sigmas = st.floats(0.05, 50.0)


def vector(losses: list[float]) -> torch.Tensor:
    return torch.tensor(losses, dtype=torch.float64)


def gradient(criterion: Criterion, losses: torch.Tensor) -> np.ndarray:
    free = losses.clone().requires_grad_(True)
    criterion(free).backward()
    assert free.grad is not None
    return free.grad.numpy()


def cvar_by_linear_programme(losses: list[float], level: float) -> float:
    """The worst reweighting: q_i <= 1 / ((1 - level) n), sum 1."""
    n = len(losses)
    result = linprog(
        -np.asarray(losses),
        A_eq=np.ones((1, n)),
        b_eq=[1.0],
        bounds=[(0.0, 1.0 / ((1.0 - level) * n))] * n,
        # The solver's own default, 1e-7 a bound, is as large as what the test asks.
        options={"primal_feasibility_tolerance": 1e-10},
    )
    assert result.status == 0
    return -float(result.fun)


def chi_square_by_search(losses: list[float], radius: float) -> float:
    data = np.asarray(losses)
    top, span = data.max(), np.ptp(data)

    def dual(t: float) -> float:
        return t + math.sqrt((1.0 + 2.0 * radius) * np.mean(np.maximum(data - t, 0.0) ** 2))

    # The minimiser lies at most span / sqrt(2 r) below the mean.
    low = data.mean() - 2.0 * span / math.sqrt(2.0 * radius) - 1.0
    best = minimize_scalar(dual, bounds=(low, top), method="bounded", options={"xatol": 1e-10})
    return min(best.fun, dual(top))


@given(some_rows, levels)
@example([10.0], 1e-8)
def test_cvar_is_the_value_of_its_linear_programme(losses: list[float], level: float) -> None:
    assert float(CVaR(level)(vector(losses))) == pytest.approx(cvar_by_linear_programme(losses, level), abs=1e-6)


@given(some_rows, levels)
def test_cvar_is_the_minimum_over_thresholds(losses: list[float], level: float) -> None:
    data = np.asarray(losses)
    by_threshold = min(t + np.maximum(data - t, 0.0).mean() / (1.0 - level) for t in losses)
    assert float(CVaR(level)(vector(losses))) == pytest.approx(by_threshold, abs=1e-9)
    t = float(CVaR(level).threshold(vector(losses)))
    assert t + np.maximum(data - t, 0.0).mean() / (1.0 - level) == pytest.approx(by_threshold, abs=1e-9)


@given(some_rows, levels)
def test_cvar_weights_are_a_capped_distribution(losses: list[float], level: float) -> None:
    weights = CVaR(level).weights(vector(losses)).numpy()
    assert weights.sum() == pytest.approx(1.0)
    assert weights.min() >= -1e-12
    assert weights.max() <= max(1.0 / ((1.0 - level) * len(losses)), 1.0 / len(losses)) + 1e-9
    np.testing.assert_allclose(gradient(CVaR(level), vector(losses)), weights)


def test_cvar_weights_the_fractional_row() -> None:
    # Of 10 rows, 2.5 are in the tail: two whole ones and half of the third.
    losses = torch.arange(10, dtype=torch.float64)
    assert float(CVaR(0.75)(losses)) == pytest.approx((9 + 8 + 0.5 * 7) / 2.5)
    np.testing.assert_allclose(gradient(CVaR(0.75), losses), [0, 0, 0, 0, 0, 0, 0, 0.2, 0.4, 0.4])


def test_cvar_at_a_whole_number_of_rows_ignores_rounding() -> None:
    # (1 - 0.9) * 10 rounds to just under 1: the threshold is the quantile all the same, one row lies above it.
    losses = torch.arange(10, dtype=torch.float64)
    assert float(CVaR(0.9)(losses)) == 9.0
    assert float(CVaR(0.9).threshold(losses)) == 8.0


def test_cvar_at_level_zero_is_the_mean_and_near_one_the_maximum() -> None:
    losses = vector([3.0, 1.0, 4.0, 1.0, 5.0])
    assert float(CVaR(0.0)(losses)) == pytest.approx(2.8)
    np.testing.assert_allclose(gradient(CVaR(0.0), losses), 0.2)
    assert float(CVaR(0.999)(losses)) == 5.0
    np.testing.assert_allclose(gradient(CVaR(0.9), vector([2.0, 2.0, 1.0])), [0.5, 0.5, 0.0])


@given(some_rows, st.floats(1e-3, 200.0))
@settings(max_examples=300)
def test_chi_square_is_the_minimum_of_its_dual(losses: list[float], radius: float) -> None:
    value = float(ChiSquareDRO(radius)(vector(losses)))
    assert value == pytest.approx(chi_square_by_search(losses, radius), rel=1e-6, abs=1e-6)


@given(some_rows, st.floats(0.0, 200.0))
@settings(max_examples=300)
def test_chi_square_weights_are_feasible_and_attain_the_value(losses: list[float], radius: float) -> None:
    data = vector(losses)
    weights = ChiSquareDRO(radius).weights(data).numpy()
    n = len(losses)
    assert weights.sum() == pytest.approx(1.0)
    assert weights.min() >= 0.0
    assert np.mean((n * weights - 1.0) ** 2) / 2.0 <= radius + 1e-6 * (1.0 + radius)
    np.testing.assert_allclose(gradient(ChiSquareDRO(radius), data), weights)


@pytest.mark.parametrize(
    ("losses", "radius", "expected"),
    [
        ([2.0], 5.0, [1.0]),
        ([1.0, 1.0, 1.0], 0.7, [1 / 3, 1 / 3, 1 / 3]),
        ([0.0, 4.0], 0.5, [0.0, 1.0]),  # (1 + 2r) k / n = 1
        ([0.0, 4.0, 4.0, 1.0], 10.0, [0.0, 0.5, 0.5, 0.0]),
        ([1.0, 2.0, 3.0], 0.0, [1 / 3, 1 / 3, 1 / 3]),
        ([0.0, 0.0, 0.0], 3.0, [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_chi_square_where_the_maxima_fill_the_ball(losses: list[float], radius: float, expected: list[float]) -> None:
    assert float(ChiSquareDRO(radius)(vector(losses))) == pytest.approx(float(np.dot(losses, expected)))
    np.testing.assert_allclose(gradient(ChiSquareDRO(radius), vector(losses)), expected, atol=1e-12)


def test_chi_square_with_nearly_tied_maxima_keeps_the_weight_there() -> None:
    losses = vector([1.0, 1.0 - 1e-9, 0.0, 0.0])
    weights = ChiSquareDRO(0.5).weights(losses).numpy()  # (1 + 2r) * 2 / 4 = 1
    np.testing.assert_allclose(weights, [0.5, 0.5, 0.0, 0.0], atol=1e-3)


@given(rows, st.floats(1e-3, 50.0), st.floats(1e-6, 1e6))
def test_chi_square_scales_and_shifts_with_the_losses(losses: list[float], radius: float, factor: float) -> None:
    data = vector(losses)
    plain = float(ChiSquareDRO(radius)(data))
    assert float(ChiSquareDRO(radius)(data * factor + 3.0)) == pytest.approx(plain * factor + 3.0, rel=1e-6)


def test_chi_square_of_a_million_rows_in_single_precision() -> None:
    losses = torch.rand(1_000_000, generator=torch.Generator().manual_seed(0)) + 100.0
    # Where no row falls below t the value is mean + sqrt(2 r var).
    wide = losses.double()
    expected = float(wide.mean() + (0.04 * wide.var(correction=0)).sqrt())
    assert float(ChiSquareDRO(0.02)(losses)) == pytest.approx(expected, abs=2e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [3, 300, 5000])
@pytest.mark.parametrize("sigma", [1e-25, 1e-12, 1.0, 1e12, 1e25])
@pytest.mark.parametrize("size", [0.0, 1e-25, 1e-6, 1.0, 1e12, 1e25])
def test_softad_in_single_precision_is_the_formula_at_any_scale(size: float, sigma: float, count: int) -> None:
    losses = torch.rand(count, generator=torch.Generator().manual_seed(1)) * size
    wide = losses.double()
    expected = sigma * ((wide / sigma) * (wide / (sigma + torch.hypot(wide, wide.new_tensor(sigma))))).mean() * sigma
    criterion = SoftAD(0.0, sigma)
    if float(expected) < 1e38:
        assert float(criterion(losses)) == pytest.approx(float(expected), rel=1e-5, abs=1e-38)
    pulls = sigma * wide / torch.hypot(wide, wide.new_tensor(sigma))
    np.testing.assert_allclose(gradient(criterion, losses) * count, pulls, rtol=1e-5, atol=max(1e-36, 1e-36 * sigma))


@given(rows, st.one_of(st.floats(-20.0, -1e-9), st.floats(1e-9, 20.0)))
def test_tilted_is_the_log_of_the_mean_exponential(losses: list[float], tilt: float) -> None:
    data = np.asarray(losses)
    anchor = data.max() if tilt > 0 else data.min()
    small = abs(tilt) * np.ptp(data) < 1e-4
    expected = (
        data.mean() + tilt * data.var() / 2
        if small
        else anchor + math.log(np.mean(np.exp(tilt * (data - anchor)))) / tilt
    )
    assert float(Tilted(tilt)(vector(losses))) == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(gradient(Tilted(tilt), vector(losses)), Tilted(tilt).weights(vector(losses)), atol=1e-9)


def test_tilted_neither_overflows_nor_loses_digits() -> None:
    assert float(Tilted(10.0)(torch.tensor([0.0, 1e4]))) == pytest.approx(1e4 - math.log(2.0) / 10.0)
    assert float(Tilted(-10.0)(torch.tensor([0.0, 1e4]))) == pytest.approx(math.log(2.0) / 10.0)
    assert float(Tilted(1e-7)(torch.tensor([1.0, 2.0, 6.0]))) == pytest.approx(3.0, abs=1e-5)


@given(rows, st.floats(-2.0, 30.0))
def test_flooding(losses: list[float], level: float) -> None:
    mean = float(np.mean(losses))
    assert float(Flooding(level)(vector(losses))) == pytest.approx(abs(mean - level) + level)
    sign = np.sign(float(vector(losses).mean()) - level)
    np.testing.assert_allclose(gradient(Flooding(level), vector(losses)), sign / len(losses))


@given(rows, thetas, sigmas)
def test_iflood(losses: list[float], theta: float, sigma: float) -> None:
    expected = sigma**2 * np.mean(np.abs((np.asarray(losses) - theta) / sigma))
    assert float(IFlood(theta, sigma)(vector(losses))) == pytest.approx(expected)


@given(st.floats(-1e12, 1e12))
def test_rho_and_its_slope(x: float) -> None:
    got = float(rho(torch.tensor(x, dtype=torch.float64)))
    assert got == pytest.approx(x**2 / (1.0 + math.sqrt(1.0 + x**2)), rel=1e-12)
    free = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    rho(free).backward()
    slope = float(rho_slope(free.detach()))
    assert float(free.grad) == pytest.approx(slope, abs=1e-12)
    assert abs(slope) <= 1.0


def test_rho_in_single_precision_at_both_ends() -> None:
    # sqrt(1 + x^2) - 1 would be 0 at 1e-4, and the square overflows at 1e25.
    assert float(rho(torch.tensor(1e-4))) == pytest.approx(5e-9, rel=1e-5)
    assert float(rho(torch.tensor(1e25))) == pytest.approx(1e25, rel=1e-5)
    free = torch.tensor([1e25, -1e25, 0.0], requires_grad=True)
    rho(free).sum().backward()
    assert free.grad is not None
    assert free.grad.tolist() == [1.0, -1.0, 0.0]


@given(rows, thetas, sigmas, st.floats(-2.0, 2.0))
def test_softad_value_and_row_weights(losses: list[float], theta: float, sigma: float, eta: float) -> None:
    x = (np.asarray(losses) - theta) / sigma
    expected = eta * theta + sigma**2 * np.mean(x**2 / (1.0 + np.sqrt(1.0 + x**2)))
    criterion = SoftAD(theta, sigma, eta)
    data = vector(losses)
    assert float(criterion(data)) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    weights = criterion.row_weights(data).numpy()
    assert (np.abs(weights) < sigma).all() or np.abs(x).max() > 1e7
    assert (np.sign(weights) == np.sign(x)).all()
    np.testing.assert_allclose(gradient(criterion, data) * len(losses), weights, rtol=1e-9, atol=1e-12)


@given(
    st.lists(st.floats(0, 2.0**100, width=32), min_size=1, max_size=20), st.floats(-1e3, 1e3), st.floats(0.01, 100.0)
)
def test_no_row_pulls_harder_than_sigma_in_single_precision(losses: list[float], theta: float, sigma: float) -> None:
    weights = SoftAD(theta, sigma).row_weights(torch.tensor(losses, dtype=torch.float32))
    assert torch.isfinite(weights).all()
    assert (weights.abs() <= np.float32(sigma) * (1 + 1e-6)).all()


def test_softad_with_theta_far_below_is_sigma_times_erm() -> None:
    losses = vector([0.1, 2.0, 7.0])
    np.testing.assert_allclose(gradient(SoftAD(-1e9, 3.0), losses), 3.0 * gradient(Mean(), losses), rtol=1e-12)


def test_softad_with_a_wide_scale_is_half_the_mean_squared_deviation() -> None:
    losses = vector([0.1, 2.0, 7.0])
    expected = 0.5 * float(((losses - 0.4) ** 2).mean())
    assert float(SoftAD(0.4, 1e5, eta=0.0)(losses)) == pytest.approx(expected, rel=1e-8)
    # Also in single precision, where the textbook form gives 0.
    assert float(SoftAD(0.4, 1e4, eta=0.0)(losses.float())) == pytest.approx(expected, rel=1e-5)


@given(some_rows, thetas, sigmas, levels)
def test_softad_over_cvar(losses: list[float], theta: float, sigma: float, level: float) -> None:
    data = vector(losses)

    def penalty(loss: np.ndarray) -> np.ndarray:
        x = (loss - theta) / sigma
        return sigma**2 * x**2 / (1.0 + np.sqrt(1.0 + x**2))

    tail = np.asarray(float(CVaR(level)(data)))
    aggregate = SoftAD(theta, sigma, transform=CVaR(level), reading="aggregate")
    assert float(aggregate(data)) == pytest.approx(float(penalty(tail)), rel=1e-9, abs=1e-9)
    t = float(CVaR(level).threshold(data))
    lifted = t + np.maximum(np.asarray(losses) - t, 0.0) / (1.0 - level)
    pointwise = SoftAD(theta, sigma, transform=CVaR(level), reading="pointwise")
    assert float(pointwise(data)) == pytest.approx(float(penalty(lifted).mean()), rel=1e-9, abs=1e-9)


@given(some_rows, thetas, sigmas)
def test_softad_pointwise_over_the_mean_and_cvar_zero_pulls_like_softad(
    losses: list[float], theta: float, sigma: float
) -> None:
    data = vector(losses)
    plain = SoftAD(theta, sigma).row_weights(data)
    mean = SoftAD(theta, sigma, transform=Mean(), reading="pointwise").row_weights(data)
    np.testing.assert_allclose(mean, plain, rtol=1e-9, atol=1e-12)
    over_cvar = SoftAD(theta, sigma, transform=CVaR(0.0), reading="pointwise").row_weights(data)
    lowest = data == data.min()  # at the threshold itself relu is flat
    np.testing.assert_allclose(over_cvar[~lowest], plain[~lowest], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("transform", [ChiSquareDRO(0.5), Tilted(0.7), Tilted(-0.3)])
def test_softad_over_weighted_transforms(transform: ChiSquareDRO | Tilted) -> None:
    losses = torch.tensor([0.1, 0.4, 2.0, 5.0, 0.2], dtype=torch.float64)
    theta, sigma = 0.5, 2.0
    x = (losses - theta) / sigma
    weights = transform.weights(losses)
    pointwise = SoftAD(theta, sigma, transform=transform, reading="pointwise")
    assert float(pointwise(losses)) == pytest.approx(float(sigma**2 * (weights * rho(x)).sum()))
    np.testing.assert_allclose(gradient(pointwise, losses), sigma * weights * rho_slope(x), rtol=1e-12)
    aggregate = SoftAD(theta, sigma, transform=transform, reading="aggregate")
    total = transform(losses)
    assert float(aggregate(losses)) == pytest.approx(float(sigma**2 * rho((total - theta) / sigma)))
    np.testing.assert_allclose(
        gradient(aggregate, losses), sigma * rho_slope((total - theta) / sigma) * weights, rtol=1e-9
    )


SMOOTH = [
    Mean(),
    CVaR(0.35),
    ChiSquareDRO(0.1),
    ChiSquareDRO(2.0),
    Tilted(0.8),
    Tilted(-0.8),
    Flooding(0.4),
    IFlood(0.4, 0.7),
    SoftAD(0.4, 0.7),
    SoftAD(0.4, 0.7, transform=CVaR(0.35)),
    SoftAD(0.4, 0.7, transform=ChiSquareDRO(0.3)),
    SoftAD(0.4, 0.7, transform=Tilted(1.5)),
    SoftAD(0.4, 0.7, transform=Mean()),
]


@pytest.mark.parametrize("criterion", SMOOTH, ids=repr)
def test_gradients_agree_with_finite_differences(criterion: Criterion) -> None:
    losses = torch.tensor([0.11, 1.7, 0.53, 4.2, 0.97, 2.4, 0.05], dtype=torch.float64)
    step = 1e-6
    numeric = [
        float(criterion(losses + step * unit) - criterion(losses - step * unit)) / (2 * step)
        for unit in torch.eye(7, dtype=torch.float64)
    ]
    np.testing.assert_allclose(gradient(criterion, losses), numeric, atol=1e-7)
    np.testing.assert_allclose(criterion.row_weights(losses), 7 * np.asarray(numeric), atol=1e-6)


@pytest.mark.parametrize("criterion", SMOOTH, ids=repr)
def test_the_order_of_rows_does_not_matter(criterion: Criterion) -> None:
    losses = torch.tensor([1.0, 1.0, 0.5, 4.0, 4.0, 0.5, 0.0], dtype=torch.float64)
    order = torch.tensor([4, 2, 6, 0, 3, 5, 1])
    assert float(criterion(losses[order])) == pytest.approx(float(criterion(losses)))
    np.testing.assert_allclose(gradient(criterion, losses[order]), gradient(criterion, losses)[order], atol=1e-12)


@pytest.mark.parametrize("criterion", SMOOTH, ids=repr)
def test_single_precision_stays_single_and_a_bad_loss_shows(criterion: Criterion) -> None:
    value = criterion(torch.tensor([0.1, 0.2, 3.0]))
    assert value.shape == ()
    assert value.dtype == torch.float32
    with pytest.raises(ValueError, match=r"losses: nan at row 1 \(1 of 3"):
        criterion(torch.tensor([0.1, math.nan, 0.3]))
    if criterion != Tilted(-0.8):  # an infinite loss weighs nothing there
        with pytest.raises(ValueError, match="losses: inf at row 2"):
            criterion(torch.tensor([0.1, 0.3, math.inf]))


@pytest.mark.parametrize("losses", [torch.zeros(0), torch.zeros(2, 2), torch.tensor(1.0), torch.tensor([1, 2])])
def test_losses_of_another_shape_or_type_are_refused(losses: torch.Tensor) -> None:
    for criterion in SMOOTH:
        with pytest.raises(ValueError, match="losses"):
            criterion(losses)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: CVaR(1.0), "level"),
        (lambda: CVaR(-0.1), "level"),
        (lambda: CVaR(math.nan), "level"),
        (lambda: ChiSquareDRO(-1.0), "radius"),
        (lambda: ChiSquareDRO(math.inf), "radius"),
        (lambda: Tilted(0.0), "tilt"),
        (lambda: Tilted(math.inf), "tilt"),
        (lambda: Flooding(math.nan), "level"),
        (lambda: IFlood(0.1, 0.0), "sigma"),
        (lambda: IFlood(math.inf), "theta"),
        (lambda: SoftAD(math.nan), "theta"),
        (lambda: SoftAD(0.1, -1.0), "sigma"),
        (lambda: SoftAD(0.1, eta=math.inf), "eta"),
        (lambda: SoftAD(0.1, transform=Flooding(0.1)), "transform"),
        (lambda: SoftAD(0.1, transform=CVaR(0.5), reading="both"), "reading"),
    ],
)
def test_arguments_out_of_range_are_named_with_what_is_allowed(build, name) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: .*; allowed: "):
        build()
