"""The ledger: who did what to which model, when and why. It is only ever appended to.

Each entry holds the hash of the one before and its own, so that nothing in between can be changed, left out or put in
without all later hashes being wrong (`flows.audit.verify`).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.disk import damaged
from flows.errors import Damaged, Unavailable
from flows.workspace import write_atomically

if TYPE_CHECKING:
    from flows.store import Store

_ATTEMPTS = 60
_ORDER = '"number" NULLS FIRST, "at", "key"'
"""Entries of a version that had no chain yet come first."""


@dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    Attributes
    ----------
    key: unique; what the entry is about and which occurrence of it.
    at: when, UTC.
    actor: a person's name, or "softad" where the system acted by itself.
    action: what was done, such as "champion.set".
    subject: to what: a model version, an incident, a life.
    details: whatever belongs to it, JSON-able.
    number: its place in the ledger, from 0; None where it was written before entries were chained.
    previous, hash: SHA-256 in hex of the entry before and of this one; empty where `number` is None.
    """

    key: str
    at: datetime
    actor: str
    action: str
    subject: str
    details: dict[str, Any]
    number: int | None = None
    previous: str = ""
    hash: str = ""


def enter(
    store: Store, *, key: str, actor: str, action: str, subject: str, details: Mapping[str, Any], at: datetime
) -> bool:
    """Append an entry once per key; `False` when it was there already.

    Raises
    ------
    ValueError: `at` has no time zone.

    >>> import tempfile
    >>> from datetime import UTC
    >>> from flows.store import Store
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store, day = Store(folder), datetime(2026, 1, 5, tzinfo=UTC)
    ...     one = {"key": "k", "actor": "aiko", "action": "rollback", "subject": "2", "details": {"why": "noise"}}
    ...     enter(store, **one, at=day), enter(store, **one, at=day), read(store)[0].details["why"]
    (True, False, 'noise')
    """
    import pandas as pd

    if at.tzinfo is None:
        raise ValueError(f"at must have a time zone, {at.isoformat()} has none")
    told = json.dumps(dict(details), ensure_ascii=False, default=_plain, sort_keys=True, allow_nan=False)
    record: dict[str, Any] = {
        "key": key, "at": at, "actor": actor, "action": action, "subject": subject, "details": told,
    }  # fmt: skip
    for attempt in range(_ATTEMPTS):
        frame = store.read("ledger", columns=["key", "number", "hash"], order=_ORDER)
        if (frame["key"] == key).any():
            return False
        record["number"] = number = len(frame)
        record["previous"] = _head(store, frame)
        record["hash"] = hash_of(record)
        # The place names the write: of two processes that write at once, one finds it taken and goes behind the other.
        if store.append("ledger", pd.DataFrame([record]), key=f"entry:{number}"):
            seal(store)
            return True
        time.sleep(0.01 * (attempt + 1))
    raise Unavailable("the ledger is being written by other processes all the time; try again in a minute")


def hash_of(record: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of an entry as the table keeps it, its own hash left out.

    >>> one = {"key": "k", "at": datetime(2026, 1, 5, tzinfo=UTC), "actor": "aiko", "action": "rollback",
    ...     "subject": "2", "details": "{}", "number": 0, "previous": ""}
    >>> hash_of(one) == hash_of(dict(one)), hash_of(one) == hash_of({**one, "actor": "ken"})
    (True, False)
    """
    at: datetime = record["at"]
    parts = [
        int(record["number"]), record["previous"], record["key"], at.astimezone(UTC).isoformat(timespec="microseconds"),
        record["actor"], record["action"], record["subject"], record["details"],
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()


def unchained_hash(store: Store) -> str:
    """SHA-256, in hex, of the entries that were written before there was a chain, which the first chained one holds.

    "" where there are none.
    """
    frame = store.read("ledger", where='"number" IS NULL', order='"at", "key"')
    if frame.empty:
        return ""
    columns = ["key", "at", "actor", "action", "subject", "details"]
    parts = [
        [value.isoformat() if isinstance(value, datetime) else value for value in row]
        for row in frame[columns].itertuples(index=False)
    ]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()


def seal(store: Store) -> None:
    """Note the SHA-256 of the ledger's files that are not noted yet; what is noted stays, so a changed file is found.

    Nothing in an object store: there, the store itself keeps versions.
    """
    if store.remote:
        return
    known = sealed(store)
    files = ledger_files(store)
    fresh = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if name not in known}
    if fresh or known.keys() - files.keys():
        kept = {name: digest for name, digest in known.items() if name in files} | fresh
        write_atomically(_seal_path(store), json.dumps(kept, indent=1, sort_keys=True) + "\n")


def sealed(store: Store) -> dict[str, str]:
    """File, relative to the table's folder -> SHA-256 in hex, as `seal` noted it.

    Raises
    ------
    Damaged: what was noted cannot be read.
    """
    path = _seal_path(store)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise _unsealed(path) from error
    if not isinstance(found, dict) or not all(isinstance(digest, str) for digest in found.values()):
        raise _unsealed(path)
    return found


def _unsealed(path: Path) -> Damaged:
    return damaged(str(path), "the hashes that were noted of the ledger's files cannot be read")


def ledger_files(store: Store) -> dict[str, Path]:
    """File, relative to the table's folder -> its path: data and log, which are written once and never changed."""
    folder = Path(store.root, "ledger")
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in {".parquet", ".json"} and not path.name.startswith((".", "_last"))
    }


def _seal_path(store: Store) -> Path:
    return Path(store.root, "ledger.seal.json")


def _head(store: Store, frame: Any) -> str:
    """Hash of the newest entry, in frames ordered as the ledger is."""
    newest = frame["hash"].iloc[-1] if len(frame) else None
    return str(newest) if isinstance(newest, str) else unchained_hash(store)


def read(store: Store, *, action: str | None = None) -> list[Entry]:
    """All entries, or those of one action, in the order in which they were written."""
    import pandas as pd

    where = None if action is None else "action = '" + action.replace("'", "''") + "'"
    frame = store.read("ledger", where=where, order=_ORDER)
    return [
        Entry(
            row["key"], row["at"].to_pydatetime(), row["actor"], row["action"], row["subject"],
            json.loads(row["details"]), None if pd.isna(row["number"]) else int(row["number"]),
            row["previous"] or "", row["hash"] or "",
        )
        for row in frame.to_dict("records")
    ]  # fmt: skip


def find(store: Store, key: str) -> Entry | None:
    """One entry by its key, or None."""
    return next((entry for entry in read(store) if entry.key == key), None)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"details of a ledger entry must be JSON-able; {type(value).__name__} is not")
