"""How labels come to the scan: at several ages, chosen with known or unknown probabilities, and by lots."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows.alerting import outbox_of
from flows.context import Context
from flows.errors import BadConfig
from flows.following import follow_incidents
from flows.ingest import ingest_file
from flows.lives import begin_life, current_life
from flows.monitor import WindowOutcome, close_windows, outcomes, scan_options
from flows.reports import rebuild_report
from flows.settings import Settings
from flows.units import with_units
from softad.simulation import InspectionLine

SMALL = {"min_reference_rows": 200, "min_window_rows": 30, "html_reports": 0, "relevant_effect": 1.15}


class Watch:
    """A trained plant whose life begins without a reference: windows go to it until there are rows enough."""

    def __init__(self, plant: Any, line_config: Callable[..., Settings], **sections: Any) -> None:
        monitoring = SMALL | sections.pop("monitoring", {})
        self.plant = plant
        self.plant.settings = line_config(monitoring=monitoring, **sections)
        self.context = Context(self.plant.settings, plant.workspace)
        nothing = pd.DataFrame({"_id": [], "loss": [], "window": []}).astype({"_id": str, "loss": float})
        begin_life(
            plant.store, model_version="1", reference=with_units(plant.store, self.plant.settings, nothing),
            after_seq=plant.rows - 1, min_reference_rows=200, scan_options=scan_options(self.plant.settings, 150),
            reason="promotion", cause="champion:1", actor="softad", now=plant.after(0),
        )  # fmt: skip

    def end(self, week: int) -> datetime:
        return self.plant.after(week) - timedelta(days=4)

    def file(self, name: str, labels: pd.DataFrame, *, now: datetime) -> None:
        path: Path = self.plant.workspace.inbox / "labels" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        labels.to_csv(path, index=False)
        report = ingest_file(path, self.plant.settings, self.plant.store, self.plant.workspace, now=now)
        assert report.accepted + report.duplicates == len(labels), report.sentences

    def judge(self, now: datetime) -> list[WindowOutcome]:
        return close_windows(self.context, now=now)

    def scan(self) -> dict[str, Any]:
        """The newest state that was kept."""
        kept = self.plant.store.read("windows", columns=["scan"], where="scan IS NOT NULL")["scan"]
        states = [json.loads(text) for text in kept] or [current_life(self.plant.store).scan]
        return max(states, key=lambda state: state["position"])


def messages(context: Context) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in outbox_of(context).folder.glob("*.json")]


def test_each_window_is_looked_at_once_at_each_label_age(trained: Any, line_config: Callable[..., Settings]) -> None:
    watch = Watch(trained, line_config, monitoring={"label_age_days": [10, 2]})
    for week in range(1, 6):
        watch.plant.add(week, labels=False)
        labels = watch.plant.line.week(week).labels
        late = np.arange(len(labels)) % 3 == 0
        given = [watch.end(week) + timedelta(days=9.0 if each else 1.0) for each in late]
        watch.plant.label(labels.assign(labelled_at=given), key=f"l{week}")
    reference = watch.judge(watch.end(5) + timedelta(days=1))
    assert [(one.window, one.state, one.age) for one in reference][:2] == [
        (watch.plant.line.week_key(week), "reference", 10.0) for week in (1, 2)
    ]
    young, old = watch.scan()["courses"]
    assert (young["age"], old["age"]) == (2.0, 10.0)
    assert young["reference"]["rows"] < 0.75 * old["reference"]["rows"], "labels of at most two days"
    later = watch.judge(watch.end(5) + timedelta(days=15))  # rows came 4 days after the week
    table = watch.plant.store.read(
        "windows", where="state NOT IN ('reference', 'too_few_labels')", order='"window", "age"'
    )
    looks = list(zip(table["window"], table["age"], table["labelled"], strict=True))
    last = watch.plant.line.week_key(5)
    (_, first_age, few), (_, second_age, all_of_them) = [look for look in looks if look[0] == last]
    assert (first_age, second_age) == (2.0, 10.0) and few < 0.75 * all_of_them
    assert len(table) == len({(window, age) for window, age, _ in looks}), "once at each age"
    reports = {path.name for path in watch.plant.workspace.reports.glob("*.json")}
    assert {f"life-0001-{last}-2d.json", f"life-0001-{last}-10d.json"} <= reports
    assert {one.window for one in later} and watch.judge(watch.end(5) + timedelta(days=16)) == []
    assert [one.window for one in outcomes(watch.context)].count(last) == 1, "the page shows a window once"


def selected(watch: Watch, week: int) -> pd.DataFrame:
    """Every defect, and one good part in five."""
    labels = watch.plant.line.week(week).labels
    chance = np.where(labels["label"] == watch.plant.settings.task.normal, 0.2, 1.0)
    chosen = np.random.default_rng(week).random(len(labels)) < chance
    return labels.assign(inclusion_probability=chance)[chosen]


@pytest.mark.parametrize(
    ("selection", "column", "state"),
    [("all", True, "ok"), ("all", False, "alarm"), ("probability", True, "ok"),
     ("probability", False, "labels_not_representative"), ("unknown", True, "labels_not_representative")],
)  # fmt: skip
def test_labels_that_are_chosen_on_purpose(
    trained: Any, line_config: Callable[..., Settings], selection: str, column: bool, state: str
) -> None:
    """The promise holds with known probabilities; without them many suspicious parts look like a change."""
    watch = Watch(trained, line_config, monitoring={"label_selection": selection})
    plant = watch.plant
    plant.line = InspectionLine(rows_per_week=600)
    for week in (1, 2):
        plant.add(week, labels=False)
        labels = plant.line.week(week).labels.assign(inclusion_probability=1.0)
        watch.file(f"w{week}.csv", labels, now=plant.after(week))
        watch.judge(plant.after(week))
    plant.add(3, labels=False)
    labels = selected(watch, 3)
    watch.file("w3.csv", labels if column else labels.drop(columns="inclusion_probability"), now=plant.after(3))
    outcome = watch.judge(plant.after(3) + timedelta(days=3))[-1]
    assert (outcome.window, outcome.state) == (plant.line.week_key(3), state)
    if state == "ok":
        report = json.loads((plant.workspace.reports / str(outcome.report)).read_text())
        assert report["scan"]["rows"] < outcome.labelled, "thinned"
    follow_incidents(watch.context, now=plant.after(3) + timedelta(days=3))
    follow_incidents(watch.context, now=plant.after(3) + timedelta(days=4))
    told = [message["state"] for message in messages(watch.context)]
    assert told == {"ok": [], "alarm": ["opened"]}.get(state, ["unwatched"])
    if state == "labels_not_representative":
        [message] = messages(watch.context)
        assert not outcome.alarm and outcome.threshold is None and "inclusion_probability" in message["body"]
        assert (outcome.verdict, outcome.details["reason"]) == ("too_few_labels", state)


def test_a_label_sent_again_with_its_probability_is_news(trained: Any, line_config: Callable[..., Settings]) -> None:
    watch = Watch(trained, line_config)
    watch.plant.add(1, labels=False)
    labels, now = selected(watch, 1), watch.plant.after(1)
    watch.file("plain.csv", labels.drop(columns="inclusion_probability"), now=now)
    watch.file("again.csv", labels, now=now + timedelta(days=1))
    watch.file("plain_once_more.csv", labels.drop(columns="inclusion_probability").iloc[::-1], now=now)
    ids = pd.DataFrame({"_id": labels["id"], "loss": 0.0, "window": "w"})
    told = with_units(watch.plant.store, watch.plant.settings, ids)
    assert told["_probability"].tolist() == labels["inclusion_probability"].tolist()
    assert told["_age"].max() < 3, "as old as the first one was"


def test_lots_are_what_is_judged(trained: Any, line_config: Callable[..., Settings]) -> None:
    watch = Watch(trained, line_config, data={"lot": ["machine", "_day"]}, training={"split": {"by": "time"}})
    plant = watch.plant
    plant.add(1, 2, 3, 4)
    watch.judge(plant.after(4))
    frame = plant.line.week(4).inspections
    outcome = outcomes(watch.context)[-1]
    assert outcome.state == "ok"
    days = pd.to_datetime(frame["time"], utc=True).dt.tz_convert(plant.settings.data.time_zone).dt.date
    assert 0 < outcome.details["lots"] <= (frame["machine"] + days.astype(str)).nunique() < len(frame)
    assert watch.scan()["courses"][0]["reference"]["lots"] >= 50


def test_few_lots_are_gathered_until_there_are_enough(trained: Any, line_config: Callable[..., Settings]) -> None:
    watch = Watch(trained, line_config, data={"lot": ["shift", "_day"]}, training={"split": {"by": "time"}})
    watch.plant.add(1, 2, 3, 4)
    states = [one.state for one in watch.judge(watch.plant.after(4))]
    assert states == ["reference", "reference", "reference", "ok"], "21 lots a week, 50 are needed"


def test_a_machine_is_no_lot(trained: Any, line_config: Callable[..., Settings]) -> None:
    watch = Watch(trained, line_config, data={"lot": ["machine"]}, training={"split": {"by": "time"}})
    ids = watch.plant.store.read("inspections", columns=["_id"])["_id"]
    weeks = pd.Series([f"W{number % 3}" for number in range(len(ids))])
    with pytest.raises(BadConfig, match=r"data\.lot: machine names no lots"):
        with_units(watch.plant.store, watch.plant.settings, pd.DataFrame({"_id": ids, "loss": 1.0, "window": weeks}))


def test_a_pruned_report_is_built_again_with_the_verdict_that_was_given(
    trained: Any, line_config: Callable[..., Settings], tmp_path: Path
) -> None:
    watch = Watch(trained, line_config, monitoring={"html_reports": 1})
    watch.plant.add(1, 2, 3, 4)
    watch.judge(watch.plant.after(4))
    first, second = (one for one in outcomes(watch.context) if one.report is not None)
    reports = watch.plant.workspace.reports
    assert [path.stem for path in reports.glob("*.html")] == [f"life-0001-{second.window}"], "the older one was pruned"
    before = (reports / str(first.report)).read_bytes()
    page = rebuild_report(watch.context, first.window, to=tmp_path / "again.html")
    text = page.read_text(encoding="utf-8")
    sentence = json.loads(before)["verdict"]["sentence"]
    assert sentence in text and len(text) > 1_000_000
    assert (reports / str(first.report)).read_bytes() == before and len(list(reports.glob("*.html"))) == 1
    assert rebuild_report(watch.context, second.window).name == f"life-0001-{second.window}.html"
    # A label that was corrected after the look changes nothing: the look did not know it.
    labels = watch.plant.line.week(3).labels.iloc[:40].assign(label="defect")
    watch.file("late.csv", labels, now=watch.plant.after(6))
    assert rebuild_report(watch.context, first.window, to=tmp_path / "once_more.html").exists()
    with pytest.raises(BadConfig, match="there is no window '2031-W01'; there are 2026-W"):
        rebuild_report(watch.context, "2031-W01")
    with pytest.raises(BadConfig, match="has no report: it went to the reference"):
        rebuild_report(watch.context, outcomes(watch.context)[0].window)
