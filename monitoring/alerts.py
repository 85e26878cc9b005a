"""What an incident says to the people on shift: what, since when, where, how sure, what to do, what was done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo

from monitoring.incidents import TRIES, Incident
from monitoring.ranges import range_in_words
from monitoring.words import words


@dataclass(frozen=True)
class Message:
    """A message in one language.

    Attributes
    ----------
    severity: info | success | warning | failure, as channels know it; failure: a person has to act.
    key: the incident or file that it is about; messages of one thread share it.
    state: what happened; the same key and state is the same message.
    """

    subject: str
    body: str
    severity: str
    key: str
    state: str


@dataclass(frozen=True)
class House:
    """What one plant has settled about its messages.

    Attributes
    ----------
    time_zone: in which times are told.
    responsible, superior: who is to answer, and who is told when nobody does, in the plant's words; None: the
        language's usual ones.
    reached, reached_further: whether the plant has named a channel that reaches them.
    escalate_hours: after which nobody has answered.
    calm_windows: windows in a row that make a recovery.
    """

    time_zone: str = "UTC"
    responsible: str | None = None
    superior: str | None = None
    reached: bool = True
    reached_further: bool = True
    escalate_hours: float = 24.0
    calm_windows: int = 2


EVENTS = (
    "opened", "updated", "challenger", "seen", "acknowledged", "escalated", "recovered", "promoted", "refused",
    "closed",
)  # fmt: skip
_SEVERITY = {
    "opened-inspect": "failure", "opened-retrain": "warning", "updated-worse": "failure", "updated-moved": "warning",
    "updated-returned": "failure", "challenger": "warning", "escalated-inspect": "failure",
    "escalated-stuck": "failure", "recovered": "success", "promoted": "success", "refused": "warning",
    "refused-last": "failure",
}  # fmt: skip
_SURE = {"promoted", "refused", "recovered", "updated-worse", "updated-moved", "updated-returned"}


def render(
    incident: Incident, event: str, language: str, *, page_url: str | None = None, house: House | None = None
) -> Message:
    """An incident's message for one event.

    Parameters
    ----------
    event: one of `EVENTS`.
    language: "en" or "ja".
    house: the plant's own words and times.

    Raises
    ------
    ValueError: the event or the language is unknown.

    >>> from datetime import UTC
    >>> monday = datetime(2026, 3, 30, tzinfo=UTC)
    >>> one = Incident("a-2026-W14", "a", datetime(2026, 4, 6, tzinfo=UTC), "2026-W14", monday, "inspect",
    ...     "machine", "M07", share=0.72, low=0.6, high=0.8, row_share=0.08)
    >>> message = render(one, "opened", "en")
    >>> message.subject
    'a: check M07 - it carries 72 % of the additional hard cases'
    >>> "softad alerts ack a-2026-W14 --repaired" in message.body
    True
    """
    text = words("alerts", language)
    if event not in EVENTS:
        raise ValueError(f"event is {event!r}; it is none that a message exists for")
    kind = _kind(incident, event)
    house = house or House()
    values = _values(incident, text, house)
    body = [
        text[_what(incident, event, kind, reached=house.reached)],
        text[f"sure.{kind}" if kind in _SURE else "sure.refused" if event == "refused" else "sure.alarm"],
        text[_do(incident, event, kind)],
        text[_done(incident, event, kind)],
        text["limits.alarm"].replace("{told_when}", text.get(f"limits.{kind}", "")),
        text["incident"],
    ]
    paragraphs = [paragraph.format_map(values) for paragraph in body]
    if page_url:
        paragraphs.append(text["page"].format(url=page_url))
    subject = text[f"subject.{kind}"].format_map(values)
    severity = _SEVERITY.get(kind, "info")
    return Message(subject, "\n\n".join(paragraphs), severity, incident.key, _state(incident, event))


def _kind(incident: Incident, event: str) -> str:
    if event == "opened":
        return f"opened-{incident.verdict}"
    if event == "updated":
        return f"updated-{incident.update or 'worse'}"
    if event == "escalated":
        return "escalated-stuck" if incident.stuck else "escalated-inspect"
    return "refused-last" if event == "refused" and incident.stuck else event


def _what(incident: Incident, event: str, kind: str, *, reached: bool) -> str:
    if event == "opened" and incident.verdict == "retrain" and incident.value is not None:
        return "what.opened-retrain-slice"
    if event == "opened" and _matter(incident).startswith("retrain-range"):
        return f"what.opened-{_matter(incident)}"
    if kind == "escalated-inspect" and incident.seen_at is not None:
        return "what.escalated-seen"
    if kind == "escalated-inspect" and not reached:
        return "what.escalated-inspect-page"
    if event == "acknowledged":
        return f"what.acknowledged-{incident.answer or 'new-normal'}"
    return f"what.{kind}"


def _do(incident: Incident, event: str, kind: str) -> str:
    if event == "seen":
        return "do.seen" if incident.verdict == "inspect" else "do.seen-spread"
    if event == "recovered" and incident.stuck and incident.state != "closed":
        return "do.escalated-stuck"
    asks = event in {"recovered", "updated"} and incident.verdict == "inspect" and incident.answer is None
    return f"do.{kind}-open" if asks and kind != "updated-moved" else f"do.{kind}"


def _done(incident: Incident, event: str, kind: str) -> str:
    if event == "updated":
        return "done.updated" if incident.verdict == "inspect" else "done.updated-spread"
    if event == "seen":
        return "done.seen" if incident.verdict == "inspect" else "done.seen-spread"
    if event == "acknowledged":
        return f"done.acknowledged-{incident.answer or 'new-normal'}"
    if event == "recovered" and incident.state == "closed":
        return "done.recovered-closed"
    goes_on = event == "recovered" and not incident.stuck and (incident.verdict, incident.answer) != ("inspect", None)
    return "done.recovered-spread" if goes_on else f"done.{kind}"


def _state(incident: Incident, event: str) -> str:
    """A second refusal is another message; a second opening is not."""
    counts = {"refused": incident.tries, "updated": incident.updates, "escalated": incident.escalations,
              "recovered": incident.recoveries}  # fmt: skip
    return event if counts.get(event, 1) <= 1 else f"{event}-{counts[event]}"


def _values(incident: Incident, text: Mapping[str, str], house: House) -> dict[str, str]:
    zone = ZoneInfo(house.time_zone)

    def day(moment: datetime | None) -> str:
        return f"{moment.astimezone(zone):%Y-%m-%d}" if moment is not None else text["words.unknown-time"]

    reason = incident.closed_reason or "none"
    harder_now = incident.harder_now or incident.harder
    life = text[f"words.unit.{incident.unit}"].format(n=incident.horizon)
    hours = hours_in_words(house.escalate_hours, text)
    calm = text[f"words.unit.{incident.unit}"].format(n=house.calm_windows)
    limited = incident.verdict == "inspect" and incident.inspect_share is not None
    values = {
        "model": incident.model,
        "key": incident.key,
        "value": _name(incident.value) or text["words.everywhere"],
        "place": _place(incident.column, incident.value, text),
        "value_now": _name(incident.value_now) or text["words.everywhere"],
        "place_now": _place(incident.column_now, incident.value_now, text),
        "everywhere": text["words.everywhere"],
        "amount": _amount(incident.share, text),
        "amount_now": _amount(incident.share_now, text),
        "range": _range(incident, text),
        "parts": _parts(incident, text),
        "since": day(incident.since),
        "until": day(incident.repaired_at),
        "waiting": day(incident.seen_at or incident.opened_at),
        "harder": _times("harder", incident.harder, text),
        "harder_now": f"{harder_now:.1f}" if harder_now is not None else "?",
        "harder_then": _times("harder-then", incident.harder, text) if incident.updates <= 1 else "",
        "budget": budget_in_words(incident.alarm_budget, life, text),
        "budget_number": _short(incident.alarm_budget),
        "life": life,
        "calm": calm,
        "hours": hours,
        "period": text[f"words.period.{incident.unit}"],
        "version": incident.challenger_version or "?",
        "held": text["words.held"].format(version=incident.challenger_version) if incident.held else "",
        "tries": str(incident.tries),
        "tries_limit": str(TRIES),
        "by": incident.answered_by or incident.seen_by or text["words.somebody"],
        "responsible": house.responsible or text["words.responsible"],
        "reason": text.get(f"words.reasons.{reason}", reason),
        "reading": _reading(incident, text),
        "relevant": text["limits.relevant"].format(relevant_effect=_short(incident.relevant_effect))
        if incident.relevant_effect
        else "",
        "place_limit": text["limits.place"].format(inspect_share=percent(incident.inspect_share)) if limited else "",
    }
    values |= _span(incident, text)
    values["told"] = told_in_words(house, text)
    values["Amount"] = _capital(values["amount"])
    values["Budget"] = _capital(values["budget"])
    values["alarm"] = values["Budget"]
    values["matter"] = text[f"matter.{_matter(incident)}"].format_map(values)
    return values


def told_in_words(house: House, text: Mapping[str, str]) -> str:
    """Who was told that nobody has answered: what a plant has not set up is not claimed.

    >>> from monitoring.words import words
    >>> told_in_words(House(superior="Ms Mori"), words("alerts", "en"))
    'told Ms Mori as well'
    """
    told = "told-further" if house.reached_further else "told-again" if house.reached else "told-page"
    return text[f"words.{told}"].format(superior=house.superior or text["words.superior"])


def _span(incident: Incident, text: Mapping[str, str]) -> dict[str, str]:
    """The range of a measurement in words, with its shares."""
    span = incident.span
    if span is None:
        return {"span": "", "span_amount": "", "span_range": "", "span_parts": "", "span_rows": "", "span_before": ""}
    own = replace(incident, share=span["share"], low=span["low"], high=span["high"], row_share=span["row_share"])
    return {
        "span": range_in_words(span["column"], span["value"], text),
        "span_amount": _capital(_amount(own.share, text)),
        "span_range": _range(own, text),
        "span_parts": _parts(own, text),
        "span_rows": percent(own.row_share),
        "span_before": percent(span["before"]),
    }


def _matter(incident: Incident) -> str:
    if incident.verdict == "inspect":
        return "inspect"
    if incident.value is not None:
        return "retrain-slice"
    if incident.span is None:
        return "retrain"
    return "retrain-range-grew" if incident.span["grew"] else "retrain-range"


def _name(value: str | None) -> str:
    """A line break in a plant's name must not end a subject or start a line of its own."""
    return " ".join(value.split()) if value else ""


def _place(column: str | None, value: str | None, text: Mapping[str, str]) -> str:
    if not value:
        return text["words.everywhere"]
    return f"{text.get(f'words.columns.{column}', column or '')} {_name(value)}".strip()


def _amount(share: float | None, text: Mapping[str, str]) -> str:
    if share is None:
        return text["words.amount-unknown"]
    return text["words.amount-all"] if percent(share) == "100 %" else text["words.amount"].format(share=percent(share))


def _range(incident: Incident, text: Mapping[str, str]) -> str:
    """The interval in words; one that is a point says nothing, except that it is all."""
    if incident.share is None or incident.low is None or incident.high is None:
        return ""
    share, low, high = (percent(each) for each in (incident.share, incident.low, incident.high))
    if share == low == "100 %":
        return text["words.range-all"]
    if low == high:
        return ""
    if high == share:
        return text["words.range-least"].format(low=low)
    return text["words.range"].format(low=low, high=high)


def _parts(incident: Incident, text: Mapping[str, str]) -> str:
    if incident.row_share is None:
        return ""
    few = incident.share is not None and incident.row_share < incident.share / 2
    return text["words.parts" if few else "words.parts-all"].format(row_share=percent(incident.row_share))


def _times(phrase: str, times: float | None, text: Mapping[str, str]) -> str:
    return text[f"words.{phrase}"].format(times=f"{times:.1f}") if times is not None else ""


def _reading(incident: Incident, text: Mapping[str, str]) -> str:
    if incident.statistic is None or incident.threshold is None:
        return ""
    return text["limits.reading"].format(statistic=f"{incident.statistic:.1f}", threshold=f"{incident.threshold:.1f}")


def percent(share: float | None) -> str:
    """A share as people write it, kept within 0 and 100.

    >>> percent(0.724), percent(1.2)
    ('72 %', '100 %')
    """
    return f"{min(max(share or 0.0, 0.0), 1.0) * 100:.0f} %"


def _short(number: float | None) -> str:
    return f"{number or 0.0:.3f}".rstrip("0").rstrip(".")


def budget_in_words(budget: float, life: str, text: Mapping[str, str]) -> str:
    """What an alarm budget means.

    Parameters
    ----------
    budget: the probability of a false alarm over a life, in (0, 1).
    life: how long a life is, in words.
    text: the catalogue "alerts" of a language.

    >>> budget_in_words(0.05, "52 weeks", words("alerts", "en"))
    'as long as nothing changes at the line, about one watch in twenty ends in a false alarm (a watch lasts 52 weeks)'
    """
    lives = max(round(1 / budget), 2)
    if abs(1 / lives - budget) > 0.05 * budget:
        return text["words.budget-hundred"].format(lives=round(100 * budget), life=life)
    return text["words.budget"].format(lives=text.get(f"words.numbers.{lives}", str(lives)), life=life)


def hours_in_words(hours: float, text: Mapping[str, str]) -> str:
    """Hours, or days where they are whole ones.

    >>> hours_in_words(24, words("alerts", "en")), hours_in_words(72, words("alerts", "en"))
    ('24 hours', '3 days')
    """
    if hours >= 48 and hours % 24 == 0:
        return text["words.days"].format(n=f"{hours / 24:.0f}")
    return text["words.hours"].format(n=_short(hours))


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
