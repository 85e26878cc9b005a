"""The server that a single command starts for itself: one child, gone with the command, never taken for a lasting."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.processes import gone, lives

STARTED = """
import os, sys
from pathlib import Path
from flows.embedded import _OWN, lasting_server, prepare_environment, quick_settings, start_beside
prepare_environment(Path(os.environ["PREFECT_HOME"]))
start_beside(())
start_beside(())
"""
SAID = """
import time
from prefect import flow, task
from prefect.client.orchestration import get_client

@task
def one(): return 1

@flow
def both(): return one() + one()

with quick_settings():
    assert both() == 2
    assert lasting_server() is None
    with get_client(sync_client=True) as client:
        # The server writes task runs down from events, a moment later.
        until = time.monotonic() + 30
        while len(client.read_task_runs()) < 2 and time.monotonic() < until:
            time.sleep(0.1)
        print("runs", len(client.read_flow_runs()), len(client.read_task_runs()))
print("own import", any(name.startswith("prefect.server.api") for name in sys.modules))
print("server", _OWN["server"].process.pid, flush=True)
"""


def _environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"} | more


def _run(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], check=False, env=environment, capture_output=True, text=True, timeout=300
    )


def test_runs_are_recorded_by_one_child_that_ends_with_the_command(tmp_path: Path) -> None:
    done = _run(STARTED + SAID, _environment(tmp_path))
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert said["runs"] == "1 2"
    assert done.stdout.count("own import False") == 1
    assert gone(int(said["server"]))
    assert (tmp_path / "prefect.db").exists()


def test_it_ends_too_where_the_command_is_killed(tmp_path: Path) -> None:
    waiting = STARTED + 'import time; print(_OWN["server"].process.pid, flush=True); time.sleep(600)'
    with subprocess.Popen(
        [sys.executable, "-c", waiting], env=_environment(tmp_path), stdout=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        server = int(command.stdout.readline())
        assert lives(server)
        command.send_signal(signal.SIGKILL)
    assert gone(server)


def test_one_that_cannot_start_is_told_in_a_sentence(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("a file where the folder should be")
    script = STARTED.replace("start_beside(())\nstart_beside(())", "") + (
        "from flows.errors import Unavailable\n"
        "try:\n    start_beside(())\n"
        "except Unavailable as error:\n    print(error)\n"
    )
    done = _run(script, _environment(home))
    assert "PREFECT_HOME" in done.stdout + done.stderr


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.embedded import EmbeddedServer
    from flows.errors import Unavailable

    home = tmp_path / "prefect"
    monkeypatch.setattr(tempfile, "TemporaryFile", refusing)
    monkeypatch.setenv("PREFECT_HOME", str(home))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: Ended())
    with pytest.raises(Unavailable, match=rf"no permission to write at {home}, .*; check who owns the folder"):
        EmbeddedServer().wait(1.0)
    monkeypatch.undo()
    monkeypatch.setenv("PREFECT_HOME", str(home))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: Ended())
    with pytest.raises(Unavailable, match="ended with status 3; PREFECT_SERVER_LOGGING_LEVEL=ERROR"):
        EmbeddedServer().wait(1.0)


class Ended:
    """A server that could not start."""

    returncode = 3

    def poll(self) -> int:
        return self.returncode


def refusing(**_: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize("where", ["environment", "profile"])
def test_none_is_started_where_a_server_is_set(tmp_path: Path, where: str) -> None:
    address = "http://127.0.0.1:9/api"
    more = {"PREFECT_API_URL": address} if where == "environment" else {}
    if where == "profile":
        (tmp_path / "profiles.toml").write_text(f'active = "plant"\n[profiles.plant]\nPREFECT_API_URL = "{address}"\n')
    script = STARTED + "print(lasting_server(), _OWN)"
    done = _run(script, _environment(tmp_path, **more))
    assert done.stdout.strip() == f"{address} {{}}", done.stderr


FAILING = """
from flows.errors import Damaged
from prefect import flow, task

@task
def reads(error): raise error

@flow
def reading(error): reads(error)

with quick_settings():
    for error in (Damaged("table labels is damaged; do this"), KeyError("loss")):
        try:
            reading(error)
        except Exception as caught:
            print("raised", type(caught).__name__)
"""


def test_an_error_that_has_its_sentence_is_told_by_the_command_alone(tmp_path: Path) -> None:
    """A fault of ours leaves its traceback, which nobody could ask an unattended run for later."""
    done = _run(STARTED + FAILING, _environment(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["raised", "Damaged", "raised", "KeyError"]
    assert "damaged" not in done.stderr and "Damaged" not in done.stderr
    assert "KeyError: 'loss'" in done.stderr and "Traceback" in done.stderr
