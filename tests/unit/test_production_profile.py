"""The production profile without servers: what is started, what is refused, and the page's login."""

from __future__ import annotations

import http.client
import threading
from base64 import b64encode
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from flows import postgres, serve
from flows.credentials import GENERATED, Secrets
from flows.errors import BadConfig
from flows.local_services import Ports
from flows.page_login import LoginHandler
from flows.production import named_ports, same_services
from flows.settings import Settings, load_settings

PRODUCTION = Path(__file__).parents[2] / "configs" / "production.yaml"


@pytest.fixture
def kept(tmp_path: Path) -> Secrets:
    made = Secrets(tmp_path / "secrets", environment={})
    made.create()
    return made


@pytest.mark.parametrize("service", ["prefect", "mlflow", "worker"])
def test_no_secret_is_in_a_command_line_or_an_address(kept: Secrets, service: str) -> None:
    address = "postgresql://{0}@127.0.0.1:5432/{0}"
    words = {
        "prefect": ["prefect", "--port", "4200", "--database", address.format("prefect")],
        "mlflow": ["mlflow", "--port", "5000", "--database", address.format("mlflow"),
                   "--logins", address.format("mlflow"), "--artifacts", "file:///artifacts"],
        "worker": ["worker", "--name", "local"],
    }[service]  # fmt: skip
    command, more = serve.PROGRAMS[service](serve.parser().parse_args(words), kept)
    values = [kept.need(name) for name in GENERATED]
    shown = [*command, *(value for name, value in more.items() if name.endswith(("_URL", "_URI")))]
    assert [text for text in shown if any(value in text for value in values)] == []
    assert any(value in values for value in more.values())
    if service == "mlflow":
        logins = Path(more["MLFLOW_AUTH_CONFIG_PATH"]).read_text()
        assert "auth_cache_ttl_seconds = 60" in logins
        assert not any(value in logins for value in values)


def test_keys_of_the_object_store_reach_the_worker_by_its_environment(kept: Secrets) -> None:
    (kept.folder / "aws_access_key_id").write_text("key\n")
    (kept.folder / "aws_secret_access_key").write_text("secret\n")
    _, more = serve.worker(serve.parser().parse_args(["worker", "--name", "a"]), kept)
    assert (more["AWS_ACCESS_KEY_ID"], more["AWS_SECRET_ACCESS_KEY"]) == ("key", "secret")


def test_a_service_whose_secret_is_missing_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTAD_SECRETS", str(tmp_path))
    with pytest.raises(SystemExit, match="error: the secret prefect_auth is missing"):
        serve.main(["prefect", "--port", "1", "--database", "postgresql://prefect@127.0.0.1:2/prefect"])


def test_models_of_one_system_name_the_same_services() -> None:
    first = load_settings(PRODUCTION)
    other = first.model_copy(update={"name": "b", "services": first.services.model_copy(update={"postgres": "x"})})
    assert same_services([first, first]) is first
    with pytest.raises(BadConfig, match="demo and b name different services"):
        same_services([first, other])
    elsewhere = first.services.model_copy(update={"prefect": "http://runs:4200/api"})
    with pytest.raises(BadConfig, match="softad deploy"):
        same_services([first.model_copy(update={"services": elsewhere})])


def test_the_command_lines_ports_count_before_the_configs() -> None:
    settings: list[Settings] = [load_settings(PRODUCTION)]
    assert named_ports(settings, Ports(page=9)) == Ports(prefect=4200, mlflow=5000, page=9, postgres=55432)


def test_without_postgres_it_is_said_what_to_do(tmp_path: Path, kept: Secrets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.postgres.owner", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadConfig, match="PostgreSQL's program initdb is not on the path"):
        postgres.initialise(tmp_path / "data", kept)
    assert not (tmp_path / "data").exists()


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path, kept: Secrets) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "theirs").touch()
    with pytest.raises(BadConfig, match="was not made by `softad up`"):
        postgres.initialise(tmp_path / "data", kept)
    assert (tmp_path / "data" / "theirs").exists()


@pytest.fixture
def page(tmp_path: Path, kept: Secrets, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr("flows.page_login.WRONG_WAITS", 0.0)
    folder = tmp_path / "page" / "line-a"
    folder.mkdir(parents=True)
    (folder / "index.html").write_text("<p>figures</p>")
    handler = partial(LoginHandler, kept=kept, directory=str(folder.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def ask(port: int, path: str, header: str | None = None, method: str = "GET") -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={} if header is None else {"Authorization": header})
    reply = connection.getresponse()
    return reply.status, reply.read().decode(), dict(reply.headers)


def basic(text: str) -> str:
    return "Basic " + b64encode(text.encode()).decode()


def test_the_page_is_shown_only_to_who_has_a_login(page: int, kept: Secrets) -> None:
    good = basic(f"operator:{kept.need('operator_password')}")
    assert ask(page, "/line-a/", good)[:2] == (200, "<p>figures</p>")
    assert ask(page, "/line-a/", good, "HEAD")[0] == 200
    assert ask(page, "/health")[0] == 204
    for path in ("/", "/line-a/", "/line-a/index.html", "/health/", "/health?x", "/health/../line-a/"):
        status, content, headers = ask(page, path)
        assert (status, "figures" in content) == (401, False)
        assert headers["WWW-Authenticate"].startswith("Basic ")
        assert ask(page, path, method="HEAD")[0] == 401


@pytest.mark.parametrize(
    "header",
    [
        basic("operator:wrong"), basic("operator:"), basic("nobody:"), basic("admin:x"), basic(":"), "Basic",
        "Basic %%%", "Bearer x", basic("mlflow_admin:x"), basic("../secrets/viewer:x"),
        "Basic " + b64encode(b"\xff\xfe").decode(),
    ],
)  # fmt: skip
def test_a_wrong_login_is_none(page: int, header: str) -> None:
    assert ask(page, "/line-a/", header)[0] == 401


def test_only_people_read_the_page(page: int, kept: Secrets) -> None:
    """A secret of the machine's own, such as MLflow's administrator, opens no page."""
    for user, secret in {"mlflow_admin": "mlflow_admin_password", "postgres": "postgres_password"}.items():
        assert ask(page, "/line-a/", basic(f"{user}:{kept.need(secret)}"))[0] == 401


def test_a_new_password_counts_at_once(page: int, kept: Secrets) -> None:
    old = basic(f"viewer:{kept.need('viewer_password')}")
    (kept.folder / "viewer_password").write_text("changed\n")
    assert ask(page, "/line-a/", old)[0] == 401
    assert ask(page, "/line-a/", basic("viewer:changed"))[0] == 200
