"""The page of one model, from what the tables and the registry hold."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from flows import ledger
from flows.context import Context
from flows.incidents import open_incidents
from flows.lives import current_life
from flows.monitor import WindowOutcome, outcomes
from monitoring.dashboard import write_index, write_page
from monitoring.page_data import LedgerLine, Named, OpenIncident, PageData, Received, WindowPoint

LEDGER_LINES = 40
"""So many entries of the ledger are on the page; all are in the table."""

_REASONS = 12


def refresh_page(context: Context, *, now: datetime) -> Path:
    """Write the model's page and the list of models; returns the page's path."""
    language = context.settings.alerts.language
    path = write_page(page_data(context, now=now), context.workspace.page, language)
    root = context.workspace.page.parent
    models = sorted(folder.name for folder in root.iterdir() if (folder / "index.html").exists())
    write_index(models, root, language)
    return path


def page_data(context: Context, *, now: datetime) -> PageData:
    """Everything that the page shows."""
    life = current_life(context.store)
    entries = ledger.read(context.store)
    looks = outcomes(context)
    promoted = _promotions(entries, looks)
    placed = next((look for look in reversed(looks) if look.details.get("places")), None)
    return PageData(
        model=context.settings.name,
        written_at=now,
        champion=life.model_version if life else None,
        champion_since=life.started_at if life else None,
        alarm_budget=context.settings.monitoring.alarm_budget,
        horizon=context.settings.monitoring.windows,
        points=[_point(look, promoted, context) for look in looks],
        named=_named(placed),
        named_window=placed.window if placed else "",
        incidents=[
            OpenIncident(
                one.key, one.verdict, one.value, one.column, one.share, one.since, one.state, one.answer,
                one.challenger_version, one.held,
            )
            for one in open_incidents(context.store)
        ],
        ledger=[_line(entry) for entry in reversed(entries[-LEDGER_LINES:])],
        received=received(context),
        tracking_uri=context.tracker.uri,
    )  # fmt: skip


def received(context: Context) -> Received:
    """What came in so far, and why rows are in quarantine."""
    store = context.store
    files = store.read(
        "files", columns=["name", "status", "read", "accepted", "quarantined", "duplicates"], where="kind IS NOT NULL"
    )
    taken = files[files["status"] == "accepted"]
    waiting = store.sql(
        "SELECT count(*) AS n FROM (SELECT DISTINCT _id FROM inspections) i WHERE NOT EXISTS "
        "(SELECT 1 FROM labels l WHERE l._id = i._id)"
    )["n"].iloc[0]
    reasons: Counter[str] = Counter()
    for text in store.read("quarantine", columns=["reasons"])["reasons"]:
        reasons.update({str(item.get("rule")) for item in json.loads(text)})
    return Received(
        files=len(taken),
        read=int(taken["read"].sum()),
        accepted=int(taken["accepted"].sum()),
        quarantined=int(taken["quarantined"].sum()),
        duplicates=int(taken["duplicates"].sum()),
        awaiting_labels=int(waiting),
        held_back=files.loc[files["status"] == "refused", "name"].tolist(),
        reasons=reasons.most_common(_REASONS),
    )


def _promotions(entries: list[ledger.Entry], looks: list[WindowOutcome]) -> set[str]:
    """The windows after which a model was put to use."""
    moved = [entry.at for entry in entries if entry.action == "champion.set"]
    found = set()
    for at in moved:
        before = [look.window for look in looks if look.at <= at]
        if before:
            found.add(before[-1])
    return found


def _point(look: WindowOutcome, promoted: set[str], context: Context) -> WindowPoint:
    figures: dict[str, Any] = look.figures
    erm = figures.get("erm", {})

    def value(source: dict[str, Any], name: str) -> float | None:
        return source[name]["value"] if name in source else None

    return WindowPoint(
        window=look.window, labelled=look.labelled, verdict=look.verdict, alarm=look.alarm,
        mean=value(figures, "mean"), tail=value(figures, "tail"), stability=value(figures, "stability"),
        erm_mean=value(erm, "mean"), erm_tail=value(erm, "tail"), erm_stability=value(erm, "stability"),
        statistic=look.statistic, threshold=look.threshold, budget_spent=look.budget_spent,
        promoted=look.window in promoted,
        report=_report(look, context),
    )  # fmt: skip


def _report(look: WindowOutcome, context: Context) -> str | None:
    if look.report is None:
        return None
    # HTML is kept for alarms and the last windows only.
    html = Path(look.report).with_suffix(".html").name
    name = html if (context.workspace.reports / html).exists() else look.report
    return f"../../reports/{context.settings.name}/{name}"


def _named(look: WindowOutcome | None) -> list[Named]:
    if look is None:
        return []
    return [
        Named(found["column"], str(found["value"]), found["share"], found["low"], found["high"], found["row_share"])
        for found in look.details["places"][:8]
        if found["share"] > 0
    ]


def _line(entry: ledger.Entry) -> LedgerLine:
    details = entry.details
    note = ""
    if entry.action == "promotion.decided":
        note = "; ".join(str(reason) for reason in details.get("reasons", [])[:2])
    else:
        for name in ("reason", "answer", "cause", "value"):
            if details.get(name):
                note = str(details[name])
                break
    return LedgerLine(at=entry.at, actor=entry.actor, action=entry.action, subject=str(entry.subject), note=note)
