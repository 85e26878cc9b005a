"""The watch over the services of one workspace: started, kept running, ended; their runs put right."""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from flows import postgres, production
from flows.dead_runs import Recovery, idle, recover
from flows.deployments import FlowSource, connected, deploy, worker_is_heard
from flows.errors import Unavailable
from flows.local_services import ROLE, WORKER, Ports, job_variables, lay_out, runs_log
from flows.services import MARK, Identity, Service, back_off, by_variable, end, put_aside
from flows.settings import Settings
from flows.workspace import write_atomically

TICK = 0.25
"""Seconds between two looks at the processes."""
HEALTH_EVERY = 10.0
HEALTH_FAILURES = 6
"""A server that is silent this many times in a row is ended and started again."""
RUNS_EVERY = 15.0
"""Seconds between two looks for runs whose process has vanished."""
GARBAGE = (700, 10, 10)
"""How often garbage is looked for: as Python does by itself."""
MOST_MB = {"worker": 500.0, "prefect": 1_000.0, "mlflow": 1_500.0}
"""Size from which a process is started anew: the little that Prefect's keep of each run adds up."""
READY_WITHIN = 240.0
SETTLED = 60.0
"""A service that ran this long counts as well again: its next failure is its first."""


def read_record(root: Path) -> dict[str, Any]:
    """What `run/up.json` says; empty where there is none that can be read, or it came with a copied workspace.

    The processes that a copy names are the other workspace's: to end them, or to ask them, would be to act on that.

    >>> read_record(Path("/nonexistent"))
    {}
    """
    try:
        found = json.loads((root / "run" / "up.json").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    if not isinstance(found, dict) or found.get("root", _real(root)) != _real(root):
        return {}
    return found


def _real(root: Path) -> str:
    return str(root.resolve())


class System:
    """The services of one workspace, and the watch over them."""

    def __init__(
        self,
        root: Path,
        settings: Sequence[Settings],
        log: logging.Logger,
        stop: threading.Event,
        *,
        ports: Ports,
        source: FlowSource,
    ) -> None:
        self._root = root
        self._settings = settings
        self._named_ports = ports
        self._source = source
        self._log = log
        self._stop = stop
        self._services: list[Service] = []
        self._failures: dict[str, int] = {}
        self._again_at: dict[str, float] = {}
        self._silent: dict[str, int] = {}
        self._next_health = self._next_runs = 0.0
        self._ready: set[str] = set()

    def _lay_out(self) -> None:
        """Choose the ports and, with them, all that is started; nothing is started yet."""
        before = read_record(self._root)
        self._end_orphans(before)
        remembered = before.get("ports", {})
        profile = production.lay_out if self._settings[0].services.profile == "production" else lay_out
        layout = profile(self._root, self._settings, self._named_ports, remembered, self._source)
        self._ports, self.where, self._services = layout.ports, layout.where, layout.services
        os.environ.update(layout.login)
        self._failures = {service.name: 0 for service in self._services}
        self._silent = dict(self._failures)

    # Start

    def _end_orphans(self, record: dict[str, Any]) -> None:
        """End what an earlier supervisor left: the worker first, so that it reports nothing about its runs."""
        recorded = [Identity(**entry).process() for entry in record.get("processes", {}).values()]
        left = [*by_variable(MARK).get(str(self._root), []), *(process for process in recorded if process)]
        unique = list({process.pid: process for process in left}.values())
        workers = set(by_variable(ROLE).get("worker", []))
        ended = end([process for process in unique if process in workers], patience=0.0)
        database = set(by_variable(ROLE).get("postgres", []))
        ended += end([process for process in unique if process not in workers | database])
        postgres.stop([process for process in unique if process in database])
        if ended:
            self._log.info("ended what an earlier start had left: %d of its processes", ended)
        shutil.rmtree(self._root / "run" / "tmp", ignore_errors=True)

    def start(self) -> None:
        """Start all; return when all are ready, or when asked to stop."""
        began = time.monotonic()
        self._lay_out()
        *servers, worker = self._services
        for service in servers:
            if not self._are_ready(service.after):
                return
            self._start(service, "starting")
        if not self._are_ready(["prefect"]):
            return
        names = deploy(
            self._settings,
            self._root,
            api_url=self.where.prefect_api,
            source=self._source,
            job_variables=job_variables(self._root),
            replace=True,
            pause_others=True,
        )
        self._report(recover(api_url=self.where.prefect_api, at_start=True, root=self._root))
        if not self._are_ready(worker.after):
            return
        self._start(worker, "starting")
        if self._are_ready([service.name for service in servers]) and self._wait_for_worker(worker):
            self._record("ready")
            self._log.info("ready after %.1f s: %s", time.monotonic() - began, ", ".join(names))

    def _start(self, service: Service, state: str) -> None:
        service.start()
        self._record(state)

    def _named(self, name: str) -> Service:
        return next(service for service in self._services if service.name == name)

    def _are_ready(self, names: Sequence[str]) -> bool:
        """Wait until all are healthy and prepared; False when asked to stop before."""
        for name in names:
            if name in self._ready:
                continue
            service = self._named(name)
            if not self._wait(service):
                return False
            if service.prepare is not None:
                service.prepare()
            self._ready.add(name)
        return True

    def _wait(self, service: Service) -> bool:
        """Wait until it is healthy; False when asked to stop before."""
        deadline = time.monotonic() + READY_WITHIN
        while not self._stop.wait(TICK):
            if service.healthy():
                return True
            if not service.running() or time.monotonic() > deadline:
                raise self._unavailable(service)
        return False

    def _wait_for_worker(self, worker: Service) -> bool:
        """Wait until the server has heard from the worker just started; False when asked to stop before."""
        assert worker.started_at is not None
        deadline = time.monotonic() + READY_WITHIN
        with connected(self.where.prefect_api) as client:
            while not self._stop.wait(TICK):
                if worker_is_heard(client, name=WORKER, since=worker.started_at):
                    return True
                if not worker.running() or time.monotonic() > deadline:
                    raise self._unavailable(worker)
        return False

    def _unavailable(self, service: Service) -> Unavailable:
        status = service.exit_status()
        what = "does not answer" if status is None else f"ended with status {status}"
        return Unavailable(f"the service {service.name} {what}; see the end of {service.log}, and start again")

    def _record(self, state: str) -> None:
        processes = {one.name: asdict(one.identity) for one in self._services if one.identity}
        me = Identity(psutil.Process().pid, psutil.Process().create_time())
        document = {
            "state": state,
            "root": _real(self._root),
            "supervisor": asdict(me),
            "addresses": asdict(self.where),
            "ports": asdict(self._ports),
            "processes": processes,
            "models": [one.name for one in self._settings],
        }
        write_atomically(self._root / "run" / "up.json", json.dumps(document, indent=2) + "\n")

    # Watch

    def watch(self) -> None:
        """Keep all services running until asked to stop."""
        # A short command looks for garbage rarely; this process stays for years, and what is in it by now stays too.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GARBAGE)
        self._next_health = self._next_runs = time.monotonic() + HEALTH_EVERY
        while not self._stop.wait(TICK):
            for service in self._services:
                if not service.running():
                    self._revive(service)
                elif time.monotonic() - service.started > SETTLED:
                    self._failures[service.name] = 0
            if time.monotonic() > self._next_health:
                self._check_health()
                self._next_health = time.monotonic() + HEALTH_EVERY
            if time.monotonic() > self._next_runs:
                self._check_runs()
                self._next_runs = time.monotonic() + RUNS_EVERY

    def _revive(self, service: Service) -> None:
        now = time.monotonic()
        if service.name not in self._again_at:
            self._failures[service.name] += 1
            wait = back_off(self._failures[service.name])
            self._again_at[service.name] = now + wait
            self._log.warning(
                "%s ended with status %s; starting it again in %.1f s", service.name, service.exit_status(), wait
            )
        if now < self._again_at[service.name]:
            return
        if service.name == "worker" and not self._put_runs_right():
            self._again_at[service.name] = now + 1.0  # without the server a worker has nothing to do
            return
        try:
            self._start(service, "ready")
        except OSError as error:  # a full disk, or no memory: the others go on, and so does the trying
            self._failures[service.name] += 1
            self._again_at[service.name] = now + back_off(self._failures[service.name])
            self._log.warning("%s cannot be started now (%s)", service.name, error)
            return
        del self._again_at[service.name]
        self._silent[service.name] = 0
        self._log.info("%s started again", service.name)

    def _put_runs_right(self) -> bool:
        if not self._named("prefect").healthy():
            return False
        try:
            self._report(recover(api_url=self.where.prefect_api, root=self._root))
        except Exception:
            # The server may go at any moment; the worker waits for it, and this is done again then.
            self._log.exception("the interrupted runs could not be put right yet")
            return False
        return True

    def _report(self, recovery: Recovery) -> None:
        if recovery:
            self._log.info("put right after an interruption: %s", recovery)

    def _check_health(self) -> None:
        for service in self._services:
            if not service.running() or service.health is None:
                continue
            self._silent[service.name] = 0 if service.health() else self._silent[service.name] + 1
            if self._silent[service.name] >= HEALTH_FAILURES:
                self._log.warning("%s is alive and does not answer; ending it", service.name)
                service.kill()

    def _check_runs(self) -> None:
        put_aside(runs_log(self._root))
        *_, worker = self._services
        if not worker.running() or not self._named("prefect").healthy():
            return
        try:
            self._report(recover(api_url=self.where.prefect_api, worker_lives=True, root=self._root))
        except Exception:
            self._log.exception("the runs could not be looked through; trying again")
            return
        self._renew_grown()

    def _renew_grown(self) -> None:
        """Start anew what has grown too large, while no run is at work: one at a time, the watch does the rest."""
        for service in self._services:
            # A run whose state is final may still be at its exit below the worker: it is none of its size.
            family = service.name != "worker"
            size = service.memory_mb(family=family) if service.name in MOST_MB else 0.0
            if size > MOST_MB.get(service.name, size) and idle(self.where.prefect_api):
                self._log.info("%s has grown to %.0f MB; it is started anew", service.name, size)
                service.kill(family=family)
                return

    # Stop

    def stop(self) -> None:
        """End all that was started, the worker first; a retraining that is interrupted goes on at the next start."""
        if not self._services:
            return
        *servers, worker = self._services
        self._log.info("stopping")
        self._record("stopping")
        worker.kill(family=False)
        if not self._put_runs_right():
            self._log.info("the interrupted runs are put right at the next start")
        end([process for service in servers if not service.last for process in service.family()])
        for service in servers:
            if service.last:
                postgres.stop(service.family()[:1])
        end(by_variable(MARK).get(str(self._root), []))
        self._record("stopped")
