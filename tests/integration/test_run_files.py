"""What a training left in its run, where the copy in the cache or the artifact itself is damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.errors import Damaged, Unavailable
from flows.holdout import trained_rows
from flows.retrain import retrain
from flows.run_files import DOCUMENT, LINEAGE, ROWS, SETTINGS, copy_of
from flows.trainings import latest_training

TORN: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda content: content[: len(content) // 2],
    "nothing": lambda _: b"",
    "something else": lambda _: b'{"a": [1, null]}',
    "not even text": lambda _: bytes(range(256)),
}


def reads(plant: Any, file: str) -> Any:
    """What is read of a file where it is needed."""
    run = plant.tracker.version("1").run_id
    if file == DOCUMENT:
        return latest_training(plant.tracker)
    if file == ROWS:
        return len(trained_rows(plant.tracker, "1"))
    return retrain(**plant.parts(), now=plant.after(9), reason="again", at_run=run).digest


def tear(path: Path, how: str) -> None:
    path.write_bytes(TORN[how](path.read_bytes()))


@pytest.mark.parametrize("how", TORN)
@pytest.mark.parametrize("file", [DOCUMENT, ROWS])
def test_a_damaged_copy_is_fetched_anew(trained: Any, file: str, how: str) -> None:
    before = reads(trained, file)
    run = trained.tracker.version("1").run_id
    copy = copy_of(trained.tracker, run, f"{LINEAGE}/{file}")
    assert copy.is_relative_to(trained.workspace.cache)
    tear(copy, how)
    assert reads(trained, file) == before


def test_an_artifact_that_is_gone_is_named(trained: Any) -> None:
    run = trained.tracker.version("1").run_id
    (artifact,) = (trained.workspace.root / "mlflow" / "artifacts").rglob(f"{run}/artifacts/{LINEAGE}/{ROWS}")
    copy_of(trained.tracker, run, f"{LINEAGE}/{ROWS}").unlink()
    artifact.unlink()
    with pytest.raises(Unavailable, match=f"cannot give out {ROWS}.*restore it from a backup"):
        reads(trained, ROWS)


@pytest.mark.parametrize("how", TORN)
@pytest.mark.parametrize("file", [DOCUMENT, ROWS, SETTINGS])
def test_a_damaged_artifact_is_told_and_its_copy_is_not_kept(trained: Any, file: str, how: str) -> None:
    run = trained.tracker.version("1").run_id
    (artifact,) = (trained.workspace.root / "mlflow" / "artifacts").rglob(f"{run}/artifacts/{LINEAGE}/{file}")
    whole = artifact.read_bytes()
    copy = copy_of(trained.tracker, run, f"{LINEAGE}/{file}")
    copy.unlink()
    tear(artifact, how)
    with pytest.raises(Damaged, match=rf"run {run} of \S+: its file lineage/{file} cannot be read .*from a backup"):
        reads(trained, file)
    assert not copy.exists()
    artifact.write_bytes(whole)
    reads(trained, file)
