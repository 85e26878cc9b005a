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

POINTS = {
    "alarm": ["windows life", "ledger entry:3", "incidents demo-2026-W02:0", "incidents demo-2026-W02:1"],
    "new-normal": ["ledger entry:5", "ledger entry:7", "lives life:life-0002", "incidents demo-2026-W02:3"],
    "repaired": ["incidents demo-2026-W02:2", "ledger entry:7", "ledger entry:8"],
}
"""Where to die: right after the first append whose table and key begin so. Without points the script takes all.

Entries of the ledger are numbered: 3 opens the incident, 5 answers it, 7 puts a model to use, 8 begins a life."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # one script plays every death for all tests


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script found; its children's words are shown where it fails."""
    folder = tmp_path_factory.mktemp("crashes")
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), json.dumps(POINTS)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=1100, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    document: dict[str, Any] = json.loads((folder / "result.json").read_text())
    for kind, points in POINTS.items():
        for item in document[kind]["found"]:
            assert (item["status"], item["again"]) == (77, 0), f"{kind}, {item['point']}\n{ended.stdout}{ended.stderr}"
        assert len(document[kind]["found"]) == len(points)
    return document


@pytest.mark.parametrize("kind", POINTS)
def test_a_death_after_an_append_changes_nothing_in_the_end(found: dict[str, Any], kind: str) -> None:
    """Windows, incidents, lives, references, versions, alerts and ledger are those of the undisturbed run."""
    for item in found[kind]["found"]:
        for part, expected in found[kind]["undisturbed"].items():
            assert item["content"][part] == expected, f"{part}, after a death at: {item['point']}"


def test_what_an_alarm_leads_to(found: dict[str, Any]) -> None:
    expected = found["alarm"]["undisturbed"]
    [[life, window, _, alarm, verdict, _, _]] = expected["windows"]
    assert (life, window, alarm, verdict) == ("life-0001", "2026-W02", True, "inspect")
    assert expected["alerts"] == [["demo-2026-W02", "challenger"], ["demo-2026-W02", "opened"]]
    assert expected["versions"] == ["1", "2"], "one challenger for the incident, beside the champion"
    assert {"incident.opened", "challenger.held"} <= {action for action, *_ in expected["ledger"]}


@pytest.mark.parametrize(("kind", "champion", "last"), [("new-normal", "3", "promoted"), ("repaired", "2", "closed")])
def test_what_an_answer_leads_to(found: dict[str, Any], kind: str, champion: str, last: str) -> None:
    expected = found[kind]["undisturbed"]
    assert expected["champion"] == champion
    assert [(state, answer) for _, state, answer, *_ in expected["incidents"]] == [("closed", kind)]
    assert [life for life, *_ in expected["lives"]] == ["life-0001", "life-0002"]
    assert {state for _, state in expected["alerts"]} == {"opened", "challenger", "acknowledged", last}
    assert len(expected["alerts"]) == 4, "each once"
    assert expected["unfinished runs"] == []
