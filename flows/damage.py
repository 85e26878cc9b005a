"""Damage that Delta Lake itself passes over, in one sentence."""

from __future__ import annotations

from pathlib import Path

from flows.disk import damaged


def refuse_empty_commits(table: str, folder: Path) -> None:
    """A commit that a power cut left empty would be read as one that did nothing, and its rows would be gone unseen.

    Raises
    ------
    Damaged: there is one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     refuse_empty_commits("labels", Path(name))
    """
    for path in (folder / "_delta_log").glob("*.json"):
        if path.stat().st_size == 0:
            raise damaged(f"table {table}", f"{path.name} of its log is empty")


def refuse_log_without_start(table: str, folder: Path) -> None:
    """A log whose first file is gone must not pass for a table that is not there yet.

    Raises
    ------
    Damaged: there are later files.

    >>> refuse_log_without_start("labels", Path("/nonexistent"))
    """
    if any((folder / "_delta_log").glob("*.json")):
        raise damaged(f"table {table}", "the first file of its log is gone")
