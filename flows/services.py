"""One service process: a free port, its start, its health, its end.

A process is named by its id and the time that it was made, since ids are used again. Every process that
`softad up` starts, and every one that those start, carries the variable `SOFTAD_UP` with the workspace's
folder, so that none is missed at the end and none of anybody else's is touched.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import psutil

MARK = "SOFTAD_UP"
"""Name of the variable that marks the processes of one workspace; its value is the workspace's folder."""

LOG_BYTES = 10_000_000
"""A log longer than this is put aside (as `NAME.log.1`) when its service starts again."""


@dataclass(frozen=True)
class Identity:
    """A process, told apart from a later one with the same id.

    >>> me = Identity.of(os.getpid())
    >>> me.alive(), Identity(me.pid, me.created - 60.0).alive()
    (True, False)
    """

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The process with this id now; None where there is none."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None

    def process(self) -> psutil.Process | None:
        """The living process, or None."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.created) < 0.5 and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return found if same else None

    def alive(self) -> bool:
        """Whether it runs (a zombie that nobody has waited for does not)."""
        return self.process() is not None


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now.

    >>> with socket.create_server(("127.0.0.1", 0)) as taken:
    ...     port_is_free(taken.getsockname()[1])
    False
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connections are only being forgotten is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(preferred: int | None = None, *, avoid: Collection[int] = ()) -> int:
    """A loopback port that nobody listens on: `preferred` where it is free, else another.

    >>> with socket.create_server(("127.0.0.1", 0)) as taken:
    ...     free_port(taken.getsockname()[1]) == taken.getsockname()[1]
    False
    """
    if preferred is not None and preferred not in avoid and port_is_free(preferred):
        return preferred
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in avoid:
            return port


def answers(url: str, seconds: float = 5.0) -> bool:
    """Whether a loopback address answers GET with a status below 400.

    >>> answers(f"http://127.0.0.1:{free_port()}/", seconds=1.0)
    False
    """
    try:
        with _opener().open(url, timeout=seconds) as reply:
            return int(reply.status) < 400
    except (OSError, urllib.error.URLError, ValueError):
        return False


@cache
def _opener() -> urllib.request.OpenerDirector:
    # No proxy: a plant's proxy setting must not stand between this machine and itself.
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class Service:
    """One supervised process.

    Attributes
    ----------
    name: what it is called in logs and in `up.json`.
    command, environment, folder: how it is started.
    log: its output, appended to.
    health: whether it does its work; None where to be alive is all that can be seen.
    user: as whom it runs; None: as this process.
    after: names of services that must be ready before it is started.
    prepare: what is done once it is healthy, before it counts as ready.
    last: whether it is ended after all others, by the signal on which it closes its files at once.
    started, started_at: when it was last started, on the monotonic clock (in seconds) and by date.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    log: Path
    health: Callable[[], bool] | None = None
    user: str | None = None
    after: Sequence[str] = ()
    prepare: Callable[[], object] | None = None
    last: bool = False
    started: float = 0.0
    started_at: datetime | None = None
    identity: Identity | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> Identity:
        """Start it in a session of its own, so that a Ctrl-C at the terminal does not reach it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        put_aside(self.log)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                list(self.command),
                env=dict(self.environment),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self.user,
                group=self.user and pwd.getpwnam(self.user).pw_gid,
                extra_groups=[] if self.user else None,
            )
        self.started, self.started_at = time.monotonic(), datetime.now(UTC)
        # Our own child keeps its id until it is waited for, so this cannot miss.
        self.identity = Identity(self._process.pid, psutil.Process(self._process.pid).create_time())
        return self.identity

    def exit_status(self) -> int | None:
        """How it ended; None while it runs."""
        return None if self._process is None else self._process.poll()

    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def healthy(self) -> bool:
        """Whether it runs and, where that can be asked, answers."""
        return self.running() and (self.health is None or self.health())

    def family(self) -> list[psutil.Process]:
        """The process and all below it that live now."""
        if self.identity is None or (head := self.identity.process()) is None:
            return []
        try:
            return [head, *head.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def memory_mb(self, *, family: bool = True) -> float:
        """What it and all below it, or it alone, hold in memory now, in megabytes; 0 where it does not run."""
        held = 0
        for process in self.family() if family else self.family()[:1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                held += process.memory_info().rss
        return held / 1e6

    def kill(self, *, family: bool = True) -> None:
        """End it at once, with all below it or alone."""
        end(self.family() if family else self.family()[:1], patience=0.0)
        if self._process is not None:
            self._process.wait()


def by_variable(variable: str) -> dict[str, list[psutil.Process]]:
    """This user's living processes that have `variable` in their environment, by its value, oldest first.

    This process itself is never among them.
    """
    found: dict[str, list[psutil.Process]] = defaultdict(list)
    for process in sorted(psutil.process_iter(["create_time"]), key=lambda one: one.info["create_time"]):
        try:
            value = process.environ().get(variable)
            if value is not None and process.pid != os.getpid() and _lives(process):
                found[value].append(process)
        except (psutil.Error, OSError):  # another user's, or gone meanwhile
            continue
    return found


def end(processes: Iterable[psutil.Process], *, patience: float = 10.0) -> int:
    """Ask processes to end, wait at most `patience` seconds, then end them by force.

    Each is checked to be the same process that was found, not a later one with its id.

    Returns
    -------
    How many were alive.
    """
    living = [process for process in processes if _lives(process)]
    stubborn = living
    if patience > 0.0:
        _signal(living, signal.SIGTERM)
        stubborn = _wait(living, patience)
    _signal(stubborn, signal.SIGKILL)
    _wait(stubborn, 10.0)
    return len(living)


def _lives(process: psutil.Process) -> bool:
    """Whether it runs; a zombie, which in a container may stay for ever, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that still live after at most `seconds`."""
    deadline = time.monotonic() + seconds
    while (living := [process for process in processes if _lives(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return living


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)  # psutil compares the creation time first
        except psutil.NoSuchProcess:
            continue


def put_aside(log: Path) -> None:
    """Rename a log that has grown long, over the one put aside before; what is open goes on in the old file.

    >>> put_aside(Path("/nonexistent/worker.log"))
    """
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_name(log.name + ".1"))


def back_off(failures: int) -> float:
    """Seconds to wait before a service that ended `failures` times in a row is started again.

    >>> [back_off(n) for n in (1, 2, 3, 9)]
    [0.5, 1.0, 2.0, 30.0]
    """
    return min(0.5 * 2.0 ** (failures - 1), 30.0)
