"""`softad doctor` on a healthy workspace, and on what can be wrong with one, with what to do."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner, Result

from flows import doctor, ledger
from flows.cli import app
from flows.errors import Damaged
from flows.lives import begin_life, reference_of
from flows.promote import consider
from flows.retrain import latest_training
from flows.run_files import copy_of
from flows.services import free_port
from flows.store import Store


def call(plant: Any, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--workspace", str(plant.workspace.root)])


def examined(plant: Any, *words: str) -> dict[str, list[tuple[str, str]]]:
    """Check -> (state, sentence) of each finding, as `--json` gives them."""
    result = call(plant, "doctor", "--json", *words)
    document = json.loads(result.stdout)
    assert result.exit_code == (0 if document["healthy"] else 4), result.output
    found: dict[str, list[tuple[str, str]]] = {}
    for one in document["checks"]:
        found.setdefault(one["name"], []).append((one["state"], one["sentence"]))
    return found


def asked(found: dict[str, list[tuple[str, str]]]) -> dict[str, str]:
    """What must be done, one sentence for each check."""
    return {name: sentence for name, pairs in found.items() for state, sentence in pairs if state == "act"}


def configure(plant: Any, **sections: Any) -> None:
    document = plant.settings.model_dump(mode="json", exclude={"source"}) | sections
    (plant.workspace.root / "config.yaml").write_text(yaml.safe_dump(document))


@pytest.fixture
def plant(trained: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Three weeks of rows, a model, one entry in the ledger; room enough, however full this machine is."""
    configure(trained)
    ledger.enter(trained.store, key="k", actor="aiko", action="noted", subject="1", details={}, at=trained.after(0))
    monkeypatch.setattr("flows.doctor.disk", lambda root: DISK(root, least=1, few=1))
    return trained


DISK = doctor.disk


def test_a_healthy_system(plant: Any) -> None:
    plant.tracker.set_champion("1")
    found = examined(plant)
    assert asked(found) == {}
    looked_at = ["versions", "workspace", "disk", "ports", "config", "permissions", "database", "tables", "rows"]
    assert list(found) == [*looked_at, "ledger", "clock", "outbox"]
    assert "version 1, which is in use, is whole" in found["database"][0][1]
    assert "1 entries, each as it was written" in found["ledger"][0][1]
    text = call(plant, "doctor")
    assert text.exit_code == 0
    assert len(text.stdout.splitlines()) == len(found)


def test_no_workspace(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", "--workspace", str(tmp_path / "none")])
    assert result.exit_code == 4
    assert "is no workspace; make one with `softad init DATA`" in result.stdout
    assert not (tmp_path / "none").exists()


def test_a_full_disk(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path; from flows.doctor import disk\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "print(*[(one.state, one.sentence) for one in disk(Path(sys.argv[1]))])"
    )
    ended = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert "'act'" in ended.stdout
    assert "the disk is full; free some space" in ended.stdout
    assert list(tmp_path.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_little_room(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert [one.state for one in doctor.disk(tmp_path, least=free * 2)] == ["act"]
    assert [one.state for one in doctor.disk(tmp_path, least=1, few=free * 2)] == ["note"]
    assert [one.state for one in doctor.disk(tmp_path, least=1, few=1)] == ["good"]


@pytest.fixture(scope="module")
def postgres() -> Iterator[int]:
    """The port of a PostgreSQL server on loopback that asks for a password."""
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        pytest.skip("PostgreSQL's programs are not on the path")
    # Not below pytest's own folder, which no other user may enter.
    folder = Path(tempfile.mkdtemp(prefix="softad-postgres-"))
    secret = folder / "password"
    secret.write_text("right-password\n")
    as_user = []
    if os.getuid() == 0:  # it refuses to run as root
        if subprocess.run(["id", "postgres"], capture_output=True, check=False).returncode:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        shutil.chown(folder, "postgres")
        shutil.chown(secret, "postgres")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    data, port = folder / "data", free_port()

    def run(*words: str) -> None:
        subprocess.run([*as_user, *words], capture_output=True, check=True, cwd=folder, timeout=60)

    run("initdb", "-D", str(data), "-A", "scram-sha-256", "-U", "softad", f"--pwfile={secret}")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    run("pg_ctl", "-D", str(data), "-l", str(folder / "log"), "-o", options, "-w", "start")
    yield port
    run("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.mark.servers
def test_a_wrong_password(plant: Any, postgres: int, monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"127.0.0.1:{postgres}/postgres"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://softad:wrong-password@{where}")
    began = time.monotonic()
    found = examined(plant)
    assert time.monotonic() - began < 60
    assert asked(found) == {
        "database": f"the database at postgresql://…@{where} refuses the user name or password; set the right "
        "one in MLFLOW_TRACKING_URI"
    }
    assert "wrong-password" not in json.dumps(found)
    from flows.database import problem

    assert problem(f"postgresql://softad:right-password@{where}") is None
    assert "is not there; make it" in str(problem(f"postgresql://softad:right-password@127.0.0.1:{postgres}/other"))


def test_a_server_that_is_away(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2hunter2@127.0.0.1:{free_port()}")
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    found = asked(examined(plant))
    assert set(found) == {"database", "ports"}
    assert "does not answer" in found["database"]
    assert "hunter2" not in found["database"]
    assert "unset the variable" in found["ports"]


def test_secrets_that_others_may_read(plant: Any) -> None:
    configure(plant, alerts={"channels": ["json://me:hunter2@127.0.0.1:1/x"]})
    (plant.workspace.root / "config.yaml").chmod(0o644)
    assert "others may read it: `chmod 600" in examined(plant)["permissions"][0][1]
    (plant.workspace.root / "config.yaml").chmod(0o600)
    assert examined(plant)["permissions"][0][0] == "good"
    (plant.workspace.root / "secrets").mkdir(mode=0o755)
    assert "`chmod -R go-rwx` it" in asked(examined(plant))["permissions"]


def test_a_newer_workspace(plant: Any) -> None:
    (plant.workspace.root / "workspace.json").write_text('{"format": 99}')
    assert "install the newer version" in asked(examined(plant))["workspace"]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "torn file": (lambda table: _cut(next(table.glob("*.parquet"))), "is torn or was changed"),
    "file gone": (lambda table: next(table.glob("*.parquet")).unlink(), "is gone"),
    "torn commit": (lambda table: _cut(sorted(table.glob("_delta_log/*.json"))[1]), "a line that cannot be read"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_table(plant: Any, kind: str) -> None:
    damage, words = DAMAGE[kind]
    damage(plant.workspace.tables / "labels")
    found = asked(examined(plant))
    assert set(found) == {"tables"}
    assert found["tables"].startswith("table labels is damaged: ")
    assert words in found["tables"]
    assert "softad restore FILE" in found["tables"]
    with pytest.raises(Damaged, match="table labels is damaged"):
        Store(plant.workspace.tables).read("labels")
    said = call(plant, "status")
    assert said.exit_code == 1
    assert said.stderr.startswith("error: table labels is damaged: ")


def test_an_empty_commit_and_a_changed_ledger(plant: Any) -> None:
    log = plant.workspace.tables / "ledger" / "_delta_log"
    (log / f"{2:020}.json").write_text("")
    [file] = (plant.workspace.tables / "ledger").glob("*.parquet")
    frame = pd.read_parquet(file)
    frame["actor"] = "somebody else"
    frame.to_parquet(file)
    found = asked(examined(plant))
    assert "of its log is empty" in found["tables"]
    assert "is not as it was written" in found["ledger"]


def test_a_clock_that_is_behind(plant: Any) -> None:
    ahead = datetime.now(UTC) + timedelta(days=2)
    ledger.enter(plant.store, key="later", actor="aiko", action="noted", subject="1", details={}, at=ahead)
    found = asked(examined(plant))
    assert set(found) == {"clock"}
    assert found["clock"].startswith(f"the newest ledger entry is from {ahead:%Y-%m-%d %H:%M} UTC")


def test_an_alert_that_waits(plant: Any) -> None:
    from flows.alerting import outbox_of
    from flows.context import Context
    from monitoring.alerts import Message

    outbox_of(Context(plant.settings, plant.workspace)).put(Message("subject", "body", "info", "a", "opened"))
    assert asked(examined(plant))["outbox"].startswith("1 alerts wait for a channel")


def test_an_alert_that_cannot_be_read(plant: Any) -> None:
    from flows.alerting import outbox_of
    from flows.context import Context
    from monitoring.alerts import Message

    outbox = outbox_of(Context(plant.settings, plant.workspace))
    outbox.put(Message("one", "body", "info", "a", "opened"))
    assert outbox.deliver().delivered == 1
    [told] = outbox.folder.glob("*.json")
    outbox.put(Message("two", "body", "info", "b", "opened"))
    [never] = set(outbox.folder.glob("*.json")) - {told}
    told.write_text("{")
    never.write_text("{")
    found = examined(plant)["outbox"]
    assert [state for state, _ in found] == ["act", "act"]
    said = {path: sentence for _, sentence in found for path in (told, never) if sentence.startswith(str(path))}
    assert "its alert (one) is in alerts.jsonl" in said[told]
    assert "may never have been told: compare with `softad alerts list`" in said[never]


def test_a_registry_that_is_not_what_the_ledger_says(plant: Any) -> None:
    details = {"from": None, "to": "1", "decision": "k"}
    ledger.enter(plant.store, key="set:k", actor="aiko", action="champion.set", subject="1", details=details,
                 at=plant.after(0))  # fmt: skip
    plant.tracker.set_champion("1")
    assert asked(examined(plant)) == {}
    plant.tracker.client.delete_registered_model_alias(plant.tracker.name, "champion")
    said = asked(examined(plant))["database"]
    assert "has no alias 'champion' any more, though version 1 was put to use" in said
    assert "`softad rollback`" in said
    plant.tracker.client.delete_registered_model(plant.tracker.name)
    said = asked(examined(plant))["database"]
    assert "`softad rollback`" not in said
    assert "restore MLflow's database from a backup" in said
    for path in plant.workspace.mlflow.glob("mlflow.db*"):
        path.unlink()
    said = asked(examined(plant))["database"]
    assert "mlflow.db is gone, and with it all runs and models, though version 1 was put to use" in said


@pytest.mark.parametrize("name", ["model/MLmodel", "reference/bundle/weights.safetensors", "lineage/exclusions.json"])
def test_what_lies_beside_the_model_in_use_is_looked_at_too(plant: Any, name: str) -> None:
    plant.tracker.set_champion("1")
    [file] = plant.workspace.mlflow.glob(f"artifacts/*/{plant.tracker.version('1').run_id}/artifacts/{name}")
    for damage in (lambda: file.write_bytes(file.read_bytes()[:-4] + b"\x00}'{"), file.unlink):
        damage()
        said = asked(examined(plant))["database"]
        assert Path(name).name in said or "the reference of version 1" in said
        assert "restore MLflow's artifacts from a backup" in said or "cannot give out" in said


def test_a_config_that_does_not_hold(plant: Any) -> None:
    configure(plant, ingest={"expectations": "gone.yaml"})
    assert "gone.yaml" in asked(examined(plant))["config"]
    configure(plant, nonsense=1)
    assert "'nonsense' is unknown" in asked(examined(plant))["config"]


def test_a_champion_whose_files_were_changed(plant: Any) -> None:
    plant.tracker.set_champion("1")
    run = plant.tracker.version("1").run_id
    [weights] = copy_of(plant.tracker, run, "model/data/bundle").glob("*.safetensors")
    plant.tracker.load("1")  # the cache keeps a good copy, which says nothing of what is registered
    [original] = [path for path in plant_artifacts(plant) if path.name == weights.name and "model" in path.parts]
    before = original.read_bytes()
    original.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        assert "its files are not those that were registered" in asked(examined(plant))["database"]
    finally:
        original.write_bytes(before)


@pytest.mark.parametrize("file", ["training.json", "config.json", "rows.parquet"])
def test_a_model_in_use_or_before_it_whose_training_cannot_be_read_any_more(plant: Any, file: str) -> None:
    plant.tracker.set_champion("1")
    copy_of(plant.tracker, plant.tracker.version("1").run_id, f"lineage/{file}")
    [original] = [path for path in plant_artifacts(plant) if path.name == file]
    before = original.read_bytes()
    original.write_bytes(before[: len(before) // 2])
    try:
        said = asked(examined(plant))["database"]
        assert f"its file lineage/{file} cannot be read" in said
        assert "restore MLflow's artifacts from a backup" in said
    finally:
        original.write_bytes(before)


@pytest.mark.parametrize("table", ["inspections", "labels"])
def test_a_table_whose_newest_commit_is_gone_can_be_read_and_is_found(site: Any, table: str) -> None:
    site.ingest(site.file("parts.csv", "part,time,x1,x2,machine,ok\nA1,2026-04-01 08:00,1,2,M1,1\n"))
    site.drop("labels/labels.csv", "part,ok\nA1,0\n")
    assert [report.status for report in site.inbox()] == ["accepted"]
    assert [(check.state, check.name) for check in doctor.rows(site.store)] == [("good", "rows")]
    newest = max(Path(site.store.root, table, "_delta_log").glob("*.json"))
    kept = newest.read_bytes()
    newest.unlink()
    assert [check.state for check in doctor.tables(site.store)] == ["good"]
    [found] = doctor.rows(site.store)
    assert found.state == "act"
    assert f"table {table} has 0 rows of " in found.sentence
    assert "softad restore FILE" in found.sentence
    newest.write_bytes(kept)


def test_rows_of_a_file_that_is_not_noted_as_taken_in(site: Any) -> None:
    site.ingest(site.file("parts.csv", "part,time,x1,x2,machine,ok\nA1,2026-04-01 08:00,1,2,M1,1\n"))
    site.ingest(site.file("more.csv", "part,time,x1,x2,machine,ok\nA2,2026-04-01 08:00,1,2,M1,1\n"))
    max(Path(site.store.root, "files", "_delta_log").glob("*.json")).unlink()
    [found] = doctor.rows(site.store)
    assert found.state == "note"
    assert "2 rows are of files that are not noted as taken in" in found.sentence  # one part, and its label


def test_a_scan_whose_reference_is_gone(site: Any) -> None:
    reference = pd.DataFrame({"_id": [f"r{n}" for n in range(400)], "loss": np.linspace(0.1, 1, 400), "window": "w0"})
    life = begin_life(
        site.store, model_version="1", reference=reference, after_seq=-1, min_reference_rows=100, scan_options={},
        reason="promotion", cause="champion:1", actor="softad", now=datetime(2026, 4, 1, tzinfo=UTC),
    )  # fmt: skip
    assert life.scan is not None
    assert [check.state for check in doctor.rows(site.store)] == ["good"]
    log = max(Path(site.store.root, "references", "_delta_log").glob("*.json"))
    kept = log.read_bytes()
    log.unlink()
    assert f"table references has no rows of {life.name}" in doctor.rows(site.store)[0].sentence
    with pytest.raises(
        Damaged, match=f"table references is damaged: it has no rows of {life.name}.*softad restore FILE"
    ):
        reference_of(site.store, life)
    log.write_bytes(kept)


def plant_artifacts(plant: Any) -> list[Path]:
    """The artifacts of the plant's runs, where the registry says that they are."""
    from urllib.parse import urlparse

    experiment = plant.tracker.client.get_experiment(plant.tracker.experiment)
    return [path for path in Path(urlparse(experiment.artifact_location).path).rglob("*") if path.is_file()]


def test_gates_are_not_touched(plant: Any) -> None:
    """A look changes nothing: what follows works as if there had been none."""
    before = {str(path) for path in plant.workspace.root.rglob("*") if path.is_file() and "cache" not in path.parts}
    examined(plant)
    after = {str(path) for path in plant.workspace.root.rglob("*") if path.is_file() and "cache" not in path.parts}
    assert after == before
    assert (
        consider(**plant.parts(), training=latest_training(plant.tracker), now=plant.after(0), actor="a").version == "1"
    )
