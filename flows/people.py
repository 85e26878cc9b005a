"""What people do from the command line: answer and close incidents, add a class. Each act stands in
the ledger with the name of who did it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from flows import ledger
from flows.alerting import message_of, outbox_of, send_test
from flows.commands import actor as current_actor
from flows.commands import as_utc
from flows.console import Reply
from flows.context import Context, open_context, utc_now
from flows.errors import BadConfig, Refused
from flows.following import ended_at
from flows.incidents import all_incidents, change_incident, find_incident, open_incidents
from flows.lives import current_life
from flows.monitor import outcomes
from flows.respond import resume_life
from flows.settings import dump_settings, load_settings
from flows.workspace import write_atomically
from monitoring.incidents import Incident


def list_incidents(config: Path | None, workspace: Path, *, everything: bool) -> Reply:
    """`softad alerts list`."""
    from rich.table import Table

    context = open_context(config, workspace)
    found = all_incidents(context.store) if everything else open_incidents(context.store)
    from rich.table import Column

    table = Table(Column("key", no_wrap=True), "since", "verdict", "where", "share", "state", "answer")
    for incident in found:
        where = f"{incident.column}: {incident.value}" if incident.value else "spread"
        share = f"{incident.share:.0%}" if incident.share is not None else ""
        since = f"{incident.since:%Y-%m-%d}" if incident.since else ""
        table.add_row(incident.key, since, incident.verdict, where, share, incident.standing, incident.answer or "")
    lines: list[Any] = [table] if found else ["no open incident" if not everything else "no incident so far"]
    document = [{**incident.to_dict(), "standing": incident.standing} for incident in found]
    return Reply({"incidents": document}, lines)


def show_incident(config: Path | None, workspace: Path, key: str) -> Reply:
    """`softad alerts show KEY`."""
    context = open_context(config, workspace)
    incident = find_incident(context.store, key)
    message = message_of(context, incident, latest_event(incident))
    thread = outbox_of(context).thread(key)
    told = [f"{each['at'][:16].replace('T', ' ')}  {each['state']}: {each['subject']}{_waits(each)}" for each in thread]
    return Reply(
        {
            "incident": {**incident.to_dict(), "standing": incident.standing},
            "subject": message.subject, "body": message.body, "thread": thread,
        },
        [message.subject, "", message.body, *(["", "Told so far (UTC):", *told] if told else [])],
    )  # fmt: skip


def _waits(told: dict[str, Any]) -> str:
    waiting = [name for name, at in told["channels"].items() if at is None]
    return f" [waits for {', '.join(waiting)}]" if waiting else ""


def latest_event(incident: Incident) -> str:
    """The event whose words describe an incident as it is now."""
    if incident.standing == "acknowledged":
        return "acknowledged" if incident.answer is not None else "seen"
    return incident.standing


def acknowledge(
    config: Path | None,
    workspace: Path,
    key: str,
    *,
    repaired: bool,
    new_normal: bool,
    at: datetime | None,
    by: str | None,
    seen: bool = False,
) -> Reply:
    """`softad alerts ack KEY --repaired | --new-normal | --seen`."""
    if repaired + new_normal + seen != 1:
        raise BadConfig(
            f"say how {key} ended: --repaired (the machine is as it was) or --new-normal (it stays as it is now), or "
            "--seen where you look into it and answer later"
        )
    context = open_context(config, workspace)
    answer = "repaired" if repaired else "new-normal"
    if at is not None and not repaired:
        raise BadConfig("--at says when a machine was repaired; use it with --repaired")
    if seen:
        incident = see_incident(context, key, actor=by or current_actor(), now=utc_now())
        return Reply(
            {"incident": incident.to_dict()},
            [f"{key}: {incident.seen_by or incident.answered_by} looks into it; the answer is still to come"],
        )
    incident = answer_incident(
        context, key, answer=answer, at=as_utc(at) if at else None, actor=by or current_actor(), now=utc_now()
    )
    what = (
        "the rows between change and repair stay out of training" if repaired else "a model will be trained with them"
    )
    return Reply(
        {"incident": incident.to_dict()},
        [f"{key} is answered ({answer}): {what}; the next cycle goes on from there (or now: softad run)"],
    )


def answer_incident(
    context: Context, key: str, *, answer: str, at: datetime | None, actor: str, now: datetime
) -> Incident:
    """Record a person's answer, once; the next cycle acts on it.

    Raises
    ------
    BadConfig: no such incident, it is closed, it was answered otherwise before, or the repair lies in the future or
        before the change.
    """
    incident = find_incident(context.store, key)
    if incident.answer == answer:
        if at is not None and at != incident.repaired_at:
            raise BadConfig(f"{_answered_before(incident)}; it stays so")
        return incident
    if at is not None and at > now:
        raise BadConfig(
            f"{key}: the repair at {at:%Y-%m-%d %H:%M} lies in the future (it is {now:%Y-%m-%d %H:%M} UTC); answer "
            "once the machine is in order again"
        )
    if at is not None and incident.since is not None and at < incident.since:
        raise BadConfig(
            f"{key}: the repair at {at:%Y-%m-%d %H:%M} lies before the change ({incident.since:%Y-%m-%d %H:%M}); "
            "give the time at which the machine was in order again"
        )
    answered = _answered(incident, answer, actor=actor, at=at, now=now)
    # Saved last: what is in the tables is not answered again, so what came after it could be lost.
    ledger.enter(
        context.store, key=f"answer:{key}:{answer}", actor=actor, action="incident.acknowledged", subject=key,
        details={"answer": answer, "repaired_at": answered.repaired_at.isoformat() if answered.repaired_at else None},
        at=now,
    )  # fmt: skip

    def change(current: Incident) -> Incident | None:
        return None if current.answer == answer else _answered(current, answer, actor=actor, at=at, now=now)

    return change_incident(context, key, change, event="acknowledged", now=now, tell="acknowledged")


def _answered(incident: Incident, answer: str, *, actor: str, at: datetime | None, now: datetime) -> Incident:
    if incident.answer is not None:
        raise BadConfig(f"{_answered_before(incident)}; it stays so")
    try:
        return incident.answered(answer, actor=actor, at=now, repaired_at=at)
    except ValueError as error:
        raise BadConfig(str(error)) from error


def _answered_before(incident: Incident) -> str:
    repaired = f" at {incident.repaired_at:%Y-%m-%d %H:%M} UTC" if incident.repaired_at is not None else ""
    return f"{incident.key} was answered before ({incident.answer}{repaired}, by {incident.answered_by})"


def see_incident(context: Context, key: str, *, actor: str, now: datetime) -> Incident:
    """Record that somebody looks into an incident: nobody is told that it waits, until the set time has gone by again.

    Raises
    ------
    BadConfig: no such incident, it is closed, or it was answered.
    """
    incident = find_incident(context.store, key)
    if incident.answer is not None:
        raise BadConfig(f"{_answered_before(incident)}; it stays so")
    if incident.seen_by == actor:
        return incident
    try:
        incident.seen(actor=actor, at=now)
    except ValueError as error:
        raise BadConfig(str(error)) from error
    ledger.enter(
        context.store, key=f"seen:{key}:{actor}", actor=actor, action="incident.seen", subject=key, details={}, at=now
    )

    def change(current: Incident) -> Incident | None:
        taken = current.state == "closed" or current.answer is not None or current.seen_by == actor
        return None if taken else current.seen(actor=actor, at=now)

    return change_incident(context, key, change, event="seen", now=now, tell="seen")


def renew_watch(config: Path | None, workspace: Path, *, reason: str, by: str | None) -> Reply:
    """`softad alerts renew`: a new life after one that went by without an alarm, or that cannot alarm, by a word."""
    context = open_context(config, workspace)
    before, now = current_life(context.store), utc_now()
    if before is None:
        raise Refused("there is no model in use yet, so nothing is watched; the first one is trained by: softad run")
    looks = outcomes(context)
    if any(look.alarm and look.life == before.name for look in looks):
        waiting = [one.key for one in open_incidents(context.store)]
        what = f"answer or close {waiting[-1]}: softad alerts show {waiting[-1]}" if waiting else "run: softad run"
        raise Refused(f"the present watch ({before.name}) ended with an alarm; a new one begins by its answer; {what}")
    own = [look for look in looks if look.life == before.name]
    blind = bool(own) and own[-1].state in {"labels_not_representative", "too_few_lots"}
    if ended_at(context, looks) is None and not blind:
        judged = sum(1 for look in looks if look.life == before.name and look.threshold is not None)
        raise Refused(
            f"the present watch ({before.name}) still goes on ({judged} of {context.settings.monitoring.windows} "
            "windows, no alarm); a new one now would only add false alarms"
        )
    resume_life(
        context, cause=f"renewed:{before.name}", reason=reason, actor=by or current_actor(), now=now, after=before.name
    )
    begun = current_life(context.store)
    name = begun.name if begun is not None else before.name
    return Reply(
        {"life": name, "after": before.name, "reason": reason},
        [f"{name} begins: the model in use is watched anew, from the next parts on"],
    )


def close_incident(config: Path | None, workspace: Path, key: str, *, reason: str, by: str | None) -> Reply:
    """`softad alerts close KEY`: watching begins anew with the same champion and reference."""
    context = open_context(config, workspace)
    incident = find_incident(context.store, key)
    if incident.state == "closed":
        return Reply({"incident": incident.to_dict()}, [f"{key} was closed before ({incident.closed_reason})"])
    now, who = utc_now(), by or current_actor()
    resume_life(context, cause=f"closed:{key}", reason="closed by a person", actor=who, now=now, after=incident.life)
    ledger.enter(
        context.store, key=f"close:{key}", actor=who, action="incident.closed", subject=key,
        details={"reason": reason}, at=now,
    )  # fmt: skip

    def change(current: Incident) -> Incident | None:
        return current.closed(now, reason=reason) if current.state != "closed" else None

    closed = change_incident(context, key, change, event="closed", now=now, tell="closed")
    return Reply(
        {"incident": closed.to_dict()}, [f"{key} is closed; the champion is watched anew from the next rows on"]
    )


def test_channels(config: Path | None, workspace: Path) -> Reply:
    """`softad alerts test`."""
    context = open_context(config, workspace)
    results = send_test(context, now=utc_now())
    lines = [f"{name}: {'delivered' if fine else 'NOT delivered'}" for name, fine in results.items()]
    return Reply({"channels": results}, lines, 0 if all(results.values()) else 4)


def check_config(config: Path | None, workspace: Path) -> Reply:
    """`softad config check`."""
    path = config or workspace / "config.yaml"
    settings = load_settings(path)
    from flows.validate import load_suite

    rules = 0
    if settings.ingest.expectations is not None:
        rules = len(load_suite(settings.beside_config(settings.ingest.expectations)))
    document = {"config": str(path), "name": settings.name, "digest": settings.digest(), "expectations": rules}
    return Reply(document, [f"{path}: the config of {settings.name} holds; {rules} expectations"])


def add_class(config: Path | None, workspace: Path, name: str, *, by: str | None) -> Reply:
    """`softad config add-class NAME`: the class is added to the config file; waiting labels are taken in again.

    Raises
    ------
    BadConfig: the name is empty, or the task knows no classes.
    """
    from flows.quarantine import RELEASED, all_rows, let_go
    from flows.waiting_labels import release_waiting, waits_for

    name = name.strip()  # as labels are read
    if not name:
        raise BadConfig("the name of the class is empty; give it as the labels have it: softad config add-class NAME")
    context = open_context(config, workspace)
    settings, path = context.settings, context.settings.source
    if path is None or settings.task.kind != "classification":
        raise BadConfig("classes belong to a classification task; this config has another task")
    known = name in settings.task.classes
    task, now, who = settings.task, utc_now(), by or current_actor()
    if not known:
        # The ledger first: a class that is in the config is not added again, so what comes after it could be lost.
        ledger.enter(
            context.store, key=f"class:{name}", actor=who, action="config.class-added", subject=name,
            details={"config": str(path)}, at=now,
        )  # fmt: skip
        task = task.model_copy(update={"classes": [*task.classes, name]})
        settings = settings.model_copy(update={"task": task})
        write_atomically(path, dump_settings(settings))
    # Also for a class that is there already: the labels still wait where the process died right after the config.
    released = release_waiting(name, settings, context.store)
    rows = [
        row for row in all_rows(context.store)
        if row.kind == "labels" and row.state == "held" and waits_for(row.reasons, name, settings)
    ]  # fmt: skip
    let_go(context.store, rows, action=RELEASED, actor=who, reason=f"the class {name!r} was added", now=now)
    if known and not released:
        return Reply({"classes": task.classes, "released": 0}, [f"{name!r} is among the classes already"])
    return Reply(
        {"classes": task.classes, "released": released},
        [f"{name!r} is a class now; {released} labels that waited for it were taken in; the next training learns it"],
    )
