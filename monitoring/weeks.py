"""Do the reference's own weeks differ by more than chance? Ordinary weeks do, and a scan of rows takes it for a change.

The scan asks whether windows come from the same process as the reference, row by row. Where the process wanders from
week to week anyway, more alarms come than the budget says, however exact the thresholds are. What the reference's own
weeks show is therefore told beside every result, and the lot is then the day, or the week, of a machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from monitoring.ranks import Floats

CHANCE = 0.01
"""Weeks differ beyond chance where weeks that differ by chance alone would do so less often than this."""


@dataclass(frozen=True)
class WeekVariance:
    """How the share of hard rows (above the reference's 0.9 quantile) differs between the reference's weeks.

    Attributes
    ----------
    weeks: in the reference.
    spread: standard deviation of the weekly shares, as seen.
    by_chance: what chance alone gives weeks of so many rows.
    between: what is left, the weeks' own: the square root of spread^2 - by_chance^2, 0 where chance gives as much.
    dispersion: variance over that by chance; 1 is chance alone.
    p_value: how often weeks that differ by chance alone show as much.
    """

    weeks: int
    spread: float
    by_chance: float
    between: float
    dispersion: float
    p_value: float

    @property
    def exceeds(self) -> bool:
        """The weeks differ beyond chance: rank lots, such as a machine's day, or the budget does not hold."""
        return self.p_value < CHANCE


def week_variance(hard: Floats, weeks: NDArray[np.generic]) -> WeekVariance | None:
    """The weeks of a reference compared; None where there are fewer than two.

    Parameters
    ----------
    hard: (n,) 1 for a row above the 0.9 quantile of the reference, else 0.
    weeks: (n,) week of each row.

    >>> rng = np.random.default_rng(0)
    >>> weeks, hard = np.repeat(np.arange(10), 200), rng.random(2000) < 0.1
    >>> found = week_variance(hard.astype(float), weeks)
    >>> found.weeks, found.exceeds, 0.3 < found.dispersion < 2.5
    (10, False, True)
    >>> wandering = rng.random(2000) < np.repeat(rng.uniform(0.02, 0.18, size=10), 200)
    >>> week_variance(wandering.astype(float), weeks).exceeds
    True
    """
    _, member, rows = np.unique(np.asarray(weeks).astype(str), return_inverse=True, return_counts=True)
    share = float(hard.mean()) if hard.size else 0.0
    if rows.size < 2 or not 0 < share < 1:
        return None
    weekly = np.bincount(member, weights=hard) / rows
    deviations = rows * (weekly - share) ** 2
    freedom = rows.size - 1
    by_chance = share * (1 - share)
    dispersion = float(deviations.sum() / freedom / by_chance)
    # Weeks of unequal size count by their rows; the usual estimate of the variance between groups.
    typical = float((rows.sum() - (rows**2).sum() / rows.sum()) / freedom)
    between = max(dispersion - 1, 0.0) * by_chance / typical
    return WeekVariance(
        weeks=int(rows.size),
        spread=round(float(np.sqrt(dispersion * by_chance / typical)), 6),
        by_chance=round(float(np.sqrt(by_chance / typical)), 6),
        between=round(float(np.sqrt(between)), 6),
        dispersion=round(dispersion, 6),
        p_value=float(f"{stats.chi2.sf(dispersion * freedom, freedom):.6g}"),
    )
