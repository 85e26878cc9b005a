"""Was the ledger changed, and which model was in use at a given time: what an auditor asks."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import pandas as pd

from flows import ledger
from flows.errors import Damaged
from flows.promote import MOVED

if TYPE_CHECKING:
    from flows.store import Store


_COMMIT = re.compile(r"_delta_log/\d{20}\.json$")


@dataclass(frozen=True)
class Verification:
    """What a check of the ledger found.

    Attributes
    ----------
    entries: how many there are; `unchained` of them were written before entries were chained.
    head: hash of the newest entry, to be noted elsewhere: a later check with it finds also that the end was cut off.
    files: how many files hold the ledger; `unsealed` of them were written by a process that was then killed.
    faults: what is not as it was written, in words; none where the ledger holds.
    """

    entries: int
    unchained: int
    head: str
    files: int
    unsealed: int
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Reign:
    """The model that was in use at a time.

    Attributes
    ----------
    version: None where there was none yet.
    since, actor: since when, and who or what put it to use.
    decision: key of the ledger's entry that decided so.
    until: when the next one followed; None where it is still in use.
    """

    version: str | None
    since: datetime | None = None
    actor: str | None = None
    decision: str | None = None
    until: datetime | None = None


def verify(store: Store, *, head: str | None = None) -> Verification:
    """Check every file against the hash noted when it was written, and every entry against the chain.

    Parameters
    ----------
    head: a hash that was noted from an earlier check; it must still be in the chain.

    >>> import tempfile
    >>> from datetime import UTC
    >>> from flows.store import Store
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store, day = Store(folder), datetime(2026, 1, 5, tzinfo=UTC)
    ...     for number in range(3):
    ...         _ = ledger.enter(store, key=str(number), actor="aiko", action="a", subject="s", details={}, at=day)
    ...     found = verify(store)
    >>> found.entries, found.faults
    (3, ())
    """
    faults: list[str] = []
    noted: dict[str, str] = {}
    try:
        # Before the files: what is written meanwhile is a file that nobody noted yet, not one that is gone.
        noted = {} if store.remote else ledger.sealed(store)
    except Damaged as error:
        faults = [str(error).partition(";")[0]]
    files = {} if store.remote else ledger.ledger_files(store)
    unsealed = 0 if faults else len(files.keys() - noted.keys())
    faults += [
        f"the file ledger/{name} is not as it was written"
        for name, digest in noted.items()
        if name in files and hashlib.sha256(files[name].read_bytes()).hexdigest() != digest
    ]
    # The first commit of the log is what makes the table: without it nothing can be read. Without the newest ones the
    # table is that of before; those between are removed in time, once a checkpoint holds what they said.
    left = max((name for name in files if _COMMIT.search(name)), default="")
    faults += [
        f"the file ledger/{name} is gone{', and the newest entries with it' if name > left else ''}"
        for name in noted
        if name not in files and _COMMIT.search(name) and (name > left or name.endswith(f"{0:020}.json"))
    ]
    try:
        frame = store.read("ledger", where='"number" IS NOT NULL', order='"number"')
        unchained = store.count("ledger") - len(frame)
        before = ledger.unchained_hash(store)
    except Exception as error:  # whatever damaged files make the libraries say is what was asked for
        said = str(error).strip().split("\n", maxsplit=1)[0]
        return Verification(0, 0, "", len(files), unsealed, (*faults, f"the ledger cannot be read: {said}"))
    faults += _chain_faults(frame, unchained, before)
    hashes = frame["hash"].tolist()
    if head is not None and head not in hashes:
        faults.append(
            f"the noted head {head[:16]}… is not in the ledger: entries were cut off, or all was written anew"
        )
    newest = hashes[-1] if hashes else before
    return Verification(unchained + len(frame), unchained, newest, len(files), unsealed, tuple(faults))


def champion_at(store: Store, moment: datetime) -> Reign:
    """The model that was in use at `moment`, as the ledger has it."""
    moves = sorted(ledger.read(store, action=MOVED), key=lambda entry: entry.at)
    past = [entry for entry in moves if entry.at <= moment]
    later = [entry for entry in moves if entry.at > moment]
    if not past:
        return Reign(None, until=later[0].at if later else None)
    newest = past[-1]
    return Reign(newest.subject, newest.at, newest.actor, newest.details["decision"], later[0].at if later else None)


def _chain_faults(frame: pd.DataFrame, unchained: int, before: str) -> list[str]:
    """Entries that are not what their hash says, or do not follow the one before."""
    faults = []
    expected, previous = unchained, before
    for record in frame.to_dict("records"):
        name = (
            f"entry {int(record['number'])} ({record['action']} of {record['subject']}, {record['at'].isoformat()}, "
            f"by {record['actor']})"
        )
        if int(record["number"]) != expected:
            faults.append(f"{expected} should be the next entry, and {name} is")
        elif record["previous"] != previous:
            faults.append(f"{name} does not follow the entry before it: one was changed, left out or put in")
        told = {str(name): value for name, value in record.items()} | {"at": record["at"].to_pydatetime()}
        if ledger.hash_of(told) != record["hash"]:
            faults.append(f"{name} was changed after it was written")
        expected, previous = int(record["number"]) + 1, record["hash"]
    return faults
