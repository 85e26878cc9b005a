"""A real Prefect server without a worker, and what tests ask it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from flows.deployments import RETRAIN_TAG, FlowSource, deployments_of
from flows.local_services import Ports, addresses, local_services
from flows.services import free_port
from flows.settings import Settings, load_settings
from tests.integration import local_system

HERE = Path(__file__).absolute().parent
SMALL = FlowSource(HERE, "small_flows.py:cycle_flow", "small_flows.py:retrain_flow", None, None)
NOW = datetime(2026, 4, 6, 12, tzinfo=UTC)
wait_for = partial(local_system.wait_for, seconds=20.0)


def a_config(folder: Path, name: str, cycle: str = "*/15 * * * *") -> Settings:
    path = folder / f"{name}.yaml"
    path.write_text(
        f"name: {name}\ndata: {{label: ok, numeric: [x], window: {{rows: 500}}, time_zone: Asia/Tokyo}}\n"
        f"task: {{classes: ['0', '1']}}\nschedule: {{cycle: '{cycle}'}}\n"
        f"ingest: {{inbox: inbox/{name}, outbox: outbox/{name}}}\n"
    )
    return load_settings(path)


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """The address of a Prefect server with the settings of `softad up`, and no worker."""
    (root / "prefect").mkdir()
    ports = Ports(prefect=free_port(), mlflow=free_port(), page=free_port())
    service = local_services(root, ports, addresses(ports), SMALL, mlflow=False)[0]
    service.start()
    try:
        wait_for(service.healthy, seconds=90)
        yield service.environment["PREFECT_API_URL"]
    finally:
        service.kill()


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
