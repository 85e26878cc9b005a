"""Data that nobody prepared, from `init` to a registered champion and a page, without an edit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sklearn.datasets import load_diabetes
from typer.testing import CliRunner

from flows.cli import app
from flows.context import open_context, utc_now
from flows.cycle import run_steps

pytestmark = pytest.mark.slow


def run_on(data: Path, workspace: Path, *options: str) -> dict[str, object]:
    """`softad init`, `ingest` by the command line, and one cycle; what init said."""
    runner = CliRunner()
    said = runner.invoke(app, ["init", str(data), *options, "--workspace", str(workspace), "--json"])
    assert said.exit_code == 0, said.output
    taken = runner.invoke(app, ["ingest", str(data), "--workspace", str(workspace), "--json"])
    assert taken.exit_code == 0, taken.output
    report = json.loads(taken.stdout)["files"][0]
    assert report["read"] == report["accepted"] + report["quarantined"] + report["duplicates"]
    assert report["quarantined"] == 0
    context = open_context(None, workspace)
    cycle = run_steps(context, now=utc_now())
    assert cycle.status == 0, cycle.notes
    assert context.tracker.champion() == "1"
    assert (workspace / "page" / context.settings.name / "index.html").exists()
    outbox = list((workspace / "outbox" / "predictions").iterdir())
    assert len(outbox) == 1
    assert cycle.scored == report["accepted"]
    return json.loads(said.stdout)


def test_a_numeric_label_becomes_regression(tmp_path: Path) -> None:
    data = tmp_path / "diabetes.csv"
    load_diabetes(as_frame=True).frame.to_csv(data, index=False)
    run_on(data, tmp_path / "workspace")
    assert open_context(None, tmp_path / "workspace").settings.task.kind == "regression"


@pytest.mark.real_data
def test_ai4i_leaves_the_failure_modes_out(real_data: Path, tmp_path: Path) -> None:
    said = run_on(real_data / "ai4i2020" / "ai4i2020.csv", tmp_path / "workspace")
    settings = open_context(None, tmp_path / "workspace").settings
    assert settings.data.label == "Machine failure"
    modes = {"TWF", "HDF", "PWF", "OSF", "RNF"}
    assert modes <= {leak["column"] for leak in said["leaks"]}  # type: ignore[attr-defined]
    assert not modes & set(settings.data.features)


@pytest.mark.real_data
def test_steel_plates_one_hot_columns_become_one_label(real_data: Path, tmp_path: Path) -> None:
    run_on(real_data / "steel_plates_faults" / "faults.csv", tmp_path / "workspace")
    settings = open_context(None, tmp_path / "workspace").settings
    assert len(settings.task.classes) == 7
    assert settings.data.id is None
    assert settings.data.time is None


@pytest.mark.real_data
def test_ball_screw_patches_are_split_by_position(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Enough epochs to beat the constant predictor, few enough for a test.
    monkeypatch.setenv("SOFTAD_CONFIG__TRAINING__EPOCHS", "8")
    monkeypatch.setenv("SOFTAD_CONFIG__TRAINING__THETAS", "[0.2]")
    folder = real_data / "bsdata_ball_screw"
    run_on(folder / "patches.csv", tmp_path / "workspace", "--images", str(folder / "patches.zip"))
    settings = open_context(None, tmp_path / "workspace").settings
    assert settings.data.group == "position"
    assert settings.training.split.by == "group"
