"""Promotion: a challenger becomes the champion where every gate holds; and the way back.

What was decided is written to the ledger first, then the aliases move, then the ledger says that they have. So a
process that dies in between is continued by the next one: a decision without its second entry is carried out.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flows import ledger
from flows.comparison import Gate, Margins
from flows.dataset import newest_incidents
from flows.errors import Refused
from flows.gates import beats_constant, judge
from flows.holdout import compare, constant_losses, held_out_rows, independent_groups
from flows.images import images_of
from flows.settings import Settings
from flows.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

    from flows.store import Store
    from flows.tracking import Tracker
    from flows.trainings import Training

DECIDED, ROLLED_BACK, MOVED, HELD = "promotion.decided", "rollback.decided", "champion.set", "promotion.held"
"""Actions in the ledger."""


@dataclass(frozen=True)
class Decision:
    """The gates' answer to one challenger.

    Attributes
    ----------
    promoted: whether it is the champion now.
    version, champion: the challenger, and the champion that it met; None where there was none.
    gates: every gate with figure, interval and verdict.
    first: whether it was judged as a first champion, against the constant predictor.
    reasons: in words; why it was refused, or what was found.
    rows: held-out rows that both were compared on.
    tail_champion, tail_challenger: mean loss of the worst tenth of these rows.
    figures: "champion", "challenger" -> mean, tail, stability on these rows.
    """

    promoted: bool
    version: str
    champion: str | None
    gates: tuple[Gate, ...]
    first: bool
    reasons: tuple[str, ...]
    rows: int = 0
    tail_champion: float | None = None
    tail_challenger: float | None = None
    figures: dict[str, dict[str, float]] | None = None


@dataclass(frozen=True)
class Rollback:
    """A return to the champion before: `version` is in use again, `replaced` was."""

    version: str
    replaced: str


def consider(
    store: Store,
    tracker: Tracker,
    settings: Settings,
    workspace: Workspace,
    *,
    training: Training,
    now: datetime,
    actor: str,
) -> Decision:
    """Bring a challenger before the gates; it becomes the champion only where all hold.

    Safe to call again: on the same rows the decision is the one that was made, and a promotion that a crash left
    half done is carried out.

    Raises
    ------
    Refused: a model's files are not those that were registered.
    Unavailable: the tracking server is away; nothing was decided, or what was decided is carried out next time.
    """
    carry_out(store, tracker, now=now)
    champion, version = tracker.champion(), training.version
    if champion == version:
        return _made_champion(store, version)
    holding = _holding_incident(store)
    if holding is not None:
        return _held(store, training, champion, holding, actor=actor, now=now)
    versions = store.versions()
    key = f"promotion:{version}:{champion or 'none'}:{versions.get('inspections', 0)}:{versions.get('labels', 0)}"
    entry = ledger.find(store, key)
    if entry is None:
        decision = _decide(store, tracker, settings, workspace, training=training, champion=champion)
        ledger.enter(
            store, key=key, actor=actor, action=DECIDED, subject=version, at=now,
            details={**_document(decision), "run": training.run_id, "reason": training.reason, "from": champion,
                     "to": version},
        )  # fmt: skip
    else:
        decision = _decision_of(entry.details)
    if decision.promoted:
        carry_out(store, tracker, now=now)
    return decision


def rollback(store: Store, tracker: Tracker, settings: Settings, *, now: datetime, actor: str, reason: str) -> Rollback:
    """Put the champion before to use again; a second rollback goes forth again.

    Raises
    ------
    Refused: there is no champion before, or its files are not those that were registered.
    """
    finished = carry_out(store, tracker, now=now)
    if finished is not None and finished.action == ROLLED_BACK:
        return Rollback(finished.details["to"], finished.details["from"])  # the one that a crash interrupted
    champion, previous = tracker.champion(), tracker.previous()
    if champion is None or previous is None or previous == champion:
        raise Refused(f"{settings.name} has no earlier champion to go back to; `softad status` lists the versions")
    tracker.load(previous)  # before anything is written: what cannot be loaded must not be put to use
    number = len(ledger.read(store, action=ROLLED_BACK))
    ledger.enter(
        store, key=f"rollback:{number}", actor=actor, action=ROLLED_BACK, subject=previous, at=now,
        details={"from": champion, "to": previous, "reason": reason},
    )  # fmt: skip
    carry_out(store, tracker, now=now)
    return Rollback(previous, champion)


def carry_out(store: Store, tracker: Tracker, *, now: datetime) -> ledger.Entry | None:
    """Move the aliases for decisions whose move the ledger does not know yet; returns the last of them."""
    entries = ledger.read(store)
    done = {entry.key for entry in entries if entry.action == MOVED}
    last = None
    for entry in entries:
        wanted = entry.action == ROLLED_BACK or (entry.action == DECIDED and entry.details["promoted"])
        if not wanted or f"set:{entry.key}" in done:
            continue
        before, after = entry.details["from"], entry.details["to"]
        if before is not None:
            tracker.set_previous(before)
        tracker.set_champion(after)
        ledger.enter(
            store, key=f"set:{entry.key}", actor=entry.actor, action=MOVED, subject=after, at=now,
            details={"from": before, "to": after, "decision": entry.key},
        )  # fmt: skip
        last = entry
    return last


def margins_of(settings: Settings) -> Margins:
    """The gates' margins as the configuration states them."""
    rules = settings.promotion
    return Margins(
        mean=rules.mean_margin,
        tail=rules.tail_margin,
        stability=rules.stability_margin,
        recall=rules.recall_margin,
        slices=rules.slice_margin,
        confidence=rules.confidence,
        resamples=rules.resamples,
        min_rows=rules.min_holdout_rows,
        min_slice_rows=rules.min_slice_rows,
    )


def _decide(
    store: Store,
    tracker: Tracker,
    settings: Settings,
    workspace: Workspace,
    *,
    training: Training,
    champion: str | None,
) -> Decision:
    version, seed = training.version, settings.training.seed
    if champion is not None and tracker.version(champion).digest == training.digest:
        reason = f"version {version} is the same model as the champion, version {champion}: there is nothing to gain"
        gate = Gate("difference", 0.0, None, None, None, False, reason)
        return Decision(False, version, champion, (gate,), False, (reason,))
    images = images_of(settings, workspace)
    frame = held_out_rows(store, tracker, settings, [name for name in (version, champion) if name is not None])
    challenger = tracker.load(version)
    if champion is None:
        if settings.task.kind == "classification":
            frame = frame[frame["label"].isin(challenger.classes or [])].reset_index(drop=True)
        losses = challenger.row_losses(frame, _truth(frame, settings), images)
        margins = margins_of(settings)
        gate = beats_constant(
            losses, constant_losses(tracker, version, challenger, frame), groups=independent_groups(frame, settings),
            confidence=margins.confidence, resamples=margins.resamples, min_rows=margins.min_rows, seed=seed,
        )  # fmt: skip
        return _decision(version, None, (gate,), (), challenger=losses)
    comparison, left_out = compare(tracker.load(champion), challenger, frame, settings, images)
    gates = judge(comparison, margins_of(settings), seed=seed)
    notes = (f"{left_out} held-out rows of classes that one of the models does not know are left out",)
    return _decision(
        version, champion, gates, notes if left_out else (),
        challenger=comparison.challenger_losses, old=comparison.champion_losses,
    )  # fmt: skip


def _decision(
    version: str,
    champion: str | None,
    gates: tuple[Gate, ...],
    notes: tuple[str, ...],
    *,
    challenger: np.ndarray,
    old: np.ndarray | None = None,
) -> Decision:
    failed = [gate.reason for gate in gates if not gate.passed]
    found = [gate.reason for gate in gates if gate.gated and not gate.name.startswith("slice ")]
    figures = {} if old is None else {"champion": _three(old)}
    figures["challenger"] = _three(challenger)
    return Decision(
        promoted=not failed,
        version=version,
        champion=champion,
        gates=gates,
        first=champion is None,
        reasons=(*(failed or found), *notes),
        rows=len(challenger),
        tail_champion=None if old is None else figures["champion"].get("tail"),
        tail_challenger=figures["challenger"].get("tail"),
        figures=figures,
    )


def _three(losses: np.ndarray) -> dict[str, float]:
    from softad.figures import cvar

    if len(losses) == 0:
        return {}
    return {"mean": float(losses.mean()), "tail": cvar(losses, 0.9), "stability": float(losses.std())}


def _made_champion(store: Store, version: str) -> Decision:
    """The decision by which a version became what it is."""
    for entry in reversed(ledger.read(store, action=DECIDED)):
        if entry.subject == version and entry.details["promoted"]:
            return _decision_of(entry.details)
    reason = f"version {version} is the champion already: there is nothing to gain"
    return Decision(False, version, version, (Gate("difference", 0.0, None, None, None, False, reason),), False,
                    (reason,))  # fmt: skip


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
    return Decision(False, training.version, champion, (), champion is None, (reason,))


def _truth(frame: Any, settings: Settings) -> np.ndarray:
    from flows.candidates import truth_of

    return truth_of(frame, settings)


def _document(decision: Decision) -> dict[str, Any]:
    document = asdict(decision)
    document["gates"] = [
        {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in gate.items()}
        for gate in document["gates"]
    ]
    return document


def _decision_of(details: dict[str, Any]) -> Decision:
    known = {field.name for field in fields(Decision)}
    values = {name: value for name, value in details.items() if name in known}
    values["gates"] = tuple(Gate(**gate) for gate in values["gates"])
    values["reasons"] = tuple(values["reasons"])
    return Decision(**values)
