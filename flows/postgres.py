"""PostgreSQL for MLflow and Prefect: its data folder, its start, and a database and role for each.

Only used by the production profile. Roles and databases: ``mlflow`` (with ``mlflow_auth`` beside it) and ``prefect``;
neither role can read what is the other's. Passwords go by the environment, never into an address or a command line.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from flows.credentials import Secrets
from flows.errors import BadConfig, Unavailable

ADMIN = "postgres"
DATABASES = {"mlflow": ("mlflow", "mlflow_auth"), "prefect": ("prefect",)}
"""Role -> its databases."""


@dataclass(frozen=True)
class Server:
    """Where PostgreSQL listens.

    >>> Server.at("postgresql://db.plant:5433").address("mlflow", "mlflow_auth")
    'postgresql://mlflow@db.plant:5433/mlflow_auth'
    """

    host: str
    port: int

    @classmethod
    def at(cls, address: str) -> Server:
        """The server that an address names; port 5432 where it names none."""
        parts = urlsplit(address)
        return cls(parts.hostname or "127.0.0.1", parts.port or 5432)

    def address(self, role: str, database: str) -> str:
        """As MLflow and Prefect take it, without the password."""
        return f"postgresql://{role}@{self.host}:{self.port}/{database}"

    def answers(self, password: str) -> bool:
        """Whether it lets its administrator in: not while it starts or recovers."""
        import psycopg2

        try:
            with closing(self.connect(ADMIN, "postgres", password)):
                return True
        except psycopg2.OperationalError:
            return False

    def connect(self, role: str, database: str, password: str) -> Any:
        """A connection of psycopg2; the caller closes it."""
        import psycopg2

        return psycopg2.connect(
            host=self.host, port=self.port, user=role, dbname=database, password=password, connect_timeout=5
        )


def program(name: str) -> str:
    """The path of one of PostgreSQL's programs.

    Raises
    ------
    BadConfig: it is not installed, or not on the path.
    """
    found = shutil.which(name)
    if found is None:
        raise BadConfig(
            f"PostgreSQL's program {name} is not on the path; install PostgreSQL 15 or newer and put its programs "
            "there (Debian: /usr/lib/postgresql/15/bin), or name a server of yours in services.postgres"
        )
    return found


def owner() -> str | None:
    """The user as whom PostgreSQL runs: this one; where that is root, whom it refuses, the user ``postgres``.

    Raises
    ------
    BadConfig: this is root, and there is no such user.
    """
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(ADMIN).pw_name
    except KeyError as error:
        raise BadConfig(
            "PostgreSQL does not run as root, and there is no user `postgres` to run it as; start softad as an "
            "ordinary user, or name a server of yours in services.postgres"
        ) from error


def command(data: Path | str, port: int, host: str = "127.0.0.1") -> list[str]:
    """How it is started.

    >>> command("/data", 5432)[1:5]
    ['-D', '/data', '-p', '5432']
    """
    options = {
        "listen_addresses": host,
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
        "max_connections": "60",
        "log_min_messages": "warning",
    }
    return ["postgres", "-D", str(data), "-p", str(port), *(f"--{name}={value}" for name, value in options.items())]


def initialise(data: Path, kept: Secrets) -> bool:
    """Make the data folder where it is not there yet; a folder half made by a start that was killed is made anew.

    Returns
    -------
    Whether it was made now.

    Raises
    ------
    BadConfig: PostgreSQL's programs are missing, or its user cannot reach the folder.
    """
    if (data / "ready").exists():
        return False
    run_as = owner()
    half = data.with_name(f"{data.name}.part")
    shutil.rmtree(half, ignore_errors=True)
    if data.exists():
        raise BadConfig(
            f"{data} is there, and was not made by `softad up`; move it away, or name a server of yours in "
            "services.postgres"
        )
    half.mkdir(parents=True, mode=0o700)
    if run_as is not None:
        shutil.chown(half, run_as)
        _check_reachable(half, run_as)
    # The password goes through a pipe: no other file holds it, and no list of processes shows it.
    reading, writing = os.pipe()
    os.write(writing, f"{kept.need('postgres_password')}\n".encode())
    os.close(writing)
    if run_as is not None:
        os.fchown(reading, pwd.getpwnam(run_as).pw_uid, -1)
    made = subprocess.run(
        [program("initdb"), "-D", str(half / "cluster"), "-U", ADMIN, "-E", "UTF8", "--locale=C", "--no-instructions",
         "--auth=scram-sha-256", f"--pwfile=/dev/fd/{reading}"],
        capture_output=True, text=True, check=False, user=run_as, cwd="/", pass_fds=[reading],
        group=run_as and pwd.getpwnam(run_as).pw_gid, extra_groups=[] if run_as else None,
    )  # fmt: skip
    os.close(reading)
    if made.returncode:
        last = (made.stderr.strip().splitlines() or ["no message"])[-1]
        raise BadConfig(f"PostgreSQL's data folder {data} could not be made: {last}")
    (half / "ready").touch()
    half.rename(data)
    return True


def tidy(data: Path) -> None:
    """After a kill: end processes that still work on the folder, and remove the mark of a server that is gone."""
    cluster = data / "cluster"
    left = [process for process in psutil.process_iter() if _works_in(process, cluster)]
    stop(left)
    if cluster.exists():
        (cluster / "postmaster.pid").unlink(missing_ok=True)


def stop(processes: Sequence[psutil.Process], *, patience: float = 15.0) -> None:
    """End it as PostgreSQL wishes: open work is rolled back, everything written out; by force where that fails."""
    for number in (signal.SIGINT, signal.SIGKILL):
        for process in processes:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
        _, alive = psutil.wait_procs(processes, timeout=patience)
        if not alive:
            return


def create_databases(server: Server, kept: Secrets) -> list[str]:
    """Make the roles and databases that are missing, and set the roles' passwords; returns what was made.

    Raises
    ------
    Unavailable: the server does not answer, or refuses the administrator's password.
    """
    import psycopg2
    from psycopg2 import sql

    made: list[str] = []
    try:
        with closing(server.connect(ADMIN, "postgres", kept.need("postgres_password"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for role, databases in DATABASES.items():
                    name = sql.Identifier(role)
                    if _missing(cursor, "SELECT 1 FROM pg_roles WHERE rolname = %s", role):
                        cursor.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
                    verifier = kept.need(f"postgres_{role}_password")
                    cursor.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, sql.Literal(verifier)))
                    for database in databases:
                        if _missing(cursor, "SELECT 1 FROM pg_database WHERE datname = %s", database):
                            there = sql.Identifier(database)
                            cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(there, name))
                            cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(there))
                            made.append(database)
    except psycopg2.Error as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Unavailable(
            f"PostgreSQL at {server.host}:{server.port} does not let its administrator in ({reason}); see that it "
            f"runs, and that the secret postgres_password is that of its user {ADMIN}"
        ) from error
    return made


def wait_until(server: Server, role: str, database: str, password: str, *, seconds: float) -> None:
    """Wait until a role can open its database.

    Raises
    ------
    Unavailable: not within so many seconds.
    """
    import psycopg2

    deadline = time.monotonic() + seconds
    while True:
        try:
            with closing(server.connect(role, database, password)):
                return
        except psycopg2.OperationalError as error:
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the database {database} at {server.host}:{server.port} cannot be opened by {role}; see that "
                    "PostgreSQL runs and that the databases were made"
                ) from error
        time.sleep(0.25)


def _missing(cursor: Any, query: str, name: str) -> bool:
    cursor.execute(query, (name,))
    return cursor.fetchone() is None


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.name().startswith("postgres") and Path(process.cwd()) == folder
    except (psutil.Error, OSError):
        return False


def _check_reachable(folder: Path, user: str) -> None:
    tried = subprocess.run(["test", "-w", str(folder)], user=user, extra_groups=[], cwd="/", check=False)
    if tried.returncode:
        folder.rmdir()
        raise BadConfig(
            f"PostgreSQL runs as the user {user}, who cannot enter {folder.parent}; put the workspace where that user "
            "can reach it, or start softad as an ordinary user"
        )
