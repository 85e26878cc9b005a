"""What every objective is: a module from rows' losses to a scalar that says what it is given wrong."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from numbers import Real

import torch
from torch import Tensor, nn

from softad.objectives import shares_of


class Criterion(nn.Module, ABC):
    """What all criteria share; `Mean`, `CVaR`, `SoftAD` and the others below are the ones to use."""

    def __init__(self, **settings: object) -> None:
        super().__init__()
        self._settings = settings

    def forward(self, losses: Tensor, weights: Tensor | None = None) -> Tensor:
        """The objective of rows' losses, shape ``(n,)`` to ``()``.

        Parameters
        ----------
        losses: one a row, shape (n,), of a floating point type.
        weights: sample weights, shape (n,), 0 or more, not all 0; None is 1 for each.

        Raises
        ------
        ValueError: `losses` is not one-dimensional, holds no row, is of an integer type, or (looked at on the CPU
            only: reading a number makes an accelerator wait) holds a loss that is not finite; `weights` do not fit.
        """
        if losses.ndim != 1 or losses.shape[0] == 0:
            raise ValueError(f"losses: shape {tuple(losses.shape)}; allowed: (n,) with n >= 1, one loss a row")
        if not losses.is_floating_point():
            raise ValueError(f"losses: dtype {losses.dtype}; allowed: a floating point type")
        if weights is not None:
            _check_weights(weights, losses)
        objective = self._objective(losses, shares_of(weights, losses))
        # A loss that is not finite makes the objective so: one number tells, and only then are the rows looked at.
        if losses.is_cpu and not math.isfinite(objective.item()):
            _check_finite(losses)
        return objective

    @abstractmethod
    def _objective(self, losses: Tensor, shares: Tensor | None) -> Tensor: ...

    @property
    def scale(self) -> float:
        """Factor by which the criterion's gradients grow against ERM's; training divides by it."""
        return 1.0

    def row_weights(self, losses: Tensor, weights: Tensor | None = None) -> Tensor:
        """How strongly each row pulls, shape ``(n,)``: n times the derivative by the row's loss (ERM: all 1).

        >>> from softad.criteria import CVaR
        >>> CVaR(0.5).row_weights(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        tensor([0., 0., 2., 2.])
        """
        with torch.enable_grad():
            free = losses.detach().clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self(free, weights), free)
        return gradient * losses.shape[0]

    def state(self) -> dict[str, float]:
        """What was learnt from losses seen so far, for a checkpoint; empty for all but ``SoftAD(theta="auto")``.

        >>> from softad.criteria import Mean
        >>> Mean().state()
        {}
        """
        return {}

    def load_state(self, state: dict[str, float]) -> None:
        """Go on from what `state` gave.

        >>> from softad.criteria import Mean
        >>> Mean().load_state({})
        """
        if state:
            raise ValueError(f"state: {state!r}; allowed: {{}}, for {self!r} learns nothing")

    def extra_repr(self) -> str:
        """The parameters, as in the call that makes the criterion."""
        return ", ".join(f"{name}={value!r}" for name, value in self._settings.items())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Criterion) and type(self) is type(other) and self._settings == other._settings

    def __hash__(self) -> int:
        return hash((type(self), *self._settings.items()))


def _check_weights(weights: Tensor, losses: Tensor) -> None:
    if weights.shape != losses.shape:
        raise ValueError(f"weights: shape {tuple(weights.shape)}; allowed: {tuple(losses.shape)}, one a loss")
    if losses.device.type == "cpu" and not (
        bool(torch.isfinite(weights).all()) and float(weights.min()) >= 0.0 and float(weights.sum()) > 0.0
    ):
        raise ValueError(f"weights: from {float(weights.min()):g}; allowed: finite, 0 or more, and not all 0")


def _check_finite(losses: Tensor) -> None:
    fixed = losses.detach()
    bad = ~torch.isfinite(fixed)
    if bool(bad.any()):
        row = int(bad.to(torch.int8).argmax())
        raise ValueError(
            f"losses: {float(fixed[row])} at row {row} ({int(bad.sum())} of {losses.shape[0]} are not finite); "
            "allowed: finite numbers"
        )


def is_number(value: object) -> bool:
    """Whether a parameter is a real number; a truth value is none.

    >>> is_number(0.5), is_number(True), is_number("0.5")
    (True, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool)


def check(holds: bool, name: str, value: object, allowed: str) -> None:
    """Name the argument, its value and what is allowed, where that does not hold.

    >>> check(False, "level", 1.5, "[0, 1)")
    Traceback (most recent call last):
    ...
    ValueError: level: 1.5; allowed: [0, 1)
    """
    if not holds:
        raise ValueError(f"{name}: {value!r}; allowed: {allowed}")
