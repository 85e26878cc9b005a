"""Reliability of probabilities: are rows called with 80 % confidence right in 80 % of cases? With ECE and Brier score.

ECE, the expected calibration error, is the mean over bins of |share right - mean confidence|, weighted by rows
(Naeini, Cooper and Hauskrecht, AAAI 2015; Guo et al., ICML 2017, equation 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from softad.figures import Interval
from softad.recall import wilson
from softad.resampling import BLOCK, percentiles

Array = npt.NDArray[np.float64]


class ReliabilityBin(NamedTuple):
    """The rows whose confidence is in ``(low, high]``, or from `low` on in the first bin.

    Attributes
    ----------
    rows: how many.
    confidence: their mean confidence.
    accuracy: the share of them that is right, with Wilson's interval from `accuracy_low` to `accuracy_high`.
    """

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float


@dataclass(frozen=True)
class Reliability:
    """How far confidence and accuracy agree.

    Attributes
    ----------
    bins: the bins that hold rows, by ascending confidence.
    ece: expected calibration error, in [0, 1].
    ece_if_calibrated: the ECE that these rows would have on average if every confidence were exactly right; an `ece`
        near it is noise.
    largest_gap: the largest |accuracy - confidence| of a bin (the maximum calibration error).
    brier: Brier score; over all classes in [0, 2], for one class of interest in [0, 1]; with its interval.
    rows: how many rows.
    """

    bins: tuple[ReliabilityBin, ...]
    ece: Interval
    ece_if_calibrated: float
    largest_gap: float
    brier: Interval
    rows: int


def reliability(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    bins: int = 15,
    *,
    binning: Literal["count", "width"] = "count",
    interest: int | None = None,
    resamples: int = 200,
    seed: int = 0,
    confidence: float = 0.95,
) -> Reliability:
    """Reliability of the most probable class, or of the probability of a class of interest.

    The bins are those of the rows as given, in the resamples too. A resample's ECE is larger than that of its rows
    by about what theirs is larger than the truth, since noise only ever adds to it; so the ECE's interval is the basic
    one, the percentiles reflected at the value, cut at 0 and stretched to hold the value. The Brier score's is the
    percentile interval.

    Parameters
    ----------
    probabilities: shape (n, k), each row in [0, 1] with sum 1; or shape (n,), of the event that `labels` says.
    labels: shape (n,), class numbers 0 .. k-1; with probabilities of shape (n,), 0 or 1.
    bins: how many at most, at least 1.
    binning: "count", edges at quantiles of the confidence, tied rows together; "width", edges evenly over [0, 1].
    interest: None judges the most probable class (confidence is its probability; right is that it is the label); a
        class number judges the probability of that class (right is that the label is that class).
    resamples, seed: of the ordinary bootstrap over rows, n draws a resample; at least 1.
    confidence: of the intervals, in (0, 1).

    >>> found = reliability([[0.75, 0.25]] * 4, [0, 0, 0, 1], bins=10)
    >>> found.bins[0].confidence, found.bins[0].accuracy, found.ece.value, found.brier.value
    (0.75, 0.75, 0.0, 0.375)

    Raises
    ------
    ValueError: shapes do not fit, probabilities are none, a label is no class number, or a number is out of its range.
    """
    matrix, truth = _checked(probabilities, labels)
    if bins < 1:
        raise ValueError(f"bins: {bins!r}; allowed: 1 or more")
    for name, number, least in (("resamples", resamples, 1), ("seed", seed, 0)):
        if number < least:
            raise ValueError(f"{name}: {number!r}; allowed: {least} or more")
    if binning not in ("count", "width"):
        raise ValueError(f"binning: {binning!r}; allowed: 'count' or 'width'")
    if matrix.ndim == 1:
        if interest not in (None, 1):
            raise ValueError(f"interest: {interest!r}; allowed: None or 1 with probabilities of one event")
        matrix, interest = np.column_stack([1.0 - matrix, matrix]), 1
    sure, right, squares = _judged(matrix, truth, interest)
    edges = _edges(sure, bins, binning)
    member = np.maximum(np.searchsorted(edges, sure, side="left") - 1, 0)

    rows = sure.size
    count = np.bincount(member, minlength=edges.size - 1)
    full = np.flatnonzero(count)
    hits, mass = (np.bincount(member, weights=values, minlength=edges.size - 1) for values in (right, sure))
    found = []
    for number in full.tolist():
        share = wilson(round(float(hits[number])), int(count[number]), confidence)
        low, high = float(edges[number]), float(edges[number + 1])
        mean = float(mass[number] / count[number])
        found.append(ReliabilityBin(low, high, int(count[number]), mean, share.value, share.low, share.high))
    ece = float(np.abs(hits - mass).sum() / rows)
    ece_drawn, brier_drawn = _resampled(member, right - sure, squares, resamples, seed)
    ece_low, ece_high = (2.0 * ece - float(end) for end in reversed(percentiles(ece_drawn, confidence)))
    brier_low, brier_high = percentiles(brier_drawn, confidence)
    # |noise| of a bin is nearly half-normal, with the variance of its Bernoulli outcomes.
    noise = np.sqrt(2.0 / math.pi * np.bincount(member, weights=sure * (1.0 - sure)))
    return Reliability(
        bins=tuple(found),
        ece=Interval(ece, min(max(ece_low, 0.0), ece), max(ece_high, ece)),
        ece_if_calibrated=float(noise.sum() / rows),
        largest_gap=float((np.abs(hits - mass)[full] / count[full]).max()),
        brier=Interval(float(squares.mean()), float(brier_low), float(brier_high)),
        rows=int(rows),
    )


def _judged(matrix: Array, truth: npt.NDArray[np.int64], interest: int | None) -> tuple[Array, Array, Array]:
    """Each row's confidence, whether it is right (0 or 1), and its part of the Brier score."""
    rows = np.arange(truth.size)
    if interest is None:
        top = matrix.argmax(axis=1)
        # (p - y)^2 summed over classes, y 1 at the label: sum p^2 - 2 p(label) + 1.
        squares = np.maximum(np.square(matrix).sum(axis=1) - 2.0 * matrix[rows, truth] + 1.0, 0.0)
        return matrix[rows, top], (top == truth).astype(np.float64), squares
    if not 0 <= interest < matrix.shape[1]:
        raise ValueError(f"interest: {interest!r}; allowed: None or a class number 0 .. {matrix.shape[1] - 1}")
    sure, right = matrix[:, interest], (truth == interest).astype(np.float64)
    return sure, right, np.square(sure - right)


def _edges(sure: Array, bins: int, binning: str) -> Array:
    if binning == "width":
        return np.linspace(0.0, 1.0, bins + 1)
    inner = np.quantile(sure, np.linspace(0.0, 1.0, bins + 1), method="inverted_cdf")
    edges = np.unique(inner)
    # One value only is a bin of its own.
    return edges if edges.size > 1 else np.repeat(edges, 2)


def _resampled(
    member: npt.NDArray[np.intp], gaps: Array, squares: Array, resamples: int, seed: int
) -> tuple[Array, Array]:
    """ECE and Brier score of bootstrap resamples. Draws are independent, so they are taken and summed by parts."""
    rows, bins = gaps.size, int(member.max()) + 1
    generator = np.random.Generator(np.random.SFC64(seed))
    ece, brier = np.empty(resamples), np.empty(resamples)
    for number in range(resamples):
        balance, total = np.zeros(bins), 0.0
        for done in range(0, rows, BLOCK):
            drawn = generator.integers(0, rows, size=min(BLOCK, rows - done))
            balance += np.bincount(member[drawn], weights=gaps[drawn], minlength=bins)
            total += float(squares[drawn].sum())
        ece[number], brier[number] = np.abs(balance).sum() / rows, total / rows
    return ece, brier


def _checked(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Array, npt.NDArray[np.int64]]:
    matrix = np.asarray(probabilities, dtype=np.float64)
    if matrix.ndim not in (1, 2) or matrix.size == 0:
        raise ValueError(f"probabilities: shape {matrix.shape}; allowed: (n, k) or (n,), at least one row")
    if not ((matrix >= 0.0) & (matrix <= 1.0 + 1e-6)).all():
        raise ValueError(f"probabilities: from {matrix.min()} to {matrix.max()}; allowed: [0, 1]")
    matrix = np.minimum(matrix, 1.0)
    if matrix.ndim == 2:
        off = np.abs(matrix.sum(axis=1) - 1.0)
        if off.max() > 1e-3:
            raise ValueError(f"probabilities: row {int(off.argmax())} has sum {matrix[off.argmax()].sum()}; allowed: 1")
    truth = np.asarray(labels)
    classes = matrix.shape[1] if matrix.ndim == 2 else 2
    if truth.shape != (len(matrix),):
        raise ValueError(f"labels: shape {truth.shape}; allowed: ({len(matrix)},), one a row of probabilities")
    if truth.dtype != np.bool_ and not np.issubdtype(truth.dtype, np.integer):
        raise ValueError(f"labels: {truth.dtype}; allowed: integers in [0, {classes})")
    if truth.min() < 0 or truth.max() >= classes:
        raise ValueError(f"labels: from {truth.min()} to {truth.max()}; allowed: integers in [0, {classes})")
    return matrix, truth.astype(np.int64)
