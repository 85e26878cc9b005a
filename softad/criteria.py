"""Objectives: from the losses of a batch's rows to the scalar that training descends on.

Every criterion is a frozen value that is called with the rows' losses, shape ``(n,)`` with ``n >= 1``, and
returns a differentiable scalar, shape ``()``. Thresholds and worst-case weights are solved exactly on the batch,
and are constants of the backward pass (Danskin's theorem), so that no parameter has to be learnt beside the model.

References
----------
Holland and Nakatani, "Soft ascent-descent as a stable and flexible alternative to flooding", NeurIPS 2024;
Holland and Hamada, "Making Robust Generalizers Less Rigid with Soft Ascent-Descent", arXiv 2408.03619;
Rockafellar and Uryasev (CVaR); Duchi and Namkoong (chi-square); Li et al. (tilted); Ishida et al. (flooding).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


def rho(x: Tensor) -> Tensor:
    """``sqrt(1 + x^2) - 1``, element by element, also where x is tiny or huge.

    Written as ``x * (x / (1 + hypot(1, x)))``: the first form loses everything in float32 where ``|x| < 1e-4``,
    and the square overflows where ``|x| > 1e19``.

    >>> rho(torch.tensor([0.0, 1e-4, 1e30]))
    tensor([0.0000e+00, 5.0000e-09, 1.0000e+30])
    """
    return x * (x / (1.0 + torch.hypot(x, torch.ones_like(x))))


def rho_slope(x: Tensor) -> Tensor:
    """The derivative of `rho`: ``x / sqrt(1 + x^2)``, between -1 and 1.

    >>> rho_slope(torch.tensor([-1e30, 0.0, 0.75]))
    tensor([-1.0000,  0.0000,  0.6000])
    """
    return x / torch.hypot(x, torch.ones_like(x))


@dataclass(frozen=True)
class Criterion(ABC):
    """What all criteria share; `Mean`, `CVaR`, `SoftAD` and the others below are the ones to use."""

    def __call__(self, losses: Tensor) -> Tensor:
        """The objective of rows' losses, shape ``(n,)`` to ``()``.

        Raises
        ------
        ValueError: `losses` is not one-dimensional, holds no row, or is of an integer type.
        """
        if losses.ndim != 1 or losses.shape[0] == 0:
            raise ValueError(f"losses: shape {tuple(losses.shape)}; allowed: (n,) with n >= 1, one loss a row")
        if not losses.is_floating_point():
            raise ValueError(f"losses: dtype {losses.dtype}; allowed: a floating point type")
        return self._objective(losses)

    @abstractmethod
    def _objective(self, losses: Tensor) -> Tensor: ...

    @property
    def scale(self) -> float:
        """Factor by which the criterion's gradients grow against ERM's; training divides by it."""
        return 1.0

    def row_weights(self, losses: Tensor) -> Tensor:
        """How strongly each row pulls, shape ``(n,)``: n times the derivative by the row's loss (ERM: all 1).

        >>> CVaR(0.5).row_weights(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        tensor([0., 0., 2., 2.])
        """
        with torch.enable_grad():
            free = losses.detach().clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self(free), free)
        return gradient * losses.shape[0]


@dataclass(frozen=True)
class Mean(Criterion):
    """Empirical risk minimisation: ``mean(l)``.

    >>> Mean()(torch.tensor([1.0, 2.0]))
    tensor(1.5000)
    """

    def _objective(self, losses: Tensor) -> Tensor:
        return losses.mean()

    def weights(self, losses: Tensor) -> Tensor:
        """Every row's weight, ``1/n``, shape ``(n,)``."""
        return torch.full_like(losses.detach(), 1.0 / losses.shape[0])


@dataclass(frozen=True)
class CVaR(Criterion):
    """Conditional value at risk: the mean of the worst ``1 - level`` share of the rows.

    ``min over t of t + mean(relu(l - t)) / (1 - level)``, solved exactly: t is the `level`-quantile of the losses,
    and the row at the threshold counts with the fraction that is left for it (equal rows share it). Where
    ``(1 - level) * n < 1`` the value is the largest loss.

    Parameters
    ----------
    level: in [0, 1); 0 is the mean.

    >>> CVaR(0.5)(torch.tensor([1.0, 2.0, 3.0]))   # the worst one and a half rows
    tensor(2.6667)
    """

    level: float

    def __post_init__(self) -> None:
        _check(0.0 <= self.level < 1.0, "level", self.level, "[0, 1)")

    def _objective(self, losses: Tensor) -> Tensor:
        return (self.weights(losses) * losses).sum()

    def threshold(self, losses: Tensor) -> Tensor:
        """The `level`-quantile of the losses, shape ``()``; at level 0 the smallest loss."""
        fixed = losses.detach()
        rows = fixed.shape[0]
        whole = math.floor(self._tail_rows(rows))
        return torch.kthvalue(fixed, max(rows - whole, 1)).values

    def weights(self, losses: Tensor) -> Tensor:
        """The worst-case weights, shape ``(n,)``, constants that sum to 1."""
        fixed = losses.detach()
        tail = self._tail_rows(fixed.shape[0])
        limit = self.threshold(losses)
        above = (fixed > limit).to(fixed.dtype)
        at = (fixed == limit).to(fixed.dtype)
        return above / tail + at * ((1.0 - above.sum() / tail) / at.sum())

    def _tail_rows(self, rows: int) -> float:
        # (1 - 0.9) * 10 is 0.9999999999999998 in floating point; the tenth row is meant.
        tail = (1.0 - self.level) * rows
        return float(round(tail)) if abs(tail - round(tail)) < 1e-13 * rows and round(tail) > 0 else tail


@dataclass(frozen=True)
class ChiSquareDRO(Criterion):
    """The worst mean loss over reweightings within a chi-square ball of radius `radius`.

    ``min over t of t + sqrt((1 + 2 r) * mean(relu(l - t)^2))``, the divergence being ``E[(q - 1)^2] / 2``. t comes
    exactly from the sorted losses and their prefix sums, in O(n log n). The backward pass uses the worst-case
    weights, proportional to ``relu(l - t)``; where the largest losses tie and already fill the ball they are
    uniform over the maxima, where automatic differentiation would return zeros.

    Parameters
    ----------
    radius: r >= 0, finite; 0 is the mean.

    >>> ChiSquareDRO(0.5)(torch.tensor([0.0, 0.0, 1.0, 3.0]))
    tensor(2.2247)
    """

    radius: float

    def __post_init__(self) -> None:
        _check(0.0 <= self.radius < math.inf, "radius", self.radius, "[0, inf)")

    def _objective(self, losses: Tensor) -> Tensor:
        return (self.weights(losses) * losses).sum()

    def weights(self, losses: Tensor) -> Tensor:
        """The worst-case weights, shape ``(n,)``, constants that sum to 1."""
        rows = losses.shape[0]
        if self.radius == 0.0:
            return torch.full_like(losses.detach(), 1.0 / rows)
        # Shifted and scaled, so that sums of squares neither cancel nor overflow: the weights do not change.
        fixed = _wide(losses.detach())
        top = fixed.max()
        span = top - fixed.min()
        scaled = (fixed - top) / torch.where(span > 0, span, torch.ones_like(span))
        return _chi_square_weights(scaled, 1.0 + 2.0 * self.radius).to(losses.dtype)


def _chi_square_weights(scaled: Tensor, growth: float) -> Tensor:
    """Worst-case weights of losses whose maximum is 0 and whose minimum is -1 (all 0 where they are equal).

    On the piece where the k largest lie above t, the slope in t is zero at
    ``t = mean - sqrt(var / (growth k / n - 1))`` of these k; convexity says that the piece is the first whose
    lower end, the next loss, has a slope that is not positive.
    """
    rows = scaled.shape[0]
    ordered = scaled.sort(descending=True).values
    count = torch.arange(1, rows + 1, dtype=scaled.dtype, device=scaled.device)
    first, second = ordered.cumsum(0), ordered.square().cumsum(0)
    following = torch.cat([ordered[1:], ordered.new_full((1,), -math.inf)])
    below = following[:-1]
    reach = first[:-1] - count[:-1] * below
    spread = second[:-1] - 2.0 * below * first[:-1] + count[:-1] * below.square()
    rising = (growth / rows) * reach.square() < spread.clamp_min(0.0)
    tied_top = below >= ordered[0]
    # The pieces with a rising lower end come first; a tie with the maximum is no piece at all.
    piece = (rising | tied_top).to(torch.int64).cumprod(0).sum()
    active = count[piece]
    mean = first[piece] / active
    variance = (second[piece] / active - mean.square()).clamp_min(0.0)
    surplus = growth * active / rows - 1.0
    threshold = mean - (variance / surplus.clamp_min(torch.finfo(scaled.dtype).tiny)).sqrt()
    # Rounding must not push t out of its piece: nearly tied maxima would spread their weight over all rows.
    threshold = torch.maximum(threshold, following[piece])
    pulled = (scaled - threshold).clamp_min(0.0)
    at_top = (scaled >= ordered[0]).to(scaled.dtype)
    full = (growth * at_top.sum() / rows >= 1.0) | (pulled.sum() <= 0.0)
    chosen = torch.where(full, at_top, pulled)
    return chosen / chosen.sum()


@dataclass(frozen=True)
class Tilted(Criterion):
    """Tilted ERM: ``log(mean(exp(t l))) / t``, a smooth way from the mean to the maximum (minimum for t < 0).

    Parameters
    ----------
    tilt: t, finite and not 0.

    >>> Tilted(1.0)(torch.tensor([0.0, 100.0]))    # 100 - log 2
    tensor(99.3069)
    """

    tilt: float

    def __post_init__(self) -> None:
        _check(math.isfinite(self.tilt) and self.tilt != 0.0, "tilt", self.tilt, "finite and not 0")

    def _objective(self, losses: Tensor) -> Tensor:
        # A log-sum-exp around the row that dominates: no overflow, and expm1 keeps the digits where t is tiny.
        wide = _wide(losses)
        fixed = wide.detach()
        anchor = fixed.max() if self.tilt > 0 else fixed.min()
        tilted = torch.log1p(torch.expm1(self.tilt * (wide - anchor)).mean()) / self.tilt
        return (anchor + tilted).to(losses.dtype)

    def weights(self, losses: Tensor) -> Tensor:
        """The rows' weights ``softmax(t l)``, shape ``(n,)``, constants that sum to 1."""
        return torch.softmax(self.tilt * _wide(losses.detach()), dim=0).to(losses.dtype)


@dataclass(frozen=True)
class Flooding(Criterion):
    """Flooding: ``abs(mean(l) - level) + level``; below the flood level the mean is pushed up again.

    Parameters
    ----------
    level: b, finite.

    >>> Flooding(0.5)(torch.tensor([0.1, 0.3]))
    tensor(0.8000)
    """

    level: float

    def __post_init__(self) -> None:
        _check(math.isfinite(self.level), "level", self.level, "finite")

    def _objective(self, losses: Tensor) -> Tensor:
        return (losses.mean() - self.level).abs() + self.level


@dataclass(frozen=True)
class IFlood(Criterion):
    """Flooding row by row: ``sigma^2 * mean(abs((l - theta) / sigma))``.

    Parameters
    ----------
    theta: the loss level that we are content with, finite.
    sigma: scale, finite and > 0.

    >>> IFlood(theta=0.5)(torch.tensor([0.0, 2.0]))
    tensor(1.)
    """

    theta: float
    sigma: float = 1.0

    def __post_init__(self) -> None:
        _check(math.isfinite(self.theta), "theta", self.theta, "finite")
        _check(0.0 < self.sigma < math.inf, "sigma", self.sigma, "(0, inf)")

    @property
    def scale(self) -> float:
        """sigma: every row pulls with it."""
        return self.sigma

    def _objective(self, losses: Tensor) -> Tensor:
        return self.sigma**2 * ((losses - self.theta) / self.sigma).abs().mean()


Transform = Mean | CVaR | ChiSquareDRO | Tilted
"""What SoftAD can be laid over."""


@dataclass(frozen=True)
class SoftAD(Criterion):
    """Soft ascent-descent: rows above `theta` are pulled down, rows below it pushed up, none harder than `sigma`.

    Without a transform ``eta * theta + sigma^2 * mean(rho((l - theta) / sigma))`` with
    ``rho(x) = sqrt(1 + x^2) - 1``. A row pulls with ``sigma * rho'((l - theta) / sigma)``, inside (-sigma, sigma).

    Over a transform T, and without the constant ``eta * theta``:

    - reading ``"aggregate"``: ``sigma^2 * rho((T(l) - theta) / sigma)``, one scalar a batch;
    - reading ``"pointwise"``: for CVaR ``sigma^2 * mean(rho((t + relu(l - t) / (1 - level) - theta) / sigma))``, t the
      batch's quantile; for the others ``sigma^2 * sum_i q_i rho((l_i - theta) / sigma)``, q the transform's weights;
      t and q are constants of the backward pass. With CVaR only rows above t are pulled, so a batch with
      ``(1 - level) * n < 1`` leaves the model as it is.

    Parameters
    ----------
    theta: the loss level that we are content with, finite.
    sigma: scale of loss deviations, finite and > 0. `softad.training.fit` divides the step by it.
    eta: weight of the constant, finite; changes the reported value only, never the gradient.
    transform: None, `CVaR`, `ChiSquareDRO`, `Tilted` or `Mean`.
    reading: "aggregate" or "pointwise"; of no effect without a transform.

    >>> SoftAD(theta=0.5)(torch.tensor([0.5, 0.5]))
    tensor(0.5000)
    >>> SoftAD(theta=1.0, sigma=2.0).row_weights(torch.tensor([0.0, 1.0, 1e9]))
    tensor([-0.8944,  0.0000,  2.0000])
    """

    theta: float
    sigma: float = 1.0
    eta: float = 1.0
    transform: Transform | None = None
    reading: Literal["aggregate", "pointwise"] = "aggregate"

    def __post_init__(self) -> None:
        _check(math.isfinite(self.theta), "theta", self.theta, "finite")
        _check(0.0 < self.sigma < math.inf, "sigma", self.sigma, "(0, inf)")
        _check(math.isfinite(self.eta), "eta", self.eta, "finite")
        _check(
            self.transform is None or isinstance(self.transform, Mean | CVaR | ChiSquareDRO | Tilted),
            "transform",
            self.transform,
            "None, CVaR, ChiSquareDRO, Tilted or Mean",
        )
        _check(self.reading in ("aggregate", "pointwise"), "reading", self.reading, '"aggregate" or "pointwise"')

    @property
    def scale(self) -> float:
        """sigma: the most that a row pulls with."""
        return self.sigma

    def _objective(self, losses: Tensor) -> Tensor:
        if self.transform is None:
            return self.eta * self.theta + self._penalty(losses).mean()
        if self.reading == "aggregate":
            return self._penalty(self.transform(losses))
        if isinstance(self.transform, CVaR):
            limit = self.transform.threshold(losses)
            lifted = limit + torch.relu(losses - limit) / (1.0 - self.transform.level)
            return self._penalty(lifted).mean()
        return (self.transform.weights(losses) * self._penalty(losses)).sum()

    def _penalty(self, losses: Tensor) -> Tensor:
        return self.sigma**2 * rho((losses - self.theta) / self.sigma)

    def row_weights(self, losses: Tensor) -> Tensor:
        """How strongly each row pulls, shape ``(n,)``: negative is ascent, positive descent (ERM: all 1)."""
        if self.transform is None:
            return self.sigma * rho_slope((losses.detach() - self.theta) / self.sigma)
        return super().row_weights(losses)


def _wide(losses: Tensor) -> Tensor:
    """Double precision where the device has it."""
    return losses if losses.device.type == "mps" else losses.double()


def _check(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name}: {value!r}; allowed: {allowed}")
