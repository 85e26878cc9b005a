"""The stage `monitor` on one window of 1,000,000 rows and 30 columns, with the report in JSON and HTML, against
Evidently's default drift preset on the same rows.

Each is a process of its own: time from the open tables to the recorded verdict, and the largest memory it ever held.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from flows.context import Context

RESULTS = Path(__file__).parent / "results"
MOST_SECONDS, MOST_BYTES = 60.0, 2e9
NUMERIC = [f"x{number:02d}" for number in range(27)]
CATEGORICAL = ["machine", "line", "product"]
TRAINING_ROWS = 8_000
NOW = datetime(2026, 3, 2, tzinfo=UTC)


def rows_of(first: int, count: int) -> pd.DataFrame:
    """Rows of a plant with twelve machines; M07's are mislabelled more often than the others' after the training."""
    rng = np.random.default_rng(first)
    machine = rng.integers(0, 12, count)
    frame = pd.DataFrame({name: rng.normal(size=count).round(4) for name in NUMERIC})
    frame["machine"] = np.char.add("M", np.char.zfill((machine + 1).astype(str), 2))
    frame["line"] = np.array(["L1", "L2", "L3"])[machine // 4]
    frame["product"] = rng.choice(["P1", "P2", "P3", "P4"], count)
    score = frame["x00"] + 0.5 * frame["x01"] + rng.normal(0, 0.5, count)
    frame["label"] = np.where(score > 1.2, "defect", "ok")
    if first:
        flipped = (machine == 6) & (rng.random(count) < 0.8)
        frame.loc[flipped, "label"] = np.where(frame.loc[flipped, "label"] == "ok", "defect", "ok")
    return frame


def open_workspace(folder: Path, rows: int) -> Context:
    """The context of the benchmark's workspace."""
    from flows.context import Context
    from flows.settings import Settings
    from flows.workspace import Workspace

    settings = Settings.model_validate({
        "name": "bench",
        "data": {"label": "label", "numeric": NUMERIC, "categorical": CATEGORICAL, "slices": CATEGORICAL,
                 "window": {"rows": rows + TRAINING_ROWS}},
        "task": {"classes": ["ok", "defect"], "normal": "ok"},
        "training": {"hidden": [16], "epochs": 6, "patience": 3, "thetas": [0.2], "learning_rate": 0.01},
        "monitoring": {"label_age_days": 0.0, "html_reports": 8},
    })  # fmt: skip
    return Context(settings, Workspace.open(folder / "workspace", settings=settings))


def fill(context: Context, first: int, count: int, at: datetime) -> None:
    """Rows and their labels, as an ingest leaves them."""
    frame = rows_of(first, count)
    ids = [f"part-{number:07d}" for number in range(first, first + count)]
    own = pd.DataFrame({
        "_id": ids, "_time": pd.Series([pd.NaT] * count, dtype="datetime64[us, UTC]"), "_at": at,
        "_seq": np.arange(first, first + count), "_version": 1, "_hash": ids, "_file": f"sha-{first}",
        "_row": np.arange(1, count + 1),
    })  # fmt: skip
    columns = frame.drop(columns="label")
    context.store.append("inspections", pd.concat([own, columns], axis=1), key=f"rows-{first}")
    labels = pd.DataFrame({
        "_id": ids, "label": frame["label"], "_time": at, "_version": 1, "_file": f"sha-{first}",
        "_row": np.arange(1, count + 1),
    })  # fmt: skip
    context.store.append("labels", labels, key=f"labels-{first}")


def prepare(folder: Path, rows: int) -> None:
    """A champion, and a scored window that waits to be judged."""
    from flows.respond import ensure_champion
    from flows.score import score_rows

    context = open_workspace(folder, rows)
    fill(context, 0, TRAINING_ROWS, NOW - timedelta(days=20))
    actions, notes = ensure_champion(context, now=NOW - timedelta(days=19))
    if not [action for action in actions if action.promoted]:
        raise RuntimeError(f"no champion: {notes}")
    for first in range(TRAINING_ROWS, TRAINING_ROWS + rows, 100_000):
        fill(context, first, min(100_000, TRAINING_ROWS + rows - first), NOW - timedelta(days=2))
    score_rows(context.store, context.tracker, context.settings, context.workspace, now=NOW - timedelta(days=1))


def stage(folder: Path, rows: int) -> dict[str, Any]:
    """Judge the window, as a cycle does."""
    from flows.monitor import close_windows

    context = open_workspace(folder, rows)
    begun, cpu = time.perf_counter(), time.process_time()
    [outcome] = close_windows(context, now=NOW)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    html = (context.workspace.reports / str(outcome.report)).with_suffix(".html")
    return {"seconds": seconds, "cpu_seconds": cpu, "bytes": peak(), "rows": outcome.labelled,
            "verdict": outcome.verdict, "value": outcome.details["value"],
            "html_bytes": html.stat().st_size}  # fmt: skip


def preset(folder: Path, rows: int) -> dict[str, Any]:
    """Evidently's default drift preset on the same rows and the same reference, with its HTML."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    from flows.lives import current_life
    from flows.reference import reference_rows
    from flows.store import current_rows

    context = open_workspace(folder, rows)
    life = current_life(context.store)
    if life is None:
        raise RuntimeError("the workspace has no life")
    begun, cpu = time.perf_counter(), time.process_time()
    columns = [*NUMERIC, *CATEGORICAL]
    reference = reference_rows(context, life)[columns]
    current = current_rows(context.store, columns=columns, where=f"_seq > {life.after_seq}")
    definition = DataDefinition(numerical_columns=NUMERIC, categorical_columns=CATEGORICAL)
    now, then = (Dataset.from_pandas(frame, definition) for frame in (current, reference))
    page = Report([DataDriftPreset()]).run(now, then).get_html_str(as_iframe=False)
    return {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - cpu, "bytes": peak(),
            "rows": len(current), "html_bytes": len(page)}  # fmt: skip


def peak() -> int:
    """The largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def child(what: str, folder: Path, rows: int) -> dict[str, Any]:
    """Run one part in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.monitoring", "--rows", str(rows), "--part", what, str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--part", nargs=2, metavar=("PART", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    parts = {"prepare": prepare, "stage": stage, "preset": preset}
    if options.part:
        print(json.dumps(parts[options.part[0]](Path(options.part[1]), options.rows) or {}))
        return 0
    folder = Path(tempfile.mkdtemp(prefix="softad-bench-"))
    try:
        child("prepare", folder, options.rows)
        ours, theirs = child("stage", folder, options.rows), child("preset", folder, options.rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    table = Table("what", "seconds", "of them computing", "GB at most", "report, MB")
    for name, found in (("monitor stage with the report", ours), ("Evidently's default drift preset", theirs)):
        table.add_row(
            name,
            f"{found['seconds']:.1f}",
            f"{found['cpu_seconds']:.1f}",
            f"{found['bytes'] / 1e9:.2f}",
            f"{found['html_bytes'] / 1e6:.1f}",
        )
    Console().print(table)
    print(f"{ours['rows']:,} rows x {len(NUMERIC) + len(CATEGORICAL)} columns: {ours['verdict']} {ours['value']}")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "monitoring.json").write_text(json.dumps({"stage": ours, "preset": theirs}, indent=2) + "\n")
    reached = ours["seconds"] <= MOST_SECONDS and ours["bytes"] <= MOST_BYTES
    return 0 if reached or options.rows < 1_000_000 else 1


if __name__ == "__main__":
    sys.exit(main())
