"""PostgreSQL's part of a backup: what MLflow keeps there, as `pg_dump` writes it, and back into an empty server.

Prefect's database is left out: it holds the history of runs, and the deployments are laid down anew at every start.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil

from flows import postgres
from flows.credentials import Secrets
from flows.errors import BadConfig, BadInput, Unavailable
from flows.redaction import redacted
from flows.services import free_port
from flows.settings import Settings

FOLDER = "databases"
"""Of a backup, and of a restored workspace until its next start."""

ROLE = "mlflow"
WITHIN = 60.0
"""Seconds in which the server must answer."""


def in_postgres(settings: Settings) -> bool:
    """Whether runs and models of this config lie in a PostgreSQL server that the config tells of.

    >>> in_postgres(Settings.model_validate({"name": "a", "data": {"label": "y", "numeric": ["x"],
    ...     "window": {"rows": 100}}}))
    False
    """
    return settings.services.profile == "production" and settings.tracking.uri is None


def dump(root: Path, elsewhere: str | None, kept: Secrets, folder: Path) -> list[Path]:
    """Write each of MLflow's databases into a file in `folder`, as of one moment each.

    Not one that a restore brought and no start has loaded yet: that file lies in the workspace, and is kept with it.

    Parameters
    ----------
    elsewhere: address of a server of the plant's; None: the workspace's own, which is started for so long where it
        does not run.

    Raises
    ------
    BadConfig: `pg_dump` is not on the path.
    Unavailable: the server does not answer, or refuses.
    """
    found: list[Path] = []
    wanted = [name for name in postgres.DATABASES[ROLE] if not (root / FOLDER / f"{name}.dump").exists()]
    if not wanted:
        return found
    with _serving(root, elsewhere, kept) as server:
        for database in wanted:
            path = folder / f"{database}.dump"
            arguments = ["--format=custom", "--no-owner", "--no-privileges", f"--file={path}", database]
            _run("pg_dump", server, arguments, kept)
            found.append(path)
    return found


def load(root: Path, server: postgres.Server, kept: Secrets) -> list[str]:
    """Load what a restore left in the workspace, and remove it there; returns the databases' names.

    Before MLflow starts: killed anywhere, the same call loads the same again.

    Raises
    ------
    BadConfig: there are tables already that the backup would replace.
    BadInput: a file cannot be loaded.
    """
    loaded: list[str] = []
    for database in postgres.DATABASES[ROLE]:
        path = root / FOLDER / f"{database}.dump"
        begun = path.with_suffix(".loading")
        if begun.exists() and not path.exists():
            begun.unlink()
        if not path.exists():
            continue
        if not begun.exists() and _has_tables(server, database, kept):
            raise BadConfig(
                f"the database {database} at {server.host}:{server.port} holds tables already, so {path} of the "
                "restored backup was not loaded; delete the file to keep what is there, or empty the database to load "
                "it, and start again"
            )
        begun.touch()
        _run("pg_restore", server, [
            "--clean", "--if-exists", "--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error",
            f"--dbname={database}", str(path),
        ], kept)  # fmt: skip
        if database == "mlflow_auth":
            _set_admin_password(server, database, kept)
        path.unlink()
        begun.unlink()
        loaded.append(database)
    return loaded


@contextmanager
def _serving(root: Path, elsewhere: str | None, kept: Secrets) -> Iterator[postgres.Server]:
    if elsewhere is not None:
        yield postgres.Server.at(elsewhere)
        return
    (root / "run").mkdir(exist_ok=True)
    with (root / "run" / "up.lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield _running(root, kept)
            return
        # A `softad up` that starts meanwhile waits for the lock.
        with _started(root / "postgres", root / "logs" / "postgres.log", kept) as server:
            yield server


def _running(root: Path, kept: Secrets) -> postgres.Server:
    from flows.supervisor import read_record

    port = read_record(root).get("ports", {}).get("postgres")
    if port is None:
        raise Unavailable(f"a `softad up` of {root} is starting and has no database yet; try again when it is ready")
    server = postgres.Server("127.0.0.1", int(port))
    postgres.wait_until(server, ROLE, ROLE, kept.need(f"postgres_{ROLE}_password"), seconds=WITHIN)
    return server


@contextmanager
def _started(data: Path, log: Path, kept: Secrets) -> Iterator[postgres.Server]:
    """The workspace's own server, for as long as it is needed; the caller holds the lock of `softad up`."""
    postgres.tidy(data)
    server = postgres.Server("127.0.0.1", free_port())
    command = [postgres.program("postgres"), *postgres.command(data / "cluster", server.port)[1:]]
    log.parent.mkdir(exist_ok=True)
    user = postgres.owner()
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", user=user,
            extra_groups=[] if user else None, start_new_session=True,
        )  # fmt: skip
    try:
        postgres.wait_until(server, ROLE, ROLE, kept.need(f"postgres_{ROLE}_password"), seconds=WITHIN)
        yield server
    finally:
        postgres.stop([psutil.Process(process.pid)] if process.poll() is None else [])
        process.wait()


def _run(name: str, server: postgres.Server, arguments: list[str], kept: Secrets) -> None:
    password = kept.need(f"postgres_{ROLE}_password")
    done = subprocess.run(
        [postgres.program(name), "--no-password", f"--host={server.host}", f"--port={server.port}",
         f"--username={ROLE}", *arguments],
        env=os.environ | {"PGPASSWORD": password}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        said = redacted((done.stderr.strip().splitlines() or ["no message"])[-1], [password])
        if name == "pg_restore":
            raise BadInput(f"{arguments[-1]} could not be loaded into PostgreSQL ({said}); restore the backup again")
        raise Unavailable(
            f"PostgreSQL at {server.host}:{server.port} could not be read for the backup ({said}); see that it runs, "
            "and that pg_dump is not older than the server"
        )


def _has_tables(server: postgres.Server, database: str, kept: Secrets) -> bool:
    query = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
    password = kept.need(f"postgres_{ROLE}_password")
    with closing(server.connect(ROLE, database, password)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return bool(cursor.fetchone()[0])


def _set_admin_password(server: postgres.Server, database: str, kept: Secrets) -> None:
    """The secret counts, which may have been made after the backup; everybody else keeps the password they had."""
    from werkzeug.security import generate_password_hash

    from flows.mlflow_users import ADMIN

    value = generate_password_hash(kept.need("mlflow_admin_password"))
    password = kept.need(f"postgres_{ROLE}_password")
    with closing(server.connect(ROLE, database, password)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("UPDATE users SET password_hash = %s WHERE username = %s", (value, ADMIN))
