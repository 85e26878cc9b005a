"""Faults around a cycle, and then the cycle again: tables, champion, alerts and every row as in the undisturbed run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("cycle_faults.py")
ROOT = SCRIPT.parent.parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(900)]  # one script plays every fault


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script found: the undisturbed run, made once, and each fault."""
    folder = tmp_path_factory.mktemp("faults")
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, timeout=880, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    document: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return document


def differences(fault: dict[str, Any], undisturbed: dict[str, Any]) -> dict[str, Any]:
    """Part of the content -> what it is, where it is not as in the undisturbed run."""
    assert "made" in fault["then"], fault["then"]
    made = fault["then"]["made"]
    return {part: made[part] for part, expected in undisturbed.items() if made[part] != expected}


@pytest.mark.parametrize("what", ["table windows", "MLflow"])
def test_a_disk_that_fills_up_is_named_and_loses_nothing(found: dict[str, Any], what: str) -> None:
    if "skipped" in found["full disk"]:
        pytest.skip(f"a disk of its own cannot be mounted here: {found['full disk']['skipped']}")
    fault = found["full disk"][what]
    assert fault["first"]["error"].startswith(what)
    assert "the disk is full" in fault["first"]["error"]
    assert differences(fault, found["undisturbed"]["one"]) == {}


def test_a_registry_that_dies_in_a_training_is_named_and_the_next_cycle_ends_the_same(found: dict[str, Any]) -> None:
    fault = found["server down"]
    assert fault["first"].get("kind") == "away", fault["first"]
    assert "does not do its work" in fault["first"]["error"]
    assert "see that it runs" in fault["first"]["error"]
    assert differences(fault, found["undisturbed"]["one"]) == {}


def test_a_clock_that_was_set_back_between_two_cycles_changes_nothing(found: dict[str, Any]) -> None:
    fault = found["clock back"]
    assert fault["first"]["made"] == {"windows": [], "notes": [], "status": 0, "actions": []}, "its time has not come"
    assert differences(fault, found["undisturbed"]["two"]) == {}


def test_a_torn_file_stays_where_it_was_and_is_told_once(found: dict[str, Any]) -> None:
    fault, expected = found["torn"], found["undisturbed"]["two"]
    assert fault["kept"] == fault["lying"]
    assert fault["first"]["made"]["status"] == 3
    quote, packed, table = fault["first"]["made"]["notes"]
    assert quote.startswith("2026-W03.csv, row 300: a quotation mark is opened and never closed")
    assert packed == "torn.csv.gz: the gzip file ends in its middle, so rows are missing; copy it again"
    assert table == "torn.parquet is a Parquet file that is cut off or damaged; copy it again"
    # Three refusals stand in the table of files and were told, two files still lie there; all else is the same.
    other = differences(fault, expected)
    assert other.keys() == {"rows", "alerts", "files lying"}
    assert other["rows"] == expected["rows"] | {"files": expected["rows"]["files"] + 3}
    assert sorted(other["files lying"]) == sorted([*expected["files lying"], "inbox/torn.csv.gz", "inbox/torn.parquet"])
    told = [state for key, state in other["alerts"] if key.startswith("demo:file:")]
    assert told == ["file"] * 3
    assert [one for one in other["alerts"] if one[1] != "file"] == expected["alerts"]


def test_files_that_three_processes_take_in_at_once_are_there_once(found: dict[str, Any]) -> None:
    fault = found["twice at once"]
    cycle, *given = fault["first"]
    assert cycle["made"]["windows"] == ["2026-W02"]
    ends = [one["made"] for one in given]
    assert all(set(statuses) <= {"accepted", "already"} for statuses in ends)
    assert all(statuses.count("accepted") <= 1 for statuses in zip(*ends, strict=True))
    assert differences(fault, found["undisturbed"]["one"]) == {}
