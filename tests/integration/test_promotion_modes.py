"""Who lets a challenger in: a person, or nobody in time; two at once; a registry that lost a model or a byte of it."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flows import ledger
from flows.alerting import outbox_of
from flows.audit import verify
from flows.cli import app
from flows.context import Context
from flows.errors import Refused
from flows.promote import DECIDED, carry_out, champion_in_use, consider, rollback
from flows.promotion_watch import watch_promotions
from flows.promotions import APPROVED, EXPIRED, MOVED, OVERTAKEN, REFUSED
from flows.retrain import latest_training, retrain
from monitoring.incidents import Incident

WIDE = {"mean_margin": 99.0, "tail_margin": 99.0, "stability_margin": 99.0, "recall_margin": 1.0, "slice_margin": 99.0}


def configured(plant: Any, **promotion: Any) -> Any:
    rules = plant.settings.promotion.model_copy(update=WIDE | promotion)
    plant.settings = plant.settings.model_copy(update={"promotion": rules})
    return plant


def decide(plant: Any, version: str, **more: Any) -> Any:
    parts = plant.parts() | {"now": plant.after(1), "actor": "softad"} | more
    return consider(training=latest_training(parts["tracker"], version), **parts)


def challenger(plant: Any, **changes: Any) -> str:
    training = plant.settings.training.model_copy(update={"epochs": 2, **changes})
    settings = plant.settings.model_copy(update={"training": training})
    made = retrain(**plant.parts() | {"settings": settings}, now=plant.after(1), reason=f"challenger {changes}")
    return str(made.version)


def actions(plant: Any) -> list[tuple[str, str, str]]:
    return [(entry.action, entry.subject, entry.actor) for entry in ledger.read(plant.store)]


@pytest.fixture
def two(capable: Any) -> Any:
    """A champion, version 1, and a challenger, version 2, that any gate lets through."""
    configured(capable)
    assert decide(capable, "1").promoted
    assert challenger(capable) == "2"
    return capable


@pytest.fixture
def command(two: Any) -> Any:
    """The command line on the same workspace."""
    document = two.settings.model_dump(mode="json", exclude_defaults=True)
    (two.workspace.root / "config.yaml").write_text(yaml.safe_dump(document))

    def run(*words: str) -> tuple[int, dict[str, Any]]:
        result = CliRunner().invoke(app, [*words, "--workspace", str(two.workspace.root), "--json"])
        return result.exit_code, json.loads(result.stdout)

    return run


def test_in_advise_mode_a_person_promotes_what_the_gates_passed(two: Any) -> None:
    configured(two, mode="advise")
    told = decide(two, "2")
    assert (told.passed, told.promoted, told.needs) == (True, False, "person")
    assert "version 2 waits for a person: softad promote 2 --by NAME" in told.reasons[-1]
    assert decide(two, "2").reasons == told.reasons and two.tracker.champion() == "1"
    context = Context(two.settings, two.workspace)
    for _ in range(2):
        assert watch_promotions(context, now=two.after(1)) == [
            "version 2 passed every gate and waits for a person: softad promote 2"
        ]
    (thread,) = [outbox_of(context).thread("line-a:version-2")]
    assert [told["state"] for told in thread] == ["waits"]
    two.add(1)
    done = decide(two, "2", by_person=True, actor="aiko", named="declared")
    assert done.promoted and (two.tracker.champion(), two.tracker.previous()) == ("2", "1")
    assert [one for one in actions(two) if one[1] == "2"] == [
        (DECIDED, "2", "softad"), (APPROVED, "2", "aiko"), (MOVED, "2", "aiko"),
    ]  # fmt: skip
    (approved,) = ledger.read(two.store, action=APPROVED)
    assert approved.details["named"] == "declared"
    assert verify(two.store).faults == ()


def test_who_is_refused_stays_out_and_time_runs_out(two: Any, command: Any) -> None:
    def states() -> dict[str, tuple[str, str]]:
        return {one["version"]: (one["state"], one["because"]) for one in command("status")[1]["versions"]}

    assert states() == {"2": ("not judged yet", ""), "1": ("champion", "")}
    status, said = command("promote", "--refuse", "2")
    assert status == 2 and "say why version 2 is refused: --reason TEXT" in said["error"]
    status, said = command("promote", "--refuse", "1", "--reason", "x")
    assert status == 4 and "to take it out of use: softad rollback" in said["error"]
    assert command("promote", "--refuse", "2", "--reason", "wrong supplier", "--by", "ken")[0] == 0
    assert command("promote", "--refuse", "2", "--reason", "again", "--by", "aiko")[1]["new"] is False
    status, said = command("promote", "2")
    assert status == 4 and "was refused on" in said["decision"]["reasons"][0] and "by ken (wrong supplier)" in str(said)
    assert [one for one in actions(two) if one[1] == "2"] == [(REFUSED, "2", "ken")]
    assert states()["2"] == ("refused by ken", "wrong supplier")
    assert challenger(configured(two, mode="advise"), epochs=3) == "3"
    decide(two, "3")
    context, late = Context(two.settings, two.workspace), two.after(1) + timedelta(hours=73)
    watch_promotions(context, now=two.after(1))
    assert states()["3"] == ("passed every gate, waits", "")
    for _ in range(2):
        watch_promotions(context, now=late)
    assert [told["state"] for told in outbox_of(context).thread("line-a:version-3")] == ["waits", "expired"]
    assert len(ledger.read(two.store, action=EXPIRED)) == 1
    assert states()["3"] == ("passed every gate, was not put to use", "")
    again = decide(two, "3", by_person=True, actor="aiko", now=late)
    assert again.promoted and len(ledger.read(two.store, action=DECIDED)) == 3, "the gates were asked again"


def test_of_two_decided_at_once_the_first_moves_and_the_other_is_told(two: Any) -> None:
    """Both processes had looked at the gates before either moved an alias."""
    assert challenger(two, epochs=3) == "3"
    slow = two.tracker

    class Meanwhile(type(slow)):  # type: ignore[misc]
        """Right after this process wrote its decision, the other one, which had decided before, is quicker."""

        def set_previous(self, version: str) -> None:
            raise AssertionError("an overtaken decision must move nothing")

    entry = decide_only(two, "2")
    overtaken = Meanwhile(two.settings, two.workspace)
    decide_only(two, "3", after=lambda: carry_out(two.store, two.tracker, now=two.after(1)))
    assert two.tracker.champion() == "2" and entry in {one.key for one in ledger.read(two.store)}
    carry_out(two.store, overtaken, now=two.after(1))
    assert [(action, subject) for action, subject, _ in actions(two)][-4:] == [
        (DECIDED, "2"), (DECIDED, "3"), (MOVED, "2"), (OVERTAKEN, "3"),
    ]  # fmt: skip
    assert (two.tracker.champion(), two.tracker.previous()) == ("2", "1")
    assert decide(two, "3").champion == "2", "before the gates again, it meets the new champion"


def decide_only(plant: Any, version: str, after: Any = None) -> str:
    """The gates' entry in the ledger, with the process ending right after it."""
    from flows.decisions import decide as judge

    training = latest_training(plant.tracker, version)
    decision = judge(**plant.parts(), training=training, champion="1", entries=ledger.read(plant.store))
    assert decision.passed
    key = f"promotion:{version}:1:here"
    details = {**decision.document(), "promoted": True, "from": "1", "to": version, "digest": training.digest}
    ledger.enter(plant.store, key=key, actor="softad", action=DECIDED, subject=version, details=details,
                 at=plant.after(1))  # fmt: skip
    if after is not None:
        after()
    return key


def test_a_second_promotion_on_the_command_line_is_told_and_has_status_4(two: Any, command: Any) -> None:
    with two.workspace.lock("promotion"):
        for words in (("promote", "2"), ("rollback",), ("promote", "--refuse", "2", "--reason", "x")):
            status, said = command(*words)
            assert status == 4 and "another promotion of line-a is running; wait until it has ended" in said["error"]
    assert command("promote", "2", "--by", "aiko")[0] == 0
    status, said = command("rollback", "--reason", "noise", "--by", "ken")
    assert (status, said["champion"], said["by"]) == (0, "1", "ken")
    assert actions(two)[-3:-1] == [("rollback.decided", "1", "ken"), (MOVED, "1", "ken")]


def test_a_version_that_is_held_for_an_answer_is_refused_with_status_4(two: Any, command: Any) -> None:
    incident = Incident("line-a-1", "line-a", two.after(1), "2026-W05", None, "inspect", "machine", "M03")
    two.incident(**incident.to_dict() | {"challenger_version": "2", "held": True})
    before = actions(two)
    status, said = command("promote", "2")
    assert status == 4
    assert said["error"] == (
        "version 2 is held until line-a-1 is answered: softad alerts ack line-a-1 --repaired (or --new-normal)"
    )
    assert actions(two) == before


def test_a_rollback_that_died_before_its_life_is_not_turned_round(two: Any, command: Any) -> None:
    assert command("promote", "2", "--by", "aiko")[0] == 0
    rollback(two.store, two.tracker, two.settings, now=two.after(2), actor="ken", reason="noise")  # and dies here
    for expected in ("1", "2"):  # finished first; asked once more it is another one
        status, said = command("rollback", "--reason", "noise", "--by", "ken")
        assert (status, said["champion"], two.tracker.champion()) == (0, expected, expected)


def test_a_rollback_that_names_what_it_leaves_may_be_repeated(two: Any, command: Any) -> None:
    assert command("promote", "2", "--by", "aiko")[0] == 0
    status, said = command("rollback", "--of", "2", "--reason", "noise", "--by", "ken")
    assert (status, said["champion"], said["was"], said["moved"]) == (0, "1", "2", True)
    before = actions(two)
    for _ in range(2):
        status, said = command("rollback", "--of", "2", "--reason", "noise", "--by", "ken")
        assert (status, said["champion"], said["was"], said["moved"]) == (0, "1", "2", False)
    result = CliRunner().invoke(app, ["rollback", "--of", "2", "--workspace", str(two.workspace.root)])
    assert (result.exit_code, result.stdout) == (
        0, "version 2 is not in use, version 1 is: nothing was changed\n",
    )  # fmt: skip
    assert (two.tracker.champion(), actions(two)) == ("1", before)
    status, said = command("rollback", "--of", "9")
    assert status == 2 and "line-a has no version '9'" in said["error"]


@pytest.mark.parametrize("at", ["before its life", "before the alias"])
def test_a_rollback_that_died_is_finished_by_the_same_words(two: Any, command: Any, at: str) -> None:
    assert command("promote", "2", "--by", "aiko")[0] == 0
    if at == "before its life":
        rollback(two.store, two.tracker, two.settings, now=two.after(2), actor="ken", reason="noise", of="2")
    else:
        details = {"from": "2", "to": "1", "reason": "noise", "named": "account"}
        ledger.enter(two.store, key="rollback:0", actor="ken", action="rollback.decided", subject="1", details=details,
                     at=two.after(2))  # fmt: skip
    for moved in (True, False):
        status, said = command("rollback", "--of", "2", "--reason", "noise", "--by", "ken")
        assert (status, said["champion"], said["was"], said["moved"]) == (0, "1", "2", moved)
    assert [action for action, *_ in actions(two)][-3:] == ["rollback.decided", MOVED, "life.started"]
    assert two.tracker.champion() == "1"


@pytest.mark.parametrize("alias", ["gone with it", "left behind"])
def test_a_deleted_champion_is_told_and_the_way_back_is_open(two: Any, alias: str) -> None:
    assert decide(two, "2").promoted
    two.tracker.client.delete_model_version("line-a", "2")
    if alias == "left behind":
        two.tracker.client.set_registered_model_alias("line-a", "champion", "1")
        tracker = two.tracker
        tracker.champion = lambda: "2"
    else:
        tracker = two.tracker
        assert tracker.champion() is None
    with pytest.raises(Refused, match=r"though version 2 was put to use.*softad rollback"):
        champion_in_use(two.store, tracker)
    with pytest.raises(Refused, match="was deleted there"):
        decide(two, "1", tracker=tracker)
    back = rollback(two.store, tracker, two.settings, now=two.after(2), actor="aiko", reason="deleted")
    assert (back.version, back.replaced, two.tracker.champion()) == ("1", "2", "1")


def test_one_changed_byte_is_refused_at_promotion_and_at_scoring(two: Any) -> None:
    from flows.score import score_rows

    run = two.tracker.version("2").run_id
    (weights,) = Path(two.tracker.client.get_run(run).info.artifact_uri.removeprefix("file://")).rglob(
        "model/**/*.safetensors"
    )
    two.tracker.load("2")  # the right bytes are in the cache
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(Refused, match="version 2 of line-a: its files are not those that were registered"):
            decide(two, "2")
        assert two.tracker.champion() == "1" and (DECIDED, "2", "softad") not in actions(two)
        two.tracker.set_champion("2")
        shutil.rmtree(two.workspace.cache)  # as on another machine; a good copy that is kept here stays usable
        with pytest.raises(Refused, match="its files are not those that were registered"):
            score_rows(**two.parts(), now=two.after(1))
        assert two.store.count("predictions") == 0
    finally:
        weights.write_bytes(whole)
