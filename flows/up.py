"""The whole system on one machine: `softad up` starts it, watches over it, and ends what it started.

The supervisor holds a lock for as long as it lives and writes what it started to `run/up.json`. Whatever
way it ends, by Ctrl-C, by a crash or by `kill -9`, the next `softad up` in the workspace finds what is left,
ends it, puts the runs right that were interrupted, and goes on with the same ports and data.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import IO

from flows.apart import check_apart
from flows.credentials import Secrets, service_variables
from flows.deployments import FlowSource, deploy
from flows.errors import BadConfig, Unavailable
from flows.local_services import Addresses, Ports, job_variables
from flows.services import Identity, answers
from flows.settings import Settings, load_settings
from flows.supervisor import READY_WITHIN, System, read_record
from flows.workspace import Workspace


def run_up(
    configs: Sequence[Path],
    workspace: Path,
    *,
    ready: Callable[[Addresses], None],
    say: Callable[[str], None] | None = None,
    ports: Ports | None = None,
    source: FlowSource | None = None,
) -> int:
    """Start the system, call `ready`, and keep it running until Ctrl-C, SIGTERM or SIGHUP.

    Where it runs already in this workspace: lay down the configs' deployments, wait until all services are
    healthy, call `ready` with addresses that say so, and return.

    Parameters
    ----------
    configs: one config file for each model.
    say: told what happens, one sentence each; it is in `logs/up.log` as well.
    ports: those that the user named; the others are free ones, the same as last time where possible.

    Returns
    -------
    The exit status, 0.

    Raises
    ------
    BadConfig: a config that does not fit, two models of one name or with one inbox, a named port that is in use.
    Unavailable: a service does not start; the sentence names its log.
    """
    settings = [load_settings(path) for path in configs]
    if not settings:
        raise BadConfig("no config is named; name one or more with --config FILE")
    root = workspace.absolute()
    check_apart(settings, root)
    for one in settings:
        Workspace.open(root, settings=one)
    (root / "run").mkdir(exist_ok=True)
    (root / "prefect").mkdir(exist_ok=True)
    with (root / "run" / "up.lock").open("w") as handle:
        where = _lock_or_join(handle, root, settings, source or FlowSource())
        if where is not None:
            ready(replace(where, already=True))
            return 0
        with _log(root, say) as log, _stop_signals() as stop:
            system = System(root, settings, log, stop, ports=ports or Ports(), source=source or FlowSource())
            try:
                system.start()
                if not stop.is_set():
                    ready(system.where)
                system.watch()
            finally:
                system.stop()
    return 0


def running(workspace: Path) -> Addresses | None:
    """The addresses of a living `softad up` of this workspace that is ready; else None.

    >>> running(Path("/nonexistent")) is None
    True
    """
    record = read_record(workspace.absolute())
    supervisor = record.get("supervisor")
    if record.get("state") != "ready" or not supervisor or not Identity(**supervisor).alive():
        return None
    return Addresses(**record["addresses"])


def _lock_or_join(handle: IO[str], root: Path, settings: Sequence[Settings], source: FlowSource) -> Addresses | None:
    """Take the lock (None), or make sure that the system that has it is whole and knows these models.

    That system may be starting, or stopping, just now; then this waits.
    """
    deadline = time.monotonic() + READY_WITHIN
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return None
        where = running(root)
        if settings[0].services.profile == "production":
            os.environ.update(service_variables(Secrets.of(settings[0], root)))
        if where is not None and _all_healthy(root, where):
            variables = job_variables(root)
            deploy(settings, root, api_url=where.prefect_api, source=source, job_variables=variables, replace=True)
            return where
        if time.monotonic() > deadline:
            raise Unavailable(
                f"a `softad up` of {root} is alive, but not all of its services are; "
                f"look into {root / 'logs'}, end it, and start it again"
            )
        time.sleep(0.5)


def _all_healthy(root: Path, where: Addresses) -> bool:
    processes = read_record(root).get("processes", {})
    alive = all(Identity(**process).alive() for process in processes.values())
    asked = [
        f"{where.prefect_api}/health",
        f"{where.page}health",
        *([f"{where.mlflow}/health"] if "mlflow" in processes else []),
    ]
    return bool(processes) and alive and all(answers(url) for url in asked)


@contextlib.contextmanager
def _log(root: Path, say: Callable[[str], None] | None) -> Iterator[logging.Logger]:
    (root / "logs").mkdir(exist_ok=True)
    log = logging.getLogger(f"softad.up.{root}")
    log.setLevel(logging.INFO)
    log.propagate = False
    handler = logging.FileHandler(root / "logs" / "up.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    teller = _Teller(say) if say is not None else None
    if teller is not None:
        log.addHandler(teller)
    try:
        yield log
    finally:
        log.removeHandler(handler)
        handler.close()
        if teller is not None:
            log.removeHandler(teller)


class _Teller(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and SIGHUP set; what they did before is put back afterwards."""
    stop = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
