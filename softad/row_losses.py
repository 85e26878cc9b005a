"""Base losses, one number a row: what every criterion and every figure is computed from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

RowLoss = Callable[[Tensor, Tensor], Tensor]
"""From outputs (n, k) and targets (n,) to losses (n,)."""


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """``-log softmax(outputs)[target]``: outputs (n, k), targets class numbers (n,), to (n,).

    >>> cross_entropy(torch.zeros(1, 2), torch.tensor([0]))
    tensor([0.6931])
    """
    return functional.cross_entropy(outputs, targets, reduction="none")


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared error: outputs (n, 1) or (n,), targets (n,), to (n,).

    >>> squared(torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 5.0]))
    tensor([1., 9.])
    """
    return (outputs.reshape(targets.shape) - targets).square()


def absolute(outputs: Tensor, targets: Tensor) -> Tensor:
    """Absolute error: outputs (n, 1) or (n,), targets (n,), to (n,).

    >>> absolute(torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 5.0]))
    tensor([1., 3.])
    """
    return (outputs.reshape(targets.shape) - targets).abs()


def huber(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the squared error up to 1, linear beyond: outputs (n, 1) or (n,), targets (n,), to (n,).

    >>> huber(torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 5.0]))
    tensor([0.5000, 2.5000])
    """
    return functional.huber_loss(outputs.reshape(targets.shape), targets, reduction="none")


BY_NAME: dict[str, RowLoss] = {
    "cross_entropy": cross_entropy,
    "squared": squared,
    "absolute": absolute,
    "huber": huber,
}


def row_loss(choice: str | RowLoss) -> RowLoss:
    """A base loss by name, or the function that was given.

    >>> row_loss("squared")(torch.tensor([[1.0]]), torch.tensor([3.0]))
    tensor([4.])

    Raises
    ------
    ValueError: the name is unknown.
    """
    if callable(choice):
        return choice
    if choice not in BY_NAME:
        raise ValueError(f"base_loss: {choice!r}; allowed: {', '.join(BY_NAME)}, or a function")
    return BY_NAME[choice]


def check_targets(model: nn.Module, features: Tensor, targets: Tensor, choice: str | RowLoss, name: str) -> None:
    """Try one row, so that shapes that do not fit are named before an epoch has run.

    >>> check_targets(nn.Linear(2, 3), torch.zeros(4, 2), torch.tensor([0, 1, 2, 3]), "cross_entropy", "targets")
    Traceback (most recent call last):
    ...
    ValueError: targets: class numbers 0 to 3 for outputs of shape (1, 3); allowed: 0 to one less than ...

    Raises
    ------
    ValueError: rows and targets differ in number, a class number has no output, or the loss is not one a row.
    """
    rows = features.shape[0]
    if targets.shape != (rows,):
        raise ValueError(f"{name}: shape {tuple(targets.shape)}; allowed: ({rows},), one a row of features")
    if isinstance(choice, str) and not bool(torch.isfinite(targets).all()):
        raise ValueError(f"{name}: holds values that are not finite; allowed: finite numbers")
    training = model.training
    model.eval()
    with torch.inference_mode():
        outputs = model(features[:1])
        model.train(training)
        if choice == "cross_entropy":
            low, high = int(targets.min()), int(targets.max())
            if outputs.ndim != 2 or low < 0 or high >= outputs.shape[1]:
                raise ValueError(
                    f"{name}: class numbers {low} to {high} for outputs of shape {tuple(outputs.shape)}; "
                    "allowed: 0 to one less than the number of outputs"
                )
        elif isinstance(choice, str) and outputs.numel() != 1:
            raise ValueError(f"model: {tuple(outputs.shape[1:])} values a row with {choice!r}; allowed: one")
        losses = row_loss(choice)(outputs, targets[:1])
    if losses.shape != (1,):
        raise ValueError(f"base_loss: shape {tuple(losses.shape)} for one row; allowed: (1,), one loss a row")
