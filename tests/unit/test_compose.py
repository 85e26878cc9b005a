"""docker/compose.yaml and `softad up --profile production` run the same: commands, environment and ports."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import postgres, production
from flows.credentials import GENERATED, OBJECT_STORE
from flows.deployments import FlowSource
from flows.local_services import Layout, Ports
from flows.settings import load_settings

DOCKER = Path(__file__).parents[2] / "docker"
PRODUCTION = DOCKER.parent / "configs" / "production.yaml"
BOTH = ("postgres", "prefect", "mlflow", "page", "worker")
INSIDE = {"postgres": 5432, "prefect": 4200, "mlflow": 5000, "page": 8080}
"""Ports within the containers' network."""


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return found


@pytest.fixture
def native(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """What is started natively; nothing is started here, and PostgreSQL's folder is not made."""
    monkeypatch.setattr(postgres, "initialise", lambda *_: True)
    monkeypatch.setattr(postgres, "program", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(postgres, "owner", lambda: None)
    monkeypatch.setattr(production, "check_packages", lambda: None)
    monkeypatch.delenv("SOFTAD_SECRETS", raising=False)
    settings = load_settings(PRODUCTION)
    tracking = settings.tracking.model_copy(update={"artifacts": "s3://softad/artifacts"})
    monkeypatch.setattr(production, "choose_ports", lambda *_: Ports(**INSIDE))
    return production.lay_out(tmp_path, [settings.model_copy(update={"tracking": tracking})], Ports(), {}, FlowSource())


def plain(words: list[str], root: str) -> list[str]:
    """A command without what must differ: the program's path, addresses, the workspace's path."""
    text = "\n".join(words).replace(root, "/workspace")
    text = re.sub(r"\A\S*/(python[\d.]*|postgres)\n", lambda found: found[1].rstrip("0123456789.") + "\n", text)
    text = re.sub(r"127\.0\.0\.1|0\.0\.0\.0|(?<==)\*$|(?<=@)postgres(?=:)", "HOST", text, flags=re.MULTILINE)
    return text.replace("/workspace/postgres/cluster", "/data/cluster").splitlines()


def test_commands_are_the_same(compose: dict[str, Any], native: Layout, tmp_path: Path) -> None:
    started = {
        service.name: plain([str(word) for word in service.command], str(tmp_path)) for service in native.services
    }
    assert tuple(started) == BOTH
    for name in BOTH:
        command = plain([str(word) for word in compose["services"][name]["command"]], "/workspace")
        # In containers nobody watches over the worker: it puts right itself what its forerunner has left.
        assert [word for word in command if word != "--alone"] == started[name], name


def test_environments_are_the_same(compose: dict[str, Any], native: Layout) -> None:
    services = {service.name: service.environment for service in native.services}
    renamed = {"PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_SERVER_UI_API_URL", "SOFTAD_SECRETS", "PREFECT_HOME"}
    # What a read-only root, or an object store, needs besides.
    allowed = {"PREFECT_SERVER_UI_STATIC_DIRECTORY", "MLFLOW_S3_ENDPOINT_URL", "MLFLOW_SERVER_ALLOWED_HOSTS"}
    for name in BOTH[1:]:
        given = compose["services"][name]["environment"]
        own = {key for key in given if not key.startswith("SOFTAD_CONFIG__")}
        assert own - allowed <= set(services[name]), name
        assert {"PREFECT_API_URL", "MLFLOW_TRACKING_URI", "SOFTAD_SECRETS"} <= own <= renamed | allowed, name
        # The address differs, and what is at it does not: the same path, and the port that the service listens on.
        for key, port in {"PREFECT_API_URL": "prefect", "MLFLOW_TRACKING_URI": "mlflow"}.items():
            assert given[key].replace(f"http://{port}:", "http://127.0.0.1:") == services[name][key]
    assert set(compose["services"]["prefect"]["environment"]) >= {"PREFECT_SERVER_UI_API_URL"}


def test_ports_are_the_same_and_only_the_proxys_are_published(compose: dict[str, Any], native: Layout) -> None:
    published = {name: one["ports"] for name, one in compose["services"].items() if "ports" in one}
    assert list(published) == ["proxy"]
    assert {str(port).rsplit(":", maxsplit=1)[1] for port in published["proxy"]} == {"8443", "5443", "4443"}
    proxied = dict(re.findall(r"proxy_pass http://(\w+):(\d+);", (DOCKER / "nginx.conf").read_text()))
    assert proxied == {name: str(INSIDE[name]) for name in ("page", "mlflow", "prefect")}
    assert {name: vars(native.ports)[name] for name in INSIDE} == INSIDE


def test_the_configs_keys_in_the_environment_are_keys(compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in compose["services"]["worker"]["environment"].items():
        monkeypatch.setenv(name, value)
    settings = load_settings(PRODUCTION)
    assert settings.services.postgres == "postgresql://postgres:5432"
    assert settings.tracking.uri == "http://mlflow:5000"
    assert settings.storage.tables == "s3://softad/tables"


def test_every_container_is_shut_in(compose: dict[str, Any]) -> None:
    for name, one in compose["services"].items():
        assert one["read_only"] is True, name
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges"], name
        assert {"mem_limit", "pids_limit", "restart"} <= set(one), name
        assert not re.search(r":latest|:-[^:}]*}$", one["image"].rsplit("/", maxsplit=1)[-1]), f"{name} is not pinned"
    users = {path.name: path.read_text() for path in DOCKER.glob("*Dockerfile")}
    assert all(re.search(r"^USER (?!root|0)", text, re.MULTILINE) for text in users.values())
    networks = compose["networks"]
    assert [name for name, one in networks.items() if not (one or {}).get("internal")] == ["edge"]
    assert compose["services"]["proxy"]["networks"] == ["services", "edge"]
    assert [name for name, one in compose["services"].items() if "databases" in one["networks"]] == [
        "postgres", "init", "prefect", "mlflow",
    ]  # fmt: skip


def test_a_service_gets_only_the_secrets_it_needs_and_all_of_those(compose: dict[str, Any]) -> None:
    from flows import serve
    from flows.credentials import Secrets

    class Noted(Secrets):
        def __init__(self) -> None:
            super().__init__(DOCKER, environment={})
            self.asked: set[str] = set()

        def get(self, name: str) -> str | None:
            self.asked.add(name)
            return "x"

    for name in ("prefect", "mlflow", "worker"):
        kept = Noted()
        words = [str(word) for word in compose["services"][name]["command"][3:]]
        serve.PROGRAMS[name](serve.parser().parse_args(words), kept)
        assert set(compose["services"][name]["secrets"]) == kept.asked, name
    named = {
        f"${{SECRETS_FOLDER:-./secrets}}/{name}" for name in (*GENERATED, *OBJECT_STORE, "tls_certificate", "tls_key")
    }
    assert {one["file"] for one in compose["secrets"].values()} == named
    made = (DOCKER / "secrets.sh").read_text()
    assert all(name in made for name in (*GENERATED, *OBJECT_STORE))
