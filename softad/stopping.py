"""What decides the best epoch, and how a callback ends a training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from softad.figures import cvar

StoppingFigure = Callable[[Tensor, Tensor, Tensor], float]
"""From validation rows' base losses (n,), outputs (n, k) and targets (n,), on the CPU, to a number; lower is better."""


class StopTraining(Exception):
    """Raised by a callback to end the training after this epoch.

    >>> def long_enough(epoch, model):
    ...     if epoch.objective < 0.01:
    ...         raise StopTraining
    """


def mean(losses: Tensor, outputs: Tensor, targets: Tensor) -> float:
    """Mean base loss.

    >>> mean(torch.tensor([1.0, 2.0]), torch.zeros(2, 1), torch.zeros(2))
    1.5
    """
    del outputs, targets
    return float(losses.mean())


def tail(losses: Tensor, outputs: Tensor, targets: Tensor) -> float:
    """CVaR at level 0.9, the mean of the worst tenth.

    >>> tail(torch.arange(20.0), torch.zeros(20, 1), torch.zeros(20))
    18.5
    """
    del outputs, targets
    return cvar(losses.numpy(), 0.9)


def stability(losses: Tensor, outputs: Tensor, targets: Tensor) -> float:
    """Standard deviation of the losses (divisor n).

    >>> stability(torch.tensor([1.0, 3.0]), torch.zeros(2, 1), torch.zeros(2))
    1.0
    """
    del outputs, targets
    return float(losses.std(unbiased=False))


def error(losses: Tensor, outputs: Tensor, targets: Tensor) -> float:
    """Share of rows whose largest output is not that of their class.

    >>> error(torch.zeros(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
    0.5
    """
    del losses
    return float((outputs.argmax(dim=1) != targets).double().mean())


def balanced_error(losses: Tensor, outputs: Tensor, targets: Tensor) -> float:
    """The same for each class by itself, averaged over the classes that the rows have.

    >>> outputs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    >>> balanced_error(torch.zeros(3), outputs, torch.tensor([0, 0, 1]))
    0.5
    """
    del losses
    wrong = (outputs.argmax(dim=1) != targets).double()
    rows = torch.bincount(targets).double()
    return float((torch.bincount(targets, weights=wrong)[rows > 0] / rows[rows > 0]).mean())


BY_NAME: dict[str, StoppingFigure] = {
    "mean": mean,
    "tail": tail,
    "stability": stability,
    "error": error,
    "balanced_error": balanced_error,
}

OF_CLASSES = ("error", "balanced_error")
"""Figures that only classification has."""


def stopping_figure(choice: str | StoppingFigure, *, classification: bool) -> StoppingFigure:
    """A figure by name, or the function that was given.

    >>> stopping_figure("tail", classification=False) is tail
    True

    Raises
    ------
    ValueError: the name is unknown, or the figure is one of classification alone.
    """
    if callable(choice):
        return choice
    allowed = [name for name in BY_NAME if classification or name not in OF_CLASSES]
    if choice not in allowed:
        raise ValueError(
            f"stop_on: {choice!r}{'' if classification else ' with regression'}; allowed: {', '.join(allowed)}, "
            "or a function of (losses, outputs, targets)"
        )
    return BY_NAME[choice]
