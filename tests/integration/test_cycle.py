"""One cycle on real tables and a real registry: what it does, what it waits for, and that again is nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from flows import ledger
from flows.cli import app
from flows.context import Context, open_context
from flows.cycle import CycleReport, run_steps
from flows.demo import after, drop, write_demo_config
from flows.errors import Refused, Unavailable
from flows.monitor import _record, outcomes
from flows.services import free_port
from flows.summary import cycle_document, status_document, status_lines
from monitoring.input_warnings import InputWarnings, input_sentence
from softad.simulation import InspectionLine

SMALL: dict[str, dict[str, Any]] = {
    "training": {"epochs": 12, "patience": 4, "hidden": [32], "thetas": [0.2], "batch_size": 128,
                 "learning_rate": 0.01},
    "monitoring": {"min_reference_rows": 200, "html_reports": 0},
}  # fmt: skip


@dataclass
class Line:
    """A workspace, the simulated line that fills its inbox, and cycles on it."""

    workspace: Path
    line: InspectionLine

    @property
    def context(self) -> Context:
        return open_context(None, self.workspace)

    def configure(self, **sections: dict[str, Any]) -> None:
        path = write_demo_config(self.workspace)
        document = yaml.safe_load(path.read_text())
        for name, values in sections.items():
            document[name] = document.get(name, {}) | values
        path.write_text(yaml.safe_dump(document))

    def put(self, name: str, frame: pd.DataFrame) -> None:
        """A file in the inbox that nobody writes to any more."""
        path = self.workspace / "inbox" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(path, index=False)

    def rows(self, week: int) -> None:
        self.put(f"{self.line.week_key(week)}.csv", self.line.week(week).inspections)

    def labels(self, week: int) -> None:
        self.put(f"labels/{self.line.week_key(week)}.csv", self.line.week(week).labels)

    def both(self, *weeks: int) -> None:
        for week in weeks:
            drop(self.context, self.line, week)

    def cycle(self, week: int, days: int = 0) -> CycleReport:
        return run_steps(self.context, now=after(self.line, week) + timedelta(days=days))


@pytest.fixture
def new_line(tmp_path: Path, empty_mlflow: Path) -> Callable[..., Line]:
    def make(rows: int = 600, **sections: dict[str, Any]) -> Line:
        made = Line(tmp_path / "workspace", InspectionLine(seed=1, rows_per_week=rows))
        made.configure(**{**SMALL, "ingest": {"settle_seconds": 0}, **sections})
        (made.workspace / "mlflow").mkdir()
        shutil.copy(empty_mlflow, made.workspace / "mlflow" / "mlflow.db")
        return made

    return make


@pytest.fixture(scope="module")
def watched_once(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Line:
    """Three weeks of history and their champion; copy it, do not change it."""
    made = Line(tmp_path_factory.mktemp("watched") / "workspace", InspectionLine(seed=1, rows_per_week=600))
    made.configure(**SMALL, ingest={"settle_seconds": 0})
    (made.workspace / "mlflow").mkdir()
    shutil.copy(empty_mlflow, made.workspace / "mlflow" / "mlflow.db")
    made.both(-2, -1, 0)
    report = made.cycle(0)
    assert [action.promoted for action in report.actions] == [True], report.notes
    return made


@pytest.fixture
def watched(watched_once: Line, tmp_path: Path) -> Iterator[Line]:
    """A copy of `watched_once`; MLflow's artifacts stay where they were."""
    shutil.copytree(watched_once.workspace, tmp_path / "workspace")
    yield Line(tmp_path / "workspace", watched_once.line)


def nothing_done(report: CycleReport) -> bool:
    return (report.ingests, report.outcomes, report.actions, report.scored, report.delivered) == ([], [], [], 0, 0)


# -- again is nothing -------------------------------------------------------------------------------------------------


def test_a_window_is_judged_once_and_the_same_cycle_again_writes_nothing(watched: Line) -> None:
    watched.both(1)
    first = watched.cycle(1)
    assert [(one.window, one.labelled > 500) for one in first.outcomes] == [(watched.line.week_key(1), True)]
    assert first.status == 0 and first.page is not None
    page = Path(first.page).read_text(encoding="utf-8")
    assert first.inputs.rows == first.scored == cycle_document(first)["inputs"]["rows"] > 0
    status = status_document(watched.context)
    assert (
        status["inputs"]["rows"] >= first.scored and first.inputs.columns.keys() <= status["inputs"]["columns"].keys()
    )
    said = input_sentence(InputWarnings(**status["inputs"]), "en")
    assert said and said in page and said in status_lines(status)
    version = watched.context.tracker.champion()
    for language in ("en", "ja"):
        assert f'<a class="{language}" href="card-{version}.{language}.html">' in page
        assert Path(first.page).with_name(f"card-{version}.{language}.html").exists()
    before, runs = watched.context.store.versions(), watched.context.tracker.client.search_runs(["1"])
    assert nothing_done(watched.cycle(1))
    assert watched.context.store.versions() == before
    assert len(watched.context.tracker.client.search_runs(["1"])) == len(runs)


def test_the_same_file_again_under_another_name_is_nothing(watched: Line) -> None:
    watched.both(1)
    watched.cycle(1)
    watched.put("once-more.csv", watched.line.week(1).inspections)
    counts = {table: watched.context.store.count(table) for table in ("inspections", "windows", "predictions")}
    report = watched.cycle(1)
    assert [one.status for one in report.ingests] == ["already"]
    assert (report.outcomes, report.scored) == ([], 0)
    assert {table: watched.context.store.count(table) for table in counts} == counts


# -- time -------------------------------------------------------------------------------------------------------------


def test_a_present_that_lies_before_the_labels_judges_nothing_and_costs_nothing(watched: Line) -> None:
    watched.both(1)
    early = watched.cycle(0)
    assert early.scored == early.ingests[0].accepted
    assert early.outcomes == []
    assert [one.window for one in watched.cycle(1).outcomes] == [watched.line.week_key(1)]
    assert nothing_done(watched.cycle(-10))


def test_windows_that_came_late_are_judged_in_their_order(watched: Line) -> None:
    watched.both(2, 1)
    assert [one.window for one in watched.cycle(2).outcomes] == [watched.line.week_key(1), watched.line.week_key(2)]


def test_a_window_without_labels_is_said_once_and_judged_when_they_come(watched: Line) -> None:
    watched.rows(1)
    assert watched.cycle(1).outcomes == [], "the rows came today, and their labels have three days"
    first = watched.cycle(1, days=3)
    assert [(one.verdict, one.labelled, one.alarm) for one in first.outcomes] == [("too_few_labels", 0, False)]
    assert watched.cycle(1, days=3).outcomes == []
    watched.labels(1)
    assert [one.verdict for one in watched.cycle(1, days=3).outcomes] == ["healthy"]
    [judged] = [one for one in outcomes(watched.context) if one.window == watched.line.week_key(1)]
    assert judged.labelled > 500
    assert watched.cycle(1, days=3).outcomes == []


@pytest.mark.parametrize("written_first", [0, 1])
def test_of_two_looks_in_one_moment_the_one_with_more_labels_counts(watched: Line, written_first: int) -> None:
    watched.both(1)
    watched.cycle(1)
    [look] = outcomes(watched.context)
    early = replace(look, window="2026-W40", labelled=0, state="too_few_labels")
    looks = [early, replace(early, labelled=500, state="ok")]
    for one in looks if written_first == 0 else reversed(looks):
        assert _record(watched.context, one, scan=None)
    assert [one.labelled for one in outcomes(watched.context) if one.window == "2026-W40"] == [500]


def test_labels_that_come_before_their_rows_wait_for_them(watched: Line) -> None:
    watched.labels(1)
    report = watched.cycle(1)
    assert [(one.kind, one.accepted) for one in report.ingests] == [("labels", len(watched.line.week(1).labels))]
    assert (report.outcomes, report.scored) == ([], 0)
    watched.rows(1)
    [outcome] = watched.cycle(1).outcomes
    assert outcome.labelled > 500


# -- nothing to learn from --------------------------------------------------------------------------------------------


def first_words(report: CycleReport) -> str:
    assert report.status == 3
    assert report.actions == []
    [note] = report.notes
    assert report.page is not None and Path(report.page).exists(), "the page says so too"
    return note


def test_an_empty_workspace(new_line: Callable[..., Line]) -> None:
    line = new_line()
    assert "no model yet" in first_words(line.cycle(0))
    before = line.context.store.versions()
    line.cycle(0)
    assert line.context.store.versions() == before


def test_fewer_rows_than_a_training_needs(new_line: Callable[..., Line]) -> None:
    line = new_line(rows=120)
    line.both(0)
    note = first_words(line.cycle(0))
    assert "120" in note and "200" in note
    line.both(-1)
    assert line.cycle(0).actions, "as soon as there are enough, without being asked"


def test_one_class_only(new_line: Callable[..., Line]) -> None:
    line = new_line(rows=300)
    line.rows(0)
    line.put("labels/all-ok.csv", line.line.week(0).labels.assign(label="ok"))
    assert "'ok'" in first_words(line.cycle(0))


def test_rows_without_any_label(new_line: Callable[..., Line]) -> None:
    line = new_line(rows=300)
    line.rows(0)
    report = line.cycle(0)
    assert "label" in first_words(report)
    assert report.scored == 0


# -- one thing goes wrong ---------------------------------------------------------------------------------------------


def test_a_file_that_is_refused_is_told_once_and_holds_nothing_else_up(watched: Line) -> None:
    watched.both(1)
    watched.put("broken.csv", pd.DataFrame({"id": ["x"], "nothing": [1]}))
    report = watched.cycle(1)
    assert report.status == 3
    assert len(report.outcomes) == 1, "the week's window is judged all the same"
    assert any("broken.csv" in note for note in report.notes)
    assert (watched.workspace / "inbox" / "broken.csv").exists()
    again = watched.cycle(1)
    assert again.delivered == 0
    told = (watched.workspace / "outbox" / "alerts" / "demo" / "alerts.jsonl").read_text()
    assert told.count("broken.csv") >= 1
    assert len(told.splitlines()) == 1


def test_a_registry_that_goes_away_in_the_middle_and_comes_back(
    new_line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = new_line()
    line.both(-2, -1, 0)
    monkeypatch.setenv("SOFTAD_CONFIG__TRACKING__URI", "http://127.0.0.1:9")
    with pytest.raises(Unavailable, match=r"^MLflow at http://127\.0\.0\.1:9 does not do its work") as caught:
        line.cycle(0)
    assert len(str(caught.value).splitlines()) == 1
    kept = line.context.store.count("inspections")
    assert kept == 1800 and line.context.store.count("predictions") == 0
    monkeypatch.delenv("SOFTAD_CONFIG__TRACKING__URI")
    report = line.cycle(0)
    assert [action.promoted for action in report.actions] == [True]
    assert (line.context.store.count("inspections"), report.scored) == (kept, kept)
    done = sorted(entry.action for entry in ledger.read(line.context.store))
    assert done == ["champion.set", "life.started", "promotion.decided"]


# -- one at a time ----------------------------------------------------------------------------------------------------

HOLD = """
import sys; from pathlib import Path; from flows.context import open_context
with open_context(None, Path(sys.argv[1])).workspace.lock("cycle"):
    print("held", flush=True); sys.stdin.readline()
"""


@pytest.fixture
def held_elsewhere(watched: Line) -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of a cycle."""
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(watched.workspace)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        yield other
    finally:
        other.kill()
        other.communicate()


def test_a_second_cycle_is_refused_until_the_first_is_dead(
    watched: Line, held_elsewhere: subprocess.Popen[str]
) -> None:
    watched.both(1)
    before = watched.context.store.versions()
    with pytest.raises(Refused, match="another cycle of demo is running"):
        watched.cycle(1)
    assert watched.context.store.versions() == before
    held_elsewhere.kill()
    held_elsewhere.wait()
    assert len(watched.cycle(1).outcomes) == 1


@pytest.mark.slow
def test_a_second_cycle_on_the_command_line_has_status_4(watched: Line, held_elsewhere: subprocess.Popen[str]) -> None:
    result = CliRunner().invoke(app, ["run", "--workspace", str(watched.workspace), "--json"])
    assert result.exit_code == 4, result.output
    assert "another cycle of demo is running" in json.loads(result.stdout)["error"]


@pytest.mark.slow
def test_what_is_said_and_what_prefect_keeps_of_a_failed_cycle_holds_no_secret(
    watched: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "canary-registry-word"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://softad:{canary}@127.0.0.1:{free_port()}")
    result = CliRunner().invoke(app, ["run", "--workspace", str(watched.workspace)])
    assert result.exit_code == 1, result.output
    assert "MLflow" in result.stderr and canary not in result.output + result.stderr
    # The registry's own address may stand in no file either: not in Prefect's database, its log, or the alert.
    places = [watched.workspace, Path(os.environ["PREFECT_HOME"])]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert any(path.name == "prefect.db" for path in files)
    assert [path.name for path in files if canary.encode() in path.read_bytes()] == []


def test_a_training_by_hand_is_refused_while_another_runs(watched: Line) -> None:
    with watched.context.workspace.lock("retrain"):
        result = CliRunner().invoke(app, ["retrain", "--workspace", str(watched.workspace), "--json"])
    assert result.exit_code == 4
    assert "another retrain of demo is running" in json.loads(result.stdout)["error"]


# -- incidents --------------------------------------------------------------------------------------------------------


def test_a_dead_process_between_reference_and_window_judges_no_row_against_itself(
    watched_once: Line, new_line: Callable[..., Line]
) -> None:
    """The reference was short; its last window came in, the scan began, and then the process died."""
    from flows.dataset import labelled_rows
    from flows.lives import current_life, extend_reference
    from flows.monitor import scan_options, with_losses
    from flows.units import with_units

    line = new_line(**{**SMALL, "monitoring": {"min_reference_rows": 800, "html_reports": 0}})
    line.both(-2, -1, 0)
    line.cycle(0)
    life = current_life(line.context.store)
    assert life is not None and life.scan is None, "415 held-out rows are fewer than 800"
    line.both(1)
    dead = line.cycle(0)
    assert dead.outcomes == []
    context = line.context
    rows = labelled_rows(context.store, context.settings, until=None)
    week = with_losses(context, rows[rows["window"] == line.line.week_key(1)], life.model_version)
    extend_reference(
        context.store, life, week[["_id", "loss"]], window=line.line.week_key(1), min_reference_rows=800,
        scan_options=scan_options(context.settings, len(week)), now=after(line.line, 1),
        units=partial(with_units, context.store, context.settings),
    )  # fmt: skip
    [outcome] = line.cycle(1).outcomes
    assert (outcome.state, outcome.alarm, outcome.statistic) == ("reference", False, None)


@pytest.mark.parametrize("words", [["--now", "tomorrow"], ["--weeks", "3"]])
def test_words_that_are_no_option_have_status_2(watched_once: Line, words: list[str]) -> None:
    assert CliRunner().invoke(app, ["run", "--workspace", str(watched_once.workspace), *words]).exit_code == 2
