"""How much a figure differs between ordinary weeks, and whether a step from one week to the next is more than that."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt

Step = Literal["better", "worse", "same"]

LEVEL = 0.9
"""Of the tail."""

PRIOR, PRIOR_WEEKS = 0.05, 4
"""Before any week was seen, ordinary weeks are thought to differ by this share of a figure (standard deviation); that
counts as much as so many weeks that were seen."""

SURE = 2.58
"""So many standard deviations a step must be away from none: of steps between ordinary weeks one in a hundred is."""

NORMAL_95 = 1.96


def figures_of(losses: npt.ArrayLike) -> dict[str, tuple[float, float]]:
    """Mean, tail and stability of some losses, each with its standard error; shape (n,), n at least 2.

    Each figure is a mean over the rows, up to terms that vanish faster, so its error is that of a mean.

    >>> {name: (round(value, 2), round(error, 2)) for name, (value, error) in figures_of([0.0, 1.0, 2.0, 9.0]).items()}
    {'mean': (3.0, 2.04), 'tail': (9.0, 0.0), 'stability': (3.54, 1.13)}
    """
    from softad.figures import cvar

    data = np.asarray(losses, dtype=np.float64)
    mean, deviation = float(data.mean()), float(data.std())
    edge = float(np.quantile(data, LEVEL, method="inverted_cdf"))
    rows = {
        "mean": data,
        "tail": np.maximum(data - edge, 0.0) / (1.0 - LEVEL),
        "stability": (data - mean) ** 2 / (2.0 * deviation) if deviation else np.zeros_like(data),
    }
    values = {"mean": mean, "tail": float(cvar(data, LEVEL)), "stability": deviation}
    return {name: (values[name], float(each.std(ddof=1)) / math.sqrt(data.size)) for name, each in rows.items()}


def between_weeks(weeks: Iterable[tuple[float, float]]) -> float:
    """The standard deviation of a figure between ordinary weeks, beyond what the number of their rows explains.

    Parameters
    ----------
    weeks: a value with its standard error for each week.

    >>> round(between_weeks([]), 3), round(between_weeks([(1.0, 0.1)]), 3)
    (0.0, 0.05)
    >>> round(between_weeks([(1.0 + 0.3 * (-1) ** week, 0.01) for week in range(40)]), 2)
    0.29
    """
    known = list(weeks)
    if not known:
        return 0.0
    values, errors = np.array([value for value, _ in known]), np.array([error for _, error in known])
    prior, freedom = (PRIOR * float(np.mean(values))) ** 2, len(known) - 1
    seen = max(float(values.var(ddof=1) - np.mean(errors**2)), 0.0) if freedom else 0.0
    return math.sqrt((PRIOR_WEEKS * prior + freedom * seen) / (PRIOR_WEEKS + freedom))


def step(now: tuple[float, float], before: tuple[float, float], between: float) -> Step:
    """Whether a figure has changed by more than ordinary weeks do; the lower the better.

    Parameters
    ----------
    now, before: a value with its standard error.
    between: standard deviation between ordinary weeks, as `between_weeks` tells it.

    >>> step((1.1, 0.03), (1.0, 0.03), 0.05), step((1.5, 0.03), (1.0, 0.03), 0.05), step((0.5, 0.03), (1.0, 0.03), 0.05)
    ('same', 'worse', 'better')
    """
    change = now[0] - before[0]
    if abs(change) <= SURE * math.sqrt(now[1] ** 2 + before[1] ** 2 + 2.0 * between**2):
        return "same"
    return "worse" if change > 0.0 else "better"
