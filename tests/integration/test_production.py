"""The production profile with real servers: logins everywhere, a cycle through the worker, killed and started again."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from flows.archive import unpack
from flows.credentials import GENERATED, PEOPLE, Secrets
from flows.deployments import connected, deployments_of
from flows.local_services import Addresses
from flows.services import MARK, Identity, by_variable, end, port_is_free
from flows.supervisor import read_record
from flows.up import running
from softad.simulation import CATEGORICAL, CLASSES, NUMERIC, SLICES, InspectionLine
from tests.integration.local_system import ROOT, wait_for

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(900)]


def missing() -> str | None:
    if shutil.which("postgres") is None or shutil.which("initdb") is None:
        return "PostgreSQL's programs postgres and initdb are not on the path"
    absent = [name for name in ("psycopg2", "asyncpg", "flask_wtf") if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


class Production:
    """A workspace on which `softad up --profile production` is started as a process of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root / "workspace"
        self.config = root / "line-a.yaml"
        document = {
            "name": "line-a",
            "data": {"id": "id", "time": "time", "label": "label", "numeric": list(NUMERIC),
                     "categorical": list(CATEGORICAL), "slices": list(SLICES)},
            "task": {"classes": list(CLASSES), "normal": CLASSES[0]},
            "training": {"hidden": [16], "epochs": 12, "patience": 4, "learning_rate": 0.01, "thetas": [0.1]},
            "promotion": {"resamples": 400},
            "services": {"profile": "production"},
        }  # fmt: skip
        self.config.write_text(yaml.safe_dump(document))
        self.kept = Secrets(self.root / "secrets", environment={})
        self.kept_at = root / "kept.tar.zst"
        self.started: list[subprocess.Popen[bytes]] = []

    def up(self) -> float:
        """Start it, wait until it says that it is ready, and return the seconds."""
        begun = time.monotonic()
        output = self.root.parent / f"up-{len(self.started)}.txt"
        with output.open("wb") as handle:
            process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", "up", "--config", self.config, "--workspace", self.root],
                stdout=handle,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
                cwd=self.root.parent,
                start_new_session=True,
            )
        self.started.append(process)
        wait_for(lambda: "all services run" in output.read_text() or process.poll() is not None, seconds=400)
        assert "all services run" in output.read_text(), output.read_text() + self.ends_of_logs()
        return time.monotonic() - begun

    def command(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """One of the other commands on this workspace."""
        return subprocess.run(
            [sys.executable, "-m", "flows.cli", *words, "--workspace", self.root],
            check=False, capture_output=True, text=True, cwd=self.root.parent, timeout=300,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        )  # fmt: skip

    def ends_of_logs(self) -> str:
        logs = sorted((self.root / "logs").glob("*.log"))
        return "\n".join(f"== {path.name}\n{path.read_text()[-1500:]}" for path in logs)

    @property
    def where(self) -> Addresses:
        found = running(self.root)
        assert found is not None
        return found

    def status(self, url: str, user: str | None = None, password: str | None = None) -> int:
        request = urllib.request.Request(url)
        if user is not None:
            given = self.kept.need(f"{user}_password") if password is None else password
            request.add_header("Authorization", "Basic " + b64encode(f"{user}:{given}".encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            return error.code

    def end(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
        end(by_variable(MARK).get(str(self.root), []), patience=0.0)


@pytest.fixture(scope="module")
def production() -> Iterator[Production]:
    """One system on which the tests of this module act in order."""
    if reason := missing():
        pytest.skip(reason)
    # Not below pytest's own folder, which PostgreSQL's user may not enter where the tests run as root.
    folder = Path(tempfile.mkdtemp(prefix="softad-production-"))
    folder.chmod(0o755)
    made = Production(folder)
    try:
        made.up()
        yield made
    finally:
        made.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def as_service(production: Production, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """This process may ask Prefect and MLflow as the service's user may."""
    variables = {
        "PREFECT_API_AUTH_STRING": production.kept.need("prefect_auth"),
        "MLFLOW_TRACKING_USERNAME": "softad",
        "MLFLOW_TRACKING_PASSWORD": production.kept.need("mlflow_softad_password"),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def test_every_service_asks_for_a_login(production: Production) -> None:
    where = production.where
    closed = [
        where.page, f"{where.page}line-a/", f"{where.prefect_api}/admin/version", f"{where.prefect_api}/flows/count",
        where.mlflow, f"{where.mlflow}/api/2.0/mlflow/users/current",
    ]  # fmt: skip
    assert {url: production.status(url) for url in closed} == dict.fromkeys(closed, 401)
    for user in PEOPLE:
        assert production.status(where.page, user) == 200
        assert production.status(f"{where.mlflow}/api/2.0/mlflow/users/current", user) == 200
        assert production.status(where.page, user, "wrong") == 401
        assert production.status(where.mlflow, user, "wrong") == 401
    service, password = production.kept.need("prefect_auth").split(":")
    assert production.status(f"{where.prefect_api}/admin/version", service, password) == 200
    assert production.status(f"{where.prefect_api}/admin/version", service, "wrong") == 401


def test_a_database_lets_in_only_whose_it_is(production: Production) -> None:
    import psycopg2

    port = read_record(production.root)["ports"]["postgres"]

    def tried(user: str, database: str, secret: str | None) -> str:
        password = production.kept.need(secret) if secret else "wrong"
        try:
            psycopg2.connect(host="127.0.0.1", port=port, user=user, dbname=database, password=password).close()
        except psycopg2.OperationalError as error:
            return "wrong password" if "authentication failed" in str(error) else "not allowed"
        return "in"

    own, other = "postgres_mlflow_password", "postgres_prefect_password"
    assert [tried("mlflow", name, own) for name in ("mlflow", "mlflow_auth", "prefect")] == ["in", "in", "not allowed"]
    assert [tried("prefect", name, other) for name in ("prefect", "mlflow")] == ["in", "not allowed"]
    assert {tried(user, "postgres", None) for user in ("postgres", "mlflow", "root")} == {"wrong password"}


def test_prefects_own_client_lists_what_was_laid_down(production: Production, as_service: Mapping[str, str]) -> None:
    with connected(production.where.prefect_api) as client:
        found = {one.entrypoint.rsplit(":")[-1]: one for one in deployments_of(client, "softad")}
        lines = {name: one.schedules[0].schedule.cron for name, one in found.items()}
        assert lines == {
            "cycle_flow": "*/15 * * * *", "retrain_flow": "0 3 1 * *", "maintain_flow": "30 2 * * *",
            "report_flow": "0 7 * * 1",
        }  # fmt: skip
        assert [one.name for one in client.read_automations()] == ["softad: retrain line-a on a shifted concentration"]


def test_the_worker_runs_a_cycle_and_only_an_approver_moves_the_champion(
    production: Production, as_service: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    line = InspectionLine(rows_per_week=500)
    for week in (-2, -1, 0):
        data = line.week(week)
        data.inspections.to_csv(production.root / "inbox" / f"{week}.csv", index=False)
        data.labels.to_csv(production.root / "inbox" / "labels" / f"{week}.csv", index=False)
    with connected(production.where.prefect_api) as client:
        (cycle,) = [one for one in deployments_of(client, "softad") if one.entrypoint.endswith("cycle_flow")]
        now = f"{line.start.isoformat()}T12:00:00+00:00"
        run = client.create_flow_run_from_deployment(cycle.id, parameters={**cycle.parameters, "now": now})
        state = wait_for(
            lambda: found if (found := client.read_flow_run(run.id).state).is_final() else None, seconds=400
        )
    assert state.name == "Completed", (production.root / "logs" / "runs.log").read_text()[-3000:]
    registry = MlflowClient(production.where.mlflow)
    assert registry.get_registered_model("line-a").aliases == {"champion": "1"}
    assert registry.get_experiment_by_name("line-a").artifact_location.startswith("mlflow-artifacts:")
    assert production.status(f"{production.where.page}line-a/", "viewer") == 200

    def moves(user: str) -> bool:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", production.kept.need(f"{user}_password"))
        try:
            registry.set_registered_model_alias("line-a", "champion", "1")
        except MlflowException as error:
            assert error.get_http_status_code() == 403
            return False
        return True

    assert {user: moves(user) for user in PEOPLE} == {"viewer": False, "operator": False, "approver": True}


def examined(production: Production) -> dict[str, list[str]]:
    """What `softad doctor` says that must be done, by check; and that it knows of all others."""
    done = production.command("doctor", "--json", "--config", production.config)
    document = json.loads(done.stdout)
    assert done.returncode == (0 if document["healthy"] else 4), done.stderr
    named = {one["name"] for one in document["checks"]}
    assert named >= {"ports", "permissions", "logins", "tables", "ledger", "clock"}
    found: dict[str, list[str]] = {}
    for one in document["checks"]:
        if one["state"] == "act":
            found.setdefault(one["name"], []).append(one["sentence"])
    return found


def test_the_doctor_finds_nothing_and_then_the_passwords_that_were_changed(production: Production) -> None:
    assert examined(production) == {}
    kept = {
        name: production.kept.need(name) for name in ("viewer_password", "prefect_auth", "postgres_mlflow_password")
    }
    try:
        for name in kept:
            (production.kept.folder / name).write_text("softad:not-the-one\n")
        found = examined(production)
    finally:
        for name, value in kept.items():
            (production.kept.folder / name).write_text(value + "\n")
    folder, again = production.kept.folder, "start `softad up` again, which makes it the password, or write the one of "
    assert found == {
        "logins": [
            f"MLflow does not let viewer in with the secret viewer_password ({folder / 'viewer_password'}): {again}"
            "before back",
            f"Prefect does not take the secret prefect_auth ({folder / 'prefect_auth'}): {again}before back",
            "PostgreSQL does not let mlflow in with the secret postgres_mlflow_password "
            f"({folder / 'postgres_mlflow_password'}): {again}before back",
        ]
    }
    assert not {value.rsplit(":")[-1] for value in kept.values()} & set(str(found).split())


def test_a_login_to_mlflow_is_not_hashed_at_every_call(production: Production, as_service: Mapping[str, str]) -> None:
    url = f"{production.where.mlflow}/api/2.0/mlflow/users/current"
    header = b64encode(f"softad:{as_service['MLFLOW_TRACKING_PASSWORD']}".encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {header}"})

    def seconds() -> float:
        begun = time.perf_counter()
        urllib.request.urlopen(request, timeout=30).read()
        return time.perf_counter() - begun

    seconds()
    assert min(seconds() for _ in range(20)) < 0.1


def test_no_secret_is_where_it_does_not_belong(production: Production) -> None:
    values = {name: production.kept.need(name).rsplit(":")[-1] for name in GENERATED}
    assert {stat.S_IMODE(path.stat().st_mode) for path in production.kept.folder.iterdir()} == {0o600}
    elsewhere = (production.kept.folder, production.root / "postgres")
    seen = [path for path in production.root.rglob("*") if path.is_file() and not set(elsewhere) & set(path.parents)]
    held = {str(path): name for path in seen for name, value in values.items() if value.encode() in path.read_bytes()}
    assert held == {}
    lines = [" ".join(process.cmdline()) for process in by_variable(MARK)[str(production.root)]]
    assert len(lines) >= 5
    assert [line for line in lines if any(value in line for value in values.values())] == []


def test_killed_altogether_it_comes_back_with_all_it_had(production: Production, as_service: Mapping[str, str]) -> None:
    from mlflow import MlflowClient

    before = production.where

    def recorded() -> list[Identity] | None:
        """All that live by now: a service that ended by itself is started again within seconds, and up.log says why."""
        record = read_record(production.root)
        found = [Identity(**one) for one in [*record["processes"].values(), record["supervisor"]]]
        return found if all(one.alive() for one in found) else None

    killed = wait_for(recorded)
    for one in killed:
        os.kill(one.pid, signal.SIGKILL)
    production.started[0].wait()
    assert running(production.root) is None
    production.up()
    assert production.where == before
    assert not any(one.alive() for one in killed)
    assert MlflowClient(before.mlflow).get_registered_model("line-a").aliases == {"champion": "1"}
    assert production.status(before.page) == 401
    # A new password in the secrets' folder is the password after the next start, and was one here.
    assert production.status(f"{before.mlflow}/api/2.0/mlflow/users/current", "viewer") == 200


def test_a_backup_of_the_running_system_holds_runs_models_and_logins(production: Production, tmp_path: Path) -> None:
    import httpx

    admin = ("admin", production.kept.need("mlflow_admin_password"))
    made = httpx.post(
        f"{production.where.mlflow}/api/2.0/mlflow/users/create", auth=admin, trust_env=False,
        json={"username": "inspector-7", "password": "a-long-password-of-theirs"},
    )  # fmt: skip
    assert made.status_code == 200, made.text
    done = production.command("backup", "--to", production.kept_at)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pg_dump" not in done.stdout
    names = set(unpack(production.kept_at)["files"])
    assert {"databases/mlflow.dump", "databases/mlflow_auth.dump"} <= names
    assert not any(name.startswith(("secrets/", "postgres/")) for name in names)
    assert stat.S_IMODE(production.kept_at.stat().st_mode) == 0o600


def test_ctrl_c_ends_all_and_postgres_has_closed_its_files(production: Production) -> None:
    up = production.started[-1]
    up.send_signal(signal.SIGINT)
    assert up.wait(120) == 0
    assert by_variable(MARK).get(str(production.root), []) == []
    assert all(port_is_free(port) for port in read_record(production.root)["ports"].values())
    assert "database system is shut down" in (production.root / "logs" / "postgres.log").read_text()
    assert not (production.root / "postgres" / "cluster" / "postmaster.pid").exists()


def test_a_backup_starts_the_database_where_it_does_not_run(production: Production, tmp_path: Path) -> None:
    done = production.command("backup", "--to", tmp_path / "still.tar.gz")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"databases/mlflow.dump", "databases/mlflow_auth.dump"} <= set(unpack(tmp_path / "still.tar.gz")["files"])
    assert not (production.root / "postgres" / "cluster" / "postmaster.pid").exists()


def test_all_is_lost_and_brought_back(production: Production, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    lost = production.kept.need("mlflow_admin_password")
    shutil.rmtree(production.root)
    done = production.command("restore", production.kept_at)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (production.root / "databases" / "mlflow.dump").exists()
    production.up()
    assert not list((production.root / "databases").iterdir())
    assert production.kept.need("mlflow_admin_password") != lost
    where = production.where
    url = f"{where.mlflow}/api/2.0/mlflow/users/current"
    admin = production.kept.need("mlflow_admin_password")
    assert [production.status(url, "admin", password) for password in (admin, lost)] == [200, 401]
    assert {user: production.status(url, user) for user in PEOPLE} == dict.fromkeys(PEOPLE, 200)
    # Somebody whom the plant's administrator made has the password of before.
    assert production.status(url, "inspector-7", "a-long-password-of-theirs") == 200
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "softad")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", production.kept.need("mlflow_softad_password"))
    registry = MlflowClient(where.mlflow)
    assert registry.get_registered_model("line-a").aliases == {"champion": "1"}
    version = registry.get_model_version("line-a", "1")
    assert registry.get_run(version.run_id).data.metrics
    verified = production.command("audit", "verify", "--config", production.config)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert production.command("status", "--config", production.config).returncode == 0
