"""`softad export` on a real registry: what is written, and what is refused with nothing written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner, Result

from flows.cli import app
from softad.export import OnnxModel, largest_difference


def call(plant: Any, *words: str) -> Result:
    config = plant.workspace.root / "config.yaml"
    config.write_text(yaml.safe_dump(plant.settings.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
    return CliRunner().invoke(app, ["export", *words, "--workspace", str(plant.workspace.root)])


def test_a_version_is_written_with_its_contract(trained: Any, tmp_path: Path) -> None:
    refused = call(trained)
    assert refused.exit_code == 2 and "has no champion yet; name the version" in refused.stderr
    assert call(trained, "9").exit_code == 2
    result = call(trained, "1", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    file, contract = Path(said["file"]), json.loads(Path(said["contract"]).read_text(encoding="utf-8"))
    assert file == trained.workspace.outbox / "models" / "line-a-1.onnx"
    assert said["rows_checked"] == 450 and said["difference"] <= 1e-5
    assert {column["name"] for column in contract["contract"]["columns"]} >= {"machine", "torque_nm"}
    assert contract["version"] == "1"
    rows = trained.store.read("inspections")
    bundle = trained.tracker.load("1")
    assert largest_difference(bundle, OnnxModel(file.read_bytes()), rows) <= 1e-5

    trained.tracker.set_champion("1")
    words = call(trained, "--to", str(tmp_path / "new" / "m.onnx"))
    assert words.exit_code == 0 and "version 1 is written as" in words.stdout
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["m.onnx", "m.onnx.json"]


def test_nothing_is_written_where_the_answers_differ(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = OnnxModel.run
    monkeypatch.setattr(OnnxModel, "run", lambda self, given: run(self, given) + 1e-4)
    result = call(trained, "1")
    assert result.exit_code == 4 and "nothing was written: on 450 rows the exported model differs" in result.stderr
    assert not (trained.workspace.outbox / "models").exists()


def test_without_rows_and_without_the_package(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.export.newest_rows", lambda store: pd.DataFrame())
    result = call(trained, "1")
    assert result.exit_code == 3 and "no rows have come yet" in result.stderr
    monkeypatch.undo()

    def missing(*args: Any) -> bytes:
        raise ModuleNotFoundError("No module named 'onnx'")

    monkeypatch.setattr("softad.export.to_onnx", missing)
    result = call(trained, "1")
    assert result.exit_code == 1 and "pip install 'softad[export]'" in result.stderr
