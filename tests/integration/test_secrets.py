"""Canaries: planted secrets are in no log, report, alert, page, metric, MLflow value or error sentence."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.context import open_context
from flows.cycle import run_steps
from flows.errors import Damaged
from flows.observation import metrics_path, read_metrics
from flows.services import free_port
from softad.simulation import InspectionLine

CANARIES = {
    "channel": "canary-channel-word", "path": "canarypathtoken", "escalate": "canary-escalate-word",
    "environment": "canary-environment-word", "database": "canary-database-word",
}  # fmt: skip
"""What a plant keeps secret: login and path of a channel, another's login, a variable, a database's password."""


@pytest.fixture
def root(upgraded_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "workspace"
    shutil.copytree(upgraded_once, root)
    away = f"127.0.0.1:{free_port()}"
    with (root / "config.yaml").open("a") as config:
        config.write(f"alerts:\n  timeout_seconds: 2\n  channels: ['json://shift:{CANARIES['channel']}@{away}/"
                     f"{CANARIES['path']}']\n")  # fmt: skip
    (root / "config.yaml").chmod(0o600)
    escalation = json.dumps([f"json://boss:{CANARIES['escalate']}@{away}"])
    monkeypatch.setenv("SOFTAD_CONFIG__ALERTS__ESCALATE_TO", escalation)
    monkeypatch.setenv("SOFTAD_PREFECT_AUTH", f"softad:{CANARIES['environment']}")
    monkeypatch.setenv("PLANT_PASSWORD", CANARIES["environment"])
    return root


def told(root: Path, *words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--workspace", str(root)])
    return result.output + result.stderr


def found_in(root: Path) -> dict[str, list[str]]:
    """Canary -> files that hold it, the config apart, which is where a plant writes its channels."""
    files = [path for path in root.rglob("*") if path.is_file() and path != root / "config.yaml"]
    content = {str(path.relative_to(root)): path.read_bytes() for path in files}
    # What the tables hold is compressed.
    for path in files:
        if path.suffix == ".parquet":
            content[str(path.relative_to(root))] = str(pq.read_table(path).to_pydict()).encode()
    return {word: [name for name, held in content.items() if word.encode() in held] for word in CANARIES.values()}


def week(root: Path, number: int) -> Any:
    context = open_context(None, root)
    line = InspectionLine(rows_per_week=250)
    data, key = line.week(number), line.week_key(number)
    data.inspections.to_csv(context.workspace.inbox / f"{key}.csv", index=False)
    data.labels.to_csv(context.workspace.inbox / "labels" / f"{key}.csv", index=False)
    day = line.start + timedelta(weeks=number, days=11)
    return run_steps(context, now=datetime(day.year, day.month, day.day, tzinfo=UTC))


def test_no_canary_is_written_or_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [told(root, "alerts", "test", "--json")]
    (root / "inbox" / "broken.csv").write_text("nothing,that,fits\n1,2,3\n")
    report = week(root, 3)
    assert report.status == 3
    assert report.scored == 250
    said += [told(root, "retrain", "--json"), told(root, "status"), told(root, "doctor"), told(root, "audit", "verify")]
    context = open_context(None, root)
    assert context.tracker.runs()[0].params
    assert list((root / "outbox" / "alerts").rglob("*.json"))
    values = read_metrics(metrics_path(context))
    assert values["softad_cycles_total", "done"] == 1
    assert values["softad_outbox_waiting", ""] >= 1
    assert values["softad_rows_accepted", ""] == context.store.count("inspections")
    assert values["softad_champion_version", ""] == float(context.tracker.champion() or 0)

    # A cycle that fails, on words that hold secrets.
    (root / "tables" / "line-a" / "labels" / "_delta_log" / f"{1:020}.json").write_text("{torn")
    with pytest.raises(Damaged):
        week(root, 4)
    events = [json.loads(line) for line in (root / "logs" / "line-a.cycle.jsonl").read_text().splitlines()]
    assert [one["event"] for one in events] == ["cycle.started", "cycle.done", "cycle.started", "cycle.failed"]
    assert "table labels is damaged" in events[-1]["error"]
    after = read_metrics(metrics_path(context))
    assert (after["softad_cycles_total", "done"], after["softad_cycles_total", "failed"]) == (1, 1)
    assert after["softad_rows_accepted", ""] == values["softad_rows_accepted", ""]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://softad:{CANARIES['database']}@127.0.0.1:{free_port()}/m")
    said.append(told(root, "doctor", "--json"))

    assert found_in(root) == {word: [] for word in CANARIES.values()}
    assert {word: [text for text in said if word in text] for word in CANARIES.values()} == {
        word: [] for word in CANARIES.values()
    }


def test_the_log_takes_secrets_out_of_what_others_say(root: Path) -> None:
    from flows.observation import log_event

    context = open_context(None, root)
    url = context.settings.alerts.channels[0]
    words = [f"could not send to {url}", f"password={CANARIES['database']}", CANARIES["environment"]]
    path = log_event(context, "channel.failed", error=words[0], notes=words)
    line = json.loads(path.read_text().splitlines()[-1])
    assert line["event"] == "channel.failed"
    assert line["level"] == "info"
    assert not [word for word in CANARIES.values() if word in path.read_text()]


def test_a_long_log_is_put_aside(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.observation import log_event

    monkeypatch.setattr("flows.services.LOG_BYTES", 200)
    context = open_context(None, root)
    for number in range(9):
        path = log_event(context, "x" * 50, number=number)
    assert path.stat().st_size < 400
    assert path.with_name(path.name + ".1").exists()
