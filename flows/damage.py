"""Damage that Delta Lake itself passes over, in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flows.disk import damaged


def refuse_empty_commits(table: str, folder: Path, *, since: int | None = None) -> int:
    """A commit that a power cut left empty would be read as one that did nothing, and its rows would be gone unseen.

    Parameters
    ----------
    since: the version that is open already: only its commit and those after it are looked at, which takes no longer
        where the log is long.

    Returns
    -------
    How many commits came after `since`, or how many there are.

    Raises
    ------
    Damaged: there is one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     Path(name, "_delta_log").mkdir()
    ...     for number in range(3):
    ...         _ = Path(name, "_delta_log", f"{number:020}.json").write_text("{}")
    ...     refuse_empty_commits("labels", Path(name)), refuse_empty_commits("labels", Path(name), since=1)
    (3, 1)
    """
    log = folder / "_delta_log"
    commits = list(log.glob("*.json") if since is None else _commits(log, since))
    for path in commits:
        if path.stat().st_size == 0:
            raise damaged(f"table {table}", f"{path.name} of its log is empty")
    return len(commits) if since is None else max(len(commits) - 1, 0)


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

    >>> import tempfile
    >>> refuse_log_without_start("labels", Path("/nonexistent"))
    >>> with tempfile.TemporaryDirectory() as name:  # made by another process, just now
    ...     log = Path(name, "_delta_log")
    ...     log.mkdir()
    ...     _ = [log.joinpath(f"{number:020}.json").write_text("{}") for number in range(2)]
    ...     refuse_log_without_start("labels", Path(name))
    """
    log = folder / "_delta_log"
    # Another process may have made the table a moment ago: then the first file is there as well.
    if any(log.glob("*.json")) and not (log / f"{0:020}.json").exists():
        raise damaged(f"table {table}", "the first file of its log is gone")
