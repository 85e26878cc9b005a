"""The tables: exactly once, any version, never a file that a version needs."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from flows.errors import BadConfig, Unavailable
from flows.store import ANSWERS, TABLES, Store, current_labels, current_rows


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "tables")


def inspections(ids: list[str], *, seq: int = 0, version: int = 1, **columns: list[object]) -> pd.DataFrame:
    own = {"_id": ids, "_seq": range(seq, seq + len(ids)), "_version": version}
    return pd.DataFrame({**own, **columns})


def test_a_key_is_written_once(store: Store) -> None:
    rows = inspections(["a", "b"])
    assert store.append("inspections", rows, key="one")
    assert not store.append("inspections", rows, key="one")
    assert not Store(store.root).append("inspections", rows, key="one")
    assert store.append("inspections", rows, key="two")
    assert store.append("quarantine", pd.DataFrame({"_id": ["a"]}), key="one")
    assert (store.count("inspections"), store.count("quarantine")) == (4, 1)
    assert store.has("inspections", "two")
    assert not store.has("labels", "two")


def test_processes_that_write_at_once_write_each_key_once(store: Store) -> None:
    outcomes: list[tuple[str, bool]] = []
    keys = [f"key-{number % 6}" for number in range(24)]
    ready = threading.Barrier(8)

    def work(own: list[str]) -> None:
        ready.wait()
        for key in own:
            outcomes.append((key, Store(store.root).append("ledger", pd.DataFrame({"key": [key]}), key=key)))

    threads = [threading.Thread(target=work, args=(keys[number::8],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 24
    assert sorted(store.read("ledger")["key"]) == [f"key-{number}" for number in range(6)]
    assert sorted(key for key, written in outcomes if written) == [f"key-{number}" for number in range(6)]


def test_a_table_that_does_not_exist_has_its_columns(store: Store) -> None:
    for table, schema in TABLES.items():
        assert store.read(table).columns.tolist() == schema.names
        assert store.count(table) == 0
    assert str(store.read("files")["at"].dtype) == "datetime64[us, UTC]"
    assert store.versions() == {}
    assert store.version("files") is None
    assert store.read("files", columns=["sha"], where="status = 'accepted'", order="sha").empty
    with pytest.raises(ValueError, match="table must be one of files, inspections"):
        store.read("nothing")


def test_columns_come_and_go(store: Store) -> None:
    store.append("inspections", inspections(["a"], **{"Torque [Nm]": [1.5]}), key="1")
    store.append("inspections", inspections(["b"], seq=1, **{"検査; x,y={}()": ["良"]}), key="2")
    store.append("inspections", inspections(["c"], seq=2), key="3")
    found = store.read("inspections", order="_seq")
    assert found["Torque [Nm]"].fillna(-1).tolist() == [1.5, -1, -1]
    assert found["検査; x,y={}()"].fillna("").tolist() == ["", "良", ""]
    assert store.count("inspections", '"Torque [Nm]" > 1') == 1
    assert {"Torque [Nm]", "検査; x,y={}()", "_id"} <= set(store.columns("inspections").names)


def test_a_column_that_comes_later_is_there_in_a_store_that_read_before(store: Store) -> None:
    for number in range(3):
        store.append("inspections", inspections([f"a{number}"], seq=number, x=[1.0]), key=f"a{number}")
    assert store.read("inspections", order="_seq")["x"].tolist() == [1.0] * 3
    before = store.version("inspections")
    store.append("inspections", inspections(["b"], seq=3, x=[2.0], y=["late"]), key="b")
    found = store.read("inspections", order="_seq")
    assert found["x"].tolist() == [1.0, 1.0, 1.0, 2.0]
    assert found["y"].fillna("").tolist() == ["", "", "", "late"]
    assert "y" not in store.read("inspections", version=before).columns


def test_a_column_cannot_change_its_kind(store: Store) -> None:
    store.append("inspections", inspections(["a"], x=[1.5]), key="1")
    with pytest.raises(
        BadConfig, match="column 'x' of table inspections was kept as a number so far and would now be text"
    ):
        store.append("inspections", inspections(["b"], x=["1.5"]), key="2")
    assert store.count("inspections") == 1
    with pytest.raises(ValueError, match="column '_seq' must hold int64"):
        store.append("inspections", pd.DataFrame({"_id": ["a"], "_seq": ["x"]}), key="3")


def test_pandas_types_are_kept_as_declared(store: Store) -> None:
    frame = pd.DataFrame({
        "_id": ["a", "b"], "_version": [1, 2], "model_version": [None, None], "value": [1, 2],
        "probabilities": [np.array([0.1, 0.9]), [1.0, 0.0]], "at": pd.to_datetime(["2026-01-01T09:00+09:00"] * 2),
    })  # fmt: skip
    store.append("predictions", frame, key="p")
    found = store.read("predictions", order="_id")
    assert found["at"].tolist() == [pd.Timestamp("2026-01-01", tz="UTC")] * 2
    assert found["_version"].tolist() == [1, 2]
    assert found["probabilities"][0].tolist() == pytest.approx([0.1, 0.9])
    assert found["model_version"].isna().all()


def test_a_stream_is_written_once_too(store: Store) -> None:
    def stream() -> pa.RecordBatchReader:
        batches = [pa.record_batch({"key": [f"{number}-{row}" for row in range(1000)]}) for number in range(5)]
        return pa.RecordBatchReader.from_batches(batches[0].schema, iter(batches))

    assert store.append("ledger", stream(), key="s")
    assert not store.append("ledger", stream(), key="s")
    assert store.count("ledger") == 5000


def test_any_version_can_be_read_again(store: Store) -> None:
    versions = []
    for number in range(4):
        store.append("inspections", inspections([f"id-{number}"], seq=number), key=str(number))
        versions.append(store.version("inspections"))
    assert [len(store.read("inspections", version=version)) for version in versions] == [1, 2, 3, 4]
    joined = store.sql("SELECT count(*) AS n FROM inspections", versions={"inspections": versions[1]})
    assert joined["n"].tolist() == [2]
    assert store.version_before("inspections", "2") == versions[1]
    assert store.version_before("inspections", "new") == versions[3]
    assert store.version_before("labels", "new") is None


def test_the_newest_version_of_each_row_and_label(store: Store) -> None:
    store.append("inspections", inspections(["a", "b", "c"], x=[1.0, 2.0, 3.0]), key="1")
    first = store.version("inspections")
    store.append("inspections", inspections(["b"], seq=1, version=2, x=[20.0]), key="2")
    store.append("inspections", inspections(["b"], seq=1, version=3, x=[200.0]), key="3")
    assert current_rows(store)["x"].tolist() == [1.0, 200.0, 3.0]
    assert current_rows(store, version=first)["x"].tolist() == [1.0, 2.0, 3.0]
    assert current_rows(store, columns=["_id"], where="x > 100")["_id"].tolist() == ["b"]
    labels = pd.DataFrame({"_id": ["a", "a", "z"], "label": ["0", "1", "0"], "_version": [1, 2, 1]})
    store.append("labels", labels, key="1")
    assert current_labels(store, columns=["_id", "label"]).to_numpy().tolist() == [["a", "1"], ["z", "0"]]


def test_compaction_keeps_every_version_that_is_named(store: Store) -> None:
    versions = []
    for number in range(6):
        store.append("inspections", inspections([f"id-{number}"], seq=number, x=[float(number)]), key=str(number))
        versions.append(store.version("inspections"))
    before = store.read("inspections", order="_seq")
    kept = {versions[1], versions[3]}
    removed = store.compact({"inspections": kept}, retention_hours=0, min_files=2)
    # A second round may remove what the first kept for readers of that moment, and still nothing that is named.
    for number in range(6, 9):
        store.append("inspections", inspections([f"id-{number}"], seq=number, x=[float(number)]), key=str(number))
    removed = {**removed, **store.compact({"inspections": kept}, retention_hours=0, min_files=2)}
    assert removed["inspections"] > 0
    assert len(list(Path(store.root, "inspections").glob("*.parquet"))) == 9 + 2 - removed["inspections"]
    assert store.read("inspections", version=versions[1], order="_seq")["x"].tolist() == [0.0, 1.0]
    assert store.read("inspections", version=versions[3], order="_seq")["x"].tolist() == [0.0, 1.0, 2.0, 3.0]
    pd.testing.assert_frame_equal(store.read("inspections", where="_seq < 6", order="_seq"), before)
    assert all(store.has("inspections", str(number)) for number in range(9))


def test_keys_and_versions_outlive_many_commits(store: Store) -> None:
    # Delta Lake writes a checkpoint every hundred commits, and would tidy its log there.
    for number in range(115):
        store.append("ledger", pd.DataFrame({"key": [str(number)]}), key=str(number))
    fresh = Store(store.root)
    assert not any(fresh.append("ledger", pd.DataFrame({"key": ["again"]}), key=str(number)) for number in (0, 50, 114))
    assert fresh.count("ledger") == 115
    assert len(fresh.read("ledger", version=3)) == 3
    assert fresh.version_before("ledger", "0") == 0


def test_other_frames_can_be_joined(store: Store) -> None:
    store.append("labels", pd.DataFrame({"_id": ["a", "b"], "label": ["0", "1"]}), key="1")
    wanted = pd.DataFrame({"_id": ["b"]})
    assert store.sql("SELECT label FROM labels JOIN wanted USING (_id)", wanted=wanted)["label"].tolist() == ["1"]


def test_a_folder_with_a_quote_in_its_name(tmp_path: Path) -> None:
    store = Store(tmp_path / "it's a plant's; 工場 100% #1?" / "tables")
    store.append("ledger", pd.DataFrame({"key": ["a"]}), key="a")
    assert Store(str(store.root)).read("ledger")["key"].tolist() == ["a"]


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(Exception, match=r"(?i)not a directory|could not create"):
        Store(blocked / "tables").append("ledger", pd.DataFrame({"key": ["a"]}), key="a")


def test_an_object_store_is_a_folder_like_any_other(tmp_path: Path) -> None:
    """Against moto's S3 server: append, read, SQL and versions by address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        _make_bucket(endpoint)
        options = {
            "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true", "AWS_S3_ALLOW_UNSAFE_RENAME": "true",
        }  # fmt: skip
        store = Store("s3://plant/line-a/", options)
        assert store.append("inspections", inspections(["a", "b"], x=[1.0, 2.0]), key="1")
        assert not store.append("inspections", inspections(["a", "b"], x=[1.0, 2.0]), key="1")
        assert store.append("inspections", inspections(["b"], seq=1, version=2, x=[9.0]), key="2")
        assert current_rows(store)["x"].tolist() == [1.0, 9.0]
        assert len(store.read("inspections", version=1)) == 2
        assert store.read("labels").empty
        assert store.versions() == {"inspections": 2}
    finally:
        server.stop()


def _make_bucket(endpoint: str) -> None:
    import urllib.request

    request = urllib.request.Request(f"{endpoint}/plant", method="PUT")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def test_a_full_disk_is_one_sentence(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Delta Lake raised on a full tmpfs, word for word; the real thing is tested with the faults."""
    import deltalake
    from deltalake.exceptions import DeltaError

    def full(*_: object, **__: object) -> None:
        raise DeltaError(
            "Generic LocalFileSystem error: Unable to copy data to file: No space left on device (os error 28)"
        )

    monkeypatch.setattr(deltalake, "write_deltalake", full)
    with pytest.raises(Unavailable, match="table ledger: the disk is full"):
        store.append("ledger", pd.DataFrame({"key": ["a"]}), key="a")


def test_a_query_that_spills_leaves_no_limit_behind(store: Store, tmp_path: Path) -> None:
    store.append("labels", pd.DataFrame({"_id": ["a"], "label": ["0"]}), key="1")
    spill = tmp_path / "spill"
    spill.mkdir()
    asked = "SELECT current_setting('memory_limit') AS memory, current_setting('temp_directory') AS folder FROM labels"
    limited = store.arrow(asked, spill=spill).to_pylist()[0]
    assert (limited["memory"], limited["folder"]) == ("476.8 MiB", str(spill))
    after = store.arrow(asked).to_pylist()[0]
    assert after["memory"] != limited["memory"]
    assert after["folder"] != limited["folder"]


def test_an_answer_holds_until_its_table_changes(store: Store) -> None:
    query = "SELECT count(*) AS n FROM inspections"
    assert store.arrow(query)["n"].to_pylist() == [0]
    other = Store(store.root)
    other.append("inspections", inspections(["a", "b"]), key="one")
    answer = store.arrow(query)
    assert answer["n"].to_pylist() == [2]
    store.append("labels", pd.DataFrame({"_id": ["a"], "label": ["OK"]}), key="one")
    assert store.arrow(query) is answer
    other.append("inspections", inspections(["c"], seq=2), key="two")
    assert store.arrow(query)["n"].to_pylist() == [3]
    assert store.arrow(query, versions={"inspections": 1}).equals(answer)
    assert store.arrow(query, versions={"inspections": 0})["n"].to_pylist() == [0]


def test_an_answer_goes_with_its_table(store: Store) -> None:
    store.append("inspections", inspections(["a", "b"]), key="one")
    assert len(store.read("inspections")) == 2
    shutil.rmtree(Path(store.root) / "inspections")
    assert store.read("inspections").empty
    store.append("inspections", inspections(["c"]), key="one")
    assert store.read("inspections")["_id"].tolist() == ["c"]


def test_what_a_caller_does_to_a_frame_stays_with_the_caller(store: Store) -> None:
    store.append("inspections", inspections(["a", "b"], torque=[1.0, 2.0]), key="one")
    for _ in range(2):
        frame = store.read("inspections", columns=["_id", "_seq", "torque"], order="_seq")
        assert frame["torque"].tolist() == [1.0, 2.0]
        frame.loc[0, "torque"] = 9.0
        frame.iloc[0, 1] = 7
        frame["_id"] = "x"


def test_a_question_with_a_frame_is_always_asked(store: Store) -> None:
    store.append("inspections", inspections(["a", "b"]), key="one")
    query = "SELECT _id FROM inspections JOIN wanted USING (_id)"
    for name in ("a", "b"):
        assert store.sql(query, wanted=pd.DataFrame({"_id": [name]}))["_id"].tolist() == [name]


def test_a_file_that_was_joined_with_others_is_not_asked_for_again(store: Store) -> None:
    for number in range(9):
        store.append("inspections", inspections([f"r{number}"], seq=number), key=str(number))
    before = store.read("inspections", order="_seq")
    store.compact({}, retention_hours=0)
    assert store.fragments() == 1
    pd.testing.assert_frame_equal(store.read("inspections", order="_seq"), before)


def test_answers_keep_to_their_bytes(store: Store) -> None:
    query = "SELECT range AS n FROM range({})"
    large = store.arrow(query.format(ANSWERS // 8))
    assert store.arrow(query.format(ANSWERS // 8)) is not large
    share = ANSWERS // 8 // 5
    first, *later = [store.arrow(query.format(share - number)) for number in range(6)]
    assert store.arrow(query.format(share - 5)) is later[-1]
    assert store.arrow(query.format(share)) is not first
