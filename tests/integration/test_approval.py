"""A decision on Prefect's own page: a flow run that waits for a person, on a real server, as a worker would run it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import ledger
from flows.approvals import ask_on_page
from flows.context import Context
from flows.deployments import FlowSource, connected, deploy
from flows.local_services import Ports, addresses, local_services
from flows.promote import consider
from flows.promotions import APPROVED, REFUSED, pending
from flows.retrain import latest_training, retrain
from flows.services import Service, free_port
from flows.settings import load_settings

WIDE = {"mean_margin": 99.0, "tail_margin": 99.0, "stability_margin": 99.0, "recall_margin": 1.0, "slice_margin": 99.0}


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("server")
    (root / "prefect").mkdir()
    ports = Ports(prefect=free_port(), mlflow=free_port(), page=free_port())
    service = local_services(root, ports, addresses(ports), FlowSource(), mlflow=False)[0]
    service.start()
    try:
        until = time.monotonic() + 120
        while not service.healthy():
            assert time.monotonic() < until
            time.sleep(0.2)
        yield service
    finally:
        service.kill()


@pytest.fixture
def waiting(capable: Any) -> Context:
    """A champion, and a challenger that passed the gates and waits for a person."""
    rules = capable.settings.promotion.model_copy(update=WIDE | {"mode": "approve"})
    document = capable.settings.model_copy(update={"promotion": rules}).model_dump(mode="json", exclude_defaults=True)
    path = capable.workspace.root / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    settings = load_settings(path)
    context = Context(settings, capable.workspace)
    parts = capable.parts() | {"settings": settings}

    def decided(version: str, **more: Any) -> Any:
        training = latest_training(context.tracker, version)
        return consider(**parts, training=training, now=capable.after(1), actor="softad", **more)

    assert decided("1", by_person=True, named="declared").promoted
    weak = settings.training.model_copy(update={"epochs": 2})
    retrain(**parts | {"settings": settings.model_copy(update={"training": weak})}, now=capable.after(1), reason="two")
    assert decided("2").needs == "person"
    return context


def run_once(run_id: str, server: Service) -> None:
    """What a worker's process does with a run."""
    root = Path(__file__).absolute().parent.parent.parent
    environment = {**os.environ, **server.environment, "PYTHONPATH": str(root), "PREFECT__FLOW_RUN_ID": run_id}
    environment.pop("MLFLOW_TRACKING_URI", None)  # here only Prefect's server runs
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "flow-run", "execute", run_id], check=False, capture_output=True, text=True,
        env=environment, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.servers
@pytest.mark.slow
@pytest.mark.parametrize("decision", ["promote", "refuse"])
def test_a_person_decides_on_the_runs_page(waiting: Context, server: Service, decision: str) -> None:
    api = server.environment["PREFECT_API_URL"]
    made = deploy([waiting.settings], waiting.workspace.root, api_url=api, replace=True)
    assert "deployment approve/line-a" in made
    found = pending(ledger.read(waiting.store))
    assert found is not None
    with connected(api) as client:
        url, why = ask_on_page(waiting, found)
        assert url is not None and why == "" and ask_on_page(waiting, found)[0] == url, "asked once"
        run_id = url.rsplit("/", 1)[1]
        run_once(run_id, server)
        assert client.read_flow_run(run_id).state_name == "Suspended"
        assert waiting.tracker.champion() == "1"
        nameless = client.resume_flow_run(run_id, run_input={"name": "", "decision": decision})
        assert nameless.status.value == "REJECT", "an answer without a name is none"
        answer = {"name": "aiko  sato", "decision": decision, "reason": "seen on the bench"}
        given = client.resume_flow_run(run_id, run_input=answer)
        assert given.status.value == "ACCEPT", given.details
        run_once(run_id, server)
        state = client.read_flow_run(run_id).state
        assert state.name == "Completed", state.message
    (entry,) = [entry for entry in ledger.read(waiting.store) if entry.subject == "2" and entry.action in
                {APPROVED, REFUSED}]  # fmt: skip
    assert (entry.actor, entry.details["named"]) == ("aiko sato", "declared")
    assert entry.action == (APPROVED if decision == "promote" else REFUSED)
    assert waiting.tracker.champion() == ("2" if decision == "promote" else "1")


def test_without_a_server_a_person_decides_by_command(waiting: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.promotion_watch import watch_promotions

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    entry = pending(ledger.read(waiting.store))
    assert entry is not None
    (note,) = watch_promotions(waiting, now=entry.at)
    assert note == (
        "version 2 passed every gate and waits for a person: softad promote 2 (no Prefect server is set, so it cannot "
        "be decided on its page: only by this command)"
    )
