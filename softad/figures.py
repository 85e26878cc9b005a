"""The three figures of a model on held-out rows (mean, tail, stability), and how concentrated its loss is.

All take rows' base losses, shape ``(n,)``, as numbers; intervals are percentiles of the ordinary bootstrap over rows
(`softad.resampling` states its law), which is right where rows are independent. For rows too many to hold at once see
`softad.streaming`; for figures that no rescaling of the losses moves see `softad.recall`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from softad.calibration import cross_entropies
from softad.curves import check_level, checked_losses, cvar, lorenz, tail_curve, tail_mean
from softad.resampling import Sums, bootstrap_sums, percentiles
from softad.slices import SliceFigures, figures_by_slice

__all__ = [
    "CalibratedFigures",
    "Interval",
    "LossConcentration",
    "SliceFigures",
    "ThreeFigures",
    "WorstSlice",
    "calibrated_figures",
    "cvar",
    "figures_by_slice",
    "lorenz",
    "loss_concentration",
    "tail_curve",
    "three_figures",
]

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
class CalibratedFigures:
    """The three figures before and after temperature scaling: a tail in log loss is often mere overconfidence.

    Attributes
    ----------
    before: of the logits as they are.
    after: of the logits divided by `temperature`.
    """

    before: ThreeFigures
    after: ThreeFigures
    temperature: float


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
    data = checked_losses(losses)
    check_level(level)
    ordered = np.sort(data)[::-1]
    centre = float(ordered.mean())
    centred = ordered - centre
    rows, tail = ordered.size, (1.0 - level) * ordered.size

    def figures(sums: Sums) -> Array:
        first, second = sums.columns / rows
        deviations = np.sqrt(np.maximum(second - np.square(first), 0.0))
        return np.stack([centre + first, sums.tail / tail, deviations])

    plain, drawn = bootstrap_sums(ordered, np.stack([centred, np.square(centred)]), tail, resamples, seed)
    mean, worst_rows, stability = _intervals(figures(plain), figures(drawn), confidence)
    worst, spread = _slices(data, slices, level, min_slice_rows) if slices else (None, None)
    return ThreeFigures(
        mean=mean,
        tail=worst_rows,
        stability=stability,
        tail_95=tail_mean(ordered, 0.95),
        tail_99=tail_mean(ordered, 0.99),
        rows=rows,
        level=level,
        worst_slice=worst,
        slice_spread=spread,
    )


def calibrated_figures(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    temperature: float,
    *,
    level: float = 0.9,
    resamples: int = 200,
    seed: int = 0,
    confidence: float = 0.95,
) -> CalibratedFigures:
    """The three figures of the cross-entropy before and after temperature scaling.

    Parameters
    ----------
    logits: shape (n, k), finite.
    labels: shape (n,), class numbers 0 .. k-1.
    temperature: that the logits are divided by, above 0; fit it on other rows (`softad.calibration.fit_temperature`).
    level, resamples, seed, confidence: as in `three_figures`.

    >>> found = calibrated_figures([[4.0, 0.0], [4.0, 0.0]], [0, 1], temperature=4.0)
    >>> round(found.before.tail.value, 3), round(found.after.tail.value, 3)
    (4.018, 1.313)

    Raises
    ------
    ValueError: shapes do not fit, a label is no class number, or a number is out of its range.
    """
    before, after = (
        three_figures(
            cross_entropies(logits, labels, divisor), level=level, resamples=resamples, seed=seed, confidence=confidence
        )
        for divisor in (1.0, temperature)
    )
    return CalibratedFigures(before, after, temperature)


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
    data = checked_losses(losses)
    if data.min() < 0.0:
        raise ValueError(f"losses: smallest {data.min():g}; allowed: 0 or more")
    if not math.isfinite(theta):
        raise ValueError(f"theta: {theta!r}; allowed: finite")
    if not 0.0 < sigma < math.inf:
        raise ValueError(f"sigma: {sigma!r}; allowed: (0, inf)")
    ordered = np.sort(data)[::-1]
    x = (ordered - theta) / sigma
    penalties = x * (x / (1.0 + np.hypot(1.0, x)))

    rows, tail = ordered.size, 0.1 * ordered.size

    def figures(sums: Sums) -> Array:
        penalty, total = sums.columns
        none = np.zeros_like(total)
        top = np.divide(sums.tail, total, out=none.copy(), where=total > 0.0)
        gini = np.divide(sums.ranked / rows, total, out=none.copy(), where=total > 0.0)
        return np.stack([penalty / rows, top, np.maximum(gini, 0.0)])

    plain, drawn = bootstrap_sums(ordered, np.stack([penalties, ordered]), tail, resamples, seed, ranks=True)
    return LossConcentration(*_intervals(figures(plain), figures(drawn), confidence))


def _intervals(value: Array, drawn: Array, confidence: float) -> list[Interval]:
    """From the figures of the rows as they are, shape (f, 1), and of resamples, shape (f, c)."""
    low, high = percentiles(drawn, confidence)
    return [Interval(float(v), float(a), float(b)) for v, a, b in zip(value[:, 0], low, high, strict=True)]


def _slices(
    losses: Array, slices: Mapping[str, npt.ArrayLike], level: float, min_rows: int
) -> tuple[WorstSlice | None, dict[str, tuple[float, float]]]:
    found = figures_by_slice(losses, slices, level=level, min_rows=max(min_rows, 1))
    worst = max(found, key=lambda one: one.mean, default=None)
    spread = {}
    for column in slices:
        figures = [(one.mean, one.tail) for one in found if one.column == column]
        if figures:
            means, tails = np.std(figures, axis=0).tolist()
            spread[column] = (means, tails)
    return worst and WorstSlice(worst.column, worst.value, worst.mean, worst.rows), spread
