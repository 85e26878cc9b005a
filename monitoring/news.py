"""What later windows say about an incident: worse, another place, back at the reference, or bad again.

A life of the scan ends with its alarm, so nothing alarms afterwards; the windows are still judged. From them people
are told what is news, in the incident's own thread, and nothing else: a week as bad as the one before is no message.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from monitoring.effect import smallest_relevant
from monitoring.incidents import Incident

WORSE = 1.25
"""Hard cases must be harder by this factor than the worst that was told, its interval's lower end included."""


@dataclass(frozen=True)
class LaterLook:
    """A window that was judged after an incident's alarm.

    Attributes
    ----------
    name: names the look; the last one that was told stands in the incident.
    mean, tail: mean loss and CVaR 0.9 of this window alone, as multiples of the reference's.
    tail_low: lower end of the tail's interval, as such a multiple.
    column, value, share: the place that its verdict names, if any.
    alarm: a life that began since ended with this look; another incident tells of it.
    counts: it says something about a repair: all of its parts were made after it.
    """

    name: str
    mean: float
    tail: float
    tail_low: float
    column: str | None = None
    value: str | None = None
    share: float | None = None
    alarm: bool = False
    counts: bool = True


def next_news(
    incident: Incident, looks: Iterable[LaterLook], *, now: datetime, relevant_effect: float, calm_windows: int
) -> tuple[str, Incident] | None:
    """The first look that is news, and the incident as it is then; None where none is.

    Parameters
    ----------
    looks: later looks in their order, those after `incident.followed`.
    relevant_effect: as of the scan; a window below it counts as back at the reference.
    calm_windows: so many in a row make a recovery, or end one.

    Returns
    -------
    ("updated" or "recovered", the incident). A closed incident that was answered `repaired` can still recover.

    >>> from datetime import UTC
    >>> at = datetime(2026, 4, 6, tzinfo=UTC)
    >>> one = Incident("a-2026-W14", "a", at, "2026-W14", None, "inspect", "machine", "M07", harder=2.0)
    >>> calm = [LaterLook(name, mean=1.0, tail=1.0, tail_low=0.9) for name in ("W15", "W16")]
    >>> next_news(one, calm[:1], now=at, relevant_effect=1.15, calm_windows=2) is None
    True
    >>> next_news(one, calm, now=at, relevant_effect=1.15, calm_windows=2)[0]
    'recovered'
    """
    is_open = incident.state != "closed"
    if not is_open and (incident.answer != "repaired" or incident.recovered_at is not None):
        return None
    least = smallest_relevant(relevant_effect)
    in_a_row = 0
    for look in looks:
        if not is_open and look.alarm:
            return None
        if incident.answer == "repaired" and not look.counts:
            continue
        calm = look.tail < least.tail and look.mean < least.mean
        recovered = incident.recovered_at is not None
        in_a_row = in_a_row + 1 if calm != recovered else 0
        if in_a_row >= calm_windows:
            if recovered:
                return "updated", _updated(replace(incident, recovered_at=None), look, "returned")
            return "recovered", replace(
                incident, recoveries=incident.recoveries + 1, recovered_at=now, followed=look.name, harder_now=look.tail
            )
        if calm or recovered or not is_open:
            continue
        told = incident.harder_told or incident.harder
        if look.value is not None and place(look.column, look.value) not in _told(incident):
            return "updated", _updated(incident, look, "moved")
        if told is not None and look.tail_low > WORSE * told:
            return "updated", _updated(incident, look, "worse")
    return None


def place(column: str | None, value: str | None) -> str:
    """A place as an incident notes it.

    >>> place("machine", "M07")
    'machine=M07'
    """
    return f"{column}={value}"


def _told(incident: Incident) -> tuple[str, ...]:
    return (place(incident.column, incident.value), *incident.places_told)


def _updated(incident: Incident, look: LaterLook, what: str) -> Incident:
    told = [each for each in (incident.harder_told, incident.harder, look.tail) if each is not None]
    new = place(look.column, look.value)
    known = look.value is None or new in _told(incident)
    return replace(
        incident,
        updates=incident.updates + 1,
        update=what,
        followed=look.name,
        harder_now=look.tail,
        column_now=look.column,
        value_now=look.value,
        share_now=look.share,
        harder_told=max(told),
        places_told=incident.places_told if known else (*incident.places_told, new),
    )
