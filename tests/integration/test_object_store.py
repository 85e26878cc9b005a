"""Tables in an object store: moto's server on loopback stands for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import pytest

from flows.context import Context
from flows.credentials import Secrets
from flows.errors import BadConfig, Unavailable
from flows.ingest import ingest_file
from flows.object_store import open_tables, storage_options
from flows.services import free_port
from flows.settings import Settings
from flows.store import Store
from tests.conftest import NOW, Site

pytestmark = pytest.mark.servers

KEY, SECRET = "softad-test", "canary-of-a-key"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    dispatcher, one_at_a_time = moto.DomainDispatcherApplication(moto.create_backend_app), threading.Lock()

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        # A real store's conditional put is atomic; moto looks first, and puts then.
        with one_at_a_time:
            return dispatcher(environ, start_response)

    server = make_server("127.0.0.1", 0, application, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    options = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=address, **options).create_bucket(Bucket="plant")
    yield address
    server.shutdown()
    server.server_close()


def in_objects(site: Site, endpoint: str, monkeypatch: pytest.MonkeyPatch, tables: str) -> Settings:
    """The site's settings, with its tables in the object store and the keys in files."""
    secrets = site.workspace.root / "secrets"
    secrets.mkdir()
    (secrets / "aws_access_key_id").write_text(f"{KEY}\n")
    (secrets / "aws_secret_access_key").write_text(f"{SECRET}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    storage = site.settings.storage.model_copy(update={"tables": tables, "endpoint": endpoint})
    return site.settings.model_copy(update={"storage": storage})


HEADER = "part,time,x1,x2,machine,ok\n"
FIRST = HEADER + "".join(f"p{n},2026-04-01T0{n % 9}:00,{n}.5,1.0,M0{n % 3},{n % 2}\n" for n in range(40))
SECOND = HEADER + "".join(f"q{n},2026-04-02T0{n % 9}:00,{n}.5,1.0,M0{n % 3},{n % 2}\n" for n in range(30))


def test_files_are_taken_in_once_and_every_version_can_be_read_again(
    site: Site, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = in_objects(site, endpoint, monkeypatch, "s3://plant/once")
    store = Context(settings, site.workspace).store

    def take_in(name: str, content: str) -> str:
        return ingest_file(site.file(name, content), settings, store, site.workspace, now=NOW).status

    assert take_in("a.csv", FIRST) == "accepted"
    before = store.version("inspections")
    assert [take_in("b.csv", SECOND), take_in("again.csv", FIRST)] == ["accepted", "already"]
    assert (store.count("inspections"), store.count("files", "status = 'accepted'")) == (70, 2)
    assert before is not None
    assert len(store.read("inspections", version=before)) == 40
    # Another process sees the same, and nothing was left in the workspace.
    other = open_tables(settings, site.workspace)
    assert other.count("inspections", "machine = 'M01'") == store.count("inspections", "machine = 'M01'") > 0
    assert other.readable("inspections", before)
    assert not list(site.workspace.tables.rglob("*.parquet"))


def test_writers_at_once_never_take_the_same_version(
    site: Site, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = in_objects(site, endpoint, monkeypatch, "s3://plant/at-once")

    def append(number: int) -> bool:
        frame = pd.DataFrame({"key": [f"k{number // 2}"], "action": ["x"]})
        return open_tables(settings, site.workspace).append("ledger", frame, key=f"k{number // 2}")

    store = open_tables(settings, site.workspace)
    store.append("ledger", pd.DataFrame({"key": ["k0"], "action": ["x"]}), key="k0")
    with ThreadPoolExecutor(4) as pool:
        written = [True, *pool.map(append, range(8))]
    assert sum(written) == store.count("ledger") == 4
    assert sorted(store.read("ledger")["key"]) == ["k0", "k1", "k2", "k3"]
    assert store.version("ledger") == 4
    assert store.compact({}, retention_hours=0, min_files=2)["ledger"] == 0
    assert store.count("ledger") == 4


def test_a_commit_is_refused_where_another_has_it(site: Site, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the exactly-once rests on: the store itself refuses the second file of a name."""
    import boto3
    from botocore.exceptions import ClientError

    settings = in_objects(site, endpoint, monkeypatch, "s3://plant/conditional")
    open_tables(settings, site.workspace).append("ledger", pd.DataFrame({"key": ["a"]}), key="a")
    options = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=endpoint, **options)
    commit: dict[str, Any] = {"Bucket": "plant", "Key": f"conditional/plant/ledger/_delta_log/{1:020}.json"}
    assert client.head_object(**commit)["ContentLength"] > 0
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(**commit, Body=b"{}", IfNoneMatch="*")


def test_the_one_shot_start_makes_the_bucket_and_refuses_a_store_that_lets_both_write(
    site: Site, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import botocore.client

    from flows.first_start import prepare_bucket

    settings = in_objects(site, endpoint, monkeypatch, "s3://fresh/tables")
    kept = Secrets.of(settings, site.workspace.root)
    prepare_bucket(settings, kept)
    prepare_bucket(settings, kept)
    assert open_tables(settings, site.workspace).append("ledger", pd.DataFrame({"key": ["a"]}), key="a")
    asked = botocore.client.BaseClient._make_api_call

    def unconditionally(client: Any, operation: str, given: dict[str, Any]) -> Any:
        return asked(client, operation, {name: value for name, value in given.items() if name != "IfNoneMatch"})

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", unconditionally)
    with pytest.raises(BadConfig, match="let 8 of 8 writers put the same new file"):
        prepare_bucket(settings, kept)


def test_a_store_that_is_away_is_said_in_one_sentence(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = in_objects(site, f"http://127.0.0.1:{free_port()}", monkeypatch, "s3://plant/away")
    options = storage_options(settings, Secrets.of(settings, site.workspace.root)) | {"max_retries": "0"}
    with pytest.raises(Unavailable, match="table ledger: the object store does not answer; see that it runs") as said:
        Store("s3://plant/away/line-a", options).count("ledger")
    assert SECRET not in str(said.value)


def test_a_bucket_that_is_not_there_is_named(site: Site, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = in_objects(site, endpoint, monkeypatch, "s3://nowhere/a")
    with pytest.raises(Unavailable, match="no such bucket"):
        open_tables(settings, site.workspace).append("ledger", pd.DataFrame({"key": ["a"]}), key="a")
