"""The looks at one label age: their reference, their life beside its twins, and where they stand in the calendar."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from monitoring.effect import BinnedLosses, effect_of, ordinary_change
from monitoring.life import Counts, Life
from monitoring.lives import SCALES
from monitoring.ranks import jitter
from monitoring.sample import Sample
from monitoring.scan_reference import Reference, level_of_windows, rank_counts
from monitoring.scan_result import ScanResult, State


@dataclass
class Course:
    """Windows looked at once each, in the order of the calendar, when their labels have one age.

    Attributes
    ----------
    age: days after which a row's label is counted; None: no limit.
    reference, life: of rows whose labels were that young.
    budget: its share of the alarm budget.
    windows: planned.
    min_rows: that a window needs to be judged.
    relevant_effect, seed: of the scan.
    recent: name and losses of the last 16 windows that were judged, the newest first.
    position: windows that have gone by.
    last: name of the latest window, and whether it was judged.
    """

    age: float | None
    reference: Reference
    life: Life
    budget: float
    windows: int
    min_rows: int
    relevant_effect: float | None
    seed: int
    recent: list[tuple[str, BinnedLosses]] = field(default_factory=list)
    position: int = 0
    last: tuple[str, bool] | None = None

    @property
    def by_lots(self) -> bool:
        """Lots are ranked, not rows."""
        return self.reference.lots is not None

    @property
    def ended(self) -> bool:
        """All windows have gone by; the latest one does not wait for more labels."""
        waiting = self.last is not None and not self.last[1] and self.position == self.windows
        return self.position >= self.windows and not waiting

    def judged(self, window: str) -> bool:
        """Whether it is one of the last windows that were judged."""
        return any(each == window for each, _ in self.recent)

    def threshold(self, rows: int, window: str | None, *, closed: bool) -> float | None:
        """The threshold that the next look would meet; see `ConcentrationScan.threshold_for`."""
        position = self._position_of(window)
        if closed or position > self.windows or self._why_not(rows, representative=True):
            return None
        return self.life.threshold(rows, self.budget * position / self.windows)

    def look(self, sample: Sample, window: str, *, closed: bool, threshold: float | None) -> ScanResult:
        """Judge a window; see `ConcentrationScan.update`."""
        rows, position = sample.rows, self._position_of(window)
        over = closed or position > self.windows
        result = ScanResult(
            alarm=False,
            state="ok",
            statistic=None,
            threshold=None,
            budget_spent=self.life.spent,
            window=window,
            rows=rows,
            age=self.age,
        )
        state = self._why_not(rows, representative=sample.representative)
        if state is not None:
            self.position, self.last = position, (window, False)
            return replace(result, state="spent" if over else state, missing=max(self._least() - rows, 0))
        bins = self.reference.bins
        binned = BinnedLosses.of(sample.losses, bins.place(sample.losses, sample.jitters), bins.spacings.size)
        counts = Counts(rank_counts(self.life.views, sample, self.seed))
        if over:
            self.life.add(counts)
        else:
            own = self.life.threshold(counts.units, self.budget * position / self.windows)
            self.life.look(counts, own)
            limit = own if own is None or threshold is None else float(threshold)
            result = replace(result, threshold=limit, budget_spent=self.life.spent)
        self.position, self.last = position, (window, True)
        self.recent = [(window, binned), *self.recent[: SCALES[-1] - 1]]
        result = replace(self._compare(result), lots=counts.units if self.by_lots else None)
        return replace(result, state="spent") if over else result

    def _position_of(self, window: str | None) -> int:
        """Place in the calendar, from 1; the latest window keeps its place when it was not judged."""
        again = self.last is not None and self.last[0] == window and not self.last[1]
        return self.position + (0 if again else 1)

    def _least(self) -> int:
        return 1 if self.by_lots else self.min_rows

    def _why_not(self, rows: int, *, representative: bool) -> State | None:
        if not (representative and self.reference.representative):
            return "labels_not_representative"
        if not self.reference.enough_lots:
            return "too_few_lots"
        return "too_few_labels" if rows < self._least() else None

    def _compare(self, result: ScanResult) -> ScanResult:
        """Statistic and effect of the newest window; the alarm, where there is a threshold."""
        tie = float(jitter([result.window], self.seed, "statistic")[0])
        parts = sorted(self.life.components(tie, ordinary_change(self.relevant_effect)), key=lambda part: -part.highest)
        statistic, threshold = parts[0].highest, result.threshold
        # The effect is sought in the windows that alarm; where none do, in those that come nearest.
        alarming = [part for part in parts if threshold is not None and part.highest > threshold] or parts[:1]
        effects = [
            effect_of(
                level_of_windows([each for _, each in self.recent[: part.windows]], self.reference.bins),
                self.reference.level,
                windows=part.windows,
                score=part.score,
                baseline=part.baseline,
                relevant_effect=self.relevant_effect,
                beyond_weeks=threshold is None or part.cautious > threshold,
            )
            for part in alarming
        ]
        effect = next((each for each in effects if each.relevant), effects[0])
        result = replace(result, statistic=statistic, effect=effect)
        if threshold is None:
            return result
        alarm = result.tested > threshold
        improvement = max(-part.lowest for part in parts) > threshold
        return replace(result, alarm=alarm, state="alarm" if alarm else "ok", improvement=improvement and not alarm)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; what the scan itself holds is left out."""
        # Where rows are ranked, a window's counts stand in its losses already.
        life = self.life.to_dict(counts=self.by_lots)
        return {
            "age": self.age,
            "reference": self.reference.to_dict(views=not self.by_lots),
            "life": life,
            "recent": [[name, binned.counts.tolist(), binned.sums.tolist()] for name, binned in self.recent],
            "position": self.position,
            "last": None if self.last is None else list(self.last),
        }

    @classmethod
    def from_dict(
        cls,
        state: dict[str, Any],
        *,
        lives: int,
        seed: int,
        windows: int,
        budget: float,
        min_rows: int,
        relevant_effect: float | None,
    ) -> Course:
        """What `to_dict` described."""
        reference = Reference.from_dict(state["reference"], state["life"])
        recent = [
            (name, BinnedLosses(np.array(counts), np.array(sums, dtype=float)))
            for name, counts, sums in state["recent"]
        ]
        life = Life.from_dict(
            state["life"],
            lives=lives,
            seed=seed,
            horizon=windows,
            recent=[Counts(binned.counts[None, :].astype(np.int64)) for _, binned in recent],
        )
        return cls(
            age=state.get("age"),
            reference=reference,
            life=life,
            budget=budget,
            windows=windows,
            min_rows=min_rows,
            relevant_effect=relevant_effect,
            seed=seed,
            recent=recent,
            position=state["position"],
            last=None if state["last"] is None else (state["last"][0], state["last"][1]),
        )
