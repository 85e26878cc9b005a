"""Deployments, their trigger, and dead runs, on a real Prefect server without a worker."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.context import Context
from flows.dead_runs import MOST_AGAIN, RUN_VARIABLE, idle, process_tag, recover
from flows.deployments import RETRAIN_TAG, FlowSource, connected, deploy, deployments_of, schedule_of
from flows.errors import BadConfig, Refused, Unavailable
from flows.events import Shift, emit_shift, request_retraining
from flows.incidents import all_incidents
from flows.local_services import Ports, addresses, environment, local_services
from flows.services import MARK, Service, free_port
from flows.settings import Settings, load_settings
from flows.workspace import Workspace
from monitoring.incidents import Incident

pytestmark = [pytest.mark.servers, pytest.mark.slow]

HERE = Path(__file__).absolute().parent
SMALL = FlowSource(HERE, "small_flows.py:cycle_flow", "small_flows.py:retrain_flow", None, None)
NOW = datetime(2026, 4, 6, 12, tzinfo=UTC)


def a_config(folder: Path, name: str, cycle: str = "*/15 * * * *") -> Settings:
    path = folder / f"{name}.yaml"
    path.write_text(
        f"name: {name}\ndata: {{label: ok, numeric: [x], window: {{rows: 500}}, time_zone: Asia/Tokyo}}\n"
        f"task: {{classes: ['0', '1']}}\nschedule: {{cycle: '{cycle}'}}\n"
    )
    return load_settings(path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A Prefect server with the settings of `softad up`, and no worker."""
    root = tmp_path_factory.mktemp("server")
    (root / "prefect").mkdir()
    ports = Ports(prefect=free_port(), mlflow=free_port(), page=free_port())
    service = local_services(root, ports, addresses(ports), SMALL, mlflow=False)[0]
    service.start()
    try:
        wait_for(service.healthy, seconds=90)
        yield service
    finally:
        service.kill()


@pytest.fixture(scope="module")
def api(server: Service) -> str:
    return server.environment["PREFECT_API_URL"]


def wait_for(condition: Callable[[], Any], *, seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)
    return value


def retrain_id(client: Any, model: str) -> Any:
    (found,) = [one for one in deployments_of(client, "softad") if one.name == model and RETRAIN_TAG in one.tags]
    return found.id


def runs_of(client: Any, deployment_id: Any) -> list[Any]:
    return [run for run in all_runs(client, deployment_id) if not run.auto_scheduled]


def all_runs(client: Any, deployment_id: Any) -> list[Any]:
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId

    ours = DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))
    return list(client.read_flow_runs(deployment_filter=ours, limit=200))


def slots(client: Any, deployment_id: Any) -> int:
    return int(client.read_deployment(deployment_id).global_concurrency_limit.active_slots)


def everything(client: Any) -> list[str]:
    """What is laid down, with ids, without what changes with time."""
    deployments = [
        f"{one.id} {one.name} {one.entrypoint} {[schedule.schedule for schedule in one.schedules]} {one.parameters} "
        f"{one.concurrency_options} {one.global_concurrency_limit.limit} {one.paused}"
        for one in deployments_of(client, "softad")
    ]
    return sorted(deployments + [f"{one.id} {one.name}" for one in client.read_automations()])


def test_laying_down_twice_is_laying_down_once(api: str, tmp_path: Path) -> None:
    settings = [a_config(tmp_path, "twice-a"), a_config(tmp_path, "twice-b")]
    first = deploy(settings, tmp_path, api_url=api, source=SMALL)
    with connected(api) as client:
        before = everything(client)
        assert deploy(settings, tmp_path, api_url=api, source=SMALL) == first
        assert everything(client) == before
        mine = [line for line in before if "twice-" in line]
    assert len(first) == len(mine) == 6
    assert sum("cron='0 3 1 * *', timezone='Asia/Tokyo'" in line for line in mine) == 2
    assert sum("CANCEL_NEW" in line for line in mine) == sum("ENQUEUE" in line for line in mine) == 2
    assert all(str(tmp_path / "twice-a.yaml") in line for line in mine if "twice-a small_flows" in line)


def test_a_new_schedule_takes_the_old_ones_place(api: str, tmp_path: Path) -> None:
    deploy([a_config(tmp_path, "moved")], tmp_path, api_url=api, source=SMALL)
    deploy([a_config(tmp_path, "moved", "interval:45")], tmp_path, api_url=api, source=SMALL)
    with connected(api) as client:
        (cycle,) = [
            one for one in deployments_of(client, "softad") if one.name == "moved" and "cycle" in one.entrypoint
        ]
    assert [schedule.schedule.interval.total_seconds() for schedule in cycle.schedules] == [45.0]


def test_only_the_models_started_run_and_a_persons_pause_stays(api: str, tmp_path: Path) -> None:
    gone, stays = a_config(tmp_path, "gone"), a_config(tmp_path, "stays")
    deploy([gone, stays], tmp_path, api_url=api, source=SMALL)
    with connected(api) as client:
        by_person = retrain_id(client, "stays")
        client.pause_deployment(by_person)

        def paused() -> dict[str, list[bool]]:
            found = deployments_of(client, "softad")
            return {name: [one.paused for one in found if one.name == name] for name in ("gone", "stays")}

        deploy([stays], tmp_path, api_url=api, source=SMALL, pause_others=True)
        assert paused()["gone"] == [True, True]
        deploy([gone, stays], tmp_path, api_url=api, source=SMALL, pause_others=True)
        assert paused()["gone"] == [False, False]
        assert sorted(paused()["stays"]) == [False, True]
        assert client.read_deployment(by_person).paused


def test_another_workspaces_model_is_not_taken_over_unasked(api: str, tmp_path: Path) -> None:
    settings = a_config(tmp_path, "shared")
    deploy([settings], tmp_path / "one", api_url=api, source=SMALL)
    with pytest.raises(Refused, match=f"'shared' for the workspace {tmp_path}/one; .*--replace"):
        deploy([settings], tmp_path / "two", api_url=api, source=SMALL)
    deploy([settings], tmp_path / "two", api_url=api, source=SMALL, replace=True)
    with connected(api) as client:
        assert client.read_deployment(retrain_id(client, "shared")).parameters["workspace"] == str(tmp_path / "two")


def test_what_cannot_be_laid_down_says_why(tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/api"
    settings = a_config(tmp_path, "alone")
    with pytest.raises(BadConfig, match="two configs are named 'alone'"):
        deploy([settings, settings], tmp_path, api_url=nobody, source=SMALL)
    with pytest.raises(BadConfig, match="came from no file"):
        deploy([settings.model_copy(update={"source": None})], tmp_path, api_url=nobody, source=SMALL)
    with pytest.raises(Unavailable, match=f"no Prefect server answers at {nobody}"):
        deploy([settings], tmp_path, api_url=nobody, source=SMALL)
    for text in ("every day", "interval:soon", "interval:0", "interval:-5", "61 * * * *"):
        with pytest.raises(BadConfig, match=r"schedule.cycle: .* is neither a cron line"):
            schedule_of(text, "UTC", where="schedule.cycle")


def a_shift(folder: Path, model: str, **changes: Any) -> Shift:
    shift = Shift(
        model=model,
        incident="line-a-1",
        window="2026-W14",
        verdict="inspect",
        column="machine",
        value="M07",
        share=0.72,
        config=str(folder / f"{model}.yaml"),
        workspace=str(folder),
        reason="alarm",
    )
    return replace(shift, **changes)


def test_the_event_runs_one_retraining_with_its_own_typed_parameters(api: str, tmp_path: Path) -> None:
    deploy([a_config(tmp_path, "told"), a_config(tmp_path, "quiet")], tmp_path, api_url=api, source=SMALL)
    odd = a_shift(tmp_path, "told", reason='機械 "M07" at {{ 1 + 1 }}\nafter 5 µm', incident="2026-W14")
    numberlike = a_shift(tmp_path, "told", incident="0042", column=None, value=None, share=None)
    with connected(api) as client:
        for shift in (odd, odd, numberlike):  # the same one twice is one
            emit_shift(shift, occurred=datetime.now(UTC))
        runs = wait_for(lambda: (found := runs_of(client, retrain_id(client, "told"))) and len(found) >= 2 and found)
        time.sleep(2.0)  # a third, if it came, would come now
        runs = runs_of(client, retrain_id(client, "told"))
        assert runs_of(client, retrain_id(client, "quiet")) == []
    assert sorted((run.parameters["reason"], run.parameters["incident"]) for run in runs) == [
        ("alarm", "0042"),
        (odd.reason, "2026-W14"),
    ]
    assert {run.parameters["config"] for run in runs} == {str(tmp_path / "told.yaml")}


def test_an_event_that_nobody_takes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    nobody = f"http://127.0.0.1:{free_port()}/api"
    with temporary_settings(updates={PREFECT_API_URL: nobody}), pytest.raises(Unavailable, match=nobody):
        emit_shift(a_shift(tmp_path, "told"), occurred=NOW)
    with temporary_settings(restore_defaults={PREFECT_API_URL}), pytest.raises(Unavailable, match="softad up"):
        emit_shift(a_shift(tmp_path, "told"), occurred=NOW)


def test_an_incident_is_asked_for_until_a_run_has_it_and_again_when_that_failed(api: str, tmp_path: Path) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Failed

    settings = a_config(tmp_path, "asked")
    deploy([settings], tmp_path, api_url=api, source=SMALL)
    context = Context(settings, Workspace.open(tmp_path, settings=settings))
    incident = Incident("asked-2026-W14", "asked", NOW, "2026-W14", None, "inspect", "machine", "M07", share=0.72)
    with temporary_settings(updates={PREFECT_API_URL: api}), connected(api) as client:
        deployment_id = retrain_id(client, "asked")
        assert request_retraining(context, incident, "hold", now=datetime.now(UTC))
        request_retraining(context, incident, "hold", now=datetime.now(UTC))  # perhaps before the run was made
        (first,) = wait_for(lambda: runs_of(client, deployment_id))
        assert (first.parameters["incident"], first.parameters["reason"]) == (incident.key, "hold")
        assert not request_retraining(context, incident, "hold", now=datetime.now(UTC))
        client.set_flow_run_state(first.id, Failed(), force=True)
        assert request_retraining(context, incident, "hold", now=datetime.now(UTC))
        wait_for(lambda: len(runs_of(client, deployment_id)) == 2)
    recorded = all_incidents(context.store)
    assert [one.requested for one in recorded] == ["hold"]


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
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    orphan = subprocess.Popen(command, env={RUN_VARIABLE: str(run.id)})
    stranger = subprocess.Popen(command)
    try:
        recovery = recover(api_url=api)
        assert (recovery.crashed, recovery.processes, len(recovery.again)) == ((run.name,), 1, 1)
        assert orphan.wait(5) == -9
        assert stranger.poll() is None
    finally:
        for process in (stranger, orphan):
            process.kill()
            process.wait()
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
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(command, env={RUN_VARIABLE: str(run.id)}) as process:
        assert not recover(api_url=api, worker_lives=True, patience=0.0)
        process.kill()
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
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    theirs, ours = (
        subprocess.Popen(command, env={RUN_VARIABLE: str(run.id), MARK: str(root)})
        for root in (tmp_path / "was", tmp_path)
    )
    try:
        assert recover(api_url=api, root=tmp_path).processes == 1
        assert ours.wait(5) == -9
        assert theirs.poll() is None
    finally:
        for process in (theirs, ours):
            process.kill()
            process.wait()


def test_the_servers_environment_holds_no_other_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "secret of another server")
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", "postgresql+asyncpg://elsewhere/db")
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "true")
    found = environment(tmp_path, addresses(Ports(prefect=1, mlflow=2, page=3)))
    assert "PREFECT_API_KEY" not in found
    assert "PREFECT_SERVER_DATABASE_CONNECTION_URL" not in found
    assert found["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert found["DO_NOT_TRACK"] == "true"
