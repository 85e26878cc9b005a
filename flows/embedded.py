"""Prefect without a server: where its data lies, how much it says, and no waiting for heartbeats that nobody reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def prepare_environment(home: Path) -> None:
    """Set Prefect's home and log level; to be called before Prefect is imported.

    A home or level that is set already stays; so does a server's address.
    """
    os.environ.setdefault("PREFECT_HOME", str(home))
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    # What the embedded server says while it is being stopped concerns nobody.
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
    # The first start in a new folder runs all migrations, which takes long on a busy machine.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")


@contextmanager
def quick_settings() -> Iterator[None]:
    """No heartbeats within: each run would wait up to a second for the thread that sends them."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings(updates={PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield
