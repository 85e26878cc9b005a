"""The main job on the simulated line, as a person runs it: one process from an empty folder to the page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.context import Context, open_context
from flows.cycle import run_steps
from flows.dataset import exclusions
from flows.holdout import trained_rows
from flows.incidents import all_incidents

pytestmark = pytest.mark.slow


def softad(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, with nothing of this one's Prefect."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *words], env={**environment, "HOME": str(home)}, cwd=home,
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


def story(home: Path, *words: str) -> dict[str, Any]:
    ended = softad(
        "demo", "--weeks", "6", "--change", "concentrated", "--change-week", "3", "--seed", "1", "--json", *words,
        home=home,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    home = tmp_path_factory.mktemp("learned")
    return story(home), home / "workspace"


@pytest.fixture(scope="module")
def mended(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    home = tmp_path_factory.mktemp("mended")
    return story(home, "--answer", "repaired"), home / "workspace"


def context_of(workspace: Path) -> Context:
    return open_context(None, workspace)


def test_every_row_is_accounted_for(learned: tuple[dict[str, Any], Path]) -> None:
    for week in learned[0]["weeks"]:
        assert week["read"] == week["accepted"] + week["quarantined"] + week["duplicates"]
    assert sum(week["quarantined"] for week in learned[0]["weeks"]) > 0


def test_the_changed_machine_is_named_first_and_in_time(learned: tuple[dict[str, Any], Path]) -> None:
    told = learned[0]
    alarms = [week for week in told["weeks"] if week["alarm"]]
    assert alarms[0]["week"] in {3, 4, 5}
    first = alarms[0]["findings"][0]
    assert (first["column"], first["value"]) == (told["changed"]["column"], told["changed"]["value"])
    assert alarms[0]["verdict"] == "inspect"


def test_the_answer_leads_to_a_better_champion(learned: tuple[dict[str, Any], Path]) -> None:
    told, workspace = learned
    promoted = [entry for entry in told["promotions"] if entry["promoted"] and entry["champion"]]
    assert promoted
    assert promoted[-1]["after"]["tail_new"] <= 0.8 * promoted[-1]["after"]["tail_old"]
    assert all(incident.state == "closed" for incident in all_incidents(context_of(workspace).store))


def test_people_are_told_once_for_each_step(learned: tuple[dict[str, Any], Path]) -> None:
    lines = (learned[1] / "outbox" / "alerts" / "demo" / "alerts.jsonl").read_text(encoding="utf-8").splitlines()
    told = [(json.loads(line)["key"], json.loads(line)["state"]) for line in lines]
    assert len(told) == len(set(told))
    assert {"opened", "challenger", "acknowledged", "promoted"} <= {state for _, state in told}


def test_the_page_is_there_in_both_languages(learned: tuple[dict[str, Any], Path]) -> None:
    page = Path(learned[0]["page"]).read_text(encoding="utf-8")
    assert "Hard cases" in page
    assert "難しい品" in page
    assert (learned[1] / "page" / "shared" / "plotly.min.js").exists()


def test_the_same_cycle_again_does_nothing(learned: tuple[dict[str, Any], Path]) -> None:
    context = context_of(learned[1])
    last = context.store.read("windows", columns=["at"])["at"].max().to_pydatetime()
    before = context.store.versions()
    report = run_steps(context, now=last)
    assert context.store.versions() == before
    assert (report.outcomes, report.actions, report.ingests, report.scored) == ([], [], [], 0)


def test_the_second_demo_replaces_the_first_and_never_a_plants_data(tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "parts.csv").write_text("id\n1\n")
    ended = softad("demo", "--weeks", "1", home=tmp_path)
    assert ended.returncode == 2
    assert "was not made by a demo" in ended.stderr
    assert (tmp_path / "workspace" / "parts.csv").exists()


def test_rows_between_change_and_repair_train_no_model(mended: tuple[dict[str, Any], Path]) -> None:
    told, workspace = mended
    context = context_of(workspace)
    [rule] = exclusions(context.store, context.settings)
    machine = told["changed"]["value"]
    assert (rule.column, rule.value, rule.lasting) == ("machine", machine, True)
    assert rule.since is not None and rule.until is not None
    rows = context.store.read("inspections", columns=["_id", "_time", "machine"], where=f"machine = '{machine}'")
    between = set(rows.loc[(rows["_time"] >= rule.since) & (rows["_time"] < rule.until), "_id"])
    assert len(between) > 200, "two weeks of one machine of twelve"
    versions = [version.version for version in context.tracker.client.search_model_versions("name='demo'")]
    assert len(versions) >= 2
    for version in versions:
        assert not between & set(trained_rows(context.tracker, str(version))["_id"])


def test_after_a_repair_the_line_is_watched_anew(mended: tuple[dict[str, Any], Path]) -> None:
    told, workspace = mended
    assert [incident.closed_reason for incident in all_incidents(context_of(workspace).store)] == ["repaired"]
    last = told["weeks"][-1]
    assert (last["alarm"], last["state"], last["threshold"] is not None) == (False, "ok", True)
