"""The arithmetic of the objectives: worst-case weights and penalties of row losses along the last axis.

Everything here takes losses of shape ``(..., n)``, n rows of any number of models, and parameters as numbers or as
tensors that broadcast against ``(..., 1)``, so that many small models can be trained at once. `softad.criteria` are
the objectives of one model, with checks and documentation.

References
----------
Rockafellar and Uryasev 2000 (CVaR); Duchi and Namkoong 2021 (chi-square); Levy et al. 2020, section 2 (exact
solution from the sorted losses); Holland and Hamada, arXiv 2408.03619 (rho).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_BATCH = 4096
"""Rows up to which a dot product in single precision is exact enough."""

_SQUARABLE = 1e15
"""Single precision holds the square of a number below this, and of one above its reciprocal."""

_SMALLEST, _SQUARE = 1.0 / _SQUARABLE, _SQUARABLE**2

_LARGEST = torch.finfo(torch.float32).max

Level = float | Tensor
"""A parameter: one number, or one a model, shape ``(..., 1)``."""


def rho(x: Tensor) -> Tensor:
    """``sqrt(1 + x^2) - 1``, element by element, also where x is tiny or huge.

    Written as ``x * (x / (1 + hypot(1, x)))``: the first form loses everything in float32 where ``|x| < 1e-4``,
    and the square overflows where ``|x| > 1e19``.

    >>> rho(torch.tensor([0.0, 1e-4, 1e30]))
    tensor([0.0000e+00, 5.0000e-09, 1.0000e+30])
    """
    return x * (x / (1.0 + torch.hypot(x, x.new_ones(()))))


def rho_slope(x: Tensor) -> Tensor:
    """The derivative of `rho`: ``x / sqrt(1 + x^2)``, between -1 and 1.

    >>> rho_slope(torch.tensor([-1e30, 0.0, 0.75]))
    tensor([-1.0000,  0.0000,  0.6000])
    """
    return x / torch.hypot(x, x.new_ones(()))


def mean_rho(losses: Tensor, theta: float, sigma: float, constant: float = 0.0) -> Tensor:
    """``sigma^2 * mean(rho((l - theta) / sigma)) + constant`` of losses ``(n,)`` on the CPU, and its derivative.

    Of losses in single or double precision.

    Step by step, automatic differentiation would keep and revisit every intermediate value, which costs a tenth of a
    training step of a small model. Here the rows' weights are worked out once, and the result is their dot product
    with the losses, which then gets the right value; so a second derivative would lack the change of the weights.

    >>> losses = torch.tensor([0.5, 1.25], requires_grad=True)
    >>> value = mean_rho(losses, 0.5, 1.0)
    >>> value.backward()
    >>> value, losses.grad
    (tensor(0.1250, grad_fn=<DotBackward0>), tensor([0.0000, 0.3000]))
    """
    quick = mean_rho_of_batch(losses, theta, sigma, constant)
    if quick is not None:
        return quick
    distance = losses.detach().numpy() - theta
    pulls, total = _rho_of_any(distance, sigma)
    pulls *= sigma / distance.size
    value = total * (sigma / distance.size) + constant
    result = weighted_sum(torch.from_numpy(pulls), losses)
    result.data.fill_(
        value if abs(value) < _LARGEST or losses.dtype == torch.float64 else math.copysign(math.inf, value)
    )
    return result


def mean_rho_of_batch(losses: Tensor, theta: float, sigma: float, constant: float = 0.0) -> Tensor | None:
    """What `mean_rho` gives, in fewer and quicker steps; None for more than a batch, huge losses, or one not finite.

    >>> mean_rho_of_batch(torch.tensor([0.5, 1.25]), 0.5, 1.0)
    tensor(0.1250)
    >>> mean_rho_of_batch(torch.tensor([0.5, float("nan")]), 0.5, 1.0) is None
    True
    """
    # NumPy has half of torch's overhead a call, and the weights are no part of the graph. Within a training step each
    # further function costs a few microseconds before it does anything: hence one kind of product, and no helpers.
    distance = losses.detach().numpy() - theta
    rows = distance.size
    # Squares do not overflow and a dot product is exact; of NumPy's products this one does not warn where it overflows.
    if not (0 < rows <= _BATCH and _SMALLEST < sigma < _SQUARABLE and np.vdot(distance, distance) < _SQUARE):
        return None
    length = distance * distance
    length += sigma * sigma
    np.sqrt(length, length)
    pulls = distance / length
    length += sigma
    np.divide(distance, length, length)
    share = sigma / rows
    pulls *= share
    result = torch.dot(torch.from_numpy(pulls), losses)
    result.data.fill_(float(np.vdot(distance, length)) * share + constant)
    return result


Floats = npt.NDArray[np.floating[Any]]


def _rho_of_any(distance: Floats, sigma: float) -> tuple[Floats, float]:
    """The rows' `rho_slope` of ``distance / sigma``, shape ``(n,)``, and ``sigma * sum(rho(distance / sigma))``."""
    with np.errstate(invalid="ignore"):  # a loss that is not finite is named by the criterion
        length = np.hypot(distance, distance.dtype.type(sigma))
        pulls = distance / length
        length += sigma
        return pulls, float((distance * (distance / length)).sum())


def weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """``sum(weights * values)`` of vectors, shape ``()``, quick for a batch and exact enough for a million rows.

    >>> weighted_sum(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 2.0]))
    tensor(1.5000)
    """
    # A dot product is one step for automatic differentiation, but adds up one by one in single precision.
    return torch.dot(weights, values) if values.shape[0] <= _BATCH else (weights * values).sum()


def shares_of(weights: Tensor | None, losses: Tensor) -> Tensor | None:
    """Sample weights as shares that sum to 1 along the rows; None stands for equal ones.

    >>> shares_of(torch.tensor([1.0, 3.0]), torch.zeros(2))
    tensor([0.2500, 0.7500])
    """
    return None if weights is None else weights.to(losses.dtype) / weights.sum(-1, keepdim=True)


def mean_of(values: Tensor, shares: Tensor | None) -> Tensor:
    """The mean along the rows, weighted by `shares` where there are any: ``(..., n)`` to ``(...)``.

    >>> mean_of(torch.tensor([1.0, 5.0]), torch.tensor([0.25, 0.75]))
    tensor(4.)
    """
    if shares is not None:
        return (shares * values).sum(-1)
    return values.mean() if values.ndim == 1 else values.mean(-1)


def cvar_weights(losses: Tensor, level: Level, shares: Tensor | None = None) -> Tensor:
    """Worst-case weights of CVaR at `level`, constants of shape ``(..., n)`` that sum to 1.

    The rows above the quantile count fully, the rows at it with what is left, equal ones alike.

    >>> cvar_weights(torch.tensor([1.0, 2.0, 3.0]), 0.5)
    tensor([0.0000, 0.3333, 0.6667])
    """
    fixed = losses.detach()
    rows = fixed.shape[-1]
    limit = cvar_threshold(losses, level, shares)[..., None]
    above, at = fixed > limit, fixed == limit
    if shares is None and isinstance(level, float | int):
        tail = _whole((1.0 - level) * rows, rows)
        part = above.to(fixed.dtype) / tail
        return part + at * ((1.0 - part.sum(-1, keepdim=True)) / at.sum(-1, keepdim=True))
    mass = wide(shares) if shares is not None else torch.full_like(wide(fixed), 1.0 / rows)
    part = mass * above / (1.0 - level)
    left = (1.0 - part.sum(-1, keepdim=True)).clamp_min(0.0)
    here = mass * at
    total: Tensor = part + here * (left / here.sum(-1, keepdim=True).clamp_min(torch.finfo(here.dtype).tiny))
    return (total / total.sum(-1, keepdim=True)).to(losses.dtype)


def cvar_threshold(losses: Tensor, level: Level, shares: Tensor | None = None) -> Tensor:
    """The `level`-quantile of the losses, a constant of shape ``(...)``; at level 0 the smallest loss.

    >>> cvar_threshold(torch.tensor([1.0, 2.0, 3.0, 4.0]), 0.5)
    tensor(2.)
    """
    fixed = losses.detach()
    rows = fixed.shape[-1]
    if shares is None and isinstance(level, float | int):
        whole = math.floor(_whole((1.0 - level) * rows, rows))
        return torch.kthvalue(fixed, max(rows - whole, 1), dim=-1).values
    mass = wide(shares) if shares is not None else torch.full_like(wide(fixed), 1.0 / rows)
    ordered, order = fixed.sort(dim=-1, descending=True)
    reached = mass.gather(-1, order).cumsum(-1)
    # The last row that lies wholly in the tail ends before the quantile; the next row that weighs anything is it.
    inside = (reached <= (1.0 - level) * (1.0 + 1e-12)).sum(-1, keepdim=True).clamp_max(rows - 1)
    return ordered.gather(-1, inside).squeeze(-1)


def chi_square_weights(losses: Tensor, radius: Level, shares: Tensor | None = None) -> Tensor:
    """Worst-case weights in the chi-square ball of `radius`, constants of shape ``(..., n)`` that sum to 1.

    Proportional to ``relu(l - t)``, t exact; where the largest losses tie and already fill the ball, equal over them.

    >>> chi_square_weights(torch.tensor([0.0, 0.0, 1.0, 3.0]), 0.5)
    tensor([0.0459, 0.0459, 0.2500, 0.6582])
    """
    if losses.ndim == 1 and losses.is_cpu and shares is None and not isinstance(radius, Tensor):
        found = _chi_square_of_vector(losses.detach().numpy(), 1.0 + 2.0 * radius)
        return torch.from_numpy(found).to(losses.dtype)
    fixed = wide(losses.detach())
    mass = None
    lowest = fixed.amin(-1, keepdim=True)
    if shares is not None:
        # In single precision shares add up to 1 but for 1e-7, which is much beside a small radius.
        mass = wide(shares) / wide(shares).sum(-1, keepdim=True)
        # A row without weight must not be the maximum.
        lowest = torch.where(mass > 0, fixed, math.inf).amin(-1, keepdim=True)
        fixed = torch.where(mass > 0, fixed, lowest)
    # Shifted and scaled, so that sums of squares neither cancel nor overflow: the weights do not change.
    top = fixed.amax(-1, keepdim=True)
    span = top - lowest
    scaled = (fixed - top) / torch.where(span > 0, span, 1.0)
    return _chi_square_of_scaled(scaled, 1.0 + 2.0 * radius, mass).to(losses.dtype)


def _chi_square_of_vector(losses: npt.NDArray[Any], growth: float) -> npt.NDArray[np.float64]:
    """As `_chi_square_of_scaled`, for one vector: NumPy sorts many times faster, and the piece is found by halving."""
    rows = losses.size
    ordered = np.sort(losses)[::-1].astype(np.float64)
    top, span = ordered[0], ordered[0] - ordered[-1]
    if not 0.0 < span < math.inf:  # all equal, or a loss that is not finite
        return np.full(rows, 1.0 / rows if span == 0.0 else math.nan)
    ordered -= top
    ordered /= span
    first, second = np.cumsum(ordered), np.cumsum(np.square(ordered))
    tied = int(np.searchsorted(-ordered, 0.0, side="right"))
    if growth * tied >= rows:
        return np.asarray((losses == losses.max()) / tied, dtype=np.float64)

    def rising(count: int) -> bool:
        below, sums, squares = ordered[count], first[count - 1], second[count - 1]
        spread = squares - 2.0 * below * sums + count * below * below
        return bool(growth / rows * (sums - count * below) ** 2 < max(spread, 0.0))

    low, high = tied, rows
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if rising(middle) else (low, middle)
    mean = first[low - 1] / low
    variance = max(second[low - 1] / low - mean * mean, 0.0)
    threshold = mean - math.sqrt(variance / max(growth * low / rows - 1.0, 1e-300))
    if low < rows:
        threshold = max(threshold, ordered[low])
    pulled: npt.NDArray[np.float64] = np.maximum((losses.astype(np.float64) - top) / span - threshold, 0.0)
    total = pulled.sum()
    return np.asarray(pulled / total if total > 0.0 else (losses == losses.max()) / tied, dtype=np.float64)


def _chi_square_of_scaled(scaled: Tensor, growth: Level, mass: Tensor | None) -> Tensor:
    """Worst-case weights of losses whose maximum is 0 and whose minimum is -1 (all 0 where they are equal).

    On the piece where the k largest, with mass A and mean m, lie above t, the slope in t is zero at
    ``t = m - sqrt(var / (growth A - 1))``; convexity says that the piece is the first whose lower end, the next
    loss, has a slope that is not positive.
    """
    rows = scaled.shape[-1]
    if mass is None:
        ordered = scaled.sort(dim=-1, descending=True).values
        reached = torch.arange(1, rows + 1, dtype=scaled.dtype, device=scaled.device) / rows
        reached = reached.expand_as(ordered)
        first, second = ordered.cumsum(-1) / rows, ordered.square().cumsum(-1) / rows
    else:
        ordered, order = scaled.sort(dim=-1, descending=True)
        held = mass.gather(-1, order)
        reached = held.cumsum(-1)
        first, second = (held * ordered).cumsum(-1), (held * ordered.square()).cumsum(-1)
    below = ordered[..., 1:]
    reach = first[..., :-1] - reached[..., :-1] * below
    spread = second[..., :-1] - 2.0 * below * first[..., :-1] + reached[..., :-1] * below.square()
    rising = growth * reach.square() < spread.clamp_min(0.0)
    tied_top = below >= ordered[..., :1]
    # The pieces with a rising lower end come first; a tie with the maximum is no piece at all.
    piece = (rising | tied_top).to(torch.int64).cumprod(-1).sum(-1, keepdim=True)
    active = reached.gather(-1, piece)
    mean = first.gather(-1, piece) / active
    variance = (second.gather(-1, piece) / active - mean.square()).clamp_min(0.0)
    surplus = growth * active - 1.0
    threshold = mean - (variance / surplus.clamp_min(torch.finfo(scaled.dtype).tiny)).sqrt()
    # Rounding must not push t out of its piece: nearly tied maxima would spread their weight over all rows.
    following = torch.cat([below, ordered.new_full((*ordered.shape[:-1], 1), -math.inf)], dim=-1)
    threshold = torch.maximum(threshold, following.gather(-1, piece))
    pulled, at_top = (scaled - threshold).clamp_min(0.0), (scaled >= ordered[..., :1]).to(scaled.dtype)
    if mass is not None:
        pulled, at_top = pulled * mass, at_top * mass
    filled = at_top.sum(-1, keepdim=True) / (rows if mass is None else 1.0)
    full = (growth * filled >= 1.0) | (pulled.sum(-1, keepdim=True) <= 0.0)
    chosen = torch.where(full, at_top, pulled)
    weights: Tensor = chosen / chosen.sum(-1, keepdim=True)
    return weights


def tilted_mean(losses: Tensor, tilt: Level, shares: Tensor | None = None) -> Tensor:
    """``log(mean(exp(t l))) / t`` around the row that dominates: neither overflow nor lost digits; ``(...)``.

    >>> tilted_mean(torch.tensor([0.0, 100.0]), 1.0)    # 100 - log 2
    tensor(99.3069)
    """
    inner = wide(losses)
    fixed = inner.detach()
    top, bottom = fixed, fixed
    if shares is not None:
        top, bottom = torch.where(shares > 0, fixed, -math.inf), torch.where(shares > 0, fixed, math.inf)
    highest, lowest = top.amax(-1, keepdim=True), bottom.amin(-1, keepdim=True)
    anchor = torch.where(torch.as_tensor(tilt, device=fixed.device) > 0, highest, lowest)
    # A row without weight may lie beyond the anchor, where its exponential could overflow: zero times inf.
    kept = inner if shares is None else torch.where(shares > 0, inner, anchor)
    grown = mean_of(torch.expm1(tilt * (kept - anchor)), None if shares is None else wide(shares))
    rate = tilt.squeeze(-1) if isinstance(tilt, Tensor) else tilt
    return (anchor.squeeze(-1) + torch.log1p(grown) / rate).to(losses.dtype)


def tilted_weights(losses: Tensor, tilt: Level, shares: Tensor | None = None) -> Tensor:
    """The rows' weights, ``softmax(t l)`` times their shares; constants of shape ``(..., n)`` that sum to 1.

    >>> tilted_weights(torch.tensor([0.0, 1.0]), 1.0)
    tensor([0.2689, 0.7311])
    """
    exponents = tilt * wide(losses.detach())
    if shares is not None:
        exponents = exponents + wide(shares).log()
    return torch.softmax(exponents, dim=-1).to(losses.dtype)


def wide(values: Tensor) -> Tensor:
    """Double precision where the device has it.

    >>> wide(torch.zeros(1)).dtype
    torch.float64
    """
    return values if values.device.type == "mps" else values.double()


def _whole(tail: float, rows: int) -> float:
    # (1 - 0.9) * 10 is 0.9999999999999998 in floating point; the tenth row is meant.
    return float(round(tail)) if abs(tail - round(tail)) < 1e-13 * rows and round(tail) > 0 else tail
