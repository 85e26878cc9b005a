"""`softad run` on a day of 2,000 rows where nothing shifted, against a process that imports the same and does nothing.

Both are whole processes on the same workspace, in turn; what is compared is the time from start to end.
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
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
MOST_EXTRA_SECONDS, MOST_SECONDS = 4.0, 35.0

EMPTY = """
import os, sys
os.environ["PREFECT_HOME"] = sys.argv[1]
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
import flows
import torch, mlflow, mlflow.pyfunc, great_expectations, pandas, deltalake, duckdb, rich, typer
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from flows.cycle import STEPS
from flows.embedded import quick_settings

@task(cache_policy=NO_CACHE)
def step():
    pass

@flow(name="empty")
def empty():
    for name, _ in STEPS:
        step.with_options(name=name)()

with quick_settings():
    empty()
"""


def prepare(folder: Path) -> Path:
    """A workspace with a champion, eight weeks of history and one judged week."""
    workspace = folder / "workspace"
    subprocess.run(
        [sys.executable, "-m", "flows.cli", "demo", "--weeks", "1", "--change", "none", "--workspace", str(workspace),
         "--json"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return workspace


def one_day(workspace: Path, day: int) -> str:
    """Drop a day of 2,000 rows without labels into the inbox; the time that the run takes as its present."""
    from datetime import timedelta

    from softad.simulation import InspectionLine

    line = InspectionLine(seed=1, rows_per_week=14_000)
    week = line.week(2 + day)
    rows = week.inspections.iloc[:2000]
    rows.to_csv(workspace / "inbox" / f"day-{day}.csv", index=False)
    os.utime(workspace / "inbox" / f"day-{day}.csv", (time.time() - 60, time.time() - 60))
    start = line.start + timedelta(weeks=1 + day, days=1)
    return f"{start:%Y-%m-%d}T12:00:00"


def timed(command: list[str]) -> float:
    """Seconds from start to end of a process."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="softad-bench-"))
    try:
        workspace = prepare(folder)
        run_seconds, empty_seconds = [], []
        for day in range(options.pairs):
            now = one_day(workspace, day)
            command = [sys.executable, "-m", "flows.cli", "run", "--workspace", str(workspace), "--now", now]
            run_seconds.append(timed(command))
            empty_seconds.append(timed([sys.executable, "-c", EMPTY, str(workspace / "prefect")]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    run, empty = statistics.median(run_seconds), statistics.median(empty_seconds)
    extra = statistics.median(a - b for a, b in zip(run_seconds, empty_seconds, strict=True))
    table = Table("what", "reached", "at most")
    table.add_row("softad run, 2,000 rows, nothing shifted (s)", f"{run:.1f}", f"{MOST_SECONDS:.0f}")
    table.add_row("same imports, empty flow of as many tasks (s)", f"{empty:.1f}", "")
    table.add_row("difference, median of pairs (s)", f"{extra:.1f}", f"{MOST_EXTRA_SECONDS:.0f}")
    Console().print(table)
    RESULTS.mkdir(exist_ok=True)
    document = {"run": run_seconds, "empty": empty_seconds, "extra": extra}
    (RESULTS / "cycle.json").write_text(json.dumps(document, indent=2))
    return 0 if extra <= MOST_EXTRA_SECONDS and run <= MOST_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
