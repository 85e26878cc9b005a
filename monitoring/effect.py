"""How large a change is: the last windows' losses against the reference's, from what each bin holds.

Few numbers a window are kept (rows and sum of losses in each bin), so that a scan's state stays small and a restarted
scan decides exactly as one that never stopped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from monitoring.ranks import Floats, Integers, RankBins

LEVEL = 0.9
"""The tail is the worst tenth of the rows."""


@dataclass(frozen=True)
class BinnedLosses:
    """What each of b bins holds.

    Attributes
    ----------
    counts: (b,) rows.
    sums: (b,) sum of their losses.
    """

    counts: Integers
    sums: Floats

    @classmethod
    def of(cls, losses: Floats, places: Integers, bins: int) -> BinnedLosses:
        """Losses of shape (n,) in the bins `places` (n,)."""
        sums = np.bincount(places, weights=losses, minlength=bins)
        # Seven digits are plenty for a ratio, and keep the state small; rounded here, so that memory and file agree.
        rounded = np.array([float(f"{each:.7g}") for each in sums])
        return cls(counts=np.bincount(places, minlength=bins).astype(np.int64), sums=rounded)

    def plus(self, other: BinnedLosses) -> BinnedLosses:
        """Both together."""
        return BinnedLosses(self.counts + other.counts, self.sums + other.sums)

    @property
    def rows(self) -> int:
        """All rows."""
        return int(self.counts.sum())


@dataclass(frozen=True)
class Level:
    """The reference's or a window's figures, from bins.

    Attributes
    ----------
    mean: of the losses.
    tail: CVaR at 0.9, its threshold sought among the bins' edges, which overstates it slightly.
    hard: share of rows above the reference's 0.9 quantile.
    hardest: share of rows above about the reference's 0.99 quantile.
    """

    mean: float
    tail: float
    hard: float
    hardest: float


def level_of(binned: BinnedLosses, bins: RankBins) -> Level:
    """Figures of what the bins hold.

    >>> bins = RankBins(np.array([8, 1, 1, 1]), np.array([0.8, 0.9, 1.0]), np.zeros(3))
    >>> losses = np.arange(1, 11) / 10
    >>> level = level_of(BinnedLosses.of(losses, bins.place(losses, np.full(10, 0.0)), 4), bins)
    >>> round(level.mean, 6), round(level.tail, 6)
    (0.55, 1.0)
    """
    mean, tail, hard, hardest = figures_of(binned.counts, binned.sums, bins.edges, bins.spacings)
    return Level(mean=float(mean), tail=float(tail), hard=float(hard), hardest=float(hardest))


def figures_of(
    counts: Floats | Integers, sums: Floats, edges: Floats, spacings: Integers
) -> tuple[Floats, Floats, Floats, Floats]:
    """Mean, tail and shares of hard and hardest rows (see `Level`), for one window or for many beside each other.

    Parameters
    ----------
    counts, sums: (..., b) rows, and sum of their losses, in each bin.
    edges: (..., b - 1) losses at which the bins end.
    spacings: (b,) of the bins.
    """
    rows = counts.sum(axis=-1)
    # Rows and losses above each edge, from zero to the highest edge.
    above = np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]
    mass = np.cumsum(sums[..., ::-1], axis=-1)[..., ::-1]
    levels = np.concatenate([np.zeros((*edges.shape[:-1], 1)), edges], axis=-1)
    tails = levels + np.maximum(mass - levels * above, 0.0) / ((1 - LEVEL) * rows[..., None])
    return (
        np.asarray(sums.sum(axis=-1) / rows),
        np.asarray(tails.min(axis=-1)),
        np.asarray(counts[..., _first_above(spacings, 0.9) :].sum(axis=-1) / rows),
        np.asarray(counts[..., _first_above(spacings, 0.99) :].sum(axis=-1) / rows),
    )


def reference_level(binned: BinnedLosses, bins: RankBins) -> Level:
    """Figures of the reference itself; its shares of hard rows are what they are expected to be in a window."""
    total = int(bins.spacings.sum())
    return replace(
        level_of(binned, bins),
        hard=float(bins.spacings[_first_above(bins.spacings, 0.9) :].sum() / total),
        hardest=float(bins.spacings[_first_above(bins.spacings, 0.99) :].sum() / total),
    )


def _first_above(spacings: Integers, quantile: float) -> int:
    # A bin begins at the 0.9 quantile; near the 0.99 quantile the next bin above it is taken, for both sides alike.
    below = np.cumsum(spacings)[:-1]
    return int(np.searchsorted(below, round(int(spacings.sum()) * quantile), side="left")) + 1


@dataclass(frozen=True)
class Effect:
    """The windows that a statistic sums, against the reference.

    Attributes
    ----------
    windows: how many of the last windows.
    score: which score was highest (see `monitoring.ranks.SCORES`).
    baseline: "reference", or "earlier" where the windows before are counted in.
    mean: mean loss, as a multiple of the reference's.
    tail: CVaR at 0.9, as a multiple of the reference's.
    hard: share of rows above the reference's 0.9 quantile, as a multiple of the reference's.
    hardest: the same above about its 0.99 quantile.
    relevant: one of the four is as large as the smallest relevant effect asks, and ordinary weeks do not explain it.
    beyond_weeks: the statistic stays above the threshold when ordinary differences between weeks are part of the noise.
    """

    windows: int
    score: str
    baseline: str
    mean: float
    tail: float
    hard: float
    hardest: float
    relevant: bool
    beyond_weeks: bool = True


def ordinary_change(relevant_effect: float | None) -> float:
    """By what share ordinary weeks are thought to change the number of hard rows, before any week was seen.

    The smallest relevant change, as a standard deviation: who would not be told of a smaller one sees such weeks as
    ordinary. 0 where every effect is relevant.

    >>> ordinary_change(1.15), ordinary_change(None)
    (0.25, 0.0)
    """
    return 0.0 if relevant_effect is None else round(smallest_relevant(relevant_effect).hard - 1, 6)


def smallest_relevant(relevant_effect: float) -> Level:
    """What each figure must reach, as a multiple of the reference's; one of them is enough.

    At the default of 1.15: CVaR 1.15 times, mean 1.10 times, hard rows 1.25 times, hardest rows 1.5 times.

    >>> smallest_relevant(1.15)
    Level(mean=1.1, tail=1.15, hard=1.25, hardest=1.5)
    """
    more = relevant_effect - 1
    return Level(
        mean=round(1 + more * 2 / 3, 6),
        tail=round(1 + more, 6),
        hard=round(1 + more * 5 / 3, 6),
        hardest=round(1 + more * 10 / 3, 6),
    )


def effect_of(
    now: Level,
    reference: Level,
    *,
    windows: int,
    score: str,
    baseline: str,
    relevant_effect: float | None,
    beyond_weeks: bool = True,
) -> Effect:
    """The last windows' figures as multiples of the reference's, and whether that is large enough to matter.

    Parameters
    ----------
    now: figures of the windows taken together.
    reference: figures of the reference, none of them 0.
    windows, score, baseline: see `Effect`.
    relevant_effect: see `smallest_relevant`; None or 1: every effect is relevant.
    beyond_weeks: see `Effect`.
    """
    ratios = {name: getattr(now, name) / getattr(reference, name) for name in ("mean", "tail", "hard", "hardest")}
    relevant = relevant_effect is None or relevant_effect <= 1
    if not relevant:
        least = smallest_relevant(relevant_effect or 1.0)
        relevant = beyond_weeks and any(ratio >= getattr(least, name) for name, ratio in ratios.items())
    return Effect(
        windows=windows,
        score=score,
        baseline=baseline,
        relevant=relevant,
        beyond_weeks=beyond_weeks,
        **{name: round(ratio, 6) for name, ratio in ratios.items()},
    )
