"""What is told without anybody asking: new incidents, news from later windows, an answer that does not come, a watch
that went by. Everything is found from the tables, and every message is kept once, so a process may die anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from flows.alerting import alert, alert_life_ended, alert_unwatched
from flows.context import Context
from flows.incidents import all_incidents, change_incident, open_new_incidents
from flows.lives import current_life
from flows.monitor import WindowOutcome, outcomes
from monitoring.incidents import Incident
from monitoring.news import LaterLook, next_news


def follow_incidents(context: Context, *, now: datetime) -> list[Incident]:
    """Open incidents for new alarms, and put into the outbox whatever people have to be told now.

    Returns
    -------
    The incidents that are open.
    """
    looks = outcomes(context)
    open_new_incidents(context, looks, now=now)
    levels = Levels(context)
    found = []
    for incident in all_incidents(context.store):
        if incident.state != "closed":
            # Put again at every cycle, kept once: a crash right after the opening must not cost the alert.
            alert(context, incident, "opened", now=now)
        current = _news(context, incident, looks, levels, now=now)
        if current.state != "closed":
            found.append(_escalate(context, current, now=now))
    _life(context, looks, now=now)
    _unwatched(context, looks, now=now)
    return found


@dataclass
class Levels:
    """Mean and tail of each life's reference, read once."""

    context: Context
    _known: dict[str, tuple[float, float]] = field(default_factory=dict)

    def of(self, life: str) -> tuple[float, float]:
        """Mean loss and CVaR 0.9 of a life's reference; (0, 0) where it has none."""
        from softad.figures import cvar

        if life not in self._known:
            losses = self.context.store.read("references", columns=["loss"], where=f"life = '{life}'")["loss"]
            values = losses.to_numpy(float)
            self._known[life] = (float(values.mean()), float(cvar(values, 0.9))) if len(values) else (0.0, 0.0)
        return self._known[life]


def later_looks(incident: Incident, looks: list[WindowOutcome], levels: Levels) -> list[LaterLook]:
    """The looks after an incident's alarm, and after the last one that was told, as `monitoring.news` takes them.

    Those of the life that the alarm ended; once the incident is closed, those of the lives since.
    """
    names = [_name(look) for look in looks]
    life = incident.life or next((look.life for look in looks if look.alarm and look.window == incident.window), None)
    start = incident.followed or f"{life}:{incident.window}"
    found = []
    for look in looks[names.index(start) + 1 :] if start in names else []:
        if look.statistic is None or "tail" not in look.figures:
            continue
        if incident.state != "closed" and look.life != life:
            continue
        mean, tail = levels.of(look.life)
        if min(mean, tail) <= 0:
            continue
        figures = look.figures
        repaired = incident.repaired_at
        found.append(
            LaterLook(
                name=_name(look),
                mean=figures["mean"]["value"] / mean,
                tail=figures["tail"]["value"] / tail,
                tail_low=figures["tail"]["low"] / tail,
                column=look.details.get("column"),
                value=look.details.get("value"),
                share=look.details.get("share"),
                alarm=look.alarm,
                counts=repaired is None or (look.start >= repaired if look.start is not None else look.life != life),
            )
        )
    return found


def _name(look: WindowOutcome) -> str:
    return f"{look.life}:{look.window}"


def _news(
    context: Context, incident: Incident, looks: list[WindowOutcome], levels: Levels, *, now: datetime
) -> Incident:
    """Tell what later windows bring, each piece of news once; one look can be told after another."""
    settings = context.settings
    if incident.state == "closed" and (incident.answer != "repaired" or incident.recovered_at is not None):
        return incident
    read = partial(
        next_news, now=now, relevant_effect=settings.monitoring.relevant_effect,
        calm_windows=settings.alerts.recovery_windows,
    )  # fmt: skip
    for _ in looks:
        news = read(incident, later_looks(incident, looks, levels))
        if news is None:
            break
        event = news[0]

        def change(current: Incident, event: str = event) -> Incident | None:
            again = read(current, later_looks(current, looks, levels))
            return again[1] if again is not None and again[0] == event else None

        changed = change_incident(context, incident.key, change, event=event, now=now, tell=event)
        if changed == incident:
            break
        incident = changed
    return incident


def _escalate(context: Context, incident: Incident, *, now: datetime) -> Incident:
    hours = context.settings.alerts.escalate_after_hours
    if not incident.overdue(now, hours):
        return incident

    def change(current: Incident) -> Incident | None:
        return current.escalated(now) if current.overdue(now, hours) else None

    return change_incident(context, incident.key, change, event="escalated", now=now, tell="escalated")


def ended_at(context: Context, looks: list[WindowOutcome]) -> tuple[str, datetime, datetime] | None:
    """The present life, when it began, and when it ended without an alarm; None where it goes on, or had an alarm."""
    life = current_life(context.store)
    if life is None:
        return None
    own = [look for look in looks if look.life == life.name]
    if any(look.alarm for look in own):
        return None
    # Where a window is looked at several times, the last look ends it.
    own = [look for look in own if look.details.get("last", True)]
    judged = [look for look in own if look.threshold is not None or look.state == "spent"]
    full = judged[context.settings.monitoring.windows - 1 :][:1]
    over = [look.at for look in (*full, *(look for look in judged if look.state == "spent"))]
    return (life.name, life.started_at, min(over)) if over else None


def _life(context: Context, looks: list[WindowOutcome], *, now: datetime) -> None:
    found = ended_at(context, looks)
    if found is None:
        return
    life, began, ended = found
    alert_life_ended(context, life, began=began, escalated=False, now=now)
    if now - ended >= timedelta(hours=context.settings.alerts.escalate_after_hours):
        alert_life_ended(context, life, began=began, escalated=True, now=now)


def _unwatched(context: Context, looks: list[WindowOutcome], *, now: datetime) -> None:
    life = current_life(context.store)
    for look in looks:
        if life is not None and look.life == life.name and look.state == "labels_not_representative":
            alert_unwatched(context, look.life, window=look.window, now=now)
            return
