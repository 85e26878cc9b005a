"""Paired bootstrap on arrays: resampled row weights, and the statistics of the gates under them.

A statistic is a function from weights, shape (r, n), to values, shape (r, m): one row per resample. All are
vectorised over resamples; a chunk of weights is drawn at a time so that memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from softad.recall import defect_scores

Statistic = Callable[[np.ndarray], np.ndarray]
"""Weights, shape (r, n), to values, shape (r, m)."""

_CHUNK_CELLS = 2_000_000
_MOST_CELLS = 200_000_000
_LEAST_RESAMPLES = 400


def resample_weights(
    rows: int, groups: np.ndarray | None, resamples: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Draw how often each row is in each resample, a chunk of resamples at a time.

    Parameters
    ----------
    rows: number of rows, n.
    groups: shape (n,); whole groups are drawn, since rows within one are not independent. None draws rows.
    resamples: how many; not more than keep n x resamples below 200 million, but at least 400.

    Yields
    ------
    Weights of shape (r, n), float32 counts.

    >>> weights = np.vstack(list(resample_weights(5, None, 300, np.random.default_rng(0))))
    >>> weights.shape, set(weights.sum(axis=1))
    ((300, 5), {np.float32(5.0)})
    >>> paired = next(resample_weights(4, np.array(["a", "a", "b", "b"]), 200, np.random.default_rng(0)))
    >>> bool((paired[:, 0] == paired[:, 1]).all())
    True
    """
    codes = None if groups is None else np.unique(groups.astype(str), return_inverse=True)[1]
    units = rows if codes is None else int(codes.max()) + 1
    left = min(resamples, max(_MOST_CELLS // max(rows, 1), _LEAST_RESAMPLES))
    step = max(_CHUNK_CELLS // max(rows, 1), 1)
    while left > 0:
        many = min(step, left)
        drawn = rng.integers(0, units, size=(many, units), dtype=np.int64)
        drawn += np.arange(many, dtype=np.int64)[:, None] * units
        counts = np.bincount(drawn.ravel(), minlength=many * units).reshape(many, units).astype(np.float32)
        yield counts if codes is None else counts[:, codes]
        left -= many


def relative_changes(old: np.ndarray, new: np.ndarray, *, level: float = 0.9) -> Statistic:
    """Relative change of mean, CVaR and standard deviation from `old` to `new` losses.

    Parameters
    ----------
    old, new: shape (n,), losses of two models on the same rows.
    level: of the CVaR; 0.9 is the mean of the worst tenth, the fractional row weighted.

    Returns
    -------
    A statistic with three columns. A figure that was 0 and still is has not changed (0); one that was 0 and is
    not any more is infinitely worse.

    >>> relative_changes(np.array([1.0, 3.0]), np.array([2.0, 6.0]))(np.ones((1, 2)))
    array([[1., 1., 1.]])
    """
    tails = [_weighted_tail(losses, level) for losses in (old, new)]
    moments = np.column_stack([old, new, (old - old.mean()) ** 2, (new - new.mean()) ** 2]).astype(np.float64)

    def statistic(weights: np.ndarray) -> np.ndarray:
        first = (weights @ moments) / weights.sum(axis=1, keepdims=True, dtype=np.float64)
        spread = [
            np.sqrt(np.maximum(first[:, 2 + i] - (first[:, i] - losses.mean()) ** 2, 0.0))
            for i, losses in enumerate((old, new))
        ]
        return np.column_stack(
            [
                _relative(first[:, 0], first[:, 1]),
                _relative(tails[0](weights), tails[1](weights)),
                _relative(spread[0], spread[1]),
            ]
        )

    return statistic


def recall_differences(
    old: np.ndarray, new: np.ndarray, masks: Sequence[np.ndarray], normal_rows: np.ndarray, normal_column: int
) -> Statistic:
    """Difference of the recall of each defect class, both models at the old one's false-reject rate.

    Parameters
    ----------
    old, new: shape (n, k), class probabilities of the same rows.
    masks: for each defect class (or pool of classes), shape (n,), which rows belong to it.
    normal_rows: shape (n,), which rows are good.
    normal_column: column of the class of good rows. A row is rejected when the probability of all other classes
        together is above a threshold; each model's threshold is the lowest at which it rejects no more good rows
        than the old model does by its most probable class. The threshold is found anew in every resample, so that
        its own uncertainty is in the interval.

    Returns
    -------
    A statistic with a column per mask: new recall less old recall. A mask without weight gives 0.

    >>> old = np.array([[.9, .1], [.8, .2], [.85, .15], [.2, .8]])
    >>> new = np.array([[.9, .1], [.8, .2], [.3, .7], [.2, .8]])
    >>> defect = np.array([False, False, True, True])
    >>> recall_differences(old, new, [defect], ~defect, 0)(np.ones((1, 4)))
    array([[0.5]])
    """
    rejected = normal_rows & (old.argmax(axis=1) != normal_column)
    allowed_rows = rejected.astype(np.float64)
    scores = [defect_scores(probabilities, normal_column) for probabilities in (old, new)]
    recalls = [_recall_at(score, masks, normal_rows, int(rejected.sum())) for score in scores]

    def statistic(weights: np.ndarray) -> np.ndarray:
        allowed = weights @ allowed_rows
        return np.asarray(recalls[1](weights, allowed) - recalls[0](weights, allowed))

    return statistic


def hit_differences(old: np.ndarray, new: np.ndarray, masks: Sequence[np.ndarray]) -> Statistic:
    """Difference of the share of hits among the rows of each mask.

    Parameters
    ----------
    old, new: shape (n,), booleans.
    masks: each of shape (n,).

    >>> one = np.array([True, False]); both = np.array([True, True])
    >>> hit_differences(one, both, [both])(np.ones((1, 2)))
    array([[0.5]])
    """
    change = new.astype(np.float64) - old.astype(np.float64)
    members = np.column_stack(masks).astype(np.float64)

    def statistic(weights: np.ndarray) -> np.ndarray:
        return _ratio(weights @ (members * change[:, None]), weights @ members)

    return statistic


def slice_excess(old: np.ndarray, new: np.ndarray, masks: Sequence[np.ndarray], margin: float) -> Statistic:
    """By how much the mean loss of each slice is above what the margin allows; below 0 is within it.

    >>> slice_excess(np.array([1.0, 1.0]), np.array([1.5, 1.0]), [np.array([True, False])], 0.1)(np.ones((1, 2)))
    array([[0.4]])
    """
    if not masks:
        return lambda weights: np.empty((len(weights), 0))
    members = np.column_stack(masks).astype(np.float64)
    change = (new - (1 + margin) * old)[:, None] * members

    def statistic(weights: np.ndarray) -> np.ndarray:
        return _ratio(weights @ change, weights @ members)

    return statistic


def holm(p_values: np.ndarray, level: float) -> np.ndarray:
    """Which hypotheses Holm's step-down rejects, at a family-wise error of `level`.

    Parameters
    ----------
    p_values: shape (m,).
    level: in (0, 1).

    Returns
    -------
    Booleans, shape (m,).

    >>> holm(np.array([0.001, 0.04, 0.02]), 0.05)
    array([ True,  True,  True])
    >>> holm(np.array([0.001, 0.04, 0.03]), 0.05)
    array([ True, False, False])
    """
    rejected = np.zeros(len(p_values), dtype=bool)
    for step, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] > level / (len(p_values) - step):
            break
        rejected[index] = True
    return rejected


def _weighted_tail(losses: np.ndarray, level: float) -> Callable[[np.ndarray], np.ndarray]:
    order = np.argsort(-losses, kind="stable")
    # In nearly every resample of rows the worst tenth lies within these rows; where not, all rows are taken.
    likely = min(len(losses), int(1.5 * (1 - level) * len(losses) + 10 * np.sqrt(len(losses))) + 1)

    def tail(weights: np.ndarray, rows: int = likely) -> np.ndarray:
        mass = (1 - level) * weights.sum(axis=1, dtype=np.float64)
        top = order[:rows]
        counts = weights[:, top]
        before = np.cumsum(counts, axis=1, dtype=np.float64)
        if rows < len(losses) and bool((before[:, -1] < mass).any()):
            return tail(weights, len(losses))
        taken = np.clip(mass[:, None] - (before - counts), 0.0, counts)
        return np.asarray((taken @ losses[top]) / mass)

    return tail


def _recall_at(
    score: np.ndarray, masks: Sequence[np.ndarray], normal_rows: np.ndarray, rejected: int
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Weighted recall of each mask, at the lowest threshold that rejects good rows of at most the allowed weight."""
    good = np.flatnonzero(normal_rows)
    good = good[np.argsort(-score[good], kind="stable")]
    likely = min(len(good), 4 * rejected + 200)
    classes = []
    for mask in masks:
        members = np.flatnonzero(mask)
        members = members[np.argsort(-score[members], kind="stable")]
        # How many members lie above the score of the k-th good row; all of them, once no good row is left.
        above = np.append(np.searchsorted(-score[members], -score[good], side="left"), len(members))
        classes.append((members, above))

    def recall(weights: np.ndarray, allowed: np.ndarray, rows: int = likely) -> np.ndarray:
        spent = np.cumsum(weights[:, good[:rows]], axis=1, dtype=np.float64)
        if rows < len(good) and bool((spent[:, -1] <= allowed).any()):
            return recall(weights, allowed, len(good))
        first_kept = (spent <= allowed[:, None] + 1e-9).sum(axis=1)
        found = np.empty((len(weights), len(classes)))
        for column, (members, above) in enumerate(classes):
            counts = np.cumsum(weights[:, members], axis=1, dtype=np.float64)
            counts = np.concatenate([np.zeros((len(weights), 1)), counts], axis=1)
            hit = np.take_along_axis(counts, above[first_kept][:, None], axis=1)[:, 0]
            found[:, column] = _ratio(hit, counts[:, -1])
        return found

    return recall


def _relative(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        change = new / old - 1
    return np.where(old > 0, change, np.where(new > 0, np.inf, 0.0))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, part / whole, 0.0)
