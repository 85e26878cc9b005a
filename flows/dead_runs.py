"""Runs whose process is gone: told to the server, their place freed, a retraining started again.

Prefect's server learns of a run's end from the run itself or from the worker above it. When the worker is
killed nobody tells it: the run stays "running" for good, and the place it holds under the deployment's limit
stays taken until a lease of minutes runs out. Setting the run to Crashed gives the place back at once, also
after a restart of the server; so that is done here, and only after the run's process was seen to be gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flows.deployments import POOL, RETRAIN_TAG, connected, deployments_of
from flows.services import MARK, Identity, by_variable, end

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.client.schemas.responses import DeploymentResponse

RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"
"""Prefect's own mark on the process of a run."""

PROCESS_TAG = "softad-process:"
AGAIN_TAG = "softad-again:"
MOST_AGAIN = 5
"""A retraining that was killed this many times in a row is left to a person."""


@dataclass(frozen=True)
class Recovery:
    """What was put right; names of runs."""

    crashed: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    processes: int = 0
    missed: int = 0
    brought: int = 0

    def __str__(self) -> str:
        """As a line of a log.

        >>> str(Recovery(crashed=("brave-cat",), again=("calm-dog",), processes=1))
        '1 process ended; crashed: brave-cat; started again as: calm-dog; 0 missed ticks left out'
        >>> str(Recovery(brought=2)).split("; ")[-1]
        '2 runs of another workspace brought here'
        """
        ended = f"{self.processes} process{'' if self.processes == 1 else 'es'} ended"
        brought = f"; {self.brought} runs of another workspace brought here" if self.brought else ""
        return (
            f"{ended}; crashed: {', '.join(self.crashed) or 'none'}; started again as: "
            f"{', '.join(self.again) or 'none'}; {self.missed} missed ticks left out{brought}"
        )

    def __bool__(self) -> bool:
        """Whether there was anything to do."""
        return bool(self.crashed or self.again or self.processes or self.missed or self.brought)


def process_tag() -> str:
    """A tag for a run made in this very process, by which the run is known dead once the process is gone.

    >>> process_tag().startswith(PROCESS_TAG)
    True
    """
    import os

    import psutil

    return f"{PROCESS_TAG}{os.getpid()}:{psutil.Process().create_time()}"


def recover(
    *,
    api_url: str | None = None,
    pool: str = POOL,
    worker_lives: bool = False,
    patience: float = 60.0,
    at_start: bool = False,
    root: Path | None = None,
) -> Recovery:
    """End what a dead worker left behind, and start an interrupted retraining again.

    Call it while no worker of `pool` runs, or with `worker_lives`: then only runs count that have no process
    and have been in their state for `patience` seconds, since a living worker starts and ends processes itself.

    Parameters
    ----------
    api_url: the server; by default the one that Prefect's settings name.
    at_start: of the ticks that passed while nothing ran, keep the last of each deployment only; and let what is
        still to run, or to run again, name the workspace that its deployment names: this may be a copy of another.
    root: only processes of this workspace's own `softad up` are taken for the runs'; None: of any.

    Raises
    ------
    Unavailable: the server does not answer. Calling again does the rest.
    """
    with connected(api_url) as client:
        missed = _skip_missed(client, pool) if at_start else 0
        brought = _bring_here(client, pool) if at_start else 0
        runs = _active_runs(client, pool)
        living = by_variable(RUN_VARIABLE) if runs else {}
        if root is not None and living:
            ours = set(by_variable(MARK).get(str(root), ()))
            living = {run: [one for one in processes if one in ours] for run, processes in living.items()}
        if worker_lives:
            settled = datetime.now(UTC) - timedelta(seconds=patience)
            runs = [run for run in runs if not living.get(str(run.id)) and run.state and run.state.timestamp < settled]
        again, crashed, processes = [], [], 0
        for run in runs:
            # The order matters: a failure at any point, and a second call, ends in one run more, not two or none.
            if RETRAIN_TAG in run.tags and not _is_cancelling(run) and (name := _start_again(client, run)):
                again.append(name)
            processes += end(living.get(str(run.id), ()), patience=0.0)
            if _close(client, run):
                crashed.append(run.name)
        crashed += [run.name for run in _dead_inline(client) if _close(client, run)]
        if not worker_lives:
            _free_places(client, pool)
    return Recovery(tuple(crashed), tuple(again), processes, missed, brought)


def idle(api_url: str | None = None, pool: str = POOL) -> bool:
    """Whether no run is at work, or about to be.

    Raises
    ------
    Unavailable: the server does not answer.
    """
    with connected(api_url) as client:
        return not _active_runs(client, pool)


def _active_runs(client: SyncPrefectClient, pool: str) -> list[FlowRun]:
    from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName

    return client.read_flow_runs(
        flow_run_filter=_in_states("PENDING", "RUNNING", "CANCELLING"),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
        limit=200,
    )


def _in_states(*names: str, **more: Any) -> Any:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType

    types = [StateType(name) for name in names]
    return FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=types)), **more)


def _is_cancelling(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_cancelling()


def _start_again(client: SyncPrefectClient, run: FlowRun) -> str | None:
    """A new run with the same parameters; the same one when called twice; None after too many."""
    assert run.deployment_id is not None  # runs of a pool come from a deployment
    before = max((int(tag.removeprefix(AGAIN_TAG)) for tag in run.tags if tag.startswith(AGAIN_TAG)), default=0)
    if before >= MOST_AGAIN:
        return None
    tags = [tag for tag in run.tags if not tag.startswith(AGAIN_TAG)]
    new = client.create_flow_run_from_deployment(
        run.deployment_id,
        parameters=run.parameters | _place(client.read_deployment(run.deployment_id)),
        tags=[*tags, f"{AGAIN_TAG}{before + 1}"],
        idempotency_key=f"softad-again-{run.id}",
    )
    return new.name


def _close(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Set a run, and the runs and tasks below it, to a final state; False where it had reached one itself."""
    from prefect.client.schemas.filters import FlowRunFilterParentFlowRunId
    from prefect.client.schemas.responses import SetStateStatus
    from prefect.states import Cancelled, Crashed

    state: State[Any] = (
        Cancelled(message="Its process is gone.")
        if _is_cancelling(run)
        else Crashed(message="Its process, or the worker above it, was killed.")
    )
    below = _in_states(
        "PENDING", "RUNNING", "CANCELLING", parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run.id])
    )
    for child in client.read_flow_runs(flow_run_filter=below, limit=200):
        _close(client, child)
    _close_tasks(client, run.id)
    return client.set_flow_run_state(run.id, state).status == SetStateStatus.ACCEPT


def _close_tasks(client: SyncPrefectClient, run_id: UUID) -> None:
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterId,
        TaskRunFilter,
        TaskRunFilterState,
        TaskRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    unfinished = [StateType.PENDING, StateType.RUNNING]
    for task in client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])),
        task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=unfinished))),
        limit=200,
    ):
        client.set_task_run_state(task.id, Crashed(message="Its flow run's process is gone."), force=True)


def _dead_inline(client: SyncPrefectClient) -> list[FlowRun]:
    """Runs that a command made in its own process, where that process is gone."""
    runs = client.read_flow_runs(flow_run_filter=_in_states("PENDING", "RUNNING", "CANCELLING"), limit=200)
    return [run for run in runs if (maker := _maker(run.tags)) is not None and not maker.alive()]


def _maker(tags: Iterable[str]) -> Identity | None:
    """The process that a tag of `process_tag` names.

    >>> _maker(["softad", "softad-process:12:3.5"])
    Identity(pid=12, created=3.5)
    """
    for tag in tags:
        if tag.startswith(PROCESS_TAG):
            pid, created = tag.removeprefix(PROCESS_TAG).split(":")
            return Identity(int(pid), float(created))
    return None


def _free_places(client: SyncPrefectClient, pool: str) -> None:
    """Give back places under the limits that no run holds, whatever the server has counted.

    Only safe while no worker runs: nothing is active then, so every place is free.
    """
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

    if _active_runs(client, pool):
        return
    for deployment in deployments_of(client, pool):
        limit = deployment.global_concurrency_limit
        if limit is not None and limit.active_slots:
            client.update_global_concurrency_limit(limit.name, GlobalConcurrencyLimitUpdate(active_slots=0))


def _skip_missed(client: SyncPrefectClient, pool: str) -> int:
    """Of each deployment's scheduled runs whose time has passed, delete all but the last."""
    from prefect.client.schemas.filters import (
        FlowRunFilterExpectedStartTime,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.sorting import FlowRunSort

    passed = FlowRunFilterExpectedStartTime.model_validate({"before_": datetime.now(UTC)})
    deleted = 0
    while True:
        runs: Sequence[FlowRun] = client.read_flow_runs(
            flow_run_filter=_in_states("SCHEDULED", expected_start_time=passed),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=200,
        )
        # What an event or a person asked for is not a tick: it stays.
        ticks = [run for run in runs if run.auto_scheduled]
        last = {run.deployment_id: run.id for run in reversed(ticks)}
        surplus = [run for run in ticks if run.id != last[run.deployment_id]]
        for run in surplus:
            client.delete_flow_run(run.id)
        deleted += len(surplus)
        if not surplus or len(runs) < 200:
            return deleted


def _place(deployment: DeploymentResponse) -> dict[str, Any]:
    """The parameters that say where a deployment's runs do their work."""
    return {name: deployment.parameters[name] for name in ("config", "workspace") if name in deployment.parameters}


def _bring_here(client: SyncPrefectClient, pool: str) -> int:
    """Let the runs that are still to come name the place that their deployment names; how many named another.

    A workspace that was moved or copied has its server's history with it, and in that the ticks that passed and
    the retrainings that were asked for, with the paths of before: they would work on the other workspace.
    """
    from prefect.client.schemas.filters import FlowRunFilterDeploymentId

    changed = 0
    for deployment in deployments_of(client, pool):
        place = _place(deployment)
        ours = FlowRunFilterDeploymentId(any_=[deployment.id])
        for run in client.read_flow_runs(flow_run_filter=_in_states("SCHEDULED", deployment_id=ours), limit=200):
            if all(run.parameters.get(name) == value for name, value in place.items()):
                continue
            client.create_flow_run_from_deployment(
                deployment.id,
                parameters=run.parameters | place,
                tags=run.tags,
                idempotency_key=f"softad-brought-{run.id}",
            )
            client.delete_flow_run(run.id)
            changed += 1
    return changed
