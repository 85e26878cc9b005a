"""Figures that no monotone rescaling of a model's scores moves: recall at a false-reject rate, errors on hard rows.

Losses shrink with a temperature although no row is judged otherwise; these figures do not. The operating point is
that of a line that rejects suspicious items: a row is rejected where its score is *above* a threshold, and the
threshold is the lowest at which no more than a given share of the good rows is rejected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from softad.figures import Interval
from softad.resampling import percentiles
from softad.slices import rows_by_value

Array = npt.NDArray[np.float64]


class ClassRecall(NamedTuple):
    """The share of a defect class's rows that are rejected, with its interval, and how many rows the class has."""

    value: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True)
class OperatingPoint:
    """Recall of each defect class where at most a share `rate` of the good rows is rejected.

    Attributes
    ----------
    rate: the share of good rows that may be rejected.
    false_rejects: the share that is, at most `rate`; less where a tie or a fraction of a row is in the way.
    threshold: rows with a score above it are rejected; in the unit of the scores.
    good_rows: how many good rows there are.
    recall: defect class to its recall.
    defects: recall of all reported defect classes together.
    """

    rate: float
    false_rejects: float
    threshold: float
    good_rows: int
    recall: Mapping[str, ClassRecall]
    defects: ClassRecall


class SliceErrors(NamedTuple):
    """How often the rows of one slice are wrong; ``pandas.DataFrame`` of several is a tidy table."""

    column: str
    value: str
    rows: int
    errors: int
    rate: float
    low: float
    high: float


def defect_scores(probabilities: npt.ArrayLike, normal_column: int) -> Array:
    """``1 - P(normal)`` of each row, shape (n,), as the sum of the other classes' probabilities.

    The sum keeps differences near 0 that ``1 - p`` would round away, and with them the order of the good rows.

    Parameters
    ----------
    probabilities: shape (n, k), k at least 2.
    normal_column: the column of the class of good rows.

    >>> defect_scores([[0.75, 0.25, 0.0], [0.0, 0.5, 0.5]], 0).tolist()
    [0.25, 1.0]

    Raises
    ------
    ValueError: another shape, or no such column.
    """
    matrix = np.asarray(probabilities)
    if matrix.ndim != 2 or matrix.shape[1] < 2:
        raise ValueError(f"probabilities: shape {matrix.shape}; allowed: (n, k) with k >= 2")
    if not 0 <= normal_column < matrix.shape[1]:
        raise ValueError(f"normal_column: {normal_column!r}; allowed: 0 .. {matrix.shape[1] - 1}")
    return np.asarray(np.delete(matrix, normal_column, axis=1).sum(axis=1, dtype=np.float64))


def reject_threshold(good_scores: npt.ArrayLike, rate: float) -> float:
    """The lowest threshold above which at most a share `rate` of the good rows lies: a row *above* it is rejected.

    Parameters
    ----------
    good_scores: shape (g,), at least one.
    rate: in [0, 1).

    >>> reject_threshold([0.1, 0.2, 0.3, 0.9], 0.25)
    0.3
    """
    ordered = np.sort(np.asarray(good_scores, dtype=np.float64))[::-1]
    return float(ordered[_allowed(ordered.size, rate)])


def _allowed(good_rows: int, rate: float) -> int:
    # A rate such as 13 / 1000 must allow 13 rows of 1,000, although the product in floating point may be 12.999...
    return min(math.floor(rate * good_rows * (1.0 + 1e-12) + 1e-12), good_rows - 1)


def recall_at_false_rejects(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    normal: object,
    rate: float = 0.05,
    classes: Sequence[object] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> OperatingPoint:
    """Recall of each defect class at the threshold that rejects at most a share `rate` of the good rows.

    With g good rows, ``a = floor(rate * g)`` of them may be rejected; the threshold is the score of the first good row
    that may not be, the ``a + 1``-th largest, and rows *above* it are rejected. So rows tied with that good row,
    defective ones included, are not rejected: fewer than `rate` of the good rows are then, and recall is never
    flattered by a tie. Only the order of the scores counts; a strictly increasing function of them changes nothing
    but the unit of the threshold.

    The interval is of the bootstrap within classes (each class keeps its number of rows), threshold included. It is
    drawn in law, without drawing rows: the ``a + 1``-th largest of g uniform draws among the sorted good rows is row
    ``floor(g * U)``, U the order statistic ``Beta(a + 1, g - a)``, and given the threshold, a class's rejected rows are
    binomial. Where no or all rows of a class are rejected that interval has no width, however few the rows, so it
    is stretched over Wilson's interval of the class.

    Parameters
    ----------
    scores: shape (n,), finite; the larger the more suspicious (`defect_scores`).
    labels: shape (n,), the true classes; rows without one (None, NaN) are left out.
    normal: the label of good rows.
    rate: share of good rows that may be rejected, in [0, 1).
    classes: the defect classes to report; None reports all that occur. Rows of others are left out.
    resamples: of the bootstrap, at least 1.
    seed: fixes them.
    confidence: of the intervals, in (0, 1).

    >>> scores = [0.1, 0.2, 0.3, 0.9, 0.3, 0.8, 0.95, 0.4]
    >>> labels = ["ok", "ok", "ok", "ok", "dent", "dent", "dent", "scratch"]
    >>> point = recall_at_false_rejects(scores, labels, normal="ok", rate=0.25)
    >>> point.threshold, point.false_rejects      # the dent of 0.3 is tied with the threshold: not rejected
    (0.3, 0.25)
    >>> {name: (round(recall.value, 2), recall.rows) for name, recall in point.recall.items()}
    {'dent': (0.67, 3), 'scratch': (1.0, 1)}

    Raises
    ------
    ValueError: shapes do not fit, a score is not finite, there is no good row or no row of a class to report, or an
        argument is out of its range.
    """
    values = _scores(scores)
    if np.shape(labels) != values.shape:
        raise ValueError(f"labels: shape {np.shape(labels)}; allowed: {values.shape}, as the scores")
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"rate: {rate!r}; allowed: [0, 1)")
    for name, number, least in (("resamples", resamples, 1), ("seed", seed, 0)):
        if number < least:
            raise ValueError(f"{name}: {number!r}; allowed: {least} or more")
    members = {name: np.sort(values[rows]) for name, rows in rows_by_value("labels", labels, values.size)}
    if str(normal) not in members:
        raise ValueError(f"normal: {normal!r}; allowed: a label that occurs, one of {list(members)[:20]}")
    good = members.pop(str(normal))[::-1]
    wanted = list(members) if classes is None else list(dict.fromkeys(str(one) for one in classes))
    if not wanted or not set(wanted) <= set(members):
        raise ValueError(f"classes: {wanted}; allowed: at least one of the defect classes, {list(members)[:20]}")

    allowed = _allowed(good.size, rate)
    rng = np.random.default_rng(seed)
    first_kept = rng.beta(allowed + 1.0, good.size - allowed, resamples) * good.size
    thresholds = good[np.minimum(first_kept.astype(np.intp), good.size - 1)]
    found: dict[str, ClassRecall] = {}
    hits, drawn_hits, rows = 0, np.zeros(resamples), 0
    for name in wanted:
        ordered = members[name]
        above = int(_above(ordered, good[allowed]))
        drawn = rng.binomial(ordered.size, _above(ordered, thresholds) / ordered.size).astype(np.float64)
        found[name] = _recall(above, drawn, ordered.size, confidence)
        hits, drawn_hits, rows = hits + above, drawn_hits + drawn, rows + ordered.size
    return OperatingPoint(
        rate=rate,
        false_rejects=float((good > good[allowed]).mean()),
        threshold=float(good[allowed]),
        good_rows=int(good.size),
        recall=found,
        defects=_recall(hits, drawn_hits, rows, confidence),
    )


def wilson(errors: int, rows: int, confidence: float = 0.95) -> Interval:
    """A share with Wilson's score interval, which keeps its confidence for few rows and shares near 0 or 1.

    Parameters
    ----------
    errors: how many of the rows, 0 .. rows.
    rows: how many there are, at least 1.
    confidence: in (0, 1).

    >>> share = wilson(0, 10)
    >>> share.value, share.low, round(share.high, 3)
    (0.0, 0.0, 0.278)

    Raises
    ------
    ValueError: an argument is out of its range.
    """
    if rows < 1:
        raise ValueError(f"rows: {rows!r}; allowed: 1 or more")
    if not 0 <= errors <= rows:
        raise ValueError(f"errors: {errors!r}; allowed: 0 .. {rows}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: {confidence!r}; allowed: (0, 1)")
    square = NormalDist().inv_cdf((1.0 + confidence) / 2.0) ** 2
    share = errors / rows
    centre = (errors + square / 2.0) / (rows + square)
    half = math.sqrt(square * (errors * (1.0 - share) + square / 4.0)) / (rows + square)
    # The ends touch 0 and 1 exactly where they should, not up to rounding.
    low = 0.0 if errors == 0 else min(max(centre - half, 0.0), share)
    high = 1.0 if errors == rows else max(min(centre + half, 1.0), share)
    return Interval(share, low, high)


def hard_slice_errors(
    wrong: npt.ArrayLike,
    hard: Mapping[str, npt.ArrayLike] | npt.ArrayLike,
    *,
    min_rows: int = 1,
    confidence: float = 0.95,
) -> tuple[SliceErrors, ...]:
    """The error rate of every slice, or of the rows that a mask calls hard, with Wilson's interval.

    Parameters
    ----------
    wrong: shape (n,), booleans (or 0 and 1): whether the model's answer is wrong.
    hard: column name to that column's values, shape (n,), missing ones in no slice; or one boolean mask, shape (n,),
        whose slices are then named ``hard=True`` and ``hard=False``.
    min_rows: smaller slices are left out; at least 1.
    confidence: of the intervals, in (0, 1).

    Returns
    -------
    Column by column, the largest error rate first.

    >>> for one in hard_slice_errors([True, False, False, False], [True, True, False, False]):
    ...     print(one.column, one.value, one.rows, one.errors, one.rate)
    hard True 2 1 0.5
    hard False 2 0 0.0

    Raises
    ------
    ValueError: shapes do not fit, `wrong` or the mask holds other than booleans, or a number is out of its range.
    """
    missed = _booleans("wrong", wrong)
    columns = hard if isinstance(hard, Mapping) else {"hard": _booleans("hard", hard)}
    if min_rows < 1:
        raise ValueError(f"min_rows: {min_rows!r}; allowed: 1 or more")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: {confidence!r}; allowed: (0, 1)")
    found = []
    for column, given in columns.items():
        parts = []
        for value, rows in rows_by_value(column, given, missed.size):
            if rows.size >= min_rows:
                errors = int(missed[rows].sum())
                share = wilson(errors, int(rows.size), confidence)
                parts.append(SliceErrors(column, value, int(rows.size), errors, share.value, share.low, share.high))
        found += sorted(parts, key=lambda one: -one.rate)
    return tuple(found)


def _above(ordered: Array, thresholds: npt.ArrayLike) -> Array:
    """How many of ascending scores are strictly above each threshold."""
    return np.asarray(ordered.size - np.searchsorted(ordered, thresholds, side="right"), dtype=np.float64)


def _recall(hits: int, drawn: Array, rows: int, confidence: float) -> ClassRecall:
    low, high = percentiles(drawn / rows, confidence)
    share = wilson(hits, rows, confidence)
    return ClassRecall(share.value, min(float(low), share.low), max(float(high), share.high), rows)


def _scores(scores: npt.ArrayLike) -> Array:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"scores: shape {values.shape}; allowed: (n,) with n >= 1, one score a row")
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(f"scores: {values[bad][0]} at row {int(bad.argmax())}; allowed: finite numbers")
    return values


def _booleans(name: str, given: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    values = np.asarray(given)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{name}: shape {values.shape}; allowed: (n,) with n >= 1, one truth value a row")
    if values.dtype != np.bool_ and not np.isin(values, (0, 1)).all():
        raise ValueError(f"{name}: {values.dtype}; allowed: booleans, or numbers 0 and 1")
    return values.astype(np.bool_)
