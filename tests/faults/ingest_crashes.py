"""Run by test_ingest_crash.py in a process of its own: ingests that die at every point, each in a forked child.

A process that has used Delta Lake has threads, and must not be forked; this one only imports, and its children work.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deltalake  # noqa: F401  (imported once here, so that the children need not)
import duckdb  # noqa: F401
import pandas as pd

import flows.ingest
from flows.errors import PipelineError
from flows.settings import Settings, load_settings
from flows.staging import Staging
from flows.store import Store
from flows.workspace import Workspace
from tests.faults.children import in_child

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
TABLES = ("files", "inspections", "quarantine", "labels")
CRASHED = 77


class Plant:
    """One workspace, started afresh for each crash from a template that has taken in `first.csv`."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.folder, self.source = folder, source
        self.settings: Settings = load_settings(source / "config.yaml")

    @property
    def workspace(self) -> Workspace:
        return Workspace.open(self.folder, settings=self.settings)

    def run(self) -> dict[str, Any]:
        """Take in all that lies in the inbox."""
        place = self.workspace
        try:
            reports = flows.ingest.ingest_inbox(self.settings, Store(place.tables), place, now=NOW)
        except PipelineError as error:
            return {"error": type(error).__name__, "sentence": str(error), "exit_status": error.exit_status}
        return {"reports": [vars(report) for report in reports]}

    def content(self) -> dict[str, Any]:
        """All tables, each with its rows in an order of their own, and where the files lie."""
        place, found = self.workspace, {}
        for table in TABLES:
            frame: pd.DataFrame = Store(place.tables).read(table)
            rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
            found[table] = sorted(rows, key=str)
        files = [path for folder in (place.inbox, place.archive) for path in folder.rglob("*") if path.is_file()]
        found["files lying"] = sorted(str(path.relative_to(place.root)) for path in files)
        found["staging"] = [str(path) for path in (place.runtime / "staging").rglob("*.arrow")]
        return found

    def reset(self, template: Path) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(template, self.folder)


def dying(number: int) -> Callable[[], str]:
    """From now on count what is written, and leave without a word before the write of this number."""
    seen = 0
    last = "nothing"

    def before(what: str) -> None:
        nonlocal seen, last
        if seen == number:
            os.write(1, f"{json.dumps({'died before': what, 'after': last})}\n".encode())
            os._exit(CRASHED)
        seen, last = seen + 1, what

    def wrap(owner: Any, name: str, describe: Callable[..., str]) -> None:
        real = getattr(owner, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            before(describe(*arguments, **named))
            made = real(*arguments, **named)
            before(f"what follows {describe(*arguments, **named)}")
            return made

        setattr(owner, name, counted)

    wrap(Store, "append", lambda _self, table, *_, **__: f"append to {table}")
    wrap(Store, "_create", lambda _self, table: f"creation of {table}")
    wrap(Staging, "add", lambda *_: "staging")
    wrap(flows.ingest.shutil, "move", lambda source, _target: f"move of {Path(source).name}")
    return lambda: last


def every_point(plant: Plant, template: Path, answer: Path) -> list[dict[str, Any]]:
    """Die before each write in turn, run again, and compare; until a run gets through."""
    found = []
    for number in range(200):
        plant.reset(template)

        def crash(number: int = number) -> Any:
            dying(number)
            return plant.run()

        status = in_child(crash, answer)
        if status == 0:
            return found
        again = in_child(plant.run, answer)
        rerun = json.loads(answer.read_text())
        in_child(plant.content, answer)
        content = json.loads(answer.read_text())
        found.append({"point": number, "status": status, "again": again, "rerun": rerun, "content": content})
    raise SystemExit("no run got through")


def killed(plant: Plant, template: Path, answer: Path, seconds: list[float]) -> list[dict[str, Any]]:
    """Kill at a time instead of a point, wherever that is, twice; then run again."""
    found = []
    for after in seconds:
        plant.reset(template)
        statuses = [in_child(plant.run, answer, seconds=after), in_child(plant.run, answer, seconds=after / 2)]
        again = in_child(plant.run, answer)
        in_child(plant.content, answer)
        found.append(
            {"seconds": after, "statuses": statuses, "again": again, "content": json.loads(answer.read_text())}
        )
    return found


def limited(plant: Plant, template: Path, answer: Path, limits: list[int]) -> list[dict[str, Any]]:
    """With a largest size for any file, as on a full disk; then without."""
    found = []
    for limit in limits:
        plant.reset(template)

        def small(limit: int = limit) -> Any:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            return plant.run()

        in_child(small, answer)
        first = json.loads(answer.read_text())
        in_child(plant.content, answer)
        between = json.loads(answer.read_text())
        in_child(plant.run, answer)
        in_child(plant.content, answer)
        found.append({"limit": limit, "first": first, "between": between, "content": json.loads(answer.read_text())})
    return found


def main(kind: str, source: Path, *numbers: str) -> None:
    """Make the template, the table contents of a run that nothing disturbed, and the disturbed ones."""
    answer, template = source / "answer.json", source / "template"
    maker = Plant(template, source)
    shutil.copy(source / "first.csv", maker.workspace.inbox / "first.csv")
    assert in_child(maker.run, answer) == 0
    for name in ("second.csv", "labels/third.csv"):
        shutil.copy(source / Path(name).name, maker.workspace.inbox / name)
    plant = Plant(source / "plant", source)
    plant.reset(template)
    begun = time.perf_counter()
    assert in_child(plant.run, answer) == 0
    taken, undisturbed = time.perf_counter() - begun, json.loads(answer.read_text())
    in_child(plant.content, answer)
    document: dict[str, Any] = {"undisturbed": json.loads(answer.read_text()), "run": undisturbed, "seconds": taken}
    if kind == "points":
        document["found"] = every_point(plant, template, answer)
    elif kind == "kills":
        document["found"] = killed(plant, template, answer, [taken * float(share) for share in numbers])
    else:
        document["found"] = limited(plant, template, answer, [int(limit) for limit in numbers])
    (source / "result.json").write_text(json.dumps(document))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
