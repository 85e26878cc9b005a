"""What an incident says to the people on shift: what, since when, where, how sure, what to do, what was done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from monitoring.incidents import Incident
from monitoring.words import words


@dataclass(frozen=True)
class Message:
    """A message in one language.

    Attributes
    ----------
    severity: info | warning | failure, as channels know it.
    key: the incident or file that it is about; messages of one thread share it.
    state: what happened; the same key and state is the same message.
    """

    subject: str
    body: str
    severity: str
    key: str
    state: str


EVENTS = ("opened", "challenger", "acknowledged", "promoted", "refused", "escalated", "closed")
_SEVERITY = {"opened": "failure", "escalated": "failure", "challenger": "warning", "refused": "warning"}


def render(
    incident: Incident, event: str, language: str, *, page_url: str | None = None, time_zone: str = "UTC"
) -> Message:
    """An incident's message for one event.

    Parameters
    ----------
    event: opened | challenger | acknowledged | promoted | refused | escalated | closed.
    language: "en" or "ja".
    time_zone: in which times are told.

    Raises
    ------
    ValueError: the event or the language is unknown.

    >>> from datetime import UTC
    >>> monday = datetime(2026, 3, 30, tzinfo=UTC)
    >>> one = Incident("a-2026-W14", "a", datetime(2026, 4, 6, tzinfo=UTC), "2026-W14", monday, "inspect",
    ...     "machine", "M07", share=0.72, low=0.6, high=0.8, row_share=0.08)
    >>> message = render(one, "opened", "en")
    >>> message.subject
    'a: check M07 - it carries 72 % of the hard cases'
    >>> "softad alerts ack a-2026-W14 --repaired" in message.body
    True
    """
    text = words("alerts", language)
    if event not in EVENTS:
        raise ValueError(f"event is {event!r}; it is none that a message exists for")
    values = _values(incident, text, time_zone)
    kind = f"opened-{incident.verdict}" if event == "opened" else event
    body = [text[_what(incident, event, kind)].format_map(values)]
    if event in {"opened", "challenger", "escalated"}:
        body.append(text["sure"].format_map(values))
    body.append(text[f"do.{kind}"].format_map(values))
    if f"done.{kind}" in text:
        body.append(text[f"done.{kind}"].format_map(values))
    if event == "opened":
        body.append(text["thresholds"].format_map(values))
    if page_url:
        body.append(text["page"].format(url=page_url))
    subject = text[f"subject.{kind}"].format_map(values)
    return Message(subject, "\n\n".join(body), _SEVERITY.get(event, "info"), incident.key, _state(incident, event))


def _state(incident: Incident, event: str) -> str:
    """A second refusal is another message; a second opening is not."""
    return f"{event}-{incident.tries}" if event == "refused" else event


def _what(incident: Incident, event: str, kind: str) -> str:
    if event == "opened" and incident.verdict == "retrain" and incident.value is not None:
        return "what.opened-retrain-slice"
    if event == "acknowledged":
        return f"what.acknowledged-{incident.answer}"
    return f"what.{kind}"


def _values(incident: Incident, text: Mapping[str, str], time_zone: str) -> dict[str, str]:
    zone = ZoneInfo(time_zone)

    def day(moment: datetime | None) -> str:
        return f"{moment.astimezone(zone):%Y-%m-%d}" if moment is not None else text["words.unknown-time"]

    def percent(share: float | None) -> str:
        return f"{min(max(share, 0.0), 1.0) * 100:.0f} %" if share is not None else "-"

    lives = max(round(1 / incident.alarm_budget), 1)
    column = incident.column or ""
    reason = incident.closed_reason or ""
    return {
        "model": incident.model,
        "key": incident.key,
        "column": text.get(f"words.columns.{column}", column),
        # A line break in a plant's name must not end a subject or start a line of its own.
        "value": " ".join(incident.value.split()) if incident.value else text["words.everywhere"],
        "share": percent(incident.share),
        "low": percent(incident.low),
        "high": percent(incident.high),
        "row_share": percent(incident.row_share),
        "since": day(incident.since),
        "until": day(incident.repaired_at),
        "opened": day(incident.opened_at),
        "harder": f"{incident.harder:.1f}" if incident.harder is not None else "-",
        "rate": "1",
        "lives": str(lives),
        "windows": str(incident.horizon),
        "budget": f"{incident.alarm_budget:.2f}",
        "statistic": f"{incident.statistic:.1f}" if incident.statistic is not None else "-",
        "threshold": f"{incident.threshold:.1f}" if incident.threshold is not None else "-",
        "version": incident.challenger_version or "-",
        "by": incident.answered_by or "-",
        "reason": text.get(f"words.reasons.{reason}", reason),
    }


def render_refused_file(
    *, model: str, file: str, reason: str, language: str, key: str, page_url: str | None = None
) -> Message:
    """A file was held back whole.

    >>> render_refused_file(model="a", file="x.csv", reason="It is empty.", language="en", key="a:1").subject
    'a: the file x.csv was held back'
    """
    return _plain("file", language, {"model": model, "file": file, "reason": reason}, key=key, severity="failure",
                  page_url=page_url)  # fmt: skip


def render_test(*, model: str, language: str, key: str, page_url: str | None = None) -> Message:
    """A message that says that messages arrive.

    >>> render_test(model="a", language="ja", key="t").subject
    'a: テスト送信'
    """
    return _plain("test", language, {"model": model}, key=key, severity="info", page_url=page_url)


def _plain(
    kind: str, language: str, values: Mapping[str, str], *, key: str, severity: str, page_url: str | None
) -> Message:
    text = words("alerts", language)
    body = [text[f"what.{kind}"].format_map(values), text[f"do.{kind}"].format_map(values)]
    if page_url:
        body.append(text["page"].format(url=page_url))
    return Message(text[f"subject.{kind}"].format_map(values), "\n\n".join(body), severity, key, kind)
