"""What the scikit-learn estimators do to rows before the training: weights, an order, a validation share."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

FEWEST_ROWS = 100
"""With fewer rows no validation share is split off: it would say too little, and the rows are needed."""

_REPEATED = 1000, 4
"""Integer weights are carried out as repetition up to so many rows, or up to so many times the rows given."""


class Rows(NamedTuple):
    """Training rows: features (n, d), targets (n,), weights (n,) or None where all are the same."""

    features: Floats
    targets: npt.NDArray[Any]
    weights: Floats | None

    def where(self, mask: Mask) -> Rows:
        """The rows that `mask`, shape (n,), names."""
        return Rows(self.features[mask], self.targets[mask], None if self.weights is None else self.weights[mask])


def checked_weights(sample_weight: npt.ArrayLike | None, rows: int) -> Floats | None:
    """Sample weights as an array, shape (n,), or None where they are all the same.

    >>> checked_weights([2, 0, 1], rows=3)
    array([2., 0., 1.])

    Raises
    ------
    ValueError: another shape, a weight that is negative or not finite, or all are zero.
    """
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (rows,):
        raise ValueError(f"sample_weight: shape {weights.shape}; allowed: ({rows},), one a row of X")
    wrong = ~np.isfinite(weights) | (weights < 0.0)
    if wrong.any():
        raise ValueError(f"sample_weight: {float(weights[wrong][0])!r}; allowed: finite, 0 or more")
    if not weights.any():
        raise ValueError("sample_weight: all are zero; allowed: at least one weight above zero")
    return None if weights.min() == weights.max() == 1.0 else weights


def repeated(features: Floats, targets: npt.NDArray[Any], weights: Floats | None) -> Rows:
    """Rows of weight 0 left out, and small integer weights carried out as repetition.

    A weight of 2 is then two rows in every respect: in mini-batches, in the validation share and in the scaling.
    Larger or fractional weights stay weights.

    >>> repeated(np.array([[5.0], [6.0], [7.0]]), np.array([0, 1, 1]), np.array([2.0, 0.0, 1.0])).features.tolist()
    [[5.0], [5.0], [7.0]]
    """
    if weights is None:
        return Rows(features, targets, None)
    kept = weights > 0.0
    features, targets, weights = features[kept], targets[kept], weights[kept]
    total, (few, times) = weights.sum(), _REPEATED
    if bool((weights == np.round(weights)).all()) and total <= max(few, times * weights.size):
        counts = weights.astype(np.int64)
        return Rows(features.repeat(counts, axis=0), targets.repeat(counts), None)
    return Rows(features, targets, weights)


def in_order(rows: Rows) -> Rows:
    """The rows in an order that only depends on what they hold.

    Batches are drawn by seed, so without it the model would depend on how a table happens to be sorted, and a
    row that is given twice would not be the same as a row of weight 2.

    >>> one = in_order(Rows(np.array([[2.0], [1.0], [0.0]]), np.array([2, 1, 0]), None))
    >>> other = in_order(Rows(np.array([[1.0], [0.0], [2.0]]), np.array([1, 0, 2]), None))
    >>> one.targets.tolist() == other.targets.tolist()
    True
    """
    beside = [] if rows.weights is None else [rows.weights[:, None]]
    # + 0.0 makes -0.0 and 0.0 one; then any order of the bytes will do, and one comparison a row is cheap.
    table = np.hstack([rows.features, rows.targets.astype(np.float64)[:, None], *beside]) + 0.0
    keys = np.ascontiguousarray(table).view(np.dtype((np.void, table.itemsize * table.shape[1]))).ravel()
    order = keys.argsort(kind="stable")
    return Rows(rows.features[order], rows.targets[order], None if rows.weights is None else rows.weights[order])


def held_out(rows: int, fraction: float, seed: int, classes: npt.NDArray[np.int64] | None = None) -> Mask | None:
    """Which rows to keep for validation, shape (n,); None with fewer than `FEWEST_ROWS`, or where no row is left.

    Parameters
    ----------
    fraction: share of the rows, of each class where `classes`, class numbers (n,), are given; every class
        keeps at least one training row.

    >>> labels = np.repeat([0, 1], [80, 40])
    >>> labels[held_out(120, 0.1, seed=0, classes=labels)].tolist()
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    """
    if rows < FEWEST_ROWS:
        return None
    drawn = np.random.default_rng(seed)
    strata = np.zeros(rows, dtype=np.int64) if classes is None else classes
    mask = np.zeros(rows, dtype=bool)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        take = min(round(fraction * members.size), members.size - 1)
        mask[drawn.choice(members, size=take, replace=False)] = True
    return mask if mask.any() else None
