"""What the tracking server's errors mean for a person: one sentence each, without a password in it."""

from __future__ import annotations

import re

from flows.disk import is_disk_full
from flows.errors import BadConfig, PipelineError, Unavailable


def told(error: Exception, uri: str) -> PipelineError:
    """The error that says what is wrong and what to do.

    Parameters
    ----------
    uri: the server's address, or the database's.

    >>> str(told(OSError("database or disk is full"), "http://aiko:secret@mlflow:5000"))
    'MLflow at http://…@mlflow:5000: the disk is full; free some space and run the same command again'
    """
    where = re.sub(r"://[^@/]*@", "://…@", uri)
    text = str(error).replace(uri, where)
    if is_disk_full(error):
        return Unavailable(f"MLflow at {where}: the disk is full; free some space and run the same command again")
    if "out-of-date database schema" in text or "Can't locate revision" in text:
        return BadConfig(
            f"MLflow's database at {where} was made by another version of MLflow; make a backup, then run "
            f"`mlflow db upgrade {where}` with the newer version"
        )
    status = getattr(error, "get_http_status_code", lambda: 500)()
    if status in {401, 403}:
        return Unavailable(
            f"MLflow at {where} refuses access ({status}); set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD to those of a user who may write"
        )
    lost = re.search(r"Failed to download artifacts from path '([^']*)'", text)
    if lost is not None:
        return Unavailable(
            f"MLflow at {where} cannot give out {lost[1]}, which a training left; see that this machine's disk has "
            "room, and that the folder or store of its artifacts is there and whole, or restore it from a backup"
        )
    first = text.strip().splitlines()[0][:200] if text.strip() else type(error).__name__
    return Unavailable(
        f"MLflow at {where} does not do its work ({first}); see that it runs, then run the same command again"
    )
