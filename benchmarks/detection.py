"""When does each detector cry wolf, what does it miss, and how late is it: whole lives of 52 windows, in bulk.

    python benchmarks/detection.py --quick      fewer lives, a few minutes, to benchmarks/results/
    python benchmarks/detection.py              the full run; then docs/detection.json, docs/detection.md, its pictures
    python benchmarks/detection.py --page       only the page, from docs/detection.json

A run that was interrupted goes on where it was: each cell is kept as soon as it is done.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the processes are the parallelism
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.detection_cells import (
    CELLS,
    CHANGED,
    FULL,
    LAWS,
    PARTS,
    QUICK,
    WANDERING,
    Size,
    at_ages,
    by_lots,
    by_ranks,
    changed,
    chosen,
    cost,
    through_class,
    wandering,
)  # fmt: skip
from benchmarks.detection_named import CASES, which_is_named
from benchmarks.detection_page import write_page

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
THROUGH_CLASS = dict(zip(LAWS, ((200, 50), (500, 200), (2000, 200)), strict=True))
"""Rows of the reference and of a window for each law."""

Task = tuple[Callable[..., dict[str, Any]], tuple[Any, ...]]


def first_tasks() -> dict[str, Task]:
    """Cells in which nothing changes, in the order of their weight for the page."""
    calm: dict[str, Task] = {f"changed/{n}/{m}/none/1.0": (changed, (n, m, "none", 1.0)) for n, m in CELLS}
    ranks: dict[str, Task] = {f"ranks/{n}/{m}": (by_ranks, (n, m)) for n in (200, 500, 2000) for m in (50, 200, 1000)}
    return calm | ranks


def later_tasks(cells: dict[str, Any]) -> dict[str, Task]:
    """The others; those that change need what was found in the calm ones."""
    weeks: dict[str, Task] = {
        f"weeks/{kind}/{reference}": (wandering, (kind, reference))
        for kind in WANDERING
        for reference in (2000, 10_000)
    }
    lots: dict[str, Task] = {f"lots/{n}/{m}": (by_lots, (n, m)) for n in (50, 100) for m in (200, 1000)}
    different: dict[str, Task] = {
        f"changed/{n}/{m}/{change}/{strength}": (changed, (n, m, change, strength, cells[f"changed/{n}/{m}/none/1.0"]))
        for n, m in CELLS
        for change, strength in CHANGED
    }
    slow: dict[str, Task] = {"ages": (at_ages, ()), "cost": (cost, ())} | {
        f"chosen/{part}": (chosen, (part,)) for part in (0, 1)
    }
    whole: dict[str, Task] = {
        f"class/{law}/{n}/{m}/{part}": (through_class, (law, n, m, part))
        for part in range(PARTS)
        for law, (n, m) in THROUGH_CLASS.items()
    }
    machines: dict[str, Task] = {
        f"named/{factor}/{rows}/{'all' if everywhere else 'one'}": (which_is_named, (factor, rows, everywhere))
        for factor, rows, everywhere in CASES
    }
    return weeks | lots | different | slow | machines | whole


def run_task(name: str, task: Task, size: Size) -> tuple[str, dict[str, Any], float]:
    """One cell, with the seconds that it took."""
    function, arguments = task
    started = time.perf_counter()
    if function is changed and len(arguments) == 5:
        found = function(*arguments[:4], size, arguments[4])
    else:
        found = function(*arguments, size)
    return name, found, time.perf_counter() - started


def collect(kept: Path, size: Size, workers: int) -> dict[str, Any]:
    """Run what `kept` does not hold yet; it is replaced after every cell."""
    document = json.loads(kept.read_text()) if kept.exists() else {"size": asdict(size), "seconds": {}, "cells": {}}
    if document["size"] != asdict(size):
        raise SystemExit(f"{kept} was begun with other numbers of lives; remove it to begin again")
    cells = document["cells"]
    with Progress(console=Console(stderr=True)) as progress, ProcessPoolExecutor(workers) as pool:
        for stage in (first_tasks, lambda: later_tasks(cells)):
            tasks = {name: task for name, task in stage().items() if name not in cells}
            line = progress.add_task("cells", total=len(tasks))
            futures = [pool.submit(run_task, name, task, size) for name, task in tasks.items()]
            for future in as_completed(futures):
                name, found, seconds = future.result()
                cells[name], document["seconds"][name] = found, round(seconds, 1)
                part = kept.with_suffix(".part")
                part.write_text(json.dumps(document, separators=(",", ":")))
                part.replace(kept)
                progress.update(line, advance=1, description=name)
    return document


def main(argv: list[str] | None = None) -> int:
    """Run, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer lives")
    parser.add_argument("--page", action="store_true", help="write the page from the kept JSON, run nothing")
    parser.add_argument("--again", action="store_true", help="forget what an interrupted run has kept")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args(argv)
    if options.page:
        write_page(json.loads((DOCS / "detection.json").read_text()), DOCS)
        return 0
    name = "detection-quick" if options.quick else "detection"
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    kept = results / f"{name}.json"
    if options.again:
        kept.unlink(missing_ok=True)
    started = time.perf_counter()
    document = collect(kept, QUICK if options.quick else FULL, options.workers)
    Console().print(f"{len(document['cells'])} cells in {time.perf_counter() - started:.0f} s")
    target = results / name if options.quick else DOCS
    target.mkdir(exist_ok=True)
    (target / "detection.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")
    kept.unlink()
    Console().print(f"written: {write_page(document, target)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
