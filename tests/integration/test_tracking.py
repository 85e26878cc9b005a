"""Runs and versions in a real MLflow: on SQLite in the workspace, and on a server that comes and goes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from flows.errors import BadConfig, Refused, Unavailable
from flows.model_records import bundle_digest
from flows.run_files import copy_of
from flows.settings import Settings
from flows.tracking import Tracker
from flows.workspace import Workspace
from softad.bundle import ModelBundle, train_bundle


def small_bundle(seed: int = 0) -> ModelBundle:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": rng.normal(size=200)})
    labels = np.where(frame["x"] > 0, "bad", "ok")
    bundle, _ = train_bundle(
        frame, labels, frame, labels, task="classification", classes=["ok", "bad"], numeric=["x"], categorical=[],
        model="linear", epochs=3, seed=seed,
    )  # fmt: skip
    return bundle


def settings_named(name: str, **more: object) -> Settings:
    data = {"label": "label", "numeric": ["x"], "window": {"rows": 100}}
    return Settings.model_validate({"name": name, "data": data, "task": {"classes": ["ok", "bad"]}, **more})


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.open(tmp_path_factory.mktemp("tracking") / "workspace", "line-a")


@pytest.fixture
def tracker(workspace: Workspace, request: pytest.FixtureRequest) -> Tracker:
    """One database for all tests of the module (making one takes seconds), a model name for each test."""
    name = request.node.name.replace("_", "-").replace("[", "-").replace("]", "")[:60]
    settings = settings_named(name)
    return Tracker(settings, Workspace.open(workspace.root, settings=settings))


def registered(tracker: Tracker, seed: int = 0) -> str:
    run = tracker.start("retrain", tags={})
    digest = tracker.log_model(run, small_bundle(seed))
    tracker.finish(run)
    return tracker.register(run, {"digest": digest, "theta": "0.2"})


def test_nothing_is_written_outside_the_workspace(tmp_path: Path) -> None:
    here, home = tmp_path / "here", tmp_path / "home"
    here.mkdir(), home.mkdir()
    code = (
        "import sys; from pathlib import Path\n"
        "from flows.settings import Settings; from flows.workspace import Workspace\n"
        "from flows.tracking import Tracker\n"
        "data = {'label': 'y', 'numeric': ['x'], 'window': {'rows': 100}}\n"
        "s = Settings.model_validate({'name': 'a', 'data': data})\n"
        "t = Tracker(s, Workspace.open(Path(sys.argv[1]), settings=s))\n"
        "run = t.start('r', tags={}); t.log(run, params={'a': 1}, metrics={'m': 2.0}); t.finish(run)\n"
        "print(t.champion(), len(t.runs()))\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")} | {
        "HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2]),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "workspace")], cwd=here, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["None", "1"]
    assert done.stderr == ""
    assert [*here.iterdir(), *home.iterdir()] == []


def test_without_models_there_is_no_champion(tracker: Tracker) -> None:
    assert tracker.champion() is None
    assert tracker.previous() is None
    assert tracker.versions() == []
    first = registered(tracker)
    assert tracker.champion() is None, "a version without the alias is no champion"
    tracker.set_champion(first)
    assert (tracker.champion(), tracker.previous()) == (first, None)
    second = registered(tracker, 1)
    tracker.set_previous(first)
    tracker.set_champion(second)
    assert (tracker.champion(), tracker.previous()) == (second, first)
    assert [one.aliases for one in tracker.versions()] == [("previous",), ("champion",)]


def test_a_version_predicts_as_the_bundle_did_and_holds_no_pickle(tracker: Tracker) -> None:
    version = registered(tracker)
    frame = pd.DataFrame({"x": [-1.0, 0.1, 2.0]})
    wanted = small_bundle().predict(frame).probabilities
    loaded = tracker.load(version)
    assert np.array_equal(loaded.predict(frame).probabilities, wanted)
    assert tracker.version(version).digest == loaded.digest() == small_bundle().digest()
    from mlflow import pyfunc, set_tracking_uri

    set_tracking_uri(tracker.uri)
    plain = pyfunc.load_model(f"models:/{tracker.name}/{version}").predict(frame)
    assert np.array_equal(plain["probability_bad"], wanted[:, 1])
    files = [path for path in (tracker.workspace.mlflow / "artifacts" / tracker.name).rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json", ".txt", ".yaml", ""}
    for path in files:
        if path.suffix == ".safetensors":
            assert set(load_file(path)) == set(loaded.model.state_dict())
        else:
            path.read_text(encoding="utf-8")  # a pickle is no text


def test_a_changed_byte_is_refused_and_a_changed_copy_is_fetched_again(tracker: Tracker) -> None:
    version = registered(tracker)
    tracker.load(version)
    (copy,) = (tracker.workspace.cache / "models").glob("*/weights.safetensors")
    flip(copy)
    again = Tracker(tracker.settings, tracker.workspace)
    assert again.load(version).digest() == tracker.version(version).digest
    (kept,) = (tracker.workspace.mlflow / "artifacts" / tracker.name).rglob("weights.safetensors")
    flip(kept)
    flip(copy)
    with pytest.raises(Refused, match=rf"version {version} of {tracker.name}: its files are not those"):
        Tracker(tracker.settings, tracker.workspace).load(version)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def test_a_document_changed_by_one_byte_is_refused(tracker: Tracker) -> None:
    version = registered(tracker)
    (kept,) = (tracker.workspace.mlflow / "artifacts" / tracker.name).rglob("bundle.json")
    kept.write_text(kept.read_text().replace('"temperature": ', '"temperature":  '))
    with pytest.raises(Refused):
        tracker.load(version)


def test_runs_are_found_by_key_with_what_was_logged(tracker: Tracker) -> None:
    key = "incident 'a' \"quoted\"; M07's week"
    parent = tracker.start("retrain", tags={"reason": "test"}, key=key)
    child = tracker.start("theta 0.2", tags={}, parent=parent)
    tracker.log(
        parent,
        params={f"p{i}": i for i in range(150)} | {"long": "x" * 7000},
        metrics={"mean": 0.5, "absent": None, "nan": float("nan")} | {f"m{i}": i for i in range(1200)},
        series={"validation": [3.0, 2.0, 1.0]},
        tags={"more": "1"},
    )
    tracker.finish(parent)
    (found,) = tracker.find(key)
    assert (found.run_id, found.status, found.metrics["mean"], found.metrics["m1199"]) == (
        parent,
        "FINISHED",
        0.5,
        1199,
    )
    assert (found.params["p149"], len(found.params["long"]), found.tags["more"]) == ("149", 6000, "1")
    assert "absent" not in found.metrics and "nan" not in found.metrics
    assert [point.value for point in tracker.client.get_metric_history(parent, "validation")] == [3.0, 2.0, 1.0]
    assert [run.run_id for run in tracker.children(parent)] == [child]
    assert tracker.children(parent)[0].status == "RUNNING"
    assert [run.run_id for run in tracker.runs()] == [parent], "parts of a run are not listed beside it"
    assert tracker.find("another key") == []


def test_a_run_is_registered_once(tracker: Tracker) -> None:
    run = tracker.start("retrain", tags={})
    digest = tracker.log_model(run, small_bundle())
    reference = tracker.log_reference(run, small_bundle(3))
    tracker.finish(run)
    tags = {"digest": digest, "reference_digest": reference}
    version = tracker.register(run, tags)
    assert tracker.register(run, tags) == version
    assert [one.version for one in tracker.versions()] == [version]
    plain = tracker.load_reference(version)
    assert plain is not None and plain.digest() == reference != digest


def test_what_is_not_there_is_named(tracker: Tracker) -> None:
    registered(tracker)
    for number in ("7", "abc"):
        with pytest.raises(BadConfig, match=f"has no version '{number}'"):
            tracker.load(number)
    with pytest.raises(BadConfig, match="has no run 'abc'"):
        tracker.run("abc")


def test_models_in_one_workspace_are_apart(workspace: Workspace) -> None:
    trackers = [Tracker(settings_named(name), workspace) for name in ("one", "other")]
    registered(trackers[0])
    trackers[0].set_champion("1")
    assert trackers[1].champion() is None
    with pytest.raises(BadConfig):
        trackers[1].run(trackers[0].runs()[0].run_id)


def test_files_of_a_run_are_read_back(tracker: Tracker, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "note.txt").write_text("seen")
    run = tracker.start("retrain", tags={})
    tracker.log_files(run, tmp_path)
    assert copy_of(tracker, run, "deep/note.txt").read_text() == "seen"
    assert copy_of(tracker, run, "deep/note.txt").read_text() == "seen"


def test_the_digest_of_the_files_is_the_bundles(tmp_path: Path) -> None:
    bundle = small_bundle()
    assert bundle_digest(bundle.save(tmp_path)) == bundle.digest()


def test_a_server_that_is_away_is_said_within_seconds(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    settings = settings_named("away", tracking={"uri": address})
    tracker = Tracker(settings, Workspace.open(tmp_path / "workspace", settings=settings))
    begun = time.perf_counter()
    with pytest.raises(Unavailable, match="see that it runs, then run the same command again") as caught:
        tracker.champion()
    assert time.perf_counter() - begun < 10
    assert address in str(caught.value)


@pytest.mark.servers
@pytest.mark.slow
def test_on_a_server_that_is_killed_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = settings_named("served")
    workspace = Workspace.open(tmp_path / "workspace", settings=settings)
    workspace.mlflow.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    server = start_server(workspace, port)
    try:
        tracker = Tracker(settings, workspace)
        version = registered(tracker)
        tracker.set_champion(version)
        run = tracker.start("retrain", tags={})
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        with pytest.raises(Unavailable):
            tracker.log(run, metrics={"a": 1.0})
        with pytest.raises(Unavailable):
            tracker.register(run, {})
        server = start_server(workspace, port)
        assert tracker.champion() == version
        assert [one.version for one in tracker.versions()] == [version]
        assert tracker.load(version).classes == ["ok", "bad"]
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def start_server(workspace: Workspace, port: int) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{workspace.mlflow / 'mlflow.db'}",
        "--default-artifact-root", (workspace.mlflow / "artifacts").as_uri(), "--no-serve-artifacts",
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(
        command, env=environment, cwd=workspace.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
            return server
        except OSError:
            time.sleep(0.2)
    os.killpg(server.pid, signal.SIGKILL)
    raise AssertionError("the MLflow server did not come up within a minute")
