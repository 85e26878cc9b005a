"""A model whose plant drops a week's files into its inbox, and whose cycles run as of four days after it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flows.context import Context
from flows.cycle import run_steps
from flows.settings import Settings
from flows.workspace import Workspace
from softad.simulation import InspectionLine

LINE = InspectionLine(rows_per_week=500)
TRAINING = {"epochs": 12, "patience": 4, "thetas": [0.1]}


class Model:
    """One of a workspace's models; `empty_mlflow` is a registry's database without anything, which saves its making."""

    def __init__(self, settings: Settings, root: Path, empty_mlflow: Path | None = None) -> None:
        self.context = Context(settings, Workspace.open(root, settings=settings))
        if empty_mlflow is not None:
            place = self.context.workspace.mlflow
            place.mkdir(exist_ok=True)
            (place / "mlflow.db").write_bytes(empty_mlflow.read_bytes())

    def drop(self, week: int, name: str = "", without: str = "") -> None:
        data, inbox = LINE.week(week), self.context.workspace.inbox
        rows = data.inspections.drop(columns=without) if without else data.inspections
        rows.to_csv(inbox / (name or f"{week}.csv"), index=False)
        data.labels.to_csv(inbox / "labels" / f"{week}.csv", index=False)

    def cycle(self, week: int) -> Any:
        day = LINE.start + timedelta(weeks=week, days=4)
        return run_steps(self.context, now=datetime(day.year, day.month, day.day, tzinfo=UTC))

    @property
    def page(self) -> str:
        return (self.context.workspace.page / "index.html").read_text()
