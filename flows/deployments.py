"""What a Prefect server is told to run for each model: schedules, the trigger, one retraining at a time.

Laying it down twice changes nothing: deployments are known by their names, automations are replaced by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from flows.apart import check_apart
from flows.approvals import APPROVE_TAG
from flows.errors import BadConfig, Refused, Unavailable
from flows.events import SHIFTED, resource_of
from flows.settings import Settings, load_settings

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
    from prefect.deployments.runner import RunnerDeployment

POOL = "softad"
"""The work pool whose workers run the deployments."""

LEFT_OUT_TAG = "softad-left-out"
"""A deployment that is paused since its model was not among those started."""

RETRAIN_TAG = "softad-retrain"
"""Runs with this tag are started again when their process was killed."""


AT_ONCE = 200
"""Records that a Prefect server gives in one answer, at most."""


@dataclass(frozen=True)
class FlowSource:
    """Where the flows are: a folder, and in it `FILE.py:FUNCTION` for each.

    >>> FlowSource().folder.is_absolute()
    True
    """

    folder: Path = Path(__file__).absolute().parent.parent
    cycle: str = "flows/cycle.py:cycle_flow"
    retrain: str = "flows/retrain_flow.py:retrain_flow"
    maintain: str | None = "flows/upkeep_flow.py:maintain_flow"
    report: str | None = "flows/upkeep_flow.py:report_flow"
    approve: str | None = "flows/approve_flow.py:approve_flow"

    @property
    def installed(self) -> bool:
        """Whether the folder is where Python's packages are installed."""
        return self.folder.name in {"site-packages", "dist-packages"}


@contextmanager
def connected(api_url: str | None) -> Iterator[SyncPrefectClient]:
    """A client of the server at `api_url`, by default of the one that Prefect's settings name.

    Within the block Prefect itself uses the same address.

    Raises
    ------
    Unavailable: no address is set, or nothing answers there.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    from flows.embedded import lasting_server

    address = api_url or os.environ.get("PREFECT_API_URL") or lasting_server()
    if not address:
        raise Unavailable("no Prefect server is named; set PREFECT_API_URL to its address (it ends in /api)")
    updates = {PREFECT_API_URL: address}
    if login := os.environ.get("PREFECT_API_AUTH_STRING"):
        # Said once more: where Prefect was imported before, it no longer looks at the environment.
        updates[PREFECT_API_AUTH_STRING] = login
    with temporary_settings(updates=updates):
        try:
            with get_client(sync_client=True) as client:
                yield client
        except httpx.TransportError as error:
            raise Unavailable(f"no Prefect server answers at {address}; see that it runs and try again") from error
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in {401, 403}:
                raise
            raise Unavailable(
                f"the Prefect server at {address} refuses access; set PREFECT_API_AUTH_STRING to its NAME:PASSWORD"
            ) from error


def schedule_of(text: str, time_zone: str, *, where: str) -> CronSchedule | IntervalSchedule:
    """A cron line in the plant's time zone, or `interval:SECONDS`.

    Raises
    ------
    BadConfig: neither; the sentence names `where` and the text.

    >>> schedule_of("*/15 * * * *", "Asia/Tokyo", where="schedule.cycle").cron
    '*/15 * * * *'
    >>> schedule_of("interval:30", "UTC", where="schedule.cycle").interval.total_seconds()
    30.0
    """
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

    try:
        if text.startswith("interval:"):
            return IntervalSchedule(interval=timedelta(seconds=float(text.removeprefix("interval:"))))
        return CronSchedule(cron=text, timezone=time_zone)
    except ValueError as error:
        raise BadConfig(
            f"{where}: {text!r} is neither a cron line (such as '*/15 * * * *') nor interval:SECONDS"
        ) from error


def deploy(
    settings_list: Sequence[Settings],
    workspace_root: Path,
    *,
    api_url: str | None = None,
    pool: str = POOL,
    source: FlowSource | None = None,
    job_variables: dict[str, Any] | None = None,
    replace: bool = False,
    pause_others: bool = False,
) -> list[str]:
    """Lay down each model's deployments and its automation on a running server.

    Parameters
    ----------
    api_url: the server; by default the one that Prefect's settings name.
    job_variables: how the pool's workers start a run, beyond the pool's own defaults.
    replace: take over a model of the same name that another workspace has laid down.
    pause_others: pause the pool's other deployments, so that only these models run.

    Returns
    -------
    Their names, as `kind FLOW/MODEL`, in order.

    Raises
    ------
    BadConfig: two models of one name or inbox (also one that the server runs already), a schedule that cannot be read,
        a config that came from no file.
    Refused: the server runs a model of this name for another workspace, and `replace` is false.
    Unavailable: the server does not answer.

    Example
    -------
    ``deploy([load_settings(Path("config.yaml"))], Path("workspace"), api_url="http://127.0.0.1:4200/api")``
    """
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    source = source or FlowSource()
    names = check_apart(settings_list, workspace_root.absolute())
    plans = [(one.name, _plans(one, workspace_root.absolute())) for one in settings_list]
    made: list[str] = []
    with connected(api_url) as client:
        with suppress(ObjectAlreadyExists):  # then it stays as it was set up, perhaps by hand
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        existing = deployments_of(client, pool)
        if not replace:
            _check_workspace(existing, names, workspace_root)
        if not pause_others:
            check_apart([*_running_beside(existing, names, workspace_root), *settings_list], workspace_root.absolute())
        # What a person has paused stays so; what was paused since its model was left out does not.
        paused = {(one.name, one.entrypoint) for one in existing if one.paused and LEFT_OUT_TAG not in one.tags}

        def lay_down(entrypoint: str, name: str, plan: dict[str, Any]) -> UUID:
            where = {"work_pool_name": pool, "job_variables": job_variables, "paused": (name, entrypoint) in paused}
            return _deploy_one(source, entrypoint, name=name, **where, **plan)

        for name, plan in plans:
            laid: dict[str, UUID] = {}
            for kind, options in plan.items():
                if (entrypoint := getattr(source, kind)) is not None:
                    laid[kind] = lay_down(entrypoint, name, options)
            automation = _automate(client, name, laid["retrain"])
            made += [*(f"deployment {kind}/{name}" for kind in laid), f"automation {automation}"]
        if pause_others:
            _pause_others(client, existing, names)
    return made


def _plans(settings: Settings, root: Path) -> dict[str, dict[str, Any]]:
    """How a model's flows are laid down, by the names that they have in `FlowSource` and in `schedule`."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy

    where = {"config": str(_config_file(settings)), "workspace": str(root)}
    tags = ["softad", settings.name]
    zone = settings.data.time_zone
    monthly = settings.schedule.retrain
    cycle = {
        "schedule": schedule_of(settings.schedule.cycle, zone, where="schedule.cycle"),
        # A tick that comes while the last one still runs is left out: the next one does its work too.
        "concurrency_limit": ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        "parameters": {**where, "trigger": "event"},
        "tags": tags,
    }
    retrain = {
        "schedule": schedule_of(monthly, zone, where="schedule.retrain") if monthly else None,
        "concurrency_limit": ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE),
        "parameters": {**where, "reason": "schedule"},
        "tags": [*tags, RETRAIN_TAG],
    }
    plans: dict[str, dict[str, Any]] = {"cycle": cycle, "retrain": retrain}
    for name in ("maintain", "report"):
        line = getattr(settings.schedule, name)
        plans[name] = {
            "schedule": schedule_of(line, zone, where=f"schedule.{name}") if line else None,
            "concurrency_limit": ConcurrencyLimitConfig(
                limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
            ),
            "parameters": where,
            "tags": tags,
        }
    if settings.promotion.mode == "approve":
        plans["approve"] = {"parameters": where, "tags": [*tags, APPROVE_TAG]}
    return plans


def _pause_others(client: SyncPrefectClient, existing: Sequence[DeploymentResponse], names: set[str]) -> None:
    """Pause what is not named, marked so that it is known from what a person has paused."""
    from prefect.client.schemas.actions import DeploymentUpdate

    for deployment in existing:
        if deployment.name not in names and not deployment.paused:
            tags = [*deployment.tags, LEFT_OUT_TAG]
            client.update_deployment(deployment.id, DeploymentUpdate(paused=True, tags=tags))


def worker_is_heard(client: SyncPrefectClient, *, pool: str = POOL, name: str, since: datetime) -> bool:
    """Whether the server has heard from the worker `name` at or after `since`."""
    return any(
        worker.name == name and worker.last_heartbeat_time is not None and worker.last_heartbeat_time >= since
        for worker in client.read_workers_for_work_pool(pool)
    )


def deployments_of(client: SyncPrefectClient, pool: str) -> list[DeploymentResponse]:
    """All deployments whose runs go to `pool`; the server gives so many at a time (fifty models have more)."""
    from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName

    mine, found = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])), list["DeploymentResponse"]()
    while part := client.read_deployments(work_pool_filter=mine, limit=AT_ONCE, offset=len(found)):
        found += part
        if len(part) < AT_ONCE:
            break
    return found


def retrainings(model: str, incident: str, *, api_url: str | None = None) -> list[FlowRun]:
    """All runs of a model's retraining for one incident, whatever their state.

    Raises
    ------
    Unavailable: the server does not answer.
    """
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
    from prefect.client.schemas.sorting import FlowRunSort

    tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=["softad", model, RETRAIN_TAG]))
    with connected(api_url) as client:
        runs = client.read_flow_runs(flow_run_filter=tagged, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=200)
    return [run for run in runs if run.parameters.get("incident") == incident]


def _check_workspace(existing: Sequence[DeploymentResponse], names: set[str], workspace_root: Path) -> None:
    for deployment in existing:
        other = deployment.parameters.get("workspace")
        if deployment.name in names and other != str(workspace_root.absolute()):
            raise Refused(
                f"the server runs a model named {deployment.name!r} for the workspace {other}; "
                "rename this one, or say --replace to take its place"
            )


def _running_beside(existing: Sequence[DeploymentResponse], names: set[str], workspace_root: Path) -> list[Settings]:
    """The other models that the server runs for this workspace, as far as their configs can be read."""
    root = str(workspace_root.absolute())
    configs = {
        str(one.parameters.get("config"))
        for one in existing
        if one.name not in names and not one.paused and one.parameters.get("workspace") == root
    }
    found = {}
    for config in sorted(configs):
        with suppress(BadConfig):  # its own runs say what is wrong with it
            settings = load_settings(Path(config))
            found[settings.name] = settings
    return [settings for name, settings in found.items() if name not in names]


def _config_file(settings: Settings) -> Path:
    if settings.source is None:
        raise BadConfig(f"the config of {settings.name} came from no file; a deployment names a file to read")
    return settings.source.absolute()


def _deploy_one(source: FlowSource, entrypoint: str, **options: Any) -> UUID:
    from prefect import flow

    # Not `deploy()`, which does the same and prints a table on standard output.
    loaded = cast("Flow[..., Any]", flow.from_source(source=str(source.folder), entrypoint=entrypoint))
    deployment = cast("RunnerDeployment", loaded.to_deployment(**options))
    return cast("UUID", deployment.apply())


def _automate(client: SyncPrefectClient, model: str, deployment_id: UUID) -> str:
    """Run the retraining when the model's event comes, with the event's parameters in their own types."""
    from prefect.events.actions import RunDeployment
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    name = f"softad: retrain {model} on a shifted concentration"
    automation = AutomationCore(
        name=name,
        description="Laid down by `softad up` or `softad deploy`, which replace it.",
        trigger=EventTrigger(
            expect={SHIFTED},
            match={"prefect.resource.id": resource_of(model)},
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[
            RunDeployment(
                source="selected",
                deployment_id=deployment_id,
                parameters={field: _from_event(field) for field in ("config", "workspace", "reason", "incident")},
                job_variables=None,
            )
        ],
    )
    # Changed in place where it exists: between a deletion and a creation an event would find nobody.
    existing = client.read_automations_by_name(name)
    if existing:
        client.update_automation(existing[0].id, automation)
    else:
        client.create_automation(automation)
    for surplus in existing[1:]:
        client.delete_automation(surplus.id)
    return name


def _from_event(field: str) -> dict[str, Any]:
    """A template whose value keeps its type: a number stays one, None stays none.

    >>> _from_event("share")["value"]["template"]
    '{{ event.payload.share | tojson }}'
    """
    template = "{{ event.payload." + field + " | tojson }}"
    return {"__prefect_kind": "json", "value": {"__prefect_kind": "jinja", "template": template}}
