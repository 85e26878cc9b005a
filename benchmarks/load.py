"""Load: many files at once, many models, five years of weeks, and what the servers keep in memory over 100 cycles.

    python -m benchmarks.load                 all four, an hour
    python -m benchmarks.load files models    some of them
    python -m benchmarks.load --quick         a tenth of each, which shows that it runs and no more

Cycles run without servers, as `softad run` does, but for the last part, which starts `softad up`. Training is cut
short, since its time is a retraining's, not a load's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
FILES_SECONDS, GROWTH, SLOPE_MB = 120.0, 1.5, 0.1
ROWS_PER_WEEK = 400


@dataclass(frozen=True)
class Amount:
    """How much of everything."""

    files: int = 200
    models: int = 50
    weeks: int = 260
    cycles: int = 100
    warm: int = 20


class Plant:
    """Models in one workspace, each with a line of its own, whose weeks are run one by one."""

    def __init__(self, workspace: Path, names: list[str], *, rows: int = ROWS_PER_WEEK) -> None:
        import yaml

        from flows.demo import write_demo_config
        from flows.embedded import prepare_environment
        from softad.simulation import InspectionLine

        self.workspace, self.names = workspace, names
        workspace.mkdir(parents=True)
        whole = yaml.safe_load(write_demo_config(workspace).read_text())
        for name in names:
            mine = whole | {"name": name, "training": {"epochs": 3, "thetas": [0.5], "batch_size": 512}}
            mine["ingest"] = mine["ingest"] | {"inbox": f"inbox/{name}", "outbox": f"outbox/{name}"}
            (workspace / f"{name}.yaml").write_text(yaml.safe_dump(mine))
        self.lines = {name: InspectionLine(seed=seed, rows_per_week=rows) for seed, name in enumerate(names)}
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
        prepare_environment(workspace / "prefect")

    def context(self, name: str) -> Any:
        """The model as a cycle opens it: anew each time, as another process would."""
        from flows.context import open_context

        return open_context(self.workspace / f"{name}.yaml", self.workspace)

    def drop(self, name: str, week: int) -> None:
        """Put a week's rows and labels into a model's inbox."""
        from flows.demo import drop

        drop(self.context(name), self.lines[name], week)

    def after(self, name: str, week: int) -> datetime:
        """When a week is judged."""
        from flows.demo import after

        return after(self.lines[name], week)

    def week(self, name: str, week: int) -> float:
        """Seconds of the cycle of one model and week; week 0 brings its history with it."""
        from flows.commands import run_cycle
        from flows.demo import HISTORY

        for number in range(-HISTORY + 1, 1) if week == 0 else (week,):
            self.drop(name, number)
        context = self.context(name)
        begun = time.perf_counter()
        report = run_cycle(self.workspace / f"{name}.yaml", context, now=self.after(name, week))
        if report.status:
            raise SystemExit(f"{name}, week {week}: status {report.status}, {report.notes}")
        return time.perf_counter() - begun


def files_at_once(folder: Path, amount: Amount) -> dict[str, Any]:
    """So many files of 2,000 rows in the inbox, and again the same: taken in once."""
    from flows.demo import after, drop
    from flows.ingest import ingest_inbox

    plant = Plant(folder / "files", ["line"], rows=2_000)
    context, line = plant.context("line"), plant.lines["line"]
    for week in range(1, amount.files + 1):
        drop(context, line, week)
    labels = context.workspace.inbox / "labels"
    shutil.rmtree(labels)
    kept = folder / "kept"
    shutil.copytree(context.workspace.inbox, kept)

    def take_in() -> tuple[float, list[Any]]:
        begun = time.perf_counter()
        reports = ingest_inbox(context.settings, context.store, context.workspace, now=after(line, amount.files + 1))
        return time.perf_counter() - begun, reports

    seconds, reports = take_in()
    first = context.store.count("inspections")
    shutil.copytree(kept, context.workspace.inbox, dirs_exist_ok=True)
    again, _ = take_in()
    sums = {
        name: sum(getattr(one, name) for one in reports) for name in ("read", "accepted", "quarantined", "duplicates")
    }
    return {
        "files": len(reports), "seconds": seconds, "again_seconds": again, **sums,
        "once": first == sums["accepted"] == context.store.count("inspections")
        and sums["read"] == sums["accepted"] + sums["quarantined"] + sums["duplicates"],
    }  # fmt: skip


def many_models(folder: Path, amount: Amount) -> dict[str, Any]:
    """A model's cycle when it is alone, and when so many share the workspace, the registry and the page."""
    plant = Plant(folder / "models", [f"line-{number:02d}" for number in range(amount.models)])
    first = plant.names[0]
    plant.week(first, 0)
    alone = [plant.week(first, week) for week in range(1, 8)]
    for name in track(plant.names[1:], description="models", console=Console(stderr=True)):
        plant.week(name, 0)
    among = [plant.week(first, week) for week in range(8, 15)]
    return {"models": amount.models, "alone": alone, "among": among}


def years_of_weeks(folder: Path, amount: Amount) -> dict[str, Any]:
    """Week after week: seconds of each cycle."""
    plant = Plant(folder / "years", ["line"])
    seconds = []
    plant.week("line", 0)
    for week in track(range(1, amount.weeks + 1), description="weeks", console=Console(stderr=True)):
        seconds.append(plant.week("line", week))
        _watch_on(plant)
    return {"weeks": amount.weeks, "seconds": seconds}


def _watch_on(plant: Plant) -> None:
    """What people do in such years: an alarm is answered, and a watch that is over begins anew."""
    from flows.following import ended_at
    from flows.incidents import open_incidents
    from flows.monitor import outcomes
    from flows.people import close_incident, renew_watch

    context, config = plant.context("line"), plant.workspace / "line.yaml"
    alarms = [one.key for one in open_incidents(context.store)]
    for key in alarms:
        close_incident(config, plant.workspace, key=key, reason="noise", by="benchmark")
    if not alarms and ended_at(context, outcomes(context)) is not None:
        renew_watch(config, plant.workspace, reason="a year went by", by="benchmark")


def servers_over_cycles(folder: Path, amount: Amount) -> dict[str, Any]:
    """`softad up`, and week after week through its worker: what each process that stays holds after each cycle."""
    from flows.deployments import POOL, connected, deployments_of
    from flows.supervisor import read_record
    from flows.up import running

    plant = Plant(folder / "up", ["line"])
    config = plant.workspace / "line.yaml"
    config.write_text(config.read_text() + "schedule: {cycle: 'interval:864000', retrain: null}\n")
    plant.week("line", 0)
    command = [sys.executable, "-m", "flows.cli", "up", "--config", str(config), "--workspace", str(plant.workspace)]
    memory: dict[str, list[float]] = {}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as up:
        try:
            where = _until(lambda: running(plant.workspace))
            pids = {"up": up.pid} | {
                name: int(one["pid"]) for name, one in read_record(plant.workspace)["processes"].items()
            }
            with connected(where.prefect_api) as client:
                cycle = next(one for one in deployments_of(client, POOL) if "cycle" in one.entrypoint)
                for week in track(range(1, amount.cycles + 1), description="cycles", console=Console(stderr=True)):
                    plant.drop("line", week)
                    parameters = {**cycle.parameters, "now": plant.after("line", week).isoformat()}
                    run = client.create_flow_run_from_deployment(cycle.id, parameters=parameters)
                    state = _until(lambda run=run: _final(client.read_flow_run(run.id).state))
                    if not state.is_completed():
                        raise SystemExit(f"week {week}: {state}")
                    for name, pid in pids.items():
                        memory.setdefault(name, []).append(psutil.Process(pid).memory_info().rss / 1e6)
        finally:
            up.terminate()
    return {"cycles": amount.cycles, "warm": amount.warm, "memory": memory}


def _final(state: Any) -> Any:
    return state if state is not None and state.is_final() else None


def _until(found: Callable[[], Any], seconds: float = 300.0) -> Any:
    last = time.monotonic() + seconds
    while (value := found()) is None:
        if time.monotonic() > last:
            raise SystemExit(f"nothing came in {seconds:.0f} s")
        time.sleep(0.5)
    return value


def judged(name: str, found: dict[str, Any]) -> list[tuple[str, float, float]]:
    """What was reached, as (what, figure, at most)."""
    if name == "files":
        count, rows = found["files"], found["read"]
        return [
            (f"{count} files, {rows:,} rows, at once (s)", found["seconds"], FILES_SECONDS),
            ("rows lost or doubled, 0 or 1", 0.0 if found["once"] else 1.0, 0.0),
        ]
    if name == "models":
        growth = statistics.median(found["among"]) / statistics.median(found["alone"])
        return [(f"cycle of one among {found['models']} models, against alone", growth, GROWTH)]
    if name == "weeks":
        early, late = (statistics.median(part) for part in (found["seconds"][5:20], found["seconds"][-15:]))
        return [(f"cycle after {found['weeks']} weeks, against weeks 6 to 20", late / early, GROWTH)]
    warm = found["warm"]
    return [
        (f"{process}: memory a cycle after the first {warm} (MB)", _slope(held[warm:]), SLOPE_MB)
        for process, held in found["memory"].items()
    ]


def _slope(held: list[float]) -> float:
    return float(np.polyfit(np.arange(len(held)), held, 1)[0])


PARTS: dict[str, Callable[[Path, Amount], dict[str, Any]]] = {
    "files": files_at_once,
    "models": many_models,
    "weeks": years_of_weeks,
    "servers": servers_over_cycles,
}


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="which; all when not given")
    parser.add_argument("--quick", action="store_true", help="a tenth of each")
    options = parser.parse_args(argv)
    amount = Amount(files=20, models=5, weeks=26, cycles=10, warm=3) if options.quick else Amount()
    names = options.parts or list(PARTS)
    if len(names) > 1:
        # A process each: the embedded server of a part keeps its files in that part's folder, which goes with it.
        words = ["--quick"] if options.quick else []
        return max(
            [subprocess.run([sys.executable, "-m", "benchmarks.load", name, *words], check=False).returncode
             for name in names]
        )  # fmt: skip
    from flows.embedded import quick_settings

    (name,) = names
    folder = Path(tempfile.mkdtemp(prefix="softad-load-"))
    try:
        with quick_settings():
            found = PARTS[name](folder, amount)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    lines = judged(name, found)
    table = Table("what", "reached", "at most")
    for what, reached, most in lines:
        table.add_row(what, f"{reached:.3g}", f"{most:g}")
    Console().print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"load-{name}{'-quick' if options.quick else ''}.json").write_text(json.dumps(found, indent=2))
    return 0 if options.quick or all(reached <= most for _, reached, most in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
