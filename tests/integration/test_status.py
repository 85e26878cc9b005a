"""What `status`, `run` and `ingest` say to a person at the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from flows.context import Context
from flows.doctor import clock
from flows.retrain import retrain
from flows.summary import labels_ahead, status_document, status_lines
from softad.simulation import InspectionLine


def said(plant: Any, *words: str) -> tuple[int, str]:
    """Exit status, and standard output with its line breaks taken out."""
    done = CliRunner().invoke(app, [*words, "--workspace", str(plant.workspace.root)])
    return done.exit_code, " ".join(done.stdout.split())


@pytest.fixture
def plant(trained: Any) -> Any:
    """Three weeks of rows and a model, with its config in the workspace."""
    document = trained.settings.model_dump(mode="json", exclude={"source"})
    (trained.workspace.root / "config.yaml").write_text(yaml.safe_dump(document))
    return trained


def test_labels_of_parts_that_have_not_come_are_counted(plant: Any, tmp_path: Path) -> None:
    assert labels_ahead(plant.store)[0] == 0
    known = plant.store.read("inspections", columns=["_id"])["_id"].iloc[0]
    file = tmp_path / "later.csv"
    good = plant.settings.task.normal
    file.write_text(f"id,label\nzz1,{good}\nzz2,{good}\n{known},{good}\n")
    status, text = said(plant, "ingest", str(file))
    assert status == 0
    assert "later.csv: 2 of its labels name parts that have not come in, first 'zz1'; they wait for them." in text
    (tmp_path / "strange.csv").write_text(f"id,label\n0001,{good}\n0002,{good}\n")
    _, text = said(plant, "ingest", str(tmp_path / "strange.csv"))
    assert "first '0001'; they wait for them; see that the ids are written as in the files of inspections." in text
    assert "4 of the labels name parts that have not come in" in said(plant, "status")[1]


def test_a_file_that_was_mended_is_held_back_no_more(plant: Any, tmp_path: Path) -> None:
    week = InspectionLine(rows_per_week=150).week(1).inspections
    for name in ("a.csv", "b.csv"):
        week.drop(columns="temperature_c").to_csv(tmp_path / name, index=False)
        assert said(plant, "ingest", str(tmp_path / name))[0] == 3
    week.to_csv(tmp_path / "a.csv", index=False)
    assert said(plant, "ingest", str(tmp_path / "a.csv"))[0] == 0
    document = json.loads(
        CliRunner().invoke(app, ["status", "--json", "--workspace", str(plant.workspace.root)]).stdout
    )
    assert document["files"]["refused"] == ["b.csv"]


def test_a_model_that_is_one_that_was_refused_is_said_to_be_that(plant: Any) -> None:
    from flows import ledger
    from flows.promotions import DECIDED

    plant.tracker.set_champion("1")
    digest = plant.tracker.version("1").digest
    ledger.enter(
        plant.store, key="promotion:9", actor="softad", action=DECIDED, subject="9", at=plant.after(1),
        details={"passed": False, "promoted": False, "from": "1", "to": "9", "digest": digest, "reasons": ["worse"]},
    )  # fmt: skip
    assert retrain(**plant.parts(), now=plant.after(1), reason="again").digest == digest
    newest, _ = status_document(Context(plant.settings, plant.workspace))["versions"]
    assert newest["state"] == "the very model of version 9, which was refused at the gates"


def test_a_window_of_the_reference_is_not_said_to_lack_labels(plant: Any) -> None:
    window = {"window": "2026-W01", "labelled": 50, "verdict": "too_few_labels", "state": "reference", "alarm": False,
              "statistic": None, "threshold": None, "reason": None}  # fmt: skip
    document = status_document(Context(plant.settings, plant.workspace)) | {"windows": [window]}
    (table,) = [line for line in status_lines(document) if not isinstance(line, str)]
    assert [str(cell) for cell in table.columns[2].cells] == ["(reference)"]


def test_rows_that_are_still_to_come_at_the_time_that_is_given_are_named(plant: Any) -> None:
    plant.tracker.set_champion("1")
    first = plant.store.read("inspections", columns=["_at"])["_at"].min()
    status, text = said(plant, "run", "--now", f"{first:%Y-%m-%dT%H:%M}")
    assert status == 0, text
    assert "300 rows came in after" in text
    assert "their windows are judged once that time has come" in text


def test_rows_that_are_dated_after_today_are_noted_by_the_doctor(plant: Any) -> None:
    now = pd.Timestamp(plant.after(0)).to_pydatetime()
    assert [one.state for one in clock(plant.store, plant.workspace.root, now=now)] == ["good"]
    plant.add(30)
    newest = plant.store.read("inspections", columns=["_at"])["_at"].max().to_pydatetime()
    assert [one.state for one in clock(plant.store, plant.workspace.root, now=newest)] == ["good"]
    early = plant.after(1)
    found = [one for one in clock(plant.store, plant.workspace.root, now=early) if one.state == "note"]
    assert len(found) == 1
    assert found[0].sentence.startswith("150 rows are dated after today, the last ")
