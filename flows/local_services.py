"""What `softad up` starts: the commands, their environment, their health."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from flows.deployments import POOL, FlowSource
from flows.errors import BadConfig
from flows.plain_http import one_authority
from flows.serve import PREFECT_SERVER
from flows.serve import WORKER as WORKER_SETTINGS
from flows.services import MARK, Service, answers, free_port, port_is_free
from flows.settings import Settings

ROLE = "SOFTAD_UP_ROLE"
"""Beside the mark: which service a process is, or was started by."""

WORKER = "local"
"""The worker's name on the server."""

# What a user's shell may hold for another server must not reach the processes of this one.
_FOREIGN = ("PREFECT_API_", "PREFECT_SERVER_", "PREFECT_CLOUD_", "PREFECT_UI_", "PREFECT_PROFILE", "PREFECT__")


@dataclass(frozen=True)
class Ports:
    """Loopback ports; None: any that is free.

    >>> Ports(page=8080).page
    8080
    """

    prefect: int | None = None
    mlflow: int | None = None
    page: int | None = None
    postgres: int | None = None


@dataclass(frozen=True)
class Layout:
    """All that one system is made of; nothing is started yet.

    Attributes
    ----------
    services: in the order in which they are started; the worker is the last.
    login: variables with which this process gets into the servers.
    """

    ports: Ports
    where: Addresses
    services: list[Service]
    login: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Addresses:
    """Where a running system is reached.

    Attributes
    ----------
    prefect: Prefect's pages.
    prefect_api: what `PREFECT_API_URL` is to be set to.
    mlflow: MLflow's pages, and what `MLFLOW_TRACKING_URI` is to be set to.
    page: the models' pages.
    already: whether the system ran already when it was asked for.
    logins: the folder of the passwords; None where nothing asks for one.
    """

    prefect: str
    prefect_api: str
    mlflow: str
    page: str
    already: bool = False
    logins: str | None = None

    def document(self) -> dict[str, Any]:
        """As one JSON document."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people.

        >>> addresses(Ports(prefect=1, mlflow=2, page=3)).lines()[1]
        'the page     http://127.0.0.1:3/'
        """
        return [
            "it runs already; all services are well" if self.already else "all services run; Ctrl-C ends them",
            f"the page     {self.page}",
            f"runs         {self.prefect}",
            f"models       {self.mlflow}",
            f"for commands elsewhere: PREFECT_API_URL={self.prefect_api} MLFLOW_TRACKING_URI={self.mlflow}",
            *([f"logins       viewer, operator, approver; passwords: {self.logins}"] if self.logins else []),
        ]


def choose_ports(named: Ports, remembered: Mapping[str, Any]) -> Ports:
    """The ports that the user named, else those of last time where they are free, else others.

    Raises
    ------
    BadConfig: a named port is taken, is named twice, or is none.

    >>> chosen = choose_ports(Ports(), {})
    >>> len({chosen.prefect, chosen.mlflow, chosen.page})
    3
    """
    chosen: dict[str, int] = {}
    for name, port in asdict(named).items():
        if port is None:
            continue
        if not 0 < port < 65536:
            raise BadConfig(f"the port {port} for {name} is none; name one from 1 to 65535")
        if port in chosen.values():
            raise BadConfig(f"the port {port} is named twice; each service needs one of its own")
        if not port_is_free(port):
            raise BadConfig(f"the port {port} for {name} is in use by another program; name another, or leave it out")
        chosen[name] = port
    for part in fields(Ports):
        if part.name not in chosen:
            last = remembered.get(part.name)
            chosen[part.name] = free_port(last if isinstance(last, int) else None, avoid=list(chosen.values()))
    return Ports(**chosen)


def addresses(ports: Ports, tracking_uri: str | None = None, logins: str | None = None) -> Addresses:
    """The addresses of these ports; MLflow's is `tracking_uri` where the models use a server elsewhere.

    >>> addresses(Ports(prefect=1, mlflow=2, page=3)).prefect_api
    'http://127.0.0.1:1/api'
    """
    local = "http://127.0.0.1:"
    return Addresses(
        prefect=f"{local}{ports.prefect}",
        prefect_api=f"{local}{ports.prefect}/api",
        mlflow=tracking_uri or f"{local}{ports.mlflow}",
        page=f"{local}{ports.page}/",
        logins=logins,
    )


def environment(root: Path, where: Addresses) -> dict[str, str]:
    """What all processes of one workspace share."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return {
        **kept,
        MARK: str(root),
        "PREFECT_HOME": str(root / "prefect"),
        "PREFECT_API_URL": where.prefect_api,
        **one_authority(where.prefect_api, root / "prefect"),
        # Dropped with the rest of its prefix above, and never to be missing.
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_TRACKING_URI": where.mlflow,
        # What a run says belongs in its log and on the server, however quiet the command line that started all.
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PYTHONUNBUFFERED": "1",
    }


def local_services(root: Path, ports: Ports, where: Addresses, source: FlowSource, *, mlflow: bool) -> list[Service]:
    """The services in the order in which they are started; the worker comes last and needs the server.

    Parameters
    ----------
    mlflow: whether to start an MLflow server here.
    """
    shared = environment(root, where)

    def service(
        name: str, arguments: list[str], health: str | None, more: dict[str, str], folder: Path = root
    ) -> Service:
        return Service(
            name=name,
            command=[sys.executable, "-m", *arguments],
            environment={**shared, ROLE: name, **more},
            folder=folder,
            log=root / "logs" / f"{name}.log",
            health=partial(answers, health) if health else None,
        )

    loopback = ["--host", "127.0.0.1", "--port"]
    services = [
        service(
            "prefect",
            ["prefect", "server", "start", *loopback, str(ports.prefect)],
            f"{where.prefect_api}/health",
            _server_settings(root, where),
        )
    ]
    if mlflow:
        artifacts = root / "mlflow" / "artifacts"
        artifacts.mkdir(parents=True, exist_ok=True)
        storage = ["--backend-store-uri", f"sqlite:///{root / 'mlflow' / 'mlflow.db'}", "--no-serve-artifacts"]
        storage += ["--default-artifact-root", artifacts.as_uri()]
        services.append(
            service(
                "mlflow",
                [
                    "mlflow",
                    "server",
                    *storage,
                    *loopback,
                    str(ports.mlflow),
                    "--workers",
                    "1",
                    "--uvicorn-opts=--no-access-log",
                ],
                f"{where.mlflow}/health",
                # Else it starts a crowd of job processes, which nothing here uses, of 1.9 GB together.
                {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )
        )
    page_folder = root / "page"
    services.append(
        # From the program's own folder, so that `flows` is found where it is not installed.
        service(
            "page", ["flows.page_server", str(page_folder), str(ports.page)], f"{where.page}health", {}, source_root()
        )
    )
    scratch = root / "run" / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    services.append(
        service(
            "worker",
            ["prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", WORKER],
            None,
            {
                **WORKER_SETTINGS,
                # A worker that is killed leaves folders behind; here the next start removes them.
                "TMPDIR": str(scratch),
                **({} if source.installed else {"PYTHONPATH": python_path(source)}),
            },
        )
    )
    return services


def lay_out(
    root: Path, settings: Sequence[Settings], ports: Ports, remembered: Mapping[str, Any], source: FlowSource
) -> Layout:
    """The embedded system: SQLite and folders, on loopback, without logins."""
    elsewhere = {one.tracking.uri for one in settings}
    own_mlflow = None in elsewhere or len(elsewhere) > 1
    chosen = choose_ports(ports, remembered)
    where = addresses(chosen, None if own_mlflow else elsewhere.pop())
    return Layout(chosen, where, local_services(root, chosen, where, source, mlflow=own_mlflow))


def source_root() -> Path:
    """The folder that holds the package `flows`.

    >>> (source_root() / "flows" / "__init__.py").exists()
    True
    """
    return Path(__file__).absolute().parent.parent


def python_path(source: FlowSource) -> str:
    """The source's folder and the program's own, before what the user has set.

    >>> python_path(FlowSource(Path("/flows"))).startswith("/flows:")
    True
    """
    own = [] if source.installed else [str(source.folder), str(source_root())]
    paths = [*own, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return os.pathsep.join(dict.fromkeys(path for path in paths if path))


def _server_settings(root: Path, where: Addresses) -> dict[str, str]:
    return {
        **PREFECT_SERVER,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{root / 'prefect' / 'server.db'}",
        # The server's pages ask the browser to call this address; its default is another port.
        "PREFECT_SERVER_UI_API_URL": where.prefect_api,
    }


def runs_log(root: Path) -> Path:
    """Where the runs' own output goes.

    >>> runs_log(Path("w")).name
    'runs.log'
    """
    return root / "logs" / "runs.log"


def job_variables(root: Path) -> dict[str, Any]:
    """How the worker starts a run: its output goes straight to a log.

    Through the worker's pipes, as is the default, a run that prints would fail when the worker is killed,
    and look like a retraining that failed by itself.
    """
    command = ["/bin/sh", "-c", 'exec "$0" -m prefect.engine >>"$1" 2>&1', sys.executable, str(runs_log(root))]
    return {"command": shlex.join(command), "stream_output": False}
