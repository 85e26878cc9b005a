"""What follows from an alarm: an incident, a challenger, a gate decision, a new life. Every step is found from the
tables, so that a process killed anywhere is continued by the next one.

What an incident asks for (see `pending`):

- verdict `inspect`, nobody has answered: train a challenger without the named slice's rows, and hold it;
- answered `new-normal`, or verdict `retrain`: train with all rows, then the gates; refused: again with the next window;
- answered `repaired`: the held challenger goes to the gates; then a new life, with the reference as it was.

An incident's new state is saved last, after the ledger and the outbox: it is what tells the next process that all is
done. Ledger and outbox keep each key once, so doing the step again adds nothing. It is changed as it is by then: while
a challenger was trained, somebody may have answered.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from flows import ledger
from flows.actions import Action
from flows.context import Context
from flows.errors import BadConfig, BadInput, Refused
from flows.incidents import change_incident, find_incident, open_incidents
from flows.lives import begin_life, current_life, reference_before, reference_of
from flows.monitor import outcomes, scan_options
from flows.promote import champion_in_use, consider
from flows.promotions import pending as pending_promotion
from flows.retrain import latest_training, retrain
from flows.units import with_units
from monitoring.incidents import TRIES, Incident

SYSTEM = "softad"
"""The actor in the ledger where no person acted."""


def ensure_champion(context: Context, *, now: datetime) -> tuple[list[Action], list[str]]:
    """Where there is no champion, train the first one as soon as there are labelled rows enough.

    Returns
    -------
    actions; and sentences that say why there is still no champion.
    """
    champion = champion_in_use(context.store, context.tracker)
    if champion is not None:
        ensure_life(context, now=now, actor=SYSTEM)
        return [], []
    waiting = pending_promotion(ledger.read(context.store))
    if waiting is not None:
        return [], [f"no champion yet: version {waiting.version} waits for a person: softad promote {waiting.version}"]
    try:
        action = train_and_consider(context, reason="first", actor=SYSTEM, now=now, key=_first_key(context))
    except BadInput as error:
        return [], [f"no model yet: {error}"]
    if action.promoted:
        return [action], []
    return [action], [f"no champion yet: {'; '.join(action.decision.reasons) if action.decision else 'not decided'}"]


def _first_key(context: Context) -> str:
    """The first training is tried again only when rows or labels came in."""
    versions = context.store.versions()
    return f"first:{versions.get('inspections', 0)}:{versions.get('labels', 0)}"


def answer_incidents(context: Context, *, now: datetime, trigger: str) -> tuple[list[Action], list[str]]:
    """Do, or ask for, what each open incident needs; they are opened by `flows.following.follow_incidents`."""
    actions: list[Action] = []
    notes: list[str] = []
    for incident in open_incidents(context.store):
        wanted = pending(context, incident)
        if wanted is None:
            continue
        if trigger == "event":
            from flows.events import request_retraining

            if request_retraining(context, incident, wanted, now=now):
                actions.append(Action("requested", incident.key, None, None))
            continue
        with context.workspace.lock("retrain"):
            action, note = act(context, incident.key, now=now)
        if action is not None:
            actions.append(action)
        if note:
            notes.append(note)
    return actions, notes


def pending(context: Context, incident: Incident) -> str | None:
    """What an open incident needs now: "hold", "train", "gate", or None."""
    if incident.state == "closed":
        return None
    waiting = pending_promotion(ledger.read(context.store))
    if waiting is not None and waiting.version == incident.challenger_version and incident.answer != "repaired":
        return None
    if incident.verdict == "inspect" and incident.answer is None:
        if incident.challenger_version is not None or incident.tried_window == (newest_window(context) or ""):
            return None
        return "hold"
    if incident.answer == "repaired":
        return "gate"
    if incident.tries >= TRIES or incident.tried_window == newest_window(context):
        return None
    return "train"


def newest_window(context: Context) -> str | None:
    """The window that was judged last."""
    found = outcomes(context)
    return found[-1].window if found else None


def act(context: Context, key: str, *, now: datetime) -> tuple[Action | None, str | None]:
    """Do what an incident needs now; nothing when another process has done it already. Call it under the lock."""
    incident = find_incident(context.store, key)
    wanted = pending(context, incident)
    if wanted is None:
        return None, None
    try:
        if wanted == "hold":
            return _hold(context, incident, now=now), None
        if wanted == "gate":
            return _after_repair(context, incident, now=now), None
        return _with_all_rows(context, incident, now=now), None
    except BadInput as error:
        _tried(context, incident.key, wanted, None, now=now)
        return None, f"{incident.key}: no challenger: {error}"


def _hold(context: Context, incident: Incident, *, now: datetime) -> Action:
    training = retrain(
        context.store, context.tracker, context.settings, context.workspace, now=now,
        reason=f"inspect:{incident.key}", incident=incident,
    )  # fmt: skip
    ledger.enter(
        context.store, key=f"held:{incident.key}", actor=SYSTEM, action="challenger.held", subject=training.version,
        details={"incident": incident.key, "run": training.run_id, "column": incident.column, "value": incident.value},
        at=now,
    )  # fmt: skip

    def held(current: Incident) -> Incident:
        return current.with_challenger(training.version, held=current.answer is None)

    # Who has answered meanwhile is not asked again.
    answered = find_incident(context.store, incident.key).answer is not None
    change_incident(context, incident.key, held, event="challenger", now=now, tell=None if answered else "challenger")
    return Action("held", incident.key, training, None)


def _tried(context: Context, key: str, wanted: str, version: str | None, *, now: datetime) -> None:
    """A challenger did not pass, or could not be trained. The first time is told, and the last, with what to do."""
    window = newest_window(context)

    def tried(current: Incident) -> Incident | None:
        if current.state == "closed" or current.tried_window == window:
            return None
        if wanted != "train":
            return current.waiting_for_rows(window)
        return current.with_challenger(version or current.challenger_version, held=False).tried(window, at=now)

    after = tried(find_incident(context.store, key))
    news = after is not None and wanted == "train" and (after.tries == 1 or after.stuck)
    change_incident(context, key, tried, event="tried", now=now, tell="refused" if news else None)


def _with_all_rows(context: Context, incident: Incident, *, now: datetime) -> Action:
    window = newest_window(context)
    action = train_and_consider(
        context, reason=f"incident:{incident.key}", actor=SYSTEM, now=now, incident=incident,
        key=f"{incident.key}:{window}",
    )  # fmt: skip
    version = action.training.version if action.training else None
    if action.waits:
        # Its end is told, and the incident closed or tried again, by what it waits for (flows.promotion_watch).
        change_incident(context, incident.key, lambda current: current.with_challenger(version, held=False),
                        event="waiting", now=now)  # fmt: skip
        return action
    if not action.promoted:
        _tried(context, incident.key, "train", version, now=now)
        return action

    def promoted(current: Incident) -> Incident | None:
        if current.state == "closed":
            return None
        return current.with_challenger(version, held=False).tried(window, at=now).closed(now, reason="promoted")

    change_incident(context, incident.key, promoted, event="closed", now=now, tell="promoted")
    return action


def _after_repair(context: Context, incident: Incident, *, now: datetime) -> Action | None:
    """The held challenger, which never saw the rows of the broken machine, goes to the gates; a new life begins."""
    action = None
    if incident.challenger_version is not None:
        action = consider_version(context, incident.challenger_version, actor=SYSTEM, now=now, incident=incident)
    if action is None or not action.promoted:
        resume_life(context, cause=f"repaired:{incident.key}", reason="repaired", actor=SYSTEM, now=now,
                    since=incident.repaired_at or now, after=incident.life)  # fmt: skip

    def closed(current: Incident) -> Incident | None:
        return current.closed(now, reason="repaired") if current.state != "closed" else None

    change_incident(context, incident.key, closed, event="closed", now=now, tell="closed")
    return action


def train_and_consider(
    context: Context,
    *,
    reason: str,
    actor: str,
    now: datetime,
    incident: Incident | None = None,
    key: str | None = None,
    say: Callable[[str], None] | None = None,
) -> Action:
    """Train a challenger, bring it before the gates, and begin a new life where it became the champion."""
    training = retrain(
        context.store, context.tracker, context.settings, context.workspace, now=now, reason=key or reason,
        incident=incident, progress=say,
    )  # fmt: skip
    with context.workspace.lock("promotion"):
        decision = consider(
            context.store, context.tracker, context.settings, context.workspace, training=training, now=now,
            actor=actor,
        )  # fmt: skip
        if decision.promoted:
            ensure_life(context, now=now, actor=actor, since=incident.since if incident else None)
    return Action("considered", incident.key if incident else None, training, decision)


def consider_version(
    context: Context,
    version: str | None,
    *,
    actor: str,
    now: datetime,
    incident: Incident | None = None,
    by_person: bool = False,
    named: str = "account",
) -> Action:
    """Bring a registered challenger before the gates; by default the one that waits for a person, or the newest.

    Parameters
    ----------
    by_person, named: as `flows.promote.consider` takes them.

    Raises
    ------
    BadConfig: there is no such version.
    Refused: it is held until an open incident is answered.
    """
    if version is None and by_person:
        waiting = pending_promotion(ledger.read(context.store))
        version = waiting.version if waiting is not None else None
    training = latest_training(context.tracker, version)
    if training is None:
        wanted = f"version {version}" if version else "challenger"
        raise BadConfig(f"there is no {wanted} in the registry; train one with `softad retrain`")
    if incident is None:
        for other in open_incidents(context.store):
            if other.challenger_version == training.version and other.verdict == "inspect" and other.answer is None:
                raise Refused(
                    f"version {training.version} is held until {other.key} is answered: "
                    f"softad alerts ack {other.key} --repaired (or --new-normal)"
                )
    with context.workspace.lock("promotion", wait=not by_person):
        decision = consider(
            context.store, context.tracker, context.settings, context.workspace, training=training, now=now,
            actor=actor, by_person=by_person, named=named,
        )  # fmt: skip
        if decision.promoted:
            ensure_life(context, now=now, actor=actor)
    return Action("considered", incident.key if incident else None, training, decision)


def ensure_life(
    context: Context, *, now: datetime, actor: str, since: datetime | None = None, back: bool = False
) -> None:
    """Begin a life for the champion where the last life had another; heals a crash after the alias moved.

    Parameters
    ----------
    since: the reference is taken from rows of this time on (a change that led to the promotion); by default all.
    back: the champion was in use before: its reference stays as it was, and no model has to be loaded.
    """
    from flows.reference import held_out_losses, newest_row

    champion = context.tracker.champion()
    life = current_life(context.store)
    if champion is None or (life is not None and life.model_version == champion):
        return
    kept = reference_before(context.store, champion) if back else None
    if kept is not None:
        reference, after_seq = kept, newest_row(context)
    else:
        training = latest_training(context.tracker, champion)
        if since is None and training is not None:
            since = training.since
        reference, after_seq = held_out_losses(context, champion, since=since)
    reference = with_units(context.store, context.settings, reference)
    begin_life(
        context.store,
        model_version=champion,
        reference=reference,
        after_seq=after_seq,
        min_reference_rows=context.settings.monitoring.min_reference_rows,
        scan_options=scan_options(context.settings, planned_rows(context)),
        reason="promotion",
        cause=f"champion:{champion}:after:{life.name if life else 'none'}",
        actor=actor,
        now=now,
    )


def resume_life(
    context: Context,
    *,
    cause: str,
    reason: str,
    actor: str,
    now: datetime,
    since: datetime | None = None,
    after: str | None = None,
) -> None:
    """Begin a new life with the same champion and reference, from rows that come in later (or since a time).

    Parameters
    ----------
    after: the life that it follows; nothing is begun where another has followed it already, by a promotion.
    """
    life = current_life(context.store)
    if life is None or (after is not None and life.name != after):
        return
    reference = with_units(context.store, context.settings, reference_of(context.store, life))
    where = f"_time < TIMESTAMPTZ '{since.isoformat()}'" if since and context.settings.data.time else None
    newest = context.store.read("inspections", columns=["_seq"], where=where)
    begin_life(
        context.store,
        model_version=life.model_version,
        reference=reference,
        after_seq=int(newest["_seq"].max()) if len(newest) else life.after_seq,
        min_reference_rows=context.settings.monitoring.min_reference_rows,
        scan_options=scan_options(context.settings, planned_rows(context)),
        reason=reason,
        cause=cause,
        actor=actor,
        now=now,
    )


def planned_rows(context: Context) -> int:
    """Rows to be expected in a window: what the configuration says, or the median of the windows so far."""
    from flows.dataset import window_of

    size = context.settings.data.window.rows
    if size is not None:
        return size
    rows = context.store.read("inspections", columns=["_time", "_seq"], where="_version = 1")
    if rows.empty:
        return 1
    return int(window_of(rows, context.settings).value_counts().median())
