"""Statistics of losses by the values of a slice column: what is usual for each, and how surely each moved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import ndtri

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

MISSING = "(missing)"
"""The name of rows that have no value in a slice column: a slice of its own."""

RARE = "(rare values)"
"""The name under which the values of a column with fewer than `MIN_ROWS` rows in the window are taken together."""

MIN_ROWS = 10
"""A value with fewer rows in the window is not judged by itself."""

SCORES = 3
"""Number of scores whose largest is a value's evidence; a correction for chance counts them."""

HANDICAP = 0.5
"""A tail score must beat the score over all ranks by this many standard errors to count for a value: it sees few rows,
so among many values the largest is more often chance."""

RANKING_HANDICAP = 1.0
"""The same where values are only put in order: there the largest is taken whatever it is, and chance weighs more."""

_CELLS = 4_000_000
"""Largest number of resampled weights held at once."""

MANY_HARD_ROWS = 1_000
"""Above so many rows with tail loss, a value's resampled sums are drawn from the normal law that they have by then."""


@dataclass(frozen=True)
class SliceColumn:
    """A slice column as codes 0 … k-1 into `names`.

    Attributes
    ----------
    name: of the column.
    names: the k values that the window has, rare ones pooled.
    now: shape (n,), codes of the window's rows.
    before: shape (m,), codes of the reference's rows; -1 where no code stands for the row's value.
    """

    name: str
    names: list[str]
    now: Codes
    before: Codes

    @property
    def rows(self) -> Floats:
        """Rows of each value in the window, shape (k,)."""
        return np.bincount(self.now, minlength=len(self.names)).astype(float)

    @property
    def rows_before(self) -> Floats:
        """Rows of each value in the reference, shape (k,)."""
        return np.bincount(self.before[self.before >= 0], minlength=len(self.names)).astype(float)


def code_column(now: pd.Series, before: pd.Series, name: str) -> SliceColumn:
    """Code a column of the window and of the reference alike; missing is a value, values rare in the window are pooled.

    >>> now = pd.Series(["a"] * 12 + ["b"] * 10 + ["c", "d", None])
    >>> column = code_column(now, pd.Series(["a", "e", "b"]), "machine")
    >>> column.names, column.rows.tolist(), column.before.tolist()
    (['a', 'b', '(rare values)'], [12.0, 10.0, 3.0], [0, 2, 1])
    """
    both = pd.concat([now.astype(object), before.astype(object)], ignore_index=True)
    codes, uniques = pd.factorize(both, use_na_sentinel=True)
    codes = np.where(codes < 0, len(uniques), codes).astype(np.int64)
    names = [*map(_text, uniques), MISSING]
    return pooled(name, names, codes[: len(now)], codes[len(now) :])


def pooled(name: str, names: list[str], here: Codes, there: Codes) -> SliceColumn:
    """A column of codes into `names`, its values that are rare in the window pooled.

    Parameters
    ----------
    here, there: shapes (n,) and (m,), codes of the rows of window and reference.

    >>> pooled("machine", ["a", "b"], np.repeat([0, 1], [12, 3]), np.array([1, 0])).names
    ['a', '(rare values)']
    """
    counts = np.bincount(here, minlength=len(names))
    frequent = np.flatnonzero(counts >= MIN_ROWS)
    new = np.full(len(names), -1, dtype=np.int64)
    new[frequent] = np.arange(len(frequent))
    kept = [names[code] for code in frequent]
    if ((counts > 0) & (counts < MIN_ROWS)).any():
        # Values that the window does not hold belong to the pool too: its rows are those of "any rare value".
        new[counts < MIN_ROWS] = len(kept)
        kept.append(RARE)
    return SliceColumn(name, kept, new[here], new[there])


def _text(value: object) -> str:
    """A value as people write it: the 3.0 that a whole-number column with gaps turns into is 3."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


@dataclass(frozen=True)
class Usual:
    """What a row of each value carries in the reference: `trust` times its own mean, the rest the mean of all rows.

    Attributes
    ----------
    mean: shape (k,), the expectation.
    trust: shape (k,), in [0, 1]: the weight of the value's own reference rows.
    whole: mean of all reference rows.
    """

    mean: Floats
    trust: Floats
    whole: float

    @classmethod
    def of(cls, scores: Floats, codes: Codes, values: int) -> Usual:
        """Empirical Bayes over the values of a column, by moments as DerSimonian and Laird do for trials.

        >>> codes = np.repeat([0, 1, 2], [500, 500, 2])
        >>> usual = Usual.of(np.repeat([1.0, 3.0, 9.0], [500, 500, 2]) + np.tile([-0.5, 0.5], 501), codes, 3)
        >>> usual.mean.round(1).tolist(), usual.trust.round(2).tolist()
        ([1.0, 3.0, 7.4], [1.0, 1.0, 0.76])
        """
        known = codes >= 0
        rows = np.bincount(codes[known], minlength=values).astype(float)
        seen = rows > 0
        whole = float(scores.mean())
        own = np.bincount(codes[known], weights=scores[known], minlength=values) / np.maximum(rows, 1.0)
        own = np.where(seen, own, whole)
        noise, spread = float(scores.var()), 0.0
        if noise > 0.0 and seen.sum() > 1:
            scatter = float((rows * (own - whole) ** 2).sum() / noise)
            weight = float(rows.sum() - (rows**2).sum() / rows.sum())
            spread = max(0.0, scatter - (seen.sum() - 1)) * noise / weight
        trust = np.zeros(values) if spread == 0.0 else rows * spread / (rows * spread + noise)
        return cls(trust * own + (1.0 - trust) * whole, trust, whole)


def row_scores(now: Floats, before: Floats, threshold: float) -> tuple[Floats, Floats]:
    """Three scores of each loss, shapes (3, n) and (3, m).

    The normal score of its rank in the reference, which is steady whatever the law of the losses; whether it lies
    above `threshold`; and how far, on a logarithmic scale. The last two see a value whose tail grew while its bulk did
    not move, or got better.

    >>> now, before = row_scores(np.array([0.5, 9.0]), np.array([0.0, 0.5, 1.0, 2.0]), 1.5)
    >>> now.round(2).tolist()
    [[-0.25, 1.28], [0.0, 1.0], [0.0, 2.77]]
    """
    ordered = np.sort(before)
    beyond = before[before > threshold] - threshold
    unit = float(beyond.mean()) if len(beyond) else 1.0

    def scores(values: Floats) -> Floats:
        middle = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
        normal = ndtri((middle + 0.5) / (len(ordered) + 1))
        size = np.log1p(np.maximum(values - threshold, 0.0) / unit)
        return np.stack([normal, (values > threshold).astype(float), size])

    return scores(now), scores(before)


def powers_of(scores: Floats) -> Floats:
    """First, second and third powers of scores (3, n), shape (3, 3, n): once for all columns.

    >>> powers_of(np.array([[2.0], [3.0], [0.0]]))[2].tolist()
    [[8.0], [27.0], [0.0]]
    """
    return np.stack([scores, scores**2, scores**3])


def evidence(
    powers: Floats, scores_before: Floats, column: SliceColumn, *, handicaps: Sequence[float] = (HANDICAP,)
) -> Floats:
    """By how many standard errors the rows of each value moved more than all others did; shape (handicaps, k).

    Each value is compared with what was usual for it, so one that was always hard is none the more suspect. If all
    rows moved alike, each entry is at most as large as the maximum of `SCORES` standard normal deviates, nearly.

    Parameters
    ----------
    powers: shape (3, 3, n), `powers_of` the window's scores.
    scores_before: shape (3, m), from `row_scores`.
    handicaps: of the tail scores; one row of results each.

    >>> rng = np.random.default_rng(0)
    >>> codes, before = rng.integers(0, 4, 400), rng.integers(0, 4, 2000)
    >>> losses = rng.exponential(size=400) * np.where(codes == 2, 2.0, 1.0)
    >>> column = SliceColumn("machine", ["a", "b", "c", "d"], codes, before)
    >>> now, then = row_scores(losses, rng.exponential(size=2000), 2.3)
    >>> int(evidence(powers_of(now), then, column)[0].argmax())
    2
    """
    rows, values = column.rows, len(column.names)
    count = len(column.now)
    others = np.maximum(count - rows, 1.0)
    results = []
    for number, score_before in enumerate(scores_before):
        usual = Usual.of(score_before, column.before, values)
        first, second, third = (np.bincount(column.now, weights=power[number], minlength=values) for power in powers)
        # Moments of score - usual, from the powers' sums of each value: no pass over the rows for each of them.
        sums = first - rows * usual.mean
        mean = float(sums.sum()) / count
        shift = usual.mean + mean
        variance = float((second - 2 * shift * first + rows * shift**2).sum()) / count
        difference = sums / rows - (sums.sum() - sums) / others
        if variance < 1e-12:
            variance = 0.0
        spread = (variance + float(score_before.var())) / 2
        if variance == 0.0 or spread == 0.0:
            results.append(np.zeros(values))
            continue
        error = spread * (1 / rows + 1 / others) + usual.trust**2 * spread / np.maximum(column.rows_before, 1.0)
        cubes = third - 3 * shift * second + 3 * shift**2 * first - rows * shift**3
        skewness = float(cubes.sum()) / count / variance**1.5
        results.append(_unskew(difference / np.sqrt(error), skewness / np.sqrt(rows)))
    normal, inside, size = results
    tail = np.maximum(inside, size)
    return np.stack([np.maximum(normal, tail - handicap) for handicap in handicaps])


def _unskew(z: Floats, skewness: Floats) -> Floats:
    """The normal deviate of the same probability as `z` of a gamma law with this skewness (Wilson and Hilferty)."""
    half = np.where(np.abs(skewness) < 1e-3, 1e-3, skewness) / 2
    inside = np.maximum(half * z + 1.0, 0.0)
    deviate: Floats = (np.cbrt(inside) - 1.0) * 3.0 / half + half / 3.0
    return deviate


def resampled_excess(
    tail: Floats,
    tail_before: Floats,
    column: SliceColumn,
    usual: Usual,
    *,
    resamples: int,
    rng: np.random.Generator,
) -> Floats:
    """Bootstrap of the excess of each value, shape (resamples, k); window and reference are both resampled.

    Parameters
    ----------
    tail, tail_before: shapes (n,) and (m,), relu(loss - t) of the rows of window and reference.
    usual: `Usual.of(tail_before, …)`; the trust in each value is kept.

    >>> rng = np.random.default_rng(0)
    >>> column = SliceColumn("machine", ["a", "b"], np.repeat([0, 1], 100), np.repeat([0, 1], 100))
    >>> tail, before = np.tile([2.0, 0.0], 100), np.tile([1.0, 0.0], 100)
    >>> usual = Usual.of(before, column.before, 2)
    >>> resampled_excess(tail, before, column, usual, resamples=1000, rng=rng).mean(axis=0).round(-1).tolist()
    [50.0, 50.0]
    """
    values = len(column.names)
    now, rows = _weighted_sums(tail, column.now, values, resamples, rng)
    before, rows_before = _weighted_sums(tail_before, column.before, values, resamples, rng)
    # The last column of codes stands for reference rows whose value the window does not have.
    whole = before.sum(axis=1, keepdims=True) / np.maximum(rows_before.sum(axis=1, keepdims=True), 1.0)
    counts = rows_before[:, :-1]
    own = np.where(counts > 0, before[:, :-1] / np.maximum(counts, 1.0), whole)
    excess: Floats = now[:, :-1] - rows[:, :-1] * (usual.trust * own + (1.0 - usual.trust) * whole)
    return excess


def _weighted_sums(
    tail: Floats, codes: Codes, values: int, resamples: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Sums of Poisson-weighted tail loss and of weights by code; shape (resamples, values + 1), the last for code -1.

    Rows without tail loss count by their number only, so that just the others are drawn one by one.
    """
    codes = np.where(codes < 0, values, codes)
    hard = tail > 0.0
    zeros = np.bincount(codes[~hard], minlength=values + 1)
    codes, tail = codes[hard], tail[hard]
    number = np.bincount(codes, minlength=values + 1)
    many = number > MANY_HARD_ROWS
    sums, counts = _normal_sums(tail, codes, np.where(many, number, 0), resamples, rng)
    few = ~many[codes]
    codes, tail = codes[few], tail[few]
    width = len(codes)
    place = sparse.csr_array((np.ones(width), (np.arange(width), codes)), shape=(width, values + 1))
    amount = sparse.csr_array((tail, place.indices, place.indptr), shape=place.shape)
    done = 0
    for size in _chunks(resamples, max(width, values + 1)):
        weights = rng.poisson(1.0, size=(size, width)).astype(float)
        sums[done : done + size] += weights @ amount
        counts[done : done + size] += weights @ place + rng.poisson(zeros, size=(size, values + 1))
        done += size
    return sums, counts


def _normal_sums(
    tail: Floats, codes: Codes, number: Codes, resamples: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Sums and counts of Poisson weights for the codes whose `number` of rows is not 0, by their normal law.

    With weights w of mean and variance 1, sum(w x) and sum(w) have variances sum(x^2) and n, and covariance sum(x).
    """
    first, second = (np.bincount(codes, weights=tail**power, minlength=len(number)) for power in (1, 2))
    rows = np.maximum(number, 1)
    drawn = rng.standard_normal((2, resamples, len(number)))
    along = drawn[0] * np.sqrt(rows)
    beside = drawn[1] * np.sqrt(np.maximum(second - first**2 / rows, 0.0))
    used = number > 0
    return used * (first + along * first / rows + beside), used * np.maximum(number + along, 0.0)


def _chunks(resamples: int, width: int) -> Iterable[int]:
    size = max(1, min(resamples, _CELLS // max(width, 1)))
    for start in range(0, resamples, size):
        yield min(size, resamples - start)
