"""What a stack is made of, against the single networks and criteria that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import stack_module_state

from softad.criteria import ChiSquareDRO, Criterion, CVaR, Flooding, IFlood, Mean, SoftAD, Tilted
from softad.models import build_model
from softad.stacked_network import StackedNetwork
from softad.stacked_objectives import StackedCriteria

MODELS = 3


def chain(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


class Beside(nn.Module):
    """A network that is no chain."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, rows: Tensor) -> Tensor:
        return self.left(rows) * torch.sigmoid(self.right(rows))


NETWORKS = {
    "linear": lambda: build_model("linear", inputs=(4,), outputs=2),
    "mlp": lambda: build_model("mlp", inputs=(4,), outputs=2, hidden=(8, 5)),
    "categories": lambda: build_model("mlp", inputs=(4,), outputs=2, hidden=(8,), categories=[(1, 3)]),
    "cnn": lambda: build_model("cnn", inputs=(4,), outputs=2, hidden=(8,), image=(1, 2, 2)),
    "no chain": Beside,
    "no bias": lambda: chain(nn.Linear(4, 3, bias=False), nn.Tanh(), nn.Linear(3, 2)),
    "normalised": lambda: chain(nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 2)),
    "steps before weights": lambda: chain(nn.Tanh(), nn.Unflatten(1, (2, 2)), nn.Linear(2, 3), nn.Flatten()),
    "chain in a chain": lambda: chain(chain(nn.Linear(4, 3), nn.ReLU()), nn.Linear(3, 2)),
}


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_gradients_are_those_of_each_network(name: str, shared: bool) -> None:
    torch.manual_seed(0)
    networks = [NETWORKS[name]() for _ in range(MODELS)]
    stacked, _ = stack_module_state(networks)
    weights = {key: value.detach().requires_grad_(True) for key, value in stacked.items()}
    rows = torch.randint(0, 4, (MODELS, 7, 4)).float() + 0.1 * (name != "categories")
    together = StackedNetwork(networks[0])(weights, rows[0] if shared else rows, shared)
    together.square().sum().backward()
    for number, network in enumerate(networks):
        alone = network(rows[0] if shared else rows[number])
        torch.testing.assert_close(together[number], alone)
        alone.square().sum().backward()
        for key, value in network.named_parameters():
            grown = weights[key].grad
            assert grown is not None
            torch.testing.assert_close(grown[number], value.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "layers",
    [(nn.Linear(4, 50), nn.Dropout(0.5)), (nn.Dropout(0.5), nn.Linear(4, 50, bias=False))],
    ids=["end", "start"],
)
def test_dropout_is_at_work_in_training_only_and_differs_between_models(layers: tuple[nn.Module, ...]) -> None:
    torch.manual_seed(1)
    network = chain(*layers)
    stacked, _ = stack_module_state([network, network])
    together, rows = StackedNetwork(network), torch.ones(1, 4)
    first, second = together(stacked, rows, shared=True)
    assert not torch.equal(first, second)
    together.train(False)
    first, second = together(stacked, rows, shared=True)
    assert torch.equal(first, second) and torch.equal(first, network.eval()(rows))


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="build: a network without weights; allowed: one with something to train"):
        StackedNetwork(nn.ReLU())({}, torch.ones(2, 3), shared=True)


levels = st.sampled_from([0.0, 0.3, 0.5, 0.9])
radii = st.sampled_from([0.0, 0.1, 0.5, 5.0])
tilts = st.sampled_from([-2.0, -0.5, 1.0, 3.0])
transforms = st.one_of(
    st.just(Mean()), st.builds(CVaR, levels), st.builds(ChiSquareDRO, radii), st.builds(Tilted, tilts)
)
thetas, sigmas = st.floats(-0.5, 2.0), st.sampled_from([0.05, 0.5, 1.0, 3.0])
criteria = st.one_of(
    transforms,
    st.builds(Flooding, thetas),
    st.builds(IFlood, thetas, sigmas),
    st.builds(SoftAD, thetas, sigmas),
    st.builds(SoftAD, thetas, sigmas, transform=transforms, reading=st.sampled_from(["aggregate", "pointwise"])),
    st.builds(SoftAD, st.just("auto"), st.one_of(sigmas, st.just("auto"))),
)


@given(st.lists(criteria, min_size=1, max_size=8), st.integers(1, 30), st.booleans(), st.integers(0, 2**31))
def test_pulls_are_the_derivatives_of_each_objective(
    made: list[Criterion], rows: int, weighted: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    # Ties and zeros among them, where thresholds are decided.
    losses = torch.tensor(
        np.round(rng.gamma(0.6, 1.0, (len(made), rows)), int(rng.integers(0, 4))), dtype=torch.float32
    )
    weights = torch.tensor(rng.integers(0, 3, losses.shape), dtype=torch.float32)
    weights[:, 0] = 1.0
    held = weights if weighted else None
    # The mean loss that "auto" learns from is that of the rows, whatever they weigh; a copy each: they learn.
    single = [type(one)(**one._settings) for one in made]  # type: ignore[arg-type]
    pulls = StackedCriteria(made).pulls(losses.requires_grad_(True), held)
    assert not pulls.requires_grad
    for number, criterion in enumerate(single):
        own = losses[number].detach().requires_grad_(True)
        objective = criterion(own, None if held is None else held[number])
        objective.backward()
        assert own.grad is not None
        torch.testing.assert_close(pulls[number], own.grad / criterion.scale, rtol=2e-4, atol=2e-6)
