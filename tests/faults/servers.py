"""Real processes of the production profile, each killed with -9 in the middle of a cycle; `make faults` runs it too.

    python -m tests.faults.servers [--only "postgres, worker"]

One system serves as many models as there are cases, and one more that nothing disturbs. A case lets its model's cycle
wait at a write, kills one process, lets the cycle go on or die, waits until the system is whole by itself (after the
death of all of it: until `softad up` was given again), runs the cycle once more, and compares what is there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from flows.context import Context, open_context
from flows.credentials import Secrets, service_variables
from flows.demo import after, drop
from flows.deployments import connected, deployments_of
from flows.services import MARK, Identity, answers, by_variable, end
from flows.supervisor import read_record
from flows.up import running
from softad.simulation import CATEGORICAL, CLASSES, NUMERIC, SLICES, InspectionLine
from tests.faults.points import HOLD, HOLD_MARK
from tests.integration.local_system import ROOT, wait_for
from tests.processes import lives

TARGETS = ("flow run", "worker", "prefect", "mlflow", "postgres", "everything")
POINTS = {"ingest": "after:append inspections", "register": "before:mlflow create_model_version"}
UNDISTURBED = "line-00"
WEEKS = (-2, -1, 0)
SERVICES = 5
RECOVERY = 90.0
"""Seconds in which the system must be whole again."""


@dataclass(frozen=True)
class Case:
    """One death: `wrong` says what was not as in the undisturbed model."""

    target: str
    stage: str
    model: str
    wrong: tuple[str, ...]
    recovered: float
    seconds: float


class System:
    """`softad up --profile production` for many models, as a process of its own."""

    def __init__(self, folder: Path, models: list[str]) -> None:
        self.folder, self.root = folder, folder / "workspace"
        self.line = InspectionLine(seed=5, rows_per_week=400)
        self.configs = {name: self._config(name) for name in models}
        self.started = 0
        self.up: Any = None

    def _config(self, name: str) -> Path:
        path = self.folder / f"{name}.yaml"
        document = {
            "name": name,
            "data": {"id": "id", "time": "time", "label": "label", "numeric": list(NUMERIC),
                     "categorical": list(CATEGORICAL), "slices": list(SLICES)},
            "task": {"classes": list(CLASSES), "normal": CLASSES[0]},
            "ingest": {"settle_seconds": 0.0, "inbox": f"inbox-{name}", "outbox": f"outbox-{name}"},
            "training": {"hidden": [16], "epochs": 8, "patience": 4, "learning_rate": 0.01, "thetas": [0.1]},
            "promotion": {"resamples": 200},
            # Only what a case asks for runs.
            "schedule": {"cycle": "0 0 1 1 *", "retrain": None, "maintain": None, "report": None},
            "services": {"profile": "production"},
        }  # fmt: skip
        path.write_text(yaml.safe_dump(document))
        return path

    def start(self) -> None:
        """Start it, and wait until it says that all is there."""
        import subprocess

        self.started += 1
        output = self.folder / f"up-{self.started}.txt"
        words = [word for path in self.configs.values() for word in ("--config", str(path))]
        with output.open("wb") as handle:
            self.up = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", "up", *words, "--workspace", str(self.root)],
                stdout=handle, stderr=subprocess.STDOUT, cwd=self.folder, start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
            )  # fmt: skip
        wait_for(lambda: "all services run" in output.read_text() or self.up.poll() is not None, seconds=400)
        if "all services run" not in output.read_text():
            raise SystemExit(output.read_text())
        where = running(self.root)
        assert where is not None
        os.environ |= service_variables(Secrets(self.root / "secrets", environment={}))
        os.environ |= {"PREFECT_API_URL": where.prefect_api, "MLFLOW_TRACKING_URI": where.mlflow}

    def end(self) -> None:
        """End whatever is left of it."""
        if self.up is not None and self.up.poll() is None:
            self.up.send_signal(signal.SIGINT)
            self.up.wait(120)
        end(by_variable(MARK).get(str(self.root), []), patience=0.0)

    def context(self, model: str) -> Context:
        return open_context(self.configs[model], self.root)

    def give_files(self, model: str) -> None:
        for week in WEEKS:
            drop(self.context(model), self.line, week)

    def cycle(self, model: str, **variables: str) -> Any:
        """Ask for a cycle, as the schedule would; returns the run's number."""
        with connected(None) as client:
            (found,) = [
                one for one in deployments_of(client, "softad")
                if one.name == model and one.entrypoint and one.entrypoint.endswith("cycle_flow")
            ]  # fmt: skip
            run = client.create_flow_run_from_deployment(
                found.id,
                parameters={**found.parameters, "now": after(self.line, 0).isoformat()},
                job_variables={"env": variables} if variables else None,
            )
        return run.id

    def state(self, run: Any) -> str | None:
        """The run's final state; None as long as it has none, or nobody can be asked."""
        import httpx

        try:
            with connected(None) as client:
                state = client.read_flow_run(run).state
        except httpx.HTTPError:
            return None
        return state.name if state is not None and state.is_final() else None

    def whole(self) -> bool:
        """Whether every service of the record lives and answers, and the system says that it is ready."""
        record, where = read_record(self.root), running(self.root)
        alive = [Identity(**one).alive() for one in record.get("processes", {}).values()]
        if where is None or len(alive) != SERVICES or not all(alive):
            return False
        return all(
            answers(url) for url in (f"{where.prefect_api}/health", f"{where.mlflow}/health", f"{where.page}health")
        )

    def said(self) -> str:
        """The last that the supervisor wrote."""
        return "\n".join((self.root / "logs" / "up.log").read_text().splitlines()[-12:])

    def content(self, model: str) -> dict[str, Any]:
        """What must be the same however often processes died on the way there."""
        from flows import ledger
        from flows.audit import verify

        context = self.context(model)
        store, tracker, place = context.store, context.tracker, context.workspace
        files = store.read("files", where="status = 'accepted'")
        runs = tracker.client.search_runs([tracker.experiment])
        versions = tracker.client.search_model_versions(f"name='{model}'")
        tables = ("files", "inspections", "labels", "quarantine", "predictions", "windows", "lives", "references")
        return {
            "rows": {table: store.count(table) for table in tables},
            "rows lost": int((files["read"] - files["accepted"] - files["quarantined"] - files["duplicates"]).sum()),
            "ids": int(store.sql("SELECT count(DISTINCT _id) AS n FROM inspections")["n"].iloc[0]),
            "predicted": int(store.sql("SELECT count(DISTINCT _id) AS n FROM predictions")["n"].iloc[0]),
            "champion": tracker.champion(),
            "versions": sorted(str(one.version) for one in versions),
            "unfinished": sorted(one.info.run_id for one in runs if one.info.status == "RUNNING"),
            "ledger": sorted([entry.action, str(entry.subject)] for entry in ledger.read(store)),
            "faults of the ledger": list(verify(store).faults),
            "inbox": len(list(place.inbox.rglob("*.csv"))),
            "page": (place.page / "index.html").exists(),
        }


def _victims(system: System, target: str, run: int) -> list[int]:
    record = read_record(system.root)
    services = {name: one["pid"] for name, one in record["processes"].items()}
    if target == "flow run":
        return [run]
    if target == "everything":
        return [record["supervisor"]["pid"], *services.values(), run]
    return [services[target]]


def disturbed(system: System, target: str, stage: str, model: str, expected: dict[str, Any]) -> Case:
    """One case."""
    begun, wrong = time.monotonic(), []
    system.give_files(model)
    mark = system.folder / f"{model}.mark"
    path = os.pathsep.join([str(Path(__file__).parent / "hook"), str(ROOT)])
    first = system.cycle(model, **{HOLD: POINTS[stage], HOLD_MARK: str(mark), "PYTHONPATH": path})
    wait_for(lambda: mark.exists() or system.state(first), seconds=180)
    if not mark.exists():
        raise SystemExit(f"{target} at {stage}: the cycle did not come to the point ({system.state(first)})")
    if not _within(system.whole, 30.0):
        raise SystemExit(
            f"{target} at {stage}: a service was not there to be killed; the end of up.log:\n{system.said()}"
        )
    victims = _victims(system, target, int(mark.read_text()))
    for victim in victims:
        # All were there just now; a run may die of its worker's death before its own turn comes.
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    wait_for(lambda: not any(lives(victim) for victim in victims), seconds=20)
    mark.unlink()
    if target == "everything":
        system.up.wait()
        system.start()
    recovered = _whole_since(system) - killed
    if recovered > RECOVERY:
        wrong.append(f"the system was not whole after {RECOVERY:g} s")
    if not _within(lambda: system.state(first) is not None, 180.0):
        wrong.append("the cycle's run is left as running")
    again = system.cycle(model)
    if not _within(lambda: system.state(again) is not None, 240.0) or system.state(again) != "Completed":
        wrong.append(f"the cycle run again ended as {system.state(again)}")
    found = system.content(model)
    wrong += [f"{part}: {found[part]} instead of {value}" for part, value in expected.items() if found[part] != value]
    return Case(target, stage, model, tuple(wrong), round(recovered, 1), round(time.monotonic() - begun, 1))


def _whole_since(system: System) -> float:
    """Since when it has been whole for three seconds: children of a dead server may answer for a moment longer."""
    since, until = None, time.monotonic() + RECOVERY + 3.0
    while time.monotonic() < until:
        whole = system.whole()
        since = (since or time.monotonic()) if whole else None
        if since is not None and time.monotonic() - since > 3.0:
            return since
        time.sleep(0.3)
    return math.inf


def _within(done: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if done():
            return True
        time.sleep(0.3)
    return done()


@contextmanager
def _system(models: list[str]) -> Iterator[System]:
    # Not below a folder of this user's own: where this is root, PostgreSQL runs as somebody else.
    folder = Path(tempfile.mkdtemp(prefix="softad-deaths-"))
    folder.chmod(0o755)
    system = System(folder, models)
    try:
        system.start()
        yield system
    finally:
        system.end()
        shutil.rmtree(folder, ignore_errors=True)


def run(targets: list[str], say: Callable[[str], None]) -> list[Case]:
    """All cases of these targets, one after the other."""
    wanted = [(target, stage) for target in targets for stage in POINTS]
    models = [UNDISTURBED, *(f"line-{number:02d}" for number in range(1, len(wanted) + 1))]
    found: list[Case] = []
    with _system(models) as system:
        system.give_files(UNDISTURBED)
        calm = system.cycle(UNDISTURBED)
        wait_for(lambda: system.state(calm), seconds=240)
        expected = system.content(UNDISTURBED)
        if expected["champion"] != "1" or expected["inbox"]:
            raise SystemExit(f"the undisturbed cycle made no champion: {expected}")
        for (target, stage), model in zip(wanted, models[1:], strict=True):
            case = disturbed(system, target, stage, model, expected)
            say(f"{target:<11} {stage:<9} {'; '.join(case.wrong) or 'as undisturbed'} "
                f"(whole after {case.recovered:g} s, {case.seconds:g} s in all)")  # fmt: skip
            found.append(case)
    return found


def main() -> None:
    """Print each case as it ends; status 1 where one ended otherwise than the undisturbed model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default=",".join(TARGETS), help="processes, with commas between")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if shutil.which("postgres") is None:
        print("deaths of real processes: left out, PostgreSQL's programs are not on the path")
        return
    targets = [word.strip() for word in options.only.split(",")]
    if unknown := set(targets) - set(TARGETS):
        raise SystemExit(f"no such process: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    found = run(targets, lambda line: print(line, flush=True))
    if options.json:
        options.json.write_text(json.dumps([asdict(case) for case in found], indent=1))
    bad = [case for case in found if case.wrong]
    print(f"{len(found)} deaths of real processes, {len(bad)} of them ended otherwise than the undisturbed cycle")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
