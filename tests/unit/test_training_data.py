"""What a training is given: weights and groups as they are meant, and whatever does not fit named by argument."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from softad.models import build_model
from softad.training import fit
from softad.training_data import kept_rows, weights_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4)).astype(np.float32)
Y = np.arange(40) % 2


def spoiled(row: int, column: int, value: float) -> np.ndarray:
    x = X.copy()
    x[row, column] = value
    return x


@given(
    counts=st.lists(st.integers(1, 20), min_size=2, max_size=6),
    own=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_balanced_weights_give_each_class_that_occurs_the_same_total(counts: list[int], own: bool, seed: int) -> None:
    targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    sample = np.random.default_rng(seed).uniform(0.1, 3.0, targets.numel()) if own else None
    weights = weights_of(sample, "balanced", targets, classes=len(counts) + 2)
    assert weights is not None
    assert float(weights.mean()) == pytest.approx(1.0, rel=1e-5)
    totals = [float(weights[targets == number].sum()) for number in range(len(counts))]
    assert totals == pytest.approx([targets.numel() / len(counts)] * len(counts), rel=1e-4)
    if sample is not None:  # within a class in proportion to the rows' own
        first = weights[targets == 0] / torch.tensor(sample[: counts[0]])
        assert first.tolist() == pytest.approx([float(first[0])] * counts[0], rel=1e-4)


def test_weights_are_as_given_without_class_weights() -> None:
    assert weights_of(None, None, torch.tensor([0, 1]), classes=2) is None
    assert weights_of(np.array([2, 3]), None, torch.tensor([0, 1]), classes=2).tolist() == [2.0, 3.0]
    assert weights_of(None, [1.0, 3.0], torch.tensor([0, 1]), classes=2).tolist() == [0.5, 1.5]
    assert kept_rows(None) is kept_rows(torch.ones(3)) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": spoiled(3, 2, np.inf)}, r"features: .*\(inf\) in row 3, column 2; allowed: finite"),
        ({"features": spoiled(7, 0, np.nan)}, r"features: .*\(nan\) in row 7, column 0; allowed: finite"),
        ({"features": spoiled(5, 1, 1.0).astype(np.float64) * 1e60}, "features: .*in row 0, column 0"),
        ({"validation": (spoiled(9, 3, -np.inf), Y)}, r"validation: .*\(-inf\) in row 9, column 3"),
        ({"features": X[:, :3]}, r"features: rows of shape \(3,\) do not fit the model .*; allowed"),
        ({"validation": (X[:, :3], Y)}, r"validation: rows of shape \(3,\) do not fit the model .*; allowed"),
        ({"targets": Y + 1}, "targets: class numbers 1 to 2 for outputs .*; allowed: 0 to one less"),
        ({"targets": Y - 1}, "targets: class numbers -1 to 0"),
        ({"targets": Y.astype(float)}, "targets: dtype torch.float64 with cross-entropy; allowed: integer"),
        ({"targets": Y + 1, "base_loss": "focal"}, "targets: class numbers 1 to 2"),
        ({"targets": Y[:, None]}, r"targets: shape \(40, 1\); allowed: \(40,\)"),
        (
            {"targets": Y * 0, "class_weights": "balanced"},
            "class_weights: .* rows of one class only, class 0",
        ),
        ({"class_weights": "balanced", "sample_weights": Y}, "class_weights: .* one class only, class 1"),
        ({"class_weights": "even"}, "class_weights: 'even'; allowed"),
        ({"class_weights": [1.0, 2.0, 3.0]}, r"class_weights: shape \(3,\); allowed: \(2,\), one a class"),
        ({"class_weights": [1.0, -2.0]}, r"class_weights: -2.0 at 1; allowed"),
        ({"class_weights": [0.0, 0.0]}, "class_weights: all are 0"),
        ({"class_weights": [0.0, 1.0], "sample_weights": 1 - Y}, "class_weights: .* leaves no row a weight"),
        ({"sample_weights": np.ones(39)}, r"sample_weights: shape \(39,\); allowed: \(40,\), one a row"),
        ({"sample_weights": np.where(np.arange(40) == 6, -1.0, 1.0)}, "sample_weights: -1.0 at 6; allowed"),
        ({"sample_weights": np.where(np.arange(40) == 6, np.nan, 1.0)}, "sample_weights: nan at 6; allowed"),
        ({"sample_weights": np.zeros(40)}, "sample_weights: all are 0; allowed: a positive one"),
        ({"label_smoothing": 1.0}, r"label_smoothing: 1.0; allowed: \[0, 1\)"),
        ({"label_smoothing": 0.1, "base_loss": "focal"}, "label_smoothing: 0.1; allowed: 0, save with"),
        ({"schedule": "linear"}, "schedule: 'linear'; allowed: None, cosine, step"),
        ({"warmup": -1}, "warmup: -1; allowed: 0 or more"),
        ({"stop_on": "tail"}, "stop_on: 'tail'; allowed: \"mean\" where there are no validation rows"),
        ({"stop_on": "best", "validation": (X, Y)}, "stop_on: 'best'; allowed: mean, tail, stability, error"),
        ({"sharpness": -0.1}, r"sharpness: -0.1; allowed: \[0, inf\) or None"),
        ({"sharpness": math.nan}, "sharpness: nan"),
        ({"group_step": -1.0}, "group_step: -1.0"),
        ({"groups": Y}, "groups: .* sharpness None .*; allowed: with sharpness"),
        ({"groups": Y, "sharpness": 0.1, "criterion": torch.mean}, "groups: with criterion .*; allowed"),
        ({"groups": Y, "sharpness": 0.1, "sample_weights": np.ones(40)}, "groups: .*; allowed: with sharpness"),
        ({"groups": Y[:3], "sharpness": 0.1}, r"groups: shape \(3,\); allowed: \(40,\)"),
        ({"groups": Y - 1, "sharpness": 0.1}, "groups: torch.int64 from -1; allowed: integers from 0"),
        ({"groups": Y / 2, "sharpness": 0.1}, "groups: torch.float64 from 0.0; allowed: integers from 0"),
    ],
)
def test_what_does_not_fit_is_named(change, message: str) -> None:
    arguments = {"features": X, "targets": Y, "epochs": 1, **change}
    network = build_model("mlp", inputs=(4,), outputs=2, hidden=(4,), seed=0)
    before = network.training
    with pytest.raises(ValueError, match=f"^{message}"):
        fit(network, arguments.pop("features"), arguments.pop("targets"), **arguments)
    assert network.training == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": np.where(np.arange(40) == 4, np.nan, 1.0)}, r"targets: .*\(nan\) in row 4; allowed: finite"),
        ({"class_weights": "balanced"}, "class_weights: 'balanced' with regression; allowed: None"),
        ({"label_smoothing": 0.1}, "label_smoothing: 0.1; allowed: 0"),
        (
            {"stop_on": "error", "validation": (X, X[:, 0])},
            "stop_on: 'error' with regression; allowed: mean, tail",
        ),
        ({"base_loss": "quantile:2"}, r"base_loss: 'quantile:2' \(q: 2.0; allowed: \(0, 1\)\)"),
    ],
)
def test_what_does_not_fit_regression_is_named(change, message: str) -> None:
    arguments = {"targets": X[:, 0], "epochs": 1, "base_loss": "squared", **change}
    network = build_model("linear", inputs=(4,), outputs=1, seed=0)
    with pytest.raises(ValueError, match=f"^{message}"):
        fit(network, X, arguments.pop("targets"), **arguments)
