"""What people are told: messages for incidents and refused files, through the outbox of the workspace."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flows.context import Context
from monitoring.alerts import Message, render, render_refused_file, render_test
from monitoring.incidents import Incident
from monitoring.outbox import Outbox


def message_of(context: Context, incident: Incident, event: str) -> Message:
    """An incident in the plant's language."""
    settings = context.settings
    return render(
        incident, event, settings.alerts.language, page_url=page_url(context), time_zone=settings.data.time_zone
    )


def page_url(context: Context) -> str:
    """Where the page is: as configured, else its file."""
    return context.settings.alerts.page_url or (context.workspace.page / "index.html").as_uri()


def alert(context: Context, incident: Incident, event: str, *, now: datetime) -> None:
    """Put a message into the outbox, once per incident and event; it goes out at the next delivery."""
    _outbox(context).put(message_of(context, incident, event), context.settings.alerts.channels, at=now)


def alert_refused_file(context: Context, ingest: Any, *, now: datetime) -> None:
    """Tell that a file was held back, once per content."""
    message = render_refused_file(
        model=context.settings.name, file=ingest.name, reason=" ".join(ingest.sentences),
        language=context.settings.alerts.language, key=f"{context.settings.name}:file:{ingest.sha}",
        page_url=page_url(context),
    )  # fmt: skip
    _outbox(context).put(message, context.settings.alerts.channels, at=now)


def deliver_alerts(context: Context) -> int:
    """Send what the outbox holds; what cannot be sent stays for the next time. Returns how many messages went out."""
    alerts = context.settings.alerts
    return _outbox(context).deliver(alerts.channels, timeout=alerts.timeout_seconds).delivered


def send_test(context: Context, *, now: datetime) -> dict[str, bool]:
    """Send a test message through every channel; channel -> whether it went out."""
    alerts = context.settings.alerts
    message = render_test(
        model=context.settings.name, language=alerts.language, key=f"test:{now.isoformat()}", page_url=page_url(context)
    )
    return _outbox(context).send_now(message, alerts.channels, timeout=alerts.timeout_seconds)


def _outbox(context: Context) -> Outbox:
    return Outbox(context.workspace.outbox / "alerts" / context.settings.name)
