"""What the ledger says of promotions: which challenger waits, for whom, and which was refused for good.

Nothing is written or moved here; `flows.promote` does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from flows.ledger import Entry

DECIDED, MOVED, HELD = "promotion.decided", "champion.set", "promotion.held"
APPROVED, REFUSED, EXPIRED, OVERTAKEN = (
    "promotion.approved", "promotion.refused", "promotion.expired", "promotion.overtaken",
)  # fmt: skip
ROLLED_BACK = "rollback.decided"
WATCHED, WATCH_ENDED = "watch.window", "watch.ended"
"""Actions in the ledger."""

Needs = Literal["shadow", "person"]


@dataclass(frozen=True)
class Pending:
    """A challenger that passed every gate and is not the champion yet.

    Attributes
    ----------
    key: of the gates' entry in the ledger.
    version, champion: the challenger, and the champion that it met; None where there was none.
    needs: what it waits for: windows beside the champion, or a person's word.
    after_seq: the last row that had arrived when the gates decided.
    """

    key: str
    version: str
    champion: str | None
    at: datetime
    needs: Needs
    after_seq: int
    entry: Entry


def pending(entries: Sequence[Entry]) -> Pending | None:
    """The challenger that waits now; a later one that passed takes the place of an earlier, and any move ends it.

    >>> from datetime import UTC
    >>> at = datetime(2026, 1, 5, tzinfo=UTC)
    >>> passed = Entry("promotion:2:1:5:5", at, "softad", DECIDED, "2",
    ...     {"passed": True, "promoted": False, "needs": "person", "from": "1", "to": "2", "newest_seq": 99})
    >>> pending([passed]).version
    '2'
    >>> pending([passed, Entry("refused:2", at, "aiko", REFUSED, "2", {"reason": "not now"})]) is None
    True
    """
    found: Pending | None = None
    for entry in entries:
        details = entry.details
        if entry.action == DECIDED and details.get("passed") and not details["promoted"]:
            needs: Needs = "shadow" if details.get("needs") == "shadow" else "person"
            found = Pending(
                entry.key, entry.subject, details["from"], entry.at, needs, int(details.get("newest_seq", -1)), entry
            )
        elif found is None:
            continue
        elif (entry.action in {REFUSED, EXPIRED} and entry.subject == found.version) or entry.action == MOVED:
            found = None
        elif entry.action == WATCH_ENDED and details.get("decision") == found.key and details.get("next") == "person":
            found = Pending(found.key, found.version, found.champion, entry.at, "person", found.after_seq, found.entry)
    return found


def refusal(entries: Sequence[Entry], version: str) -> Entry | None:
    """The entry by which a person, or the watch, refused a version; None where nobody did."""
    return next((entry for entry in entries if entry.action == REFUSED and entry.subject == version), None)


def champion_of(entries: Sequence[Entry]) -> str | None:
    """The champion as the ledger has it: where the last move led to."""
    moves = [entry for entry in entries if entry.action == MOVED]
    return moves[-1].subject if moves else None


def to_move(entries: Sequence[Entry]) -> list[Entry]:
    """Decisions whose move the ledger does not know yet, in their order."""
    known = {entry.key for entry in entries if entry.action in {MOVED, OVERTAKEN}}
    return [
        entry
        for entry in entries
        if f"set:{entry.key}" not in known
        and (entry.action in {ROLLED_BACK, APPROVED} or (entry.action == DECIDED and bool(entry.details["promoted"])))
    ]


def overtaken(entries: Sequence[Entry], decision: Entry) -> Entry | None:
    """The move that came after a decision and before its own: what was decided then is about another champion.

    >>> from datetime import UTC
    >>> at = datetime(2026, 1, 5, tzinfo=UTC)
    >>> one, two = (Entry(f"promotion:{to}:1", at, "a", DECIDED, to, {"promoted": True}) for to in ("2", "3"))
    >>> moved = Entry("set:promotion:2:1", at, "a", MOVED, "2", {})
    >>> overtaken([one, two, moved], two).subject, overtaken([one, two, moved], one)
    ('2', None)
    """
    keys = [entry.key for entry in entries]
    later = entries[keys.index(decision.key) + 1 :]
    return next((entry for entry in later if entry.action == MOVED and entry.key != f"set:{decision.key}"), None)
