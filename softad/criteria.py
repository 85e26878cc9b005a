"""Objectives: from the losses of a batch's rows to the scalar that training descends on.

Every criterion is an ``nn.Module`` that is called with the rows' losses, shape ``(n,)`` with ``n >= 1``, and returns
a differentiable scalar, shape ``()``. Thresholds and worst-case weights are solved exactly on the batch, and are
constants of the backward pass (Danskin's theorem), so that no parameter has to be learnt beside the model.

All take sample weights, shape ``(n,)``, as a second argument: a row of weight 2 counts as the same row twice. Two
criteria with the same parameters are equal.

References
----------
Holland and Nakatani, "Soft ascent-descent as a stable and flexible alternative to flooding", NeurIPS 2024;
Holland and Hamada, "Making Robust Generalizers Less Rigid with Soft Ascent-Descent", arXiv 2408.03619;
Rockafellar and Uryasev (CVaR); Duchi and Namkoong (chi-square); Li et al. (tilted); Ishida et al. (flooding).
"""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from torch import Tensor

from softad.criterion import Criterion, check, is_number
from softad.objectives import (
    chi_square_weights,
    cvar_threshold,
    cvar_weights,
    mean_of,
    mean_rho,
    mean_rho_of_batch,
    rho,
    rho_slope,
    tilted_mean,
    tilted_weights,
    weighted_sum,
)

__all__ = [
    "AUTO_SHARE",
    "CVaR",
    "ChiSquareDRO",
    "Criterion",
    "Flooding",
    "IFlood",
    "Mean",
    "SoftAD",
    "Tilted",
    "rho",
    "rho_slope",
]

AUTO_SHARE = 0.2
"""``SoftAD(theta="auto")``: theta as a share of the mean loss that held-out rows have."""

SMALLEST_AUTO_SIGMA = 1e-6
"""``SoftAD(sigma="auto")`` where the losses seen are all 0."""


class Mean(Criterion):
    """Empirical risk minimisation: ``mean(l)``.

    >>> Mean()(torch.tensor([1.0, 2.0]))
    tensor(1.5000)
    >>> Mean()(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
    tensor(1.7500)
    """

    def __init__(self) -> None:
        super().__init__()

    def _objective(self, losses: Tensor, shares: Tensor | None) -> Tensor:
        return mean_of(losses, shares)

    def weights(self, losses: Tensor, shares: Tensor | None = None) -> Tensor:
        """Every row's weight, ``1/n`` or its share, shape ``(n,)``."""
        return torch.full_like(losses.detach(), 1.0 / losses.shape[0]) if shares is None else shares


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

    def __init__(self, level: float) -> None:
        check(is_number(level) and 0.0 <= level < 1.0, "level", level, "[0, 1)")
        super().__init__(level=level)
        self.level = float(level)

    def _objective(self, losses: Tensor, shares: Tensor | None) -> Tensor:
        return weighted_sum(self.weights(losses, shares), losses)

    def threshold(self, losses: Tensor, shares: Tensor | None = None) -> Tensor:
        """The `level`-quantile of the losses, shape ``()``; at level 0 the smallest loss."""
        return cvar_threshold(losses, self.level, shares)

    def weights(self, losses: Tensor, shares: Tensor | None = None) -> Tensor:
        """The worst-case weights, shape ``(n,)``, constants that sum to 1."""
        return cvar_weights(losses, self.level, shares)


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

    def __init__(self, radius: float) -> None:
        check(is_number(radius) and 0.0 <= radius < math.inf, "radius", radius, "[0, inf)")
        super().__init__(radius=radius)
        self.radius = float(radius)

    def _objective(self, losses: Tensor, shares: Tensor | None) -> Tensor:
        return weighted_sum(self.weights(losses, shares), losses)

    def weights(self, losses: Tensor, shares: Tensor | None = None) -> Tensor:
        """The worst-case weights, shape ``(n,)``, constants that sum to 1."""
        if self.radius == 0.0:
            return torch.full_like(losses.detach(), 1.0 / losses.shape[0]) if shares is None else shares
        return chi_square_weights(losses, self.radius, shares)


class Tilted(Criterion):
    """Tilted ERM: ``log(mean(exp(t l))) / t``, a smooth way from the mean to the maximum (minimum for t < 0).

    Parameters
    ----------
    tilt: t, finite and not 0.

    >>> Tilted(1.0)(torch.tensor([0.0, 100.0]))    # 100 - log 2
    tensor(99.3069)
    """

    def __init__(self, tilt: float) -> None:
        check(is_number(tilt) and math.isfinite(tilt) and tilt != 0.0, "tilt", tilt, "finite and not 0")
        super().__init__(tilt=tilt)
        self.tilt = float(tilt)

    def _objective(self, losses: Tensor, shares: Tensor | None) -> Tensor:
        return tilted_mean(losses, self.tilt, shares)

    def weights(self, losses: Tensor, shares: Tensor | None = None) -> Tensor:
        """The rows' weights ``softmax(t l)``, shape ``(n,)``, constants that sum to 1."""
        return tilted_weights(losses, self.tilt, shares)


class Flooding(Criterion):
    """Flooding: ``abs(mean(l) - level) + level``; below the flood level the mean is pushed up again.

    Parameters
    ----------
    level: b, finite.

    >>> Flooding(0.5)(torch.tensor([0.1, 0.3]))
    tensor(0.8000)
    """

    def __init__(self, level: float) -> None:
        check(is_number(level) and math.isfinite(level), "level", level, "finite")
        super().__init__(level=level)
        self.level = float(level)

    def _objective(self, losses: Tensor, shares: Tensor | None) -> Tensor:
        return (mean_of(losses, shares) - self.level).abs() + self.level


class IFlood(Criterion):
    """Flooding row by row: ``sigma^2 * mean(abs((l - theta) / sigma))``.

    Parameters
    ----------
    theta: the loss level that we are content with, finite.
    sigma: scale, finite and > 0.

    >>> IFlood(theta=0.5)(torch.tensor([0.0, 2.0]))
    tensor(1.)
    """

    def __init__(self, theta: float, sigma: float = 1.0) -> None:
        check(is_number(theta) and math.isfinite(theta), "theta", theta, "finite")
        check(is_number(sigma) and 0.0 < sigma < math.inf, "sigma", sigma, "(0, inf)")
        super().__init__(theta=theta, sigma=sigma)
        self.theta, self.sigma = float(theta), float(sigma)

    @property
    def scale(self) -> float:
        """sigma: every row pulls with it."""
        return self.sigma

    def _objective(self, losses: Tensor, shares: Tensor | None) -> Tensor:
        return self.sigma**2 * mean_of(((losses - self.theta) / self.sigma).abs(), shares)


_WITH_NUMPY = (torch.float32, torch.float64)
"""Types of losses that NumPy has too."""

Transform = Mean | CVaR | ChiSquareDRO | Tilted
"""What SoftAD can be laid over."""


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
    theta: the loss level that we are content with, finite; or "auto": `AUTO_SHARE` times the lowest mean loss that
        `observe` was shown (`softad.training.fit` shows it the validation rows after every epoch), and until then
        times the mean of the first batch.
    sigma: scale of loss deviations, finite and > 0; or "auto": that mean loss itself, so that how far a row's pull
        is bounded does not depend on how large the losses of a task are. `softad.training.fit` divides the step by it.
    eta: weight of the constant, finite; changes the reported value only, never the gradient.
    transform: None, `CVaR`, `ChiSquareDRO`, `Tilted` or `Mean`.
    reading: "aggregate" or "pointwise"; of no effect without a transform.

    Attributes
    ----------
    twice_differentiable: False; set it where second derivatives are wanted. Without a transform and weights, the rows'
        weights are constants of the backward pass on the CPU, which is a tenth of a small model's step faster.

    >>> SoftAD(theta=0.5)(torch.tensor([0.5, 0.5]))
    tensor(0.5000)
    >>> SoftAD(theta=1.0, sigma=2.0).row_weights(torch.tensor([0.0, 1.0, 1e9]))
    tensor([-0.8944,  0.0000,  2.0000])
    """

    def __init__(
        self,
        theta: float | Literal["auto"],
        sigma: float | Literal["auto"] = 1.0,
        eta: float = 1.0,
        transform: Transform | None = None,
        reading: Literal["aggregate", "pointwise"] = "aggregate",
    ) -> None:
        check(theta == "auto" or (is_number(theta) and math.isfinite(theta)), "theta", theta, 'finite, or "auto"')
        check(sigma == "auto" or (is_number(sigma) and 0.0 < sigma < math.inf), "sigma", sigma, '(0, inf), or "auto"')
        check(is_number(eta) and math.isfinite(eta), "eta", eta, "finite")
        check(
            transform is None or isinstance(transform, Mean | CVaR | ChiSquareDRO | Tilted),
            "transform", transform, "None, CVaR, ChiSquareDRO, Tilted or Mean",
        )  # fmt: skip
        check(reading in ("aggregate", "pointwise"), "reading", reading, '"aggregate" or "pointwise"')
        super().__init__(theta=theta, sigma=sigma, eta=eta, transform=transform, reading=reading)
        self._fixed_theta = None if theta == "auto" else float(theta)
        self._fixed_sigma = None if sigma == "auto" else float(sigma)
        # The mean loss that what is "auto" is derived from: of held-out rows once some were observed.
        self._seen: float | None = None
        self._observed = False
        self.eta, self.transform = float(eta), transform
        self.reading: Literal["aggregate", "pointwise"] = reading
        self.twice_differentiable = False
        # Looked at in every step, where each further look costs a share of a small model's.
        self._bare = transform is None
        self._fixed = None if self.learns else (float(theta), float(sigma))

    @property
    def theta(self) -> float | Literal["auto"]:
        """The level in use; "auto" as long as no losses were seen."""
        if self._fixed_theta is not None:
            return self._fixed_theta
        return "auto" if self._seen is None else AUTO_SHARE * self._seen

    @property
    def sigma(self) -> float | Literal["auto"]:
        """The scale in use; "auto" as long as no losses were seen."""
        if self._fixed_sigma is not None:
            return self._fixed_sigma
        return "auto" if self._seen is None else max(self._seen, SMALLEST_AUTO_SIGMA)

    @property
    def scale(self) -> float:
        """sigma: the most that a row pulls with; 1 as long as it is not known."""
        return 1.0 if self.sigma == "auto" else self.sigma

    @property
    def learns(self) -> bool:
        """Whether theta or sigma is "auto"."""
        return self._fixed_theta is None or self._fixed_sigma is None

    def observe(self, losses: Tensor) -> None:
        """Where theta or sigma is "auto": learn from held-out rows' base losses, shape ``(n,)``; else nothing.

        >>> criterion = SoftAD(theta="auto", sigma="auto")
        >>> criterion.observe(torch.tensor([0.5, 1.5]))
        >>> criterion.theta, criterion.sigma
        (0.2, 1.0)
        """
        if not self.learns:
            return
        mean = float(losses.detach().double().mean())
        if math.isfinite(mean) and (self._seen is None or not self._observed or mean < self._seen):
            self._seen, self._observed = mean, True

    def state(self) -> dict[str, float]:
        """The mean loss that was seen, where theta or sigma is "auto"."""
        return {} if self._seen is None else {"seen": self._seen, "observed": float(self._observed)}

    def load_state(self, state: dict[str, float]) -> None:
        """Go on from what was seen before."""
        if self.learns and state:
            self._seen, self._observed = float(state["seen"]), bool(state["observed"])
        elif state:
            super().load_state(state)

    def forward(self, losses: Tensor, weights: Tensor | None = None) -> Tensor:
        """As every `Criterion`; a batch without weights, on the CPU and under no transform, in fewer steps."""
        if weights is None and losses.ndim == 1 and self._quick(losses):
            theta, sigma = self._fixed or self._in_use(losses)
            objective = mean_rho_of_batch(losses, theta, sigma, self.eta * theta)
            if objective is not None:
                return objective
        return super().forward(losses, weights)

    def _quick(self, losses: Tensor) -> bool:
        return self._bare and not self.twice_differentiable and losses.is_cpu and losses.dtype in _WITH_NUMPY

    def _objective(self, losses: Tensor, shares: Tensor | None) -> Tensor:
        theta, sigma = self._in_use(losses)
        if self.transform is None:
            if shares is None and self._quick(losses):
                return mean_rho(losses, theta, sigma, self.eta * theta)
            return sigma**2 * mean_of(rho((losses - theta) / sigma), shares) + self.eta * theta
        if self.reading == "aggregate":
            return sigma**2 * rho((self.transform._objective(losses, shares) - theta) / sigma)
        if isinstance(self.transform, CVaR):
            limit = self.transform.threshold(losses, shares)
            lifted = limit + torch.relu(losses - limit) / (1.0 - self.transform.level)
            return sigma**2 * mean_of(rho((lifted - theta) / sigma), shares)
        return sigma**2 * weighted_sum(self.transform.weights(losses, shares), rho((losses - theta) / sigma))

    def _in_use(self, losses: Tensor) -> tuple[float, float]:
        if self._fixed is not None:
            return self._fixed
        if self._seen is None and self.learns:
            self._seen = float(losses.detach().double().mean())
        return cast("float", self.theta), cast("float", self.sigma)

    def row_weights(self, losses: Tensor, weights: Tensor | None = None) -> Tensor:
        """How strongly each row pulls, shape ``(n,)``: negative is ascent, positive descent (ERM: all 1)."""
        if self.transform is None and weights is None:
            theta, sigma = self._in_use(losses)
            return sigma * rho_slope((losses.detach() - theta) / sigma)
        return super().row_weights(losses, weights)
