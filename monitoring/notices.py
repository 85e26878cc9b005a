"""Messages that are about no incident: a file held back, a watch that ended, a run that fails, a test."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

from monitoring.alerts import House, Message, budget_in_words, hours_in_words, percent, told_in_words
from monitoring.words import words


def render_refused_file(
    *, model: str, file: str, reason: str, language: str, key: str, max_bad_share: float = 0.2,
    page_url: str | None = None,
) -> Message:  # fmt: skip
    """A file was held back whole.

    Parameters
    ----------
    reason: a sentence that says what is wrong with it.
    max_bad_share: of rows; a file with more is held back.

    >>> render_refused_file(model="a", file="x.csv", reason="It is empty.", language="en", key="a:1").subject
    'a: the file x.csv was held back'
    """
    values = {"model": model, "file": " ".join(file.split()), "reason": reason, "max_bad_share": percent(max_bad_share)}
    return _notice("file", language, values, key=key, state="file", severity="failure", page_url=page_url)


def render_life_ended(
    *, model: str, life: str, began: datetime, alarm_budget: float, horizon: int, unit: str, language: str,
    escalated: bool = False, house: House | None = None, page_url: str | None = None,
) -> Message:  # fmt: skip
    """A life of the scan went by without an alarm: nothing is watched until a person begins a new one.

    Parameters
    ----------
    life: its name.
    unit: what a window is: day | week | month | rows.
    escalated: nobody has begun a new one in the set time; the next level is told.

    >>> from datetime import UTC
    >>> at = datetime(2026, 1, 5, tzinfo=UTC)
    >>> message = render_life_ended(model="a", life="life-0001", began=at, alarm_budget=0.05, horizon=52, unit="week",
    ...     language="en")
    >>> message.subject, "softad alerts renew" in message.body
    ('a: the watch has ended - please begin a new one', True)
    """
    text, house = words("alerts", language), house or House()
    length = text[f"words.unit.{unit}"].format(n=horizon)
    values = {
        "model": model,
        "since": _day(began, house),
        "life": length,
        "budget": budget_in_words(alarm_budget, length, text),
        "budget_number": f"{alarm_budget:.3f}".rstrip("0"),
        "hours": hours_in_words(house.escalate_hours, text),
        "told": told_in_words(house, text),
    }
    kind = "life-escalated" if escalated else "life"
    state = "ended-escalated" if escalated else "ended"
    severity = "failure" if escalated else "warning"
    return _notice(kind, language, values, key=f"{model}:{life}", state=state, severity=severity, page_url=page_url)


def render_unwatched(*, model: str, life: str, window: str, language: str, page_url: str | None = None) -> Message:
    """Nothing can alarm, because nobody knows how the judged parts were chosen.

    Parameters
    ----------
    life: of the scan.
    window: that could not be judged.

    >>> message = render_unwatched(model="a", life="life-0001", window="2026-W14", language="en")
    >>> "column inclusion_probability" in message.body, message.state
    (True, 'unwatched')
    """
    values = {"model": model, "window": window}
    return _notice("unwatched", language, values, key=f"{model}:{life}", state="unwatched", severity="warning",
                   page_url=page_url)  # fmt: skip


def render_trouble(
    *, model: str, step: str, since: datetime, reason: str, language: str, key: str, state: str, works: bool = False,
    failures: int = 2, house: House | None = None, page_url: str | None = None,
) -> Message:  # fmt: skip
    """The automatic run fails, or works again.

    Parameters
    ----------
    step: of the cycle, by its name.
    since: when it failed first.
    reason: a sentence without secrets.
    key, state: of the thread and in it; one cause is one state.
    failures: so many in a row before a service that does not answer is told.

    >>> from datetime import UTC
    >>> render_trouble(model="a", step="score", since=datetime(2026, 1, 5, tzinfo=UTC), reason="", language="en",
    ...     key="a:cycle", state="works", works=True).subject
    'a: the automatic run works again'
    """
    text, house = words("alerts", language), house or House()
    values = {
        "model": model,
        "step": text.get(f"words.steps.{step}", step),
        "since": f"{since.astimezone(ZoneInfo(house.time_zone)):%Y-%m-%d %H:%M}",
        "reason": reason,
        "failures": str(failures),
    }
    kind, severity = ("cycle-works", "success") if works else ("cycle-failed", "failure")
    return _notice(kind, language, values, key=key, state=state, severity=severity, page_url=page_url)


def render_test(
    *, model: str, language: str, key: str, at: datetime, house: House | None = None, page_url: str | None = None
) -> Message:
    """A message that says that messages arrive.

    >>> from datetime import UTC
    >>> render_test(model="a", language="ja", key="t", at=datetime(2026, 1, 5, tzinfo=UTC)).subject
    'a: テスト送信'
    """
    values = {"model": model, "since": _day(at, house or House())}
    return _notice("test", language, values, key=key, state="test", severity="info", page_url=page_url)


def render_week(
    *, model: str, week: str, counts: Mapping[str, int], report: str, language: str, page_url: str | None = None
) -> Message:
    """The report of a week is ready.

    Parameters
    ----------
    counts: of the last seven days: rows, quarantined, windows, alarms; and open, of now.
    report: the file that it was kept in.

    >>> counts = dict.fromkeys(["rows", "quarantined", "windows", "alarms", "open"], 0)
    >>> render_week(model="a", week="2026-W14", counts=counts, report="2026-W14.html", language="en").subject
    'a: the report of the week 2026-W14 is ready'
    """
    values = {"model": model, "week": week, "file": report} | {name: f"{n:,}" for name, n in counts.items()}
    key = f"{model}:week:{week}"
    return _notice("week", language, values, key=key, state="week", severity="info", page_url=page_url)


def _day(moment: datetime, house: House) -> str:
    return f"{moment.astimezone(ZoneInfo(house.time_zone)):%Y-%m-%d}"


def _notice(
    kind: str, language: str, values: Mapping[str, str], *, key: str, state: str, severity: str, page_url: str | None
) -> Message:
    text = words("alerts", language)
    same = "cycle-failed" if kind == "cycle-works" else kind
    do = "life" if kind == "life-escalated" else kind
    body = [text[f"what.{kind}"], text["sure.certain"], text[f"do.{do}"], text[f"done.{kind}"], text[f"limits.{same}"]]
    paragraphs = [paragraph.format_map(values).strip() for paragraph in body]
    if page_url:
        paragraphs.append(text["page"].format(url=page_url))
    return Message(text[f"subject.{kind}"].format_map(values), "\n\n".join(paragraphs), severity, key, state)
