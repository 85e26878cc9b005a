"""An incident: one cause, one thread. Pure state; where it is kept and who is told is decided elsewhere.

States: opened, acknowledged (seen or answered by a person), closed; on the way it may be updated, escalated and
recovered (see `Incident.standing`). An incident whose verdict is `inspect` waits for an answer: `repaired` (the machine
is as it was) or `new-normal` (the machine stays as it is).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any

ANSWERS = ("repaired", "new-normal")

TRIES = 4
"""How often an incident's challenger is tried at the gates, each time with another window's rows."""

_TIMES = (
    "opened_at", "since", "seen_at", "answered_at", "repaired_at", "closed_at", "requested_at", "tried_at",
    "escalated_at", "recovered_at",
)  # fmt: skip


@dataclass(frozen=True)
class Incident:
    """One incident in one state; every change gives a new one.

    Attributes
    ----------
    key: names it everywhere, for example "line-a-2026-W14".
    model: the model's name.
    opened_at: when the alarm was raised, UTC.
    window: the window that alarmed.
    since: start of the change, as far as it can be told, UTC; None where rows have no time.
    verdict: inspect | retrain.
    column, value: the slice that carries the excess; None where none does.
    share, low, high: its share of the excess of the hard cases, with an interval, 0 to 1.
    row_share: its share of the rows.
    harder: how many times harder the hard cases are than before.
    alarm_budget, horizon: the probability of a false alarm over a life, and the windows of a life.
    statistic, threshold: of the look that alarmed.
    relevant_effect, inspect_share: the other limits: what is too small to be told, and the share that names a place.
    unit: what a window is: day | week | month | rows.
    span: the range of a measurement that carries the excess, where no slice does and one stands out: `column`, `value`,
        `share`, `low`, `high`, `row_share`, `before` (its share of the rows then) and `grew`.
    life: of the scan; it ended with this incident's alarm.
    state: opened | acknowledged | closed.
    seen_by, seen_at: who looks after it, where nothing is answered yet.
    answer: None | repaired | new-normal.
    challenger_version, held: the model trained for it, and whether it waits for the answer.
    tries, tried_window, tried_at: how often a challenger was refused at the gates, the newest window then, and when.
    requested, requested_at: the retraining that was asked for last, where another process does it.
    escalations, escalated_at: how often nobody had acted in the set time, and when that was told last.
    followed: the last later look that people were told about (see `monitoring.news`).
    updates, update: how often a later window brought news, and which: worse | moved | returned.
    harder_now, column_now, value_now, share_now: what that window showed.
    harder_told, places_told: the worst that was told, and the places named so far.
    recoveries, recovered_at: how often the windows were back at the reference, and since when; None while they are not.

    >>> from datetime import UTC
    >>> at = datetime(2026, 4, 6, tzinfo=UTC)
    >>> one = Incident("a-2026-W14", "a", at, "2026-W14", None, "inspect", "machine", "M07")
    >>> one.answered("repaired", actor="shift", at=one.opened_at).state
    'acknowledged'
    >>> Incident.from_dict(one.to_dict()) == one
    True
    """

    key: str
    model: str
    opened_at: datetime
    window: str
    since: datetime | None
    verdict: str
    column: str | None = None
    value: str | None = None
    share: float | None = None
    low: float | None = None
    high: float | None = None
    row_share: float | None = None
    harder: float | None = None
    alarm_budget: float = 0.05
    horizon: int = 52
    statistic: float | None = None
    threshold: float | None = None
    relevant_effect: float | None = None
    inspect_share: float | None = None
    unit: str = "week"
    span: Mapping[str, Any] | None = None
    life: str | None = None
    state: str = "opened"
    seen_by: str | None = None
    seen_at: datetime | None = None
    answer: str | None = None
    answered_by: str | None = None
    answered_at: datetime | None = None
    repaired_at: datetime | None = None
    challenger_version: str | None = None
    held: bool = False
    tries: int = 0
    tried_window: str | None = None
    tried_at: datetime | None = None
    requested: str | None = None
    requested_at: datetime | None = None
    escalations: int = 0
    escalated_at: datetime | None = None
    followed: str | None = None
    updates: int = 0
    update: str | None = None
    harder_now: float | None = None
    column_now: str | None = None
    value_now: str | None = None
    share_now: float | None = None
    harder_told: float | None = None
    places_told: tuple[str, ...] = ()
    recoveries: int = 0
    recovered_at: datetime | None = None
    closed_at: datetime | None = None
    closed_reason: str | None = None

    @property
    def stuck(self) -> bool:
        """No challenger passed the gates, and none is tried any more: a person has to decide."""
        return self.answer != "repaired" and self.tries >= TRIES

    @property
    def waits(self) -> bool:
        """It goes on only by a person's word."""
        return self.state != "closed" and (self.stuck or (self.verdict == "inspect" and self.answer is None))

    @property
    def standing(self) -> str:
        """One word for a list: opened | updated | acknowledged | escalated | recovered | closed.

        >>> from datetime import UTC
        >>> at = datetime(2026, 4, 6, tzinfo=UTC)
        >>> one = Incident("a-2026-W14", "a", at, "2026-W14", None, "inspect", "machine", "M07")
        >>> one.standing, one.seen(actor="aiko", at=at).standing, one.escalated(at).standing
        ('opened', 'acknowledged', 'escalated')
        """
        if self.state == "closed":
            return "closed"
        if self.recovered_at is not None:
            return "recovered"
        if self.waits and self.escalated_at is not None and self.escalated_at >= self._waits_since:
            return "escalated"
        if self.state == "acknowledged":
            return "acknowledged"
        return "updated" if self.updates else "opened"

    @property
    def _waits_since(self) -> datetime:
        """When somebody last had reason to act on it: the opening, a person who has seen it, the last try."""
        moments = [self.opened_at, self.seen_at, self.tried_at if self.stuck else None]
        return max(moment for moment in moments if moment is not None)

    def overdue(self, now: datetime, hours: float) -> bool:
        """It waits for a person, nobody acted for so long, and that was not told yet.

        >>> from datetime import UTC
        >>> at = datetime(2026, 4, 6, tzinfo=UTC)
        >>> one = Incident("a-2026-W14", "a", at, "2026-W14", None, "inspect", "machine", "M07")
        >>> later = at + timedelta(hours=24)
        >>> one.overdue(later, 24), one.overdue(later, 25), one.escalated(later).overdue(later, 24)
        (True, False, False)
        """
        told = self.escalated_at is not None and self.escalated_at >= self._waits_since
        return self.waits and not told and now - self._waits_since >= timedelta(hours=hours)

    def escalated(self, at: datetime) -> Incident:
        """The next level is told."""
        return replace(self, escalations=self.escalations + 1, escalated_at=at)

    def seen(self, *, actor: str, at: datetime) -> Incident:
        """Somebody looks after it; the answer is still to come.

        Raises
        ------
        ValueError: the incident is closed.
        """
        self._refuse_closed()
        return replace(self, state="acknowledged", seen_by=actor, seen_at=at)

    def _refuse_closed(self) -> None:
        if self.state == "closed":
            raise ValueError(f"{self.key} is closed; nothing is left to answer")

    def answered(self, answer: str, *, actor: str, at: datetime, repaired_at: datetime | None = None) -> Incident:
        """Acknowledged with an answer.

        Raises
        ------
        ValueError: the incident is closed, or the answer is none of `ANSWERS`.
        """
        self._refuse_closed()
        if answer not in ANSWERS:
            raise ValueError(f"answer is {answer!r}; it is one of {', '.join(ANSWERS)}")
        until = (repaired_at or at) if answer == "repaired" else None
        # With the answer other rows train, so what was tried before counts no more.
        return replace(
            self, state="acknowledged", answer=answer, answered_by=actor, answered_at=at, repaired_at=until, tries=0,
            tried_window=None,
        )  # fmt: skip

    def with_challenger(self, version: str | None, *, held: bool) -> Incident:
        """A model was trained for it."""
        return replace(self, challenger_version=version, held=held)

    def tried(self, window: str | None, *, at: datetime | None = None) -> Incident:
        """A challenger was tried with the rows up to a window."""
        return replace(self, tries=self.tries + 1, tried_window=window, tried_at=at)

    def waiting_for_rows(self, window: str | None) -> Incident:
        """No challenger could be trained or judged with the rows up to a window; no try is counted."""
        return replace(self, tried_window=window)

    def asked(self, what: str, *, at: datetime) -> Incident:
        """A retraining was asked for."""
        return replace(self, requested=what, requested_at=at)

    def closed(self, at: datetime, *, reason: str) -> Incident:
        """Over."""
        return replace(self, state="closed", closed_at=at, closed_reason=reason, held=False)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; times as ISO text."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Incident:
        """The incident that `to_dict` described; fields that a newer version added are passed over."""
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in record.items() if name in known}
        for name in _TIMES:
            if isinstance(values.get(name), str):
                values[name] = datetime.fromisoformat(values[name])
        values["places_told"] = tuple(values.get("places_told") or ())
        return cls(**values)
