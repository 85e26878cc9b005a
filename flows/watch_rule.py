"""Is one model shown worse than another on the same rows? The one rule of shadow and probation.

The gates ask whether a challenger is shown *not* to be worse; here it passed them already, and only what is shown worse
than the margin counts against it. All looks together call a model that lies within its margins worse in at most
1 - confidence: each figure of each look has its share of that.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from flows.comparison import Comparison, Margins
from flows.resampling import Statistic, recall_differences, relative_changes, resample_weights

FIGURES = ("mean", "tail", "stability", "recall")


@dataclass(frozen=True)
class Watched:
    """One figure of the watched model against the other's.

    Attributes
    ----------
    change: relative for losses; for recall, the share of defects that are missed more.
    low: one-sided lower limit of the change.
    margin: how much worse it may be.
    worse: whether the whole interval lies beyond the margin.
    """

    name: str
    change: float
    low: float
    margin: float
    worse: bool

    def document(self) -> dict[str, Any]:
        """For the ledger: a figure that grew from zero has no number."""
        return {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def watched_figures(comparison: Comparison, margins: Margins, *, looks: int, seed: int = 0) -> tuple[Watched, ...]:
    """The figures of the challenger (the watched model) against the champion's (the other) on the same rows.

    Parameters
    ----------
    looks: how many there will be in all, each with more rows than the one before.

    >>> rng = np.random.default_rng(0)
    >>> old = rng.exponential(size=1000)
    >>> [one.worse for one in watched_figures(Comparison(old, old * 1.5), Margins(), looks=2)]
    [True, True, True]
    >>> [one.worse for one in watched_figures(Comparison(old, old * rng.lognormal(0, 0.1, 1000)), Margins(), looks=2)]
    [False, False, False]
    """
    old, new = comparison.champion_losses, comparison.challenger_losses
    statistics: list[Statistic] = [relative_changes(old, new)]
    limits = [margins.mean, margins.tail, margins.stability]
    recall = _missed(comparison)
    if recall is not None:
        statistics.append(recall)
        limits.append(margins.recall)
    level = (1 - margins.confidence) / (looks * len(limits))
    weights = resample_weights(len(old), comparison.groups, margins.resamples, np.random.default_rng(seed))
    drawn = np.vstack([np.column_stack([statistic(some) for statistic in statistics]) for some in weights])
    once = np.column_stack([statistic(np.ones((1, len(old)), dtype=np.float32)) for statistic in statistics])[0]
    low = np.quantile(drawn, level, axis=0, method="lower")
    return tuple(
        Watched(name, float(change), float(limit), margin, bool(limit > margin))
        for name, change, limit, margin in zip(FIGURES, once, low, limits, strict=False)
    )


def _missed(comparison: Comparison) -> Statistic | None:
    """By how much more of the defects are missed, at the other's false-reject rate; None where there are none."""
    labels, normal = comparison.labels, comparison.normal
    old, new = comparison.champion_probabilities, comparison.challenger_probabilities
    if labels is None or normal is None or old is None or new is None:
        return None
    good = labels == normal
    if good.all() or not good.any():
        return None
    found = recall_differences(old, new, [~good], good, comparison.classes.index(normal))
    return lambda weights: -found(weights)
