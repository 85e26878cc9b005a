"""The ledger's chain and seal: what was changed is found, whoever writes at once is put in order."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flows import ledger
from flows.audit import Verification, champion_at, verify
from flows.errors import Damaged
from flows.promote import MOVED
from flows.store import Store

DAY = datetime(2026, 3, 2, 6, tzinfo=UTC)


def write(store: Store, key: str, **changes: Any) -> bool:
    entry: dict[str, Any] = {
        "actor": "aiko",
        "action": "rollback",
        "subject": "2",
        "details": {"why": "騒音"},
        "at": DAY,
    }
    return ledger.enter(store, key=key, **{**entry, **changes})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "tables")
    for number in range(6):
        assert write(store, f"k{number}", at=DAY + timedelta(hours=number))
    return store


def rewritten(store: Store, change: Any) -> Verification:
    """All entries written anew into another ledger, after `change` had its way with them, without any noted file."""
    frame = store.read("ledger", order='"number"')
    other = Store(f"{store.root}-forged")
    shutil.rmtree(other.root, ignore_errors=True)
    other.append("ledger", change(frame), key="forged")
    return verify(other)


def test_a_ledger_that_nobody_touched_holds(store: Store) -> None:
    found = verify(store)
    assert (found.entries, found.unchained, found.unsealed, found.faults) == (6, 0, 0, ())
    entries = ledger.read(store)
    assert [entry.number for entry in entries] == list(range(6))
    assert [entry.previous for entry in entries[1:]] == [entry.hash for entry in entries[:-1]]
    assert found.head == entries[-1].hash
    assert verify(store, head=entries[2].hash).faults == ()
    assert not write(store, "k3"), "the same entry again is no second one"
    assert verify(Store(f"{store.root}-empty")).faults == ()


def test_a_changed_byte_is_found_wherever_it_lies(store: Store) -> None:
    """Every file of the ledger, a byte at its start, in the middle and at its end."""
    for name, path in ledger.ledger_files(store).items():
        content = path.read_bytes()
        for place in (0, len(content) // 3, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            faults = verify(Store(store.root)).faults
            assert any(name in fault for fault in faults), (name, place)
        path.write_bytes(content)
    assert verify(Store(store.root)).faults == ()


def test_a_later_entry_does_not_hide_a_changed_file(store: Store) -> None:
    log = next(path for name, path in ledger.ledger_files(store).items() if name.endswith("3.json"))
    log.write_bytes(log.read_bytes().replace(b"softad", b"softac").replace(b"delta", b"deltA", 1) + b"\n")
    write(Store(store.root), "later")
    assert any(log.name in fault for fault in verify(Store(store.root)).faults)


@pytest.mark.parametrize("column", ["key", "actor", "action", "subject", "details"])
def test_an_entry_with_other_content_is_named(store: Store, column: str) -> None:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[2, column] = frame.loc[2, column].replace("2", "3") + " "
        return frame

    faults = rewritten(store, change).faults
    assert len(faults) == 1
    assert faults[0].startswith("entry 2 (")
    assert faults[0].endswith("was changed after it was written")


def test_another_time_is_found(store: Store) -> None:
    def later(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[4, "at"] += pd.Timedelta(microseconds=1)
        return frame

    assert [fault.split(" ", 2)[:2] for fault in rewritten(store, later).faults] == [["entry", "4"]]


def test_an_entry_left_out_or_put_elsewhere_or_hashed_anew_is_found(store: Store) -> None:
    assert "3 should be the next entry" in rewritten(store, lambda frame: frame.drop(3)).faults[0]

    def swapped(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[[1, 2], "number"] = [2, 1]
        return frame

    assert rewritten(store, swapped).faults

    def hashed_anew(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[2, "actor"] = "ken"
        record = frame.loc[2].to_dict()
        frame.loc[2, "hash"] = ledger.hash_of({**record, "at": record["at"].to_pydatetime()})
        return frame

    [fault] = rewritten(store, hashed_anew).faults
    assert fault.startswith("entry 3 ")
    assert "does not follow the entry before it" in fault


def test_an_end_that_was_cut_off_is_found_by_a_noted_head(store: Store) -> None:
    head = verify(store).head
    cut = rewritten(store, lambda frame: frame.head(4))
    assert cut.faults == ()
    [fault] = verify(Store(f"{store.root}-forged"), head=head).faults
    assert "cut off" in fault


@pytest.mark.parametrize("more", [0, 2])
def test_newest_files_that_are_gone_are_found_without_a_noted_head(store: Store, more: int) -> None:
    log = sorted(Path(store.root, "ledger", "_delta_log").glob("*.json"))
    for path in log[-1 - more :]:
        path.unlink()
    found = verify(Store(store.root))
    assert found.entries == 5 - more
    assert f"the file ledger/_delta_log/{log[-1].name} is gone, and the newest entries with it" in found.faults
    # Written on, the place is taken by another entry, which is not the noted one.
    assert write(Store(store.root), "later")
    assert any(log[-1 - more].name in fault for fault in verify(Store(store.root)).faults)


@pytest.mark.parametrize("torn", ["half", '{"a": [1, null]}', "[]", ""])
def test_noted_hashes_that_cannot_be_read_are_a_fault(store: Store, torn: str) -> None:
    seal = Path(store.root, "ledger.seal.json")
    whole = seal.read_text()
    seal.write_text(whole[: len(whole) // 2] if torn == "half" else torn)
    assert verify(Store(store.root)).faults == (
        f"{seal} is damaged: the hashes that were noted of the ledger's files cannot be read",
    )
    with pytest.raises(Damaged, match="softad restore FILE"):
        write(Store(store.root), "later")
    seal.write_text(whole)
    # The entry was written before its hash could be noted, and is noted now.
    assert not write(Store(store.root), "later")
    assert write(Store(store.root), "latest")
    assert verify(Store(store.root)).faults == ()


def test_entries_from_before_the_chain_are_held_by_its_first(tmp_path: Path) -> None:
    store = Store(tmp_path / "tables")
    old = [
        {"key": f"old{number}", "at": DAY - timedelta(days=number), "actor": "softad", "action": "life.started",
         "subject": "life-0001", "details": json.dumps({"n": number})}
        for number in range(3)
    ]  # fmt: skip
    for record in old:
        store.append("ledger", pd.DataFrame([record]), key=record["key"])
    assert not write(store, "old1"), "an old entry is known by its key"
    write(store, "new")
    write(store, "newer")
    found = verify(store)
    assert (found.entries, found.unchained, found.faults) == (5, 3, ())
    assert [entry.key for entry in ledger.read(store)] == ["old2", "old1", "old0", "new", "newer"]
    frame = store.read("ledger", order='"number" NULLS FIRST, "at"')
    frame.loc[1, "details"] = "{}"
    forged = Store(tmp_path / "forged")
    forged.append("ledger", frame, key="forged")
    assert "entry 3" in verify(forged).faults[0]


def _writer(root: str, name: str, count: int) -> None:
    store = Store(root)
    for number in range(count):
        ledger.enter(
            store, key=f"{name}-{number}", actor=name, action="a", subject="s", details={}, at=datetime.now(UTC)
        )
        ledger.enter(store, key=f"both-{number}", actor=name, action="a", subject="s", details={}, at=datetime.now(UTC))


def test_processes_that_write_at_once_make_one_chain(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_writer, args=(str(tmp_path / "tables"), name, 8)) for name in ("a", "b", "c")]
    for one in writers:
        one.start()
    for one in writers:
        one.join(120)
        assert one.exitcode == 0
    found = verify(Store(tmp_path / "tables"))
    assert (found.entries, found.faults) == (4 * 8, ())
    keys = [entry.key for entry in ledger.read(Store(tmp_path / "tables"))]
    assert len(set(keys)) == len(keys)


def test_compaction_leaves_a_ledger_that_holds(store: Store) -> None:
    for number in range(6, 14):
        write(store, f"k{number}")
    store.compact({}, retention_hours=0)
    assert verify(store).faults == ()
    write(store, "after")
    found = verify(store)
    assert (found.entries, found.unsealed, found.faults) == (15, 0, ())


def test_the_champion_of_a_day(tmp_path: Path) -> None:
    store = Store(tmp_path / "tables")
    assert champion_at(store, DAY).version is None
    for number, version in enumerate(["1", "2", "1"]):
        write(
            store, f"m{number}", action=MOVED, subject=version, at=DAY + timedelta(days=number),
            details={"decision": f"d{number}"},
        )  # fmt: skip
    assert champion_at(store, DAY - timedelta(seconds=1)).until == DAY
    first = champion_at(store, DAY)
    assert (first.version, first.since, first.until) == ("1", DAY, DAY + timedelta(days=1))
    assert champion_at(store, DAY + timedelta(days=1, hours=3)).decision == "d1"
    last = champion_at(store, DAY + timedelta(days=99))
    assert (last.version, last.until) == ("1", None)
