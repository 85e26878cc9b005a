"""What the scan says about one window."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from monitoring.effect import Effect

State = Literal["ok", "alarm", "too_few_labels", "too_few_lots", "labels_not_representative", "spent"]


@dataclass(frozen=True)
class ScanResult:
    """What one window showed.

    Attributes
    ----------
    alarm: the statistic is above the threshold, and the effect is relevant.
    state: "ok"; "alarm"; "too_few_labels" (nothing was judged or spent); "too_few_lots" (the reference has too few);
        "labels_not_representative" (rows were labelled with unknown probabilities); "spent" (the life had ended
        before, by an alarm or after its last window: the statistic is only shown).
    statistic: the scan's, harm being positive; None where nothing was judged.
    threshold: of this look; None where no alarm was possible.
    budget_spent: share of simulated lives that have alarmed so far, at most the alarm budget.
    window: its name.
    rows: labelled rows that were judged, or would have been.
    missing: labelled rows that it lacks to be judged; 0 where it has enough.
    lots: lots that were ranked; None where rows were.
    effect: of the windows that the statistic sums; None where nothing was judged.
    improvement: losses are lower than the baseline by as much as would alarm if they were higher.
    age: days of the labels that were counted; None where there is no limit.
    """

    alarm: bool
    state: State
    statistic: float | None
    threshold: float | None
    budget_spent: float
    window: str
    rows: int
    missing: int = 0
    lots: int | None = None
    effect: Effect | None = None
    improvement: bool = False
    age: float | None = None

    @property
    def nearness(self) -> float:
        """Statistic over threshold: an alarm begins at 1; 0 where there is no threshold.

        >>> ScanResult(False, "ok", statistic=2.0, threshold=4.0, budget_spent=0.0, window="1", rows=200).nearness
        0.5
        """
        if self.statistic is None or not self.threshold:
            return 0.0
        return max(self.statistic / self.threshold, 0.0)

    @property
    def tested(self) -> float:
        """What is compared with the threshold: the statistic, but never above it where the effect is too small."""
        if self.statistic is None or self.effect is None:
            return 0.0
        return self.statistic if self.effect.relevant else min(0.0, self.threshold or 0.0)

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        return {**asdict(self), "nearness": self.nearness, "tested": self.tested}
