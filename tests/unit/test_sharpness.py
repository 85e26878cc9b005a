"""SAM and SharpDRO against explicit gradients, and as torch optimisers: state, schedules, buffers, frameworks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from softad.sharpness import SAM, SharpDRO, severity_bins
from tests.unit.sharp_cases import batch, closure_of, network, rows_of, same

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
