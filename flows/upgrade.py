"""Bring a workspace of an earlier format forward, after a backup; `softad restore` of that backup goes back."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from flows.backup import Kept, back_up
from flows.errors import BadConfig, Unavailable
from flows.relocation import relocate
from flows.workspace import FORMAT, exclusively, format_of, write_atomically


@dataclass(frozen=True)
class Upgraded:
    """What an upgrade did.

    Attributes
    ----------
    before, after: the workspace's format.
    backup: made before anything was changed; None where nothing had to be.
    """

    before: int
    after: int
    backup: Kept | None


def _to_2(root: Path) -> None:
    """From here on writers hold the whole workspace's lock; the ledger's files get their noted hashes."""
    from flows import ledger
    from flows.store import Store

    for tables in sorted((root / "tables").glob("*/")):
        ledger.seal(Store(tables))


STEPS: dict[int, Callable[[Path], None]] = {2: _to_2}
"""Format -> what brings a workspace to it from the one before; each step may be run again after a crash."""


def upgrade(root: Path, *, now: datetime, to: Path | None = None, wait: float = 900.0) -> Upgraded:
    """Bring the workspace to this program's format.

    The marker is written last: an upgrade that was killed is run again from the start, on steps that stand it.

    Parameters
    ----------
    to: where the backup goes; beside the workspace when not given.

    Raises
    ------
    BadConfig: the workspace is of a newer version, or is none.
    Unavailable: MLflow's database could not be brought forward; the backup's name stands in the sentence.
    """
    root = root.absolute()
    if not (root / "workspace.json").exists():
        raise BadConfig(f"{root} is no workspace, so there is nothing to bring forward; name one with --workspace DIR")
    before = format_of(root)
    if before >= FORMAT:
        from flows.workspace import check_format

        return Upgraded(check_format(root), FORMAT, None)
    configs = [path for path in [root / "config.yaml"] if path.exists()]
    kept = back_up(root, to, now=now, configs=configs, wait=wait)
    with exclusively(root, "an upgrade", wait=wait):
        relocate(root)
        _registry(root, kept)
        for number in range(before + 1, FORMAT + 1):
            logging.getLogger(__name__).info("bringing %s to format %d", root, number)
            STEPS[number](root)
        write_atomically(root / "workspace.json", json.dumps({"format": FORMAT, "since": now.isoformat()}) + "\n")
    return Upgraded(before, FORMAT, kept)


def _registry(root: Path, kept: Kept) -> None:
    """MLflow's own upgrade of its database, which does nothing where it is of this version."""
    database = root / "mlflow" / "mlflow.db"
    if not database.exists():
        return
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{database}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(
            f"{database}: MLflow could not bring its database forward; nothing else was changed; go back with "
            f"`softad restore {kept.path} --replace`, or install the version of MLflow in requirements.lock"
        )
