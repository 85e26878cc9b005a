"""Messages about a new model: it waits for a decision, did worse than the one before, or is in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from monitoring.alerts import House, Message, hours_in_words
from monitoring.words import words

KINDS = ("waits", "expired", "worse", "undone", "made")
_SEVERITY = {"waits": "failure", "expired": "warning", "worse": "warning", "undone": "failure", "made": "success"}
_SURE = {"waits": "promoted", "expired": "promoted", "undone": "promotion-worse"}
_LIMITS = {"expired": "promotion-waits", "undone": "promotion-worse", "made": "promotion-worse"}


def render_promotion(
    kind: str, *, model: str, version: str, other: str | None, since: datetime, language: str, rows: int = 0,
    figures: Sequence[Mapping[str, Any]] = (), margins: Mapping[str, float] | None = None, hours: float = 72.0,
    url: str | None = None, house: House | None = None, page_url: str | None = None,
) -> Message:  # fmt: skip
    """A message about one version.

    Parameters
    ----------
    kind: one of `KINDS`. "worse": it did worse before it was used; "undone": afterwards.
    other: the version that it was compared with.
    since: when it passed the checks, or from when on both judged the same parts.
    figures: each with `name`, `change`, `worse`, as the ledger keeps them; those that are worse are told.
    margins: name of a figure -> how much worse it may be.
    url: a page on which the decision can be given too.

    Raises
    ------
    ValueError: the kind is unknown.

    >>> from datetime import UTC
    >>> message = render_promotion("undone", model="a", version="4", other="3", rows=800, language="en",
    ...     since=datetime(2026, 4, 6, tzinfo=UTC), figures=[{"name": "tail", "change": 0.31, "worse": True}])
    >>> message.subject, "hard cases 31 % harder" in message.body
    ('a: the new model did worse - the one before is in use again', True)
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it is one of {', '.join(KINDS)}")
    text, house = words("alerts", language), house or House()
    allowed = {name: _number(100 * share) for name, share in (margins or {}).items()}
    values = {
        "model": model, "version": version, "other": other or "?", "rows": f"{rows:,}",
        "since": f"{since.astimezone(ZoneInfo(house.time_zone)):%Y-%m-%d}",
        "hours": hours_in_words(hours, text),
        "link": text["words.promotion.link"].format(url=url) if url else "",
        "figures": text["words.promotion.and"].join(_told(one, text) for one in figures if one["worse"]),
        "allowed": text["words.promotion.allowed"].format_map(
            {"mean": "?", "tail": "?", "stability": "?", "recall": "?"} | allowed
        ),
    }  # fmt: skip
    name = f"promotion-{kind}"
    parts = [
        text[f"what.{name}"], text[f"sure.{_SURE.get(kind, name)}"], text[f"do.{name}"], text[f"done.{name}"],
        text[f"limits.{_LIMITS.get(kind, name)}"],
    ]  # fmt: skip
    paragraphs = [part.format_map(values) for part in parts]
    if page_url:
        paragraphs.append(text["page"].format(url=page_url))
    subject = text[f"subject.{name}"].format_map(values)
    return Message(subject, "\n\n".join(paragraphs), _SEVERITY[kind], f"{model}:version-{version}", kind)


def _told(figure: Mapping[str, Any], text: Mapping[str, str]) -> str:
    if figure["change"] is None:
        return text["words.promotion.grown"]
    return text[f"words.promotion.{figure['name']}"].format(n=_number(100 * float(figure["change"])))


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}".removesuffix(".0")
