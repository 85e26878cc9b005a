"""Workspaces with tables filled from the simulated line, without the way through files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flows.settings import Settings
from flows.store import Store
from flows.tracking import Tracker
from flows.workspace import Workspace
from softad.simulation import CATEGORICAL, CLASSES, NUMERIC, SLICES, InspectionLine
from tests.integration.prefect_alone import serving

SMALL = {"hidden": [16], "epochs": 8, "patience": 3, "thetas": [0.1, 0.3], "learning_rate": 0.01}


def line_settings(name: str = "line-a", **sections: Any) -> Settings:
    """A configuration for the simulated line; training is small unless said otherwise."""
    data = {
        "id": "id", "time": "time", "label": "label", "numeric": list(NUMERIC), "categorical": list(CATEGORICAL),
        "slices": list(SLICES),
    }  # fmt: skip
    task = {"classes": list(CLASSES), "normal": CLASSES[0]}
    training = SMALL | sections.pop("training", {})
    document = {"name": name, "data": data | sections.pop("data", {}), "task": task, "training": training}
    return Settings.model_validate(document | sections)


@dataclass
class Plant:
    """One model's workspace with its tables, registry and simulated line."""

    settings: Settings
    workspace: Workspace
    line: InspectionLine
    rows: int = 0
    weeks: list[int] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return Store(self.workspace.tables)

    @property
    def tracker(self) -> Tracker:
        return Tracker(self.settings, self.workspace)

    def parts(self) -> dict[str, Any]:
        """The leading arguments of the stages."""
        return {
            "store": self.store, "tracker": self.tracker, "settings": self.settings, "workspace": self.workspace,
        }  # fmt: skip

    def after(self, week: int) -> datetime:
        """Four days after a week's end."""
        day = self.line.start + timedelta(weeks=week, days=4)
        return datetime(day.year, day.month, day.day, tzinfo=UTC)

    def add(self, *weeks: int, labels: bool = True) -> None:
        """Put weeks into the tables as an ingest would."""
        for week in weeks:
            data, name = self.line.week(week), self.line.week_key(week)
            frame = data.inspections
            own = pd.DataFrame({
                "_id": frame["id"], "_time": pd.to_datetime(frame["time"], utc=True), "_at": self.after(week),
                "_seq": range(self.rows, self.rows + len(frame)), "_version": 1,
                "_hash": frame["id"].map(lambda text: f"h{text}"), "_file": f"sha-{name}",
                "_row": range(1, len(frame) + 1),
            })  # fmt: skip
            self.store.append("inspections", pd.concat([own, frame], axis=1), key=f"sha-{name}")
            record = {"sha": f"sha-{name}", "name": f"{name}.csv", "kind": "inspections", "status": "accepted",
                      "at": self.after(week)}  # fmt: skip
            self.store.append("files", pd.DataFrame([record]), key=f"sha-{name}")
            if labels:
                self.label(data.labels, key=f"labels-{name}")
            self.rows += len(frame)
            self.weeks.append(week)

    def label(self, labels: pd.DataFrame, key: str) -> None:
        """Put labels into the tables."""
        frame = pd.DataFrame({
            "_id": labels["id"], "label": labels["label"], "_time": pd.to_datetime(labels["labelled_at"], utc=True),
            "_version": 1, "_file": key, "_row": range(1, len(labels) + 1),
        })  # fmt: skip
        self.store.append("labels", frame, key=key)

    def incident(self, **record: Any) -> None:
        """Append a state of an incident."""
        known = {"key": "line-a-1", "verdict": "inspect", "state": "opened", "answer": None, "repaired_at": None}
        record = known | record
        number = self.store.count("incidents")
        frame = pd.DataFrame(
            [{"key": record["key"], "event": record["state"], "record": json.dumps(record), "at": datetime.now(UTC),
              "number": number}]
        )  # fmt: skip
        self.store.append("incidents", frame, key=f"{record['key']}:{number}")


@pytest.fixture(scope="session")
def line_config() -> Callable[..., Settings]:
    """`line_settings`, for tests: this file cannot be imported by its name."""
    return line_settings


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs; making one takes seconds, copying it does not."""
    settings = line_settings("template")
    workspace = Workspace.open(tmp_path_factory.mktemp("mlflow") / "workspace", settings=settings)
    _ = Tracker(settings, workspace).client.search_experiments()
    return workspace.mlflow / "mlflow.db"


@pytest.fixture
def new_plant(tmp_path: Path, empty_mlflow: Path) -> Callable[..., Plant]:
    """Make a plant: `new_plant(rows_per_week=200, change="concentrated", change_week=2, settings=...)`."""

    def make(*, settings: Settings | None = None, **line: Any) -> Plant:
        settings = settings or line_settings()
        workspace = Workspace.open(tmp_path / settings.name, settings=settings)
        workspace.mlflow.mkdir(exist_ok=True)
        shutil.copy(empty_mlflow, workspace.mlflow / "mlflow.db")
        return Plant(settings, workspace, InspectionLine(**{"rows_per_week": 200, **line}))

    return make


def _train_once(folder: Path, empty_mlflow: Path, settings: Settings, rows_per_week: int) -> Plant:
    from flows.retrain import retrain

    workspace = Workspace.open(folder / "workspace", settings=settings)
    workspace.mlflow.mkdir(exist_ok=True)
    shutil.copy(empty_mlflow, workspace.mlflow / "mlflow.db")
    plant = Plant(settings, workspace, InspectionLine(rows_per_week=rows_per_week))
    plant.add(-2, -1, 0)
    retrain(**plant.parts(), now=plant.after(0), reason="first")
    return plant


def _copied(plant: Plant, folder: Path) -> Plant:
    """Artifacts of earlier runs stay where they were: MLflow knows them by absolute path."""
    shutil.copytree(plant.workspace.root, folder / "workspace")
    workspace = Workspace.open(folder / "workspace", settings=plant.settings)
    return Plant(plant.settings, workspace, plant.line, plant.rows, list(plant.weeks))


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Plant:
    """Three weeks of 150 rows, and a first model trained on them; copy it, do not change it."""
    return _train_once(tmp_path_factory.mktemp("trained"), empty_mlflow, line_settings(), 150)


@pytest.fixture
def trained(trained_once: Plant, tmp_path: Path) -> Plant:
    """A copy of `trained_once`."""
    return _copied(trained_once, tmp_path)


@pytest.fixture(scope="session")
def capable_once(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Plant:
    """Three weeks of 800 rows, and a model that learned enough from them to be a champion."""
    settings = line_settings(training={"hidden": [32], "epochs": 30, "patience": 6})
    return _train_once(tmp_path_factory.mktemp("capable"), empty_mlflow, settings, 800)


@pytest.fixture
def capable(capable_once: Plant, tmp_path: Path) -> Plant:
    """A copy of `capable_once`."""
    return _copied(capable_once, tmp_path)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prefect server without a worker, one for each file of tests."""
    with serving(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture(scope="session")
def upgraded_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that the first release wrote, brought forward: four weeks, a champion; not to be changed."""
    from flows.upgrade import upgrade

    folder = tmp_path_factory.mktemp("upgraded")
    # Python knows what a tar file may hold only since 3.11.4; this one is our own.
    shutil.unpack_archive(Path(__file__).absolute().parent.parent / "fixtures" / "workspace-format-1.tar.xz", folder)
    upgrade(folder / "workspace", now=datetime(2026, 2, 1, tzinfo=UTC))
    return folder / "workspace"
