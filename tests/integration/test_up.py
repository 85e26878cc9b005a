"""`softad up` as a process of its own: started, joined, killed in every way, ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.deployments import connected, deployments_of
from flows.errors import BadConfig, Unavailable
from flows.events import Shift, emit_shift
from flows.local_services import Addresses, Ports, choose_ports
from flows.services import MARK, Identity, by_variable, end, free_port, port_is_free
from flows.supervisor import read_record
from flows.up import running

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(600)]

HERE = Path(__file__).absolute().parent
ROOT = HERE.parent.parent

# What `softad up` does, with this folder's flows in place of the real ones.
STARTER = """
import sys
from pathlib import Path
from flows.deployments import FlowSource
from flows.errors import PipelineError
from flows.local_services import Ports
from flows.up import run_up
workspace, here, page = sys.argv[1:4]
try:
    sys.exit(run_up(
        [Path(path) for path in sys.argv[4:]], Path(workspace),
        ready=lambda where: print("ALREADY" if where.already else "READY", where.page, flush=True),
        say=lambda line: print(line, flush=True),
        ports=Ports(page=int(page) or None),
        source=FlowSource(Path(here), "small_flows.py:cycle_flow", "small_flows.py:retrain_flow"),
    ))
except PipelineError as error:
    print("ERROR", error, flush=True)
    sys.exit(error.exit_status)
"""


class Plant:
    """A workspace with one model, and what is started in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "line-a.yaml"
        self.config.write_text(
            "name: line-a\ndata: {label: ok, numeric: [x], window: {rows: 500}}\ntask: {classes: ['0', '1']}\n"
            "schedule: {cycle: 'interval:5', retrain: null}\n"
        )
        self.train_for(6)
        self.started: list[subprocess.Popen[bytes]] = []

    def train_for(self, seconds: float) -> None:
        (self.root / "seconds").write_text(str(seconds))

    def up(self, *, page: int = 0, configs: Sequence[Path] | None = None) -> tuple[subprocess.Popen[bytes], Path]:
        output = self.root / f"up-{len(self.started)}.txt"
        with output.open("wb") as handle:
            process = subprocess.Popen(
                [sys.executable, "-c", STARTER, self.root, HERE, str(page), *(configs or [self.config])],
                stdout=handle,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                cwd=self.root,
                start_new_session=True,
            )
        self.started.append(process)
        return process, output

    def up_ready(self, **options: Any) -> subprocess.Popen[bytes]:
        process, output = self.up(**options)
        wait_for(lambda: "READY" in output.read_text() or process.poll() is not None, seconds=150)
        assert "READY" in output.read_text(), output.read_text()
        return process

    def pid(self, name: str) -> int:
        return int(read_record(self.root)["processes"][name]["pid"])

    def where(self) -> Addresses:
        return wait_for(lambda: running(self.root))

    def diary(self, incident: str) -> list[str]:
        lines = (self.root / "diary.jsonl").read_text().splitlines() if (self.root / "diary.jsonl").exists() else []
        return [entry["step"] for line in lines if (entry := json.loads(line)).get("incident") == incident]

    def ticks(self) -> list[dict[str, Any]]:
        lines = (self.root / "diary.jsonl").read_text().splitlines() if (self.root / "diary.jsonl").exists() else []
        return [entry for line in lines if (entry := json.loads(line))["flow"] == "cycle"]

    def shift(self, incident: str) -> None:
        """Report a shift, and wait until the retraining has started."""
        with connected(self.where().prefect_api):
            emit_shift(a_shift(self.root, incident), occurred=datetime.now(UTC))
        wait_for(lambda: "started" in self.diary(incident), seconds=90)

    def finished_once(self, incident: str) -> None:
        """The retraining ends once, within the time promised, with no run left as running."""
        wait_for(lambda: "finished" in self.diary(incident), seconds=120)

        def settled() -> bool:
            # A server that was killed is away for some seconds.
            with suppress(Unavailable), connected(self.where().prefect_api) as client:
                runs = [run for run in client.read_flow_runs(limit=200) if run.parameters.get("incident") == incident]
                names = [run.state_name for run in runs]
                free = [
                    one.global_concurrency_limit.active_slots
                    for one in deployments_of(client, "softad")
                    if "retrain" in one.entrypoint and one.name == "line-a"
                ]
                return names.count("Completed") == 1 and set(names) <= {"Completed", "Crashed"} and free == [0]
            return False

        wait_for(settled, seconds=120)
        assert self.diary(incident).count("finished") == 1

    def end(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
        end(by_variable(MARK).get(str(self.root), []), patience=0.0)


def a_shift(root: Path, incident: str) -> Shift:
    place = {"config": str(root / "line-a.yaml"), "workspace": str(root)}
    return Shift("line-a", incident, "2026-W14", "inspect", "machine", "M07", 0.72, reason="alarm", **place)


def wait_for(condition: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)
    return value


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as reply:
        return str(reply.read().decode())


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """One workspace, on whose system the tests of this module act in order; its name holds a blank."""
    root = tmp_path_factory.mktemp("the plant") / "a workspace"
    root.mkdir()
    made = Plant(root)
    made.up_ready()
    try:
        yield made
    finally:
        made.end()


def test_all_services_answer_and_the_schedule_runs(plant: Plant) -> None:
    where = plant.where()
    assert fetch(f"{where.prefect_api}/health") == "true"
    assert fetch(f"{where.mlflow}/health") == "OK"
    assert "no page yet" in fetch(where.page)
    tick = wait_for(plant.ticks)[0]
    assert (tick["trigger"], tick["config"]) == ("event", str(plant.config))
    assert f'"api_url":"{where.prefect_api}"' in fetch(f"{where.prefect}/ui-settings").replace(" ", "")
    wait_for(lambda: "Finished in state Completed" in (plant.root / "logs" / "runs.log").read_text())


def test_the_page_server_shows_pages_and_nothing_else(plant: Plant) -> None:
    page = plant.root / "page" / "line-a"
    (page / "plots").mkdir(parents=True)
    (page / "index.html").write_text("<p>三つの数字</p>")
    where = plant.where().page
    assert fetch(where) == fetch(f"{where}line-a/") == "<p>三つの数字</p>"
    for path in ("line-a/plots/", "../line-a.yaml", "%2e%2e/line-a.yaml", "..%2fworkspace.json", "line-b/"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(where + path)
    (plant.root / "page" / "line-b").mkdir()
    (plant.root / "page" / "line-b" / "index.html").touch()
    assert all(f'href="/{model}/"' in fetch(where) for model in ("line-a", "line-b"))


def test_a_second_start_joins_and_adds_its_model(plant: Plant) -> None:
    other = plant.root / "line-b.yaml"
    other.write_text(plant.config.read_text().replace("line-a", "line-b").replace("interval:5", "0 4 * * *"))
    before = read_record(plant.root)["processes"]
    process, output = plant.up(configs=[plant.config, other])
    assert process.wait(60) == 0, output.read_text()
    assert output.read_text() == f"ALREADY {plant.where().page}\n"
    assert read_record(plant.root)["processes"] == before
    with connected(plant.where().prefect_api) as client:
        assert sorted(one.name for one in deployments_of(client, "softad")) == ["line-a"] * 2 + ["line-b"] * 2


def test_a_cycle_that_reports_a_shift_leads_to_one_retraining(plant: Plant) -> None:
    content = {
        name: value
        for name, value in vars(a_shift(plant.root, "cycle-1")).items()
        if name not in {"config", "workspace"}
    }
    (plant.root / "shift.part").write_text(json.dumps(content))
    (plant.root / "shift.part").rename(plant.root / "shift.json")
    plant.finished_once("cycle-1")


def test_two_retrainings_come_one_after_the_other(plant: Plant) -> None:
    plant.train_for(3)
    with connected(plant.where().prefect_api):
        for incident in ("pair-1", "pair-2"):
            emit_shift(a_shift(plant.root, incident), occurred=datetime.now(UTC))
    for incident in ("pair-1", "pair-2"):
        plant.finished_once(incident)
    lines = [json.loads(line) for line in (plant.root / "diary.jsonl").read_text().splitlines()]
    steps = [(one["incident"], one["step"]) for one in lines if str(one.get("incident")).startswith("pair-")]
    first = steps[0][0]
    # The second is not even asked before the first has finished: the server holds it back, not the lock.
    assert [step for step in steps if step[1] != "asked"][:2] == [(first, "started"), (first, "finished")]
    assert steps.index((first, "finished")) < next(i for i, (incident, _) in enumerate(steps) if incident != first)
    plant.train_for(6)


def test_a_killed_worker_is_replaced_and_its_retraining_finished(plant: Plant) -> None:
    plant.shift("worker-1")
    killed = plant.pid("worker")
    os.kill(killed, signal.SIGKILL)
    process, output = plant.up()  # as the person does who sees that something is wrong
    assert process.wait(120) == 0, output.read_text()
    assert output.read_text().startswith("ALREADY")
    assert plant.pid("worker") != killed
    plant.finished_once("worker-1")
    assert plant.diary("worker-1").count("started") == 2


def test_a_killed_server_comes_back_and_the_retraining_ends_once(plant: Plant) -> None:
    plant.shift("server-1")
    killed = plant.pid("prefect")
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: plant.pid("prefect") != killed)
    plant.finished_once("server-1")


def test_killed_altogether_it_goes_on_at_the_next_start(plant: Plant) -> None:
    where = plant.where()
    plant.train_for(12)
    plant.shift("all-1")
    left = [Identity(**one) for one in read_record(plant.root)["processes"].values()]
    os.kill(read_record(plant.root)["supervisor"]["pid"], signal.SIGKILL)
    os.kill(plant.pid("worker"), signal.SIGKILL)
    plant.started[0].wait()
    assert running(plant.root) is None
    plant.up_ready()
    assert plant.where() == where
    assert not any(one.alive() for one in left)
    plant.finished_once("all-1")


def test_ctrl_c_ends_what_was_started_and_nothing_else(plant: Plant) -> None:
    plant.shift("ctrl-c-1")
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    supervisor = read_record(plant.root)["supervisor"]["pid"]
    (up,) = [process for process in plant.started if process.pid == supervisor]
    marked = by_variable(MARK)[str(plant.root)]
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
    assert by_variable(MARK).get(str(plant.root), []) == []
    assert all(port_is_free(port) for port in read_record(plant.root)["ports"].values())
    assert running(plant.root) is None
    assert "finished" not in plant.diary("ctrl-c-1")


def test_after_ctrl_c_another_port_is_taken_where_the_old_is_not_free(plant: Plant) -> None:
    taken = read_record(plant.root)["ports"]["page"]
    with socket.create_server(("127.0.0.1", taken)):
        process, output = plant.up(page=taken)
        assert process.wait(60) == 2
        assert f"ERROR the port {taken} for page is in use" in output.read_text()
        plant.up_ready()
        assert f":{taken}/" not in plant.where().page
        fetch(plant.where().page)
    plant.finished_once("ctrl-c-1")
    plant.started[-1].send_signal(signal.SIGTERM)
    assert plant.started[-1].wait(30) == 0


def test_a_service_that_cannot_start_is_named(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "server.db").write_text("this is no database")
    try:
        process, output = plant.up()
        assert process.wait(150) == 1
        assert "ERROR the service prefect ended with status" in output.read_text()
        assert str(tmp_path / "logs" / "prefect.log") in output.read_text()
        assert by_variable(MARK).get(str(tmp_path), []) == []
    finally:
        plant.end()


def test_a_named_port_must_be_one_and_one_of_its_own() -> None:
    for ports, said in (
        (Ports(page=70_000), "the port 70000 for page is none"),
        (Ports(prefect=free_port(), mlflow=0), "the port 0 for mlflow is none"),
        (Ports(**dict.fromkeys(("mlflow", "page"), free_port())), "is named twice"),
    ):
        with pytest.raises(BadConfig, match=said):
            choose_ports(ports, {})
    before = {"prefect": free_port(), "mlflow": free_port(), "page": free_port()}
    assert vars(choose_ports(Ports(), before)) == before
