"""A run that fails is told once for each cause, not at every tick, and once more when it works again.

What failed is noted in a small file beside the locks, since a failure may be the tables' own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from flows.alerting import alert_trouble, deliver_alerts
from flows.context import Context
from flows.errors import PipelineError, Unavailable
from flows.workspace import write_atomically


@contextmanager
def told_when_it_fails(context: Context, run: str, step: str, *, now: datetime) -> Iterator[None]:
    """Within it, an exception is noted and told before it goes on to whoever called."""
    try:
        yield
    except Exception as error:
        try:
            note_failure(context, run, step, error, now=now)
            deliver_alerts(context)
        except OSError as other:
            # A disk that is full keeps the message from being put; the failure itself must still be seen.
            error.add_note(f"and people could not be told of it: {other}")
        raise


def note_failure(context: Context, run: str, step: str, error: Exception, *, now: datetime) -> bool:
    """Note that a run failed, and put the message, once for each cause.

    A cause is a step and a kind of error. A service that does not answer is told only after some runs in a row, since
    it may be starting again; all else at once.

    Parameters
    ----------
    run: "cycle" or "retrain"; each has its own thread of messages.

    Returns
    -------
    Whether it was told, now or before.
    """
    path = _path(context, run)
    record = _read(path) or {"since": now.isoformat(), "causes": {}, "told": None}
    cause = hashlib.sha256(f"{step}\n{type(error).__name__}".encode()).hexdigest()[:8]
    record["causes"][cause] = record["causes"].get(cause, 0) + 1
    needed = context.settings.alerts.failures_in_a_row if isinstance(error, Unavailable) else 1
    telling: bool = record["causes"][cause] >= needed
    if telling:
        record["told"] = record["told"] or step
    # The note first: it gives the thread its key. Where the process dies right after, the next failure tells it.
    write_atomically(path, json.dumps(record) + "\n")
    if telling:
        alert_trouble(
            context, step=step, since=datetime.fromisoformat(record["since"]), reason=_reason(error),
            key=_key(context, run, record), state=f"failed-{step}-{cause}", works=False, now=now,
        )  # fmt: skip
    return telling


def note_success(context: Context, run: str, *, now: datetime) -> bool:
    """A run came through: where a failure was told, put the message that it works again. Returns whether it was."""
    path = _path(context, run)
    record = _read(path)
    if record is None:
        return False
    if record["told"]:
        alert_trouble(
            context, step=record["told"], since=datetime.fromisoformat(record["since"]), reason="",
            key=_key(context, run, record), state="works", works=True, now=now,
        )  # fmt: skip
    # The note goes last: a process that dies before puts the same message again, and the outbox keeps one.
    path.unlink(missing_ok=True)
    return bool(record["told"])


def _path(context: Context, run: str) -> Path:
    return context.workspace.runtime / f"{context.workspace.model}.{run}.trouble.json"


def _key(context: Context, run: str, record: dict[str, Any]) -> str:
    return f"{context.settings.name}:{run}:{record['since']}"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return record


def _reason(error: Exception) -> str:
    """Our own sentences are for people; what libraries said, in brackets or alone, may hold passwords and is left out.

    >>> _reason(Unavailable("MLflow at http://me:secret@host does not do its work (Max (retries) met); start it"))
    'MLflow at http://host does not do its work; start it.'
    >>> _reason(KeyError("secret"))
    '(KeyError)'
    """
    if not isinstance(error, PipelineError):
        return f"({type(error).__name__})"
    sentence = re.sub(r"//[^/@\s]+@", "//", str(error))
    inmost = re.compile(r"\s*\([^()]*\)")
    while inmost.search(sentence):
        sentence = inmost.sub("", sentence)
    return f"{sentence.rstrip('.')}."
