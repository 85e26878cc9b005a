"""What people are told: messages for incidents, files, watches and failed runs, through the outbox of the workspace."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from flows.context import Context
from flows.ledger import Entry
from monitoring.alerts import House, Message, render
from monitoring.incidents import Incident
from monitoring.notices import (
    render_life_ended,
    render_refused_file,
    render_test,
    render_trouble,
    render_unwatched,
    render_week,
)
from monitoring.outbox import Outbox
from monitoring.promotion_news import render_promotion


def house_of(context: Context) -> House:
    """What the configuration settles about messages."""
    alerts = context.settings.alerts
    return House(
        time_zone=context.settings.data.time_zone,
        responsible=alerts.responsible,
        superior=alerts.superior,
        reached=bool(alerts.channels),
        reached_further=bool(set(alerts.escalate_to) - set(alerts.channels)),
        escalate_hours=alerts.escalate_after_hours,
        calm_windows=alerts.recovery_windows,
    )


def unit_of(context: Context) -> str:
    """What a window is, as messages name it: day | week | month | rows."""
    return context.settings.data.window.period or "rows"


def message_of(context: Context, incident: Incident, event: str) -> Message:
    """An incident in the plant's language."""
    language = context.settings.alerts.language
    return render(incident, event, language, page_url=page_url(context), house=house_of(context))


def page_url(context: Context) -> str:
    """Where the page is: as configured, else its file."""
    return context.settings.alerts.page_url or (context.workspace.page / "index.html").as_uri()


def alert(context: Context, incident: Incident, event: str, *, now: datetime) -> bool:
    """Put a message into the outbox, once per incident and event; it goes out at the next delivery.

    An escalation also goes to those who are told when nobody acts.
    """
    return _put(context, message_of(context, incident, event), escalated=event == "escalated", now=now)


def alert_refused_file(context: Context, ingest: Any, *, now: datetime) -> None:
    """Tell that a file was held back, once per content; once per name where it cannot be read."""
    settings = context.settings
    message = render_refused_file(
        model=settings.name, file=ingest.name, reason=" ".join(ingest.sentences), language=settings.alerts.language,
        key=f"{settings.name}:file:{ingest.sha or ingest.name}", max_bad_share=settings.ingest.max_bad_share,
        page_url=page_url(context),
    )  # fmt: skip
    _put(context, message, now=now)


def alert_life_ended(context: Context, life: str, *, began: datetime, escalated: bool, now: datetime) -> None:
    """Tell that a watch went by without an alarm; with `escalated` that nobody has begun a new one, each once."""
    settings = context.settings
    message = render_life_ended(
        model=settings.name, life=life, began=began, alarm_budget=settings.monitoring.alarm_budget,
        horizon=settings.monitoring.windows, unit=unit_of(context), language=settings.alerts.language,
        escalated=escalated, house=house_of(context), page_url=page_url(context),
    )  # fmt: skip
    _put(context, message, escalated=escalated, now=now)


def alert_unwatched(context: Context, life: str, *, window: str, now: datetime) -> None:
    """Tell, once in a life, that nothing can alarm because nobody knows how the judged parts were chosen."""
    settings = context.settings
    message = render_unwatched(
        model=settings.name, life=life, window=window, language=settings.alerts.language, page_url=page_url(context)
    )
    _put(context, message, now=now)


def alert_trouble(
    context: Context, *, step: str, since: datetime, reason: str, key: str, state: str, works: bool, now: datetime
) -> None:
    """Tell that a run fails, or works again."""
    settings = context.settings
    message = render_trouble(
        model=settings.name, step=step, since=since, reason=reason, language=settings.alerts.language, key=key,
        state=state, works=works, failures=settings.alerts.failures_in_a_row, house=house_of(context),
        page_url=page_url(context),
    )  # fmt: skip
    _put(context, message, now=now)


def alert_week(context: Context, *, week: str, counts: Mapping[str, int], report: Path, now: datetime) -> None:
    """Tell that the report of a week is ready, once a week."""
    message = render_week(
        model=context.settings.name, week=week, counts=counts, report=report.name,
        language=context.settings.alerts.language, page_url=page_url(context),
    )  # fmt: skip
    _put(context, message, now=now)


def alert_promotion(context: Context, kind: str, entry: Entry, *, now: datetime, url: str | None = None) -> None:
    """Tell of a new model, once per version and kind.

    Parameters
    ----------
    kind: one of `monitoring.promotion_news.KINDS`.
    entry: of the ledger: the gates' decision, or how a watch ended.
    """
    settings, details = context.settings, entry.details
    since = details.get("since")
    message = render_promotion(
        kind, model=settings.name, version=entry.subject, other=details.get("against"),
        since=datetime.fromisoformat(since) if isinstance(since, str) else entry.at, rows=int(details.get("rows") or 0),
        figures=details["figures"] if "worse" in details else (),
        margins={name: getattr(settings.promotion, f"{name}_margin") for name in ("mean", "tail", "stability",
                                                                                  "recall")},
        hours=settings.promotion.approve_hours, url=url, language=settings.alerts.language, house=house_of(context),
        page_url=page_url(context),
    )  # fmt: skip
    _put(context, message, now=now)


def deliver_alerts(context: Context) -> int:
    """Send what the outbox holds; what cannot be sent stays for the next time. Returns how many messages went out."""
    alerts = context.settings.alerts
    done = outbox_of(context).deliver(alerts.channels, further=alerts.escalate_to, timeout=alerts.timeout_seconds)
    return done.delivered


def send_test(context: Context, *, now: datetime) -> dict[str, bool]:
    """Send a test message through every channel; channel -> whether it went out."""
    alerts = context.settings.alerts
    message = render_test(
        model=context.settings.name, language=alerts.language, key=f"test:{now.isoformat()}", at=now,
        house=house_of(context), page_url=page_url(context),
    )  # fmt: skip
    channels = list(dict.fromkeys([*alerts.channels, *alerts.escalate_to]))
    return outbox_of(context).send_now(message, channels, timeout=alerts.timeout_seconds)


def outbox_of(context: Context) -> Outbox:
    """The model's messages; models that share an outbox folder have a folder each in it."""
    folder = context.workspace.outbox / "alerts" / context.settings.name
    return Outbox(folder, patience=context.settings.alerts.patience_seconds)


def _put(context: Context, message: Message, *, escalated: bool = False, now: datetime) -> bool:
    alerts = context.settings.alerts
    further = [url for url in alerts.escalate_to if url not in alerts.channels] if escalated else []
    return outbox_of(context).put(message, alerts.channels, further=further, at=now)
