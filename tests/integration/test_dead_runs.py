"""Dead runs, missed ticks and runs of a copied workspace, on a real Prefect server without a worker."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.dead_runs import MOST_AGAIN, RUN_VARIABLE, idle, process_tag, recover
from flows.deployments import RETRAIN_TAG, connected, deploy, deployments_of
from flows.services import MARK
from tests.integration.prefect_alone import SMALL, a_config, all_runs, retrain_id, runs_of, slots, wait_for

pytestmark = [pytest.mark.servers, pytest.mark.slow]


@pytest.fixture
def retraining(api: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    """A client and the id of a fresh model's retraining; its unfinished runs are removed afterwards."""
    name = request.node.name.replace("_", "-")[:60]
    deploy([a_config(tmp_path, name)], tmp_path, api_url=api, source=SMALL)
    with connected(api) as client:
        deployment_id = retrain_id(client, name)
        yield client, deployment_id
        for run in runs_of(client, deployment_id):
            client.delete_flow_run(run.id)


def begin(client: Any, deployment_id: Any, **options: Any) -> Any:
    """A run that holds its place and is running, as a worker and a process would have brought it there."""
    from prefect.states import Pending, Running

    run = client.create_flow_run_from_deployment(deployment_id, parameters={"incident": "i-1"}, **options)
    assert client.set_flow_run_state(run.id, Pending()).status.name == "ACCEPT"
    assert client.set_flow_run_state(run.id, Running()).status.name == "ACCEPT"
    return run


@contextmanager
def sleeping(environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that would live for ten minutes, and is killed at the end."""
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(command, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def state_of(client: Any, run: Any) -> str:
    return str(client.read_flow_run(run.id).state_name)


def test_a_killed_retraining_frees_its_place_and_starts_again_once(api: str, retraining: tuple[Any, Any]) -> None:
    from prefect.states import Pending

    client, deployment_id = retraining
    run = begin(client, deployment_id)
    assert not idle(api)
    assert slots(client, deployment_id) == 1
    queued = client.create_flow_run_from_deployment(deployment_id, parameters={"incident": "i-2"})
    assert client.set_flow_run_state(queued.id, Pending()).state.name == "AwaitingConcurrencySlot"
    with sleeping({RUN_VARIABLE: str(run.id)}) as orphan, sleeping() as stranger:
        recovery = recover(api_url=api)
        assert (recovery.crashed, recovery.processes, len(recovery.again)) == ((run.name,), 1, 1)
        assert orphan.wait(5) == -9
        assert stranger.poll() is None
    assert state_of(client, run) == "Crashed"
    assert state_of(client, queued) == "AwaitingConcurrencySlot"
    assert slots(client, deployment_id) == 0
    again = [one for one in runs_of(client, deployment_id) if one.name in recovery.again]
    assert [one.parameters["incident"] for one in again] == ["i-1"]
    assert not recover(api_url=api)
    assert len(runs_of(client, deployment_id)) == 3
    # The place is really free: the next one gets it, and the lease of the dead one is gone.
    assert client.set_flow_run_state(again[0].id, Pending()).status.name == "ACCEPT"


def test_a_recovery_that_was_cut_off_starts_no_second_run(api: str, retraining: tuple[Any, Any]) -> None:
    from flows.dead_runs import _start_again

    client, deployment_id = retraining
    run = begin(client, deployment_id)
    name = _start_again(client, client.read_flow_run(run.id))  # and then the supervisor was killed
    assert recover(api_url=api).again == (name,)
    assert len(runs_of(client, deployment_id)) == 2


def test_a_retraining_that_kills_its_worker_each_time_is_left_to_a_person(
    api: str, retraining: tuple[Any, Any]
) -> None:
    client, deployment_id = retraining
    run = begin(client, deployment_id, tags=[RETRAIN_TAG, f"softad-again:{MOST_AGAIN}"])
    recovery = recover(api_url=api)
    assert (recovery.crashed, recovery.again) == ((run.name,), ())
    begin(client, deployment_id, tags=[RETRAIN_TAG, f"softad-again:{MOST_AGAIN - 1}"])
    assert len(recover(api_url=api).again) == 1


def test_a_run_that_a_person_is_cancelling_ends_cancelled(api: str, retraining: tuple[Any, Any]) -> None:
    from prefect.states import Cancelling

    client, deployment_id = retraining
    run = begin(client, deployment_id)
    client.set_flow_run_state(run.id, Cancelling())
    assert recover(api_url=api).again == ()
    assert state_of(client, run) == "Cancelled"
    assert slots(client, deployment_id) == 0


def test_beside_a_living_worker_a_young_run_is_left_alone(api: str, retraining: tuple[Any, Any]) -> None:
    client, deployment_id = retraining
    run = begin(client, deployment_id)
    assert not recover(api_url=api, worker_lives=True)
    assert state_of(client, run) == "Running"


def test_beside_a_living_worker_only_a_run_whose_process_is_gone_counts(api: str, retraining: tuple[Any, Any]) -> None:
    client, deployment_id = retraining
    run = begin(client, deployment_id)
    with sleeping({RUN_VARIABLE: str(run.id)}):
        assert not recover(api_url=api, worker_lives=True, patience=0.0)
    recovery = recover(api_url=api, worker_lives=True, patience=0.0)
    assert (recovery.crashed, len(recovery.again)) == ((run.name,), 1)
    assert slots(client, deployment_id) == 0


def test_a_place_that_no_run_holds_is_given_back(api: str, retraining: tuple[Any, Any]) -> None:
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

    client, deployment_id = retraining
    limit = client.read_deployment(deployment_id).global_concurrency_limit
    client.update_global_concurrency_limit(limit.name, GlobalConcurrencyLimitUpdate(active_slots=1))
    recover(api_url=api)
    assert slots(client, deployment_id) == 0


def test_a_dead_commands_run_is_closed_and_a_living_ones_is_not(api: str) -> None:
    from prefect import flow
    from prefect.states import Running

    code = "from flows.dead_runs import process_tag; print(process_tag())"
    dead_tag = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    inline = flow(lambda: None, name="inline")
    with connected(api) as client:
        dead, living = (
            client.create_flow_run(inline, tags=[tag], state=Running()) for tag in (dead_tag, process_tag())
        )
        assert recover(api_url=api).crashed == (dead.name,)
        assert (state_of(client, dead), state_of(client, living)) == ("Crashed", "Running")
        client.delete_flow_run(living.id)


def test_of_the_ticks_missed_one_is_made_up_for(api: str, tmp_path: Path) -> None:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterExpectedStartTime

    deploy([a_config(tmp_path, "missed", "interval:2")], tmp_path, api_url=api, source=SMALL)
    with connected(api) as client:
        (cycle,) = [
            one for one in deployments_of(client, "softad") if one.name == "missed" and "cycle" in one.entrypoint
        ]

        def passed() -> list[Any]:
            before = FlowRunFilterExpectedStartTime.model_validate({"before_": datetime.now(UTC)})
            runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(expected_start_time=before), limit=200)
            return [run for run in runs if run.deployment_id == cycle.id]

        wait_for(lambda: len(passed()) >= 4, seconds=30)
        client.pause_deployment(cycle.id)
        late = passed()
        recovery = recover(api_url=api, at_start=True)
        assert recovery.missed >= len(late) - 1
        (kept,) = [run for run in late if run.id in {one.id for one in passed()}] or passed()
        assert kept.expected_start_time >= max(run.expected_start_time for run in late)


def test_what_a_copied_workspace_was_to_run_is_run_in_the_copy(api: str, tmp_path: Path) -> None:
    from prefect.states import Pending

    was, copy = tmp_path / "was", tmp_path / "copy"
    for place in (was, copy):
        place.mkdir()
    deploy([a_config(was, "copied", "interval:2")], was, api_url=api, source=SMALL)
    with connected(api) as client:
        retrain = retrain_id(client, "copied")
        (cycle,) = [
            one for one in deployments_of(client, "softad") if one.name == "copied" and "cycle" in one.entrypoint
        ]
        interrupted = begin(client, retrain)
        client.create_flow_run_from_deployment(retrain, parameters={"incident": "i-2"}, tags=[RETRAIN_TAG])
        queued = client.create_flow_run_from_deployment(retrain, parameters={"incident": "i-3"}, tags=[RETRAIN_TAG])
        assert client.set_flow_run_state(queued.id, Pending()).state.name == "AwaitingConcurrencySlot"
        wait_for(lambda: len(all_runs(client, cycle.id)) >= 3, seconds=30)
        time.sleep(3)  # a tick passes, with the place of before

        deploy([a_config(copy, "copied", "interval:2")], copy, api_url=api, source=SMALL, replace=True)
        client.pause_deployment(cycle.id)
        recovery = recover(api_url=api, at_start=True)
        assert recovery.crashed == (interrupted.name,)
        assert len(recovery.again) == 1
        assert recovery.brought >= 3  # the last tick and both retrainings that waited
        waiting = [run for run in all_runs(client, retrain) + all_runs(client, cycle.id) if run.state.is_scheduled()]
        assert {run.parameters["workspace"] for run in waiting} == {str(copy)}
        assert {Path(run.parameters["config"]).parent for run in waiting} == {copy}
        asked = [run for run in waiting if run.deployment_id == retrain and not run.auto_scheduled]
        assert sorted(run.parameters["incident"] for run in asked) == ["i-1", "i-2", "i-3"]
        assert all(RETRAIN_TAG in run.tags for run in asked)
        assert not recover(api_url=api, at_start=True).brought
        for run in all_runs(client, retrain):
            client.delete_flow_run(run.id)


def test_the_process_of_another_workspaces_run_is_left_alone(
    api: str, tmp_path: Path, retraining: tuple[Any, Any]
) -> None:
    client, deployment_id = retraining
    run = begin(client, deployment_id)
    theirs, ours = ({RUN_VARIABLE: str(run.id), MARK: str(root)} for root in (tmp_path / "was", tmp_path))
    with sleeping(theirs) as left, sleeping(ours) as ended:
        assert recover(api_url=api, root=tmp_path).processes == 1
        assert ended.wait(5) == -9
        assert left.poll() is None
