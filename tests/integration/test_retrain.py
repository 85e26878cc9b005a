"""Retraining on real tables and a real MLflow: what a run records, and that it happens once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows.dataset import labelled_rows
from flows.errors import BadConfig, BadInput, Refused, Unavailable
from flows.holdout import trained_rows
from flows.retrain import kept_versions, latest_training, retrain
from flows.run_files import copy_of
from flows.settings import Settings
from flows.tracking import Tracker
from monitoring.incidents import Incident


def with_training(plant: Any, **changes: Any) -> Any:
    training = plant.settings.training.model_copy(update=changes)
    plant.settings = plant.settings.model_copy(update={"training": training})
    return plant


def train(plant: Any, reason: str = "again", **more: Any) -> Any:
    return retrain(**plant.parts(), now=plant.after(1), reason=reason, **more)


# -- what is recorded -------------------------------------------------------------------------------------------------


def test_a_run_says_what_it_was_made_of(trained: Any) -> None:
    tracker = trained.tracker
    training = latest_training(tracker)
    run = tracker.run(training.run_id)
    assert run.status == "FINISHED"
    for name in (
        "code.version", "code.digest", "code.commit", "env.python", "env.torch", "history.rule", "config.digest",
        "delta.inspections", "delta.labels", "training.seed", "rows.train", "excluded.rules",
    ):  # fmt: skip
        assert run.params[name], name
    assert run.params["delta.inspections"] == str(training.versions["inspections"])
    for part in ("validation", "holdout"):
        for figure in ("mean", "tail", "stability"):
            for model in ("", "erm_"):
                assert {f"{model}{part}_{figure}", f"{model}{part}_{figure}_low"} <= set(run.metrics)
    assert {"holdout_concentration_gini", "difference_tail_high", "holdout_uncalibrated_tail"} <= set(run.metrics)
    assert sum(training.figures["soft"]["holdout"]["histogram"]["counts"]) == training.rows["holdout"]
    children = {child.name: child for child in tracker.children(training.run_id)}
    assert set(children) == {"erm", "theta 0.1", "theta 0.3"}
    for child in children.values():
        assert child.status == "FINISHED"
        assert {"validation_mean", "validation_tail", "validation_stability", "temperature"} <= set(child.metrics)
        steps = tracker.client.get_metric_history(child.run_id, "epoch_validation")
        assert len(steps) == child.metrics["epochs"]


def test_the_figures_are_those_of_the_model_on_its_held_out_rows(trained: Any) -> None:
    training = latest_training(trained.tracker)
    rows = labelled_rows(trained.store, trained.settings)
    held = rows[rows["fold"] == "holdout"]
    bundle = trained.tracker.load(training.version)
    losses = bundle.row_losses(held, held["label"].to_numpy())
    assert training.figures["soft"]["holdout"]["mean"]["value"] == pytest.approx(losses.mean())
    assert training.figures["soft"]["holdout"]["stability"]["value"] == pytest.approx(losses.std())
    plain = trained.tracker.load_reference(training.version)
    assert plain.metadata["theta"] is None and bundle.metadata["theta"] == training.theta
    other = plain.row_losses(held, held["label"].to_numpy())
    assert training.figures["erm"]["holdout"]["mean"]["value"] == pytest.approx(other.mean())


def test_trained_and_held_out_rows_are_apart_and_all_accounted_for(trained: Any) -> None:
    rows = trained_rows(trained.tracker, "1")
    assert len(rows) == 450 and rows["_id"].is_unique
    training = latest_training(trained.tracker)
    assert rows["fold"].value_counts().to_dict() == {
        name: training.rows[name] for name in ("train", "validation", "holdout")
    }
    today = labelled_rows(trained.store, trained.settings).set_index("_id")["fold"]
    assert (today[rows["_id"]].to_numpy() == rows["fold"].to_numpy()).all()


def test_compaction_is_told_which_versions_to_keep(trained: Any) -> None:
    versions = latest_training(trained.tracker).versions
    kept = kept_versions(trained.tracker)
    assert kept == {table: {number} for table, number in versions.items()}


# -- once ------------------------------------------------------------------------------------------------------------


def test_the_same_reason_trains_once(trained: Any) -> None:
    first = latest_training(trained.tracker)
    again = retrain(**trained.parts(), now=trained.after(5), reason="first")
    assert again.reused and (again.run_id, again.version, again.digest) == (first.run_id, first.version, first.digest)
    assert again.figures == first.figures and again.since == first.since
    assert len(trained.tracker.runs()) == 1


def test_other_training_settings_are_another_training(trained: Any) -> None:
    other = retrain(**with_training(trained, seed=3).parts(), now=trained.after(0), reason="first")
    assert not other.reused and other.version == "2"


KILLER = """
import json, os, signal, sys
from datetime import datetime, UTC
from pathlib import Path
from flows.settings import Settings
from flows.workspace import Workspace
from flows.store import Store
from flows.tracking import Tracker
from flows.retrain import retrain

class Dying(Tracker):
    pass

def die(*arguments, **more):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(Dying, sys.argv[3], die)
settings = Settings.model_validate(json.loads(Path(sys.argv[1]).read_text()))
place = Workspace.open(Path(sys.argv[2]), settings=settings)
retrain(Store(place.tables), Dying(settings, place), settings, place, now=datetime.now(UTC), reason="killed")
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", ["log_model", "finish", "register"])
def test_a_kill_anywhere_ends_in_one_finished_run(trained: Any, tmp_path: Path, at: str) -> None:
    (tmp_path / "config.json").write_text(trained.settings.model_dump_json(exclude_unset=True))
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path / "config.json"), str(trained.workspace.root), at], check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [one.version for one in trained.tracker.versions()] == ["1"]
    training = retrain(**trained.parts(), now=trained.after(1), reason="killed")
    assert training.version == "2"
    assert training.reused == (at == "register"), "a run that had finished is only registered"
    runs = trained.tracker.runs()
    assert sorted(run.status for run in runs) == (
        ["FINISHED"] * 2 if at == "register" else ["FINISHED"] * 2 + ["KILLED"]
    )
    for run in runs:
        assert all(child.status != "RUNNING" for child in trained.tracker.children(run.run_id))
    assert [one.version for one in trained.tracker.versions()] == ["1", "2"]


def test_a_candidate_left_open_beside_a_failed_training_is_ended_by_the_next(trained: Any) -> None:
    class FullFor(Tracker):
        """MLflow's disk is full whenever a candidate is to be ended, and has room for the training's own end."""

        def finish(self, run_id: str, status: str = "FINISHED") -> None:
            if self.run(run_id).parent is not None:
                raise Unavailable("MLflow: the disk is full")
            super().finish(run_id, status)

    parts = trained.parts()
    full = FullFor(parts["settings"], parts["workspace"])
    with pytest.raises(Unavailable, match="the disk is full"):
        retrain(**(parts | {"tracker": full}), now=trained.after(1), reason="full")
    (failed, _) = trained.tracker.runs()
    assert failed.status == "FAILED"
    assert [child.status for child in trained.tracker.children(failed.run_id)] == ["RUNNING"]
    train(trained, "full")
    for run in trained.tracker.runs():
        assert all(part.status != "RUNNING" for part in (run, *trained.tracker.children(run.run_id)))


# -- the same again ---------------------------------------------------------------------------------------------------


def test_at_run_reads_the_same_rows_and_gives_the_same_weights(trained: Any) -> None:
    first = latest_training(trained.tracker)
    trained.add(1)
    corrected = trained.store.read("inspections", order="_seq").head(1).assign(_version=2, torque_nm=99.0)
    trained.store.append("inspections", corrected, key="correction")
    trained.store.append(
        "labels", pd.DataFrame({"_id": corrected["_id"], "label": ["defect"], "_version": [2]}), key="correction"
    )
    with_training(trained, seed=7, epochs=1)
    again = train(trained, at_run=first.run_id)
    assert again.digest == first.digest
    assert again.version == first.version, "the same model is no new version"
    assert again.repeats == first.run_id and again.run_id != first.run_id
    assert train(trained, at_run=first.run_id).reused


def test_at_run_refuses_rows_that_are_not_what_they_were(trained: Any) -> None:
    first = latest_training(trained.tracker)
    path = copy_of(trained.tracker, first.run_id, "lineage/rows.parquet")
    rows = pd.read_parquet(path)
    rows.loc[0, "label"] = "defect" if rows.loc[0, "label"] == "ok" else "ok"
    rows.to_parquet(path)
    with pytest.raises(Refused, match="was trained on 450 rows, and the tables give other ones"):
        train(trained, at_run=first.run_id)
    with pytest.raises(BadConfig, match="has no run 'nothing'"):
        train(trained, at_run="nothing")


# -- incidents --------------------------------------------------------------------------------------------------------


def an_incident(plant: Any, **more: Any) -> Incident:
    known = {"key": "line-a-1", "model": "line-a", "opened_at": plant.after(0), "window": "2026-W02",
             "since": plant.line.start, "verdict": "inspect", "column": "machine", "value": "M03"}  # fmt: skip
    return Incident.from_dict(known | more)


def test_while_nobody_has_answered_the_machine_is_kept_out_and_the_model_is_held(trained: Any) -> None:
    trained.add(1)
    since = trained.after(0).replace(day=5)
    incident = an_incident(trained, since=since)
    trained.incident(**incident.to_dict())
    held = train(trained, "inspect:line-a-1", incident=incident)
    assert held.held and held.since is None and held.incident == "line-a-1"
    rows = trained_rows(trained.tracker, held.version).merge(
        trained.store.read("inspections", columns=["_id", "machine", "_time"]), on="_id"
    )
    hit = (rows["machine"] == "M03") & (rows["_time"] >= since)
    assert not hit.any() and held.rows["excluded"] > 3
    assert (rows["machine"] == "M03").any(), "its rows from before the change stay"
    run = trained.tracker.run(held.run_id)
    (rule,) = json.loads(run.params["excluded.rules"])
    assert rule["incident"] == "line-a-1" and run.params["rows.excluded"] == str(held.rows["excluded"])

    trained.incident(**an_incident(trained, since=since).answered("new-normal", actor="a", at=since).to_dict())
    answered = an_incident(trained, since=since).answered("new-normal", actor="a", at=since)
    free = train(trained, "line-a-1:2026-W02", incident=answered)
    assert not free.held and free.rows["excluded"] == 0
    assert free.since == since


def test_after_a_repair_no_row_from_between_is_ever_trained_on(trained: Any) -> None:
    trained.add(1, 2)
    since, until = trained.after(0).replace(day=5), trained.after(0).replace(day=14)
    repaired = an_incident(trained, since=since).answered("repaired", actor="a", at=until, repaired_at=until)
    trained.incident(**repaired.closed(until, reason="repaired").to_dict())
    training = train(trained, "monthly")
    rows = trained_rows(trained.tracker, training.version).merge(
        trained.store.read("inspections", columns=["_id", "machine", "_time"]), on="_id"
    )
    machine = rows[rows["machine"] == "M03"]
    assert not machine["_time"].between(since, until, inclusive="left").any()
    assert (machine["_time"] >= until).any() and not training.held


# -- what cannot be trained -------------------------------------------------------------------------------------------


def test_too_few_rows(new_plant: Callable[..., Any]) -> None:
    plant = new_plant(rows_per_week=50)
    plant.add(-1, 0)
    with pytest.raises(BadInput, match=r"100 labelled rows in the last 26 windows, and training needs at least 200"):
        train(plant)
    assert plant.tracker.runs() == [] and plant.tracker.versions() == []


def test_rows_beyond_the_history_do_not_count(new_plant: Callable[..., Any]) -> None:
    plant = with_training(new_plant(rows_per_week=150), history=2)
    plant.add(-2, -1, 0)
    training = train(plant)
    assert sum(training.rows.values()) == 300
    assert plant.tracker.run(training.run_id).params["history.first"] == plant.line.week_key(-1)


def test_one_class_only(new_plant: Callable[..., Any]) -> None:
    plant = new_plant(rows_per_week=300)
    plant.add(0, labels=False)
    data = plant.line.week(0).labels
    plant.label(data.assign(label="ok"), key="labels")
    with pytest.raises(BadInput, match="there is only the class 'ok' among the training rows"):
        train(plant)
    assert plant.tracker.runs() == []


def test_a_label_that_is_no_class(new_plant: Callable[..., Any]) -> None:
    plant = new_plant(rows_per_week=300)
    plant.add(0, labels=False)
    labels = plant.line.week(0).labels
    labels.loc[5, "label"] = "crack"
    plant.label(labels, key="labels")
    with pytest.raises(BadInput, match=f"'crack' of row '{labels.loc[5, 'id']}' is no class .* add-class crack"):
        train(plant)


def test_two_groups_cannot_be_split(new_plant: Callable[..., Any], line_config: Callable[..., Settings]) -> None:
    settings = line_config(data={"group": "half"}, training={"split": {"by": "group"}})
    plant = new_plant(rows_per_week=300, settings=settings)
    plant.add(0)
    frame = plant.store.read("inspections").assign(_version=2)
    frame["half"] = np.where(frame["_seq"] < 150, "a", "b")
    plant.store.append("inspections", frame, key="halves")
    with pytest.raises(BadInput, match=r"the split group by 'half' leaves no row in the part .* three groups"):
        train(plant)
    assert plant.tracker.runs() == []


def test_a_training_that_diverges_is_one_sentence_and_leaves_no_version(new_plant: Callable[..., Any]) -> None:
    plant = with_training(new_plant(rows_per_week=300), learning_rate=1e30, optimizer="sgd")
    plant.add(0)
    with pytest.raises(BadConfig, match=r"training diverged .* set a smaller training.learning_rate"):
        train(plant)
    assert [run.status for run in plant.tracker.runs()] == ["FAILED"]
    assert plant.tracker.versions() == []


def test_regression_by_time(new_plant: Callable[..., Any], line_config: Callable[..., Settings]) -> None:
    settings = line_config(
        data={"numeric": ["pressure_bar", "vibration_mm_s", "current_a"], "categorical": []},
        task={"kind": "regression"}, training={"split": {"by": "time"}, "hidden": [8], "epochs": 5},
    )  # fmt: skip
    plant = new_plant(rows_per_week=200, settings=settings)
    plant.add(-1, 0, labels=False)
    rows = plant.store.read("inspections", order="_seq")
    value = (rows["torque_nm"].fillna(34.0)).to_numpy()
    labels = pd.DataFrame({"_id": rows["_id"], "label": [str(v) for v in value], "label_value": value, "_version": 1})
    plant.store.append("labels", labels, key="numbers")
    training = train(plant)
    held = trained_rows(plant.tracker, training.version)
    newest = held.groupby("fold")["_seq"].agg(["min", "max"])
    assert newest.loc["train", "max"] < newest.loc["validation", "min"]
    assert newest.loc["validation", "max"] < newest.loc["holdout", "min"]
    assert training.figures["soft"]["holdout"]["rmse"] > 0
    assert "accuracy" not in training.figures["soft"]["holdout"]
