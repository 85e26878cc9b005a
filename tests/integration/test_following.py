"""Incidents, watches and runs on real tables: what people are told by itself, once, whatever dies in between."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from flows import ledger
from flows.alerting import deliver_alerts, outbox_of
from flows.cli import app
from flows.context import Context
from flows.errors import BadConfig, BadInput, Unavailable
from flows.following import follow_incidents
from flows.incidents import all_incidents, change_incident, find_incident
from flows.lives import begin_life, current_life
from flows.monitor import WindowOutcome, _record
from flows.page import _in_use_since
from flows.people import answer_incident, renew_watch, see_incident
from flows.promotions import MOVED
from flows.settings import load_settings
from flows.troubles import note_failure, note_success, told_when_it_fails
from flows.workspace import Workspace

START = datetime(2026, 1, 5, tzinfo=UTC)
WEEK = timedelta(days=7)
CONFIG = """
name: {name}
data: {{id: id, time: time, label: ok, numeric: [x], slices: [machine]}}
monitoring: {{windows: {windows}}}
alerts: {{escalate_after_hours: 24, language: {language}}}
"""
TAIL = 0.9


class Plant:
    """A workspace whose windows are written by the test, as the monitor would."""

    def __init__(self, folder: Path, *, name: str = "line-a", windows: int = 52, language: str = "en") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / f"{name}.yaml"
        self.config.write_text(CONFIG.format(name=name, windows=windows, language=language))
        settings = load_settings(self.config)
        self.context = Context(settings, Workspace.open(folder, settings=settings))
        self.begin()

    def begin(self) -> None:
        losses = np.full(400, 0.1)
        losses[:40] = TAIL
        rows = pd.DataFrame({"_id": [f"r{n}" for n in range(400)], "loss": losses, "window": "2025-W50"})
        begin_life(
            self.context.store, model_version="1", reference=rows, after_seq=-1, min_reference_rows=10_000,
            scan_options={}, reason="promotion", cause="champion:1", actor="softad", now=START,
        )  # fmt: skip

    def look(self, week: int, times: float, *, alarm: bool = False, value: str | None = None, state: str = "") -> None:
        """Week's window: its tail so many times the reference's."""
        life = current_life(self.context.store)
        assert life is not None
        start = START + week * WEEK
        state = state or ("alarm" if alarm else "ok")
        figures = {
            name: {"value": usual * times, "low": usual * times * 0.95, "high": usual * times * 1.05}
            for name, usual in (("mean", 0.18), ("tail", TAIL))
        }
        found = {"column": "machine", "value": value, "share": 0.72, "low": 0.6, "high": 0.8, "row_share": 0.1}
        details = {"column": "machine" if value else None, "value": value, "share": 0.72 if value else None,
                   "effect": {"windows": 1, "tail": times}}  # fmt: skip
        outcome = WindowOutcome(
            life=life.name, window=f"2026-W{week + 2:02d}", start=start, end=start + WEEK, rows=400, labelled=400,
            model_version="1", state=state, alarm=alarm, statistic=5.0, threshold=None if state == "spent" else 3.0,
            budget_spent=0.0, verdict="inspect" if value else "healthy", figures=figures,
            findings=[found] if value else [], details=details, report=None, at=self.at(week),
        )  # fmt: skip
        assert _record(self.context, outcome, scan=None)

    def at(self, week: int, hours: float = 0.0) -> datetime:
        return START + (week + 1) * WEEK + timedelta(hours=hours)

    def follow(self, week: int, hours: float = 0.0) -> None:
        for _ in range(2):  # the second time must add nothing
            follow_incidents(self.context, now=self.at(week, hours))

    def told(self) -> list[str]:
        """States of all messages, in the order in which they went out to the file."""
        deliver_alerts(self.context)
        path = outbox_of(self.context).folder / "alerts.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line)["state"] for line in lines]

    def key(self) -> str:
        return all_incidents(self.context.store)[-1].key


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    return Plant(tmp_path / "workspace")


@pytest.fixture
def alarmed(plant: Plant) -> Plant:
    plant.look(0, 1.0)
    plant.look(1, 2.0, alarm=True, value="M07")
    plant.follow(1)
    return plant


def softad(plant: Plant, *words: str) -> Any:
    return CliRunner().invoke(app, [*words, "--config", str(plant.config), "--workspace", str(plant.folder), "--json"])


# -- the life of an incident ------------------------------------------------------------------------------------------


def test_one_cause_is_one_thread_and_no_message_a_week(alarmed: Plant) -> None:
    for week in range(2, 12):
        alarmed.look(week, 2.0, value="M07", state="spent")
        alarmed.follow(week)
    assert alarmed.told() == ["opened", "escalated"]
    assert len({each.key for each in all_incidents(alarmed.context.store)}) == 1
    listed = json.loads(softad(alarmed, "alerts", "list").stdout)["incidents"]
    assert [each["standing"] for each in listed] == ["escalated"]


def test_worse_another_place_back_and_bad_again(alarmed: Plant) -> None:
    for week, (times, value) in enumerate([(3.2, "M07"), (2.0, "M03"), (1.0, None), (1.0, None), (2.0, "M07"),
                                           (2.0, "M07"), (2.0, "M07")], start=2):  # fmt: skip
        alarmed.look(week, times, value=value, state="spent")
        alarmed.follow(week)
    assert alarmed.told() == ["opened", "updated", "escalated", "updated-2", "recovered", "updated-3"]
    incident = find_incident(alarmed.context.store, alarmed.key())
    assert (incident.value, incident.value_now, incident.places_told) == ("M07", "M07", ("machine=M03",))
    shown = json.loads(softad(alarmed, "alerts", "show", incident.key).stdout)
    assert [each["state"] for each in shown["thread"]] == alarmed.told()
    assert all(at for each in shown["thread"] for at in each["channels"].values())


def test_nobody_answers_then_somebody_looks_then_nobody_again(alarmed: Plant) -> None:
    key = alarmed.key()
    alarmed.follow(1, hours=23)
    assert alarmed.told() == ["opened"]
    alarmed.follow(1, hours=24)
    alarmed.follow(1, hours=90)
    assert alarmed.told() == ["opened", "escalated"]
    for _ in range(2):
        see_incident(alarmed.context, key, actor="aiko", now=alarmed.at(1, hours=100))
    assert find_incident(alarmed.context.store, key).standing == "acknowledged"
    alarmed.follow(1, hours=123)
    assert alarmed.told() == ["opened", "escalated", "seen"]
    alarmed.follow(1, hours=124)
    alarmed.follow(1, hours=999)
    assert alarmed.told() == ["opened", "escalated", "seen", "escalated-2"]
    assert [entry.actor for entry in ledger.read(alarmed.context.store, action="incident.seen")] == ["aiko"]
    answer_incident(alarmed.context, key, answer="repaired", at=None, actor="ken", now=alarmed.at(9))
    alarmed.follow(40)
    assert alarmed.told()[-1] == "acknowledged"
    with pytest.raises(BadConfig, match=r"answered before \(repaired.*, by ken\)"):
        see_incident(alarmed.context, key, actor="aiko", now=alarmed.at(10))


def test_a_recovery_after_the_repair_is_told_though_the_incident_is_closed(alarmed: Plant) -> None:
    key = alarmed.key()
    repaired_at = START + 3 * WEEK
    answer_incident(alarmed.context, key, answer="repaired", at=repaired_at, actor="aiko", now=alarmed.at(2))
    change_incident(
        alarmed.context, key, lambda one: one.closed(alarmed.at(2), reason="repaired"), event="closed",
        now=alarmed.at(2), tell="closed",
    )  # fmt: skip
    alarmed.look(2, 1.0, state="spent")  # before the repair: it does not count
    for week in (3, 4, 5):
        alarmed.look(week, 1.0)
        alarmed.follow(week)
        assert ("recovered" in alarmed.told()) is (week >= 4)
    assert alarmed.told() == ["opened", "acknowledged", "closed", "recovered"]


def test_parts_of_one_window_in_two_lives_are_two_incidents(alarmed: Plant) -> None:
    result = softad(alarmed, "alerts", "close", alarmed.key(), "--reason", "lamp")
    assert result.exit_code == 0, result.output
    alarmed.look(1, 2.5, alarm=True, value="M07")
    alarmed.follow(2)
    assert [each.key for each in all_incidents(alarmed.context.store)] == ["line-a-2026-W03", "line-a-2026-W03-2"]
    assert alarmed.told().count("opened") == 2


# -- races and deaths -------------------------------------------------------------------------------------------------


def test_an_answer_given_while_a_model_is_trained_is_not_lost(alarmed: Plant) -> None:
    context, key = alarmed.context, alarmed.key()
    before = find_incident(context.store, key)  # what a training of an hour has read at its beginning
    answer_incident(context, key, answer="new-normal", at=None, actor="aiko", now=alarmed.at(1, 1))
    change_incident(
        context, key, lambda now: now.with_challenger("2", held=now.answer is None), event="challenger",
        now=alarmed.at(1, 1),
    )  # fmt: skip
    after = find_incident(context.store, key)
    assert (before.answer, after.answer, after.challenger_version, after.held) == (None, "new-normal", "2", False)


def test_two_processes_that_change_it_at_once_both_count(alarmed: Plant) -> None:
    context, key = alarmed.context, alarmed.key()
    other = Context(context.settings, context.workspace)
    calls = []

    def change(current: Any) -> Any:
        if not calls:  # between our reading and our writing the other one writes
            calls.append(1)
            change_incident(other, key, lambda one: one.seen(actor="ken", at=START), event="seen", now=START)
        return current.with_challenger("2", held=True)

    change_incident(context, key, change, event="challenger", now=START)
    incident = find_incident(context.store, key)
    assert (incident.seen_by, incident.challenger_version) == ("ken", "2")


def dying(real: Callable[..., Any], number: int, *, after: bool) -> Callable[..., Any]:
    """`real`, that dies at its call of this number, right before or right after its work."""
    calls: list[int] = []

    def watched(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        result = real(*arguments, **named) if after or len(calls) <= number else None
        if len(calls) > number:
            raise KeyboardInterrupt
        return result

    return watched


@pytest.mark.parametrize("where", ["flows.incidents._append", "monitoring.outbox._write"])
def test_a_death_at_any_write_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Die at the first write, then at the second, and so on; after each death the same is done again."""
    module, name = where.rsplit(".", 1)
    real = getattr(__import__(module, fromlist=[name]), name)

    def story(plant: Plant, step: Callable[[Callable[[], Any]], None]) -> None:
        plant.look(0, 1.0)
        weeks = [(2.0, "M07", "alarm"), (3.0, "M07", "spent"), (1.0, None, "spent"), (1.0, None, "spent")]
        for week, (times, value, state) in enumerate(weeks, start=1):
            plant.look(week, times, alarm=state == "alarm", value=value, state=state)
            step(lambda week=week: follow_incidents(plant.context, now=plant.at(week)))
            step(lambda: deliver_alerts(plant.context))

    undisturbed = Plant(tmp_path / "undisturbed")
    story(undisturbed, lambda work: work())
    expected = undisturbed.told()
    assert expected == ["opened", "updated", "escalated", "recovered"]
    for after in (False, True):  # right before the write, and right after it
        plant = Plant(tmp_path / f"disturbed-{after}")
        deaths = 0

        def disturbed(work: Callable[[], Any], after: bool = after) -> None:
            nonlocal deaths
            for number in range(100):
                monkeypatch.setattr(where, dying(real, number, after=after))
                try:
                    work()
                    return
                except KeyboardInterrupt:
                    deaths += 1
                finally:
                    monkeypatch.setattr(where, real)

        story(plant, disturbed)
        assert deaths >= 3
        assert plant.told() == expected
        [here], [there] = all_incidents(plant.context.store), all_incidents(undisturbed.context.store)
        assert here == there


def test_two_models_in_one_outbox_are_told_apart(tmp_path: Path) -> None:
    plants = [Plant(tmp_path / "workspace", name=name) for name in ("line-a", "line-b")]
    for plant in plants:
        plant.look(0, 1.0)
        plant.look(1, 2.0, alarm=True, value="M07")
    for plant in plants:
        plant.follow(1)
    assert [plant.told() for plant in plants] == [["opened"], ["opened"]]
    assert plants[0].key() != plants[1].key()
    messages = list((tmp_path / "workspace" / "outbox" / "alerts").glob("*/*.json"))
    assert len({json.loads(path.read_text())["id"] for path in messages}) == len(messages) == 2


# -- a watch that goes by ---------------------------------------------------------------------------------------------


def test_a_watch_that_went_by_is_told_until_a_person_begins_a_new_one(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "workspace", windows=3)
    for week in range(2):
        plant.look(week, 1.0)
        plant.follow(week)
    assert plant.told() == []
    refused = softad(plant, "alerts", "renew")
    assert refused.exit_code == 4
    assert "still goes on (2 of 3 windows, no alarm)" in refused.output
    plant.look(2, 1.0)
    plant.follow(2)
    assert plant.told() == ["ended"]
    plant.look(3, 1.0, state="spent")
    plant.follow(3)
    assert plant.told() == ["ended", "ended-escalated"]
    renewed = softad(plant, "alerts", "renew", "--by", "aiko", "--reason", "line checked")
    assert renewed.exit_code == 0, renewed.output
    life = current_life(plant.context.store)
    assert life is not None and (life.name, life.reason, life.model_version) == ("life-0002", "line checked", "1")
    begun = ledger.read(plant.context.store, action="life.started")[-1]
    assert (begun.actor, begun.details["reason"]) == ("aiko", "line checked")
    plant.follow(4)
    assert plant.told() == ["ended", "ended-escalated"]
    assert softad(plant, "alerts", "renew").exit_code == 4
    # The page names the day on which the model was put to use, not the day of the new watch.
    at = plant.at(0)
    ledger.enter(plant.context.store, key="moved", actor="gates", action=MOVED, subject="1", details={}, at=at)
    assert life.started_at > at
    assert _in_use_since(ledger.read(plant.context.store), life) == at


def test_a_watch_that_an_alarm_ended_is_not_begun_anew_beside_the_incident(alarmed: Plant) -> None:
    from flows.errors import Refused

    with pytest.raises(Refused, match=r"ended with an alarm.*softad alerts show line-a-2026-W03"):
        renew_watch(alarmed.config, alarmed.folder, reason="x", by="aiko")
    alarmed.look(2, 1.0, state="spent")
    alarmed.follow(2)
    assert "ended" not in alarmed.told()


# -- runs that fail ---------------------------------------------------------------------------------------------------


def test_a_run_that_fails_is_told_once_a_cause_and_once_when_it_works(plant: Plant) -> None:
    context = plant.context
    for tick in range(5):
        with pytest.raises(BadInput), told_when_it_fails(context, "cycle", "score", now=plant.at(0, tick)):
            raise BadInput("a.csv: column 'x' is gone; export it again")
    with pytest.raises(ZeroDivisionError), told_when_it_fails(context, "cycle", "monitor", now=plant.at(0, 6)):
        _ = 1 / 0
    assert [state.split("-")[:2] for state in plant.told()] == [["failed", "score"], ["failed", "monitor"]]
    for _ in range(2):
        note_success(context, "cycle", now=plant.at(0, 7))
    assert plant.told()[2:] == ["works"]
    with pytest.raises(BadInput), told_when_it_fails(context, "cycle", "score", now=plant.at(1)):
        raise BadInput("again")
    assert len(plant.told()) == 4, "after it worked, the same failure is news"


def test_a_service_that_is_away_for_one_run_is_not_told(plant: Plant) -> None:
    away = Unavailable("MLflow does not answer; start it")
    assert not note_failure(plant.context, "cycle", "score", away, now=plant.at(0))
    assert not note_success(plant.context, "cycle", now=plant.at(0, 1))
    assert plant.told() == []
    for tick in range(3):
        note_failure(plant.context, "cycle", "score", away, now=plant.at(1, tick))
    assert len(plant.told()) == 1


def test_the_words_of_a_library_are_not_sent_since_they_may_hold_a_password(plant: Plant) -> None:
    with pytest.raises(RuntimeError), told_when_it_fails(plant.context, "cycle", "score", now=plant.at(0)):
        raise RuntimeError("postgresql://me:T0pSecret@db is away")
    assert len(plant.told()) == 1
    written = (outbox_of(plant.context).folder / "alerts.jsonl").read_text()
    assert "T0pSecret" not in written and "RuntimeError" in written


def test_a_death_between_the_note_and_the_message_loses_none(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    error = BadInput("a.csv is empty; export it again")
    with monkeypatch.context() as patch:
        patch.setattr("flows.troubles.alert_trouble", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            note_failure(plant.context, "cycle", "score", error, now=plant.at(0))
    note_failure(plant.context, "cycle", "score", error, now=plant.at(0, 1))
    assert len(plant.told()) == 1
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            note_success(plant.context, "cycle", now=plant.at(0, 2))
    note_success(plant.context, "cycle", now=plant.at(0, 3))
    assert len(plant.told()) == 2
