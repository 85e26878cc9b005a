"""A soak: cycles killed at random, over and over, while files keep coming. `python -m tests.faults.soak --kills 1000`.

Each round drops files and forks a cycle, which is killed after a random time, or dies at a random write. In the end one
cycle comes through, and every row, label, file, prediction, window, alert and entry of the ledger must be there once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from flows.demo import after
from softad.simulation import CLASSES, InspectionLine
from tests.faults.children import in_child, value_of
from tests.faults.cycle_crashes import Site
from tests.faults.matrix import Bench
from tests.faults.points import CRASHED, dying

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
COME_THROUGH = 8
"""One round in so many is not killed, so that also long work gets done."""
FILES_A_WEEK = 12


@dataclass
class Truth:
    """What was dropped: id -> value and versions of a row, id -> label, and the names of the files."""

    rows: dict[str, tuple[float, int]] = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)
    labels: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)


class Drops:
    """Files of the simulated line in pieces: new rows, repeats, corrections, rows that are bad, and labels later."""

    def __init__(self, site: Site, chance: random.Random) -> None:
        self.site, self.chance, self.truth = site, chance, Truth()
        self.line = InspectionLine(
            seed=2, rows_per_week=600, change="concentrated", change_week=2, bad_share=0.0, missing_share=0.0
        )
        self.week, self.pieces = 0, 0
        self.waiting: list[tuple[pd.DataFrame, pd.DataFrame]] = []
        self.before: pd.DataFrame | None = None

    @property
    def now(self) -> Any:
        return after(self.line, max(self.week, 1))

    def drop(self) -> None:
        """One file of rows, with the labels of the file before."""
        if not self.waiting:
            self.week += 1
            week = self.line.week(self.week)
            size = -(-len(week.inspections) // FILES_A_WEEK)
            labels = week.labels.set_index("id")["label"]
            for start in range(0, len(week.inspections), size):
                piece = week.inspections.iloc[start : start + size]
                self.waiting.append((piece, labels.reindex(piece["id"]).dropna()))
        piece, labels = self.waiting.pop(0)
        self.pieces += 1
        name = f"{self.pieces:06d}.csv"
        self._write(self.site.folder / "inbox" / name, self._disturbed(piece))
        self._write(self.site.folder / "inbox" / "labels" / name, labels.rename_axis("id").reset_index())
        self.truth.labels |= {str(key): str(value) for key, value in labels.items() if value in CLASSES}
        self.before = piece

    def _disturbed(self, piece: pd.DataFrame) -> pd.DataFrame:
        frame = piece.copy()
        column = "torque_nm"
        for row in frame.to_dict("records"):
            self.truth.rows.setdefault(str(row["id"]), (float(row[column]), 1))
        if self.before is not None and self.chance.random() < 0.3:
            frame = pd.concat([frame, self.before.head(3)])  # delivered again, as it was
        if self.before is not None and self.chance.random() < 0.2:
            row = self.before.tail(1).copy()
            key = str(row["id"].iloc[0])
            value, version = self.truth.rows[key]
            row[column] = round(value + 0.5, 3)
            self.truth.rows[key] = (round(value + 0.5, 3), version + 1)
            frame = pd.concat([frame, row])
        if self.chance.random() < 0.3:
            row = piece.tail(1).astype(object).copy()
            row["id"], row[column] = f"BAD-{self.pieces}", "12.3.4"
            self.truth.bad.add(f"BAD-{self.pieces}")
            frame = pd.concat([frame.astype(object), row])
        return frame

    def _write(self, path: Path, frame: pd.DataFrame) -> None:
        part = path.with_suffix(".part")
        frame.to_csv(part, index=False)
        os.utime(part, (time.time() - 3600,) * 2)
        part.replace(path)
        self.truth.files.append(path.name)


def faults_of(site: Site, truth: Truth) -> list[str]:
    """What is lost, doubled or not as it was delivered; empty where all is well."""
    from flows import ledger
    from flows.alerting import outbox_of
    from flows.audit import verify
    from flows.incidents import all_incidents
    from flows.lives import current_life
    from flows.store import current_rows

    context = site.context()
    store, found = context.store, []

    def check(what: str, made: Any, wanted: Any) -> None:
        if made != wanted:
            found.append(f"{what}: {str(made)[:300]} instead of {str(wanted)[:300]}")

    rows = current_rows(store, columns=["_id", "_version", "torque_nm", "_seq"])
    mine = rows[rows["_id"].isin(truth.rows)]
    check("rows", len(mine), len(truth.rows))
    wrong = {
        key: (value, version)
        for key, value, version in zip(mine["_id"], mine["torque_nm"], mine["_version"], strict=True)
        if (round(float(value), 3), int(version)) != (round(truth.rows[key][0], 3), truth.rows[key][1])
    }
    check("rows with another value or version", wrong, {})
    every = store.read("inspections", columns=["_id", "_version", "_seq"])
    check("rows twice", int(every.duplicated(["_id", "_version"]).sum()), 0)
    check("places in the order of arrival taken twice", int(every.drop_duplicates("_id")["_seq"].duplicated().sum()), 0)
    held = store.read("quarantine", columns=["_id", "kind"])
    bad = held[held["_id"].isin(truth.bad)]
    check("bad rows in quarantine", sorted(bad["_id"]), sorted(truth.bad))
    labels = store.read("labels", columns=["_id", "_version", "label"])
    check("labels twice", int(labels.duplicated(["_id", "_version"]).sum()), 0)
    told = labels[labels["_id"].isin(truth.labels)].sort_values("_version").groupby("_id")["label"].last().to_dict()
    check("labels", {k: v for k, v in truth.labels.items() if told.get(k) != v}, {})
    files = store.read("files", where="status = 'accepted'")
    lost = files["read"] - files["accepted"] - files["quarantined"] - files["duplicates"]
    check("rows that a file's sum does not explain", int(lost.abs().sum()), 0)
    check("accepted rows", int(files.loc[files["kind"] == "inspections", "accepted"].sum()), len(every))
    check("files twice", int(files["sha"].duplicated().sum()), 0)
    lying = [path.name for path in (site.folder / "inbox").rglob("*.csv")]
    check("files left in the inbox", lying, [])
    kept = Counter(path.name for path in context.workspace.archive.rglob("*.csv"))
    check("files in the archive", sorted(set(truth.files) - set(kept)), [])
    predictions = store.read("predictions", columns=["_id", "_version", "model_version"])
    check("predictions twice", int(predictions.duplicated().sum()), 0)
    scored = set(zip(predictions["_id"], predictions["_version"], strict=True))
    current = set(zip(rows["_id"], rows["_version"], strict=True))
    check("rows without a prediction", sorted(current - scored)[:5], [])
    outside = {path.name for path in (context.workspace.outbox / "predictions").glob("*.csv")}
    check("files of predictions", sorted(name for name in set(truth.files) if name not in outside), [])
    windows = store.read("windows", where="state != 'too_few_labels'")
    check("windows judged twice", int(windows.duplicated(["life", "window"]).sum()), 0)
    path = context.workspace.outbox / "alerts" / "demo" / "alerts.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    check("alerts doubled", [key for key, n in Counter((x["key"], x["state"]) for x in lines).items() if n > 1], [])
    check("alerts waiting", outbox_of(context).waiting(), 0)
    opened = {line["key"] for line in lines if line["state"] == "opened"}
    check("incidents that nobody was told of", [one.key for one in all_incidents(store) if one.key not in opened], [])
    alarms = set(zip(*(windows[windows["alarm"].astype(bool)][name] for name in ("life", "window")), strict=True))
    answered = {(one.life, one.window) for one in all_incidents(store)}
    check("alarms without an incident", sorted(alarms - answered), [])
    check("ledger", list(verify(store).faults), [])
    keys = Counter(entry.key for entry in ledger.read(store))
    check("entries of the ledger twice", [key for key, number in keys.items() if number > 1], [])
    life = current_life(store)
    check("the model that is watched", life.model_version if life else None, context.tracker.champion())
    check("rows staged", [str(one) for one in (context.workspace.runtime / "staging").rglob("*.arrow")], [])
    return found


def soak(folder: Path, *, kills: int, seed: int, seconds: float | None = None) -> dict[str, Any]:
    """So many kills, or as many as fit into so many seconds; what was done, and what was found wrong."""
    chance = random.Random(seed)
    bench = Bench(folder)
    bench.warm()
    site = bench.site
    # Week 1 lies in the inbox of that state; here it comes in pieces.
    site.reset(bench.template("before"))
    for path in (site.folder / "inbox").rglob("*.csv"):
        path.unlink()
    drops, begun = Drops(site, chance), time.perf_counter()
    usual, ends, killed, rounds = 2.0, Counter[str](), 0, 0
    while killed < kills and (seconds is None or time.perf_counter() - begun < seconds):
        rounds += 1
        for _ in range(chance.choice((0, 1, 1, 2))):
            drops.drop()
        now = drops.now
        kind = "through" if rounds % COME_THROUGH == 0 else chance.choice(("time", "time", "write"))
        point, wait = chance.randrange(60), chance.uniform(0.0, 1.2 * usual)

        def work(now: Any = now, kind: str = kind, point: int = point) -> None:
            if kind == "write":
                dying(point)
            site.cycle_at(now)

        started = time.perf_counter()
        status = _timed_out(work, bench.answer, wait) if kind == "time" else in_child(work, bench.answer)
        if kind == "through":
            usual = 0.7 * usual + 0.3 * (time.perf_counter() - started)
            if status != 0:
                return {"seed": seed, "kills": killed, "wrong": [f"a cycle that nobody killed ended with {status}"]}
        killed += status in {CRASHED, -signal.SIGKILL}
        ends[{0: "came through", CRASHED: "died at a write", -signal.SIGKILL: "killed"}.get(status, "failed")] += 1
        if killed and killed % 50 == 0 and status != 0:
            print(f"  {killed} kills, {len(drops.truth.rows)} rows, {time.perf_counter() - begun:.0f} s", flush=True)
    for _ in range(2):
        value_of(lambda: site.cycle_at(drops.now), bench.answer)
    wrong = value_of(lambda: faults_of(site, drops.truth), bench.answer)
    if ends["failed"]:
        wrong.append(f"{ends['failed']} cycles failed by themselves")
    counts = value_of(lambda: {name: site.context().store.count(name) for name in
                               ("files", "inspections", "quarantine", "labels", "predictions", "windows", "incidents",
                                "ledger")}, bench.answer)  # fmt: skip
    return {"seed": seed, "kills": killed, "rounds": rounds, "ends": dict(ends), "rows": len(drops.truth.rows),
            "bad": len(drops.truth.bad),
            "counts": counts, "wrong": wrong, "seconds": round(time.perf_counter() - begun, 1)}  # fmt: skip


def _timed_out(work: Any, answer: Path, seconds: float) -> int:
    """As `in_child`, killed after so many seconds unless it has ended by itself before."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os._exit(in_child_body(work))
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_child_body(work: Any) -> int:
    """Do the work and say how it went; the words of a failure are shown."""
    import traceback

    try:
        work()
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _one(folder: Path, kills: int, seed: int, seconds: float | None, result: Path) -> None:
    torch.set_num_threads(1)  # for the children: a pool of threads does not survive a fork
    result.write_text(json.dumps(soak(folder, kills=kills, seed=seed, seconds=seconds)))


def main(argv: list[str] | None = None) -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None, help="by default a new one, which is printed")
    parser.add_argument("--seconds", type=float, default=None, help="stop after so long, however many kills that were")
    parser.add_argument("--processes", type=int, default=2, help="so many plants, each with its share of the kills")
    parser.add_argument("--json", type=Path, default=RESULTS / "soak.json")
    options = parser.parse_args(argv)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**31)
    print(f"seed {seed}: {options.kills} kills in {options.processes} processes", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="softad-soak-"))
    begun = time.perf_counter()
    try:
        children = []
        for number in range(options.processes):
            share = options.kills // options.processes + (number < options.kills % options.processes)
            place = folder / str(number)
            place.mkdir()
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    _one(place, share, seed + number, options.seconds, place / "result.json")
                    status = 0
                finally:
                    os._exit(status)
            children.append((child, place / "result.json"))
        found = []
        for child, result in children:
            if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
                found.append({"kills": 0, "wrong": ["it did not come to its end"]})
            else:
                found.append(json.loads(result.read_text()))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    kills, wrong = sum(one["kills"] for one in found), [line for one in found for line in one["wrong"]]
    for one in found:
        print({name: value for name, value in one.items() if name != "wrong"})
    for line in wrong:
        print(f"WRONG {line}")
    seconds = time.perf_counter() - begun
    print(f"{kills} kills in {seconds:.0f} s: {'none lost, none doubled' if not wrong else f'{len(wrong)} faults'}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    document = {"seed": seed, "kills": kills, "wrong": wrong, "seconds": round(seconds, 1), "plants": found}
    options.json.write_text(json.dumps(document, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
