"""Base losses against their definitions, by name and number, and the plain loss that each is judged by."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from softad.row_losses import (
    absolute,
    cross_entropy,
    focal,
    huber,
    plain_loss,
    quantile,
    row_loss,
    smoothed,
    smoothed_cross_entropy,
    squared,
)


def logits_and_classes(seed: int, rows: int = 40, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    return (
        scale * torch.randn(rows, 4, generator=drawn, dtype=torch.float64),
        torch.randint(0, 4, (rows,), generator=drawn),
    )


@given(seed=st.integers(0, 10_000), gamma=st.floats(0.0, 6.0))
def test_focal_loss_is_its_definition_and_so_is_its_slope(seed: int, gamma: float) -> None:
    logits, classes = logits_and_classes(seed)
    true = torch.softmax(logits, dim=1)[torch.arange(40), classes]
    torch.testing.assert_close(focal(gamma)(logits, classes), (1 - true) ** gamma * -true.log())
    free = logits.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(focal(gamma)(free, classes).sum(), free)
    free = logits.clone().requires_grad_(True)
    likely = torch.softmax(free, dim=1)[torch.arange(40), classes]
    (wanted,) = torch.autograd.grad(((1 - likely) ** gamma * -likely.log()).sum(), free)
    torch.testing.assert_close(slope, wanted, rtol=1e-5, atol=1e-8)


def test_focal_loss_with_gamma_0_is_the_cross_entropy_to_the_bit() -> None:
    logits, classes = logits_and_classes(3)
    assert torch.equal(focal(0.0)(logits, classes), cross_entropy(logits, classes))


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("far", [50.0, 1e4])
def test_focal_loss_has_a_finite_slope_where_a_row_is_surely_right_or_wrong(gamma: float, far: float) -> None:
    logits = torch.tensor([[far, 0.0], [0.0, far]], requires_grad=True)
    losses = focal(gamma)(logits, torch.tensor([0, 0]))
    (slope,) = torch.autograd.grad(losses.sum(), logits)
    assert bool(torch.isfinite(slope).all())
    assert losses[1].item() == pytest.approx(far)
    assert slope[1].tolist() == pytest.approx([-1.0, 1.0])


@given(seed=st.integers(0, 10_000), eps=st.floats(0.0, 0.99))
def test_label_smoothing_is_torchs(seed: int, eps: float) -> None:
    logits, classes = logits_and_classes(seed)
    wanted = torch.nn.CrossEntropyLoss(reduction="none", label_smoothing=eps)(logits, classes)
    torch.testing.assert_close(smoothed_cross_entropy(eps)(logits, classes), wanted)
    by_hand = (1 - eps) * cross_entropy(logits, classes) - eps * torch.log_softmax(logits, 1).mean(1)
    torch.testing.assert_close(smoothed_cross_entropy(eps)(logits, classes), by_hand)


@given(
    output=st.floats(-1e3, 1e3), target=st.floats(-1e3, 1e3), q=st.floats(0.01, 0.99)
)  # fmt: skip
def test_quantile_loss_is_its_definition(output: float, target: float, q: float) -> None:
    found = float(quantile(q)(torch.tensor([[output]], dtype=torch.float64), torch.tensor([target]).double()))
    target = float(torch.tensor([target]))
    wanted = q * (target - output) if target >= output else (1 - q) * (output - target)
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def test_the_constant_of_least_quantile_loss_is_the_quantile() -> None:
    targets = torch.tensor(np.random.default_rng(0).exponential(size=1001))
    constants = torch.linspace(0, 6, 2001, dtype=torch.float64)
    losses = torch.stack([quantile(0.9)(value.expand(1001), targets).mean() for value in constants])
    assert float(constants[losses.argmin()]) == pytest.approx(float(targets.quantile(0.9)), abs=0.01)


def test_losses_by_name_and_number() -> None:
    for name, loss in (
        ("cross_entropy", cross_entropy),
        ("squared", squared),
        ("absolute", absolute),
        ("huber", huber),
    ):
        assert row_loss(name) is loss
        assert plain_loss(loss) is loss
    assert row_loss("focal") == focal(2.0)
    assert row_loss("focal:0.5") == row_loss(("focal", 0.5)) == focal(0.5)
    assert row_loss("quantile:0.1") == quantile(0.1) != quantile(0.2)
    assert row_loss(quantile(0.3)) == quantile(0.3)
    assert plain_loss(quantile(0.3)) == quantile(0.3)
    assert plain_loss(focal()) is plain_loss(smoothed_cross_entropy()) is cross_entropy
    assert smoothed(cross_entropy, 0.2) == smoothed_cross_entropy(0.2)
    assert smoothed(cross_entropy, 0.0) is cross_entropy
    assert smoothed(squared, 0.0) is squared


@pytest.mark.parametrize("choice", ["", "focus", "focal:", "focal:x", "focal:-1", "quantile", "quantile:1", "huber:2"])
def test_unknown_losses_are_named(choice: str) -> None:
    with pytest.raises(ValueError, match=rf"^base_loss: '{choice}'.*; allowed: .*quantile:Q"):
        row_loss(choice)


@pytest.mark.parametrize("choice", [("quantile", 0.0), ("quantile",), ("squared", 2), 3, None])
def test_pairs_that_are_no_loss_are_named(choice) -> None:
    with pytest.raises(ValueError, match=r"^base_loss: .*; allowed: "):
        row_loss(choice)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: focal(-0.1), "gamma"),
        (lambda: focal(math.inf), "gamma"),
        (lambda: quantile(0.0), "q"),
        (lambda: quantile(math.nan), "q"),
        (lambda: smoothed_cross_entropy(1.0), "eps"),
        (lambda: smoothed(cross_entropy, -0.1), "label_smoothing"),
        (lambda: smoothed(squared, 0.1), "label_smoothing"),
        (lambda: smoothed(focal(2.0), 0.1), "label_smoothing"),
    ],
)
def test_numbers_out_of_range_are_named(make, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: .*; allowed: "):
        make()
