"""What happens to promotions between two commands: models watched side by side, decisions asked for, and carried out.

One mechanism for shadow (before the aliases move) and probation (after): both models judge the rows of each window that
is judged from then on. A challenger that is shown worse is refused; a new champion that is shown worse gives its place
back to the one before. Everything is found from the ledger, and written there before it is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import pandas as pd

from flows import ledger
from flows.context import Context
from flows.dataset import excluded, exclusions, labelled_rows
from flows.decisions import margins_of
from flows.holdout import compare
from flows.images import images_of
from flows.incidents import change_incident, open_incidents
from flows.ledger import Entry
from flows.monitor import outcomes
from flows.promote import approve, carry_out, champion_in_use, refuse, rollback
from flows.promotions import (
    APPROVED,
    DECIDED,
    EXPIRED,
    MOVED,
    WATCH_ENDED,
    WATCHED,
    Pending,
    pending,
    refusal,
    to_move,
)
from flows.respond import SYSTEM, ensure_life
from flows.watch_rule import watched_figures
from monitoring.incidents import Incident

Kind = Literal["shadow", "probation"]


@dataclass(frozen=True)
class Pair:
    """Two versions that are watched: `version` against `other`, on rows that came after `after_seq`.

    Attributes
    ----------
    decision: key of the gates' entry. since: windows judged later than that count. windows: how many.
    """

    kind: Kind
    decision: str
    version: str
    other: str
    since: datetime
    after_seq: int
    windows: int


def watch_promotions(context: Context, *, now: datetime) -> list[str]:
    """Do whatever promotions need now; returns sentences for a person.

    A step that a crash interrupted is finished by the next call.
    """
    if to_move(ledger.read(context.store)):
        # Under the lock: a slow process must not move an alias after a quicker one has moved it on.
        with context.workspace.lock("promotion"):
            carry_out(context.store, context.tracker, now=now)
    notes: list[str] = []
    for pair in _pairs(context, ledger.read(context.store)):
        notes += _look(context, pair, now=now)
    notes += _finish(context, now=now)
    waiting = pending(ledger.read(context.store))
    if waiting is not None and waiting.needs == "person":
        notes += _ask(context, waiting, now=now)
    _close_answered(context, now=now)
    return notes


def _pairs(context: Context, entries: Sequence[Entry]) -> list[Pair]:
    """The pairs that are watched now."""
    rules = context.settings.promotion
    ended = {(entry.details["kind"], entry.details["decision"]) for entry in entries if entry.action == WATCH_ENDED}
    found = []
    waiting = pending(entries)
    if waiting is not None and waiting.needs == "shadow" and waiting.champion is not None:
        found.append(
            Pair("shadow", waiting.key, waiting.version, waiting.champion, waiting.at, waiting.after_seq,
                 max(rules.shadow_windows, 1))
        )  # fmt: skip
    moves = [entry for entry in entries if entry.action == MOVED]
    decided = _decided(entries, moves[-1]) if moves else None
    if decided is not None and decided.details["from"] is not None and rules.probation_windows:
        move = moves[-1]
        found.append(
            Pair("probation", decided.key, move.subject, decided.details["from"], move.at,
                 int(decided.details.get("newest_seq", -1)), rules.probation_windows)
        )  # fmt: skip
    return [pair for pair in found if (pair.kind, pair.decision) not in ended]


def _decided(entries: Sequence[Entry], move: Entry) -> Entry | None:
    """The gates' entry that a move came from; None where it was a way back."""
    by_key = {entry.key: entry for entry in entries}
    entry = by_key.get(move.details["decision"])
    if entry is not None and entry.action == APPROVED:
        entry = by_key.get(entry.details["decision"])
    return entry if entry is not None and entry.action == DECIDED else None


def _look(context: Context, pair: Pair, *, now: datetime) -> list[str]:
    """Judge both models on the windows that were judged since; each further window is one look at all of them."""
    windows = list(
        dict.fromkeys(
            look.window for look in outcomes(context) if look.at > pair.since and look.state != "too_few_labels"
        )
    )
    known = {
        entry.details["window"]: entry.details
        for entry in ledger.read(context.store, action=WATCHED)
        if (entry.details["kind"], entry.details["decision"]) == (pair.kind, pair.decision)
    }
    rows = pd.DataFrame() if known.keys() >= set(windows) else _rows_since(context, pair)
    looks = 0
    for number, window in enumerate(windows, start=1):
        found = known.get(window)
        if found is None:
            part = rows[rows["window"].isin(windows[:number])].reset_index(drop=True)
            if len(part) < context.settings.promotion.min_holdout_rows:
                continue
            found = _compared(context, pair, part)
            ledger.enter(
                context.store, key=f"watch:{pair.kind}:{pair.decision}:{window}", actor=SYSTEM, action=WATCHED,
                subject=pair.version, at=now,
                details={"kind": pair.kind, "decision": pair.decision, "against": pair.other, "window": window,
                         **found},
            )  # fmt: skip
        looks += 1
        worse = [one["name"] for one in found["figures"] if one["worse"]]
        if worse or looks >= pair.windows:
            return _end(context, pair, worse, found, windows[:number], now=now)
    return []


def _rows_since(context: Context, pair: Pair) -> pd.DataFrame:
    """Labelled rows that came after the decision, without those that an incident keeps out."""
    rows = labelled_rows(context.store, context.settings, after_seq=pair.after_seq)
    return rows[~excluded(rows, exclusions(context.store, context.settings))]


def _compared(context: Context, pair: Pair, rows: pd.DataFrame) -> dict[str, Any]:
    settings, tracker = context.settings, context.tracker
    comparison, _ = compare(
        tracker.load(pair.other), tracker.load(pair.version), rows, settings, images_of(settings, context.workspace)
    )
    figures = watched_figures(comparison, margins_of(settings), looks=pair.windows, seed=settings.training.seed)
    return {"rows": len(comparison.champion_losses), "figures": [one.document() for one in figures]}


def _end(
    context: Context, pair: Pair, worse: list[str], found: dict[str, Any], windows: list[str], *, now: datetime
) -> list[str]:
    """Write down how a watch ended; what follows is done by `_finish`."""
    after = None
    if pair.kind == "shadow" and not worse:
        after = "promotion" if context.settings.promotion.mode == "auto" else "person"
    ledger.enter(
        context.store, key=f"watched:{pair.kind}:{pair.decision}", actor=SYSTEM, action=WATCH_ENDED,
        subject=pair.version, at=now,
        details={"kind": pair.kind, "decision": pair.decision, "against": pair.other, "since": pair.since,
                 "windows": windows, "worse": worse, "next": after, "rows": found["rows"],
                 "figures": found["figures"]},
    )  # fmt: skip
    said = f"shown worse ({', '.join(worse)})" if worse else "not shown worse"
    place = "beside" if pair.kind == "shadow" else "after"
    return [
        f"version {pair.version} is {said} than version {pair.other} on {found['rows']} rows of {len(windows)} "
        f"{'window' if len(windows) == 1 else 'windows'} {place} {'it' if pair.kind == 'shadow' else 'its promotion'}"
    ]


def _finish(context: Context, *, now: datetime) -> list[str]:
    """Carry out how the last watch of each kind ended; what is done already stays as it is."""
    from flows.alerting import alert_promotion

    entries = ledger.read(context.store)
    last = {entry.details["kind"]: entry for entry in entries if entry.action == WATCH_ENDED}
    notes: list[str] = []
    for kind, end in last.items():
        version, details = end.subject, end.details
        if details["worse"]:
            if refusal(entries, version) is None:
                notes += _take_back(context, end, now=now)
            alert_promotion(context, "undone" if kind == "probation" else "worse", end, now=now)
            continue
        waiting = pending(entries)
        if details["next"] == "promotion" and waiting is not None and waiting.key == details["decision"]:
            with context.workspace.lock("promotion"):
                context.tracker.check(version)
                note = f"not shown worse on {details['rows']} rows of {len(details['windows'])} windows"
                approve(context.store, waiting, actor=SYSTEM, named="system", note=note, now=now)
                carry_out(context.store, context.tracker, now=now)
                ensure_life(context, now=now, actor=SYSTEM)
            notes.append(f"version {version} is the champion now: {note}")
        if details["next"] == "promotion" and context.tracker.champion() == version and not _asked_for(entries, end):
            alert_promotion(context, "made", end, now=now)
    return notes


def _asked_for(entries: Sequence[Entry], end: Entry) -> bool:
    """Whether an incident asked for the model: then its own message tells that it is in use."""
    decided = next((entry for entry in entries if entry.key == end.details["decision"]), None)
    return decided is not None and decided.details.get("incident") is not None


def _take_back(context: Context, end: Entry, *, now: datetime) -> list[str]:
    """A model that was shown worse: out of use where it is in use, and refused."""
    version, details = end.subject, end.details
    reason = (
        f"shown worse than version {details['against']} ({', '.join(details['worse'])}) on {details['rows']} rows of "
        f"{', '.join(details['windows'])}"
    )
    notes = []
    with context.workspace.lock("promotion"):
        if champion_in_use(context.store, context.tracker) == version:
            back = rollback(
                context.store, context.tracker, context.settings, now=now, actor=SYSTEM, reason=f"probation: {reason}",
                named="system", of=version,
            )  # fmt: skip
            ensure_life(context, now=now, actor=SYSTEM, back=True)
            done = "is the champion again" if back.moved else "is the champion already"
            notes.append(f"version {back.version} {done}: version {version} was {reason}")
        else:
            notes.append(f"version {version} is not promoted: {reason}")
        refuse(context.store, context.tracker, version=version, actor=SYSTEM, reason=reason, now=now, named="system")
    return notes


def _ask(context: Context, waiting: Pending, *, now: datetime) -> list[str]:
    """Tell that a person has to decide; after the set time the challenger waits no more."""
    from flows.alerting import alert_promotion

    rules = context.settings.promotion
    if now - waiting.at >= timedelta(hours=rules.approve_hours):
        ledger.enter(
            context.store, key=f"expired:{waiting.key}", actor=SYSTEM, action=EXPIRED, subject=waiting.version, at=now,
            details={"decision": waiting.key, "reason": f"nobody decided within {rules.approve_hours:g} hours"},
        )  # fmt: skip
        alert_promotion(context, "expired", waiting.entry, now=now)
        return [f"version {waiting.version} was not decided on within {rules.approve_hours:g} hours"]
    note = f"version {waiting.version} passed every gate and waits for a person: softad promote {waiting.version}"
    url = None
    if rules.mode == "approve":
        from flows.approvals import ask_on_page

        url, why = ask_on_page(context, waiting)
        note += f", or {url}" if url else f" ({why})"
    alert_promotion(context, "waits", waiting.entry, url=url, now=now)
    return [note]


def _close_answered(context: Context, *, now: datetime) -> None:
    """An incident whose challenger is in use now, since a watch or a person let it, is over."""
    waits = [one for one in open_incidents(context.store) if one.challenger_version is not None]
    if not waits:
        return
    champion = context.tracker.champion()
    for incident in waits:

        def closed(current: Incident) -> Incident | None:
            over = current.state == "closed" or current.challenger_version != champion or current.held
            return None if over else current.closed(now, reason="promoted")

        if incident.answer != "repaired":
            change_incident(context, incident.key, closed, event="closed", now=now, tell="promoted")
