"""Do the reference's own weeks differ by more than chance? Ordinary weeks do, and a scan of rows takes it for a change.

The scan asks whether windows come from the same process as the reference, row by row. Where the process wanders from
week to week anyway, more alarms come than the budget says, however exact the thresholds are: a defect share of 10 %
that moves by two points up or down makes most lives alarm. So an alarm must also be more than what ordinary weeks
explain (`WeekSums`), and what the reference's own weeks show is told (`WeekVariance`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from monitoring.ranks import Floats

CHANCE = 0.01
"""Weeks differ beyond chance where weeks that differ by chance alone would do so less often than this."""


PRIOR_WEEKS = 6
"""What is thought of ordinary weeks beforehand counts as much as so many weeks that were seen."""

LEAST_MOVE = 0.04
"""No score's mean is thought to move by less between ordinary weeks, in units of a row's standard deviation."""


def prior_variance(moved: Floats, change: float) -> Floats:
    """Variance between ordinary weeks' mean scores as it is thought before any was seen, (s,).

    Parameters
    ----------
    moved: (s,) by how much each score's mean moves when hard rows become twice as many.
    change: share by which ordinary weeks change the number of hard rows; 0: weeks do not differ.

    >>> prior_variance(np.array([0.3, 0.1]), 0.25).round(6), prior_variance(np.array([0.3, 0.1]), 0.0)
    (array([0.005625, 0.0016  ]), array([0., 0.]))
    """
    return np.asarray(np.maximum(change * moved, LEAST_MOVE) ** 2 if change else np.zeros_like(moved))


@dataclass(frozen=True)
class WeekSums:
    """Score sums of weeks that are thought ordinary: what is needed to tell how much their mean scores differ.

    Attributes
    ----------
    weeks: how many.
    rows: in all of them.
    rows_squared: sum of each week's rows, squared.
    sums: (v, s) of each view and score.
    squares: (v, s) sum of each week's score sum, squared, over its rows.
    """

    weeks: int
    rows: int
    rows_squared: int
    sums: Floats
    squares: Floats

    @classmethod
    def none(cls, views: int, scores: int) -> WeekSums:
        """No week yet."""
        return cls(0, 0, 0, np.zeros((views, scores)), np.zeros((views, scores)))

    def plus(self, sums: Floats, rows: int, times: int = 1) -> WeekSums:
        """With one more week; `times` -1 takes it out again."""
        return replace(
            self,
            weeks=self.weeks + times,
            rows=self.rows + times * rows,
            rows_squared=self.rows_squared + times * rows**2,
            sums=self.sums + times * sums,
            squares=self.squares + times * sums**2 / rows,
        )

    def variance(self, prior: float | Floats) -> Floats:
        """Variance between the weeks' mean scores beyond chance, (v, s), scores having variance 1 within weeks.

        The usual estimate from a one-way layout, drawn towards `prior` by `PRIOR_WEEKS` weeks.

        >>> WeekSums.none(1, 1).variance(0.01)
        array([[0.01]])
        >>> weeks = WeekSums.none(1, 1)
        >>> for mean in (-0.3, 0.3, 0.3, -0.3, 0.3, -0.3, 0.3, -0.3):
        ...     weeks = weeks.plus(np.array([[100 * mean]]), 100)
        >>> weeks.variance(0.0).round(3)
        array([[0.05]])
        """
        freedom = self.weeks - 1
        if freedom < 1:
            return np.asarray(np.broadcast_to(prior, self.sums.shape))
        typical = (self.rows - self.rows_squared / self.rows) / freedom
        dispersion = (self.squares - self.sums**2 / self.rows) / freedom
        seen = (dispersion - 1) / typical
        return np.asarray(np.maximum((PRIOR_WEEKS * prior + freedom * seen) / (PRIOR_WEEKS + freedom), 0.0))

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "weeks": self.weeks,
            "rows": self.rows,
            "rows_squared": self.rows_squared,
            "sums": self.sums.tolist(),
            "squares": self.squares.tolist(),
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> WeekSums:
        """What `to_dict` described."""
        return cls(**{**state, "sums": np.array(state["sums"]), "squares": np.array(state["squares"])})


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
        p_value=float(f"{chdtrc(freedom, dispersion * freedom):.6g}"),
    )
