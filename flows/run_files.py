"""Files that a training left in its run: read, and where a copy cannot be, fetched once more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from flows.errors import Damaged

if TYPE_CHECKING:
    from flows.tracking import Tracker

T = TypeVar("T")

LINEAGE = "lineage"
"""Folder of a run's artifacts with the three files below, and `exclusions.json`."""
DOCUMENT = "training.json"
ROWS = "rows.parquet"
SETTINGS = "config.json"

_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError)
"""What parsing something raises that is not what was written."""


def parsed(tracker: Tracker, run_id: str, path: str, parse: Callable[[Path], T]) -> T:
    """What one of a run's artifacts holds.

    The workspace's cache has a copy of it. One that cannot be read is removed, and the artifact fetched anew.

    Raises
    ------
    Damaged: the artifact itself cannot be read.
    Unavailable: the tracking server is away.
    """
    copy = tracker.read_file(run_id, path)
    try:
        return parse(copy)
    except _UNREADABLE:
        copy.unlink()
    fetched = tracker.read_file(run_id, path)
    try:
        return parse(fetched)
    except _UNREADABLE as error:
        fetched.unlink()
        said = (str(error).strip() or type(error).__name__).split("\n", maxsplit=1)[0][:120]
        raise Damaged(
            f"run {run_id} of {tracker.name}: its file {path} cannot be read ({said}); restore MLflow's artifacts from "
            "a backup"
        ) from error


def read_document(tracker: Tracker, run_id: str, path: str, build: Callable[[dict[str, Any]], T]) -> T:
    """What `build` makes of a JSON file among a run's artifacts; errors as of `parsed`."""
    return parsed(tracker, run_id, path, lambda found: build(json.loads(found.read_text(encoding="utf-8"))))


def read_rows(tracker: Tracker, run_id: str) -> pd.DataFrame:
    """The rows of a training: `_id`, `_version`, `_seq`, `label`, `window`, `fold`; errors as of `parsed`."""
    return parsed(tracker, run_id, f"{LINEAGE}/{ROWS}", pd.read_parquet)
