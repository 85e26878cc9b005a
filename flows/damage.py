"""Damage that Delta Lake itself passes over, and an object store that cannot be reached, in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.errors import Damaged, PipelineError, Unavailable


@contextmanager
def reached(where: str) -> Iterator[None]:
    """Turn what an object store's library raises into one sentence; nothing is turned where the tables lie on a disk.

    Parameters
    ----------
    where: the address of tables, or a folder.

    Raises
    ------
    Unavailable: the store does not answer, or does not give access.
    """
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        if "://" not in where or not _is_the_stores(error):
            raise
        raise Unavailable(
            f"the object store does not give the tables at {where} ({_first_line(error)}); see that it runs and that "
            "its address and keys hold, then run the same command again: nothing is taken in twice"
        ) from error


def _is_the_stores(error: Exception) -> bool:
    """Whether a library speaks of the store itself.

    >>> _is_the_stores(OSError("Generic S3 error")), _is_the_stores(ValueError("table must be one of"))
    (True, False)
    """
    return isinstance(error, OSError) or type(error).__module__ in {"_internal", "deltalake.exceptions"}


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
            raise _damaged(table, f"{path.name} of its log is empty")


def refuse_log_without_start(table: str, folder: Path) -> None:
    """A log whose first file is gone must not pass for a table that is not there yet.

    Raises
    ------
    Damaged: there are later files.

    >>> refuse_log_without_start("labels", Path("/nonexistent"))
    """
    if any((folder / "_delta_log").glob("*.json")):
        raise _damaged(table, "the first file of its log is gone")


def _damaged(table: str, fault: str) -> Damaged:
    return Damaged(
        f"table {table} is damaged: {fault}; keep a copy of its folder as it is, then bring a backup back with "
        "`softad restore FILE`; `softad doctor` says whether all else is whole"
    )


def _first_line(error: Exception) -> str:
    """What a library says, without its colours, its trace and its repetitions.

    >>> _first_line(ValueError("Kernel error: Json error: Truncated record\\n  0: <unknown>"))
    'Json error: Truncated record'
    """
    text = re.sub(r"\x1b\[[0-9;]*m|[↳│]", "", str(error)).strip() or type(error).__name__
    first = next(line for line in text.splitlines() if line.strip()).strip()
    if first.lower().endswith("generic s3 error"):
        first = " ".join(line.strip() for line in text.splitlines() if line.strip())
    return re.sub(r"^(Kernel error(:| ->)\s*)", "", first)[:200]
