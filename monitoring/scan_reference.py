"""The reference of a life: what is kept of the rows in which the process was as it should be."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from monitoring.effect import BinnedLosses, Level, level_of, reference_level
from monitoring.life import Counts
from monitoring.lots import LEAST_LOTS, LOT_STATISTICS, lot_statistics
from monitoring.ranks import Integers, RankBins, jitter
from monitoring.sample import Sample
from monitoring.weeks import WeekVariance, week_variance

LEAST_ROWS = 200
"""With fewer rows the tail of the reference is a handful of them."""


@dataclass(frozen=True)
class Reference:
    """Bins and figures of the reference.

    Attributes
    ----------
    rows: usable rows.
    bins: of the rows' losses.
    level: figures that effects are multiples of.
    lots: number of lots; None where rows are ranked.
    representative: labels were given to all rows, or with known probabilities.
    least: probability with which its rows were kept, 1 where all were labelled.
    weeks: how its own weeks differ; None where they are not known.
    """

    rows: int
    bins: RankBins
    level: Level
    lots: int | None
    representative: bool
    least: float = 1.0
    weeks: WeekVariance | None = None

    @property
    def enough_lots(self) -> bool:
        """Rows are ranked, or there are lots enough to rank."""
        return self.lots is None or self.lots >= LEAST_LOTS

    @classmethod
    def of(cls, sample: Sample, seed: int, *, age: float | None = None) -> tuple[Reference, tuple[RankBins, ...]]:
        """The reference, and the bins in which units are ranked: one set for rows, several for lots.

        Parameters
        ----------
        age: of its labels, for the sentence that refuses it.

        Raises
        ------
        ValueError: too few rows, or all losses equal.
        """
        if sample.rows < LEAST_ROWS:
            by = "" if age is None else f" with labels of at most {age:g} days"
            raise ValueError(
                f"the reference has {sample.rows} usable rows{by}; at least {LEAST_ROWS} rows with a label are needed"
            )
        if sample.losses.min() == sample.losses.max():
            raise ValueError(f"all losses of the reference are {sample.losses[0]}; a rank needs losses that differ")
        bins = RankBins.of(sample.losses, sample.jitters)
        places = bins.place(sample.losses, sample.jitters)
        binned = BinnedLosses.of(sample.losses, places, bins.spacings.size)
        views: tuple[RankBins, ...] = (bins,)
        lots = None
        if sample.lots is not None:
            names, statistics = lot_statistics(sample.losses, sample.lots)
            lots = int(names.size)
            if lots >= LEAST_LOTS:
                views = tuple(
                    RankBins.of(statistics[each], jitter(names, seed, sample.where)) for each in LOT_STATISTICS
                )
        reference = cls(
            rows=sample.rows,
            bins=bins,
            level=reference_level(binned, bins),
            lots=lots,
            representative=sample.representative,
            least=sample.least,
            weeks=None if sample.weeks is None else week_variance(bins.hard(places), sample.weeks),
        )
        return reference, views

    def to_dict(self, *, views: bool = False) -> dict[str, Any]:
        """As JSON holds it.

        Parameters
        ----------
        views: the life's only view has the same bins, and keeps them.
        """
        bins = {
            "spacings": self.bins.spacings.tolist(),
            "edges": self.bins.edges.tolist(),
            "jitters": self.bins.jitters.tolist(),
        }
        return {
            "rows": self.rows,
            **({} if views else bins),
            "level": asdict(self.level),
            "lots": self.lots,
            "representative": self.representative,
            "least": self.least,
            "weeks": None if self.weeks is None else asdict(self.weeks),
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any], life: dict[str, Any]) -> Reference:
        """What `to_dict` described; bins that it left out are those of the life's first view."""
        spacings, edges, jitters = (
            (state["spacings"], state["edges"], state["jitters"])
            if "edges" in state
            else (life["spacings"], life["edges"][0], life["jitters"][0])
        )
        bins = RankBins(
            np.array(spacings, dtype=np.int64),
            np.array(edges, dtype=np.float64),
            np.array(jitters, dtype=np.float64),
        )
        return cls(
            rows=state["rows"],
            bins=bins,
            level=Level(**state["level"]),
            lots=state["lots"],
            representative=state["representative"],
            least=state.get("least", 1.0),
            weeks=WeekVariance(**state["weeks"]) if state.get("weeks") else None,
        )


def rank_counts(views: tuple[RankBins, ...], sample: Sample, seed: int) -> Integers:
    """How many units of a window lie in each bin of each view, (v, b)."""
    if sample.lots is None:
        ranked, jitters = [sample.losses], sample.jitters
    else:
        names, statistics = lot_statistics(sample.losses, sample.lots)
        ranked, jitters = [statistics[each] for each in LOT_STATISTICS], jitter(names, seed, sample.where)
    counted = [
        np.bincount(view.place(values, jitters), minlength=view.spacings.size)
        for view, values in zip(views, ranked, strict=True)
    ]
    return np.array(counted, dtype=np.int64)


def weekly_counts(views: tuple[RankBins, ...], sample: Sample, seed: int) -> list[Counts]:
    """The reference's own weeks as if each were a window, from the first to the last."""
    weeks = np.asarray(sample.weeks).astype(str)
    found = []
    for week in np.unique(weeks):
        here = weeks == week
        part = replace(sample, losses=sample.losses[here], jitters=sample.jitters[here], weeks=None)
        found.append(Counts(rank_counts(views, part, seed)))
    return found


def level_of_windows(windows: list[BinnedLosses], bins: RankBins) -> Level:
    """Figures of several windows taken together."""
    together = windows[0]
    for more in windows[1:]:
        together = together.plus(more)
    return level_of(together, bins)
