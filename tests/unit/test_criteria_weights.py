"""Sample weights, the automatic level, and what makes a criterion a well-behaved module."""

from __future__ import annotations

import copy
import math
import pickle

import cvxpy
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import nn

from softad.criteria import AUTO_SHARE, ChiSquareDRO, Criterion, CVaR, Flooding, IFlood, Mean, SoftAD, Tilted
from softad.objectives import chi_square_weights

values = st.floats(0.0, 50.0, allow_nan=False, width=32)
weighted_rows = st.lists(
    st.tuples(st.one_of(values, st.sampled_from([0.0, 1.0, 3.0])), st.integers(0, 4)), min_size=1, max_size=15
).filter(lambda rows: any(weight for _, weight in rows))

CRITERIA = [
    Mean(), CVaR(0.0), CVaR(0.35), CVaR(0.9), ChiSquareDRO(0.0), ChiSquareDRO(0.3), ChiSquareDRO(8.0), Tilted(0.8),
    Tilted(-0.8), Flooding(0.4), IFlood(0.4, 0.7), SoftAD(0.4, 0.7), SoftAD(0.4),
    *[SoftAD(0.4, 0.7, transform=over, reading=reading)
      for over in (Mean(), CVaR(0.35), ChiSquareDRO(0.3), Tilted(1.5)) for reading in ("aggregate", "pointwise")],
]  # fmt: skip


def gradient(criterion: Criterion, losses: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    free = losses.clone().requires_grad_(True)
    (found,) = torch.autograd.grad(criterion(free, weights), free)
    return found


@pytest.mark.parametrize("criterion", CRITERIA, ids=repr)
@given(rows=weighted_rows)
@settings(max_examples=40, deadline=None)
def test_a_whole_weight_is_that_many_equal_rows(criterion: Criterion, rows: list[tuple[float, int]]) -> None:
    losses = torch.tensor([loss for loss, _ in rows], dtype=torch.float64)
    weights = torch.tensor([weight for _, weight in rows])
    repeated = losses.repeat_interleave(weights)
    assert float(criterion(losses, weights)) == pytest.approx(float(criterion(repeated)), rel=1e-9, abs=1e-9)
    pulled = torch.zeros_like(losses).index_add_(
        0, torch.arange(len(rows)).repeat_interleave(weights), gradient(criterion, repeated)
    )
    np.testing.assert_allclose(gradient(criterion, losses, weights), pulled, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("criterion", CRITERIA, ids=repr)
def test_only_the_proportions_of_weights_count(criterion: Criterion) -> None:
    losses = torch.tensor([0.1, 2.0, 0.7, 5.0])
    weights = torch.tensor([1.0, 0.5, 2.0, 0.25])
    assert float(criterion(losses, 8 * weights)) == pytest.approx(float(criterion(losses, weights)))


@given(rows=weighted_rows, level=st.floats(0.0, 0.99))
@settings(deadline=None)
def test_weighted_cvar_is_the_value_of_its_linear_programme(rows: list[tuple[float, int]], level: float) -> None:
    losses = np.array([loss for loss, _ in rows])
    shares = np.array([weight for _, weight in rows], dtype=float) / sum(weight for _, weight in rows)
    best = linprog(-losses, A_eq=np.ones((1, losses.size)), b_eq=[1.0], bounds=[(0, p / (1 - level)) for p in shares])
    found = CVaR(level)(torch.tensor(losses), torch.tensor(shares))
    assert float(found) == pytest.approx(-best.fun, rel=1e-7, abs=1e-7)


@given(rows=weighted_rows, radius=st.floats(0.01, 10.0))
@settings(max_examples=30, deadline=None)
def test_weighted_chi_square_is_the_value_of_its_convex_programme(rows: list[tuple[float, int]], radius: float) -> None:
    kept = [(loss, weight) for loss, weight in rows if weight]
    losses = np.array([loss for loss, _ in kept])
    shares = np.array([weight for _, weight in kept], dtype=float) / sum(weight for _, weight in kept)
    density = cvxpy.Variable(losses.size, nonneg=True)
    ball = [shares @ density == 1, shares @ cvxpy.square(density - 1) / 2 <= radius]
    problem = cvxpy.Problem(cvxpy.Maximize((shares * losses) @ density), ball)
    problem.solve(solver=cvxpy.CLARABEL)
    found = ChiSquareDRO(radius)(torch.tensor(losses), torch.tensor(shares))
    assert float(found) == pytest.approx(problem.value, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("criterion", [CVaR(0.5), ChiSquareDRO(0.5), Tilted(2.0)], ids=repr)
def test_a_row_without_weight_changes_nothing_however_hard(criterion: Criterion) -> None:
    losses, weights = torch.tensor([0.1, 2.0, 1e6]), torch.tensor([1.0, 3.0, 0.0])
    assert float(criterion(losses, weights)) == pytest.approx(float(criterion(losses[:2], weights[:2])), rel=1e-5)
    assert float(gradient(criterion, losses, weights)[2]) == 0.0


@pytest.mark.parametrize(
    "losses", [[0.0], [0.0] * 5, [1e6], [1e6] * 4, [0.0, 1e6], [3.0] * 1000], ids=lambda v: str(v[:2])
)
@pytest.mark.parametrize("criterion", CRITERIA, ids=repr)
def test_extreme_losses_give_finite_values_and_gradients(criterion: Criterion, losses: list[float]) -> None:
    given_losses = torch.tensor(losses)
    assert math.isfinite(float(criterion(given_losses)))
    assert bool(torch.isfinite(gradient(criterion, given_losses)).all())


@pytest.mark.parametrize("criterion", [ChiSquareDRO(5.0), ChiSquareDRO(0.1), CVaR(0.9), Tilted(1.0)], ids=repr)
@pytest.mark.parametrize("losses", [[2.0], [2.0] * 7, [1e6] * 3])
def test_equal_losses_still_train(criterion: Criterion, losses: list[float]) -> None:
    assert float(gradient(criterion, torch.tensor(losses)).sum()) == pytest.approx(1.0, rel=1e-5)


def test_softad_can_be_differentiated_twice() -> None:
    losses = torch.tensor([0.1, 0.9, 4.0], dtype=torch.float64, requires_grad=True)
    criterion = SoftAD(0.4, 0.7)
    assert torch.autograd.gradcheck(criterion, (losses,))
    value = float(criterion(losses).detach())
    criterion.twice_differentiable = True
    assert float(criterion(losses).detach()) == pytest.approx(value)
    assert torch.autograd.gradcheck(criterion, (losses,))
    assert torch.autograd.gradgradcheck(criterion, (losses,))


@given(
    losses=st.lists(st.one_of(values, st.sampled_from([0.0, 1.0, 3.0])), min_size=1, max_size=40),
    radius=st.floats(0.001, 50.0),
)
@settings(deadline=None)
def test_both_ways_to_the_chi_square_weights_agree(losses: list[float], radius: float) -> None:
    vector = torch.tensor(losses, dtype=torch.float64)
    quick, general = (
        chi_square_weights(vector, radius),
        chi_square_weights(vector[None], torch.tensor([[radius]], dtype=torch.float64))[0],
    )
    assert float(torch.dot(quick, vector)) == pytest.approx(float(torch.dot(general, vector)), rel=1e-7, abs=1e-9)
    assert float(quick.sum()) == pytest.approx(1.0) and float(quick.min()) >= 0.0


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_losses_in_half_precision_are_taken(kind: torch.dtype) -> None:
    losses = torch.tensor([0.1, 0.9, 4.0])
    half = SoftAD(0.4, 0.7)(losses.to(kind))
    assert half.dtype == kind
    assert float(half) == pytest.approx(float(SoftAD(0.4, 0.7)(losses)), rel=0.02)


def test_the_automatic_level_is_a_share_of_the_losses_seen() -> None:
    criterion = SoftAD(theta="auto")
    assert criterion.theta == "auto"
    criterion(torch.tensor([1.0, 3.0]))
    assert criterion.theta == pytest.approx(2 * AUTO_SHARE)
    criterion(torch.tensor([10.0, 30.0]))  # the level does not run after every batch
    assert criterion.theta == pytest.approx(2 * AUTO_SHARE)
    criterion.observe(torch.tensor([4.0]))  # held-out rows outrank the first batch
    assert criterion.theta == pytest.approx(4 * AUTO_SHARE)
    criterion.observe(torch.tensor([1.0]))
    criterion.observe(torch.tensor([5.0]))  # losses that grow again are no reason to be content with more
    assert criterion.theta == pytest.approx(AUTO_SHARE)
    criterion.observe(torch.tensor([math.nan]))
    assert criterion.theta == pytest.approx(AUTO_SHARE)


def test_the_automatic_level_goes_on_from_its_state() -> None:
    criterion, other = SoftAD(theta="auto"), SoftAD(theta="auto")
    assert criterion.state() == {}
    criterion.observe(torch.tensor([2.0]))
    other.load_state(criterion.state())
    other.observe(torch.tensor([3.0]))
    assert other.theta == criterion.theta == pytest.approx(2 * AUTO_SHARE)
    scaled = SoftAD(theta=0.1, sigma="auto")
    assert scaled.sigma == "auto" and scaled.scale == 1.0
    scaled.observe(torch.tensor([0.5, 1.5]))
    assert scaled.sigma == scaled.scale == 1.0 and scaled.theta == 0.1
    losses = torch.tensor([0.3, 0.9, 5.0])
    assert float(scaled(losses)) == pytest.approx(float(SoftAD(0.1, 1.0)(losses)))
    assert SoftAD(0.3).state() == Mean().state() == {}
    with pytest.raises(ValueError, match="state"):
        Mean().load_state({"theta": 1.0})


@pytest.mark.parametrize("criterion", CRITERIA, ids=repr)
def test_a_criterion_is_a_module_without_weights_of_its_own(criterion: Criterion) -> None:
    assert isinstance(criterion, nn.Module)
    assert list(criterion.parameters()) == []
    assert criterion.state_dict() == {}
    for copied in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion)), eval(repr(criterion))):
        assert copied == criterion and hash(copied) == hash(criterion)


def test_criteria_are_equal_where_their_parameters_are() -> None:
    assert SoftAD(0.3, transform=CVaR(0.9)) == SoftAD(0.3, transform=CVaR(0.9))
    assert SoftAD(0.3) != SoftAD(0.4)
    assert CVaR(0.5) != Flooding(0.5)
    assert len({Mean(), Mean(), CVaR(0.5), CVaR(0.5)}) == 2


@pytest.mark.parametrize(
    "weights", [torch.ones(2), torch.tensor([1.0, -1.0, 1.0]), torch.zeros(3), torch.tensor([1.0, math.nan, 1.0])]
)
def test_weights_that_do_not_fit_are_named(weights: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"weights: .*allowed"):
        CVaR(0.5)(torch.tensor([1.0, 2.0, 3.0]), weights)


@pytest.mark.parametrize("wrong", ["x", None, True, math.nan])
def test_a_parameter_that_is_no_number_is_named(wrong: object) -> None:
    for build, name in ((SoftAD, "theta"), (CVaR, "level"), (ChiSquareDRO, "radius"), (Tilted, "tilt")):
        with pytest.raises(ValueError, match=f"{name}: .*allowed"):
            build(wrong)
