"""What an auditor asks, on real tables and a real registry: by the command line, as a person would."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from flows import ledger
from flows.cli import app
from flows.explain import explain, lines_of
from flows.promote import consider
from flows.retrain import latest_training
from flows.score import score_rows
from flows.store import Store


def call(plant: Any, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--workspace", str(plant.workspace.root)])


@pytest.fixture
def plant(capable: Any) -> Any:
    """A champion that let itself be asked, and judged a row that was labelled."""
    capable.add(1)
    training = latest_training(capable.tracker)
    decision = consider(**capable.parts(), training=training, now=capable.after(1), actor="aiko")
    assert decision.promoted, decision.reasons
    frame = capable.store.read("inspections", columns=["_id"], where="_seq >= 2400", order="_seq").head(20)
    score_rows(
        capable.store, capable.tracker, capable.settings, capable.workspace, now=capable.after(1), ids=frame["_id"],
        version=training.version,
    )  # fmt: skip
    document = capable.settings.model_dump(mode="json", exclude={"source"})
    (capable.workspace.root / "config.yaml").write_text(yaml.safe_dump(document))
    capable.judged = frame["_id"].iloc[0]
    return capable


def test_explain_names_all_that_stands_behind_a_prediction(plant: Any) -> None:
    from flows.context import open_context

    document = explain(open_context(None, plant.workspace.root), plant.judged)
    [inspection] = document["inspections"]
    assert inspection["file"]["name"] == "2026-W02.csv"
    assert inspection["line"] == 1
    [prediction] = document["predictions"]
    assert prediction["model"] == "1"
    assert prediction["answer"] in {"ok", *plant.settings.task.classes}
    assert 0.0 < prediction["probability"] <= 1.0
    [label] = document["labels"]
    assert label["label"] in plant.settings.task.classes
    model = document["models"]["1"]
    training = latest_training(plant.tracker)
    assert (model["run"], model["digest"], model["tables"]) == (training.run_id, training.digest, training.versions)
    assert model["config_digest"] == plant.tracker.run(training.run_id).params["config.digest"]
    assert set(model["code"]) == {"code.version", "code.digest", "code.commit"}
    [decision] = model["gates"]
    assert (decision["promoted"], decision["by"]) == (True, "aiko")
    assert [gate["name"] for gate in decision["gates"]] == ["constant predictor", "latency", "size", "export"]
    [use] = model["in_use"]
    assert (use["by"], use["since"]) == ("aiko", plant.after(1))
    json.dumps(document, default=str)
    text = "\n".join(lines_of(document))
    for word in (plant.judged, "2026-W02.csv", training.run_id, "promoted", "by aiko", "4 of 4 gates held"):
        assert word in text


def test_the_commands_and_their_status(plant: Any) -> None:
    shown = call(plant, "explain", plant.judged)
    assert shown.exit_code == 0, shown.output
    assert f"row {plant.judged}" in shown.stdout
    unknown = call(plant, "explain", "nobody's", "--json")
    assert unknown.exit_code == 2
    assert 'no inspection has the id "nobody\'s"' in json.loads(unknown.stdout)["error"]
    day = f"{plant.after(1):%Y-%m-%d}"
    then = call(plant, "audit", "as-of", day, "--json")
    assert json.loads(then.stdout)["version"] == "1"
    assert json.loads(then.stdout)["actor"] == "aiko"
    before = call(plant, "audit", "as-of", "2020-01-01")
    assert (before.exit_code, "no model was in use" in before.stdout) == (0, True)
    assert call(plant, "audit", "as-of", "yesterday").exit_code == 2
    held = call(plant, "audit", "verify", "--json")
    assert held.exit_code == 0, held.output
    head = json.loads(held.stdout)["head"]
    assert call(plant, "audit", "verify", "--head", head).exit_code == 0
    assert call(plant, "audit", "verify", "--head", "0" * 64).exit_code == 4


def test_one_changed_byte_of_the_ledger_has_status_4(plant: Any) -> None:
    store = Store(plant.workspace.tables)
    name, path = next(item for item in ledger.ledger_files(store).items() if item[0].endswith(".parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    found = call(plant, "audit", "verify")
    assert found.exit_code == 4
    assert f"ledger/{name} is not as it was written" in found.stdout


def test_a_row_that_nobody_judged_is_explained_too(trained: Any) -> None:
    from flows.context import Context

    row = trained.store.read("inspections", columns=["_id"], where="_seq = 0")["_id"].iloc[0]
    document = explain(Context(trained.settings, trained.workspace), row)
    assert (document["predictions"], document["models"]) == ([], {})
    assert "not judged by any model so far" in "\n".join(lines_of(document))


def test_an_id_with_quotes_is_no_query(trained: Any) -> None:
    from flows.context import Context
    from flows.errors import BadConfig

    with pytest.raises(BadConfig, match="no inspection has the id"):
        explain(Context(trained.settings, trained.workspace), "' OR 1=1 --")
