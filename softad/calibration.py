"""Temperature scaling, and the base losses of rows from a model's logits."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures are sought between these: separable validation rows have no finite optimum."""


def log_probabilities(logits: npt.ArrayLike, temperature: float = 1.0) -> Array:
    """``log softmax(logits / temperature)``, shape (n, k), in double precision, finite for finite logits.

    >>> np.exp(log_probabilities([[0.0, 0.0]])).tolist()
    [[0.5, 0.5]]

    Raises
    ------
    ValueError: `temperature` is not positive and finite, or `logits` has no rows of at least one class.
    """
    if not 0.0 < temperature < math.inf:
        raise ValueError(f"temperature: {temperature!r}; allowed: (0, inf)")
    scaled = _matrix(logits) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    return np.asarray(scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True)), dtype=np.float64)


def cross_entropies(logits: npt.ArrayLike, labels: npt.ArrayLike, temperature: float = 1.0) -> Array:
    """Each row's base loss, ``-log p(label)``, shape (n,).

    Parameters
    ----------
    logits: shape (n, k).
    labels: shape (n,), class numbers 0 .. k-1.

    >>> cross_entropies([[0.0, 0.0]], [1]).round(4).tolist()
    [0.6931]

    Raises
    ------
    ValueError: shapes do not fit, or a label is no class number.
    """
    logs = log_probabilities(logits, temperature)
    numbers = _labels(labels, *logs.shape)
    return -logs[np.arange(numbers.size), numbers]


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The temperature with the least mean cross-entropy on these rows (validation rows, never training ones).

    Convex in the inverse temperature, so the minimum is found by bisection of its slope; the answer lies within
    [0.05, 20]. Dividing logits by it changes no row's predicted class.

    >>> rng = np.random.default_rng(0)
    >>> logits = rng.normal(size=(4000, 3))
    >>> labels = [rng.choice(3, p=np.exp(row)) for row in log_probabilities(logits)]
    >>> abs(fit_temperature(2.5 * logits, labels) - 2.5) < 0.2
    True

    Raises
    ------
    ValueError: no rows, shapes do not fit, or a label is no class number.
    """
    matrix = _matrix(logits)
    numbers = _labels(labels, *matrix.shape)
    shifted = matrix - matrix.max(axis=1, keepdims=True)
    true = shifted[np.arange(numbers.size), numbers]

    def slope(inverse: float) -> float:
        weights = np.exp(inverse * shifted)
        expected = (weights * shifted).sum(axis=1) / weights.sum(axis=1)
        return float((expected - true).mean())

    low, high = 1.0 / HIGHEST, 1.0 / LOWEST
    if slope(low) >= 0.0:
        return HIGHEST
    if slope(high) <= 0.0:
        return LOWEST
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0.0 else (low, middle)
    return 1.0 / math.sqrt(low * high)


def _matrix(logits: npt.ArrayLike) -> Array:
    matrix = np.asarray(logits).astype(np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"logits: shape {matrix.shape}; allowed: (n, k), at least one row and one class")
    if not np.isfinite(matrix).all():
        raise ValueError("logits: not all are finite; allowed: finite numbers")
    return matrix


def _labels(labels: npt.ArrayLike, rows: int, classes: int) -> npt.NDArray[np.int64]:
    numbers = np.asarray(labels)
    if numbers.shape != (rows,):
        raise ValueError(f"labels: shape {numbers.shape}; allowed: ({rows},), one a row of logits")
    if not np.issubdtype(numbers.dtype, np.integer) or numbers.min() < 0 or numbers.max() >= classes:
        raise ValueError(
            f"labels: {numbers.dtype} from {numbers.min()} to {numbers.max()}; allowed: integers in [0, {classes})"
        )
    return numbers.astype(np.int64)
