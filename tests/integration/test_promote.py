"""Promotion on real tables and a real registry: gates kept, aliases moved once, crashes healed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows import ledger
from flows.context import Context
from flows.errors import Refused, Unavailable
from flows.holdout import constant_losses, held_out_rows, trained_rows
from flows.promote import DECIDED, MOVED, Decision, carry_out, consider, refuse, rollback
from flows.retrain import latest_training, retrain
from flows.settings import Settings
from flows.summary import status_document
from flows.tracking import Tracker


def decide(plant: Any, version: str | None = None, **more: Any) -> Decision:
    parts = plant.parts() | more
    training = latest_training(parts["tracker"], version)
    return consider(**parts, training=training, now=plant.after(1), actor="tester")


def challenger(plant: Any, **changes: Any) -> Any:
    training = plant.settings.training.model_copy(update=changes)
    plant.settings = plant.settings.model_copy(update={"training": training})
    return retrain(**plant.parts(), now=plant.after(1), reason="challenger")


def generous(plant: Any, **more: Any) -> Any:
    """Margins that any challenger of these small tables meets, so that the moves can be looked at."""
    wide = {
        "mean_margin": 99.0,
        "tail_margin": 99.0,
        "stability_margin": 99.0,
        "recall_margin": 1.0,
        "slice_margin": 99.0,
    } | more
    plant.settings = plant.settings.model_copy(update={"promotion": plant.settings.promotion.model_copy(update=wide)})
    return plant


def move_back(plant: Any) -> Any:
    return rollback(plant.store, plant.tracker, plant.settings, now=plant.after(2), actor="aiko", reason="noise")


class Cut(Exception):
    """Stands for the end of the process."""


class Dying(Tracker):
    """A tracker whose process ends at one call."""

    at = ""

    def set_champion(self, version: str) -> None:
        if self.at == "before champion":
            raise Cut
        super().set_champion(version)
        if self.at == "after champion":
            raise Cut

    def set_previous(self, version: str) -> None:
        if self.at == "before previous":
            raise Cut
        super().set_previous(version)


def dying(plant: Any, at: str) -> Dying:
    tracker = Dying(plant.settings, plant.workspace)
    tracker.at = at
    return tracker


# -- the first champion ----------------------------------------------------------------------------------------------


def test_the_first_is_promoted_where_it_beats_the_constant(capable: Any) -> None:
    decision = decide(capable)
    assert decision.promoted and decision.first and decision.champion is None
    gate, *costs = decision.gates
    assert gate.name == "constant predictor" and gate.high < 0
    assert [(one.name, one.passed, one.figure > 0) for one in costs] == [
        ("latency", True, True), ("size", True, True), ("export", True, True),
    ]  # fmt: skip
    assert (capable.tracker.champion(), capable.tracker.previous()) == ("1", None)
    entries = ledger.read(capable.store)
    assert [entry.action for entry in entries] == [DECIDED, MOVED]
    assert entries[0].details["gates"][0]["figure"] == gate.figure and entries[0].actor == "tester"


def test_the_constant_knows_the_shares_of_the_training_rows(capable: Any) -> None:
    frame = held_out_rows(capable.store, capable.tracker, capable.settings, ["1"])
    rows = trained_rows(capable.tracker, "1")
    share = ((rows.loc[rows["fold"] == "train", "label"] == "defect").sum() + 1) / ((rows["fold"] == "train").sum() + 2)
    losses = constant_losses(capable.tracker, "1", capable.tracker.load("1"), frame)
    wanted = np.where(frame["label"] == "defect", -np.log(share), -np.log(1 - share))
    assert np.allclose(losses, wanted)


def test_a_model_that_learned_nothing_is_no_first_champion(new_plant: Callable[..., Any]) -> None:
    plant = new_plant(rows_per_week=300)
    plant.add(-1, 0, labels=False)
    rows = plant.store.read("inspections", columns=["_id"], order="_seq")
    noise = np.random.default_rng(0).choice(["ok", "defect"], len(rows))
    labels = pd.DataFrame({"_id": rows["_id"], "label": noise, "_version": 1})
    plant.store.append("labels", labels, key="noise")
    retrain(**plant.parts(), now=plant.after(0), reason="first")
    decision = decide(plant)
    assert not decision.promoted and "it must be lower" in decision.reasons[0]
    assert plant.tracker.champion() is None
    assert [entry.action for entry in ledger.read(plant.store)] == [DECIDED], "a refusal is kept as well"


# -- gates -----------------------------------------------------------------------------------------------------------


def test_every_gate_is_kept_and_a_refusal_moves_nothing(capable: Any) -> None:
    decide(capable)
    capable.add(1)
    challenger(capable, epochs=1, hidden=[2])
    decision = decide(capable)
    assert not decision.promoted and not decision.first and decision.champion == "1"
    assert capable.tracker.champion() == "1"
    (entry,) = [entry for entry in ledger.read(capable.store, action=DECIDED) if entry.subject == "2"]
    kept = {gate["name"]: gate for gate in entry.details["gates"]}
    assert {"mean", "tail", "stability"} <= set(kept) and any(name.startswith("recall") for name in kept)
    for gate in decision.gates:
        assert kept[gate.name]["passed"] == gate.passed and kept[gate.name]["reason"] == gate.reason
    failed = [gate.reason for gate in decision.gates if not gate.passed]
    newest, _ = status_document(Context(capable.settings, capable.workspace))["versions"]
    assert (newest["state"], newest["because"]) == ("refused at the gates", failed[0])
    assert list(decision.reasons) == failed and failed
    assert entry.details["tail_challenger"] == decision.tail_challenger > decision.tail_champion


def test_the_same_decision_is_made_once(capable: Any) -> None:
    decide(capable)
    capable.add(1)
    challenger(capable, epochs=1, hidden=[2])
    first, again = decide(capable), decide(capable)
    assert again == first
    assert len(ledger.read(capable.store, action=DECIDED)) == 2
    assert decide(capable, "1").promoted, "asked again, the champion's own decision is told"
    capable.add(2)
    later = decide(capable)
    assert not later.promoted and "it is not tried again unchanged" in later.reasons[0]
    assert len(ledger.read(capable.store, action=DECIDED)) == 2, "no second look at the held-out rows"


def test_looks_at_the_held_out_rows_are_counted_and_fresh_rows_preferred(capable: Any) -> None:
    capable.settings = capable.settings.model_copy(
        update={"promotion": capable.settings.promotion.model_copy(update={"fresh_rows": 150})}
    )
    decide(capable)
    capable.add(1)
    challenger(capable, epochs=1, hidden=[2])
    first = decide(capable)
    assert first.holdout is not None and (first.holdout["looks"], first.holdout["fresh"]) == (0, first.rows)
    challenger(capable, epochs=1, hidden=[3])
    second = decide(capable)
    assert second.holdout is not None and (second.holdout["looks"], second.holdout["fresh"]) == (1, 0)
    assert second.rows == first.rows and "were looked at once for this champion; 0 have come since" in str(
        second.reasons
    )
    capable.add(2)
    challenger(capable, epochs=1, hidden=[4])
    third = decide(capable)
    assert third.holdout is not None and third.holdout["looks"] == 2
    assert third.rows == third.holdout["fresh"] < first.rows and "only these are looked at" in str(third.reasons)


def test_too_few_held_out_rows_refuse(capable: Any) -> None:
    generous(capable, min_holdout_rows=5000)
    decision = decide(capable)
    assert not decision.promoted and "at least 5000 are needed: wait for more labels" in decision.reasons[0]


@pytest.mark.parametrize(
    ("limit", "said"), [({"row_ms": 1e-6}, "one part alone takes"), ({"size_mb": 1e-6}, "its weights take")]
)
def test_too_slow_or_too_large_is_refused(capable: Any, limit: dict[str, float], said: str) -> None:
    generous(capable, **limit)
    decision = decide(capable)
    assert not decision.promoted and len(decision.reasons) == 1 and decision.reasons[0].startswith(said)


def test_the_same_model_again_is_refused_as_such(capable: Any) -> None:
    decide(capable)
    same = retrain(**capable.parts(), now=capable.after(1), reason="the same rows once more")
    assert same.version == "2" and same.digest == latest_training(capable.tracker, "1").digest
    decision = decide(capable)
    assert not decision.promoted and "is the same model as the champion, version 1" in decision.reasons[0]


def test_no_row_that_either_model_has_seen_is_judged_on(capable: Any) -> None:
    """Also after someone changed the seed of the split, so that rows moved between the parts."""
    decide(capable)
    capable.add(1)
    challenger(capable, seed=9, epochs=2)
    frame = held_out_rows(capable.store, capable.tracker, capable.settings, ["1", "2"])
    for version in ("1", "2"):
        rows = trained_rows(capable.tracker, version)
        assert not set(frame["_id"]) & set(rows.loc[rows["fold"] != "holdout", "_id"])
    assert 0 < len(frame) < 400


def test_held_out_rows_are_recent_and_old_ones(capable: Any) -> None:
    decide(capable)
    capable.add(1, 2)
    challenger(capable, epochs=2)
    windows = set(held_out_rows(capable.store, capable.tracker, capable.settings, ["1", "2"])["window"])
    assert windows == {capable.line.week_key(week) for week in (-2, -1, 0, 1, 2)}


def test_a_new_class_is_compared_where_both_know_the_rows(capable: Any) -> None:
    decide(capable)
    capable.add(1, labels=False)
    labels = capable.line.week(1).labels
    labels.loc[::4, "label"] = "crack"
    capable.label(labels, key="with-cracks")
    task = capable.settings.task.model_copy(update={"classes": ["ok", "defect", "crack"]})
    capable.settings = capable.settings.model_copy(update={"task": task})
    challenger(capable, epochs=2)
    decision = decide(capable)
    assert "held-out rows of classes that one of the models does not know" in decision.reasons[-1]
    assert not any(gate.name == "recall: crack" for gate in decision.gates)


# -- held ------------------------------------------------------------------------------------------------------------


def test_while_an_incident_waits_for_an_answer_nothing_is_promoted(capable: Any) -> None:
    capable.incident(column="machine", value="M03", since="2026-01-01T00:00:00+00:00")
    decision = decide(capable)
    assert not decision.promoted and decision.gates == ()
    assert decision.reasons == (
        "version 1 is held until line-a-1 is answered: softad alerts ack line-a-1 --repaired (or --new-normal)",
    )
    assert capable.tracker.champion() is None
    capable.incident(state="acknowledged", answer="new-normal", column="machine", value="M03")
    assert decide(capable).promoted


# -- crashes and the way back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["before previous", "before champion", "after champion"])
def test_a_crash_between_ledger_and_aliases_is_healed(capable: Any, at: str) -> None:
    decide(capable)
    capable.add(1)
    challenger(generous(capable), epochs=2)
    with pytest.raises(Cut):
        decide(capable, tracker=dying(capable, at))
    assert ledger.read(capable.store, action=DECIDED)[-1].details["promoted"]
    assert len(ledger.read(capable.store, action=MOVED)) == 1
    decision = decide(capable)
    assert decision.promoted and decision.version == "2"
    assert (capable.tracker.champion(), capable.tracker.previous()) == ("2", "1")
    assert len(ledger.read(capable.store, action=DECIDED)) == 2
    assert [entry.subject for entry in ledger.read(capable.store, action=MOVED)] == ["1", "2"]
    assert carry_out(capable.store, capable.tracker, now=capable.after(3)) is None


def test_back_and_forth(capable: Any) -> None:
    decide(capable)
    capable.add(1)
    challenger(generous(capable), epochs=2)
    assert decide(capable).promoted
    back = move_back(capable)
    assert (back.version, back.replaced) == ("1", "2")
    assert (capable.tracker.champion(), capable.tracker.previous()) == ("1", "2")
    forth = move_back(capable)
    assert (forth.version, capable.tracker.champion()) == ("2", "2")
    moves = ledger.read(capable.store, action=MOVED)
    assert sorted((entry.details["from"] or "", entry.details["to"]) for entry in moves) == [
        ("", "1"), ("1", "2"), ("1", "2"), ("2", "1"),
    ]  # fmt: skip
    assert [entry.details["reason"] for entry in ledger.read(capable.store, action="rollback.decided")] == ["noise"] * 2


def test_a_version_that_was_refused_for_good_does_not_come_back_by_a_rollback(capable: Any) -> None:
    decide(capable)
    capable.add(1)
    challenger(generous(capable), epochs=2)
    assert decide(capable).promoted
    assert move_back(capable).version == "1"
    assert refuse(capable.store, capable.tracker, version="2", actor="aiko", reason="scratches", now=capable.after(2))
    with pytest.raises(
        Refused, match=r"version 2, the champion before, was refused for good by aiko on .* \(scratches\)"
    ):
        move_back(capable)
    assert (capable.tracker.champion(), capable.tracker.previous()) == ("1", "2")


@pytest.mark.parametrize("at", ["before previous", "before champion", "after champion"])
def test_a_rollback_that_was_cut_off_is_finished_not_turned_round(capable: Any, at: str) -> None:
    decide(capable)
    capable.add(1)
    challenger(generous(capable), epochs=2)
    decide(capable)
    with pytest.raises(Cut):
        rollback(capable.store, dying(capable, at), capable.settings, now=capable.after(2), actor="a", reason="r")
    back = move_back(capable)
    assert (back.version, back.replaced) == ("1", "2")
    assert (capable.tracker.champion(), capable.tracker.previous()) == ("1", "2")
    assert len(ledger.read(capable.store, action="rollback.decided")) == 1


def test_without_an_earlier_champion_there_is_no_way_back(capable: Any) -> None:
    with pytest.raises(Refused, match="line-a has no earlier champion to go back to"):
        move_back(capable)
    decide(capable)
    with pytest.raises(Refused, match="no earlier champion"):
        move_back(capable)
    assert ledger.read(capable.store, action="rollback.decided") == []


def test_a_registry_that_is_away_decides_nothing(capable: Any) -> None:
    training = latest_training(capable.tracker)
    tracking = capable.settings.tracking.model_copy(update={"uri": "http://127.0.0.1:9"})
    away = Tracker(capable.settings.model_copy(update={"tracking": tracking}), capable.workspace)
    with pytest.raises(Unavailable):
        consider(**capable.parts() | {"tracker": away}, training=training, now=capable.after(1), actor="a")
    assert ledger.read(capable.store) == []
    assert decide(capable).promoted


# -- other tasks -----------------------------------------------------------------------------------------------------


def test_regression_with_groups(new_plant: Callable[..., Any], line_config: Callable[..., Settings]) -> None:
    settings = line_config(
        data={"numeric": ["pressure_bar", "vibration_mm_s", "current_a", "roughness_um"], "categorical": [],
              "group": "machine", "slices": ["line"]},
        task={"kind": "regression", "tolerance": 2.0}, training={"split": {"by": "group"}, "hidden": [8]},
        promotion={"min_holdout_rows": 50},
    )  # fmt: skip
    plant = new_plant(rows_per_week=400, settings=settings)
    plant.add(-1, 0, labels=False)
    rows = plant.store.read("inspections", order="_seq")
    value = (rows["pressure_bar"].fillna(61.0) - 0.5 * rows["vibration_mm_s"].fillna(9.0)).to_numpy()
    labels = pd.DataFrame({"_id": rows["_id"], "label": [str(v) for v in value], "label_value": value, "_version": 1})
    plant.store.append("labels", labels, key="numbers")
    retrain(**plant.parts(), now=plant.after(0), reason="first")
    assert decide(plant).promoted
    known = ledger.read(plant.store, action="folds.assigned")
    assert len(known) == 1 and len(known[0].details["groups"]) == 12
    challenger(plant, epochs=2)
    decision = decide(plant)
    assert {"mean", "tail", "stability", "misses"} <= {gate.name for gate in decision.gates}
    assert "above 2" in next(gate.reason for gate in decision.gates if gate.name == "misses")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_a_challenger_that_learned_a_changed_machine_is_promoted_and_is_better_afterwards(
    new_plant: Callable[..., Any], line_config: Callable[..., Settings], seed: int
) -> None:
    """The whole point: after two weeks with a displaced machine, gates on old and new rows let the better model in."""
    from softad.figures import cvar

    settings = line_config(training={"hidden": [64, 64], "epochs": 40, "patience": 6, "learning_rate": 0.002})
    plant = new_plant(rows_per_week=2000, settings=settings, seed=seed, change="concentrated", change_week=10)
    plant.add(*range(-7, 1))
    retrain(**plant.parts(), now=plant.after(0), reason="first")
    assert decide(plant).promoted
    plant.add(*range(1, 12))
    later = retrain(**plant.parts(), now=plant.after(11), reason="new-normal")
    decision = decide(plant)
    assert decision.promoted, decision.reasons
    after = pd.concat([plant.line.week(k).inspections.merge(plant.line.week(k).labels, on="id") for k in range(12, 16)])
    tails = [
        cvar(plant.tracker.load(one).row_losses(after, after["label"].to_numpy()), 0.9) for one in ("1", later.version)
    ]
    assert tails[1] < 0.8 * tails[0]


def test_a_decision_can_be_read_back_whole(capable: Any) -> None:
    first = decide(capable)
    assert decide(capable) == replace(first, promoted=True)
