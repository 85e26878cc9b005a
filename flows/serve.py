"""Become one service of the production profile: read its secrets, then run its program in this process's place.

``python -m flows.serve NAME …`` is what `softad up --profile production` starts, and what the containers run. No secret
stands in a command line or in an address: passwords reach the programs by their environment.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from flows.credentials import FOLDER, OBJECT_STORE, Secrets, service_variables
from flows.deployments import POOL
from flows.errors import PipelineError
from flows.plain_http import one_authority

PREFECT_SERVER = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # On disk, or a restart of the server would end every retraining at the next renewal of its lease.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    # How long a queued retraining waits before it asks again.
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
    # Few ticks ahead: each is a row, and one to leave out after an outage.
    "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_RUNS": "10",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    # Of several heaps, as many threads have them, each keeps what it once needed: twice the growth with each cycle.
    "MALLOC_ARENA_MAX": "1",
}
WORKER = {
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    # A run taken before its time would hold its deployment's only place while it waits.
    "PREFECT_WORKER_PREFETCH_SECONDS": "0",
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
}
LOGINS = """[mlflow]
default_permission = READ
database_uri = {database}
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""
"""Without its cache MLflow hashes a password at every call, which takes 400 ms."""

DATABASE_WITHIN = 60.0
"""Seconds that a server waits for its database: in containers all start at once."""


def prefect(options: argparse.Namespace, kept: Secrets) -> tuple[list[str], dict[str, str]]:
    """Prefect's server: its command, and what its environment has besides.

    >>> where = argparse.Namespace(host="127.0.0.1", port=4200, database="postgresql://prefect@db:5432/prefect")
    >>> command, more = prefect(where, Secrets(Path("/none"), {"SOFTAD_PREFECT_AUTH": "softad:x",
    ...     "SOFTAD_POSTGRES_PREFECT_PASSWORD": "y"}))
    >>> "softad:x" in str(command), more["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
    (False, 'postgresql+asyncpg://prefect@db:5432/prefect')
    """
    command = ["prefect", "server", "start", "--host", options.host, "--port", str(options.port)]
    more = {
        **PREFECT_SERVER,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": options.database.replace("://", "+asyncpg://", 1),
        "PREFECT_SERVER_API_AUTH_STRING": kept.need("prefect_auth"),
        # The server asks itself, too.
        "PREFECT_API_AUTH_STRING": kept.need("prefect_auth"),
        "PGPASSWORD": kept.need("postgres_prefect_password"),
        # The first start makes all tables; on a busy machine that takes longer than the ten seconds it is given else.
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "30",
    }
    return command, more


def mlflow(options: argparse.Namespace, kept: Secrets) -> tuple[list[str], dict[str, str]]:
    """MLflow's server with logins, in front of the artifacts."""
    folder = Path(tempfile.mkdtemp(prefix="softad-mlflow-"))
    logins = folder / "logins.ini"
    logins.write_text(LOGINS.format(database=options.logins.replace("%", "%%")))
    command = [
        "mlflow", "server", "--app-name", "basic-auth", "--serve-artifacts", "--artifacts-destination",
        options.artifacts, "--host", options.host, "--port", str(options.port), "--workers", "1",
        "--uvicorn-opts=--no-access-log",
    ]  # fmt: skip
    more = {
        "MLFLOW_BACKEND_STORE_URI": options.database,
        "MLFLOW_AUTH_CONFIG_PATH": str(logins),
        "MLFLOW_AUTH_ADMIN_PASSWORD": kept.need("mlflow_admin_password"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": kept.need("mlflow_secret_key"),
        "PGPASSWORD": kept.need("postgres_mlflow_password"),
        # Else it starts a crowd of job processes, which nothing here uses, of 1.9 GB together.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    return command, more | object_store(kept)


def worker(options: argparse.Namespace, kept: Secrets) -> tuple[list[str], dict[str, str]]:
    """Prefect's worker, who acts as the service's own user towards MLflow."""
    command = ["prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", options.name]
    quick = one_authority(os.environ.get("PREFECT_API_URL", ""), Path(os.environ.get("PREFECT_HOME", "prefect")))
    return command, {**WORKER, **quick, **service_variables(kept), **object_store(kept)}


def object_store(kept: Secrets) -> dict[str, str]:
    """The keys of the object store as its clients look for them; none where there are none.

    >>> object_store(Secrets(Path("/none"), {}))
    {}
    """
    found = {name.upper(): kept.get(name) for name in OBJECT_STORE}
    return {name: value for name, value in found.items() if value}


def page(options: argparse.Namespace, kept: Secrets) -> None:
    """The pages, in this very process."""
    from flows.page_login import LoginHandler
    from flows.page_server import serve

    serve(Path(options.folder), options.port, options.host, partial(LoginHandler, kept=kept))


def init(options: argparse.Namespace, kept: Secrets) -> None:  # noqa: ARG001 - as `page`
    """The one-shot start of an installation in containers, in this very process."""
    from flows.first_start import first_start

    first_start(options.config, options.workspace.absolute(), lambda line: print(line, flush=True))


def put_runs_right() -> None:
    """What a worker that was killed has left: only where no other worker of the pool runs."""
    from flows.dead_runs import recover

    print(recover(at_start=True), flush=True)


PROGRAMS: Mapping[str, Callable[[argparse.Namespace, Secrets], tuple[list[str], dict[str, str]]]] = {
    "prefect": prefect,
    "mlflow": mlflow,
    "worker": worker,
}
HERE: Mapping[str, Callable[[argparse.Namespace, Secrets], None]] = {"page": page, "init": init}
"""What is done in this very process."""
ROLES = ("prefect", "mlflow")
"""Services that wait for their database."""


def parser() -> argparse.ArgumentParser:
    """The command line.

    >>> parser().parse_args(["page", "--port", "8080", "--folder", "page"]).host
    '127.0.0.1'
    """
    whole = argparse.ArgumentParser(
        prog="python -m flows.serve", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    services = whole.add_subparsers(dest="service", required=True)
    for name, more in {
        "prefect": ["database"],
        "mlflow": ["database", "logins", "artifacts"],
        "page": ["folder"],
    }.items():
        one = services.add_parser(name)
        one.add_argument("--host", default="127.0.0.1")
        one.add_argument("--port", type=int, required=True)
        for option in more:
            one.add_argument(f"--{option}", required=True)
    one = services.add_parser("worker")
    one.add_argument("--name", required=True)
    one.add_argument("--alone", action="store_true", help="no other worker runs: runs that one has left are put right")
    one = services.add_parser("init")
    one.add_argument("--config", type=Path, action="append", required=True)
    one.add_argument("--workspace", type=Path, required=True)
    return whole


def main(arguments: list[str] | None = None) -> None:
    """Run a service; comes back only where it cannot be started."""
    options = parser().parse_args(arguments)
    kept = Secrets(Path(os.environ.get(FOLDER, "secrets")))
    try:
        if options.service in HERE:
            HERE[options.service](options, kept)
            return
        command, more = PROGRAMS[options.service](options, kept)
        if options.service in ROLES:
            _wait_for_database(options.database, more["PGPASSWORD"])
        if getattr(options, "alone", False):
            os.environ.update(more)
            put_runs_right()
    except PipelineError as error:
        sys.exit(f"error: {error}")
    os.execve(sys.executable, [sys.executable, "-m", *command], {**os.environ, **more})  # noqa: S606


def _wait_for_database(address: str, password: str) -> None:
    from flows.postgres import Server, wait_until

    parts = urlsplit(address)
    wait_until(Server.at(address), str(parts.username), parts.path[1:], password, seconds=DATABASE_WITHIN)


if __name__ == "__main__":
    main()
