"""Incidents and lives in their tables: opened once, answered once, saved last."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows import ledger
from flows.context import Context
from flows.errors import BadConfig
from flows.incidents import (
    all_incidents,
    find_incident,
    open_incidents,
    open_new_incidents,
    save_incident,
    since_of,
)
from flows.lives import begin_life, current_life, extend_reference, reference_of
from flows.monitor import WindowOutcome
from flows.people import answer_incident, latest_event
from flows.settings import Settings
from flows.store import Store
from flows.workspace import Workspace
from monitoring.incidents import ANSWERS, Incident

START = datetime(2026, 4, 6, tzinfo=UTC)
WEEK = timedelta(days=7)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    settings = Settings.model_validate(
        {"name": "line-a", "data": {"label": "ok", "numeric": ["x"], "id": "id", "time": "time"}}
    )
    return Context(settings, Workspace.open(tmp_path / "workspace", settings=settings))


def look(window: str = "2026-W15", **changes: Any) -> WindowOutcome:
    details = {"column": "machine", "value": "M07", "share": 0.8, "effect": {"windows": 2, "tail": 1.9}}
    values: dict[str, Any] = {
        "life": "life-0001", "window": window, "start": START, "end": START + WEEK, "rows": 100, "labelled": 90,
        "model_version": "1", "state": "alarm", "alarm": True, "statistic": 3.0, "threshold": 2.0,
        "budget_spent": 0.01, "verdict": "inspect", "figures": {}, "details": details, "report": None,
        "findings": [{"column": "machine", "value": "M07", "share": 0.8, "low": 0.7, "high": 0.9, "row_share": 0.1}],
        "at": START + WEEK,
    }  # fmt: skip
    return WindowOutcome(**values | changes)


def opened(context: Context, **changes: Any) -> Incident:
    [incident] = open_new_incidents(context, [look(**changes)], now=START + WEEK)
    return incident


def answer(context: Context, key: str, said: str, *, at: datetime | None = None, days: int = 14) -> Incident:
    return answer_incident(context, key, answer=said, at=at, actor="aiko", now=START + timedelta(days=days))


# -- incidents --------------------------------------------------------------------------------------------------------


def test_an_alarm_opens_one_incident_with_what_was_found(context: Context) -> None:
    incident = opened(context)
    assert (incident.key, incident.column, incident.value, incident.verdict) == (
        "line-a-2026-W15", "machine", "M07", "inspect"
    )  # fmt: skip
    assert (incident.share, incident.low, incident.high, incident.row_share, incident.harder) == (
        0.8, 0.7, 0.9, 0.1, 1.9
    )  # fmt: skip
    assert incident.since == START - WEEK, "the alarm sums two windows"
    assert all_incidents(context.store) == [incident]


def test_the_same_alarm_again_and_quiet_windows_open_nothing(context: Context) -> None:
    opened(context)
    assert open_new_incidents(context, [look(), look("2026-W16", alarm=False)], now=START + 2 * WEEK) == []
    assert len(all_incidents(context.store)) == 1
    assert [entry.action for entry in ledger.read(context.store)] == ["incident.opened"]


def test_a_process_that_died_after_the_ledger_opens_it_at_last(context: Context, monkeypatch: Any) -> None:
    real = context.store.append

    def cut(table: str, *arguments: Any, **named: Any) -> bool:
        if table == "incidents":
            raise KeyboardInterrupt
        return real(table, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(context.store, "append", cut)
        with pytest.raises(KeyboardInterrupt):
            opened(context)
    assert all_incidents(context.store) == []
    opened(context)
    assert len(all_incidents(context.store)) == len(ledger.read(context.store)) == 1


def test_where_rows_have_no_time_the_start_is_not_told() -> None:
    assert since_of(look(start=None, end=None)) is None
    assert since_of(look(details={"effect": None})) == START


def test_the_newest_state_counts_and_closed_ones_are_not_open(context: Context) -> None:
    incident = opened(context)
    for event, state in (("challenger", incident.with_challenger("2", held=True)),
                         ("closed", incident.closed(START + 2 * WEEK, reason="repaired"))):  # fmt: skip
        assert save_incident(context, state, event=event, now=START + 2 * WEEK)
    [newest] = all_incidents(context.store)
    assert (newest.state, newest.closed_reason) == ("closed", "repaired")
    assert open_incidents(context.store) == []


def test_an_unknown_key_names_the_known_ones(context: Context) -> None:
    with pytest.raises(BadConfig, match="no incident 'x'; known: none so far"):
        find_incident(context.store, "x")
    opened(context)
    with pytest.raises(BadConfig, match="no incident 'x'; known: line-a-2026-W15"):
        find_incident(context.store, "x")


@pytest.mark.parametrize("said", ANSWERS)
def test_an_answer_is_kept_once_with_the_name_of_who_gave_it(context: Context, said: str) -> None:
    key = opened(context).key
    first = answer(context, key, said)
    assert answer(context, key, said, days=20) == first
    assert (first.state, first.answer, first.answered_by) == ("acknowledged", said, "aiko")
    assert first.repaired_at == (START + 2 * WEEK if said == "repaired" else None)
    entries = ledger.read(context.store, action="incident.acknowledged")
    assert [(entry.actor, entry.details["answer"]) for entry in entries] == [("aiko", said)]
    other = next(one for one in ANSWERS if one != said)
    with pytest.raises(BadConfig, match=f"answered before \\({said}.*, by aiko\\)"):
        answer(context, key, other)


def test_another_date_of_the_same_answer_is_refused_not_passed_over(context: Context) -> None:
    key = opened(context).key
    first = answer(context, key, "repaired", at=START + WEEK)
    assert answer(context, key, "repaired", at=START + WEEK) == answer(context, key, "repaired") == first
    with pytest.raises(BadConfig, match=rf"answered before \(repaired at {START + WEEK:%Y-%m-%d %H:%M} UTC, by aiko\)"):
        answer(context, key, "repaired", at=START + 1.5 * WEEK)


def test_an_answer_that_cannot_be(context: Context) -> None:
    incident = opened(context)
    with pytest.raises(BadConfig, match="lies before the change"):
        answer(context, incident.key, "repaired", at=START - 3 * WEEK)
    with pytest.raises(BadConfig, match=r"lies in the future .*answer once the machine is in order again"):
        answer(context, incident.key, "repaired", at=START + 52 * WEEK)
    with pytest.raises(BadConfig, match="answer is 'perhaps'"):
        answer(context, incident.key, "perhaps")
    save_incident(context, incident.closed(START + WEEK, reason="by hand"), event="closed", now=START + WEEK)
    with pytest.raises(BadConfig, match="is closed; nothing is left to answer"):
        answer(context, incident.key, "repaired")


def test_an_answer_cut_off_before_it_was_saved_is_given_again(context: Context, monkeypatch: Any) -> None:
    key = opened(context).key
    with monkeypatch.context() as patch:
        patch.setattr("flows.incidents._append", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            answer(context, key, "repaired")
    assert find_incident(context.store, key).answer is None
    answer(context, key, "repaired")
    assert find_incident(context.store, key).answer == "repaired"
    assert len(ledger.read(context.store, action="incident.acknowledged")) == 1
    assert len(list((context.workspace.outbox / "alerts" / "line-a").glob("*.json"))) == 1


def test_the_event_whose_words_describe_it_now(context: Context) -> None:
    incident = opened(context)
    answered = incident.answered("repaired", actor="aiko", at=START)
    states = [incident, answered, answered.closed(START, reason="repaired")]
    assert [latest_event(state) for state in states] == ["opened", "acknowledged", "closed"]


# -- lives ------------------------------------------------------------------------------------------------------------

OPTIONS = {"alarm_budget": 0.2, "windows": 4, "window_size": 50, "relevant_effect": 1.15, "seed": 0}


def losses(rows: int, start: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(start)
    names = [f"p{number:05d}" for number in range(start, start + rows)]
    return pd.DataFrame({"_id": names, "loss": rng.lognormal(size=rows), "window": "2026-W10"})


def begin(store: Store, cause: str, rows: int = 300, *, version: str = "1") -> Any:
    return begin_life(
        store, model_version=version, reference=losses(rows), after_seq=rows - 1, min_reference_rows=250,
        scan_options=OPTIONS, reason="promotion", cause=cause, actor="softad", now=START,
    )  # fmt: skip


def test_a_life_begins_once_per_cause(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert current_life(store) is None
    first = begin(store, "champion:1")
    assert begin(store, "champion:1").name == first.name == "life-0001"
    assert begin(store, "champion:2", version="2").name == "life-0002"
    now = current_life(store)
    assert now is not None and (now.name, now.model_version) == ("life-0002", "2")
    assert store.count("lives") == len(ledger.read(store, action="life.started")) == 2
    assert len(reference_of(store, first)) == 300


def test_a_short_reference_is_filled_by_windows_and_then_the_scan_begins(tmp_path: Path) -> None:
    store = Store(tmp_path)
    life = begin(store, "champion:1", rows=100)
    assert life.scan is None
    for number, enough in ((1, False), (2, True)):
        for _ in range(2):  # the second time changes nothing
            life = extend_reference(
                store, life, losses(100, start=1000 * number)[["_id", "loss"]], window=f"2026-W1{number}",
                min_reference_rows=250, scan_options=OPTIONS, now=START,
            )  # fmt: skip
        assert (life.scan is not None) is enough
    now = current_life(store)
    assert now is not None and now.scan == life.scan
    assert (store.count("references"), store.count("lives")) == (300, 2)


def test_a_life_cut_off_before_it_was_saved_begins_at_last(tmp_path: Path, monkeypatch: Any) -> None:
    store = Store(tmp_path)
    real = store.append
    state = SimpleNamespace(cut=True)

    def append(table: str, *arguments: Any, **named: Any) -> bool:
        if table == "lives" and state.cut:
            raise KeyboardInterrupt
        return real(table, *arguments, **named)

    monkeypatch.setattr(store, "append", append)
    with pytest.raises(KeyboardInterrupt):
        begin(store, "champion:1")
    assert current_life(store) is None
    state.cut = False
    begin(store, "champion:1")
    assert (store.count("references"), store.count("lives"), len(ledger.read(store))) == (300, 1, 1)


def test_a_reference_whose_losses_are_all_equal_waits_for_rows_that_differ(tmp_path: Path) -> None:
    store = Store(tmp_path)
    life = begin_life(
        store, model_version="1", reference=losses(300).assign(loss=0.5), after_seq=299, min_reference_rows=250,
        scan_options=OPTIONS, reason="promotion", cause="champion:1", actor="softad", now=START,
    )  # fmt: skip
    assert life.scan is None
    life = extend_reference(
        store, life, losses(100, start=1000)[["_id", "loss"]], window="2026-W11", min_reference_rows=250,
        scan_options=OPTIONS, now=START,
    )  # fmt: skip
    assert life.scan is not None
