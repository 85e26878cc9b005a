"""A process that dies, anywhere in an ingest, and the same command again: the tables are as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.errors import Unavailable
from flows.ingest import ingest_inbox
from flows.settings import load_settings
from flows.store import Store
from flows.workspace import Workspace

SCRIPT = Path(__file__).with_name("ingest_crashes.py")
HEADER = "part,time,machine,x1,x2,ok\n"


def plant_rows(first: int, last: int, *, x1: str = "1", ok: str | None = None) -> str:
    return "".join(
        f"P{n},2026-04-01 10:{n % 60:02d},M{n % 7},{x1},{n * 0.37:.4f},{n % 2 if ok is None else ok}\n"
        for n in range(first, last + 1)
    )


def write_plant(folder: Path, rows: int) -> None:
    """Files that need every kind of write: new rows, corrections, repeats, quarantine, labels old and new."""
    config = {
        "name": "plant",
        "data": {"id": "part", "time": "time", "label": "ok", "numeric": ["x1", "x2"], "categorical": ["machine"]},
        "ingest": {"settle_seconds": 0, "chunk_rows": max(100, rows // 3)},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "first.csv").write_text(HEADER + plant_rows(1, rows))
    second = plant_rows(rows // 2, rows) + plant_rows(3, 30, x1="2", ok="1") + plant_rows(rows + 1, 2 * rows)
    bad = "Z1,2026-04-01,M1,abc,1,0\nZ2,2026-04-01,M1,1,1,weld\nZ3,2026-04-01,M1,1,1,0\nZ3,2026-04-01,M1,2,1,0\n"
    (folder / "second.csv").write_text(HEADER + second + bad)
    labels = "".join(f"P{n},{n % 2 ^ (n % 5 == 0)}\n" for n in range(1, 60)) + "Q1,0\nP1,0\n"
    (folder / "third.csv").write_text("part,ok\n" + labels)


def disturb(folder: Path, kind: str, *numbers: object, rows: int = 250) -> dict[str, Any]:
    """What the script found; its children's words are shown where it fails."""
    write_plant(folder, rows)
    command = [sys.executable, str(SCRIPT), kind, str(folder), *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((folder / "result.json").read_text())
    document["said"] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return document


@pytest.mark.slow
def test_an_ingest_may_die_before_every_single_write(tmp_path: Path) -> None:
    document = disturb(tmp_path, "points")
    expected, found = document["undisturbed"], document["found"]
    assert [len(expected[table]) for table in ("files", "inspections", "quarantine", "labels")] == [3, 529, 6, 534]
    assert all(report["status"] == "accepted" for report in document["run"]["reports"])
    died = [f"{item['after']} | {item['died before']}" for item in document["said"]]
    for table in ("inspections", "quarantine", "labels", "files"):
        assert any(point.endswith(f"| append to {table}") for point in died), died
        assert any(point.endswith(f"| what follows append to {table}") for point in died), died
    assert any("move of second.csv" in point for point in died)
    assert len(found) == len(died) > 20
    for item, point in zip(found, died, strict=True):
        assert (item["status"], item["again"]) == (77, 0), point
        for part in expected:
            assert item["content"][part] == expected[part], f"{part}, after a death at: {point}"
        for report in item["rerun"]["reports"]:
            assert report["read"] == report["accepted"] + report["quarantined"] + report["duplicates"], point


@pytest.mark.slow
def test_an_ingest_may_be_killed_at_any_moment(tmp_path: Path) -> None:
    shares = [0.1, 0.3, 0.45, 0.6, 0.75, 0.9]
    document = disturb(tmp_path, "kills", *shares, rows=8_000)
    expected = document["undisturbed"]
    assert any(-9 in item["statuses"] for item in document["found"])
    for item in document["found"]:
        assert item["again"] == 0
        for part in expected:
            assert item["content"][part] == expected[part], f"{part}, killed after {item['seconds']:.2f} s"


@pytest.mark.slow
def test_a_disk_that_is_full_stops_the_ingest_and_room_completes_it(tmp_path: Path) -> None:
    """No file may grow beyond a size: the staging does not fit, then only the rows' table, then only the labels'."""
    document = disturb(tmp_path, "limits", 4_000, 60_000, 150_000, 250_000, rows=6_000)
    expected = document["undisturbed"]
    stopped = [item for item in document["found"] if "error" in item["first"]]
    assert len(stopped) >= 3, [item["first"] for item in document["found"]]
    for item in stopped:
        assert item["first"]["error"] == "Unavailable"
        assert item["first"]["exit_status"] == Unavailable.exit_status
        assert "the disk is full" in item["first"]["sentence"]
        assert "free some space and run the same command again" in item["first"]["sentence"]
        assert item["between"]["staging"] == []
        assert "inbox/second.csv" in item["between"]["files lying"]
        assert len(item["between"]["files"]) == 1
    for item in document["found"]:
        for part in expected:
            assert item["content"][part] == expected[part], f"{part}, limit {item['limit']}"


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A disk of a few megabytes, whose size can be changed."""
    place = tmp_path / "disk"
    place.mkdir()

    def size(text: str, *, again: bool = True) -> int:
        options = f"{'remount,' if again else ''}size={text}"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        return subprocess.run(command, capture_output=True, check=False).returncode

    if os.geteuid() != 0 or size("2m", again=False) != 0:
        pytest.skip("a tmpfs cannot be mounted here; the test with a file size limit covers the same code")
    try:
        yield place, size
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(("megabytes", "what"), [(2, "first.csv"), (7, "table inspections")])
def test_a_small_disk_that_fills_up(tmp_path: Path, small_disk: Any, megabytes: int, what: str) -> None:
    place, size = small_disk
    write_plant(tmp_path, 60_000)
    settings = load_settings(tmp_path / "config.yaml")
    workspace = Workspace.open(place / "workspace", settings=settings)
    inbox = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"inbox": tmp_path / "inbox"})})
    workspace = Workspace.open(place / "workspace", settings=inbox)
    text = (tmp_path / "first.csv").read_text()
    (workspace.inbox / "first.csv").write_text(text)
    size(f"{megabytes}m")
    store, now = Store(workspace.tables), datetime(2026, 5, 1, tzinfo=UTC)
    with pytest.raises(Unavailable, match=f"^{what}: the disk is full, so the work is not finished; free some space"):
        ingest_inbox(inbox, store, workspace, now=now)
    assert (workspace.inbox / "first.csv").read_text() == text
    assert list((workspace.runtime / "staging").rglob("*.arrow")) == []
    assert store.count("files") == 0
    size("64m")
    [report] = ingest_inbox(inbox, store, workspace, now=now)
    assert (report.status, report.accepted, report.labels) == ("accepted", 60_000, 60_000)
    assert (store.count("inspections"), store.count("labels"), store.count("files")) == (60_000, 60_000, 1)
