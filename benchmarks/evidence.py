"""When does SoftAD help, and when not: every objective and the plain baselines, on many sets, chosen by one rule.

    python benchmarks/evidence.py --quick      two seeds, a quarter of the epochs, to benchmarks/results/
    python benchmarks/evidence.py              five seeds; then docs/evidence.json, docs/evidence.md and its pictures
    python benchmarks/evidence.py --recommend  pilot studies where docs/evidence.json has none, and the page
    python benchmarks/evidence.py --further    the methods of `FURTHER` where docs/evidence.json has none, and the page
    python benchmarks/evidence.py --page       only the page, from docs/evidence.json

A run that was interrupted goes on where it was: each set and seed is kept as soon as it is done. The real sets are
taken where SOFTAD_DATA names their folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from benchmarks.evidence_methods import (
    FURTHER,
    TO_THE_END,
    choose,
    further_settings,
    pilot_check,
    records,
    settings,
)
from benchmarks.evidence_page import write_page
from benchmarks.evidence_sets import DataSet, all_sets

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
PROTOCOLS = {"to the end": False, "early stopping": True}


def one_seed(data: DataSet, seed: int, *, quick: bool, pilots: bool) -> dict[str, Any]:
    """All methods on one seed of a set: per protocol the chosen setting of each method, and SoftAD's thetas."""
    rows = data.make(seed)
    found: dict[str, Any] = {}
    for protocol, stop in PROTOCOLS.items():
        tried = settings(quick or data.model == "cnn")
        if not stop:
            tried = [setting for setting in tried if setting.method in TO_THE_END]
        every = list(records(data, rows, seed, tried, stop=stop, quick=quick))
        by_method: dict[str, list[dict[str, Any]]] = {}
        for record in every:
            by_method.setdefault(record["method"], []).append(record)
        found[protocol] = {
            "chosen": {method: choose(tried) for method, tried in by_method.items()},
            "thetas": [
                {"theta": record["theta"], "before": record["before"], "after": record["after"],
                 "balanced accuracy": record["balanced accuracy"]}
                for record in by_method["SoftAD"] if "sigma" not in record["setting"]
            ],
        }  # fmt: skip
    if pilots:
        found["recommendation"] = pilot_check(data, rows, seed, quick=quick)
    return found


def rounded(value: Any) -> Any:
    """Five digits are more than the page shows, and keep the file small."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list | tuple) else value


def keep(document: dict[str, Any], path: Path) -> None:
    """Write all that was found, in one step."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document, separators=(",", ":")) + "\n")
    part.replace(path)


def lacking(
    document: dict[str, Any], sets: list[DataSet], done: Callable[[dict[str, Any]], bool]
) -> list[tuple[DataSet, str]]:
    """The kept seeds of sets of tables that lack something."""
    return [
        (data, seed)
        for data in sets
        if data.model != "cnn"
        for seed, held in document["sets"].get(data.name, {"seeds": {}})["seeds"].items()
        if not done(held)
    ]


def collect(kept: Path, sets: list[DataSet], seeds: int, *, quick: bool, pilots: bool) -> dict[str, Any]:
    """Run what `kept` does not hold yet; it is replaced after every seed."""
    document = json.loads(kept.read_text()) if kept.exists() else {"seeds": seeds, "quick": quick, "sets": {}}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("evidence", total=len(sets) * seeds)
        for data in sets:
            held = document["sets"].setdefault(data.name, {"title": data.title, "seconds": 0.0, "seeds": {}})
            for seed in range(seeds):
                progress.update(task, description=f"{data.title}, seed {seed}")
                if str(seed) not in held["seeds"]:
                    started = time.perf_counter()
                    held["seeds"][str(seed)] = rounded(one_seed(data, seed, quick=quick, pilots=pilots))
                    held["seconds"] = round(held["seconds"] + time.perf_counter() - started, 1)
                    keep(document, kept)
                progress.advance(task)
    return document


def recommend(document: dict[str, Any], sets: list[DataSet], kept: Path) -> None:
    """Add what a pilot study recommends to the seeds that lack it; `kept` is replaced after each."""
    waiting = lacking(document, sets, lambda held: held.get("recommendation") is not None)
    with Progress(console=Console(stderr=True)) as progress:
        for data, seed in progress.track(waiting, description="pilot studies"):
            held = document["sets"][data.name]["seeds"][seed]
            held["recommendation"] = rounded(pilot_check(data, data.make(int(seed)), int(seed), quick=False))
            keep(document, kept)


def further(document: dict[str, Any], sets: list[DataSet], kept: Path) -> None:
    """Add the methods of `FURTHER` to the seeds that lack them; `kept` is replaced after each."""
    waiting = lacking(document, sets, lambda held: set(FURTHER) <= set(held["early stopping"]["chosen"]))
    with Progress(console=Console(stderr=True)) as progress:
        for data, seed in progress.track(waiting, description="further methods"):
            plain, rows = replace(data, sharp=False), data.make(int(seed))
            every = list(records(plain, rows, int(seed), further_settings(), stop=True, quick=False))
            found = {method: choose([one for one in every if one["method"] == method]) for method in FURTHER}
            document["sets"][data.name]["seeds"][seed]["early stopping"]["chosen"] |= rounded(found)
            keep(document, kept)


def main(argv: list[str] | None = None) -> int:
    """Run, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seeds, fewer epochs and settings")
    parser.add_argument("--page", action="store_true", help="write the page from the kept JSON, run nothing")
    parser.add_argument("--recommend", action="store_true", help="pilot studies for the kept seeds that lack one")
    parser.add_argument("--further", action="store_true", help="the further methods for the kept seeds that lack them")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--sets", help="names, separated by commas; all when not given")
    parser.add_argument(
        "--no-pilots", action="store_true", help="leave out what `pilot` recommends and where that ends"
    )
    parser.add_argument("--kept", type=Path, help="file that keeps what is done; for runs of several sets side by side")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args(argv)
    if options.page:
        write_page(json.loads((DOCS / "evidence.json").read_text()), DOCS)
        return 0
    torch.set_num_threads(options.threads)
    sets = all_sets()
    if options.sets:
        wanted = options.sets.split(",")
        unknown = sorted(set(wanted) - {data.name for data in sets})
        if unknown:
            parser.error(f"--sets: {', '.join(unknown)}; allowed: {', '.join(data.name for data in sets)}")
        sets = [data for data in sets if data.name in wanted]
    if options.recommend or options.further:
        document = json.loads((DOCS / "evidence.json").read_text())
        (recommend if options.recommend else further)(document, sets, DOCS / "evidence.json")
        Console().print(f"written: {write_page(document, DOCS)}")
        return 0
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    name = "evidence-quick" if options.quick else "evidence"
    kept = options.kept or results / f"{name}.json"
    document = collect(
        kept,
        sets,
        options.seeds or (2 if options.quick else 5),
        quick=options.quick,
        pilots=not options.no_pilots,
    )
    if options.kept:
        return 0
    if options.quick:
        target = results / "evidence-quick"
        target.mkdir(exist_ok=True)
    else:
        target = DOCS
        keep(document, DOCS / "evidence.json")
    page = write_page(document, target)
    Console().print(f"written: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
