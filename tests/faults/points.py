"""Fault points: a place before and after everything that this process writes, where a test may let it die.

Nothing of the product knows of them: the writes themselves are wrapped. A flow run that a worker starts is held at a
point by two variables that only `tests/faults/hook/sitecustomize.py` reads; `softad` never does.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOLD, HOLD_MARK = "SOFTAD_TEST_HOLD", "SOFTAD_TEST_HOLD_MARK"
HELD_SECONDS = 120.0
CRASHED = 77
"""Status of a process that died at a point."""

_STAGES = {
    "stage rows": "ingest", "append inspections": "ingest", "append files": "ingest", "archive": "ingest",
    "append quarantine": "validate", "append labels": "labels",
    "append predictions": "score", "file outbox/predictions": "score",
    "append windows": "monitor", "append early_warnings": "monitor", "file reports": "monitor",
    "append lives": "lives", "append references": "lives",
    "append incidents": "incidents", "file outbox/alerts": "alerts", "line outbox/alerts": "alerts",
    "append ledger": "ledger", "file run/ledger": "ledger", "file tables": "ledger",
    "mlflow create_model_version": "register", "mlflow create_registered_model": "register",
    "mlflow set_registered_model_alias": "promote", "mlflow": "retrain", "file weights": "retrain",
    "file bundle": "retrain", "file cache": "models",
    "file page": "page", "file config": "config", "compact": "compact", "vacuum": "compact", "create": "new tables",
    "file run": "troubles",
}  # fmt: skip
_MLFLOW = (
    "create_experiment", "create_run", "log_batch", "log_artifacts", "set_terminated", "create_registered_model",
    "create_model_version", "set_registered_model_alias", "delete_registered_model_alias", "set_model_version_tag",
    "set_tag",
)  # fmt: skip


def stage_of(write: str) -> str:
    """The stage that a write belongs to.

    >>> stage_of("append windows"), stage_of("mlflow log_batch"), stage_of("file page/demo")
    ('monitor', 'retrain', 'page')
    """
    fitting = [words for words in _STAGES if write.startswith(words)]
    return _STAGES[max(fitting, key=len)] if fitting else "other"


def recorded(work: Callable[[], Any]) -> list[str]:
    """Do a piece of work and name what it writes, in order; what follows it in the process is not recorded."""
    writes: list[str] = []
    stop = watched(lambda what, done: None if done else writes.append(what))
    try:
        work()
    finally:
        stop()
    return writes


def dying(point: str | int) -> Callable[[], None]:
    """From now on leave at a point without a word, as `kill -9` does; the returned function takes the points back."""
    number, wanted, after = -1, "", False
    if str(point).isdigit():
        number = int(point)
    else:
        when, _, wanted = str(point).partition(":")
        if when not in {"before", "after"} or not wanted:
            raise ValueError(f"a point must be a number, before:WRITE or after:WRITE, not {point!r}")
        after = when == "after"
    seen = 0

    def look(what: str, done: bool) -> None:
        nonlocal seen
        here = not done and seen == number
        if here or (wanted and done == after and what.startswith(wanted)):
            os._exit(CRASHED)
        seen += not done

    return watched(look)


def holding(point: str, mark: Path) -> Callable[[], None]:
    """From now on wait at a point, once, until somebody has done their worst to this process or those around it.

    Parameters
    ----------
    point: `before:WORDS` or `after:WORDS`.
    mark: gets this process's number at the point; where it is removed, the process goes on.
    """
    when, _, wanted = point.partition(":")
    held = False

    def look(what: str, done: bool) -> None:
        nonlocal held
        if held or done != (when == "after") or not what.startswith(wanted):
            return
        held = True
        mark.with_suffix(".part").write_text(str(os.getpid()))
        mark.with_suffix(".part").rename(mark)
        until = time.monotonic() + HELD_SECONDS
        while mark.exists() and time.monotonic() < until:
            time.sleep(0.1)

    return watched(look)


def from_environment() -> None:
    """As `holding`, where the variables are set; for processes that a test starts and does not fork."""
    if os.environ.get(HOLD):
        holding(os.environ[HOLD], Path(os.environ[HOLD_MARK]))


def watched(look: Callable[[str, bool], None]) -> Callable[[], None]:
    """Call `look(write, done)` before and after each write of this process; returns what undoes it."""
    from deltalake import DeltaTable
    from deltalake.table import TableOptimizer
    from mlflow import MlflowClient

    from flows.staging import Staging
    from flows.store import Store
    from monitoring.outbox import Outbox

    undo: list[Callable[[], None]] = []

    def wrap(owner: Any, name: str, describe: Callable[..., str | None]) -> None:
        real = owner.__dict__[name]

        def watched(*arguments: Any, **named: Any) -> Any:
            what = describe(*arguments, **named)
            if what is None:
                return real(*arguments, **named)
            look(what, False)
            made = real(*arguments, **named)
            look(what, True)
            return made

        setattr(owner, name, watched)
        undo.append(lambda: setattr(owner, name, real))

    wrap(Store, "append", lambda _self, table, *_, **__: f"append {table}")
    wrap(Store, "_create", lambda _self, table: f"create {table}")
    wrap(Staging, "add", lambda *_: "stage rows")
    wrap(TableOptimizer, "compact", lambda *_, **__: "compact")
    wrap(DeltaTable, "vacuum", lambda *_, dry_run=True, **__: None if dry_run else "vacuum")
    wrap(Outbox, "_to_file", lambda *_: "line outbox/alerts")
    wrap(Path, "replace", lambda _source, target: f"file {_place(Path(target))}")
    wrap(Path, "unlink", lambda path, **_: None if path.suffix == ".part" else f"removal of {_place(path)}")
    wrap(shutil, "move", lambda *_: "archive")
    for name in _MLFLOW:
        wrap(MlflowClient, name, lambda *_, _name=name, **__: f"mlflow {_name}")
    return lambda: [each() for each in reversed(undo)] and None


def _place(path: Path) -> str:
    """Where a file lies, without what differs from run to run.

    >>> _place(Path("/w/workspace/outbox/alerts/demo/0a1b2c3d4e5f60718293.json"))
    'outbox/alerts'
    >>> _place(Path("/w/workspace/page/demo/index.html"))
    'page/index.html'
    """
    parts = path.parts
    roots = {"outbox", "reports", "page", "run", "cache", "tables", "archive", "images", "mlflow"}
    start = next((number for number in range(len(parts) - 1, -1, -1) if parts[number] in roots), len(parts) - 1)
    if parts[start] == "outbox":
        return "/".join(parts[start : start + 2])
    if parts[start] in {"page", "run"}:
        return f"{parts[start]}/{path.name}" if parts[start] == "page" else f"run/{path.name.split('.')[-2]}"
    return "config" if start == len(parts) - 1 and path.suffix == ".yaml" else parts[start]
