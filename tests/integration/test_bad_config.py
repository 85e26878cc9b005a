"""A config, a workspace, a disk or a server that does not do: one sentence, the right status, and nothing half done."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from flows.cli import app
from flows.console import DEFAULT_WORKSPACE, JsonOption, Reply, WorkspaceOption, command
from flows.context import open_context
from flows.cycle import run_steps
from flows.demo import after, drop, write_demo_config
from flows.summary import cycle_document, cycle_lines
from flows.tracking import _PATIENCE
from softad.simulation import InspectionLine

LINE = InspectionLine(seed=1, rows_per_week=400)
SMALL: dict[str, dict[str, Any]] = {
    "training": {"epochs": 8, "patience": 3, "hidden": [16], "thetas": [0.2], "batch_size": 128,
                 "learning_rate": 0.01},
    "monitoring": {"min_reference_rows": 200, "html_reports": 0},
    "ingest": {"settle_seconds": 0},
}  # fmt: skip

READING = {
    "ingest": ["ingest", "rows.csv"],
    "run": ["run"],
    "status": ["status"],
    "retrain": ["retrain"],
    "promote": ["promote"],
    "rollback": ["rollback"],
    "alerts list": ["alerts", "list"],
    "alerts show": ["alerts", "show", "x"],
    "alerts ack": ["alerts", "ack", "x", "--repaired"],
    "alerts close": ["alerts", "close", "x"],
    "alerts test": ["alerts", "test"],
    "quarantine list": ["quarantine", "list"],
    "config check": ["config", "check"],
    "config add-class": ["config", "add-class", "scratch"],
}
"""Every command that reads a config and does not stay."""


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def sentence(result: Result, status: int) -> str:
    """The one sentence of an error, as standard error and the JSON document have it."""
    assert result.exit_code == status, result.output
    document = json.loads(result.stdout)
    assert document["exit_status"] == status
    said = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert said == [f"error: {document['error']}"]
    assert "Traceback" not in result.output
    return str(document["error"])


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    write_demo_config(tmp_path / "workspace")
    return tmp_path / "workspace"


# -- config -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", READING.values(), ids=READING)
def test_a_config_that_is_not_there(tmp_path: Path, words: list[str]) -> None:
    said = sentence(call(*words, "--workspace", tmp_path / "none", "--json"), 2)
    assert str(tmp_path / "none" / "config.yaml") in said
    assert "softad init DATA" in said
    assert not (tmp_path / "none").exists(), "asking about a workspace does not make one"


@pytest.mark.parametrize("words", READING.values(), ids=READING)
def test_a_config_that_does_not_hold_changes_nothing(workspace: Path, words: list[str]) -> None:
    config = workspace / "config.yaml"
    config.write_text(config.read_text().replace("numeric:", "numerics:"))
    before = files_of(workspace)
    said = sentence(call(*words, "--workspace", workspace, "--json"), 2)
    assert "the key 'data.numerics' is unknown; did you mean 'numeric'?" in said
    assert files_of(workspace) == before


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "this file holds none"),
        ("- a\n- b\n", "this file holds none"),
        ("name: demo\ndata: {label: ok\n", "line 3: this is not valid YAML"),
        ("name: demo\n\tdata: 1\n", "line 2: this is not valid YAML"),
        ("name: a\nname: b\n", "line 2: the key 'name' stands here for the second time, after line 1; keep one"),
        (
            "name: a\ndata:\n  label: a\n  numeric: [x]\n  label: b\n",
            "line 5: the key 'label' stands here for the second",
        ),
        (b"\xff\xfe\x00name", "cannot be read"),
        ("name: demo\n", "the key 'data' is missing; add it"),
        ("name: '../escape'\ndata: {label: a, numeric: [x], window: {rows: 50}}\n", "name: write letters A to Z,"),
        ("name: a\ndata: {label: a, numeric: [a], window: {rows: 50}}\n", "the label 'a' cannot be a feature too"),
        ("name: a\ndata: {label: a, numeric: [x]}\n", "a window by calendar needs the column `time`"),
        ("name: a\ndata: {label: a, numeric: [x], window: {rows: 50}}\nmonitor: {}\n", "did you mean 'monitoring'?"),
        ("name: a\ndata: {label: a, numeric: [x], window: {rows: 5}}\n", "data.window.rows"),
        ("name: a\ndata: {label: a, numeric: [x], window: {rows: 50}, time_zone: Mars}\n", "'Mars' is no time zone"),
    ],
)
def test_what_is_wrong_with_a_config_is_said(tmp_path: Path, content: str | bytes, told: str) -> None:
    config = tmp_path / "a.yaml"
    config.write_bytes(content.encode() if isinstance(content, str) else content)
    said = sentence(call("config", "check", "--config", config, "--json"), 2)
    assert str(config) in said and told in said
    assert list(tmp_path.iterdir()) == [config]


def test_a_folder_is_no_config(tmp_path: Path) -> None:
    for words in (["config", "check"], ["status"], ["run"]):
        said = sentence(call(*words, "--config", tmp_path, "--workspace", tmp_path / "w", "--json"), 2)
        assert said == f"{tmp_path} is a folder, and no config file; name the file in it with --config"
    (tmp_path / "file").write_text("mine")
    assert "there is no config file" in sentence(call("status", "--config", tmp_path / "file" / "a.yaml", "--json"), 2)


def test_a_value_from_the_environment_is_checked_like_one_from_the_file(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOFTAD_CONFIG__MONITORING__ALARM_BUDGET", "often")
    assert "monitoring.alarm_budget" in sentence(call("config", "check", "--workspace", workspace, "--json"), 2)


# -- workspace --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("marker", "told"),
    [
        ('{"format": 99}', "format 99, made by a newer version"),
        ('{"format": "one"}', "made by a newer version"),
        ("", "cannot be read; restore it from a backup"),
        ("[]", "cannot be read; restore it from a backup"),
    ],
)
def test_a_workspace_of_another_version_is_left_alone(workspace: Path, marker: str, told: str) -> None:
    (workspace / "workspace.json").write_text(marker)
    before = files_of(workspace)
    for words in (["ingest", "rows.csv"], ["status"], ["run"], ["alerts", "list"]):
        assert told in sentence(call(*words, "--workspace", workspace, "--json"), 2)
    assert files_of(workspace) == before
    assert not (workspace / "tables").exists()


def test_a_workspace_that_is_a_file(tmp_path: Path, workspace: Path) -> None:
    (tmp_path / "file").write_text("mine")
    config = workspace / "config.yaml"
    said = sentence(call("status", "--workspace", tmp_path / "file", "--config", config, "--json"), 2)
    assert "the workspace cannot be written" in said
    assert (tmp_path / "file").read_text() == "mine"


# -- a whole cycle on a disk that fills up, or without its registry ----------------------------------------------------


def cycle(workspace: Path) -> Result:
    """A cycle with the errors' way out of the command line, without Prefect around it."""
    shell = typer.Typer(pretty_exceptions_enable=False)

    @shell.command()
    @command
    def run(workspace: WorkspaceOption = DEFAULT_WORKSPACE, as_json: JsonOption = False) -> Reply:
        report = run_steps(open_context(None, workspace), now=after(LINE, 0))
        return Reply(cycle_document(report), cycle_lines(report), report.status)

    return CliRunner().invoke(shell, ["--workspace", str(workspace), "--json"])


def filled(workspace: Path, empty_mlflow: Path) -> Path:
    """A workspace with three weeks in its inbox."""
    config = write_demo_config(workspace)
    document = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**document, **{k: {**document.get(k, {}), **v} for k, v in SMALL.items()}}))
    for week in (-2, -1, 0):
        drop(open_context(None, workspace), LINE, week)
    (workspace / "mlflow").mkdir()
    shutil.copy(empty_mlflow, workspace / "mlflow" / "mlflow.db")
    return workspace


def complete(workspace: Path) -> None:
    """What a cycle that nothing disturbed leaves behind."""
    result = cycle(workspace)
    assert result.exit_code == 0, result.output
    context = open_context(None, workspace)
    counts = {table: context.store.count(table) for table in ("files", "inspections", "labels", "predictions", "lives")}
    assert counts == {"files": 6, "inspections": 1200, "labels": 1200, "predictions": 1200, "lives": 1}
    assert context.tracker.champion() is not None
    assert len(context.tracker.client.search_model_versions("name='demo'")) == 1
    assert [path for path in context.workspace.inbox.rglob("*") if path.is_file()] == []
    assert (context.workspace.page / "index.html").exists()
    assert list(workspace.rglob("*.part")) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, with 64 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here; the ingest's test with a file size limit needs none")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def leave(place: Path, kilobytes: int) -> Path:
    """Fill a disk up to so much free space."""
    free = os.statvfs(place)
    ballast = place / "ballast"
    with ballast.open("wb") as handle:
        handle.write(b"\0" * (free.f_bavail * free.f_frsize - kilobytes * 1024))
    return ballast


@pytest.mark.slow
def test_a_cycle_on_a_disk_that_is_full_is_finished_when_there_is_room(small_disk: Path, empty_mlflow: Path) -> None:
    workspace = filled(small_disk / "workspace", empty_mlflow)
    inbox = files_of(workspace / "inbox")
    for kilobytes in (0, 100, 400, 800, 1_200, 1_600):
        ballast = leave(small_disk, kilobytes)
        result = cycle(workspace)
        ballast.unlink()
        said = sentence(result, 1)
        assert "disk is full" in said and "free some space" in said, f"{kilobytes} kB: {said}"
        archive = workspace / "archive"
        lying = [*files_of(workspace / "inbox").values(), *(files_of(archive) if archive.exists() else {}).values()]
        assert sorted(lying) == sorted(inbox.values()), "every file lies in the inbox or in the archive"
    complete(workspace)


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.slow
def test_a_registry_that_is_away_is_said_quickly_and_the_cycle_is_finished_later(
    tmp_path: Path, empty_mlflow: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = filled(tmp_path / "workspace", empty_mlflow)
    monkeypatch.setenv("SOFTAD_CONFIG__TRACKING__URI", f"http://127.0.0.1:{closed_port}")
    began = time.monotonic()
    said = sentence(cycle(workspace), 1)
    assert time.monotonic() - began < 60
    assert f"MLflow at http://127.0.0.1:{closed_port} does not do its work" in said
    monkeypatch.delenv("SOFTAD_CONFIG__TRACKING__URI")
    complete(workspace)


@pytest.mark.slow
def test_a_registry_that_takes_connections_and_never_answers(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = int(_PATIENCE["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) + 1
    assert attempts * int(_PATIENCE["MLFLOW_HTTP_REQUEST_TIMEOUT"]) < 50, "told within a minute, pauses included"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        monkeypatch.setenv("SOFTAD_CONFIG__TRACKING__URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        said = sentence(call("promote", "--workspace", workspace, "--json"), 1)
        assert time.monotonic() - began < 20
    assert "see that it runs" in said
