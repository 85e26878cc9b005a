"""A workspace that was moved, where its registry cannot be put right."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.errors import Damaged, Unavailable
from flows.relocation import _told, relocate

NO_ROOM = (
    "import resource, signal, sys\n"
    "from flows.cli import main\n"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    "sys.argv = ['softad', *sys.argv[1:]]\n"
    "main()\n"
)


@pytest.fixture
def moved(trained: Any, tmp_path: Path) -> Path:
    """A workspace with a model, at another place than where it was made."""
    (trained.workspace.root / "config.yaml").write_text(
        json.dumps(trained.settings.model_dump(mode="json", exclude={"source"}))
    )
    return Path(shutil.copytree(trained.workspace.root, tmp_path / "moved"))


def without_room(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", NO_ROOM, *words], capture_output=True, text=True, check=False)


def test_without_room_nothing_changes_and_a_sentence_says_so(moved: Path) -> None:
    registry = moved / "mlflow" / "mlflow.db"
    before = registry.read_bytes()
    done = without_room("status", "--workspace", str(moved))
    assert done.returncode == Unavailable.exit_status
    assert f"{registry}: this workspace was moved, and its registry cannot be put right" in done.stderr
    assert "should not have happened" not in done.stderr
    assert registry.read_bytes() == before
    looked = without_room("doctor", "--workspace", str(moved))
    assert "cannot be put right" in looked.stdout
    assert "the disk is full" in looked.stdout
    assert "clock" in looked.stdout  # it went on to the end
    assert relocate(moved) > 0
    assert CliRunner().invoke(app, ["status", "--workspace", str(moved)]).exit_code == 0


def test_a_damaged_registry(moved: Path) -> None:
    registry = moved / "mlflow" / "mlflow.db"
    registry.write_bytes(b"torn" * 1000)
    for command, status in {"status": Damaged.exit_status, "doctor": 4}.items():
        done = CliRunner().invoke(app, [command, "--workspace", str(moved)])
        assert done.exit_code == status, done.output
        assert f"{registry} is damaged: file is not a database" in done.output
        assert "softad restore FILE" in done.output
    assert registry.read_bytes() == b"torn" * 1000


def test_a_full_disk_as_sqlite_says_it(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "full.db")) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("PRAGMA max_page_count = 2")
        with pytest.raises(sqlite3.OperationalError) as full:
            connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    told = _told(full.value, tmp_path / "full.db")
    assert isinstance(told, Unavailable)
    assert "the disk is full; free some space" in str(told)
