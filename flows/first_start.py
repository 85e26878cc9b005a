"""The one-shot start of an installation whose services run elsewhere, as in containers; doing it again changes nothing.

Databases and their roles, the bucket, MLflow's users, and every model's deployments and automation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from flows.apart import check_apart
from flows.credentials import OBJECT_STORE, Secrets, service_variables
from flows.errors import BadConfig, Unavailable
from flows.services import answers
from flows.settings import Settings, load_settings

WITHIN = 300.0
"""Seconds that it waits for the servers, which start at the same time."""


def first_start(configs: Sequence[Path], root: Path, say: Callable[[str], None]) -> None:
    """Make all that is missing.

    Raises
    ------
    BadConfig: an address or a secret is missing, two models have one name or one inbox, or the object store lets two
        writers take the same name.
    Unavailable: a server does not answer within five minutes.
    """
    import os

    from flows.database_backup import load
    from flows.deployments import deploy
    from flows.local_services import job_variables
    from flows.mlflow_users import create_users
    from flows.postgres import Server, create_databases
    from flows.workspace import Workspace

    settings = [load_settings(path) for path in configs]
    check_apart(settings, root)
    first = settings[0]
    kept = Secrets.of(first, root)
    database, mlflow, prefect = (_named(first, *where) for where in _ADDRESSES)
    for one in settings:
        Workspace.open(root, settings=one)
    _patiently(lambda: create_databases(Server.at(database), kept))
    load(root, Server.at(database), kept)
    say("databases: ready")
    if first.storage.tables is not None:
        prepare_bucket(first, kept)
        say("object store: ready")
    os.environ.update(service_variables(kept))
    _until_answers(f"{mlflow}/health", "MLflow")
    create_users(mlflow, kept)
    say("users of MLflow: ready")
    _until_answers(f"{prefect}/health", "Prefect")
    (root / "logs").mkdir(exist_ok=True)
    for name in deploy(settings, root, api_url=prefect, job_variables=job_variables(root), replace=True):
        say(f"{name}: ready")


_ADDRESSES = (("services", "postgres"), ("tracking", "uri"), ("services", "prefect"))


def _named(settings: Settings, section: str, key: str) -> str:
    address = getattr(getattr(settings, section), key)
    if not address:
        raise BadConfig(
            f"{section}.{key} is empty; name the server's address there, or use `softad up`, which starts one"
        )
    return str(address).rstrip("/")


def prepare_bucket(settings: Settings, kept: Secrets) -> None:
    """Make the bucket where it is missing, and try out what the tables rest on: of two writers of a name one wins.

    Raises
    ------
    BadConfig: the store lets both write, or knows no conditional put.
    Unavailable: it does not answer, or refuses the keys.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    assert settings.storage.tables is not None
    place = urlsplit(settings.storage.tables)
    keys = {name: kept.get(name) for name in OBJECT_STORE}
    client = boto3.client("s3", endpoint_url=settings.storage.endpoint, region_name=settings.storage.region, **keys)
    trial = f"{place.path.strip('/')}/softad-trial-of-conditional-puts".lstrip("/")

    def wins(number: int) -> bool:
        try:
            client.put_object(Bucket=place.netloc, Key=trial, Body=str(number).encode(), IfNoneMatch="*")
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in {409, 412}:
                return False
            raise
        return True

    try:
        _patiently(lambda: _make_bucket(client, place.netloc), BotoCoreError)
        client.delete_object(Bucket=place.netloc, Key=trial)
        with ThreadPoolExecutor(4) as writers:
            winners = sum(writers.map(wins, range(8)))
        client.delete_object(Bucket=place.netloc, Key=trial)
    except (BotoCoreError, ClientError) as error:
        code = getattr(error, "response", {}).get("Error", {}).get("Code") or type(error).__name__
        raise Unavailable(
            f"the object store at {settings.storage.endpoint or 'Amazon'} does not do its work ({code}); see that it "
            "runs, and that the secrets aws_access_key_id and aws_secret_access_key are those of a user who may write"
        ) from error
    if winners != 1:
        raise BadConfig(
            f"the object store let {winners} of 8 writers put the same new file at once; two commits of a table would "
            "overwrite each other there; use a store, or a newer version of it, with atomic conditional puts"
        )


def _make_bucket(client: object, name: str) -> None:
    from botocore.exceptions import ClientError

    try:
        client.create_bucket(Bucket=name)  # type: ignore[attr-defined]
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
            raise


def _patiently(act: Callable[[], object], kind: type[Exception] = Unavailable) -> None:
    deadline = time.monotonic() + WITHIN
    while True:
        try:
            act()
            return
        except kind:
            if time.monotonic() > deadline:
                raise
        time.sleep(1.0)


def _until_answers(url: str, what: str) -> None:
    deadline = time.monotonic() + WITHIN
    while not answers(url):
        if time.monotonic() > deadline:
            raise Unavailable(f"{what} does not answer at {url}; see its log, then start this again")
        time.sleep(1.0)
