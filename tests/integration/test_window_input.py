"""Windows as plants have them: signs before labels, labels of unknown parts, two models in one week, wrong clocks."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from flows.context import Context, open_context
from flows.cycle import run_steps
from flows.demo import after, drop, write_demo_config
from flows.early_warning import early_signs
from flows.monitor import close_windows, outcomes
from flows.page import page_data
from softad.simulation import InspectionLine

CONFIG: dict[str, dict[str, Any]] = {
    "training": {"epochs": 12, "patience": 4, "hidden": [32], "thetas": [0.2], "batch_size": 128,
                 "learning_rate": 0.01},
    "monitoring": {"min_reference_rows": 200, "html_reports": 0},
    "ingest": {"settle_seconds": 0},
}  # fmt: skip
LINE = InspectionLine(seed=1, rows_per_week=600)


def context_of(workspace: Path) -> Context:
    return open_context(None, workspace)


@pytest.fixture(scope="module")
def watched_once(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Path:
    workspace = tmp_path_factory.mktemp("window-input") / "workspace"
    path = write_demo_config(workspace)
    document = yaml.safe_load(path.read_text())
    for name, values in CONFIG.items():
        document[name] = document.get(name, {}) | values
    path.write_text(yaml.safe_dump(document))
    (workspace / "mlflow").mkdir()
    shutil.copy(empty_mlflow, workspace / "mlflow" / "mlflow.db")
    for week in (-2, -1, 0):
        drop(context_of(workspace), LINE, week)
    report = run_steps(context_of(workspace), now=after(LINE, 0))
    assert [action.promoted for action in report.actions] == [True], report.notes
    return workspace


@pytest.fixture
def workspace(watched_once: Path, tmp_path: Path) -> Path:
    shutil.copytree(watched_once, tmp_path / "workspace")
    return tmp_path / "workspace"


def put(workspace: Path, name: str, frame: pd.DataFrame) -> None:
    path = workspace / "inbox" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)


def test_a_sign_comes_before_the_labels_and_is_compared_with_them(workspace: Path) -> None:
    moved = LINE.week(1).inspections
    moved["temperature_c"] = pd.to_numeric(moved["temperature_c"], errors="coerce") + 8
    put(workspace, "week.csv", moved)
    context = context_of(workspace)
    assert run_steps(context, now=after(LINE, 1)).outcomes == [], "no label has come"
    [sign] = early_signs(context)
    assert (sign.warns, sign.labelled, sign.rows >= 590) == (True, 0, True)
    assert "temperature_c" in {one["column"] for one in sign.signs}
    [line] = page_data(context, now=after(LINE, 1)).early
    assert (line.shown, line.changed, line.verdict) == (True, None, None)
    put(workspace, "labels/week.csv", LINE.week(1).labels)
    [outcome] = run_steps(context_of(workspace), now=after(LINE, 1)).outcomes
    [line] = page_data(context_of(workspace), now=after(LINE, 1)).early
    assert line.changed is (outcome.verdict in {"inspect", "retrain"}) and line.verdict == outcome.verdict
    assert line.measured == outcome.figures["mean"]["value"]
    assert "the early sign agreed with the judgements in" in (workspace / "page" / "demo" / "index.html").read_text()
    assert len(early_signs(context_of(workspace))) == 1, "looked at once"


def test_a_quiet_week_shows_no_sign(workspace: Path) -> None:
    drop(context_of(workspace), LINE, 1)
    run_steps(context_of(workspace), now=after(LINE, 1))
    [sign] = early_signs(context_of(workspace))
    assert not sign.warns and sign.signs == []
    assert sign.predicted_loss == pytest.approx(sign.reference_loss, rel=0.5)


def test_labels_of_parts_that_never_came_are_kept_counted_and_shown(workspace: Path) -> None:
    week = LINE.week(1)
    put(workspace, "week.csv", week.inspections)
    put(
        workspace, "labels/strangers.csv", week.labels.assign(id=[f"stranger-{row}" for row in range(len(week.labels))])
    )
    context = context_of(workspace)
    run_steps(context, now=after(LINE, 1))
    [outcome] = run_steps(context, now=after(LINE, 1) + timedelta(days=3)).outcomes
    assert (outcome.verdict, outcome.labelled, outcome.alarm) == ("too_few_labels", 0, False)
    now = after(LINE, 1) + timedelta(days=3)
    assert page_data(context, now=now).received.labels_without_row == len(week.labels)
    assert (
        "judgements of parts in quarantine or not delivered" in (workspace / "page" / "demo" / "index.html").read_text()
    )
    # Their parts come at last: the labels were waiting for them.
    strangers = week.inspections.assign(id=[f"stranger-{row}" for row in range(len(week.inspections))])
    put(workspace, "late.csv", strangers)
    run_steps(context_of(workspace), now=now)
    left = page_data(context_of(workspace), now=now).received.labels_without_row
    assert left <= 10, "all but those whose part is in quarantine"


def test_a_week_that_two_models_predicted_is_split(workspace: Path) -> None:
    from flows.ingest import ingest_inbox
    from flows.retrain import retrain
    from flows.score import score_rows
    from flows.store import current_rows

    context, now = context_of(workspace), after(LINE, 1)
    parts = (context.store, context.tracker, context.settings, context.workspace)
    other = retrain(*parts, now=after(LINE, 0), reason="by hand").version
    drop(context, LINE, 1)
    ingest_inbox(context.settings, context.store, context.workspace, now=now)
    known = context.store.read("predictions", columns=["_id"])["_id"]
    fresh = current_rows(context.store, columns=["_id"])
    told = fresh.loc[~fresh["_id"].isin(known), "_id"].iloc[:200]
    # Early in the week another model was in use.
    score_rows(*parts, now=now - timedelta(days=5), ids=told, version=other)
    run_steps(context, now=now)
    [outcome] = outcomes(context)
    versions = outcome.details["versions"]
    assert [one["version"] for one in versions] == ["1", other]
    assert 150 < versions[1]["rows"] <= 200 and versions[0]["rows"] + versions[1]["rows"] == outcome.labelled
    assert outcome.model_version == "1", "alarm and figures rest on the champion alone"
    [point] = page_data(context, now=now).points
    assert [line.version for line in point.versions] == ["1", other]


def test_clocks_that_jump_are_counted_and_judge_nothing_twice(workspace: Path) -> None:
    week = LINE.week(1)
    frame = week.inspections
    times = pd.to_datetime(frame["time"])
    ahead, behind = frame.index < 30, (frame.index >= 30) & (frame.index < 50)
    frame["time"] = times.where(~ahead, times + pd.Timedelta(days=3650)).where(~behind, times - pd.Timedelta(days=3650))
    frame["time"] = frame["time"].astype(str)
    put(workspace, "week.csv", frame)
    put(workspace, "labels/week.csv", week.labels)
    now = after(LINE, 1)
    report = run_steps(context_of(workspace), now=now)
    by_window = {one.window: one for one in report.outcomes}
    key = LINE.week_key(1)
    assert by_window[key].state in {"ok", "reference"} and not by_window[key].alarm
    others = [one for name, one in by_window.items() if name != key]
    assert all(one.verdict == "too_few_labels" and one.labelled <= 20 for one in others), "a decade ago: a few rows"
    received = page_data(context_of(workspace), now=now).received
    assert received.ahead == 30 and received.late == 0
    # A file of the judged week comes a day later: kept and counted, the window is not judged again.
    more = LINE.week(1).inspections.assign(id=lambda one: "again-" + one["id"].astype(str)).iloc[:40]
    put(workspace, "more.csv", more)
    later = run_steps(context_of(workspace), now=now + timedelta(days=1))
    assert key not in {one.window for one in later.outcomes}
    assert page_data(context_of(workspace), now=now + timedelta(days=1)).received.late >= 35
    # And a present that lies a year back judges nothing.
    assert run_steps(context_of(workspace), now=now - timedelta(days=365)).outcomes == []


@pytest.mark.parametrize("harm", [False, True])
def test_a_changed_threshold_changes_report_verdict_and_event_alike(workspace: Path, harm: bool) -> None:
    """The event is asked for by an open incident, and an incident is opened by the window's alarm alone."""
    import json

    from flows.incidents import all_incidents, open_new_incidents
    from flows.ingest import ingest_inbox
    from flows.respond import pending
    from flows.score import score_rows

    path = workspace / "config.yaml"
    document = yaml.safe_load(path.read_text())
    document["monitoring"]["relevant_effect"] = 1.0
    path.write_text(yaml.safe_dump(document))
    context = context_of(workspace)
    drop(context, LINE, 1)
    now = after(LINE, 1)
    ingest_inbox(context.settings, context.store, context.workspace, now=now)
    score_rows(context.store, context.tracker, context.settings, context.workspace, now=now)
    [outcome] = close_windows(context, now=now, threshold=-50.0 if harm else 1000.0)
    report = json.loads((context.workspace.reports / str(outcome.report)).read_text())
    [status] = [each["status"] for each in report["tests"]]
    open_new_incidents(context, outcomes(context), now=now)
    incidents = all_incidents(context.store)
    assert (status == "FAIL", outcome.alarm, len(incidents) == 1) == (harm, harm, harm)
    assert report["verdict"]["kind"] == outcome.verdict
    assert (outcome.verdict in {"inspect", "retrain"}) is harm
    if harm:
        assert incidents[0].verdict == outcome.verdict and incidents[0].window == outcome.window
        assert pending(context, incidents[0]) in {"train", "hold"}
