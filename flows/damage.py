"""Damage that Delta Lake itself passes over, in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flows.disk import damaged


def refuse_empty_commits(table: str, folder: Path, *, since: int | None = None) -> None:
    """A commit that a power cut left empty would be read as one that did nothing, and its rows would be gone unseen.

    Parameters
    ----------
    since: the version that is open already: only its commit and those after it are looked at, which takes no longer
        where the log is long.

    Raises
    ------
    Damaged: there is one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     refuse_empty_commits("labels", Path(name)), refuse_empty_commits("labels", Path(name), since=7)
    (None, None)
    """
    log = folder / "_delta_log"
    for path in log.glob("*.json") if since is None else _commits(log, since):
        if path.stat().st_size == 0:
            raise damaged(f"table {table}", f"{path.name} of its log is empty")


def _commits(log: Path, first: int) -> Iterator[Path]:
    number = first
    while (path := log / f"{number:020}.json").exists():
        yield path
        number += 1


def refuse_log_without_start(table: str, folder: Path) -> None:
    """A log whose first file is gone must not pass for a table that is not there yet.

    Raises
    ------
    Damaged: there are later files.

    >>> refuse_log_without_start("labels", Path("/nonexistent"))
    """
    if any((folder / "_delta_log").glob("*.json")):
        raise damaged(f"table {table}", "the first file of its log is gone")
