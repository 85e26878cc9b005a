"""What later windows of an incident are told, and what is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from monitoring.incidents import TRIES, Incident
from monitoring.news import LaterLook, next_news

NOW = datetime(2026, 5, 4, tzinfo=UTC)
OPENED = Incident(
    "a-2026-W14", "a", datetime(2026, 4, 6, tzinfo=UTC), "2026-W14", None, "inspect", "machine", "M07", harder=2.0
)
REPAIRED = OPENED.answered("repaired", actor="aiko", at=NOW, repaired_at=NOW).closed(NOW, reason="repaired")


def look(name: str, tail: float, *, mean: float | None = None, value: str | None = "M07", **more: object) -> LaterLook:
    column = "machine" if value else None
    return LaterLook(name, mean=mean or tail, tail=tail, tail_low=tail * 0.9, column=column, value=value, **more)  # type: ignore[arg-type]


def told(incident: Incident, *looks: LaterLook, windows: int = 2) -> list[tuple[str, str | None]]:
    """All that is told of these looks, one piece of news after the other."""
    found: list[tuple[str, str | None]] = []
    rest = list(looks)
    while (news := next_news(incident, rest, now=NOW, relevant_effect=1.15, calm_windows=windows)) is not None and len(
        found
    ) < 20:
        event, incident = news
        found.append((event, incident.update if event == "updated" else None))
        names = [each.name for each in rest]
        rest = rest[names.index(incident.followed or "") + 1 :]
    return found


def test_a_week_as_bad_as_the_first_is_no_message() -> None:
    assert told(OPENED, *[look(f"W{number}", 2.1) for number in range(20)]) == []


def test_worse_is_told_when_it_is_clearly_worse_and_only_when_worse_again() -> None:
    assert told(OPENED, look("1", 2.6)) == [], "its lower end is not a quarter above what was told"
    assert told(OPENED, look("1", 3.0), look("2", 3.1), look("3", 2.9)) == [("updated", "worse")]
    assert told(OPENED, look("1", 3.0), look("2", 4.5)) == [("updated", "worse")] * 2


def test_another_place_is_told_once_also_when_the_two_change_places_every_week() -> None:
    weeks = [look(str(number), 2.1, value="M03" if number % 2 else "M07") for number in range(8)]
    assert told(OPENED, *weeks) == [("updated", "moved")]
    assert told(OPENED, look("1", 2.1, value=None)) == [], "no place named is no other place"


def test_a_recovery_needs_windows_in_a_row_and_both_figures() -> None:
    calm = [look(str(number), 1.0, value=None) for number in range(4)]
    assert told(OPENED, calm[0]) == []
    assert told(OPENED, calm[0], look("x", 1.4), calm[1]) == []
    assert told(OPENED, *calm) == [("recovered", None)]
    assert told(OPENED, *[replace(each, mean=1.2) for each in calm]) == []
    assert told(OPENED, calm[0], windows=1) == [("recovered", None)]


def test_what_is_bad_again_after_a_recovery_is_told_and_may_recover_again() -> None:
    calm, bad = [look(f"c{number}", 1.0, value=None) for number in range(4)], [look(f"b{n}", 2.0) for n in range(4)]
    assert told(OPENED, *calm[:2], bad[0], calm[2]) == [("recovered", None)]
    expected = [("recovered", None), ("updated", "returned"), ("recovered", None)]
    assert told(OPENED, *calm[:2], *bad[:3], *calm[2:]) == expected


def test_after_a_repair_only_parts_made_since_count_and_a_new_alarm_ends_it() -> None:
    before = [look(f"b{number}", 1.0, value=None, counts=False) for number in range(3)]
    after = [look(f"a{number}", 1.0, value=None) for number in range(3)]
    assert told(REPAIRED, *before, after[0]) == []
    assert told(REPAIRED, *before, *after) == [("recovered", None)], "once, and nothing after it"
    assert told(REPAIRED, after[0], look("x", 3.0, alarm=True), *after[1:]) == []
    assert told(REPAIRED, look("x", 3.0), look("y", 4.0)) == [], "a closed incident is not updated"


def test_an_incident_closed_otherwise_is_over() -> None:
    calm = [look(str(number), 1.0) for number in range(4)]
    assert told(OPENED.closed(NOW, reason="by hand"), *calm) == []


def test_nobody_answered_is_told_once_and_again_after_somebody_has_looked() -> None:
    day = timedelta(hours=24)
    start = OPENED.opened_at
    assert not OPENED.overdue(start + day / 2, 24)
    once = OPENED.escalated(start + day)
    assert not once.overdue(start + 40 * day, 24)
    seen = once.seen(actor="aiko", at=start + 2 * day)
    assert seen.standing == "acknowledged"
    assert not seen.overdue(start + 2.5 * day, 24)
    assert seen.overdue(start + 3 * day, 24)
    assert not seen.escalated(start + 3 * day).overdue(start + 40 * day, 24)
    assert not seen.answered("repaired", actor="aiko", at=start).overdue(start + 40 * day, 24)


def test_what_waits_for_nobody_is_never_overdue_and_what_is_stuck_is() -> None:
    spread = replace(OPENED, verdict="retrain", column=None, value=None)
    later = OPENED.opened_at + timedelta(days=60)
    assert not spread.overdue(later, 24)
    for _ in range(TRIES):
        spread = spread.tried(f"W{spread.tries}", at=later)
    assert spread.stuck and spread.waits
    assert not spread.overdue(later + timedelta(hours=23), 24)
    assert spread.overdue(later + timedelta(hours=24), 24)
    assert not spread.closed(later, reason="x").overdue(later + timedelta(days=9), 24)


@pytest.mark.parametrize(
    ("incident", "standing"),
    [
        (OPENED, "opened"),
        (replace(OPENED, updates=1), "updated"),
        (OPENED.escalated(NOW), "escalated"),
        (OPENED.escalated(NOW).answered("new-normal", actor="a", at=NOW), "acknowledged"),
        (replace(OPENED, recovered_at=NOW), "recovered"),
        (REPAIRED, "closed"),
    ],
)
def test_the_standing_in_one_word(incident: Incident, standing: str) -> None:
    assert incident.standing == standing
    assert Incident.from_dict(incident.to_dict()) == incident
