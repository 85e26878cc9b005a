"""What the page shows, as plain values; who fills it in is decided elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class WindowPoint:
    """One judged window.

    Attributes
    ----------
    mean, tail, stability: the champion's figures; None where too few labels came.
    erm_mean, erm_tail, erm_stability: of the reference trained without soft ascent-descent, on the same rows.
    statistic, threshold: of the scan; None where it did not look.
    budget_spent: share of the alarm budget's simulated lives that have alarmed.
    verdict: healthy | inspect | retrain | too_few_labels.
    """

    window: str
    labelled: int
    verdict: str
    alarm: bool = False
    mean: float | None = None
    tail: float | None = None
    stability: float | None = None
    erm_mean: float | None = None
    erm_tail: float | None = None
    erm_stability: float | None = None
    statistic: float | None = None
    threshold: float | None = None
    budget_spent: float | None = None
    promoted: bool = False
    report: str | None = None


@dataclass(frozen=True)
class Named:
    """A slice with its share of the excess of the hard cases, and its interval."""

    column: str
    value: str
    share: float
    low: float
    high: float
    row_share: float


@dataclass(frozen=True)
class OpenIncident:
    """An incident that is not closed."""

    key: str
    verdict: str
    value: str | None
    column: str | None
    share: float | None
    since: datetime | None
    state: str
    answer: str | None
    challenger: str | None
    held: bool


@dataclass(frozen=True)
class LedgerLine:
    """An entry of the ledger."""

    at: datetime
    actor: str
    action: str
    subject: str
    note: str = ""


@dataclass(frozen=True)
class Received:
    """What came in: rows read = accepted + quarantined + duplicates.

    Attributes
    ----------
    awaiting_labels: rows that have no label yet.
    held_back: names of files that were refused whole.
    reasons: rule -> rows in quarantine.
    """

    files: int = 0
    read: int = 0
    accepted: int = 0
    quarantined: int = 0
    duplicates: int = 0
    awaiting_labels: int = 0
    held_back: Sequence[str] = ()
    reasons: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True)
class PageData:
    """The whole page of one model.

    Attributes
    ----------
    points: the judged windows, oldest first.
    named, named_window: the places of the window in which places were last looked at.

    >>> from datetime import UTC
    >>> PageData("line-a", datetime(2026, 4, 6, tzinfo=UTC)).status
    'no_model'
    """

    model: str
    written_at: datetime
    champion: str | None = None
    champion_since: datetime | None = None
    alarm_budget: float = 0.05
    horizon: int = 52
    points: Sequence[WindowPoint] = ()
    named: Sequence[Named] = ()
    named_window: str = ""
    incidents: Sequence[OpenIncident] = ()
    ledger: Sequence[LedgerLine] = ()
    received: Received = field(default_factory=Received)
    tracking_uri: str = ""

    @property
    def status(self) -> str:
        """One word: no_model | inspect | retrain | too_few_labels | healthy."""
        if self.champion is None:
            return "no_model"
        # What a person has answered waits for nobody: the machine's parts are learned, or the machine is as it was.
        if any(one.verdict == "inspect" and one.answer is None for one in self.incidents):
            return "inspect"
        if any(one.verdict == "retrain" or one.answer == "new-normal" for one in self.incidents):
            return "retrain"
        # A window that alarmed and whose incident is over says nothing about the model or machine of today.
        if not self.points or self.points[-1].verdict != "healthy":
            return "too_few_labels"
        return "healthy"
