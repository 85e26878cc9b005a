"""Files that a training left in its run: read, and where a copy cannot be, fetched once more."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd
import yaml

from flows.errors import Damaged
from flows.workspace import new_folder

if TYPE_CHECKING:
    from flows.tracking import Tracker

T = TypeVar("T")

LINEAGE = "lineage"
"""Folder of a run's artifacts with the four files below."""
DOCUMENT = "training.json"
ROWS = "rows.parquet"
SETTINGS = "config.json"
RULES = "exclusions.json"
MLMODEL = "model/MLmodel"
"""By this file MLflow's own tools know what a model is."""

_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError)
"""What parsing something raises that is not what was written."""


def copy_of(tracker: Tracker, run_id: str, path: str) -> Path:
    """One of a run's artifacts as a local file; it lies in the workspace's cache, where it may be deleted.

    Raises
    ------
    Unavailable: the tracking server is away.
    """
    target = tracker.workspace.cache / "runs" / run_id
    if not (target / path).exists():
        with new_folder(target.parent) as fresh:
            got = tracker.fetch(run_id, path, fresh)
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            got.replace(target / path)
    return target / path


def parsed(tracker: Tracker, run_id: str, path: str, parse: Callable[[Path], T]) -> T:
    """What one of a run's artifacts holds.

    The workspace's cache has a copy of it. One that cannot be read is removed, and the artifact fetched anew.

    Raises
    ------
    Damaged: the artifact itself cannot be read.
    Unavailable: the tracking server is away.
    """
    copy = copy_of(tracker, run_id, path)
    try:
        return parse(copy)
    except _UNREADABLE:
        copy.unlink()
    fetched = copy_of(tracker, run_id, path)
    try:
        return parse(fetched)
    except _UNREADABLE as error:
        fetched.unlink()
        raise _damaged(tracker, run_id, path, error) from error


def check(tracker: Tracker, run_id: str) -> None:
    """See that what a training left in its run can be read where it is kept, whatever copies there are.

    Raises
    ------
    Damaged, Unavailable: as for `parsed`.
    """
    with tempfile.TemporaryDirectory(prefix="softad-") as folder:
        for path, read in _READ.items():
            found = tracker.fetch(run_id, path, Path(folder))
            try:
                read(found)
            except _UNREADABLE as error:
                raise _damaged(tracker, run_id, path, error) from error


def _damaged(tracker: Tracker, run_id: str, path: str, error: Exception) -> Damaged:
    said = (str(error).strip() or type(error).__name__).split("\n", maxsplit=1)[0][:120]
    return Damaged(
        f"run {run_id} of {tracker.name}: its file {path} cannot be read ({said}); restore MLflow's artifacts from a "
        "backup"
    )


def read_document(tracker: Tracker, run_id: str, path: str, build: Callable[[dict[str, Any]], T]) -> T:
    """What `build` makes of a JSON file among a run's artifacts; errors as of `parsed`."""
    return parsed(tracker, run_id, path, lambda found: build(_json(found)))


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def read_rows(tracker: Tracker, run_id: str) -> pd.DataFrame:
    """The rows of a training: `_id`, `_version`, `_seq`, `label`, `window`, `fold`; errors as of `parsed`."""
    return parsed(tracker, run_id, f"{LINEAGE}/{ROWS}", pd.read_parquet)


def _read_model(path: Path) -> dict[str, Any]:
    try:
        flavors: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["flavors"]
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    return flavors


_READ: dict[str, Callable[[Path], Any]] = {
    f"{LINEAGE}/{DOCUMENT}": lambda path: _json(path)["rows"],
    f"{LINEAGE}/{SETTINGS}": lambda path: _json(path)["data"],
    f"{LINEAGE}/{RULES}": lambda path: list(json.loads(path.read_text(encoding="utf-8"))),
    f"{LINEAGE}/{ROWS}": pd.read_parquet,
    MLMODEL: _read_model,
}
"""What a training leaves in its run, and how each is read."""
