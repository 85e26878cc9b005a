"""A workspace that was moved or restored: the absolute paths in its registry are put right."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlparse

from flows.disk import damaged, is_disk_full
from flows.errors import PipelineError, Unavailable

_COLUMNS = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}
"""Table of MLflow's database -> the column that holds an address below an experiment's."""

_TAIL = "/mlflow/artifacts"


def relocate(root: Path, *, final: Path | None = None) -> int:
    """Let the registry in a workspace name the artifacts that lie beside it; how many experiments named others.

    Nothing is changed where all is right, where there is no registry in the workspace, and of an experiment whose
    artifacts do not lie beside it (another folder, or a server elsewhere, was configured).

    Parameters
    ----------
    root: the workspace as it lies now.
    final: where it will lie; `root` when not given.

    Raises
    ------
    Unavailable: the disk is full, or the registry is held or may not be written; nothing was changed.
    Damaged: the registry cannot be read.
    """
    database = root / "mlflow" / "mlflow.db"
    if not database.exists():
        return 0
    try:
        return _put_right(database, root, ((final or root) / "mlflow" / "artifacts").as_uri())
    except sqlite3.Error as error:
        raise _told(error, database) from error


def _told(error: sqlite3.Error, database: Path) -> PipelineError:
    """What the registry's error means, and what to do.

    >>> str(_told(sqlite3.DatabaseError("file is not a database"), Path("mlflow.db"))).partition(";")[0]
    'mlflow.db is damaged: file is not a database'
    """
    said = str(error)
    moved = f"{database}: this workspace was moved, and its registry cannot be put right"
    if is_disk_full(error):
        return Unavailable(f"{moved}: the disk is full; free some space and run the same command again")
    if isinstance(error, sqlite3.OperationalError) and "malformed" not in said:
        return Unavailable(
            f"{moved} ({said}); see that it may be written, that the disk is sound and that nothing else holds it, "
            "then run the same command again"
        )
    return damaged(str(database), said)


def _put_right(database: Path, root: Path, target: str) -> int:
    moved = 0
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "experiments" not in tables:
            return 0
        for (location,) in connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall():
            found = _split(location)
            if found is None or found[0] == target:
                continue
            before, rest = found
            if not (root / "mlflow" / "artifacts" / unquote(rest).lstrip("/")).exists():
                continue
            for table in _COLUMNS.keys() & tables:
                column = _COLUMNS[table]
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608  (names of our own)
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (target + rest, len(before + rest) + 1, before + rest, len(before + rest) + 1, f"{before}{rest}/"),
                )
            moved += 1
    return moved


def _split(location: str | None) -> tuple[str, str] | None:
    """An experiment's address in two: up to a workspace's folder of artifacts, and below it.

    >>> _split("file:///plant/workspace/mlflow/artifacts/line-a")
    ('file:///plant/workspace/mlflow/artifacts', '/line-a')
    >>> _split("s3://bucket/mlflow/artifacts/line-a") is None
    True
    """
    if not location or urlparse(location).scheme != "file" or _TAIL not in location:
        return None
    end = location.rindex(_TAIL) + len(_TAIL)
    return location[:end], location[end:].rstrip("/")
