"""Prefect without a server: where its data lies, how much it says, and a server of this process's own meanwhile."""

from __future__ import annotations

import atexit
import gc
import importlib
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.disk import CLOSED, is_disk_full
from flows.errors import PipelineError, Unavailable

CYCLE_LIBRARIES: tuple[str, ...] = ("softad.bundle", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store")
"""What every cycle imports sooner or later and takes long to; see `start_beside`."""

START_SECONDS = 120
"""The first start in a new folder runs all migrations, which takes long on a busy machine."""

STOP_SECONDS = 5


class EmbeddedServer:
    """Prefect's API for this process alone: a child that ends with it, however it ends.

    Prefect would start one by itself, but only after it has imported the whole of its server here too, which takes
    seconds in which nothing else starts; and that one goes on for ever where this process is killed.

    Raises
    ------
    Unavailable: by `wait`, where it does not come up.
    """

    def __init__(self) -> None:
        # The socket is open before the process is: no other program can take the port meanwhile, and who asks too
        # early waits instead of being refused.
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
            handle = listening.fileno()
            program = Path(__file__).with_name("embedded_server.py")
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(program), str(handle), str(os.getpid())],
                env=os.environ
                | {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"},
                pass_fds=(handle,),
                stdin=subprocess.DEVNULL,
                # What a command prints is its own, and may be JSON.
                stdout=2,
                # Ctrl-C is for this process, which still has to tell the server how its run ended.
                start_new_session=True,
            )
        self._parent = os.getpid()
        atexit.register(self.stop)

    @property
    def alive(self) -> bool:
        """Whether it runs, as a child of this very process."""
        return self._parent == os.getpid() and self.process.poll() is None

    def wait(self, seconds: float) -> None:
        """Return when it answers."""
        import httpx

        until = time.monotonic() + seconds
        while self.alive and time.monotonic() < until:
            try:
                httpx.get(f"{self.url}/health", timeout=2.0, trust_env=False).raise_for_status()
            except (httpx.TransportError, httpx.HTTPStatusError):
                time.sleep(0.05)
            else:
                return
        found = f"does not answer after {seconds:g} s" if self.alive else f"ended with status {self.process.returncode}"
        self.stop()
        home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
        closed = _why_closed(home)
        if closed is not None:
            raise Unavailable(
                f"no permission to write at {home}, where Prefect keeps its runs ({closed}); check who owns the folder "
                "(PREFECT_HOME), then run the command again: what was done so far is kept"
            )
        raise Unavailable(
            f"Prefect's own server for this command {found}; PREFECT_SERVER_LOGGING_LEVEL=ERROR in the environment "
            "lets it say why; then run again: what was done so far is kept"
        )

    def stop(self) -> None:
        """End it; nothing happens where it has ended, or in a process that was forked from this one."""
        if not self.alive:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _why_closed(home: Path) -> str | None:
    """Why nothing can be written in a folder, or in what lies in it already; None where something can."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
        for path in home.glob("*.db*"):
            with path.open("ab"):
                pass
    except OSError as error:
        return error.strerror
    return None


_OWN: dict[str, EmbeddedServer] = {}
"""The server of this process, once there is one."""


def prepare_environment(home: Path) -> None:
    """Set Prefect's home and log level; to be called before Prefect is imported.

    A home or level that is set already stays; so does a server's address.
    """
    os.environ.setdefault("PREFECT_HOME", str(home))
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    # What the embedded server says while it is being stopped concerns nobody.
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", str(START_SECONDS))


@contextmanager
def quick_settings() -> Iterator[None]:
    """The process's own server where `start_beside` started one, and no heartbeats within: each run would wait up to a
    second for the thread that sends them. Nothing changes where they are in force already.

    An error that the command tells in a sentence is told by it alone (see `told_by_the_command`).
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    updates: dict[Any, Any] = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    if (own := _OWN.get("server")) is not None:
        updates[PREFECT_API_URL] = own.url
    with _told_once():
        if all(setting.value() == value for setting, value in updates.items()):
            yield  # Prefect checks all of its settings anew whenever one changes, which takes a tenth of a second
            return
        with temporary_settings(updates=updates):
            yield


def told_by_the_command(record: logging.LogRecord) -> bool:
    """Whether a line of a run's log says only what the command itself will say, in one sentence and without traceback.

    Those are the exceptions of `flows.errors` on their way out of a task and of its flow, a full disk or one
    that may not be written, and the states that follow. Any other exception is a fault of ours, and an unattended
    run must leave its traceback in the log.

    >>> def record(error=None, message="Encountered exception", name="prefect.flow_runs"):
    ...     trace = (type(error), error, None) if error else None
    ...     return logging.LogRecord(name, logging.ERROR, "", 0, message, (), trace)
    >>> told_by_the_command(record(Unavailable("no disk"))), told_by_the_command(record(KeyError("loss")))
    (True, False)
    >>> told_by_the_command(record(PermissionError(13, "Permission denied")))
    True
    >>> told_by_the_command(record(message="Finished in state Failed('…')", name="prefect.task_runs"))
    True
    """
    if not record.name.startswith(("prefect.flow_runs", "prefect.task_runs")) or record.levelno < logging.ERROR:
        return False
    if record.exc_info is not None and record.exc_info[1] is not None:
        error = record.exc_info[1]
        return isinstance(error, PipelineError) or (
            isinstance(error, OSError) and (is_disk_full(error) or error.errno in CLOSED)
        )
    return str(record.msg).startswith("Finished in state")


@contextmanager
def _told_once() -> Iterator[None]:
    """Leave out of the terminal what `told_by_the_command` says; Prefect's server is told all."""
    from prefect.logging.handlers import PrefectConsoleHandler

    handlers = [one for one in logging.getLogger().handlers if isinstance(one, PrefectConsoleHandler)]

    def wanted(record: logging.LogRecord) -> bool:
        return not told_by_the_command(record)

    for handler in handlers:
        handler.addFilter(wanted)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(wanted)


def lasting_server() -> str | None:
    """The address of the server that is set for this process and outlives it; None where there is no such server.

    >>> os.environ.get("PREFECT_API_URL") is not None or lasting_server() is None
    True
    """
    from prefect.settings import PREFECT_API_URL

    address: str | None = PREFECT_API_URL.value()
    own = _OWN.get("server")
    return None if not address or (own is not None and address == own.url) else address


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Imports make a million objects that stay: looking through them for garbage, during the imports and ever after,
    takes a tenth of the imports' time and a second of each minute."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if collects:
            gc.enable()


def start_beside(libraries: Sequence[str] = CYCLE_LIBRARIES) -> None:
    """Start the embedded server, and import meanwhile: a start takes seconds in which this process would only wait.

    Nothing is started where a server's address is set, or a second time in a process.

    Raises
    ------
    Unavailable: it does not come up.
    """
    if os.environ.get("PREFECT_API_URL") or ("prefect" in sys.modules and lasting_server() is not None):
        return
    if (running := _OWN.get("server")) is not None and running.alive:
        return
    # Before Prefect's first import here, which is long too; that may find an address in a profile.
    server = EmbeddedServer()
    try:
        if lasting_server() is not None:
            server.stop()
            return
        with _nothing_collected():
            for library in libraries:
                importlib.import_module(library)
        server.wait(START_SECONDS)
    except BaseException:
        server.stop()
        raise
    _OWN["server"] = server
