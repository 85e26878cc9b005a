"""Base losses, one number a row: what every criterion and every figure is computed from.

A loss may be one that is only trained on: focal loss and label smoothing change what the model descends on, and a
model is judged (on validation rows, and where it is calibrated) by its `plain` loss, the cross-entropy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
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


@dataclass(frozen=True)
class Focal:
    """Focal loss, ``(1 - p)^gamma * -log p`` with p the probability of the true class; made by `focal`.

    Attributes
    ----------
    gamma: how strongly rows that are right already are put aside; 0 is the cross-entropy.
    plain: the loss that judges a model trained on this one.
    """

    gamma: float
    plain: ClassVar[RowLoss] = staticmethod(cross_entropy)

    def __post_init__(self) -> None:
        if not 0.0 <= self.gamma < math.inf:
            raise ValueError(f"gamma: {self.gamma!r}; allowed: [0, inf)")

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Outputs (n, k), targets class numbers (n,), to (n,)."""
        losses = cross_entropy(outputs, targets)
        if self.gamma == 0.0:
            return losses
        # 1 - p without cancellation; away from 0, where a power below 1 has no finite slope.
        wrong = (-torch.expm1(-losses)).clamp_min(torch.finfo(losses.dtype).tiny)
        return wrong.pow(self.gamma) * losses


@dataclass(frozen=True)
class SmoothedCrossEntropy:
    """Cross-entropy against labels that give `eps` to all classes alike; made by `smoothed_cross_entropy`.

    Attributes
    ----------
    eps: share of the probability that is spread over all classes, the true one among them.
    plain: the loss that judges a model trained on this one.
    """

    eps: float
    plain: ClassVar[RowLoss] = staticmethod(cross_entropy)

    def __post_init__(self) -> None:
        if not 0.0 <= self.eps < 1.0:
            raise ValueError(f"eps: {self.eps!r}; allowed: [0, 1)")

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Outputs (n, k), targets class numbers (n,), to (n,)."""
        return functional.cross_entropy(outputs, targets, reduction="none", label_smoothing=self.eps)


@dataclass(frozen=True)
class Quantile:
    """Quantile (pinball) loss, ``max(q d, (q - 1) d)`` with d the target less the output; made by `quantile`.

    Attributes
    ----------
    q: the quantile of the target, given the row, that the model learns.
    """

    q: float

    def __post_init__(self) -> None:
        if not 0.0 < self.q < 1.0:
            raise ValueError(f"q: {self.q!r}; allowed: (0, 1)")

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Outputs (n, 1) or (n,), targets (n,), to (n,)."""
        above = targets - outputs.reshape(targets.shape)
        return torch.maximum(self.q * above, (self.q - 1.0) * above)


def focal(gamma: float = 2.0) -> Focal:
    """Focal loss of Lin et al. (ICCV 2017, equation 4), without class weights: ``(1 - p)^gamma * -log p``.

    Parameters
    ----------
    gamma: in [0, inf); 0 is the cross-entropy.

    >>> focal(2.0)(torch.zeros(1, 2), torch.tensor([0]))        # a quarter of log 2
    tensor([0.1733])

    Raises
    ------
    ValueError: `gamma` is out of its range.
    """
    return Focal(gamma)


def smoothed_cross_entropy(eps: float = 0.1) -> SmoothedCrossEntropy:
    """Cross-entropy with label smoothing (Szegedy et al., CVPR 2016, section 7).

    Parameters
    ----------
    eps: share of the probability spread over all classes, in [0, 1); 0 is the cross-entropy.

    >>> smoothed_cross_entropy(0.5)(torch.tensor([[3.0, 0.0]]), torch.tensor([0]))
    tensor([0.7986])

    Raises
    ------
    ValueError: `eps` is out of its range.
    """
    return SmoothedCrossEntropy(eps)


def quantile(q: float = 0.5) -> Quantile:
    """Quantile loss (Koenker and Bassett, Econometrica 1978); half the absolute error for q = 0.5.

    Parameters
    ----------
    q: in (0, 1): the share of targets that should lie below the model's output.

    >>> quantile(0.9)(torch.tensor([[0.0], [0.0]]), torch.tensor([1.0, -1.0]))
    tensor([0.9000, 0.1000])

    Raises
    ------
    ValueError: `q` is out of its range.
    """
    return Quantile(q)


BY_NAME: dict[str, RowLoss] = {
    "cross_entropy": cross_entropy,
    "squared": squared,
    "absolute": absolute,
    "huber": huber,
}

BY_NUMBER: dict[str, Callable[[float], RowLoss]] = {"focal": focal, "quantile": quantile}
"""Losses with a number, written "focal:2" or ("focal", 2)."""

BaseLoss = str | tuple[str, float] | RowLoss
"""How a base loss may be given."""


def row_loss(choice: BaseLoss) -> RowLoss:
    """A base loss by name, by name and number, or the function that was given.

    >>> row_loss("squared")(torch.tensor([[1.0]]), torch.tensor([3.0]))
    tensor([4.])
    >>> row_loss("quantile:0.9") == row_loss(("quantile", 0.9)) == quantile(0.9)
    True

    Raises
    ------
    ValueError: the name is unknown, or its number is out of its range.
    """
    if callable(choice):
        return choice
    if isinstance(choice, str):
        if choice in BY_NAME:
            return BY_NAME[choice]
        name, _, number = choice.partition(":")
    elif isinstance(choice, tuple | list) and len(choice) == 2:
        name, number = str(choice[0]), str(choice[1])
    else:
        name, number = "", ""
    try:
        if name in BY_NUMBER:
            # A focal loss has a customary gamma; no quantile is customary.
            return BY_NUMBER[name](2.0 if choice == "focal" else float(number))
    except ValueError as error:
        raise ValueError(f"base_loss: {choice!r} ({error}); allowed: focal:GAMMA, quantile:Q") from error
    raise ValueError(f"base_loss: {choice!r}; allowed: {', '.join(BY_NAME)}, focal:GAMMA, quantile:Q, or a function")


def plain_loss(loss: RowLoss) -> RowLoss:
    """The loss that judges a model trained on `loss`: its attribute `plain`, or the loss itself.

    >>> plain_loss(focal(2.0)) is plain_loss(smoothed_cross_entropy(0.1)) is cross_entropy
    True
    >>> plain_loss(squared) is squared
    True
    """
    plain: RowLoss = getattr(loss, "plain", loss)
    return plain


def smoothed(loss: RowLoss, label_smoothing: float) -> RowLoss:
    """The training loss with label smoothing; only the cross-entropy has one.

    >>> smoothed(cross_entropy, 0.1)
    SmoothedCrossEntropy(eps=0.1)

    Raises
    ------
    ValueError: `label_smoothing` is out of its range, or the loss is another.
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing: {label_smoothing!r}; allowed: [0, 1)")
    if label_smoothing == 0.0:
        return loss
    if loss is not cross_entropy:
        raise ValueError(f'label_smoothing: {label_smoothing!r}; allowed: 0, save with base_loss "cross_entropy"')
    return SmoothedCrossEntropy(label_smoothing)
