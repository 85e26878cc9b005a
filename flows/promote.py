"""Promotion: a challenger becomes the champion where every gate holds and whoever has to let it has; and the way back.

What was decided is written to the ledger first, then the aliases move, then the ledger says that they have. So a
process that dies in between is continued by the next one: a decision without its second entry is carried out. Where
two were decided at once, the first in the ledger moves, and the other is told that it was overtaken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flows import ledger
from flows.dataset import newest_incidents
from flows.decisions import Decision, decide, decision_of, judged_before, nothing_decided, same_model
from flows.errors import Refused
from flows.lives import current_life
from flows.promotions import (
    APPROVED,
    DECIDED,
    HELD,
    MOVED,
    OVERTAKEN,
    REFUSED,
    ROLLED_BACK,
    Pending,
    champion_of,
    overtaken,
    pending,
    refusal,
    to_move,
)
from flows.settings import Settings
from flows.workspace import Workspace

if TYPE_CHECKING:
    from flows.store import Store
    from flows.tracking import Tracker
    from flows.trainings import Training

__all__ = [
    "DECIDED", "HELD", "MOVED", "ROLLED_BACK", "Decision", "Rollback", "approve", "carry_out", "champion_in_use",
    "consider", "refuse", "rollback",
]  # fmt: skip


@dataclass(frozen=True)
class Rollback:
    """A return to the champion before.

    Attributes
    ----------
    version: the champion now. replaced: the one that was to be left.
    moved: False where that one was out of use already: nothing was changed.
    """

    version: str
    replaced: str
    moved: bool = True


def consider(
    store: Store,
    tracker: Tracker,
    settings: Settings,
    workspace: Workspace,
    *,
    training: Training,
    now: datetime,
    actor: str,
    by_person: bool = False,
    named: str = "account",
) -> Decision:
    """Bring a challenger before the gates; it becomes the champion only where all hold.

    Safe to call again: on the same rows the decision is the one that was made, and a promotion that a crash left
    half done is carried out. A model that the gates refused against this champion is not judged again.

    Parameters
    ----------
    by_person: `actor` lets it, where `promotion.mode` asks for a person.
    named: how the actor's name is known: "account" (the system's) or "declared" (given, and believed).

    Raises
    ------
    Refused: a model's files are not those that were registered; or another process was quicker.
    Unavailable: the tracking server is away; nothing was decided, or what was decided is carried out next time.
    """
    carry_out(store, tracker, now=now)
    champion, version = champion_in_use(store, tracker), training.version
    if champion == version:
        return _made_champion(store, version)
    entries = ledger.read(store)
    refused = refusal(entries, version)
    if refused is not None:
        return nothing_decided(version, champion, _refused_sentence(refused))
    holding = _holding_incident(store)
    if holding is not None:
        return _held(store, training, champion, holding, actor=actor, now=now)
    waiting = pending(entries)
    if waiting is None or (waiting.version, waiting.champion) != (version, champion):
        waiting, decision = _before_gates(
            store, tracker, settings, workspace, training=training, champion=champion, entries=entries, now=now,
            actor=actor,
        )  # fmt: skip
        if waiting is None and not decision.promoted:
            return decision
    else:
        decision = replace(decision_of(waiting.entry.details), needs=waiting.needs)
    if waiting is not None:
        if waiting.needs == "shadow" or not by_person:
            return replace(decision, reasons=(*decision.reasons, _waits_sentence(waiting)))
        tracker.check(version)  # it may have waited for days
        approve(store, waiting, actor=actor, named=named, note="after the gates", now=now)
    carry_out(store, tracker, now=now)
    _told_where_overtaken(store, version)
    return replace(decision, promoted=True, needs=None)


def _before_gates(
    store: Store,
    tracker: Tracker,
    settings: Settings,
    workspace: Workspace,
    *,
    training: Training,
    champion: str | None,
    entries: Sequence[ledger.Entry],
    now: datetime,
    actor: str,
) -> tuple[Pending | None, Decision]:
    version, versions = training.version, store.versions()
    key = f"promotion:{version}:{champion or 'none'}:{versions.get('inspections', 0)}:{versions.get('labels', 0)}"
    entry = _same_rows(entries, key)
    key = entry.key if entry is not None else _free(entries, key)
    if entry is None:
        before = judged_before(entries, training.digest, champion)
        if before is not None:
            reason = (
                f"the gates refused this very model on {before.at:%Y-%m-%d} against the same champion (as version "
                f"{before.subject}); it is not tried again unchanged: train another with `softad "
                "retrain`, once new rows or labels have come or the settings are others"
            )
            return None, replace(decision_of(before.details), version=version, reasons=(reason,))
        decision = decide(store, tracker, settings, workspace, training=training, champion=champion, entries=entries)
        decision = replace(decision, **_how(decision, settings))
        newest = store.sql("SELECT coalesce(max(_seq), -1) AS top FROM inspections")["top"].iloc[0]
        ledger.enter(
            store, key=key, actor=actor, action=DECIDED, subject=version, at=now,
            details={**decision.document(), "run": training.run_id, "reason": training.reason, "from": champion,
                     "to": version, "digest": training.digest, "incident": training.incident,
                     "newest_seq": int(newest)},
        )  # fmt: skip
        entries = ledger.read(store)
    else:
        decision = decision_of(entry.details)
    waiting = pending(entries)
    return (waiting if waiting is not None and waiting.key == key else None), decision


def _same_rows(entries: Sequence[ledger.Entry], key: str) -> ledger.Entry | None:
    """The decision that was made on these very rows, where it still stands: refused, or waiting."""
    waiting = pending(entries)
    for entry in reversed(entries):
        if entry.key == key or entry.key.startswith(f"{key}:again-"):
            stands = not entry.details.get("passed", entry.details["promoted"])
            return entry if stands or (waiting is not None and waiting.key == entry.key) else None
    return None


def _free(entries: Sequence[ledger.Entry], key: str) -> str:
    """`key`, or, where a promotion of that key has had its end (it went back, or nobody decided), one after it."""
    before = sum(1 for entry in entries if entry.key == key or entry.key.startswith(f"{key}:again-"))
    return f"{key}:again-{before}" if before else key


def _how(decision: Decision, settings: Settings) -> dict[str, Any]:
    """Whether a challenger that passed is promoted at once, or what it waits for."""
    rules = settings.promotion
    if not decision.passed:
        return {"promoted": False, "needs": None}
    if rules.shadow_windows and decision.champion is not None:
        return {"promoted": False, "needs": "shadow"}
    return {"promoted": False, "needs": "person"} if rules.mode != "auto" else {"promoted": True, "needs": None}


def approve(store: Store, waiting: Pending, *, actor: str, named: str, note: str, now: datetime) -> None:
    """Write down that a challenger that waits may be promoted; `carry_out` moves the aliases."""
    ledger.enter(
        store, key=f"approved:{waiting.key}", actor=actor, action=APPROVED, subject=waiting.version, at=now,
        details={"from": waiting.champion, "to": waiting.version, "decision": waiting.key, "reason": note,
                 "named": named},
    )  # fmt: skip


def refuse(
    store: Store, tracker: Tracker, *, version: str, actor: str, reason: str, now: datetime, named: str = "account"
) -> bool:
    """Refuse a challenger for good, by a person's word or the watch's; `False` when it was refused before.

    Raises
    ------
    BadConfig: there is no such version.
    Refused: it is the champion.
    """
    tracker.version(version)
    if tracker.champion() == version:
        raise Refused(f"version {version} is the champion; to take it out of use: softad rollback --of {version}")
    return ledger.enter(
        store, key=f"refused:{version}", actor=actor, action=REFUSED, subject=version, at=now,
        details={"reason": reason, "named": named},
    )  # fmt: skip


def rollback(
    store: Store, tracker: Tracker, settings: Settings, *, now: datetime, actor: str, reason: str,
    named: str = "account", of: str | None = None,
) -> Rollback:  # fmt: skip
    """Put the champion before to use again.

    Parameters
    ----------
    of: the champion that is to be left: asked again once it is out of use, nothing is changed, however often a process
        died on the way. By default it is whichever is in use, so that a second rollback goes forth again.

    Raises
    ------
    BadConfig: there is no version `of`.
    Refused: there is no champion before, it was refused for good, or its files are not those that were registered.
    """
    finished = carry_out(store, tracker, now=now)
    entries = ledger.read(store)
    interrupted = _not_followed(store, entries)
    if finished is not None and finished.action == ROLLED_BACK:
        interrupted = Rollback(finished.details["to"], finished.details["from"])
    if interrupted is not None and of in (None, interrupted.replaced):
        return interrupted
    # Where the registry has lost the champion, the ledger still knows which it was: the way back is open all the same.
    champion, previous = tracker.champion() or champion_of(entries), tracker.previous()
    if of is not None and champion is not None and of != champion:
        if not any(entry.action == MOVED and entry.subject == of for entry in entries):
            tracker.version(of)  # a slip of the pen is told; one that was deleted after its use is only out of use
        return Rollback(champion, of, moved=False)
    if champion is None or previous is None or previous == champion:
        raise Refused(f"{settings.name} has no earlier champion to go back to; `softad status` lists the versions")
    against = refusal(entries, previous)
    if against is not None:
        raise Refused(
            f"version {previous}, the champion before, was refused for good by {against.actor} on "
            f"{against.at:%Y-%m-%d} ({against.details['reason']}); version {champion} stays in use; train another with "
            "`softad retrain`"
        )
    tracker.check(previous)  # before anything is written: what has changed must not be put to use
    number = sum(1 for entry in entries if entry.action == ROLLED_BACK)
    ours = ledger.enter(
        store, key=f"rollback:{number}", actor=actor, action=ROLLED_BACK, subject=previous, at=now,
        details={"from": champion, "to": previous, "reason": reason, "named": named},
    )  # fmt: skip
    carry_out(store, tracker, now=now)
    if not ours:
        raise Refused(f"another process went back to version {previous} at this moment; nothing more was moved")
    return Rollback(previous, champion)


def _not_followed(store: Store, entries: Sequence[ledger.Entry]) -> Rollback | None:
    """The return that moved last, where a crash came before its new life: asked again, it is not turned round."""
    newest = next((entry for entry in reversed(entries) if entry.action == MOVED), None)
    life = current_life(store)
    if newest is None or life is None or life.model_version == newest.subject:
        return None
    of_rollback = any(entry.key == newest.details["decision"] and entry.action == ROLLED_BACK for entry in entries)
    return Rollback(newest.subject, newest.details["from"]) if of_rollback else None


def carry_out(store: Store, tracker: Tracker, *, now: datetime) -> ledger.Entry | None:
    """Move the aliases for decisions whose move the ledger does not know yet; returns the last of them."""
    last = None
    while waiting := to_move(entries := ledger.read(store)):
        entry = waiting[0]
        before, after = entry.details["from"], entry.details["to"]
        moved = overtaken(entries, entry)
        if moved is not None:
            ledger.enter(
                store, key=f"set:{entry.key}", actor=entry.actor, action=OVERTAKEN, subject=after, at=now,
                details={"from": before, "to": after, "decision": entry.key, "by": moved.subject},
            )  # fmt: skip
            continue
        if before is not None and tracker.has(before):  # a version that was deleted bears no alias
            tracker.set_previous(before)
        tracker.set_champion(after)
        ledger.enter(
            store, key=f"set:{entry.key}", actor=entry.actor, action=MOVED, subject=after, at=now,
            details={"from": before, "to": after, "decision": entry.key},
        )  # fmt: skip
        last = entry
    return last


def champion_in_use(store: Store, tracker: Tracker) -> str | None:
    """The version in use, or None before the first promotion.

    Raises
    ------
    Refused: the registry has lost the champion: its alias, or the version that it points to.
    """
    version = tracker.champion()
    if version is not None and tracker.has(version):
        return version
    kept = version or champion_of(ledger.read(store))
    if kept is None:
        return None
    what = "has no alias 'champion' any more" if version is None else f"points 'champion' to version {version}, gone"
    way = "go back to the champion before with `softad rollback`, or " if tracker.versions() else ""
    raise Refused(
        f"the registry of {tracker.name} {what}, though version {kept} was put to use: it was deleted there; {way}"
        "restore MLflow's database from a backup"
    )


def _told_where_overtaken(store: Store, version: str) -> None:
    """Raise where another process made another version the champion meanwhile."""
    last = next(
        (entry for entry in reversed(ledger.read(store)) if entry.action in {MOVED, OVERTAKEN}
         and entry.subject == version), None,
    )  # fmt: skip
    if last is not None and last.action == OVERTAKEN:
        raise Refused(
            f"version {version} was not promoted: another process made version {last.details['by']} the champion at "
            f"the same time; bring it before the gates again: softad promote {version}"
        )


def _waits_sentence(waiting: Pending) -> str:
    if waiting.needs == "shadow":
        return f"version {waiting.version} is judged beside the champion on the next windows before it is promoted"
    return (
        f"version {waiting.version} waits for a person: softad promote {waiting.version} --by NAME, or "
        f"softad promote --refuse {waiting.version} --reason TEXT"
    )


def _refused_sentence(entry: ledger.Entry) -> str:
    return (
        f"version {entry.subject} was refused on {entry.at:%Y-%m-%d} by {entry.actor} ({entry.details['reason']}); "
        "train another with `softad retrain`"
    )


def _made_champion(store: Store, version: str) -> Decision:
    """The decision by which a version became what it is."""
    for entry in reversed(ledger.read(store, action=DECIDED)):
        if entry.subject == version and (entry.details["promoted"] or entry.details.get("passed")):
            return replace(decision_of(entry.details), promoted=True, needs=None)
    reason = f"version {version} is the champion already: there is nothing to gain"
    return same_model(version, version, reason)


def _holding_incident(store: Store) -> str | None:
    """The incident that names a slice and waits for a person's answer, if there is one."""
    for key, record in sorted(newest_incidents(store).items()):
        if record.get("verdict") == "inspect" and record.get("answer") is None and record.get("state") != "closed":
            return key
    return None


def _held(
    store: Store, training: Training, champion: str | None, incident: str, *, actor: str, now: datetime
) -> Decision:
    reason = (
        f"version {training.version} is held until {incident} is answered: softad alerts ack {incident} --repaired "
        "(or --new-normal)"
    )
    ledger.enter(
        store, key=f"promotion-held:{training.version}:{incident}", actor=actor, action=HELD, subject=training.version,
        details={"incident": incident, "run": training.run_id}, at=now,
    )  # fmt: skip
    return nothing_decided(training.version, champion, reason)
