"""Incidents in the tables: opened for an alarm, changed by an answer, told to people through the outbox."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import count
from typing import Any

import pandas as pd

from flows import ledger
from flows.alerting import alert, unit_of
from flows.context import Context
from flows.errors import BadConfig, Unavailable
from flows.monitor import WindowOutcome
from flows.store import Store
from monitoring.incidents import Incident


def all_incidents(store: Store) -> list[Incident]:
    """Every incident in its newest state, oldest first."""
    frame = store.read("incidents", order='"number", "at"')
    newest = frame.groupby("key", sort=False).tail(1)
    found = [Incident.from_dict(json.loads(text)) for text in newest["record"]]
    return sorted(found, key=lambda incident: incident.opened_at)


def open_incidents(store: Store) -> list[Incident]:
    """Incidents that are not closed."""
    return [incident for incident in all_incidents(store) if incident.state != "closed"]


def find_incident(store: Store, key: str) -> Incident:
    """One incident by its key.

    Raises
    ------
    BadConfig: there is none of that name.
    """
    known = {incident.key: incident for incident in all_incidents(store)}
    if key not in known:
        names = ", ".join(sorted(known)) or "none so far"
        raise BadConfig(f"there is no incident {key!r}; known: {names} (softad alerts list --all)")
    return known[key]


def save_incident(context: Context, incident: Incident, *, event: str, now: datetime) -> bool:
    """Append an incident's new state; the state that it has already is no record."""
    number, newest = _newest(context.store, incident.key)
    if newest == incident:
        return False
    while not _append(context.store, incident, number=number, event=event, now=now):
        number = _newest(context.store, incident.key)[0]
    return True


def change_incident(
    context: Context,
    key: str,
    change: Callable[[Incident], Incident | None],
    *,
    event: str,
    now: datetime,
    tell: str | None = None,
    otherwise: Incident | None = None,
) -> Incident:
    """Change an incident as it is in the tables now, not as it was read before a training of an hour.

    Parameters
    ----------
    change: the new state, or None where nothing is to change; called again when another process was quicker.
    tell: event that people are told; before the state is saved, so that a death between the two loses no message.
    otherwise: the incident as it is where the tables have none of this key.

    Returns
    -------
    The incident as it is now.

    Raises
    ------
    BadConfig: there is no such incident, and none was given.
    Unavailable: other processes change it all the time.
    """
    for _ in range(_ATTEMPTS):
        number, current = _newest(context.store, key)
        current = current or otherwise or find_incident(context.store, key)
        changed = change(current)
        if changed is None or changed == current:
            return current
        if tell is not None:
            alert(context, changed, tell, now=now)
        if _append(context.store, changed, number=number, event=event, now=now):
            return changed
    raise Unavailable(f"incident {key} is being changed by other processes all the time; try again in a minute")


_ATTEMPTS = 8


def _newest(store: Store, key: str) -> tuple[int, Incident | None]:
    """How many records an incident has, and the newest."""
    frame = store.read("incidents", where=f"key = '{key.replace(chr(39), chr(39) * 2)}'", order='"number", "at"')
    return len(frame), Incident.from_dict(json.loads(frame["record"].iloc[-1])) if len(frame) else None


def _append(store: Store, incident: Incident, *, number: int, event: str, now: datetime) -> bool:
    text = json.dumps(incident.to_dict(), sort_keys=True, ensure_ascii=False)
    record = {"key": incident.key, "event": event, "record": text, "at": now, "number": number}
    # Without the event in the write's key: of two processes that save the same number, one is told to look again.
    return store.append("incidents", pd.DataFrame([record]), key=f"{incident.key}:{number}")


def open_new_incidents(context: Context, outcomes: list[WindowOutcome], *, now: datetime) -> list[Incident]:
    """Open an incident for each alarm that has none; a life ends with its alarm, so there is one a life."""
    known = {incident.key: incident for incident in all_incidents(context.store)}
    opened = []
    for outcome in outcomes:
        if not outcome.alarm:
            continue
        name = f"{context.settings.name}-{outcome.window}"
        if any(one.life == outcome.life or (one.life is None and one.key == name) for one in known.values()):
            continue
        # Rows of one window can belong to two lives, where a person began the second in the middle of it.
        key = next(each for each in _keys(name) if each not in known)
        incident = incident_of(context, key, outcome, now=now)
        # The ledger first: an incident that is in the tables is not opened again, so what comes after it could be lost.
        ledger.enter(
            context.store, key=f"incident:{key}", actor="softad", action="incident.opened", subject=key,
            details={"verdict": incident.verdict, "column": incident.column, "value": incident.value,
                     "share": incident.share, "window": outcome.window, "span": incident.span}, at=now,
        )  # fmt: skip
        save_incident(context, incident, event="opened", now=now)
        known[key] = incident
        opened.append(incident)
    return opened


def _keys(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in count(2))


def incident_of(context: Context, key: str, outcome: WindowOutcome, *, now: datetime) -> Incident:
    """The incident that an alarm opens."""
    details, settings = outcome.details, context.settings
    effect = details.get("effect") or {}
    first = next((found for found in outcome.findings if found["value"] == details.get("value")), {})
    return Incident(
        key=key,
        model=settings.name,
        opened_at=now,
        window=outcome.window,
        since=since_of(outcome),
        verdict=outcome.verdict,
        column=details.get("column"),
        value=details.get("value"),
        share=details.get("share"),
        low=first.get("low"),
        high=first.get("high"),
        row_share=first.get("row_share"),
        harder=effect.get("tail"),
        alarm_budget=settings.monitoring.alarm_budget,
        horizon=settings.monitoring.windows,
        statistic=outcome.statistic,
        threshold=outcome.threshold,
        relevant_effect=settings.monitoring.relevant_effect,
        inspect_share=settings.monitoring.inspect_share,
        unit=unit_of(context),
        life=outcome.life,
        span=_span(outcome),
    )


def _span(outcome: WindowOutcome) -> dict[str, Any] | None:
    """The range of a measurement that stands out, where no slice does."""
    found = outcome.details.get("range")
    if not found or outcome.verdict != "retrain" or outcome.details.get("value") is not None:
        return None
    grew = outcome.details.get("reason") == "range_grew"
    return {
        "column": found["column"], "value": found["value"], "low": found["low"], "high": found["high"], "grew": grew,
        "share": min(found["growth_share"] if grew else found["share"], 1.0), "row_share": found["row_share"],
        "before": found["reference_row_share"],
    }  # fmt: skip


def since_of(outcome: WindowOutcome) -> datetime | None:
    """Start of the windows that the alarm sums: from then on the change can be seen."""
    if outcome.start is None or outcome.end is None:
        return None
    windows = int((outcome.details.get("effect") or {}).get("windows") or 1)
    return outcome.end - windows * (outcome.end - outcome.start)
