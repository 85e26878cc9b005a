"""A workspace whose local system runs as a process of its own, with the small flows in place of the real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.deployments import connected, deployments_of
from flows.errors import Unavailable
from flows.events import Shift, emit_shift
from flows.local_services import Addresses
from flows.services import MARK, by_variable, end
from flows.supervisor import read_record
from flows.up import running

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
        source=FlowSource(Path(here), "small_flows.py:cycle_flow", "small_flows.py:retrain_flow", None, None),
    ))
except PipelineError as error:
    print("ERROR", error, flush=True)
    sys.exit(error.exit_status)
"""


class LocalSystem:
    """A workspace with one model, and what is started in it."""

    def __init__(self, root: Path, environment: Mapping[str, str] | None = None) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.environment = {**(os.environ if environment is None else environment)}
        self.environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [self.environment.get("PYTHONPATH", ""), str(ROOT)])
        )
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
                env=self.environment,
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
        """End all of it at once, as a power cut would."""
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
