"""Deployments and their trigger, on a real Prefect server without a worker."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.context import Context
from flows.deployments import connected, deploy, deployments_of, schedule_of
from flows.errors import BadConfig, Refused, Unavailable
from flows.events import Shift, emit_shift, request_retraining
from flows.incidents import all_incidents
from flows.local_services import Ports, addresses, environment
from flows.services import free_port
from flows.settings import load_settings
from flows.workspace import Workspace
from monitoring.incidents import Incident
from tests.integration.prefect_alone import NOW, SMALL, a_config, retrain_id, runs_of, wait_for

pytestmark = [pytest.mark.servers, pytest.mark.slow]


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


def test_a_second_model_with_the_inbox_of_one_that_runs_is_refused(api: str, tmp_path: Path) -> None:
    deploy([a_config(tmp_path, "there")], tmp_path, api_url=api, source=SMALL)
    path = tmp_path / "late.yaml"
    path.write_text((tmp_path / "there.yaml").read_text().replace("name: there", "name: late"))
    late = load_settings(path)
    with pytest.raises(BadConfig, match=r"there and late have one inbox, .* of the config of late"):
        deploy([late], tmp_path, api_url=api, source=SMALL)
    with connected(api) as client:
        assert not [one for one in deployments_of(client, "softad") if one.name == "late"]
    # Another workspace has folders of its own; where the other model is not to run any more, nothing is shared.
    deploy([late], tmp_path / "elsewhere", api_url=api, source=SMALL)
    deploy([late], tmp_path, api_url=api, source=SMALL, replace=True, pause_others=True)
    # A config that cannot be read any more is its own model's trouble.
    (tmp_path / "there.yaml").unlink()
    deploy([a_config(tmp_path, "third")], tmp_path, api_url=api, source=SMALL)


def test_more_deployments_than_a_server_gives_at_once(
    api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy([a_config(tmp_path, name) for name in ("many-a", "many-b", "many-c")], tmp_path, api_url=api, source=SMALL)
    with connected(api) as client:
        whole = sorted(one.id for one in deployments_of(client, "softad"))
        assert len(whole) >= 6
        for part in (2, len(whole), len(whole) - 1):
            monkeypatch.setattr("flows.deployments.AT_ONCE", part)
            assert sorted(one.id for one in deployments_of(client, "softad")) == whole


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


def test_the_servers_environment_holds_no_other_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "secret of another server")
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", "postgresql+asyncpg://elsewhere/db")
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "true")
    found = environment(tmp_path, addresses(Ports(prefect=1, mlflow=2, page=3)))
    assert "PREFECT_API_KEY" not in found
    assert "PREFECT_SERVER_DATABASE_CONNECTION_URL" not in found
    assert found["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert found["DO_NOT_TRACK"] == "true"
