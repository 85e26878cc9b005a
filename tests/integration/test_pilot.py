"""`softad pilot` on a file: the recommendation, the page, and what is said of a file that cannot be compared on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from typer.testing import CliRunner

from flows.cli import app


def parts(path: Path, rows: int = 260, classes: tuple[str, str] = ("OK", "NG")) -> Path:
    rng = np.random.default_rng(0)
    torque, machine = rng.normal(40, 3, rows), rng.choice(["M1", "M2", "M3"], rows)
    worn = torque + 2.0 * (machine == "M2") + rng.normal(0, 1.5, rows) > 43
    frame = pd.DataFrame({"torque_nm": torque, "speed": rng.normal(1500, 90, rows), "machine": machine})
    frame["result"] = np.where(worn, classes[1], classes[0])
    frame.to_csv(path, index=False)
    return path


def test_a_file_is_compared_on(tmp_path: Path) -> None:
    data, page = parts(tmp_path / "parts.csv"), tmp_path / "out" / "pilot.html"
    run = CliRunner().invoke(app, ["pilot", str(data), "--budget", "4", "--page", str(page), "--json"])
    assert run.exit_code == 0, run.output
    said = json.loads(run.stdout)
    names = [candidate["name"] for candidate in said["candidates"]]
    assert names[0] == "ERM"
    assert said["recommendation"]["name"] in names
    assert said["recommendation"]["reason"]
    assert page.stat().st_size > 10_000
    assert json.loads(page.with_suffix(".json").read_text())["recommendation"] == said["recommendation"]


def test_one_class_is_no_comparison(tmp_path: Path) -> None:
    data = parts(tmp_path / "parts.csv", classes=("OK", "OK"))
    run = CliRunner().invoke(app, ["pilot", str(data), "--label", "result", "--budget", "2"])
    assert run.exit_code in (2, 3)
    assert "parts.csv" in run.output
    assert "Traceback" not in run.output


def test_too_few_rows_are_said(tmp_path: Path) -> None:
    data = parts(tmp_path / "parts.csv", rows=12)
    run = CliRunner().invoke(app, ["pilot", str(data), "--label", "result", "--budget", "2"])
    assert run.exit_code == 3, run.output
    assert "parts.csv" in run.output


def test_a_number_is_estimated_and_columns_are_read_once_as_init_reads_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    speed = rng.normal(1500, 90, 240)
    frame = pd.DataFrame({"speed": speed.round(1), "load": rng.normal(5, 1, 240).round(3)})
    frame["roughness"] = (0.01 * speed + rng.normal(0, 0.2, 240)).round(4)
    data = tmp_path / "parts.csv"
    frame.to_csv(data, index=False, sep=";")
    arguments = ["pilot", str(data), "--label", "roughness", "--regression", "--budget", "4"]
    run = CliRunner().invoke(app, [*arguments, "--page", str(tmp_path / "pilot.html"), "--json"])
    assert run.exit_code == 0, run.output
    said = json.loads(run.stdout)
    assert said["task"] == "regression"
    assert said["rows"] == 240
