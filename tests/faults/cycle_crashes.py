"""Run by test_cycle_crash.py in a process of its own: cycles that die after an append, each in a forked child.

A process that has used Delta Lake has threads, and must not be forked; this one only imports, and its children work.
The workspace is always at the same path, because MLflow knows its artifacts by absolute path.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import deltalake  # noqa: F401  (imported once here, so that the children need not)
import duckdb  # noqa: F401
import evidently  # noqa: F401
import great_expectations  # noqa: F401
import mlflow  # noqa: F401
import pandas as pd
import torch
import yaml

import monitoring.report  # noqa: F401
from flows import ledger
from flows.agreement import compare
from flows.alerting import outbox_of
from flows.audit import verify
from flows.context import Context, open_context
from flows.cycle import run_steps
from flows.demo import after, drop, write_demo_config
from flows.incidents import all_incidents, open_incidents
from flows.people import answer_incident
from flows.store import Store
from softad.simulation import InspectionLine
from tests.faults.children import in_child, modules, value_of, warm

HISTORY = 3
CRASHED = 77
INGEST = {"files", "inspections", "quarantine", "labels"}
"""Tables of the ingest, whose crashes have a test of their own."""

SMALL = {
    "training": {"epochs": 12, "patience": 4, "hidden": [32], "thetas": [0.2], "batch_size": 128, "threads": 1,
                 "learning_rate": 0.01},
    "monitoring": {"alarm_budget": 0.5, "windows": 2, "min_reference_rows": 200, "html_reports": 0},
    "promotion": {"mean_margin": 99, "tail_margin": 99, "stability_margin": 99, "recall_margin": 1,
                  "slice_margin": 99, "resamples": 200},
}  # fmt: skip
"""As small and as ready to alarm and to promote as can be: here only the order of the writes matters."""


class Site:
    """One workspace, put back to a template before each crash."""

    def __init__(self, folder: Path, *, bad_share: float = 0.0) -> None:
        self.folder = folder
        self.line = InspectionLine(seed=1, rows_per_week=600, change="concentrated", change_week=1, bad_share=bad_share)

    def context(self) -> Context:
        return open_context(None, self.folder)

    def begin(self) -> None:
        """A config, and files of history in the inbox."""
        config = write_demo_config(self.folder)
        document = yaml.safe_load(config.read_text())
        for name, values in SMALL.items():
            document[name] = document.get(name, {}) | values
        config.write_text(yaml.safe_dump(document))
        for week in range(-HISTORY + 1, 1):
            drop(self.context(), self.line, week)

    def prepare(self) -> None:
        """History, the first champion, and the files of week 1 in the inbox."""
        self.begin()
        self.cycle(0)
        drop(self.context(), self.line, 1)

    def cycle(self, week: int) -> dict[str, Any]:
        return self.cycle_at(after(self.line, week))

    def cycle_at(self, now: datetime) -> dict[str, Any]:
        report = run_steps(self.context(), now=now)
        return {"windows": [one.window for one in report.outcomes], "notes": report.notes, "status": report.status,
                "actions": [action.kind for action in report.actions]}  # fmt: skip

    def answer(self, answer: str, week: int = 2) -> dict[str, Any]:
        """The shift's answer to every open incident; the process may die in it."""
        now, at = after(self.line, week), self.repaired_at(week) if answer == "repaired" else None
        found = [
            answer_incident(self.context(), incident.key, answer=answer, at=at, actor="shift", now=now)
            for incident in open_incidents(self.context().store)
        ]
        return {"answered": [one.key for one in found]}

    def now(self, week: int) -> datetime:
        """When a week is judged."""
        return after(self.line, week)

    def repaired_at(self, week: int) -> datetime:
        return after(self.line, week).replace(hour=0)

    def content(self) -> dict[str, Any]:
        """What must be the same, however often a process died on the way there."""
        context = self.context()
        store = context.store
        windows = store.read("windows", order='"life", "window"')
        lives = store.read("lives", order='"life"')
        references = store.read("references")
        told = self.folder / "outbox" / "alerts" / "demo" / "alerts.jsonl"
        lines = [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []
        versions = context.tracker.client.search_model_versions("name='demo'")
        runs = context.tracker.client.search_runs([context.tracker.experiment])
        return {
            "windows": _plain(windows[["life", "window", "state", "alarm", "verdict", "statistic", "threshold"]]),
            "rows": {table: store.count(table) for table in (*sorted(INGEST), "predictions")},
            "incidents": [
                [one.key, one.state, one.answer, one.verdict, one.value, one.challenger_version, one.held, one.tries]
                for one in all_incidents(store)
            ],
            "lives": _plain(lives[["life", "model_version", "after_seq", "reason", "cause"]]),
            "references": sorted([life, len(part)] for life, part in references.groupby("life")),
            "versions": sorted(str(version.version) for version in versions),
            "champion": context.tracker.champion(),
            "unfinished runs": sorted(run.info.run_id for run in runs if run.info.status == "RUNNING"),
            "alerts": sorted([line["key"], line["state"]] for line in lines),
            "ledger": sorted([entry.action, str(entry.subject), entry.key] for entry in ledger.read(store)),
            "due": [one.window for one in _due(context, after(self.line, 2))],
            "audit": list(verify(store).faults),
        }

    def accounted(self) -> dict[str, Any]:
        """Every input row: where its file lies, that the sums hold, and which rows each table has."""
        context = self.context()
        store, place = context.store, context.workspace
        files = store.read("files", where="status = 'accepted'")
        lost = files["read"] - files["accepted"] - files["quarantined"] - files["duplicates"]
        lying = [path for folder in (place.inbox, place.archive) for path in folder.rglob("*") if path.is_file()]
        told = sorted((place.outbox / "predictions").glob("*.csv"))
        champion = context.tracker.champion()
        return {
            "rows lost": int(lost.abs().sum()),
            "tables disagree": compare(store).faults,
            "each row": {
                table: _digest(store.read(table, columns=["_id", *more], order=f"_id, {', '.join(more)}"))
                for table, more in (("inspections", ["_version", "_hash", "_seq"]), ("labels", ["_version", "label"]),
                                    ("predictions", ["_version", "model_version"]), ("quarantine", ["_row", "_file"]))
            },
            "files lying": sorted(str(path.relative_to(place.root)) for path in lying),
            "predictions told": [[path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in told],
            "model": context.tracker.version(champion).digest if champion else None,
            "alerts waiting": outbox_of(context).waiting(),
            "page": (place.page / "index.html").exists(),
            "staged": [str(path) for path in (place.runtime / "staging").rglob("*.arrow")],
        }  # fmt: skip

    def reset(self, template: Path) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(template, self.folder)


def _due(context: Context, now: datetime) -> list[Any]:
    from flows.lives import current_life
    from flows.monitor import due_windows

    life = current_life(context.store)
    return due_windows(context, life, now=now) if life else []


def _digest(frame: pd.DataFrame) -> str:
    text = frame.astype("str")
    return hashlib.sha256(pd.util.hash_pandas_object(text, index=False).to_numpy().tobytes()).hexdigest()


def _plain(frame: pd.DataFrame) -> list[list[Any]]:
    """Rows as JSON holds them; figures to nine digits, because sums may be added in another order."""
    text = frame.astype(object).where(frame.notna(), None)
    return [[f"{cell:.9g}" if isinstance(cell, float) else cell for cell in row] for row in text.to_numpy().tolist()]


def dying(point: str) -> None:
    """From now on leave without a word right after the first append whose table and key begin so."""
    real = Store.append

    def watched(self: Store, table: str, frame: Any, **named: Any) -> bool:
        made = real(self, table, frame, **named)
        if f"{table} {named['key']}".startswith(point):
            os._exit(CRASHED)
        return made

    Store.append = watched  # type: ignore[method-assign]


def appends(work: Callable[[], Any]) -> list[str]:
    """What a work appends, in order, tables of the ingest not counted; for choosing points."""
    real, seen = Store.append, []

    def watched(self: Store, table: str, frame: Any, **named: Any) -> bool:
        if table not in INGEST:
            seen.append(f"{table} {named['key']}")
        return real(self, table, frame, **named)

    Store.append = watched  # type: ignore[method-assign]
    work()
    return seen


def disturbed(site: Site, template: Path, work: Callable[[], Any], answer: Path, point: str) -> dict[str, Any]:
    """Die at a point, do the same again, and look."""
    site.reset(template)

    def crash() -> Any:
        dying(point)
        return work()

    status = in_child(crash, answer)
    again = in_child(lambda: (work(), site.content())[-1], answer)
    return {"point": point, "status": status, "again": again, "content": json.loads(answer.read_text())}


def main(folder: Path, points: dict[str, list[str]]) -> None:
    """For each kind of work: go through undisturbed, then die at each point (none named: each append) and again."""
    torch.set_num_threads(1)  # for the children: a pool of threads does not survive a fork
    site = Site(folder / "workspace")
    answer, before, after_alarm = folder / "answer.json", folder / "before", folder / "after-alarm"
    works: dict[str, tuple[Path, Callable[[], Any]]] = {
        "alarm": (before, lambda: site.cycle(1)),
        "new-normal": (after_alarm, lambda: (site.answer("new-normal"), site.cycle(2))[-1]),
        "repaired": (after_alarm, lambda: (site.answer("repaired"), site.cycle(2))[-1]),
    }
    assert in_child(site.prepare, answer) == 0
    shutil.copytree(site.folder, before)
    warm(value_of(lambda: (site.cycle(1), drop(site.context(), site.line, 2), modules())[-1], answer))
    shutil.copytree(site.folder, after_alarm)
    result: dict[str, Any] = {}
    for kind, wanted in points.items():
        template, work = works[kind]
        site.reset(template)

        def undisturbed(work: Callable[[], Any] = work) -> dict[str, Any]:
            return {"appends": appends(work), **site.content()}

        assert in_child(undisturbed, answer) == 0
        content = json.loads(answer.read_text())
        seen = content.pop("appends")
        print(f"{kind}: {seen}", flush=True)
        found = [disturbed(site, template, work, answer, point) for point in wanted or seen]
        result[kind] = {"appends": seen, "undisturbed": content, "found": found}
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
