"""Prefect without a server: where its data lies, how much it says, and what is done while its own server starts."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

CYCLE_LIBRARIES: tuple[str, ...] = ("softad.bundle", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store")
"""What every cycle imports sooner or later and takes long to; see `start_beside`."""

START_SECONDS = 120
"""The first start in a new folder runs all migrations, which takes long on a busy machine."""


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
    """No heartbeats within: each run would wait up to a second for the thread that sends them."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings(updates={PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def start_beside(libraries: Sequence[str] = CYCLE_LIBRARIES) -> None:
    """Start the embedded server, and import meanwhile: a start takes seconds in which this process would only wait.

    Nothing is started where a server's address is set, or a second time in a process.
    """
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()
    if server.running:
        return
    with ThreadPoolExecutor(1, thread_name_prefix="embedded-server") as beside:
        # Said once more: where Prefect was imported before, it no longer looks at the environment.
        started = beside.submit(server.start, timeout=START_SECONDS)
        for library in libraries:
            importlib.import_module(library)
        started.result()
