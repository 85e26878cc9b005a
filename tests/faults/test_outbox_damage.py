"""Messages and a file channel that are torn: the others go out, and nothing is lost or told twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monitoring.alerts import Message
from monitoring.outbox import Outbox

OPENED = Message("line-a: check M07", "Since Monday …", "failure", "line-a-2026-W14", "opened")
HELD = Message("line-a: a new model is ready", "…", "warning", "line-a-2026-W14", "challenger")


@pytest.mark.parametrize("content", [b"", b'{"id": ', bytes(range(256)), b"[1, null]", b'{"id": "a", "at": null}'])
def test_a_message_that_cannot_be_read_holds_up_no_other(tmp_path: Path, content: bytes) -> None:
    outbox = Outbox(tmp_path)
    outbox.put(OPENED)
    [torn] = tmp_path.glob("*.json")
    torn.write_bytes(content)
    outbox.put(HELD)
    assert (outbox.waiting(), outbox.damaged()) == (1, {torn: None})
    assert [each["state"] for each in outbox.thread(OPENED.key)] == [HELD.state]
    assert outbox.deliver().delivered == 1
    assert torn.read_bytes() == content, "it stays where it was"
    # Put once more, as every repeated cycle does: no channel had it, so it is whole again and goes out.
    assert outbox.put(OPENED)
    assert outbox.damaged() == {}
    assert outbox.deliver().delivered == 1
    told = [json.loads(line)["subject"] for line in (tmp_path / "alerts.jsonl").read_text().splitlines()]
    assert told == [HELD.subject, OPENED.subject]


def test_a_file_channel_that_holds_anything_else_is_written_on(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.put(OPENED)
    [document] = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    (tmp_path / "alerts.jsonl").write_bytes(bytes(range(256)) + b"\n[1]\n7\n{}\n" + b"\xff" * 9)
    assert outbox.deliver().delivered == 1
    last = (tmp_path / "alerts.jsonl").read_bytes().splitlines()[-1]
    assert json.loads(last)["id"] == document["id"]
    assert outbox.damaged() == {}
