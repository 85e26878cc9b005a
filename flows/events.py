"""The event that says that a model's loss concentration has shifted, as Prefect's server takes it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, UUID, uuid5

from flows.errors import BadConfig, Unavailable

if TYPE_CHECKING:
    from flows.context import Context
    from monitoring.incidents import Incident

SHIFTED = "softad.concentration.shifted"
"""Name of the event."""


@dataclass(frozen=True)
class Shift:
    """What was found. `column`, `value` and `share` are None where no single cause stands out.

    Attributes
    ----------
    model: the model's name.
    incident: key of the incident.
    window: key of the window in which it was found.
    verdict: "inspect" or "retrain".
    column, value, share: the slice that carries the excess loss, and its share of it (0 to 1).
    config, workspace: absolute paths, as text.
    reason: why a retraining is asked for.
    attempt: how often it was asked for and run before.
    """

    model: str
    incident: str
    window: str
    verdict: str
    column: str | None
    value: str | None
    share: float | None
    config: str
    workspace: str
    reason: str
    attempt: int = 0

    @property
    def id(self) -> UUID:
        """The same for the same content, so that a report sent twice is one event.

        >>> shift = Shift("line-a", "line-a-1", "2026-W14", "inspect", "machine", "M07", .72, "c", "w", "alarm")
        >>> shift.id == Shift(**asdict(shift)).id
        True
        """
        return uuid5(NAMESPACE_URL, json.dumps(asdict(self), sort_keys=True))


def resource_of(model: str) -> str:
    """The resource that a model's events are about.

    >>> resource_of("line-a")
    'softad.model.line-a'
    """
    return f"softad.model.{model}"


def emit_shift(shift: Shift, *, occurred: datetime) -> UUID:
    """Hand the event to Prefect's server and return once the server has it.

    Sent by request, not through Prefect's background thread: that one drops events in silence while the
    server is away, and a retraining would never come.

    Parameters
    ----------
    occurred: when the shift was found, with a time zone.

    Raises
    ------
    Unavailable: no server is configured, or it does not take the event; sending again is safe.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.events.schemas.events import Event
    from prefect.runtime import flow_run

    from flows.embedded import lasting_server

    address = lasting_server()
    if address is None:
        raise Unavailable("there is no Prefect server to tell of the shift; start one with `softad up`")
    related = []
    if flow_run.id is not None:  # so that the server shows the event beside the run that sent it
        run = f"prefect.flow-run.{flow_run.id}"
        related.append({"prefect.resource.id": run, "prefect.resource.role": "flow-run"})
    event = Event.model_validate(
        {
            "id": shift.id,
            "event": SHIFTED,
            "occurred": occurred,
            "resource": {"prefect.resource.id": resource_of(shift.model), "prefect.resource.name": shift.model},
            "related": related,
            "payload": asdict(shift),
        }
    )
    try:
        with get_client(sync_client=True) as client:
            client.request("POST", "/events", json=[event.model_dump(mode="json")])
    except (httpx.HTTPError, OSError) as error:
        raise Unavailable(
            f"the Prefect server at {address} did not take the event of {shift.model}'s shift "
            f"({type(error).__name__}); see that it runs, and run the cycle again"
        ) from error
    return shift.id


def request_retraining(context: Context, incident: Incident, wanted: str, *, now: datetime) -> bool:
    """Ask Prefect's automation for the retraining that an open incident needs.

    Asked again while a run of it waits or works, it does nothing; where an earlier one ended without
    having done it (it failed), it asks anew.

    Parameters
    ----------
    wanted: what the incident needs, for the run's `reason`.

    Returns
    -------
    Whether it was asked for now.

    Raises
    ------
    BadConfig: the configuration came from no file, so a run could not read it.
    Unavailable: the server is away; the next cycle asks again.
    """
    from flows.deployments import retrainings
    from flows.incidents import change_incident

    if context.settings.source is None:
        raise BadConfig(f"the config of {incident.model} came from no file; a retraining elsewhere must read one")
    earlier = retrainings(incident.model, incident.key)
    if any(not run.state or not run.state.is_final() for run in earlier):
        return False
    shift = Shift(
        model=incident.model,
        incident=incident.key,
        window=incident.window,
        verdict=incident.verdict,
        column=incident.column,
        value=incident.value,
        share=incident.share,
        config=str(context.settings.source.absolute()),
        workspace=str(context.workspace.root),
        reason=wanted,
        attempt=len(earlier),
    )
    emit_shift(shift, occurred=now)

    def asked(current: Incident) -> Incident | None:
        return current.asked(wanted, at=now) if current.requested != wanted else None

    change_incident(context, incident.key, asked, event="requested", now=now, otherwise=incident)
    return True
