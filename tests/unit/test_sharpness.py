"""SAM and SharpDRO against explicit gradients, and as torch optimisers: state, schedules, buffers, frameworks."""

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
from torch.optim import SGD, Adam

from softad.sharpness import SAM, SharpDRO, severity_bins


def network(norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), *([nn.BatchNorm1d(8)] if norm else []), nn.ReLU(), nn.Linear(8, 3))


def batch(rows: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, 4, generator=generator), torch.randint(3, (rows,), generator=generator)


def closure_of(model: nn.Module, zero: bool = True) -> Callable[[], Tensor]:
    x, y = batch()

    def closure() -> Tensor:
        if zero:
            model.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    return closure


def rows_of(model: nn.Module) -> Callable[[], Tensor]:
    x, y = batch()
    return lambda: nn.functional.cross_entropy(model(x), y, reduction="none")


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# --- SAM ---


@pytest.mark.parametrize("zero", [True, False])
def test_sam_steps_along_the_closed_form_gradient_of_a_quadratic(zero: bool) -> None:
    curvature = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)
    w = [nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64)), nn.Parameter(torch.ones(1, dtype=torch.float64))]
    start = torch.cat([p.detach().clone() for p in w])
    optimizer = SAM(SGD([{"params": [w[0]]}, {"params": [w[1]], "lr": 0.5}], lr=0.1), radius=0.3)

    def closure() -> Tensor:
        if zero:
            optimizer.zero_grad()
        loss = (curvature * torch.cat([w[0], w[1]]).square()).sum() / 2
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    gradient = curvature * start
    there = curvature * (start + 0.3 * gradient / gradient.norm())  # one norm over both groups
    expected = start - torch.tensor([0.1, 0.1, 0.5], dtype=torch.float64) * there
    torch.testing.assert_close(torch.cat([p.detach() for p in w]), expected)
    assert loss.item() == pytest.approx(float((curvature * start.square()).sum() / 2))


def test_weights_are_restored_bit_for_bit_also_after_an_error() -> None:
    model = network()
    optimizer = SAM(SGD(model.parameters(), lr=0.0), radius=1e3)
    before, seen = copy.deepcopy(model), []
    inner = closure_of(model)

    def closure() -> Tensor:
        seen.append(same(model, before))
        return inner()

    optimizer.step(closure)
    assert seen == [True, False]
    assert same(model, before)

    def failing() -> Tensor:
        if not same(model, before):
            raise KeyError("second pass")
        return inner()

    with pytest.raises(KeyError, match="second pass"):
        optimizer.step(failing)
    assert same(model, before)


def test_without_a_gradient_nothing_is_perturbed() -> None:
    w = nn.Parameter(torch.tensor([3.0, -1.0]))
    optimizer = SAM(SGD([w], lr=0.1, weight_decay=0.5), radius=0.1)
    calls = []

    def closure() -> Tensor:
        calls.append(w.detach().clone())
        loss = (0.0 * w).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert all(torch.equal(seen, torch.tensor([3.0, -1.0])) for seen in calls)
    torch.testing.assert_close(w.detach(), torch.tensor([3.0, -1.0]) * 0.95)


@pytest.mark.parametrize("base", [lambda p: SGD(p, lr=0.1, momentum=0.9), lambda p: Adam(p, lr=0.01)])
def test_radius_zero_is_the_wrapped_optimiser_bit_for_bit(base: Callable[..., torch.optim.Optimizer]) -> None:
    plain, wrapped, grouped = network(True), network(True), network(True)
    optimizers = [
        base(plain.parameters()),
        SAM(base(wrapped.parameters()), radius=0.0),
        SharpDRO(base(grouped.parameters()), radius=0.0, groups=1),
    ]
    for _ in range(5):
        expected = optimizers[0].step(closure_of(plain))
        assert torch.equal(optimizers[1].step(closure_of(wrapped)), expected)
        loss = optimizers[2].step(rows_of(grouped), torch.zeros(12, dtype=torch.int64))
        torch.testing.assert_close(loss, expected.detach())
    assert same(plain, wrapped)
    assert same(plain, grouped)


@pytest.mark.parametrize("sharp", ["sam", "dro"])
@pytest.mark.parametrize("layer", [nn.BatchNorm1d(4), nn.InstanceNorm1d(4, track_running_stats=True)])
def test_running_statistics_are_those_of_one_pass(sharp: str, layer: nn.Module) -> None:
    model = nn.Sequential(copy.deepcopy(layer), nn.Flatten(), nn.Linear(20, 1))
    once, twice = copy.deepcopy(model), copy.deepcopy(model)
    x = torch.randn(6, 4, 5)
    once(x)

    def step(model: nn.Module, given: nn.Module | None) -> None:
        base = SGD(model.parameters(), lr=0.0)
        if sharp == "dro":
            groups = torch.tensor([0, 0, 1, 1, 2, 2])
            SharpDRO(base, groups=3, model=given).step(lambda: model(x).square().squeeze(1), groups)
            return

        def closure() -> Tensor:
            loss = model(x).square().mean()
            loss.backward()
            return loss

        SAM(base, model=given).step(closure)

    step(model, model)
    step(twice, None)
    assert same(model, once)
    assert not same(twice, once)  # or the test would see nothing


@pytest.mark.parametrize("kind", ["sam", "dro"])
def test_state_goes_round_and_training_continues_as_if_never_stopped(kind: str) -> None:
    groups = torch.arange(12) % 3

    def start(model: nn.Module) -> tuple[torch.optim.Optimizer, Callable[[], Tensor]]:
        base = SGD(model.parameters(), lr=0.1, momentum=0.9)
        if kind == "sam":
            sam = SAM(base)
            return sam, lambda: sam.step(closure_of(model))
        dro = SharpDRO(base, groups=3, step_size=0.5)
        return dro, lambda: dro.step(rows_of(model), groups)

    model = network()
    optimizer, step = start(model)
    for _ in range(3):
        step()
    resumed = copy.deepcopy(model)
    second, step_second = start(resumed)
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    copied_model, copied = copy.deepcopy((model, optimizer))
    for _ in range(3):
        step()
        step_second()
        copied.step(*((closure_of(copied_model),) if kind == "sam" else (rows_of(copied_model), groups)))
    assert same(model, resumed)
    assert same(model, copied_model)
    if kind == "dro":
        assert torch.equal(optimizer.group_weights, second.group_weights)
        assert not torch.equal(optimizer.group_weights, torch.full((3,), 1 / 3, dtype=torch.float64))
        with pytest.raises(ValueError, match="log_group_weights; allowed: 3"):
            second.load_state_dict(second.base_optimizer.state_dict())


def test_a_schedule_and_added_groups_reach_the_wrapped_optimiser() -> None:
    model, extra = network(), nn.Parameter(torch.ones(2))
    base = SGD(model.parameters(), lr=0.1)
    optimizer = SAM(base)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    optimizer.step(closure_of(model))
    scheduler.step()
    assert base.param_groups[0]["lr"] == pytest.approx(0.05)
    optimizer.add_param_group({"params": [extra], "lr": 1.0})
    assert base.param_groups[1]["params"][0] is extra
    optimizer.load_state_dict(optimizer.state_dict())
    assert base.param_groups is optimizer.param_groups
    assert base.state is optimizer.state


def test_frozen_and_unused_parameters_stay() -> None:
    for kind in ("sam", "dro"):
        model, unused = network(), nn.Parameter(torch.ones(2))
        model[0].weight.grad = torch.ones_like(model[0].weight)  # left over from before it was frozen
        model[0].weight.requires_grad_(False)
        before = copy.deepcopy(model)
        base = SGD([{"params": [*model.parameters()]}, {"params": [unused]}], lr=0.1, weight_decay=0.1)
        if kind == "sam":
            SAM(base).step(closure_of(model, zero=False))
        else:
            model[0].weight.grad = None
            SharpDRO(base, groups=2).step(rows_of(model), torch.arange(12) % 2)
        assert torch.equal(model[0].weight, before[0].weight)
        assert torch.equal(unused.detach(), torch.ones(2))
        assert not torch.equal(model[2].weight, before[2].weight)


def test_sam_in_skorch_with_batch_norm() -> None:
    skorch = pytest.importorskip("skorch")
    x, y = batch(64)

    def fitted(radius: float) -> nn.Module:
        net = skorch.NeuralNetClassifier(
            network(True),
            criterion=nn.CrossEntropyLoss,
            optimizer=lambda params, lr: SAM(SGD(params, lr=lr, momentum=0.9), radius=radius, model=net.module_),
            lr=0.1,
            max_epochs=10,
            batch_size=32,
            train_split=None,
            iterator_train__shuffle=False,
            verbose=0,
        )
        net.fit(x.numpy(), y.numpy())
        losses = net.history[:, "train_loss"]
        assert losses[-1] < losses[0]
        return net.module_

    sharp, plain = fitted(0.05), fitted(0.0)
    assert not same(sharp, plain)
    assert int(sharp[1].num_batches_tracked) == int(plain[1].num_batches_tracked) == 20


def test_half_precision_gradients_do_not_overflow_the_norm() -> None:
    w = nn.Parameter(torch.full((16,), 1.0, dtype=torch.float16))
    optimizer = SAM(SGD([w], lr=0.0), radius=1.0)
    seen = []

    def closure() -> Tensor:
        seen.append(w.detach().clone())
        loss = (w * 3e4).sum()  # finite in float16, the norm of 16 is not
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(seen[1], torch.full((16,), 1.25, dtype=torch.float16))


# --- SharpDRO ---


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


# --- errors ---


def test_errors_of_construction() -> None:
    model = network()
    base = SGD(model.parameters(), lr=0.1)
    for radius in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="radius"):
            SAM(base, radius=radius)
        with pytest.raises(ValueError, match="radius"):
            SharpDRO(base, groups=2, radius=radius)
    for wrong in (torch.optim.LBFGS(model.parameters()), SAM(base), "sgd"):
        with pytest.raises(ValueError, match="base_optimizer"):
            SAM(wrong)  # type: ignore[arg-type]
    for groups in (0, 1.5, True):
        with pytest.raises(ValueError, match="groups"):
            SharpDRO(base, groups=groups)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="step_size"):
        SharpDRO(base, groups=2, step_size=-1.0)


def test_errors_of_a_step() -> None:
    model = network()
    sam = SAM(SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="closure: None"):
        sam.step()
    with pytest.raises(ValueError, match="calls backward"):
        sam.step(lambda: model(batch()[0]).sum())
    embedding = nn.Embedding(3, 2, sparse=True)
    with pytest.raises(ValueError, match="sparse"):
        SAM(SGD(embedding.parameters(), lr=0.1)).step(lambda: embedding(torch.tensor([1])).sum().backward())

    dro = SharpDRO(SGD(model.parameters(), lr=0.1), groups=2)
    good = torch.arange(12) % 2
    for closure, groups, message in (
        (None, good, "closure, groups"),
        (rows_of(model), None, "closure, groups"),
        (rows_of(model), good[:-1], "groups: shape"),
        (rows_of(model), good.float(), "dtype"),
        (rows_of(model), good + 1, r"from 1 to 2; allowed: \[0, 2\)"),
        (rows_of(model), good - 1, "from -1"),
        (lambda: rows_of(model)().mean(), good, "one loss a row"),
        (lambda: rows_of(model)().detach(), good, "without a graph"),
        (lambda: torch.where(torch.arange(12) == 7, math.inf, rows_of(model)()), good, "row 7 has loss inf"),
    ):
        with pytest.raises(ValueError, match=message):
            dro.step(closure, groups)
    for severity, bins, message in (([], 2, "shape"), ([1.0, math.nan], 2, "row 1"), ([1.0], 0, "bins")):
        with pytest.raises(ValueError, match=message):
            severity_bins(severity, bins)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_an_error_and_changes_nothing(value: float) -> None:
    w = nn.Parameter(torch.tensor([1.0, 2.0]))
    w_before = w.detach().clone()

    def rows() -> Tensor:
        w.register_hook(lambda gradient: gradient * value)  # the loss itself stays finite
        return w.square()

    def closure() -> Tensor:
        loss = rows().mean()
        loss.backward()
        return loss

    with pytest.raises(FloatingPointError, match="norm"):
        SAM(SGD([w], lr=0.1)).step(closure)
    dro = SharpDRO(SGD([w], lr=0.1), groups=2)
    with pytest.raises(FloatingPointError, match="norm"):
        dro.step(rows, torch.tensor([0, 1]))
    assert torch.equal(w.detach(), w_before)
    assert dro.group_weights.tolist() == [0.5, 0.5]
