"""Two models in one workspace: whatever happens to one, the other's cycle is done and its page fresh."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.context import Context
from flows.cycle import run_steps
from flows.errors import PipelineError
from flows.settings import Settings
from flows.upkeep_flow import weekly_report
from flows.workspace import Workspace
from softad.simulation import InspectionLine

pytestmark = pytest.mark.slow

LINE = InspectionLine(rows_per_week=500)
TRAINING = {"epochs": 12, "patience": 4, "thetas": [0.1]}


class Model:
    """One of the models, with an inbox and an outbox of its own."""

    def __init__(self, settings: Settings, root: Path) -> None:
        self.context = Context(settings, Workspace.open(root, settings=settings))

    def drop(self, week: int) -> None:
        data, inbox = LINE.week(week), self.context.workspace.inbox
        data.inspections.to_csv(inbox / f"{week}.csv", index=False)
        data.labels.to_csv(inbox / "labels" / f"{week}.csv", index=False)

    def cycle(self, week: int) -> Any:
        day = LINE.start + timedelta(weeks=week, days=4)
        return run_steps(self.context, now=datetime(day.year, day.month, day.day, tzinfo=UTC))

    @property
    def page(self) -> str:
        return (self.context.workspace.page / "index.html").read_text()


@pytest.fixture
def pair(tmp_path: Path, line_config: Callable[..., Settings], empty_mlflow: Path) -> tuple[Model, Model]:
    root = tmp_path / "plant"

    def model(name: str) -> Model:
        ingest = {"inbox": f"inbox/{name}", "outbox": f"outbox/{name}", "settle_seconds": 0}
        return Model(line_config(name, ingest=ingest, training=TRAINING, promotion={"resamples": 400}), root)

    first, second = model("line-a"), model("line-b")
    first.context.workspace.mlflow.mkdir(exist_ok=True)
    (first.context.workspace.mlflow / "mlflow.db").write_bytes(empty_mlflow.read_bytes())
    return first, second


def test_one_with_broken_data_does_not_hold_up_the_other(pair: tuple[Model, Model]) -> None:
    broken, whole = pair
    for week in (-2, -1, 0):
        whole.drop(week)
    inbox = broken.context.workspace.inbox
    (inbox / "torn.csv").write_bytes(LINE.week(0).inspections.to_csv(index=False).encode()[:-37])
    (inbox / "noise.parquet").write_bytes(bytes(range(256)) * 40)
    (inbox / "labels" / "other.csv").write_text("what;is;this\n1;2;3\n")
    assert broken.cycle(0).status == 3
    done = whole.cycle(0)
    assert [one.status for one in done.ingests if one.status == "refused"] == []
    assert whole.context.tracker.champion() == "1"
    assert broken.context.tracker.champion() is None
    assert whole.context.store.count("predictions") == whole.context.store.count("inspections") == 1500

    # Worse: a table of the one is damaged, and its cycle cannot be done at all.
    log = broken.context.workspace.tables / "files" / "_delta_log" / f"{0:020}.json"
    log.write_text("{")
    before = whole.page
    whole.drop(1)
    # A cycle of the one that hangs holds its own lock only.
    with broken.context.workspace.lock("cycle"), broken.context.workspace.lock("retrain"):
        whole.cycle(1)
    damaged = Model(broken.context.settings, broken.context.workspace.root)
    with pytest.raises(PipelineError):
        damaged.cycle(1)
    assert whole.page != before
    assert whole.context.store.count("predictions") == 2000
    whole.drop(2)
    assert whole.cycle(2).status == 0


def test_the_weeks_report_is_kept_and_announced_once(pair: tuple[Model, Model]) -> None:
    _, whole = pair
    whole.drop(0)
    day = LINE.start + timedelta(weeks=1)
    monday = datetime(day.year, day.month, day.day, 7, tzinfo=UTC)
    whole.cycle(0)
    report = weekly_report(whole.context, now=monday)
    assert weekly_report(whole.context, now=monday + timedelta(hours=1)) == report
    year, number, _ = LINE.start.isocalendar()
    assert report.name == f"{year}-W{number:02}.html"
    assert report.read_text().startswith("<!")
    outbox = whole.context.workspace.outbox / "alerts" / "line-b"
    told = [text for path in outbox.rglob("*.json") if "report of the week" in (text := path.read_text())]
    assert len(told) == 1
    assert "500 parts were taken in" in told[0]


def test_a_schedule_that_is_none_is_refused_by_its_name(tmp_path: Path) -> None:
    from flows.deployments import _plans
    from flows.errors import BadConfig
    from flows.settings import load_settings

    path = tmp_path / "config.yaml"
    document = {
        "name": "line-a", "data": {"label": "ok", "numeric": ["x"], "window": {"rows": 500}},
        "schedule": {"report": "on Mondays"},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(BadConfig, match=r"schedule\.report: 'on Mondays' is neither a cron line"):
        _plans(load_settings(path), tmp_path)
    document["schedule"] = {"report": None, "maintain": "15 1 * * *"}
    path.write_text(yaml.safe_dump(document))
    plans = _plans(load_settings(path), tmp_path)
    assert (plans["report"]["schedule"], plans["maintain"]["schedule"].cron) == (None, "15 1 * * *")
