"""`softad up` as a process of its own: started, joined, killed in every way, ended."""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from flows import supervisor
from flows.credentials import ask_the_running
from flows.deployments import FlowSource, connected, deployments_of
from flows.errors import BadConfig
from flows.events import emit_shift
from flows.local_services import Addresses, Ports, choose_ports
from flows.services import MARK, Identity, Service, by_variable, end, free_port, port_is_free
from flows.settings import load_settings
from flows.supervisor import System, read_record
from flows.up import running
from tests.integration.local_system import LocalSystem, a_shift, wait_for

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(600)]


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as reply:
        return str(reply.read().decode())


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    """One workspace, on whose system the tests of this module act in order; its name holds a blank."""
    root = tmp_path_factory.mktemp("the plant") / "a workspace"
    made = LocalSystem(root)
    made.up_ready()
    try:
        yield made
    finally:
        made.end()


def test_all_services_answer_and_the_schedule_runs(system: LocalSystem) -> None:
    where = system.where()
    assert fetch(f"{where.prefect_api}/health") == "true"
    assert fetch(f"{where.mlflow}/health") == "OK"
    assert "no page yet" in fetch(where.page)
    tick = wait_for(system.ticks)[0]
    assert (tick["trigger"], tick["config"]) == ("event", str(system.config))
    assert f'"api_url":"{where.prefect_api}"' in fetch(f"{where.prefect}/ui-settings").replace(" ", "")
    wait_for(lambda: "Finished in state Completed" in (system.root / "logs" / "runs.log").read_text())
    named: dict[str, str] = {}
    ask_the_running(load_settings(system.config), system.root, named)
    assert named == {"MLFLOW_TRACKING_URI": where.mlflow}


def test_the_page_server_shows_pages_and_nothing_else(system: LocalSystem) -> None:
    page = system.root / "page" / "line-a"
    (page / "plots").mkdir(parents=True)
    (page / "index.html").write_text("<p>三つの数字</p>")
    where = system.where().page
    assert fetch(where) == fetch(f"{where}line-a/") == "<p>三つの数字</p>"
    for path in ("line-a/plots/", "../line-a.yaml", "%2e%2e/line-a.yaml", "..%2fworkspace.json", "line-b/"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(where + path)
    (system.root / "page" / "line-b").mkdir()
    (system.root / "page" / "line-b" / "index.html").touch()
    assert all(f'href="/{model}/"' in fetch(where) for model in ("line-a", "line-b"))


def test_a_second_start_joins_and_adds_its_model(system: LocalSystem) -> None:
    other = system.root / "line-b.yaml"
    text = system.config.read_text().replace("line-a", "line-b").replace("interval:5", "0 4 * * *")
    other.write_text(text)
    before = read_record(system.root)["processes"]
    process, output = system.up(configs=[other])
    assert process.wait(60) == 2
    assert "line-a and line-b have one inbox" in output.read_text()
    other.write_text(text + "ingest: {inbox: inbox/line-b, outbox: outbox/line-b}\n")
    process, output = system.up(configs=[system.config, other])
    assert process.wait(60) == 0, output.read_text()
    assert output.read_text() == f"ALREADY {system.where().page}\n"
    assert read_record(system.root)["processes"] == before
    with connected(system.where().prefect_api) as client:
        assert sorted(one.name for one in deployments_of(client, "softad")) == ["line-a"] * 2 + ["line-b"] * 2


def test_a_cycle_that_reports_a_shift_leads_to_one_retraining(system: LocalSystem) -> None:
    content = {
        name: value
        for name, value in vars(a_shift(system.root, "cycle-1")).items()
        if name not in {"config", "workspace"}
    }
    (system.root / "shift.part").write_text(json.dumps(content))
    (system.root / "shift.part").rename(system.root / "shift.json")
    system.finished_once("cycle-1")


def test_two_retrainings_come_one_after_the_other(system: LocalSystem) -> None:
    system.train_for(3)
    with connected(system.where().prefect_api):
        for incident in ("pair-1", "pair-2"):
            emit_shift(a_shift(system.root, incident), occurred=datetime.now(UTC))
    for incident in ("pair-1", "pair-2"):
        system.finished_once(incident)
    lines = [json.loads(line) for line in (system.root / "diary.jsonl").read_text().splitlines()]
    steps = [(one["incident"], one["step"]) for one in lines if str(one.get("incident")).startswith("pair-")]
    first = steps[0][0]
    # The second is not even asked before the first has finished: the server holds it back, not the lock.
    assert [step for step in steps if step[1] != "asked"][:2] == [(first, "started"), (first, "finished")]
    assert steps.index((first, "finished")) < next(i for i, (incident, _) in enumerate(steps) if incident != first)
    system.train_for(6)


def test_a_killed_worker_is_replaced_and_its_retraining_finished(system: LocalSystem) -> None:
    system.shift("worker-1")
    killed = system.pid("worker")
    os.kill(killed, signal.SIGKILL)
    process, output = system.up()  # as the person does who sees that something is wrong
    assert process.wait(120) == 0, output.read_text()
    assert output.read_text().startswith("ALREADY")
    assert system.pid("worker") != killed
    system.finished_once("worker-1")
    assert system.diary("worker-1").count("started") == 2


def test_a_killed_server_comes_back_and_the_retraining_ends_once(system: LocalSystem) -> None:
    system.shift("server-1")
    killed = system.pid("prefect")
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: system.pid("prefect") != killed)
    system.finished_once("server-1")


def test_killed_altogether_it_goes_on_at_the_next_start(system: LocalSystem) -> None:
    where = system.where()
    system.train_for(12)
    system.shift("all-1")
    left = [Identity(**one) for one in read_record(system.root)["processes"].values()]
    os.kill(read_record(system.root)["supervisor"]["pid"], signal.SIGKILL)
    os.kill(system.pid("worker"), signal.SIGKILL)
    system.started[0].wait()
    assert running(system.root) is None
    system.up_ready()
    assert system.where() == where
    assert not any(one.alive() for one in left)
    system.finished_once("all-1")


def test_ctrl_c_ends_what_was_started_and_nothing_else(system: LocalSystem) -> None:
    system.shift("ctrl-c-1")
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    supervisor = read_record(system.root)["supervisor"]["pid"]
    (up,) = [process for process in system.started if process.pid == supervisor]
    marked = by_variable(MARK)[str(system.root)]
    assert len(marked) >= 5  # three servers (MLflow's are two), the worker, the retraining
    began = time.monotonic()
    up.send_signal(signal.SIGINT)
    assert up.wait(30) == 0
    assert time.monotonic() - began < 20
    try:
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
    assert by_variable(MARK).get(str(system.root), []) == []
    assert all(port_is_free(port) for port in read_record(system.root)["ports"].values())
    assert running(system.root) is None
    assert "finished" not in system.diary("ctrl-c-1")


def test_after_ctrl_c_another_port_is_taken_where_the_old_is_not_free(system: LocalSystem) -> None:
    taken = read_record(system.root)["ports"]["page"]
    with socket.create_server(("127.0.0.1", taken)):
        process, output = system.up(page=taken)
        assert process.wait(60) == 2
        assert f"ERROR the port {taken} for page is in use" in output.read_text()
        system.up_ready()
        assert f":{taken}/" not in system.where().page
        fetch(system.where().page)
    system.finished_once("ctrl-c-1")
    system.started[-1].send_signal(signal.SIGTERM)
    assert system.started[-1].wait(30) == 0


def test_a_copy_works_on_the_copy_alone(system: LocalSystem) -> None:
    system.up_ready()
    system.train_for(600)
    system.shift("copy-1")
    there = system.root.with_name("a copy")
    # A copy taken of a running system holds the numbers of its processes; they are not the copy's.
    shutil.copytree(system.root / "run", there / "run", ignore=shutil.ignore_patterns("tmp"))
    assert running(system.root) is not None
    assert (running(there), read_record(there)) == (None, {})
    shutil.rmtree(there)

    # A whole one is taken of a system that stands still: here one that was killed in the midst of a retraining.
    system.end()
    shutil.copytree(system.root, there, ignore=shutil.ignore_patterns("tmp"))
    before = (system.root / "diary.jsonl").read_text()
    copy = LocalSystem(there)
    copy.train_for(1)
    try:
        copy.up_ready()
        copy.finished_once("copy-1")
        wait_for(lambda: len(copy.ticks()) > len(system.ticks()))
        assert (system.root / "diary.jsonl").read_text() == before
    finally:
        copy.end()


def test_a_service_that_cannot_start_is_named(tmp_path: Path) -> None:
    system = LocalSystem(tmp_path)
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "server.db").write_text("this is no database")
    try:
        process, output = system.up()
        assert process.wait(150) == 1
        assert "ERROR the service prefect ended with status" in output.read_text()
        assert str(tmp_path / "logs" / "prefect.log") in output.read_text()
        assert by_variable(MARK).get(str(tmp_path), []) == []
    finally:
        system.end()


def test_a_named_port_must_be_one_and_one_of_its_own() -> None:
    for ports, said in (
        (Ports(page=70_000), "the port 70000 for page is none"),
        (Ports(prefect=free_port(), mlflow=0), "the port 0 for mlflow is none"),
        (Ports(**dict.fromkeys(("mlflow", "page"), free_port())), "is named twice"),
    ):
        with pytest.raises(BadConfig, match=said):
            choose_ports(ports, {})
    before = {name: free_port() for name in ("prefect", "mlflow", "page", "postgres")}
    assert vars(choose_ports(Ports(), before)) == before


def test_a_process_that_stays_looks_for_garbage_as_often_as_python_does(tmp_path: Path) -> None:
    # The command line looks for it rarely; every look at a server then keeps some hundred kilobytes for good.
    before, stop = gc.get_threshold(), threading.Event()
    stop.set()
    gc.set_threshold(50_000, 10, 10)
    try:
        System(tmp_path, [], logging.getLogger("up"), stop, ports=Ports(), source=FlowSource()).watch()
        assert gc.get_threshold() == before
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def test_what_has_grown_is_started_anew_where_no_run_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "up")
    # The run below it is large, says that it is, and stays: a worker is not taken for its runs.
    run = "import time; held = bytearray(200_000_000); print('large', flush=True); time.sleep(600)"
    worker = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {run!r}]); time.sleep(600)"
    sleeper = Service("worker", [sys.executable, "-c", worker], os.environ, tmp_path, tmp_path / "worker.log")
    watch = System(tmp_path, [], logging.getLogger("up"), threading.Event(), ports=Ports(), source=FlowSource())
    watch.where, watch._services = Addresses("", "", "", ""), [sleeper]
    monkeypatch.setattr(supervisor, "idle", lambda _where: True)
    monkeypatch.setitem(supervisor.MOST_MB, "worker", 150.0)
    sleeper.start()
    below: list[psutil.Process] = []
    try:
        wait_for(lambda: "large" in sleeper.log.read_text())
        (_, *below) = sleeper.family()
        assert sleeper.memory_mb() > 200.0 > 150.0 > sleeper.memory_mb(family=False)
        watch._renew_grown()
        assert sleeper.running()  # it is small
        monkeypatch.setitem(supervisor.MOST_MB, "worker", 1.0)
        monkeypatch.setattr(supervisor, "idle", lambda _where: False)
        watch._renew_grown()
        assert sleeper.running()  # a run is at work
        monkeypatch.setattr(supervisor, "idle", lambda _where: True)
        watch._renew_grown()
        assert not sleeper.running()
        assert "worker has grown to" in caplog.text
        assert all(run.is_running() for run in below)  # what is at its exit comes to its end
    finally:
        sleeper.kill()
        end(below, patience=0.0)
