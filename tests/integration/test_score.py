"""Predictions: each row once, to the table and to the plant's systems."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows.context import Context
from flows.errors import BadInput
from flows.received import input_warnings
from flows.retrain import retrain
from flows.score import score_rows


@pytest.fixture
def plant(trained: Any) -> Any:
    """Three weeks of which a champion was trained, and one that came after."""
    trained.tracker.set_champion("1")
    trained.add(1)
    return trained


def outbox(plant: Any) -> Path:
    return plant.workspace.outbox / "predictions"


def test_without_a_champion_nothing_is_scored(new_plant: Callable[..., Any]) -> None:
    plant = new_plant()
    plant.add(0)
    report = score_rows(**plant.parts(), now=plant.after(0))
    assert (report.rows, report.version, report.files) == (0, None, ())
    assert plant.store.count("predictions") == 0


def test_each_row_is_scored_once_and_delivered(plant: Any) -> None:
    report = score_rows(**plant.parts(), now=plant.after(1))
    assert (report.rows, report.version, len(report.files)) == (600, "1", 4)
    assert score_rows(**plant.parts(), now=plant.after(2)).rows == 0
    table = plant.store.read("predictions")
    assert len(table) == 600 and not table.duplicated(["_id", "_version", "model_version"]).any()
    rows = plant.store.read("inspections", order="_seq")
    said = plant.tracker.load("1").predict(rows)
    table = table.set_index("_id").loc[rows["_id"]]
    assert (table["prediction"].to_numpy() == said.labels).all()
    assert np.allclose(np.vstack(table["probabilities"]), said.probabilities, atol=1e-6)
    delivered = pd.read_csv(outbox(plant) / f"{plant.line.week_key(1)}.csv", keep_default_na=False)
    assert list(delivered.columns) == ["id", "prediction", "probability", "model_version", "warnings"]
    week = rows.tail(150)
    assert delivered["id"].tolist() == week["_id"].tolist(), "in the order of the input file"
    assert delivered["prediction"].tolist() == said.labels[-150:].tolist()
    assert np.allclose(delivered["probability"].astype(float), said.probabilities[-150:].max(axis=1), atol=1e-5)
    assert not [path for path in outbox(plant).iterdir() if path.suffix != ".csv"]


def test_unusual_inputs_carry_warnings(plant: Any) -> None:
    rows = plant.line.week(2).inspections.head(3).copy()
    rows.loc[rows.index[1], "machine"] = "M99"
    rows.loc[rows.index[2], "torque_nm"] = 9e9
    own = pd.DataFrame({
        "_id": rows["id"], "_time": pd.to_datetime(rows["time"], utc=True), "_at": plant.after(2),
        "_seq": [600, 601, 602], "_version": 1, "_hash": rows["id"], "_file": "sha-odd", "_row": [1, 2, 3],
    })  # fmt: skip
    plant.store.append("inspections", pd.concat([own, rows], axis=1), key="sha-odd")
    report = score_rows(**plant.parts(), now=plant.after(2), ids=rows["id"])
    assert report.rows == 3
    warnings = plant.store.read("predictions").set_index("_id")["warnings"]
    assert "machine: M99" in warnings[rows["id"].iloc[1]]
    assert "torque_nm: 9e+09" in warnings[rows["id"].iloc[2]]
    assert report.warned >= 2
    assert report.inputs.columns["machine"] == {"unseen": 1}
    assert report.inputs.columns["torque_nm"] == {"outside": 1}
    context = Context(plant.settings, plant.workspace)
    assert input_warnings(context, "1").document() == report.inputs.document()
    assert input_warnings(context, None).rows == 0


def test_only_what_is_asked_for(plant: Any) -> None:
    window = plant.line.week_key(1)
    assert score_rows(**plant.parts(), now=plant.after(1), windows=[window]).rows == 150
    first = plant.store.read("inspections", columns=["_id"], order="_seq")["_id"].head(10)
    assert score_rows(**plant.parts(), now=plant.after(1), ids=first).rows == 10
    half = pd.read_csv(outbox(plant) / f"{plant.line.week_key(-2)}.csv")
    assert half["id"].tolist() == first.tolist()
    assert score_rows(**plant.parts(), now=plant.after(1)).rows == 440
    whole = pd.read_csv(outbox(plant) / f"{plant.line.week_key(-2)}.csv")
    assert len(whole) == 150, "the file holds all of its rows once they are scored"


def test_another_version_scores_again_but_delivers_nothing_new(plant: Any) -> None:
    score_rows(**plant.parts(), now=plant.after(1))
    before = {path.name: path.read_bytes() for path in outbox(plant).iterdir()}
    plant.settings = plant.settings.model_copy(
        update={"training": plant.settings.training.model_copy(update={"seed": 5})}
    )
    other = retrain(**plant.parts(), now=plant.after(1), reason="other")
    assert score_rows(**plant.parts(), now=plant.after(1), version=other.version).rows == 0, "all were scored once"
    report = score_rows(**plant.parts(), now=plant.after(1), version=other.version, windows=[plant.line.week_key(1)])
    assert (report.rows, report.files) == (150, ())
    assert plant.store.count("predictions", f"model_version = '{other.version}'") == 150
    assert {path.name: path.read_bytes() for path in outbox(plant).iterdir()} == before


def test_a_corrected_row_is_scored_as_it_is_now(plant: Any) -> None:
    score_rows(**plant.parts(), now=plant.after(1))
    row = plant.store.read("inspections", order="_seq").tail(1).copy()
    row["_version"], row["_file"], row["torque_nm"] = 2, "sha-correction", 33.0
    plant.store.append("inspections", row, key="sha-correction")
    assert score_rows(**plant.parts(), now=plant.after(2)).rows == 1
    assert plant.store.count("predictions", f"_id = '{row['_id'].iloc[0]}'") == 2


def test_a_later_file_of_the_same_name_overwrites_nothing(plant: Any) -> None:
    score_rows(**plant.parts(), now=plant.after(1))
    name = f"{plant.line.week_key(1)}.csv"
    before = (outbox(plant) / name).read_bytes()
    data = plant.line.week(2).inspections
    own = pd.DataFrame({
        "_id": data["id"], "_time": pd.to_datetime(data["time"], utc=True), "_at": plant.after(2),
        "_seq": range(600, 750), "_version": 1, "_hash": data["id"], "_file": "0123456789ab", "_row": range(1, 151),
    })  # fmt: skip
    plant.store.append("inspections", pd.concat([own, data], axis=1), key="0123456789ab")
    record = {"sha": "0123456789ab", "name": name, "kind": "inspections", "status": "accepted", "at": plant.after(2)}
    plant.store.append("files", pd.DataFrame([record]), key="0123456789ab")
    report = score_rows(**plant.parts(), now=plant.after(2))
    assert report.files == (f"{plant.line.week_key(1)}-01234567.csv",)
    assert (outbox(plant) / name).read_bytes() == before


def test_a_kill_between_outbox_and_table_loses_and_doubles_nothing(plant: Any, tmp_path: Path) -> None:
    """The process dies right before the table is written; the next one finishes, and all is as without the kill."""
    (tmp_path / "config.json").write_text(plant.settings.model_dump_json())
    code = (
        "import json, os, signal, sys\n"
        "from datetime import datetime, UTC\n"
        "from pathlib import Path\n"
        "from flows.settings import Settings\n"
        "from flows.workspace import Workspace\n"
        "from flows.store import Store\n"
        "from flows.tracking import Tracker\n"
        "from flows.score import score_rows\n"
        "class Dying(Store):\n"
        "    def append(self, table, frame, **more):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "settings = Settings.model_validate(json.loads(Path(sys.argv[1]).read_text()))\n"
        "place = Workspace.open(Path(sys.argv[2]), settings=settings)\n"
        "score_rows(Dying(place.tables), Tracker(settings, place), settings, place, now=datetime.now(UTC))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "config.json"), str(plant.workspace.root)], check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert plant.store.count("predictions") == 0
    delivered = {path.name: path.read_bytes() for path in outbox(plant).iterdir()}
    assert len(delivered) == 4
    assert score_rows(**plant.parts(), now=plant.after(1)).rows == 600
    assert {path.name: path.read_bytes() for path in outbox(plant).iterdir()} == delivered
    assert plant.store.count("predictions") == 600


def test_rows_that_break_the_input_contract_are_refused_whole(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = trained.store.read("inspections", order="_seq")
    for column, told in (
        (rows.drop(columns="torque_nm"), "torque_nm: the column is missing"),
        (rows.assign(torque_nm="strong"), "torque_nm: 'strong' in row 0; allowed: a number"),
    ):
        monkeypatch.setattr("flows.score._unscored", lambda *rest, column=column: column.assign(_seen=False))
        with pytest.raises(BadInput, match=f"450 rows cannot be scored by version 1: {told}"):
            score_rows(**trained.parts(), now=trained.after(1), version="1")
    assert trained.store.count("predictions") == 0 and not list((trained.workspace.outbox / "predictions").iterdir())
