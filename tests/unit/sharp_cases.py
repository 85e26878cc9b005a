"""A small network and its closures, for the tests of sharpness-aware steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


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
