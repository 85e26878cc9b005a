"""One life of the scan: its reference's bins, its windows' counts, its looks, and the twins beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from monitoring.lives import SCALES, TIE, History, TwinLives, components
from monitoring.ranks import SCORES, Floats, Integers, RankBins, scores_of
from monitoring.twin_memory import TwinMemory
from monitoring.weeks import WeekSums, prior_variance


@dataclass(frozen=True)
class Counts:
    """One window's units (rows, or lots) in each bin, for each of v views: (v, b)."""

    values: Integers

    @property
    def units(self) -> int:
        """Units in the window; the same for every view."""
        return int(self.values[0].sum())


@dataclass(frozen=True)
class Reading:
    """One component of the real life's statistic: a scale against a baseline.

    Attributes
    ----------
    windows: how many of the last windows are summed.
    baseline: "reference" or "earlier" (see `monitoring.lives.Component`).
    score: the one that is highest.
    highest, lowest: over the scores, positive being harm.
    cautious: highest over the scores once ordinary differences between weeks are part of the noise.
    """

    windows: int
    baseline: str
    score: str
    highest: float
    lowest: float
    cautious: float


@dataclass
class Life:
    """A real life and its twins.

    A view ranks the same units by one number. Rows have one view, their loss. Lots have several; all have bins that
    hold the same spacings, so one set of twins serves them all, and the budget is shared between the views.

    Attributes
    ----------
    views: bins of each view.
    lives: number of twins.
    seed: of the twins.
    horizon: windows that the life is planned for.
    recent: counts of the last 16 windows, the newest first.
    total: (v, b) counts of all windows.
    looks: (units, threshold) of each look, in order.
    spent: share of twins that have alarmed.
    scores: that it began with; a later version may have more.
    ordinary: the windows so far, and the reference's weeks where they are known.
    reference_weeks: how many weeks the reference is.
    learned_weeks: how many of them are among the ordinary ones.
    memory: where the twins' state is kept beside the looks, so that a long life is not replayed at each; or None.
    """

    views: tuple[RankBins, ...]
    lives: int
    seed: int
    horizon: int
    recent: list[Counts] = field(default_factory=list)
    total: Integers = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    looks: list[tuple[int, float | None]] = field(default_factory=list)
    spent: float = 0.0
    scores: tuple[str, ...] = SCORES
    ordinary: WeekSums | None = None
    reference_weeks: int = 1
    learned_weeks: int = 0
    memory: TwinMemory | None = None
    _twins: TwinLives | None = None

    def __post_init__(self) -> None:
        self._spacings = self.views[0].spacings
        self._scores = scores_of(self._spacings, self.scores)
        if not self.total.size:
            self.total = np.zeros((len(self.views), self._spacings.size), dtype=np.int64)
        if self.ordinary is None:
            # Also for a state that was written without: what is known of its windows are the last ones.
            self.ordinary = WeekSums.none(len(self.views), len(self._scores.names))
            for counts in self.recent:
                self.ordinary = self.ordinary.plus(self._sums(counts), counts.units)

    def learn_weeks(self, counts: list[Counts]) -> None:
        """Take the reference's own weeks as ordinary ones."""
        for each in counts:
            self.ordinary = self._ordinary.plus(self._sums(each), each.units)
        self.reference_weeks = self.learned_weeks = len(counts)

    def threshold(self, units: int, allowance: float) -> float | None:
        """The next look's threshold with so many units; `allowance` is the budget that may be spent by then."""
        return self._replayed().threshold(units, allowance / len(self.views))

    def look(self, counts: Counts, threshold: float | None) -> None:
        """Take the look in the twins, with the threshold that `threshold` gave, and add the window."""
        twins = self._replayed()
        twins.advance(counts.units, threshold)
        self.looks.append((counts.units, threshold))
        if self.memory is not None:
            self.memory.keep(self._twins_of(), self.looks, twins.state)
        self.spent = twins.alarmed / twins.lives * len(self.views)
        self.add(counts)

    def add(self, counts: Counts) -> None:
        """Add a window to the real life only, as after its end."""
        self.recent = [counts, *self.recent[: SCALES[-1] - 1]]
        self.total = self.total + counts.values
        self.ordinary = self._ordinary.plus(self._sums(counts), counts.units)

    def components(self, tie: float, ordinary_change: float = 0.0) -> list[Reading]:
        """Every component of the statistic at the newest window, of every view.

        Parameters
        ----------
        tie: in (0, 1), parts equal lives.
        ordinary_change: see `monitoring.effect.ordinary_change`.
        """
        found = []
        inflation = self._inflation(prior_variance(self._scores.moved, ordinary_change))
        for view in range(len(self.views)):
            history = History(
                sums=[self._scores.values @ counts.values[view][:, None] for counts in self.recent],
                rows=[counts.units for counts in self.recent],
                total=self._scores.values @ self.total[view][:, None],
                total_rows=int(self.total[view].sum()),
            )
            rows = int(self._spacings.sum()) - 1
            for part in components(history, self._scores, reference_rows=rows, horizon=self.horizon):
                values = np.round(part.values[:, 0], 9)
                cautious = values / np.sqrt(inflation[part.windows, part.baseline][view])
                found.append(
                    Reading(
                        windows=part.windows,
                        baseline=part.baseline,
                        score=self._scores.names[int(values.argmax())],
                        highest=float(values.max() + TIE * tie),
                        lowest=float(values.min()),
                        cautious=float(cautious.max() + TIE * tie),
                    )
                )
        return found

    @property
    def _ordinary(self) -> WeekSums:
        assert self.ordinary is not None
        return self.ordinary

    def _sums(self, counts: Counts) -> Floats:
        return np.asarray(counts.values @ self._scores.values.T)

    def _inflation(self, prior: Floats) -> dict[tuple[int, str], Floats]:
        """By what ordinary weeks multiply each component's variance, (v, s), for each scale and baseline.

        The windows that a component sums are left out of what is thought ordinary: a change is not to hide itself.
        """
        found = {}
        before = self._ordinary
        reference_rows, recent_rows = int(self._spacings.sum()) - 1, 0
        windows, rows = self._ordinary.weeks - self.learned_weeks, int(self.total[0].sum())
        for count, counts in enumerate(self.recent, start=1):
            before = before.plus(self._sums(counts), counts.units, times=-1)
            recent_rows += counts.units
            if count not in SCALES:
                continue
            between = before.variance(prior)
            for name, weeks, units in (
                ("reference", self.reference_weeks, reference_rows),
                ("earlier", self.reference_weeks + windows - count, reference_rows + rows - recent_rows),
            ):
                found[count, name] = 1 + between * (1 / count + 1 / weeks) / (1 / recent_rows + 1 / units)
        return found

    def _replayed(self) -> TwinLives:
        if self._twins is None:
            twins = TwinLives(self._spacings, self._scores, lives=self.lives, seed=self.seed, horizon=self.horizon)
            shape = (len(self._scores.names), self.lives)
            state = self.memory.recall(self._twins_of(), self.looks, shape) if self.memory is not None else None
            if state is None:
                twins.replay(self.looks)
            else:
                twins.resume(self.looks, state)
            self._twins = twins
        return self._twins

    def _twins_of(self) -> dict[str, Any]:
        """All that the twins follow from, save the looks; the library's version, for it promises no lasting stream."""
        return {
            "numpy": np.__version__,
            "spacings": self._spacings.tolist(),
            "scores": list(self._scores.names),
            "lives": self.lives,
            "seed": self.seed,
            "horizon": self.horizon,
        }

    def to_dict(self, *, counts: bool = True) -> dict[str, Any]:
        """The state without the twins, which are rebuilt by replay when they are needed.

        Parameters
        ----------
        counts: with those of the last windows; False where they are kept elsewhere.
        """
        return {
            "scores": list(self.scores),
            "spacings": self._spacings.tolist(),
            "edges": [view.edges.tolist() for view in self.views],
            "jitters": [view.jitters.tolist() for view in self.views],
            **({"recent": [each.values.tolist() for each in self.recent]} if counts else {}),
            "total": self.total.tolist(),
            "looks": [units for units, _ in self.looks],
            "thresholds": [threshold for _, threshold in self.looks],
            "spent": self.spent,
            "ordinary": self._ordinary.to_dict(),
            "reference_weeks": self.reference_weeks,
            "learned_weeks": self.learned_weeks,
        }

    @classmethod
    def from_dict(
        cls, state: dict[str, Any], *, lives: int, seed: int, horizon: int, recent: list[Counts] | None = None
    ) -> Life:
        """The life that `to_dict` described; one without the names of its scores began when there were five.

        Parameters
        ----------
        recent: counts of the last windows, used where the state was written without them.
        """
        if "recent" in state:
            recent = [Counts(np.array(values, dtype=np.int64)) for values in state["recent"]]
        spacings = np.array(state["spacings"], dtype=np.int64)
        views = tuple(
            RankBins(spacings=spacings, edges=np.array(edges, dtype=float), jitters=np.array(jitters, dtype=float))
            for edges, jitters in zip(state["edges"], state["jitters"], strict=True)
        )
        return cls(
            views=views,
            lives=lives,
            seed=seed,
            horizon=horizon,
            recent=recent or [],
            total=np.array(state["total"], dtype=np.int64),
            looks=list(zip(state["looks"], state["thresholds"], strict=True)),
            spent=float(state["spent"]),
            scores=tuple(state.get("scores", SCORES[:5])),
            ordinary=WeekSums.from_dict(state["ordinary"]) if "ordinary" in state else None,
            reference_weeks=state.get("reference_weeks", 1),
            learned_weeks=state.get("learned_weeks", 0),
        )
