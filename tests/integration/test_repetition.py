"""`softad retrain --at RUN`: the same rows, the same weights, and what differs where they are not the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from flows.cli import app
from flows.context import Context
from flows.errors import BadConfig, Refused
from flows.repetition import lines_of, repeat
from flows.retrain import latest_training
from flows.tracking import Tracker


def call(plant: Any, run: str, *more: str) -> Result:
    config = plant.workspace.root / "config.yaml"
    config.write_text(yaml.safe_dump(plant.settings.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
    return CliRunner().invoke(app, ["retrain", "--at", run, "--workspace", str(plant.workspace.root), *more])


def again(plant: Any, run: str) -> Any:
    return repeat(Context(plant.settings, plant.workspace), run, now=plant.after(1))


def test_the_same_weights_after_more_rows_have_come(trained: Any) -> None:
    first = latest_training(trained.tracker)
    trained.add(1)
    result = call(trained, first.run_id, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["equal"] and said["digest"] == said["digest_again"] == first.digest
    assert said["weights"] == said["weights_again"] and said["reference_equal"]
    assert said["differences"] == [] and not said["reused"] and said["again"] != first.run_id
    assert [one.version for one in trained.tracker.versions()] == ["1"], "a repetition is no new version"
    words = call(trained, first.run_id).stdout
    assert "had been trained again before" in words and "equal, bit by bit; the plain model beside it too" in words


def test_other_weights_end_with_status_4_and_say_what_differs(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = latest_training(trained.tracker)
    run = trained.tracker.run(first.run_id)

    def other(self: Tracker, run_id: str, _run: Any = Tracker.run) -> Any:
        found = _run(self, run_id)
        if run_id == run.run_id:
            found.params.update({"env.torch": "2.12.1", "code.digest": "0" * 16})
        return found

    # A computer on which sums are rounded in another way, and a run of another version of torch.
    monkeypatch.setattr(Tracker, "run", other)
    monkeypatch.setattr("flows.candidates.batch_size", lambda rows, settings: 64)
    result = call(trained, first.run_id)
    assert result.exit_code == 4, result.output
    assert "NOT equal: weights then" in result.stdout
    # The version that is installed: a build for a graphics card calls itself by a longer one once it is imported.
    assert f"differs: env.torch was 2.12.1, is {version('torch')}" in result.stdout
    assert f"install torch==2.12.1 (here is {version('torch')})" in result.stdout
    assert [one.version for one in trained.tracker.versions()] == ["1"], "another model is no candidate for use"


def test_a_run_that_cannot_be_repeated(trained: Any, new_plant: Callable[..., Any], line_config: Any) -> None:
    first = latest_training(trained.tracker)
    with pytest.raises(BadConfig, match=f"line-a has no run 'nothing'; its newest are .*{first.run_id}"):
        again(trained, "nothing")
    part = trained.tracker.children(first.run_id)[0].run_id
    with pytest.raises(Refused, match=f"{part} is a part of the training {first.run_id}; repeat that one"):
        again(trained, part)
    stopped = trained.tracker.start("retrain", tags={})
    trained.tracker.finish(stopped, "FAILED")
    with pytest.raises(Refused, match=r"did not finish \(FAILED\)"):
        again(trained, stopped)
    other = trained.settings.model_copy(update={"name": "line-b"})
    with pytest.raises(BadConfig, match=f"{first.run_id} is one of the model 'line-a', not of 'line-b'"):
        repeat(Context(other, trained.workspace), first.run_id, now=trained.after(1))


@pytest.mark.parametrize("gone", ["files", "log"])
def test_versions_that_are_gone(trained: Any, gone: str) -> None:
    first = latest_training(trained.tracker)
    trained.add(1)
    if gone == "files":
        trained.store.compact({}, retention_hours=0, min_files=1)
        trained.store.compact({}, retention_hours=0, min_files=1)
    else:
        for entry in sorted(Path(trained.store.root, "inspections", "_delta_log").glob("*.json"))[1:]:
            entry.unlink()
    version = first.versions["inspections"]
    assert not trained.store.readable("inspections", version)
    with pytest.raises(
        Refused, match=f"version {version} of the table inspections, and files of that version are gone"
    ):
        again(trained, first.run_id)


def test_what_is_said_names_the_next_step(trained: Any) -> None:
    found = again(trained, latest_training(trained.tracker).run_id)
    changed = {"digest_again": "1", "weights_again": "2"}
    assert "nothing is known that explains it" in lines_of(type(found)(**{**vars(found), **changed}))[-1]
    on_gpu = type(found)(**{**vars(found), **changed, "device": "cuda"})
    assert "trained on cuda, where the same weights are not promised" in lines_of(on_gpu)[-1]
