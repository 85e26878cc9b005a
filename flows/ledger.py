"""The ledger: who did what to which model, when and why. It is only ever appended to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.store import Store


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
    """

    key: str
    at: datetime
    actor: str
    action: str
    subject: str
    details: dict[str, Any]


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
    record = {
        "key": key,
        "at": at,
        "actor": actor,
        "action": action,
        "subject": subject,
        "details": json.dumps(dict(details), ensure_ascii=False, default=_plain, sort_keys=True, allow_nan=False),
    }
    return store.append("ledger", pd.DataFrame([record]), key=key)


def read(store: Store, *, action: str | None = None) -> list[Entry]:
    """All entries, or those of one action, oldest first; entries of the same moment in the order of their keys."""
    where = None if action is None else "action = '" + action.replace("'", "''") + "'"
    frame = store.read("ledger", where=where, order='"at", "key"')
    return [
        Entry(row["key"], row["at"].to_pydatetime(), row["actor"], row["action"], row["subject"],
              json.loads(row["details"]))
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
