"""Curves of rows' losses: the tail's mean (CVaR) at one level or many, and the Lorenz curve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def cvar(losses: npt.ArrayLike, level: float) -> float:
    """The mean of the worst ``1 - level`` share of the losses, the fractional row weighted.

    >>> cvar([1.0, 2.0, 3.0], 0.5)      # (3 + 2 / 2) / 1.5
    2.6666666666666665

    Raises
    ------
    ValueError: `losses` is empty, not one-dimensional or not finite; `level` outside [0, 1).
    """
    ordered = np.sort(checked_losses(losses))[::-1]
    check_level(level)
    return tail_mean(ordered, level)


def tail_curve(losses: npt.ArrayLike, levels: Sequence[float] | Array) -> Array:
    """CVaR at each of many levels, shape (len(levels),), from one sort; level 0 is the mean.

    >>> tail_curve([1.0, 2.0, 3.0, 6.0], [0.0, 0.5, 0.75]).tolist()
    [3.0, 4.5, 6.0]

    Raises
    ------
    ValueError: `losses` as in `cvar`; `levels` is not one-dimensional, or one of them is outside [0, 1).
    """
    ordered = np.sort(checked_losses(losses))[::-1]
    wanted = np.asarray(levels, dtype=np.float64)
    if wanted.ndim != 1:
        raise ValueError(f"levels: shape {wanted.shape}; allowed: (m,), each in [0, 1)")
    for level in wanted.tolist():
        check_level(level, "levels")
    return np.array([tail_mean(ordered, level) for level in wanted.tolist()], dtype=np.float64)


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
    data = np.sort(checked_losses(losses))
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


def tail_mean(ordered: Array, level: float) -> float:
    """CVaR at `level` of losses that are in descending order already, shape (n,).

    >>> tail_mean(np.array([3.0, 2.0, 1.0]), 0.5) == cvar([1.0, 2.0, 3.0], 0.5)
    True
    """
    tail = (1.0 - level) * ordered.size
    whole = min(int(tail), ordered.size - 1)
    return float((ordered[:whole].sum() + (tail - whole) * ordered[whole]) / tail)


def check_level(level: float, name: str = "level") -> None:
    """Refuse a level of a tail outside [0, 1).

    >>> check_level(1.5)
    Traceback (most recent call last):
    ValueError: level: 1.5; allowed: [0, 1)
    """
    if not 0.0 <= level < 1.0:
        raise ValueError(f"{name}: {level!r}; allowed: [0, 1)")


def checked_losses(losses: npt.ArrayLike) -> Array:
    """Losses as float64, shape (n,).

    >>> checked_losses([1, 2]).tolist()
    [1.0, 2.0]

    Raises
    ------
    ValueError: none, not one-dimensional, or one is not finite.
    """
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
