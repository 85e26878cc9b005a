"""Rows in quarantine: which are still held, and what people did about the others.

The table keeps what was delivered and is never changed. A row leaves quarantine by an entry of the ledger: released
(after repair, or as it is, with a reason) or discarded. So nothing is lost, and for every file it stays true that
rows read = accepted + quarantined + duplicates.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flows import ledger
from flows.errors import BadConfig

if TYPE_CHECKING:
    from flows.store import Store

RELEASED, DISCARDED = "quarantine.released", "quarantine.discarded"
"""Actions in the ledger."""

_KEY_DIGITS = 12


@dataclass(frozen=True)
class HeldRow:
    """One row of the quarantine.

    Attributes
    ----------
    key: names it: the beginning of its file's SHA-256, and its row.
    kind: "inspections" for a whole row; "labels" for a label alone, whose row may have been taken in without it.
    file, name, row: the file's SHA-256 and name, and the number of the row in it.
    delivered: what the file was: "inspections" or "labels".
    reasons: why, each with `rule`, `column`, `value`, `message`.
    record: column -> text, as it was delivered.
    state: held | released | discarded.
    by, note: who let it go, and why.
    """

    key: str
    kind: str
    file: str
    name: str
    row: int
    id: str | None
    delivered: str
    reasons: list[dict[str, Any]]
    record: dict[str, Any]
    at: datetime
    state: str = "held"
    by: str | None = None
    note: str | None = None

    @property
    def why(self) -> str:
        """All reasons as text."""
        return "; ".join(
            (f"column {one['column']!r}: " if one.get("column") else "") + str(one.get("message") or one.get("rule"))
            for one in self.reasons
        )


def all_rows(store: Store) -> list[HeldRow]:
    """Every row that ever went to quarantine, newest files first, with what became of it."""
    frame = store.sql(
        "SELECT q.*, f.name AS name, f.kind AS delivered FROM quarantine q LEFT JOIN "
        "(SELECT sha, min(name) AS name, min(kind) AS kind FROM files WHERE status = 'accepted' GROUP BY sha) f "
        'ON q._file = f.sha ORDER BY q."at" DESC, q._file, q._row'
    )
    gone = _let_go(store)
    found = []
    for row in frame.to_dict("records"):
        place = (str(row["_file"]), int(row["_row"]))
        state, by, note = gone.get(place, ("held", None, None))
        found.append(
            HeldRow(
                key=f"{place[0][:_KEY_DIGITS]}:{place[1]}", kind=str(row["kind"]), file=place[0],
                name=str(row["name"] or "a file that is not known"), row=place[1],
                id=row["_id"] if isinstance(row["_id"], str) else None, delivered=str(row["delivered"] or row["kind"]),
                reasons=json.loads(row["reasons"]), record=json.loads(row["record"]), at=row["at"].to_pydatetime(),
                state=state, by=by, note=note,
            )
        )  # fmt: skip
    return found


def chosen(rows: Iterable[HeldRow], keys: Sequence[str], *, rule: str | None = None) -> list[HeldRow]:
    """The rows of these keys, or all held ones of which every reason is this rule.

    Raises
    ------
    BadConfig: a key that names no row of the quarantine; neither keys nor a rule, or nothing held by the rule.
    """
    known = {row.key: row for row in rows}
    if rule is not None:
        if keys:
            raise BadConfig("name rows by their keys, or all of one rule with --rule; not both")
        found = [
            row for row in known.values() if row.state == "held" and {one["rule"] for one in row.reasons} == {rule}
        ]
        if not found:
            rules = sorted({one["rule"] for row in known.values() if row.state == "held" for one in row.reasons})
            raise BadConfig(f"no row is held by the rule {rule!r} alone; rules here: {', '.join(rules) or 'none'}")
        return found
    if not keys:
        raise BadConfig("name the rows by their keys (softad quarantine list), or all of one rule with --rule")
    missing = [key for key in keys if key not in known]
    if missing:
        raise BadConfig(f"the quarantine has no row {missing[0]!r}; `softad quarantine list --all` shows the keys")
    return [known[key] for key in dict.fromkeys(keys)]


def let_go(
    store: Store,
    rows: Sequence[HeldRow],
    *,
    action: str,
    actor: str,
    reason: str,
    now: datetime,
    details: Mapping[str, Any] | None = None,
) -> int:
    """Write down that rows are released or discarded; how many were still held. Doing it again adds nothing.

    Parameters
    ----------
    action: `RELEASED` or `DISCARDED`.
    """
    gone = _let_go(store)
    fresh = [row for row in rows if (row.file, row.row) not in gone]
    if not fresh:
        return 0
    places: dict[str, list[int]] = {}
    for row in fresh:
        places.setdefault(row.file, []).append(row.row)
    told = {file: as_ranges(numbers) for file, numbers in sorted(places.items())}
    first = fresh[0]
    ledger.enter(
        store, key=f"{action}:{first.file[:_KEY_DIGITS]}:{first.row}:{len(fresh)}", actor=actor, action=action,
        subject=f"{len(fresh)} row{'' if len(fresh) == 1 else 's'}", at=now,
        details={"rows": told, "reason": reason, **(details or {})},
    )  # fmt: skip
    return len(fresh)


def _let_go(store: Store) -> dict[tuple[str, int], tuple[str, str, str]]:
    """(file, row) -> state, who, why; the first word counts."""
    gone: dict[tuple[str, int], tuple[str, str, str]] = {}
    for entry in ledger.read(store):
        if entry.action in {RELEASED, DISCARDED}:
            state = "released" if entry.action == RELEASED else "discarded"
            for file, ranges in entry.details["rows"].items():
                for number in from_ranges(ranges):
                    gone.setdefault((file, number), (state, entry.actor, str(entry.details["reason"])))
    return gone


def as_ranges(numbers: Iterable[int]) -> str:
    """
    >>> as_ranges([7, 1, 2, 3, 9])
    '1-3,7,9'
    """
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def from_ranges(text: str) -> list[int]:
    """
    >>> from_ranges('1-3,7,9')
    [1, 2, 3, 7, 9]
    """
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
