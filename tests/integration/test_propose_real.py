"""`init` on real files that nobody prepared, and `ingest` on what it wrote, without an edit."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.ingest import ingest_file
from flows.propose import Proposal, propose, write
from flows.settings import load_settings
from flows.store import Store
from flows.workspace import Workspace

pytestmark = pytest.mark.real_data

CONFIGS = Path(__file__).parents[2] / "configs"
NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
FAULTS = ["Pastry", "Z_Scratch", "K_Scatch", "Stains", "Dirtiness", "Bumps", "Other"]


@pytest.fixture
def data() -> Path:
    folder = os.environ.get("SOFTAD_DATA")
    if not folder:
        pytest.skip("SOFTAD_DATA names no folder of data sets")
    return Path(folder)


def said(found: Proposal, topic: str) -> str:
    return " ".join(note.text for note in found.notes if note.topic == topic)


def test_ai4i2020(data: Path) -> None:
    found = propose(data / "ai4i2020" / "ai4i2020.csv")
    roles = found.settings.data
    assert roles.label == "Machine failure"
    assert (roles.id, roles.time, roles.group) == ("UID", None, None)
    assert {leak.column: leak.rule for leak in found.leaks} == {
        "TWF": "value", "HDF": "value", "PWF": "value", "OSF": "value", "RNF": "like",
    }  # fmt: skip
    for leak in found.leaks:
        assert leak.column in roles.left_out
        assert repr(leak.column) in said(found, "leak")
        assert f"--keep {leak.column}" in leak.keep_hint
    assert "looks recorded after the fact" in roles.left_out["RNF"]
    assert "Product ID" in roles.left_out
    assert roles.numeric == [
        "Air temperature [K]", "Process temperature [K]", "Rotational speed [rpm]", "Torque [Nm]", "Tool wear [min]",
    ]  # fmt: skip
    assert roles.categorical == roles.slices == ["Type"]
    assert roles.window.rows == 1000
    assert (found.settings.task.classes, found.settings.task.normal) == (["0", "1"], "0")


def test_keeping_a_mode_of_failure(data: Path) -> None:
    found = propose(data / "ai4i2020" / "ai4i2020.csv", keep=["RNF"])
    assert "RNF" in found.settings.data.numeric
    assert {leak.column for leak in found.leaks} >= {"RNF", "TWF"}
    assert "RNF" not in found.settings.data.left_out


def test_one_kind_of_fault_alone_is_given_away_by_the_others(data: Path) -> None:
    found = propose(data / "steel_plates_faults" / "faults.csv", label="Stains_Fault")
    assert found.settings.task.classes == ["0", "1"]
    assert found.settings.task.normal == "0"
    others = {f"{name}_Fault{'s' if name == 'Other' else ''}" for name in FAULTS if name != "Stains"}
    assert {leak.column: leak.rule for leak in found.leaks} == dict.fromkeys(others, "union")
    assert len(found.settings.data.features) == 27


def test_steel_plates_faults(data: Path) -> None:
    found = propose(data / "steel_plates_faults" / "faults.csv")
    roles = found.settings.data
    assert roles.label == "fault"
    assert roles.label_columns == [f"{name}_Fault{'s' if name == 'Other' else ''}" for name in FAULTS]
    assert found.settings.task.classes == roles.label_columns
    assert (roles.id, roles.time, roles.group) == (None, None, None)
    assert found.settings.training.split.by == "stratified"
    assert "sorted by class" in said(found, "split")
    assert roles.window.rows == 200
    assert len(roles.features) == 27
    assert roles.slices == ["TypeOfSteel_A300"]
    assert found.leaks == []
    assert roles.left_out == {}


def test_ball_screw_patches(data: Path) -> None:
    folder = data / "bsdata_ball_screw"
    found = propose(folder / "patches.csv", images=folder / "patches.zip")
    roles = found.settings.data
    assert (roles.image, roles.label, roles.group, roles.time) == ("file", "label", "position", "timestamp")
    assert roles.numeric == roles.categorical == []
    assert [leak.column for leak in found.leaks] == ["bbox_frac"]
    assert set(roles.left_out) == {"source", "bsd_type", "x", "y", "bbox_frac"}
    assert found.settings.training.split.by == "group"
    assert found.settings.training.model == "cnn"
    assert roles.window.rows == 100
    assert "each 'source' lies within one 'position'" in said(found, "group")
    assert "197 rows have none" in said(found, "group")


def test_ball_screw_whole_images(data: Path) -> None:
    folder = data / "bsdata_ball_screw"
    found = propose(folder / "labels.csv", images=folder / "images.zip")
    assert {"n_pitting", "pitting_area_frac"} <= {leak.column for leak in found.leaks}
    assert found.settings.data.group == "position"


@pytest.mark.parametrize(
    ("folder", "file", "archive", "rows"),
    [
        ("ai4i2020", "ai4i2020.csv", None, 10_000),
        ("steel_plates_faults", "faults.csv", None, 1_941),
        ("bsdata_ball_screw", "patches.csv", "patches.zip", 1_206),
    ],
)
def test_ingest_takes_every_row_without_an_edit(
    data: Path, tmp_path: Path, folder: str, file: str, archive: str | None, rows: int
) -> None:
    source = data / folder / file
    found = propose(source, images=data / folder / archive if archive else None)
    settings = load_settings(write(found, tmp_path / "workspace" / "config.yaml"))
    workspace = Workspace.open(tmp_path / "workspace", settings=settings)
    store = Store(workspace.tables)
    report = ingest_file(source, settings, store, workspace, now=NOW)
    assert (report.read, report.accepted, report.quarantined) == (rows, rows, 0)
    assert report.labels == rows
    labels = store.read("labels")["label"].value_counts().to_dict()
    assert sorted(labels) == sorted(settings.task.classes)
    assert sum(labels.values()) == rows


@pytest.mark.parametrize(
    ("folder", "file", "archive"),
    [
        ("ai4i2020", "ai4i2020.csv", None),
        ("steel_plates_faults", "faults.csv", None),
        ("bsdata_ball_screw", "patches.csv", "patches.zip"),
    ],
)
def test_configs_that_come_along_are_what_init_proposes(
    data: Path, folder: str, file: str, archive: str | None
) -> None:
    found = propose(data / folder / file, images=data / folder / archive if archive else None, name=folder)
    kept = load_settings(CONFIGS / folder / "config.yaml")

    def comparable(document: dict[str, Any]) -> dict[str, Any]:
        document["data"].pop("images")  # a place on this machine
        return document

    assert comparable(kept.model_dump(exclude={"source"})) == comparable(found.settings.model_dump(exclude={"source"}))
