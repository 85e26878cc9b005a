"""Tables that are damaged, or in an object store out of reach: one sentence, nothing written, and nothing lost."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flows.errors import Damaged, Unavailable
from flows.services import free_port
from flows.store import Store

ROOT = Path(__file__).absolute().parents[2]


def entry(key: str) -> pd.DataFrame:
    return pd.DataFrame({"key": [key], "action": ["tried"]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = Store(tmp_path / "tables")
    for key in "abc":
        store.append("ledger", entry(key), key=key)
    return tmp_path / "tables" / "ledger"


def log(folder: Path, number: int) -> Path:
    return folder / "_delta_log" / f"{number:020}.json"


DAMAGE: dict[str, tuple[Callable[[Path], Path], Callable[[bytes], bytes | None], str]] = {
    "the last commit is garbage": (lambda one: log(one, 3), lambda old: b"\0\1{" * 40, "its log holds a line"),
    "the last commit is torn": (lambda one: log(one, 3), lambda old: old[: len(old) // 2], "its log holds a line"),
    "the last commit is empty, as after a power cut": (lambda one: log(one, 3), lambda old: b"", "3.json .* is empty"),
    "a commit in between is gone": (lambda one: log(one, 2), lambda old: None, "a file of its log is gone"),
    "the first commit is gone": (lambda one: log(one, 0), lambda old: None, "the first file .* is gone"),
    "a data file is gone": (lambda one: sorted(one.glob("*.parquet"))[0], lambda old: None, r"\.parquet is gone"),
    "a data file is torn": (
        lambda one: sorted(one.glob("*.parquet"))[0],
        lambda old: old[:40],
        "is torn or was changed",
    ),
    "a data file is garbage": (
        lambda one: sorted(one.glob("*.parquet"))[0],
        lambda old: b"x" * len(old),
        "is torn or was changed",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_table_is_named_and_comes_back_whole(folder: Path, kind: str) -> None:
    which, change, said = DAMAGE[kind]
    path = which(folder)
    old = path.read_bytes()
    new = change(old)
    if new is None:
        path.unlink()
    else:
        path.write_bytes(new)
    before = sorted(str(one) for one in folder.rglob("*") if one.is_file())
    with pytest.raises(Damaged, match=rf"(?s)^table ledger is damaged: .*{said}.*`softad restore FILE`") as caught:
        Store(folder.parent).read("ledger")
    assert "\n" not in str(caught.value)
    if "data file" not in kind:
        with pytest.raises(Damaged, match=said):
            Store(folder.parent).append("ledger", entry("d"), key="d")
        assert sorted(str(one) for one in folder.rglob("*") if one.is_file()) == before
    path.write_bytes(old)
    store = Store(folder.parent)
    assert sorted(store.read("ledger")["key"]) == ["a", "b", "c"]
    assert store.append("ledger", entry("d"), key="d")
    assert not store.append("ledger", entry("a"), key="a")


def test_a_store_that_is_open_already_names_the_table_too(folder: Path) -> None:
    store = Store(folder.parent)
    assert store.has("ledger", "a")
    log(folder, 3).write_text("{torn")
    for ask in (lambda: store.has("ledger", "a"), lambda: store.version_before("ledger", "a")):
        with pytest.raises(Damaged, match=r"^table ledger is damaged: its log holds a line"):
            ask()


@pytest.mark.parametrize("number", [3, 4])
def test_a_store_that_is_open_already_refuses_an_empty_commit_as_a_fresh_one_does(folder: Path, number: int) -> None:
    """The commit that it read last, or the one that comes next."""
    store = Store(folder.parent)
    assert store.count("ledger") == 3
    log(folder, number).write_bytes(b"")
    said = []
    for one in (store, Store(folder.parent)):
        for ask in (lambda one=one: one.count("ledger"), lambda one=one: one.append("ledger", entry("d"), key="d")):
            with pytest.raises(Damaged) as caught:
                ask()
            said.append(str(caught.value))
    assert len(set(said)) == 1
    assert said[0].startswith(f"table ledger is damaged: {number:020}.json of its log is empty; ")


def test_a_command_says_it_in_one_sentence(tmp_path: Path, new_site: Any) -> None:
    site = new_site()
    site.ingest(site.file("a.csv", "part,time,machine,x1,x2,ok\nP1,2026-04-01 10:00,M1,1,1,0\n"))
    log(site.workspace.tables / "inspections", 1).write_bytes(b"")
    command = [sys.executable, "-m", "flows.cli", "ingest", str(site.file("b.csv", "part,time,machine,x1,x2,ok\n"
               "P2,2026-04-01 10:00,M1,1,1,0\n")), "--workspace", str(site.workspace.root),
               "--config", str(site.folder / "config.yaml"), "--json"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "table inspections is damaged: 00000000000000000001.json of its log is empty" in ended.stdout + ended.stderr
    # A file that could not be taken in anyway is told for what it is, whatever the table is.
    strange = [*command[:4], str(site.file("c.csv", "what,is\n1,2\n")), *command[5:]]
    ended = subprocess.run(strange, capture_output=True, text=True, check=False, env=environment)
    assert (ended.returncode, "that the config names are missing" in ended.stdout) == (3, True), ended.stdout
    # A cycle goes through Prefect, which has words of its own for an error.
    ended = subprocess.run([*command[:3], "run", *command[5:-1]], capture_output=True, text=True, check=False,
                           env=environment)  # fmt: skip
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.splitlines()[-1].startswith("error: table inspections is damaged: 00000000000000000001.json of")
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.splitlines()) < 4, ended.stderr


def remote(port: int) -> Store:
    options = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
               "AWS_ACCESS_KEY_ID": "plant", "AWS_SECRET_ACCESS_KEY": "canary-of-a-secret"}  # fmt: skip
    return Store("s3://plant/line-a", options)


def test_an_object_store_that_refuses_is_named_within_seconds() -> None:
    for act in (lambda store: store.count("ledger"), lambda store: store.append("ledger", entry("a"), key="a")):
        with pytest.raises(Unavailable, match=r"^table ledger: the object store does not answer; see") as caught:
            act(remote(free_port()))
        assert "canary-of-a-secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_object_store_that_answers_with_errors_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(Unavailable, match=r"^table ledger: the object store refuses the keys; see that the"):
            remote(server.getsockname()[1]).count("ledger")


def test_a_folder_that_may_not_be_written_is_said_to_be_that(folder: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; import pandas as pd; from flows.store import Store\n"
        "from flows.errors import Unavailable; from tests.faults.test_damage import entry\n"
        "os.getuid() == 0 and os.setuid(65534)\n"
        "for table, rows in (('ledger', entry('z')), ('labels', pd.DataFrame({'_id': ['a']}))):\n"
        "    try: Store(Path(sys.argv[1])).append(table, rows, key='z')\n"
        "    except Unavailable as error: print(error)\n"
    )
    # Not below pytest's own folder, which no other user may enter.
    with tempfile.TemporaryDirectory(prefix="softad-tables-") as place:
        root = Path(place) / "tables"
        shutil.copytree(folder.parent, root)
        for path in (Path(place), root, *(one for one in root.rglob("*") if one.is_dir())):
            path.chmod(0o555)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        ended = subprocess.run([sys.executable, "-c", code, root], capture_output=True, text=True, check=False,
                               env=environment)  # fmt: skip
        for path in (Path(place), root, *(one for one in root.rglob("*") if one.is_dir())):
            path.chmod(0o755)
    said = ended.stdout.splitlines()
    assert len(said) == 2, ended.stdout + ended.stderr
    for table, line in zip(("ledger", "labels"), said, strict=True):
        assert line.startswith(f"table {table}: no permission to write at {root / table}; see who owns"), line
