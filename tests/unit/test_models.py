"""Networks by name, temperature scaling, and what importing the package costs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from softad.calibration import HIGHEST, LOWEST, cross_entropies, fit_temperature, log_probabilities
from softad.models import build_model, describe


@pytest.mark.parametrize(
    ("name", "inputs", "image"),
    [("linear", (5,), None), ("mlp", (5,), None), ("mlp", (3, 8, 8), None), ("cnn", (3, 8, 8), None),
     ("cnn", (1, 40, 24), None), ("cnn", (3 * 64 + 2,), (3, 8, 8))],
)  # fmt: skip
def test_networks_give_one_output_a_class(name: str, inputs: tuple[int, ...], image) -> None:
    network = build_model(name, inputs=inputs, outputs=4, image=image, seed=0)
    assert network(torch.zeros(7, *inputs)).shape == (7, 4)
    assert network(torch.zeros(1, *inputs)).shape == (1, 4)
    size = describe(network)
    assert size.parameters == sum(weight.numel() for weight in network.parameters())
    assert 0 < size.seconds_per_row < 1


def test_initial_weights_are_fixed_by_the_seed_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build_model("mlp", inputs=(3,), outputs=2, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again, other = (build_model("mlp", inputs=(3,), outputs=2, seed=seed) for seed in (5, 6))
    assert torch.equal(first[1].weight, again[1].weight)
    assert not torch.equal(first[1].weight, other[1].weight)


def test_a_batch_does_not_change_a_rows_output() -> None:
    network = build_model("cnn", inputs=(3, 8, 8), outputs=2, seed=0)
    rows = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(rows)[2:3], network(rows[2:3]))


def test_describe_wants_to_know_the_shape_of_a_row() -> None:
    with pytest.raises(ValueError, match="inputs: None"):
        describe(torch.nn.Linear(3, 2))
    assert describe(torch.nn.Linear(3, 2), inputs=(3,)).parameters == 8


@pytest.mark.parametrize(
    "name", ["forest", "os:path", "softad.models:nothing", "no_such_module:make", ":", "softad.models:"]
)
def test_unknown_networks_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"^name: "):
        build_model(name, inputs=(3,), outputs=2)


@given(st.floats(0.3, 5.0), st.integers(0, 1000))
def test_the_temperature_is_the_minimum_of_the_cross_entropy(scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(200, 3))
    labels = np.array([rng.choice(3, p=np.exp(row)) for row in log_probabilities(logits)])
    found = fit_temperature(scale * logits, labels)
    best = minimize_scalar(
        lambda log: cross_entropies(scale * logits, labels, float(np.exp(log))).mean(),
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert cross_entropies(scale * logits, labels, found).mean() == pytest.approx(best.fun, abs=1e-9)
    assert LOWEST <= found <= HIGHEST


def test_the_temperature_of_rows_without_a_finite_optimum_is_bounded() -> None:
    assert fit_temperature([[5.0, 0.0], [0.0, 5.0]], [0, 1]) == LOWEST
    assert fit_temperature([[5.0, 0.0], [0.0, 5.0]], [1, 0]) == HIGHEST
    assert fit_temperature(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])) == HIGHEST


@pytest.mark.parametrize(
    ("logits", "labels", "temperature", "name"),
    [
        (np.zeros((2, 2)), [0, 2], 1.0, "labels"),
        (np.zeros((2, 2)), [0, -1], 1.0, "labels"),
        (np.zeros((2, 2)), [0.0, 1.0], 1.0, "labels"),
        (np.zeros((2, 2)), [0], 1.0, "labels"),
        (np.zeros(2), [0, 1], 1.0, "logits"),
        (np.zeros((0, 2)), [], 1.0, "logits"),
        (np.array([[np.inf, 0.0]]), [0], 1.0, "logits"),
        (np.zeros((1, 2)), [0], 0.0, "temperature"),
    ],
)
def test_logits_and_labels_that_do_not_fit_are_named(logits, labels, temperature: float, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: .*; allowed: "):
        cross_entropies(logits, labels, temperature)


def test_importing_the_package_imports_nothing_until_a_name_is_used() -> None:
    code = """
import sys, softad
assert "torch" not in sys.modules and "numpy" not in sys.modules
assert "SoftAD" in dir(softad) and set(softad.__all__) <= set(dir(softad))
from softad import SoftAD, CVaR, ChiSquareDRO, Tilted, Flooding, IFlood, Mean
assert "torch" in sys.modules and "pandas" not in sys.modules
try:
    softad.SoftDA
except AttributeError as error:
    assert "SoftAD" in str(error)
else:
    raise AssertionError("a name that does not exist")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
