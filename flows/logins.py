"""Do the services of a running installation take the passwords that are kept for them? Each is asked itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import postgres
from flows.credentials import PEOPLE, SERVICE_USER, Secrets
from flows.doctor import Check
from flows.mlflow_users import ADMIN
from flows.supervisor import read_record
from flows.up import running

if TYPE_CHECKING:
    from flows.settings import Settings

_AGAIN = "start `softad up` again, which makes it the password, or write the one of before back"
_FIRST = "write the one of its first start back"
_PATIENCE = 10.0
"""Seconds."""


def logins(settings: Settings, root: Path) -> list[Check]:
    """What the running `softad up` of a production workspace says to each kept password; nothing where none runs.

    A secret that this user may not read, or that is kept elsewhere, is passed over. A login to MLflow that the
    environment names is tried too: with it the commands given here act.
    """
    where = running(root)
    if settings.services.profile != "production" or where is None:
        return []
    kept = Secrets.of(settings, root)
    tried = [
        *_of_mlflow(where.mlflow, kept, own=settings.tracking.uri is None),
        *_of_prefect(where.prefect_api, kept),
        *(_of_postgres(root, kept) if settings.services.postgres is None else ()),
    ]
    refused = [sentence for sentence in tried if sentence is not None]
    if refused:
        return [Check("logins", "act", sentence) for sentence in refused]
    return [Check("logins", "good", f"{len(tried)} passwords are the ones that are asked for")]


def _of_mlflow(address: str, kept: Secrets, *, own: bool) -> list[str | None]:
    secrets = {SERVICE_USER: f"mlflow_{SERVICE_USER}_password"}
    if own:
        secrets |= {**{user: f"{user}_password" for user in PEOPLE}, ADMIN: "mlflow_admin_password"}
    url, found = f"{address}/api/2.0/mlflow/users/current", []
    for user, name in secrets.items():
        if (password := _get(kept, name)) is not None:
            remedy = _FIRST if user == ADMIN else _AGAIN
            found.append(
                f"MLflow does not let {user} in with the secret {name} ({kept.folder / name}): {remedy}"
                if _refuses(url, (user, password))
                else None
            )
    own_login = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if own_login[0] and own_login != (SERVICE_USER, _get(kept, secrets[SERVICE_USER])):
        found.append(
            f"MLflow does not let {own_login[0]} in, whom MLFLOW_TRACKING_USERNAME names: set MLFLOW_TRACKING_PASSWORD "
            "to the password, or unset both"
            if _refuses(url, (own_login[0], own_login[1] or ""))
            else None
        )
    return found


def _of_prefect(api: str, kept: Secrets) -> list[str | None]:
    if (login := _get(kept, "prefect_auth")) is None:
        return []
    user, _, password = login.partition(":")
    if not _refuses(f"{api}/admin/version", (user, password)):
        return [None]
    return [f"Prefect does not take the secret prefect_auth ({kept.folder / 'prefect_auth'}): {_AGAIN}"]


def _of_postgres(root: Path, kept: Secrets) -> list[str | None]:
    import psycopg2

    server = postgres.Server("127.0.0.1", int(read_record(root)["ports"]["postgres"]))
    roles = {postgres.ADMIN: ("postgres", "postgres_password", _FIRST)}
    roles |= {role: (names[0], f"postgres_{role}_password", _AGAIN) for role, names in postgres.DATABASES.items()}
    found: list[str | None] = []
    for role, (database, name, remedy) in roles.items():
        if (password := _get(kept, name)) is None:
            continue
        try:
            server.connect(role, database, password).close()
        except psycopg2.OperationalError as error:
            if "authentication failed" not in str(error):
                return [f"PostgreSQL does not answer; see the end of {root / 'logs' / 'postgres.log'}"]
            found.append(f"PostgreSQL does not let {role} in with the secret {name} ({kept.folder / name}): {remedy}")
        else:
            found.append(None)
    return found


def _get(kept: Secrets, name: str) -> str | None:
    try:
        return kept.get(name)
    except PermissionError:
        return None


def _refuses(url: str, login: tuple[str, Any]) -> bool:
    """Whether the login is what is wrong; a server that does not answer is another check's finding."""
    import httpx

    try:
        return httpx.get(url, auth=login, timeout=_PATIENCE, trust_env=False).status_code == httpx.codes.UNAUTHORIZED
    except httpx.HTTPError:
        return False
