"""Backup, restore and upgrade, on a workspace that the first release wrote: destroyed, brought back, and going on."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import tarfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from flows import workspace as workspaces
from flows.archive import unpack
from flows.audit import verify
from flows.backup import back_up
from flows.cli import app
from flows.context import Context, open_context
from flows.cycle import run_steps
from flows.errors import BadInput, PipelineError, Refused
from flows.page import page_data
from flows.workspace import exclusively
from softad.simulation import InspectionLine

FIRST = Path(__file__).absolute().parent.parent / "fixtures" / "workspace-format-1.tar.xz"


def call(root: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--workspace", str(root)])


def answer(root: Path, *words: str) -> dict[str, Any]:
    result = call(root, *words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """The workspace as the first release left it."""
    shutil.unpack_archive(FIRST, tmp_path)
    return tmp_path / "workspace"


@pytest.fixture
def root(upgraded_once: Path, tmp_path: Path) -> Path:
    shutil.copytree(upgraded_once, tmp_path / "plant" / "workspace")
    return tmp_path / "plant" / "workspace"


def page_of(context: Context) -> str:
    """What the page shows, apart from where it is."""
    data = page_data(context, now=datetime(2026, 2, 1, tzinfo=UTC))
    return str(data).replace(str(context.workspace.root), "ROOT")


def files_of(root: Path) -> dict[str, str]:
    """Every file that a backup must bring back, with its digest; SQLite's own files by what they hold."""
    kept = ("cache", "logs", "prefect", "run")
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not name.startswith(kept) and path.suffix != ".db" and not name.endswith(".lock"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def next_week(root: Path) -> Any:
    context = open_context(None, root)
    line = InspectionLine(rows_per_week=250)
    data, key = line.week(3), line.week_key(3)
    data.inspections.to_csv(context.workspace.inbox / f"{key}.csv", index=False)
    data.labels.to_csv(context.workspace.inbox / "labels" / f"{key}.csv", index=False)
    day = line.start + timedelta(weeks=3, days=11)
    return run_steps(context, now=datetime(day.year, day.month, day.day, tzinfo=UTC))


@pytest.mark.parametrize("ending", ["tar.zst", "tar.gz"])
def test_destroyed_and_brought_back(root: Path, tmp_path: Path, ending: str) -> None:
    context = open_context(None, root)
    before, page, held = files_of(root), page_of(context), verify(context.store)
    (root / "inbox" / "waiting.csv").write_text("id\n1\n")
    champion, rows = context.tracker.champion(), context.store.count("inspections")
    target = tmp_path / f"kept.{ending}"
    said = answer(root, "backup", "--to", str(target))
    assert said["files"] > len(before)
    assert target.stat().st_mode & 0o077 == 0
    shutil.rmtree(root)
    done = answer(root, "restore", str(target))
    assert done["files"] == said["files"]
    assert (root / "inbox" / "waiting.csv").read_text() == "id\n1\n"
    (root / "inbox" / "waiting.csv").unlink()
    assert files_of(root) == before
    again = open_context(None, root)
    assert verify(again.store) == held
    assert held.faults == ()
    assert held.entries > 0
    assert page_of(again) == page
    report = next_week(root)
    assert report.scored == 250
    assert [one.model_version for one in report.outcomes] == [champion]
    assert Context(again.settings, again.workspace).store.count("inspections") == rows + 250
    assert verify(again.store).faults == ()


def test_a_model_whose_config_lies_elsewhere_is_named(root: Path, tmp_path: Path) -> None:
    (root / "tables" / "line-b" / "files").mkdir(parents=True)
    (root / "tables" / "line-c").mkdir()
    said = answer(root, "backup", "--to", str(tmp_path / "kept.tar.gz"))
    [note] = said["notes"]
    assert (
        note == "line-b has tables here, and its config, which lies elsewhere, is not in this backup: add --config FILE"
    )
    config = tmp_path / "b.yaml"
    config.write_text(re.sub(r"(?m)^name: .*", "name: line-b", (root / "config.yaml").read_text()))
    named = ["--config", str(config), "--config", str(root / "config.yaml")]
    assert answer(root, "backup", "--to", str(tmp_path / "all.tar.gz"), *named)["notes"] == []
    shutil.copy(config, root / "b.yaml")
    assert answer(root, "backup", "--to", str(tmp_path / "within.tar.gz"))["notes"] == []


def test_restored_elsewhere_old_versions_load(root: Path, tmp_path: Path) -> None:
    """The first folder is gone, artifacts and all: what MLflow noted by absolute path must have followed."""
    answer(root, "backup", "--to", str(tmp_path / "kept.tar.gz"))
    shutil.rmtree(root)
    there = tmp_path / "another place" / "部品"
    answer(there, "restore", str(tmp_path / "kept.tar.gz"))
    context = open_context(None, there)
    version = context.tracker.champion()
    assert version is not None
    assert context.tracker.load(version).digest() == context.tracker.version(version).digest
    assert call(there, "audit", "verify").exit_code == 0


def test_a_workspace_that_was_moved_loads_its_old_versions(root: Path, tmp_path: Path) -> None:
    there = tmp_path / "moved"
    root.rename(there)
    shutil.rmtree(there / "cache", ignore_errors=True)
    context = open_context(None, there)
    version = context.tracker.champion()
    assert version is not None
    assert context.tracker.load(version).digest() == context.tracker.version(version).digest


def test_a_folder_in_use_is_refused_unless_told(root: Path, tmp_path: Path) -> None:
    answer(root, "backup", "--to", str(tmp_path / "kept.tar.gz"))
    (root / "note.txt").write_text("later")
    refused = call(root, "restore", str(tmp_path / "kept.tar.gz"))
    assert refused.exit_code == 4
    assert "is not empty" in refused.stderr
    (root / "secrets").mkdir()
    (root / "secrets" / "prefect_auth").write_text("softad:x")
    done = answer(root, "restore", str(tmp_path / "kept.tar.gz"), "--replace")
    aside = Path(done["set_aside"])
    assert (aside / "note.txt").read_text() == "later"
    assert not (root / "note.txt").exists()
    assert (root / "secrets" / "prefect_auth").exists()
    assert not [path for path in root.parent.iterdir() if path.name.startswith(".")]


def test_no_password_and_no_cache_is_kept(root: Path, tmp_path: Path) -> None:
    for name in ("secrets/prefect_auth", "cache/x", "prefect/server.db", "run/plant.cycle.lock", "logs/up.log"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("canary")
    (root / "run" / "plant.cycle.trouble.json").write_text("{}")
    answer(root, "backup", "--to", str(tmp_path / "kept.tar.gz"))
    names = unpack(tmp_path / "kept.tar.gz")["files"]
    assert not [name for name in names if name.startswith(("secrets", "cache", "prefect", "logs"))]
    assert [name for name in names if name.startswith("run/")] == ["run/plant.cycle.trouble.json"]


def test_it_waits_for_a_cycle_and_keeps_the_next_one_waiting(root: Path, tmp_path: Path) -> None:
    place = open_context(None, root).workspace
    with place.lock("cycle"):
        refused = call(root, "backup", "--to", str(tmp_path / "a.tar.gz"), "--wait", "0")
        assert refused.exit_code == 4
        assert "still runs after 0 s" in refused.stderr
        assert not (tmp_path / "a.tar.gz").exists()
    entered: list[float] = []

    def cycle() -> None:
        with place.lock("cycle", wait=False):
            entered.append(time.monotonic())

    with exclusively(root, "a test", wait=1):
        waiting = threading.Thread(target=cycle)
        waiting.start()
        time.sleep(0.5)
        assert entered == []
        left = time.monotonic()
    waiting.join(10)
    assert entered[0] >= left


def test_a_backup_within_the_workspace_or_of_nothing(root: Path, tmp_path: Path) -> None:
    assert "lies in the workspace itself" in call(root, "backup", "--to", str(root / "a.tar.gz")).stderr
    assert "ends in .tar.zst or .tar.gz" in call(root, "backup", "--to", str(tmp_path / "a.zip")).stderr
    assert "is no workspace" in call(tmp_path / "none", "backup").stderr
    assert call(tmp_path / "b", "restore", str(tmp_path / "none.tar.gz")).exit_code == 2


def packed(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


@pytest.mark.parametrize(
    "member",
    [tarfile.TarInfo("../outside.txt"), tarfile.TarInfo("/outside.txt"), tarfile.TarInfo("a/../../outside.txt"),
     link("inside", "/etc")],
    ids=["up", "absolute", "up from below", "link"],
)  # fmt: skip
def test_an_archive_cannot_write_elsewhere(tmp_path: Path, member: tarfile.TarInfo) -> None:
    evil = packed(tmp_path / "evil.tar.gz", [(member, b"")])
    refused = call(tmp_path / "deep" / "workspace", "restore", str(evil))
    assert refused.exit_code == 3
    assert "is no plain file inside a workspace" in refused.stderr
    assert not list(tmp_path.rglob("outside*"))
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_damaged_backup_changes_nothing(root: Path, tmp_path: Path) -> None:
    answer(root, "backup", "--to", str(tmp_path / "kept.tar.gz"))
    whole = (tmp_path / "kept.tar.gz").read_bytes()
    there = tmp_path / "there"
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    assert "is no whole backup" in call(there, "restore", str(tmp_path / "cut.tar.gz")).stderr
    (tmp_path / "noise.tar.zst").write_bytes(b"no archive at all")
    assert call(there, "restore", str(tmp_path / "noise.tar.zst")).exit_code == 3
    content = bytearray(gzip.decompress(whole))
    at = content.index(b"name: line-a")
    content[at : at + 12] = b"name: line-b"
    (tmp_path / "changed.tar.gz").write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(BadInput, match=r"config\.yaml is not as it was backed up \(1 files in all\)"):
        unpack(tmp_path / "changed.tar.gz")
    assert call(there, "restore", str(tmp_path / "changed.tar.gz")).exit_code == 3
    manifest = tarfile.TarInfo("manifest.json")
    other = packed(tmp_path / "other.tar.gz", [(manifest, b'{"kind": "x", "files": {}}')])
    assert "is no backup of a workspace" in call(there, "restore", str(other)).stderr
    assert not there.exists()


def test_the_first_release_is_brought_forward_and_back(first: Path) -> None:
    before = files_of(first)
    refused = call(first, "status")
    assert refused.exit_code == 2
    assert "`softad upgrade` brings it to format" in refused.stderr
    seen = call(first, "doctor", "--json")
    assert seen.exit_code == 4
    assert "made by an earlier version" in seen.stdout
    done = answer(first, "upgrade")
    assert (done["before"], done["after"]) == (1, workspaces.FORMAT)
    context = open_context(None, first)
    assert verify(context.store).faults == ()
    version = context.tracker.champion()
    assert version is not None
    assert context.tracker.load(version).digest() == context.tracker.version(version).digest
    after = files_of(first)
    assert {name for name in after if after[name] != before.get(name)} <= {"workspace.json"}
    assert answer(first, "upgrade")["backup"] is None
    kept = done["backup"]["path"]
    answer(first, "restore", kept, "--replace")
    assert files_of(first) == before
    assert answer(first, "upgrade")["before"] == 1


def test_the_upgraded_workspace_goes_on(root: Path) -> None:
    report = next_week(root)
    assert report.scored == 250
    assert len(report.outcomes) == 1


def test_where_no_workspace_is_nothing_is_brought_forward(tmp_path: Path) -> None:
    refused = call(tmp_path / "there", "upgrade")
    assert refused.exit_code == 2
    assert f"{tmp_path / 'there'} is no workspace, so there is nothing to bring forward" in refused.stderr
    assert not (tmp_path / "there").exists()


def test_an_upgrade_that_fails_leaves_the_old_workspace(first: Path) -> None:
    before = files_of(first)
    (first / "mlflow" / "mlflow.db").write_bytes(b"no database" * 100)
    failed = call(first, "upgrade")
    assert failed.exit_code == 1, failed.output
    assert files_of(first) == before
    assert json.loads((first / "workspace.json").read_text())["format"] == 1


def test_a_newer_backup_is_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(root, "backup", "--to", str(tmp_path / "kept.tar.gz"))
    monkeypatch.setattr("flows.backup.FORMAT", 1)
    refused = call(tmp_path / "there", "restore", str(tmp_path / "kept.tar.gz"))
    assert refused.exit_code == 2
    assert "made by a newer version" in refused.stderr
    assert issubclass(Refused, PipelineError)


def test_a_database_that_no_start_has_loaded_yet_is_kept_as_it_lies(first: Path, tmp_path: Path) -> None:
    waiting = first / "databases"
    waiting.mkdir()
    for name in ("mlflow.dump", "mlflow_auth.dump", "mlflow.loading"):
        (waiting / name).write_text(name)
    (first / "postgres").mkdir()
    (first / "postgres" / "ready").touch()
    # The server is not asked: it does not have yet what lies here.
    back_up(first, tmp_path / "kept.tar.gz", now=datetime(2026, 5, 1, tzinfo=UTC))
    kept = [name for name in unpack(tmp_path / "kept.tar.gz")["files"] if name.startswith("databases/")]
    assert sorted(kept) == ["databases/mlflow.dump", "databases/mlflow_auth.dump"]
