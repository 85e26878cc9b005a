"""One network's forward pass with the weights of many: what `softad.stacked` trains."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap


class StackedNetwork:
    """Networks of one shape as a single one: features (B, ...) or (m, B, ...), weights (m, ...), outputs (m, B, k).

    Dense layers of a chain are one batched product with its bias, which a third of a small stack's step hangs on;
    any other layer, and any network that is no chain, is vectorised as it is.

    Parameters
    ----------
    network: gives the shape and the steps; its own weights are not used, and it is not changed.
    device: where the weights and features are.

    >>> chain = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> stacked, _ = torch.func.stack_module_state([chain, chain])
    >>> StackedNetwork(chain)(stacked, torch.ones(5, 2), shared=True).shape
    torch.Size([2, 5, 1])

    Raises
    ------
    ValueError: a network with buffers, such as the statistics of batch normalisation: they are of one model.
    """

    def __init__(self, network: nn.Module, device: str = "cpu") -> None:
        if any(True for _ in network.buffers()):
            raise ValueError("build: a network with buffers, such as batch normalisation; allowed: one without")
        self._network = copy.deepcopy(network).to(device)
        chain = type(network) is nn.Sequential
        self._layers = list(self._network.named_children()) if chain else [("", self._network)]

    def train(self, mode: bool = True) -> None:
        """As a network's `train`: whether what differs between training and use, such as dropout, is at work."""
        self._network.train(mode)

    def __call__(self, weights: Mapping[str, Tensor], features: Tensor, shared: bool) -> Tensor:
        """Outputs (m, B, k), of features that are `shared` by all models, (B, ...), or of each its own, (m, B, ...)."""
        if not weights:
            raise ValueError("build: a network without weights; allowed: one with something to train")
        values, models = features, len(next(iter(weights.values())))
        for name, layer in self._layers:
            inside = f"{name}." if name else ""
            own = {key.removeprefix(inside): value for key, value in weights.items() if key.startswith(inside)}
            if type(layer) is nn.Linear and layer.bias is not None and values.ndim == (2 if shared else 3):
                weight, bias = own["weight"].transpose(1, 2), own["bias"].unsqueeze(1)
                values = torch.baddbmm(bias, values.expand(models, -1, -1), weight)
                shared = False
            elif type(layer) is nn.ReLU or (type(layer) is nn.Flatten and shared):
                values = layer(values)
            elif own:
                values = _vectorised(layer, own, values, shared)
                shared = False
            else:
                # Chance, such as dropout's, is each model's own, so what is shared no longer is.
                values = vmap(layer, randomness="different")(values.expand(models, *values.shape) if shared else values)
                shared = False
        return values


def _vectorised(layer: nn.Module, own: Mapping[str, Tensor], values: Tensor, shared: bool) -> Tensor:
    def one(weights: dict[str, Tensor], batch: Tensor) -> Tensor:
        result: Tensor = functional_call(layer, weights, (batch,))
        return result

    return vmap(one, in_dims=(0, None if shared else 0), randomness="different")(dict(own), values)
