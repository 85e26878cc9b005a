"""`softad maintain`: old files go, by the config; rows and versions that a model was trained on stay."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from flows.cli import app
from flows.trainings import kept_versions

DAY = 86_400


def aged(path: Path, days: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    then = datetime.now(UTC).timestamp() - days * DAY
    os.utime(path, (then, then))
    return path


def maintain(plant: Any, **retention: Any) -> dict[str, int]:
    document = plant.settings.model_dump(mode="json", exclude={"source"}) | {"retention": retention}
    (plant.workspace.root / "config.yaml").write_text(yaml.safe_dump(document))
    result = CliRunner().invoke(app, ["maintain", "--json", "--workspace", str(plant.workspace.root)])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_old_files_go_and_new_ones_stay(trained: Any) -> None:
    place = trained.workspace
    old = [
        aged(place.outbox / "predictions" / "old.csv", 31), aged(place.reports / "old.html", 31),
        aged(place.logs / "old.log.1", 31), aged(place.outbox / "alerts" / ".a.json.part", 2),
    ]  # fmt: skip
    new = [
        aged(place.outbox / "predictions" / "new.csv", 29), aged(place.reports / "old.json", 31),
        aged(place.reports / "new.html", 29), aged(place.logs / "new.log", 29),
        aged(place.root / "archive" / "a.csv", 99),
        aged(place.outbox / "alerts" / ".b.json.part", 0.5), aged(place.inbox / "a.csv", 99),
    ]  # fmt: skip
    thirty = dict.fromkeys(("predictions_days", "html_reports_days", "logs_days"), 30)
    done = maintain(trained, **thirty)
    assert {name: done[name] for name in ("predictions", "reports", "logs", "left_over")} == {
        "predictions": 1, "reports": 1, "logs": 1, "left_over": 1,
    }  # fmt: skip
    assert [path.exists() for path in old] == [False] * 4
    assert [path.exists() for path in new] == [True] * 7


def test_nothing_goes_where_the_config_keeps_all(trained: Any) -> None:
    kept = [
        aged(trained.workspace.outbox / "predictions" / "a.csv", 9999),
        aged(trained.workspace.reports / "a.html", 9999),
    ]
    done = maintain(trained, html_reports_days=None)
    assert done["predictions"] == done["reports"] == 0
    assert all(path.exists() for path in kept)


def test_a_version_that_a_model_names_stays_readable(trained: Any) -> None:
    """Later than any retention: compacted files are gone, but not those of the versions that were trained on."""
    from flows.context import Context
    from flows.maintenance import maintain as tidy

    trained.add(1, 2, 3)
    store, rows = trained.store, trained.store.count("labels")
    named = {table: sorted(numbers) for table, numbers in kept_versions(trained.tracker).items()}
    before = {table: len(store.read(table, version=numbers[0])) for table, numbers in named.items()}
    settings = trained.settings.model_copy(
        update={"retention": trained.settings.retention.model_copy(update={"table_versions_days": 0})}
    )
    done = tidy(Context(settings, trained.workspace), now=datetime.now(UTC) + timedelta(days=1))
    assert done.table_files == 0  # the files that were joined have only just been let go, and their version is kept
    again = tidy(Context(settings, trained.workspace), now=datetime.now(UTC) + timedelta(days=1))
    assert again.table_files > 0
    store = trained.store
    assert {table: len(store.read(table, version=numbers[0])) for table, numbers in named.items()} == before
    assert store.count("labels") == rows
