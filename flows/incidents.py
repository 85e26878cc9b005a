"""Incidents in the tables: opened for an alarm, changed by an answer, told to people through the outbox."""

from __future__ import annotations

import json
from datetime import datetime

import pandas as pd

from flows import ledger
from flows.context import Context
from flows.errors import BadConfig
from flows.monitor import WindowOutcome
from flows.store import Store
from monitoring.incidents import Incident


def all_incidents(store: Store) -> list[Incident]:
    """Every incident in its newest state, oldest first."""
    frame = store.read("incidents", order='"at", "number"')
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
    """Append an incident's new state; the same state twice is one record."""
    text = json.dumps(incident.to_dict(), sort_keys=True, ensure_ascii=False)
    number = context.store.count("incidents", where=f"key = '{incident.key}'")
    record = {"key": incident.key, "event": event, "record": text, "at": now, "number": number}
    return context.store.append("incidents", pd.DataFrame([record]), key=f"{incident.key}:{number}:{event}")


def open_new_incidents(context: Context, outcomes: list[WindowOutcome], *, now: datetime) -> list[Incident]:
    """Open an incident for each alarm that has none; a life ends with its alarm, so there is one a life."""
    known = {incident.key for incident in all_incidents(context.store)}
    opened = []
    for outcome in outcomes:
        if not outcome.alarm:
            continue
        key = f"{context.settings.name}-{outcome.window}"
        if key in known:
            continue
        incident = incident_of(context, key, outcome, now=now)
        # The ledger first: an incident that is in the tables is not opened again, so what comes after it could be lost.
        ledger.enter(
            context.store, key=f"incident:{key}", actor="softad", action="incident.opened", subject=key,
            details={"verdict": incident.verdict, "column": incident.column, "value": incident.value,
                     "share": incident.share, "window": outcome.window}, at=now,
        )  # fmt: skip
        save_incident(context, incident, event="opened", now=now)
        opened.append(incident)
    return opened


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
    )


def since_of(outcome: WindowOutcome) -> datetime | None:
    """Start of the windows that the alarm sums: from then on the change can be seen."""
    if outcome.start is None or outcome.end is None:
        return None
    windows = int((outcome.details.get("effect") or {}).get("windows") or 1)
    return outcome.end - windows * (outcome.end - outcome.start)
