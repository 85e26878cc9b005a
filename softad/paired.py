"""Differences between two candidates that were judged on the same rows, round after round, and their errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEAST_ROUNDS = 3
"""With fewer nothing is said about errors."""


@dataclass(frozen=True)
class Difference:
    """A candidate's figure less the baseline's.

    Attributes
    ----------
    value: the difference; a share of the baseline's figure where `paired` was told so.
    error: its standard error; inf where there were fewer than `LEAST_ROUNDS` rounds.
    rounds: how many there were.
    """

    value: float
    error: float
    rounds: int

    def bounds(self, confidence: float = 0.95) -> tuple[float, float]:
        """Two one-sided bounds, each holding with `confidence` by itself.

        >>> low, high = Difference(-0.1, 0.02, 10).bounds()
        >>> round(low, 3), round(high, 3)
        (-0.137, -0.063)
        """
        if not math.isfinite(self.error):
            return -math.inf, math.inf
        width = float(stats.t.ppf(confidence, self.rounds - 1)) * self.error
        return self.value - width, self.value + width

    @property
    def ratio(self) -> float:
        """The difference in units of its error; 0 where there is no difference."""
        if self.value == 0.0 or not math.isfinite(self.error):
            return 0.0
        return self.value / self.error if self.error > 0.0 else math.copysign(math.inf, self.value)


def paired(
    candidate: Sequence[Array],
    baseline: Sequence[Array],
    clusters: Sequence[Ints],
    *,
    relative: bool = False,
) -> Difference:
    """The mean difference of rows' contributions, with the larger of two errors.

    Across rounds the differences vary with the training rows and the seed: their standard deviation over the root
    of the number of rounds. But the rounds judge the same rows again, so many rounds would make a difference between
    these rows look like one between all rows; that error is the one of the rows' own mean differences.

    Parameters
    ----------
    candidate, baseline: contributions of the judged rows in each round, as `softad.judging` gives them.
    clusters: in each round, which row (or group of rows that belong together) each of them is.
    relative: whether the difference is a share of the baseline's figure.

    >>> rows = [np.arange(4), np.arange(4, 8), np.arange(4)]
    >>> found = paired([np.full(4, v) for v in (1.0, 2.0, 3.0)], [np.zeros(4)] * 3, rows)
    >>> found.value, round(found.error, 3)
    (2.0, 0.577)

    Raises
    ------
    ValueError: the rounds do not fit each other.
    """
    if not len(candidate) == len(baseline) == len(clusters) > 0:
        raise ValueError(
            f"candidate: {len(candidate)} rounds, baseline {len(baseline)}, clusters {len(clusters)}; "
            "allowed: the same number, at least 1"
        )
    rounds = len(candidate)
    by_round = np.array([float((c - b).mean()) for c, b in zip(candidate, baseline, strict=True)])
    scale = float(np.mean([b.mean() for b in baseline])) if relative else 1.0
    value = float(by_round.mean())
    if rounds < LEAST_ROUNDS:
        return Difference(_share(value, scale), math.inf, rounds)
    across = float(by_round.std(ddof=1)) / math.sqrt(rounds)
    error = max(across, _row_error(row_differences(candidate, baseline, clusters)))
    return Difference(_share(value, scale), _share(error, scale), rounds)


def row_differences(candidate: Sequence[Array], baseline: Sequence[Array], clusters: Sequence[Ints]) -> Array:
    """Each cluster's part in the difference, about the mean, shape (clusters that were judged,); summing to 0.

    >>> row_differences([np.array([1.0, 3.0])], [np.zeros(2)], [np.array([0, 1])]).tolist()
    [-0.5, 0.5]
    """
    where = np.concatenate(clusters)
    size = int(where.max()) + 1
    apart = np.concatenate([c - b for c, b in zip(candidate, baseline, strict=True)])
    sums = np.bincount(where, apart - apart.mean(), minlength=size) / apart.size
    return np.asarray(sums[np.bincount(where, minlength=size) > 0], dtype=np.float64)


def critical_value(correlation: Array, freedom: int, alpha: float, *, draws: int = 20_000, seed: int = 0) -> float:
    """What the largest of several correlated t statistics exceeds with probability `alpha` by chance (max-t).

    Parameters
    ----------
    correlation: of the statistics, shape (m, m).
    freedom: their degrees of freedom, at least 1.
    alpha: in (0, 1).

    >>> one, many = (critical_value(np.eye(m), 9, 0.05) for m in (1, 20))
    >>> round(one, 1), many > 3.0
    (1.8, True)
    """
    rng = np.random.default_rng(seed)
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    normal = rng.standard_normal((draws, correlation.shape[0])) @ root.T
    scale = np.sqrt(rng.chisquare(freedom, draws) / freedom)
    return float(np.quantile(normal.max(axis=1) / scale, 1.0 - alpha))


def correlations(parts: Sequence[Array]) -> Array:
    """Correlation of several candidates' row differences, shape (m, m); one without any difference has none.

    >>> correlations([np.array([1.0, -1.0]), np.array([-2.0, 2.0]), np.zeros(2)]).round(2).tolist()
    [[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    matrix = np.stack(parts)
    lengths = np.sqrt(np.square(matrix).sum(axis=1))
    scaled = np.divide(matrix, lengths[:, None], out=np.zeros_like(matrix), where=lengths[:, None] > 0.0)
    found = scaled @ scaled.T
    np.fill_diagonal(found, 1.0)
    return np.asarray(found, dtype=np.float64)


def _row_error(parts: Array) -> float:
    count = parts.size
    return math.sqrt(float(np.square(parts).sum()) * (count / (count - 1))) if count > 1 else math.inf


def _share(value: float, scale: float) -> float:
    if scale == 1.0:
        return value
    return value / scale if scale > 0.0 else (0.0 if value == 0.0 else math.copysign(math.inf, value))
