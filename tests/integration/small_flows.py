"""A cycle and a retraining that only keep a diary: what the deployments run in tests of the local system."""

from __future__ import annotations

import fcntl
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow


def note(workspace: str, **entry: object) -> None:
    """Append one line to the diary, in one write, so that two processes never mix theirs."""
    line = json.dumps({**entry, "pid": os.getpid(), "at": time.time()}) + "\n"
    descriptor = os.open(Path(workspace) / "diary.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


@flow(name="cycle")
def cycle_flow(config: str, workspace: str, trigger: str = "inline") -> None:
    """Note the tick; where the file `shift.json` lies, report its content as a shift, once."""
    note(workspace, flow="cycle", trigger=trigger, config=config)
    asked = Path(workspace) / "shift.json"
    if asked.exists():
        from flows.events import Shift, emit_shift

        shift = Shift(config=config, workspace=workspace, **json.loads(asked.read_text()))
        asked.unlink()
        note(workspace, flow="cycle", event=str(emit_shift(shift, occurred=datetime.now(UTC))))


@flow(name="retrain", log_prints=False)
def retrain_flow(config: str, workspace: str, reason: str, incident: str | None = None) -> None:
    """Hold a lock for as many seconds as the file `seconds` says; finished once per incident."""
    root = Path(workspace)
    note(workspace, flow="retrain", step="asked", reason=reason, incident=incident)
    with (root / "retrain.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = root / f"done-{incident}"
        if done.exists():
            note(workspace, flow="retrain", step="already", incident=incident)
            return
        note(workspace, flow="retrain", step="started", incident=incident)
        until = time.monotonic() + float((root / "seconds").read_text())
        while time.monotonic() < until:
            print("still training", flush=True)  # a worker that dies takes its end of the pipe with it
            time.sleep(0.2)
        done.touch()
        note(workspace, flow="retrain", step="finished", incident=incident)
