"""`softad card` on a real registry: what it says, in both languages, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner, Result

from flows.card import card_beside_page
from flows.cli import app
from flows.context import Context
from flows.promote import consider
from flows.retrain import latest_training, retrain


def call(plant: Any, *words: str) -> Result:
    config = plant.workspace.root / "config.yaml"
    config.write_text(yaml.safe_dump(plant.settings.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
    return CliRunner().invoke(app, ["card", *words, "--workspace", str(plant.workspace.root)])


def test_the_card_of_a_promoted_version_says_where_it_comes_from_and_where_it_ends(
    capable: Any, tmp_path: Path
) -> None:
    refused = call(capable)
    assert refused.exit_code == 2 and "has no champion yet; name the version: softad card VERSION" in refused.stderr
    unknown = call(capable, "9")
    assert unknown.exit_code == 2 and "has no version '9'" in unknown.stderr
    now = capable.after(0) + timedelta(days=1)
    training = latest_training(capable.tracker)
    assert training is not None
    decision = consider(**capable.parts(), training=training, now=now, actor="softad")
    assert decision.promoted, decision.reasons

    result = call(capable, "--out", str(tmp_path / "card.html"), "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["state"] == "champion" and [one["how"] for one in said["in_use"]] == ["gates"]
    assert sum(said["data"]["rows"].values()) == 2400 and sum(one["rows"] for one in said["data"]["files"]) == 2400
    assert len(said["data"]["files"]) == 3 and all(one["name"].endswith(".csv") for one in said["data"]["files"])
    by_machine = [one for one in said["slices"] if one["column"] == "machine"]
    assert sum(one["rows"] for one in by_machine) == said["data"]["rows"]["holdout"]
    assert said["export"]["agrees"] and said["export"]["rows"] == min(2000, said["data"]["rows"]["holdout"])
    assert all(gate["passed"] for gate in said["gates"]["gates"])
    page = (tmp_path / "card.html").read_text(encoding="utf-8")
    assert (
        page.count("<svg") == 1
        and not re.search(r"(src|href)=", page)
        and "{" not in re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    )
    assert "line-a, version 1" in page and "torque_nm" in page and "All held on" in page

    japanese = call(capable, "1", "--out", str(tmp_path), "--language", "ja")
    assert japanese.exit_code == 0
    text = (tmp_path / "line-a-1.html").read_text(encoding="utf-8")
    assert '<html lang="ja">' in text and "モデルカード" in text and "使用中" in text


def test_it_is_written_beside_the_page_once_and_kept_with_the_run(new_plant: Callable[..., Any]) -> None:
    plant = new_plant(rows_per_week=150)
    plant.add(-2, -1, 0)
    now = plant.after(0)
    run = retrain(**plant.parts(), now=now, reason="first").run_id
    context = Context(plant.settings, plant.workspace)
    assert card_beside_page(context, None, now=now) is None
    assert card_beside_page(context, "7", now=now) is None
    assert card_beside_page(context, "1", now=now) == "card-1"
    files = [plant.workspace.page / f"card-1.{language}.html" for language in ("en", "ja")]
    listed = {one.path: one.file_size for one in plant.tracker.client.list_artifacts(run, "card")}
    assert listed == {f"card/{file.name}": file.stat().st_size for file in files}
    before = [file.stat().st_mtime_ns for file in files]
    assert card_beside_page(context, "1", now=now) == "card-1" and [file.stat().st_mtime_ns for file in files] == before
    english, japanese = (file.read_text(encoding="utf-8") for file in files)
    assert "It has never been in use." in english and '<html lang="ja">' in japanese
    # One that is gone, as where a process died between the two, is written again.
    files[1].unlink()
    assert card_beside_page(context, "1", now=now) == "card-1" and files[1].exists()
