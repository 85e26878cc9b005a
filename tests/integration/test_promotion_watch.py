"""Shadow, promotion, a planted worse champion, automatic rollback: whole cycles on real tables and a real registry."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import ledger
from flows.alerting import outbox_of
from flows.audit import verify
from flows.context import Context, open_context
from flows.cycle import CycleReport, run_steps
from flows.demo import after, drop, write_demo_config
from flows.lives import current_life
from flows.promotion_watch import watch_promotions
from flows.promotions import APPROVED, MOVED, REFUSED, ROLLED_BACK, WATCH_ENDED, WATCHED
from flows.respond import train_and_consider
from softad.simulation import InspectionLine

SMALL = {"epochs": 12, "patience": 4, "hidden": [32], "thetas": [0.2], "batch_size": 128, "learning_rate": 0.01}
WIDE = {"mean_margin": 99.0, "tail_margin": 99.0, "stability_margin": 99.0, "recall_margin": 1.0, "slice_margin": 99.0}
FAIR = {"mean_margin": 0.3, "tail_margin": 0.3, "stability_margin": 0.3, "recall_margin": 0.2}


class Line:
    """The demo's line in a folder, with cycles by week."""

    def __init__(self, workspace: Path, rows: int = 500) -> None:
        self.workspace, self.line = workspace, InspectionLine(seed=1, rows_per_week=rows)
        self.path = write_demo_config(workspace)

    @property
    def context(self) -> Context:
        return open_context(None, self.workspace)

    def configure(self, **sections: dict[str, Any]) -> None:
        document = yaml.safe_load(self.path.read_text())
        for name, values in sections.items():
            document[name] = document.get(name, {}) | values
        self.path.write_text(yaml.safe_dump(document))

    def cycle(self, week: int, *weeks: int) -> CycleReport:
        for one in weeks or (week,):
            drop(self.context, self.line, one)
        return run_steps(self.context, now=after(self.line, week))

    def challenger(self, week: int, **training: Any) -> Any:
        self.configure(training=SMALL | training)
        return train_and_consider(self.context, reason=f"week {week}", actor="softad", now=after(self.line, week))

    def entries(self, *actions: str) -> list[ledger.Entry]:
        return [entry for entry in ledger.read(self.context.store) if entry.action in actions]


@pytest.fixture
def line(tmp_path: Path, empty_mlflow: Path) -> Line:
    made = Line(tmp_path / "workspace")
    made.configure(
        training=SMALL, monitoring={"min_reference_rows": 200, "html_reports": 0}, ingest={"settle_seconds": 0},
        promotion=WIDE | {"shadow_windows": 1, "probation_windows": 2},
    )  # fmt: skip
    (made.workspace / "mlflow").mkdir()
    shutil.copy(empty_mlflow, made.workspace / "mlflow" / "mlflow.db")
    return made


def test_shadow_promotion_a_planted_worse_champion_and_automatic_rollback(line: Line) -> None:
    line.cycle(0, -2, -1, 0)
    assert line.context.tracker.champion() == "1"
    line.configure(promotion=FAIR)

    # The challenger passes the gates, and is judged beside the champion before it is promoted.
    line.configure(promotion=WIDE)
    action = line.challenger(0, learning_rate=0.008)
    assert action.waits and action.decision.needs == "shadow" and line.context.tracker.champion() == "1"
    line.configure(promotion=FAIR)
    report = line.cycle(1)
    (look,) = line.entries(WATCHED)
    assert (look.details["kind"], look.details["against"], look.details["rows"] > 400) == ("shadow", "1", True)
    assert line.context.tracker.champion() == "2" and any("champion now" in note for note in report.notes)
    assert current_life(line.context.store).model_version == "2"
    assert [entry.subject for entry in line.entries(APPROVED)] == ["2"]
    assert [told["state"] for told in outbox_of(line.context).thread("demo:version-2")] == ["made"]

    # A worse one is planted: gates as wide as a barn door, and no shadow.
    line.configure(promotion=WIDE | {"shadow_windows": 0})
    planted = line.challenger(1, epochs=1, hidden=[2], learning_rate=0.0005)
    assert planted.promoted and line.context.tracker.champion() == "3"
    assert current_life(line.context.store).model_version == "3"
    line.configure(promotion=FAIR, training=SMALL)
    report = line.cycle(2)
    tracker = line.context.tracker
    assert (tracker.champion(), tracker.previous()) == ("2", "3")
    assert any(note.startswith("version 2 is the champion again: version 3 was shown worse") for note in report.notes)
    assert current_life(line.context.store).model_version == "2", "the one before is watched from now on"
    end = line.entries(WATCH_ENDED)[-1]
    assert (end.details["kind"], end.subject, "mean" in end.details["worse"]) == ("probation", "3", True)
    assert [(entry.action, entry.subject, entry.actor) for entry in line.entries(ROLLED_BACK, MOVED, REFUSED)][-3:] == [
        (ROLLED_BACK, "2", "softad"), (MOVED, "2", "softad"), (REFUSED, "3", "softad"),
    ]  # fmt: skip
    (told,) = outbox_of(line.context).thread("demo:version-3")
    assert told["subject"] == "demo: the new model did worse - the one before is in use again"
    assert told["state"] == "undone"

    # Again is nothing; and a person's word stands above it: forth again by hand, nothing takes it back.
    before = len(ledger.read(line.context.store))
    assert watch_promotions(line.context, now=after(line.line, 2)) == []
    assert len(ledger.read(line.context.store)) == before
    assert verify(line.context.store).faults == ()


def test_a_challenger_that_is_worse_in_shadow_is_never_used(line: Line) -> None:
    line.cycle(0, -2, -1, 0)
    assert line.challenger(0, epochs=1, hidden=[2], learning_rate=0.0005).waits
    line.configure(promotion=FAIR, training=SMALL)
    crash_between(line)
    line.cycle(1)
    assert line.context.tracker.champion() == "1"
    assert [(entry.subject, entry.actor) for entry in line.entries(REFUSED)] == [("2", "softad")]
    assert [told["state"] for told in outbox_of(line.context).thread("demo:version-2")] == ["worse"]
    assert line.entries(APPROVED) == [] and len(line.entries(MOVED)) == 1


def crash_between(line: Line) -> None:
    """A process that dies right after it wrote down how the watch ended."""
    import flows.promotion_watch as module

    drop(line.context, line.line, 1)
    kept: Callable[..., Any] = module._finish

    class Cut(Exception):
        pass

    def cut(*_: Any, **__: Any) -> list[str]:
        raise Cut

    module._finish = cut  # type: ignore[assignment]
    try:
        with pytest.raises(Cut):
            run_steps(line.context, now=after(line.line, 1))
    finally:
        module._finish = kept  # type: ignore[assignment]
    assert len(line.entries(WATCH_ENDED)) == 1 and line.entries(REFUSED) == []
