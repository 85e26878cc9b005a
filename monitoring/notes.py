"""What an entry of the ledger says beside its action, in words for people, from the values that the entry holds.

The ledger itself keeps sentences as they were written; the page needs them in the reader's language.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monitoring.ranges import range_in_words
from monitoring.words import words

SHOWN_GATES = 3
"""So many gates are named in one note."""


def note_of(action: str, details: Mapping[str, Any], language: str) -> str:
    """The note beside an entry; "" where there is nothing to say.

    Parameters
    ----------
    action, details: of the entry. A person's own words are given back as they are.
    language: one of `monitoring.words.LANGUAGES`.

    >>> note_of("incident.acknowledged", {"answer": "repaired"}, "en")
    'repaired'
    >>> note_of("champion.set", {"decision": "k"}, "en")
    ''
    >>> note_of("rollback.decided", {"reason": "the camera was blind", "named": "account"}, "ja")
    'the camera was blind'
    """
    names, reason = words("notes", language), str(details.get("reason") or "")
    match action:
        case "promotion.decided":
            return _decided(details, names, language)
        case "promotion.expired":
            return names["watch.expired"]
        case "promotion.refused" | "rollback.decided" if details.get("named") == "system":
            return names["watch.undone"]
        case "promotion.approved" if details.get("named") == "system":
            # It says no more than the watch's own entry before it.
            return ""
        case "watch.window" | "watch.ended":
            return _watched(details, names)
        case "life.started":
            return names.get(f"life.{reason}", reason)
        case "incident.opened":
            return _opened(details, names, words("alerts", language))
        case "incident.acknowledged":
            answer = str(details.get("answer") or "")
            return names.get(f"answer.{answer}", answer)
        case "incident.closed":
            return names.get(f"closed.{reason}", reason)
        case "quarantine.released" | "quarantine.discarded":
            count = names["rows"].format(rows=sum(_count(ranges) for ranges in (details.get("rows") or {}).values()))
            return f"{count}: {reason}" if reason else count
    return reason


def gate_sentence(gate: Mapping[str, Any], language: str) -> str:
    """What one gate found, without the words of statistics.

    Parameters
    ----------
    gate: a gate as the ledger keeps it: name, figure, low, high, margin, passed, gated, rows.

    >>> gate = {"name": "tail", "figure": -0.251, "low": -0.3, "high": -0.207, "margin": 0.05, "passed": True,
    ...     "gated": True, "rows": 2000}
    >>> gate_sentence(gate, "en")
    'hard parts: error -25.1 % (at most -20.7 %; +5.0 % allowed)'
    >>> gate_sentence({"name": "held-out rows", "passed": False, "rows": 12}, "en")
    'only 12 judged parts to compare on: too few; more labels are needed'
    """
    names = words("notes", language)
    name = str(gate["name"])
    kind, what = _kind(gate, names)
    points = kind.startswith(("recall", "misses"))
    plain = kind in {"latency", "size", "export"}
    shown: Callable[[Any], str] = _plain if plain else _points if points else lambda value: _change(value, names)
    margin = gate.get("margin")
    return names[f"gate.{kind}"].format(
        what=what or name,
        rows=gate.get("rows", 0),
        figure=shown(gate.get("figure")),
        low=shown(gate.get("low")),
        high=shown(gate.get("high")),
        margin=shown(margin),
        least=shown(None if margin is None else -margin),
        verdict=names["gate.passed" if gate.get("passed") else "gate.failed"],
    )


_FIXED = {
    "mean": "mean", "tail": "tail", "stability": "stability", "constant predictor": "constant", "misses": "misses",
    "recall": "recall-none", "held-out rows": "rows", "finite losses": "finite", "difference": "difference",
    "latency": "latency", "size": "size", "export": "export", "further slices": "slices",
}  # fmt: skip
"""A gate's name in the ledger -> its sentence in the catalogue."""

_MEASURED = {"mean", "tail", "stability", "constant", "misses", "latency", "size", "export"}
"""Sentences that need a figure; a gate of that name without one was refused for want of rows."""


def _kind(gate: Mapping[str, Any], names: Mapping[str, str]) -> tuple[str, str]:
    """Which sentence fits, and what it is about."""
    name, measured = str(gate["name"]), gate.get("figure") is not None
    if name.startswith("recall: "):
        what = name.removeprefix("recall: ")
        what = names["gate.all-defects"] if what == "all defects" else what
        if not measured:
            return "other", what
        # Of few rows the figure itself decides, so the interval would only mislead.
        return ("recall" if gate.get("gated", True) else "recall-reported"), what
    if name.startswith("slice "):
        what = name.removeprefix("slice ").replace("=", " ", 1)
        if not measured:
            return "slice-reported", what
        return ("slice-passed" if gate.get("passed") else "slice"), what
    kind = _FIXED.get(name, "other")
    if kind == "export" and not measured:
        return ("export-refused" if gate.get("gated", True) else "export-none"), name
    if kind in _MEASURED and not measured:
        return ("rows", "") if kind == "constant" else ("other", name)
    return kind, name


def _change(value: Any, names: Mapping[str, str]) -> str:
    if value is None or not math.isfinite(value):
        return names["gate.zero"]
    return f"{value * 100:+.1f} %"


def _points(value: Any) -> str:
    return "–" if value is None else f"{value * 100:+.1f}"


def _plain(value: Any) -> str:
    return "–" if value is None else f"{value:.3g}"


def _decided(details: Mapping[str, Any], names: Mapping[str, str], language: str) -> str:
    gates = list(details.get("gates") or [])
    failed = [gate for gate in gates if not gate["passed"]]
    told = failed or [gate for gate in gates if gate.get("gated", True) and not str(gate["name"]).startswith("slice ")]
    if not told:
        return "; ".join(str(reason) for reason in details.get("reasons") or [])
    parts = [gate_sentence(gate, language) for gate in told[:SHOWN_GATES]]
    if len(told) > SHOWN_GATES:
        parts.append(names["decided.more"].format(count=len(told) - SHOWN_GATES))
    holdout = details.get("holdout") or {}
    if holdout.get("looks"):
        parts.append(names["decided.looks"].format(looks=holdout["looks"], fresh=holdout["fresh"]))
    return "; ".join(parts)


def _watched(details: Mapping[str, Any], names: Mapping[str, str]) -> str:
    figures: Sequence[Mapping[str, Any]] = details.get("figures") or []
    worse = [str(one["name"]) for one in figures if one["worse"]]
    values = {"against": details.get("against"), "rows": details.get("rows")}
    if not worse:
        return names["watch.same"].format(**values)
    called = ", ".join(names.get(f"watch.{name}", name) for name in worse)
    return names["watch.worse"].format(**values, names=called)


def _opened(details: Mapping[str, Any], names: Mapping[str, str], called: Mapping[str, str]) -> str:
    if details.get("column") and details.get("value") is not None:
        column = str(details["column"])
        return names["opened.place"].format(
            column=called.get(f"words.columns.{column}", column), value=details["value"]
        )
    span = details.get("span")
    return range_in_words(span["column"], span["value"], called) if span else names["opened.spread"]


def _count(ranges: str) -> int:
    """How many numbers a list of ranges holds.

    >>> _count("1-3,7")
    4
    """
    ends = [[int(number) for number in part.split("-")] for part in ranges.split(",") if part]
    return sum(end[-1] - end[0] + 1 for end in ends)
