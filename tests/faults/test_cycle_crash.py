"""A process that dies in the middle of a cycle, and the same cycle again: as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("cycle_crashes.py")
ROOT = SCRIPT.parent.parent.parent

pytestmark = pytest.mark.slow


def disturb(folder: Path, kind: str, points: list[str], **changes: dict[str, Any]) -> dict[str, Any]:
    """What the script found; its children's words are shown where it fails."""
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), kind, str(folder), json.dumps(changes), *points],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    document: dict[str, Any] = json.loads((folder / "result.json").read_text())
    for item in document["found"]:
        assert (item["status"], item["again"]) == (77, 0), ended.stdout + ended.stderr
    return document


def same(document: dict[str, Any]) -> None:
    """Windows, incidents, lives, versions, alerts and ledger after each death are those of the undisturbed run."""
    for item in document["found"]:
        for part, expected in document["undisturbed"].items():
            assert item["content"][part] == expected, f"{part}, after a death at: {item['point']}"


def test_the_cycle_of_an_alarm_may_die_after_any_append(tmp_path: Path) -> None:
    points = ["windows life", "ledger incident:", "incidents demo-2026-W02:0", "incidents demo-2026-W02:1"]
    document = disturb(tmp_path, "alarm", points)
    expected = document["undisturbed"]
    assert [(verdict, alarm) for *_, alarm, verdict, _, _ in expected["windows"]] == [("inspect", True)]
    assert expected["alerts"] == [["demo-2026-W02", "challenger"], ["demo-2026-W02", "opened"]]
    assert expected["versions"] == ["1", "2"], "one challenger for the incident, beside the champion"
    assert {"incident.opened", "challenger.held"} <= {action for action, *_ in expected["ledger"]}
    assert expected["unfinished runs"] == []
    same(document)


def test_the_cycle_of_a_promotion_may_die_after_any_append(tmp_path: Path) -> None:
    points = ["ledger answer:", "ledger promotion:", "ledger set:", "ledger life:", "lives life:life-0002",
              "incidents demo-2026-W02:3"]  # fmt: skip
    document = disturb(tmp_path, "answer", points)
    expected = document["undisturbed"]
    assert expected["champion"] == "3"
    assert [state for _, state, *_ in expected["incidents"]] == ["closed"]
    assert [life for life, *_ in expected["lives"]] == ["life-0001", "life-0002"]
    assert [state for _, state in expected["alerts"]] == ["acknowledged", "challenger", "opened", "promoted"]
    same(document)
