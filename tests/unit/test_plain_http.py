"""One authority is loaded instead of all, where no TLS is spoken."""

from __future__ import annotations

import ssl
from pathlib import Path

import certifi
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_SSL_CERT_FILE, PREFECT_API_URL, temporary_settings

from flows.local_services import Ports, addresses, environment
from flows.plain_http import VARIABLE, one_authority
from flows.serve import parser, worker


class NoSecrets:
    folder = Path("/none")

    def get(self, name: str) -> None:
        return None

    def need(self, name: str) -> str:
        return "x"


def authorities(path: str) -> int:
    """How many authorities a client of Prefect's knows."""
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api", PREFECT_API_SSL_CERT_FILE: path}):
        client = get_client()
    context: ssl.SSLContext = client._client._transport._pool._ssl_context  # type: ignore[attr-defined]
    return len(context.get_ca_certs())


def test_clients_of_all_services_load_one(tmp_path: Path) -> None:
    where = addresses(Ports(prefect=1, mlflow=2, page=3))
    path = environment(tmp_path, where)[VARIABLE]
    assert authorities(certifi.where()) > 50
    assert authorities(path) == 1
    # Written anew by the next start, whatever lies there.
    Path(path).write_text("torn")
    assert authorities(environment(tmp_path, where)[VARIABLE]) == 1


def test_a_worker_in_a_container_too_but_not_towards_a_server_behind_tls(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    options = parser().parse_args(["worker", "--name", "local"])
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect:4200/api")
    assert authorities(worker(options, NoSecrets())[1][VARIABLE]) == 1
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.plant/api")
    assert VARIABLE not in worker(options, NoSecrets())[1]
    assert one_authority("", tmp_path) == {}
