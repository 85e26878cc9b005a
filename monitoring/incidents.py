"""An incident: one cause, one thread. Pure state; where it is kept and who is told is decided elsewhere.

States: opened, acknowledged (answered by a person), closed. An incident whose verdict is `inspect` waits for an answer:
`repaired` (the machine is as it was) or `new-normal` (the machine stays as it is).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any

ANSWERS = ("repaired", "new-normal")
_TIMES = ("opened_at", "since", "answered_at", "repaired_at", "closed_at", "requested_at")


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
    state: opened | acknowledged | closed.
    answer: None | repaired | new-normal.
    challenger_version, held: the model trained for it, and whether it waits for the answer.
    tries, tried_window: how often a challenger was refused at the gates, and the newest window then.
    requested, requested_at: the retraining that was asked for last, where another process does it.

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
    state: str = "opened"
    answer: str | None = None
    answered_by: str | None = None
    answered_at: datetime | None = None
    repaired_at: datetime | None = None
    challenger_version: str | None = None
    held: bool = False
    tries: int = 0
    tried_window: str | None = None
    requested: str | None = None
    requested_at: datetime | None = None
    closed_at: datetime | None = None
    closed_reason: str | None = None

    def answered(self, answer: str, *, actor: str, at: datetime, repaired_at: datetime | None = None) -> Incident:
        """Acknowledged with an answer.

        Raises
        ------
        ValueError: the incident is closed, or the answer is none of `ANSWERS`.
        """
        if self.state == "closed":
            raise ValueError(f"{self.key} is closed; nothing is left to answer")
        if answer not in ANSWERS:
            raise ValueError(f"answer is {answer!r}; it is one of {', '.join(ANSWERS)}")
        until = (repaired_at or at) if answer == "repaired" else None
        return replace(self, state="acknowledged", answer=answer, answered_by=actor, answered_at=at, repaired_at=until)

    def with_challenger(self, version: str | None, *, held: bool) -> Incident:
        """A model was trained for it."""
        return replace(self, challenger_version=version, held=held)

    def tried(self, window: str | None) -> Incident:
        """A challenger was tried with the rows up to a window."""
        return replace(self, tries=self.tries + 1, tried_window=window)

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
        return cls(**values)
