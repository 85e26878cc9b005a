"""The three figures of a model on held-out rows (mean, tail, stability), and how concentrated its loss is.

All take rows' base losses, shape ``(n,)``, as numbers; intervals are percentiles of a bootstrap over rows, which
is right where rows are independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from softad.resampling import bootstrap_counts

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A figure with its bootstrap interval, all in the unit of the figure."""

    value: float
    low: float
    high: float


class WorstSlice(NamedTuple):
    """The slice (a column's value) with the largest mean loss."""

    column: str
    value: str
    mean: float
    rows: int


@dataclass(frozen=True)
class ThreeFigures:
    """What a model is judged by.

    Attributes
    ----------
    mean: mean loss.
    tail: CVaR at `level`, the mean loss of the worst ``1 - level`` share of rows.
    stability: standard deviation of the losses.
    tail_95, tail_99: CVaR at .95 and .99.
    rows: how many rows.
    level: of `tail`.
    worst_slice: largest mean loss among the slices with rows enough; None without slices.
    slice_spread: standard deviation of the slices' mean losses, and of their tails, by column.
    """

    mean: Interval
    tail: Interval
    stability: Interval
    tail_95: float
    tail_99: float
    rows: int
    level: float
    worst_slice: WorstSlice | None = None
    slice_spread: Mapping[str, tuple[float, float]] | None = None


@dataclass(frozen=True)
class LossConcentration:
    """How far the loss sits in few rows.

    Attributes
    ----------
    penalty: mean of ``rho((l - theta) / sigma)``, the penalty of the paper.
    top_share: share of the total loss that the worst tenth of rows carries, in [0, 1].
    gini: Gini coefficient of the losses, in [0, 1).
    """

    penalty: Interval
    top_share: Interval
    gini: Interval


def cvar(losses: npt.ArrayLike, level: float) -> float:
    """The mean of the worst ``1 - level`` share of the losses, the fractional row weighted.

    >>> cvar([1.0, 2.0, 3.0], 0.5)      # (3 + 2 / 2) / 1.5
    2.6666666666666665

    Raises
    ------
    ValueError: `losses` is empty, not one-dimensional or not finite; `level` outside [0, 1).
    """
    ordered = np.sort(_checked(losses))[::-1]
    _check_level(level)
    return float(_tail_means(ordered, np.ones((1, ordered.size)), level)[0])


def three_figures(
    losses: npt.ArrayLike,
    *,
    level: float = 0.9,
    resamples: int = 200,
    seed: int = 0,
    confidence: float = 0.95,
    slices: Mapping[str, npt.ArrayLike] | None = None,
    min_slice_rows: int = 30,
) -> ThreeFigures:
    """Mean, tail and stability of rows' losses, with intervals.

    Parameters
    ----------
    losses: shape (n,), finite.
    level: of the tail, in [0, 1).
    resamples: of the bootstrap, at least 1.
    seed: fixes the resamples.
    confidence: of the intervals, in (0, 1).
    slices: column name to that column's values, shape (n,); missing values belong to no slice.
    min_slice_rows: smaller slices are not looked at.

    >>> figures = three_figures([0.1, 0.2, 0.1, 4.0], slices={"machine": ["M1", "M1", "M2", "M2"]}, min_slice_rows=2)
    >>> round(figures.mean.value, 3), round(figures.tail.value, 3), round(figures.stability.value, 3)
    (1.1, 4.0, 1.675)
    >>> figures.worst_slice
    WorstSlice(column='machine', value='M2', mean=2.05, rows=2)

    Raises
    ------
    ValueError: an argument is out of its range; a slice column has another number of rows.
    """
    data = _checked(losses)
    _check_level(level)
    ordered = np.sort(data)[::-1]
    whole = np.ones((1, ordered.size))

    def figures(counts: Array) -> Array:
        return np.stack([_means(ordered, counts), _tail_means(ordered, counts, level), _deviations(ordered, counts)])

    intervals = _intervals(figures, ordered.size, resamples, seed, confidence)
    worst, spread = _slices(data, slices, level, min_slice_rows) if slices else (None, None)
    return ThreeFigures(
        mean=intervals[0],
        tail=intervals[1],
        stability=intervals[2],
        tail_95=float(_tail_means(ordered, whole, 0.95)[0]),
        tail_99=float(_tail_means(ordered, whole, 0.99)[0]),
        rows=ordered.size,
        level=level,
        worst_slice=worst,
        slice_spread=spread,
    )


def loss_concentration(
    losses: npt.ArrayLike,
    *,
    theta: float,
    sigma: float,
    resamples: int = 200,
    seed: int = 0,
    confidence: float = 0.95,
) -> LossConcentration:
    """How far the loss sits in few rows; losses that are all zero have no concentration (share and Gini 0).

    Parameters
    ----------
    losses: shape (n,), finite and >= 0.
    theta, sigma: of the penalty; fix them on a reference, never by the training, so that two models compare.
    resamples, seed, confidence: of the bootstrap, as in `three_figures`.

    >>> even = loss_concentration([1.0] * 20, theta=0.0, sigma=1.0)
    >>> round(even.top_share.value, 3), round(even.gini.value, 3)
    (0.1, 0.0)

    Raises
    ------
    ValueError: an argument is out of its range.
    """
    data = _checked(losses)
    if data.min() < 0.0:
        raise ValueError(f"losses: smallest {data.min():g}; allowed: 0 or more")
    if not math.isfinite(theta):
        raise ValueError(f"theta: {theta!r}; allowed: finite")
    if not 0.0 < sigma < math.inf:
        raise ValueError(f"sigma: {sigma!r}; allowed: (0, inf)")
    ordered = np.sort(data)[::-1]
    x = (ordered - theta) / sigma
    penalties = x * (x / (1.0 + np.hypot(1.0, x)))

    def figures(counts: Array) -> Array:
        return np.stack([_means(penalties, counts), _top_shares(ordered, counts), _ginis(ordered, counts)])

    return LossConcentration(*_intervals(figures, ordered.size, resamples, seed, confidence))


def lorenz(losses: npt.ArrayLike, points: int = 101) -> tuple[Array, Array]:
    """The Lorenz curve: the share of the loss (second) that the easiest share of rows (first) carries.

    Both have shape ``(points,)`` and run from 0 to 1; for losses that are all zero the curve is the diagonal.

    >>> population, share = lorenz([0.0, 0.0, 0.0, 4.0], points=5)
    >>> share.tolist()
    [0.0, 0.0, 0.0, 0.0, 1.0]

    Raises
    ------
    ValueError: `losses` empty, negative or not finite; `points` below 2.
    """
    data = np.sort(_checked(losses))
    if data[0] < 0.0:
        raise ValueError(f"losses: smallest {data[0]:g}; allowed: 0 or more")
    if points < 2:
        raise ValueError(f"points: {points}; allowed: 2 or more")
    population = np.linspace(0.0, 1.0, points)
    # Scaled by the largest, so that the sum of huge losses does not overflow.
    carried = np.concatenate([[0.0], np.cumsum(data / data[-1])]) if data[-1] > 0.0 else np.zeros(data.size + 1)
    if carried[-1] == 0.0:
        return population, population.copy()
    share = np.interp(population, np.linspace(0.0, 1.0, data.size + 1), carried / carried[-1])
    return population, share


# --- statistics of resamples: `values` in descending order, shape (n,); `counts` per resample, shape (c, n) ---


def _means(values: Array, counts: Array) -> Array:
    return counts @ values / values.size


def _deviations(values: Array, counts: Array) -> Array:
    centred = values - values.mean()
    first, second = counts @ centred / values.size, counts @ np.square(centred) / values.size
    deviations: Array = np.sqrt(np.maximum(second - np.square(first), 0.0))
    return deviations


def _tail_means(values: Array, counts: Array, level: float) -> Array:
    """CVaR of each resample. Only as many of the largest values are looked at as the tails can reach."""
    rows = values.size
    tail = (1.0 - level) * rows
    reach = min(rows, math.ceil(tail + 8.0 * math.sqrt(tail) + 16.0))
    while True:
        drawn = np.cumsum(counts[:, :reach], axis=1)
        if reach == rows or drawn[:, -1].min() >= tail:
            break
        reach = min(rows, 2 * reach)
    # Each value's weight is the part of its draws that still lies within the tail.
    within = np.minimum(drawn, tail)
    within[:, 1:] -= within[:, :-1].copy()
    return within @ values[:reach] / tail


def _top_shares(values: Array, counts: Array) -> Array:
    total = counts @ values
    top = _tail_means(values, counts, 0.9) * (0.1 * values.size)
    return np.divide(top, total, out=np.zeros_like(total), where=total > 0.0)


def _ginis(values: Array, counts: Array) -> Array:
    # With descending order, draws a+1..b of one value v add v * (b - a) * (n - a - b) to the rank sum.
    after = np.cumsum(counts, axis=1)
    weight = counts * (values.size - 2.0 * after + counts)
    total = counts @ values
    ranked = weight @ values / values.size
    return np.maximum(np.divide(ranked, total, out=np.zeros_like(total), where=total > 0.0), 0.0)


def _intervals(
    figures: Callable[[Array], Array], rows: int, resamples: int, seed: int, confidence: float
) -> list[Interval]:
    """Point values and percentile intervals of `figures`, a function of counts (c, n) to values (f, c)."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: {confidence!r}; allowed: (0, 1)")
    value = figures(np.ones((1, rows)))[:, 0]
    drawn = np.concatenate([figures(counts) for counts in bootstrap_counts(rows, resamples, seed)], axis=1)
    low, high = np.quantile(drawn, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0], axis=1)
    return [Interval(float(v), float(a), float(b)) for v, a, b in zip(value, low, high, strict=True)]


def _slices(
    losses: Array, slices: Mapping[str, npt.ArrayLike], level: float, min_rows: int
) -> tuple[WorstSlice | None, dict[str, tuple[float, float]]]:
    import pandas  # knows every kind of missing value; not needed without slices

    worst: WorstSlice | None = None
    spread: dict[str, tuple[float, float]] = {}
    for column, given in slices.items():
        members = np.asarray(given, dtype=object)
        if members.shape != losses.shape:
            raise ValueError(f"slices: {column!r} has shape {members.shape}; allowed: {losses.shape}, as the losses")
        present = np.asarray(~pandas.isna(members), dtype=bool)
        names, codes = np.unique(members[present].astype(str), return_inverse=True)
        order = np.argsort(codes, kind="stable")
        parts = np.split(losses[present][order], np.searchsorted(codes[order], np.arange(1, names.size)))
        means, tails = [], []
        for name, part in zip(names, parts, strict=False):
            if part.size < max(min_rows, 1):
                continue
            means.append(float(part.mean()))
            tails.append(cvar(part, level))
            if worst is None or means[-1] > worst.mean:
                worst = WorstSlice(column, str(name), means[-1], int(part.size))
        if means:
            spread[column] = (float(np.std(means)), float(np.std(tails)))
    return worst, spread


def _check_level(level: float) -> None:
    if not 0.0 <= level < 1.0:
        raise ValueError(f"level: {level!r}; allowed: [0, 1)")


def _checked(losses: npt.ArrayLike) -> Array:
    data = np.asarray(losses, dtype=np.float64)
    if data.ndim != 1 or data.size == 0:
        raise ValueError(f"losses: shape {data.shape}; allowed: (n,) with n >= 1, one loss a row")
    bad = ~np.isfinite(data)
    if bad.any():
        raise ValueError(
            f"losses: {int(bad.sum())} of {data.size} are not finite, the first at row {int(bad.argmax())}; "
            "allowed: finite numbers"
        )
    return data
