"""The Prefect flow that retrains: run by its schedule, or by the event of a shifted loss concentration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from flows.context import Context, open_context, utc_now


def retrain_once(context: Context, *, reason: str, incident: str | None) -> dict[str, Any]:
    """Do what an incident needs, or, without one, the scheduled retraining of the day; each once.

    One retraining runs at a time per model: a second one waits for the lock, then finds nothing left to do.
    """
    from flows.alerting import deliver_alerts
    from flows.page import refresh_page
    from flows.respond import act, train_and_consider
    from flows.troubles import note_success, told_when_it_fails

    now = utc_now()
    with context.workspace.lock("retrain"), told_when_it_fails(context, "retrain", "retrain", now=now):
        if incident is not None:
            action, note = act(context, incident, now=now)
        else:
            action, note = train_and_consider(context, reason=f"{reason}:{now:%Y-%m-%d}", actor="softad", now=now), None
    note_success(context, "retrain", now=now)
    deliver_alerts(context)
    refresh_page(context, now=now)
    return {"incident": incident, "reason": reason, "note": note, "action": action.document() if action else None}


@flow(name="retrain", persist_result=False)
def retrain_flow(config: str, workspace: str, reason: str, incident: str | None = None) -> dict[str, Any]:
    """Retrain a model.

    Parameters
    ----------
    config, workspace: paths.
    reason: why, for the ledger and the run ("scheduled", "shifted", …).
    incident: the incident that asks for it.
    """
    return retrain_once(open_context(Path(config), Path(workspace)), reason=reason, incident=incident)
