"""What `softad up --profile production` starts: PostgreSQL, MLflow, Prefect, the page, the worker; all with logins."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from flows import database_backup, mlflow_users, postgres
from flows.credentials import FOLDER, GENERATED, Secrets, service_variables
from flows.deployments import FlowSource
from flows.errors import BadConfig
from flows.local_services import (
    ROLE,
    WORKER,
    Layout,
    Ports,
    addresses,
    choose_ports,
    environment,
    python_path,
)
from flows.services import Service, answers
from flows.settings import Settings


def named_ports(settings: Sequence[Settings], named: Ports) -> Ports:
    """The ports that the command line names, else those of the config."""
    ports = settings[0].services.ports.model_dump()
    return Ports(**{name: getattr(named, name) or ports[name] for name in ports})


def same_services(settings: Sequence[Settings]) -> Settings:
    """The first of several models' configs; all must name the same services.

    Raises
    ------
    BadConfig: two differ, or a Prefect server elsewhere is named.
    """
    first, *others = settings
    for one in others:
        if (one.services, one.tracking) != (first.services, first.tracking):
            raise BadConfig(
                f"{first.name} and {one.name} name different services; `services` and `tracking` must be the same in "
                "all configs of one `softad up`"
            )
    if first.services.prefect is not None:
        raise BadConfig(
            "services.prefect names a server elsewhere; lay the models down there with `softad deploy`, or leave it out"
        )
    return first


def check_packages() -> None:
    """Refuse where what only this profile needs is not installed.

    Raises
    ------
    BadConfig: a package is missing.
    """
    missing = [name for name in ("psycopg2", "asyncpg", "flask_wtf") if importlib.util.find_spec(name) is None]
    if missing:
        raise BadConfig(
            f"the production profile needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            "installed; run `make install`, or `pip install softad[production]`"
        )


def lay_out(
    root: Path, settings: Sequence[Settings], ports: Ports, remembered: Mapping[str, Any], source: FlowSource
) -> Layout:
    """Choose the ports, make the secrets and the database's folder where they are missing, and say what to start.

    Raises
    ------
    BadConfig: PostgreSQL's programs or a secret are missing, a port is taken, configs do not fit together.
    """
    first = same_services(settings)
    check_packages()
    kept = Secrets.of(first, root)
    data = root / "postgres"
    if (data / "ready").exists() and not (kept.get("postgres_password")):
        raise BadConfig(
            f"{data} holds databases, but the secrets they were made with are not in {kept.folder}; restore that "
            "folder from a backup"
        )
    kept.create([name for name in GENERATED if first.services.postgres is None or not name.startswith("postgres_")])
    own_postgres, own_mlflow = first.services.postgres is None, first.tracking.uri is None
    chosen = choose_ports(named_ports(settings, ports), remembered)
    where = addresses(chosen, first.tracking.uri, str(kept.folder))
    fresh = False
    if own_postgres:
        assert chosen.postgres is not None
        postgres.tidy(data)
        fresh = postgres.initialise(data, kept)
        server = postgres.Server("127.0.0.1", chosen.postgres)
    else:
        server = postgres.Server.at(str(first.services.postgres))
    shared = {**environment(root, where), FOLDER: str(kept.folder)}

    def service(name: str, arguments: Sequence[str], health: str | None, **more: Any) -> Service:
        folder = more.pop("folder", root)
        return Service(
            name=name,
            command=[sys.executable, "-m", "flows.serve", *arguments],
            environment={**shared, ROLE: name, "PYTHONPATH": python_path(source), **more.pop("environment", {})},
            folder=folder,
            log=root / "logs" / f"{name}.log",
            health=partial(answers, health) if health else None,
            **more,
        )

    # What a process that is killed leaves there, the next start removes.
    scratch = root / "run" / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    databases = partial(_prepare_databases, root, server, kept)
    services: list[Service] = []
    if own_postgres:
        run_as = postgres.owner()
        started = [postgres.program("postgres"), *postgres.command(data / "cluster", server.port)[1:]]
        services.append(
            Service(
                name="postgres",
                command=started,
                environment={**environment(root, where), ROLE: "postgres"},
                folder=data,
                log=root / "logs" / "postgres.log",
                health=partial(server.answers, kept.need("postgres_password")),
                user=run_as,
                prepare=databases,
                last=True,
            )
        )
    else:
        databases()
    needs = ("postgres",) if own_postgres else ()
    loopback = ["--host", "127.0.0.1", "--port"]
    services.append(
        service(
            "prefect",
            ["prefect", *loopback, str(chosen.prefect), "--database", server.address("prefect", "prefect")],
            f"{where.prefect_api}/health",
            after=needs,
            environment={"PREFECT_SERVER_UI_API_URL": where.prefect_api},
        )
    )
    if own_mlflow:
        artifacts = root / "mlflow" / "artifacts"
        artifacts.mkdir(parents=True, exist_ok=True)
        services.append(
            service(
                "mlflow",
                ["mlflow", *loopback, str(chosen.mlflow), *mlflow_options(server, first, artifacts)],
                f"{where.mlflow}/health",
                after=needs,
                prepare=partial(mlflow_users.create_users, where.mlflow, kept),
                environment={"TMPDIR": str(scratch)},
            )
        )
    page_folder = root / "page"
    services.append(
        service("page", ["page", *loopback, str(chosen.page), "--folder", str(page_folder)], f"{where.page}health")
    )
    services.append(
        service(
            "worker",
            ["worker", "--name", WORKER],
            None,
            # The first cycle needs a user of MLflow; later those are known, and the worker need not wait.
            after=("mlflow",) if fresh and own_mlflow else (),
            environment={"TMPDIR": str(scratch)},
        )
    )
    return Layout(chosen, where, services, service_variables(kept))


def _prepare_databases(root: Path, server: postgres.Server, kept: Secrets) -> None:
    """Make what is missing, and load what a restore brought."""
    postgres.create_databases(server, kept)
    database_backup.load(root, server, kept)


def mlflow_options(server: postgres.Server, settings: Settings, artifacts: Path) -> list[str]:
    """Where MLflow's server keeps runs, logins and models."""
    return [
        "--database", server.address("mlflow", "mlflow"), "--logins", server.address("mlflow", "mlflow_auth"),
        "--artifacts", settings.tracking.artifacts or artifacts.as_uri(),
    ]  # fmt: skip
