"""Keep a whole workspace in one file, and bring it back: tables, registry, ledger, config, outbox, incidents, files.

A backup waits until no cycle, training or ingest runs, and keeps new ones waiting meanwhile. Tables are appended to
only: each table's log is read before its files, and the ledger last, so that what a person does just then (an answer to
an alert takes no lock) is in it wholly or is as if the process had died between two steps, which every step can stand.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from flows import database_backup
from flows.apart import models_in, name_in
from flows.archive import check_name, unpack, writing
from flows.credentials import Secrets
from flows.errors import BadConfig, BadInput, PipelineError, Refused, Unavailable
from flows.relocation import relocate
from flows.schemas import TABLES
from flows.settings import Settings, load_settings
from flows.workspace import FORMAT, exclusively

KIND = "softad backup"
LEFT_OUT = ("cache", "logs", "postgres", "prefect", "secrets")
"""Made anew, or kept by other means (docs/runbook.md); of `run`, only what failed and was told is kept."""

CONFIGS = "restored-configs"
"""Where configs that lay outside the workspace are after a restore."""

WAIT = 900.0


@dataclass(frozen=True)
class Kept:
    """What was kept, or brought back.

    Attributes
    ----------
    path: the backup.
    files: how many it holds.
    at: when it was made, ISO.
    notes: sentences on what is elsewhere.
    set_aside: the folder in which the workspace that was replaced lies now.
    """

    path: Path
    files: int
    at: str
    notes: tuple[str, ...] = ()
    set_aside: Path | None = None


def back_up(
    root: Path, target: Path | None, *, now: datetime, configs: Sequence[Path] = (), wait: float = WAIT
) -> Kept:
    """Write a backup of the workspace, read it again, and compare every digest.

    Parameters
    ----------
    target: a file; when not given, one with the time in its name beside the workspace.
    configs: config files that lie outside the workspace.

    Raises
    ------
    BadConfig: there is no workspace, the target lies within it, or a program of PostgreSQL's is missing.
    Refused: something runs in the workspace for longer than `wait` seconds.
    Unavailable: the workspace's own database cannot be read.
    """
    root = root.absolute()
    if not (root / "workspace.json").exists():
        raise BadConfig(f"{root} is no workspace, so there is nothing to back up; name one with --workspace DIR")
    target = (target or root.parent / f"{root.name}-{now:%Y%m%d-%H%M%S}.tar.zst").absolute()
    if target.is_relative_to(root):
        raise BadConfig(f"{target} lies in the workspace itself; name a file elsewhere with --to, best on another disk")
    about = {"kind": KIND, "workspace_format": _format(root), "made_at": now.isoformat(), "root": str(root)}
    check_name(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = tempfile.TemporaryDirectory(dir=target.parent, prefix=".backup-")
    with scratch as folder, exclusively(root, "a backup", wait=wait):
        models, notes = _models(root, configs)
        dumps, missed = _dumps(root, models, Path(folder))
        notes += [*missed, *_elsewhere(models), *_without_config(root, models)]
        with writing(target, {**about, "notes": notes}) as archive:
            for path in dumps:
                archive.add(path, f"{database_backup.FOLDER}/{path.name}")
            for path in _ordered(root):
                name = path.relative_to(root).as_posix()
                if path.suffix == ".db":
                    archive.add(_copy_of_database(path, Path(folder) / path.name), name)
                else:
                    archive.add(path, name)
            for name, path in _outside(root, configs):
                archive.add(path, f"{CONFIGS}/{name}")
            count = len(archive.files)
    unpack(target)
    return Kept(target, count, now.isoformat(), tuple(notes))


def bring_back(path: Path, root: Path, *, now: datetime, replace: bool = False, wait: float = WAIT) -> Kept:
    """Put a backup's workspace in place, whole or not at all.

    Parameters
    ----------
    replace: a workspace that is there is put aside, not deleted; without it a folder that is not empty is refused.

    Raises
    ------
    Refused: the folder is not empty, or something runs in it.
    BadInput: the file is no whole backup.
    BadConfig: it is of a newer version.
    """
    root = root.absolute()
    full = root.exists() and any(root.iterdir())
    if full and not replace:
        raise Refused(
            f"{root} is not empty, and a restore would hide what is in it; name another folder with --workspace, or "
            "say --replace: what is there is put aside, not deleted"
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}.restore-") as folder:
        fresh = Path(folder) / "workspace"
        fresh.mkdir()
        manifest = unpack(path, fresh)
        _check(path, manifest)
        relocate(fresh, final=root)
        aside = None
        if full:
            with exclusively(root, "a restore", wait=wait):
                if (root / "secrets").is_dir():
                    shutil.copytree(root / "secrets", fresh / "secrets")
                aside = root.with_name(f"{root.name}.before-{now:%Y%m%d-%H%M%S}")
                root.rename(aside)
                fresh.rename(root)
        else:
            fresh.rename(root)
    return Kept(path, len(manifest["files"]), manifest["made_at"], tuple(manifest.get("notes", ())), aside)


def _check(path: Path, manifest: dict[str, Any]) -> None:
    if manifest.get("kind") != KIND or "workspace.json" not in manifest["files"]:
        raise BadInput(f"{path}: this archive is no backup of a workspace; name one that `softad backup` wrote")
    if manifest["workspace_format"] > FORMAT:
        raise BadConfig(
            f"{path}: this backup is of format {manifest['workspace_format']}, made by a newer version; this program "
            f"reads up to format {FORMAT}; install the newer version"
        )


def _format(root: Path) -> int:
    from flows.workspace import format_of

    return format_of(root)


def _ordered(root: Path) -> Iterator[Path]:
    """The files to keep, in the order that makes them fit each other."""
    last: list[Path] = []
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if parts[0] in LEFT_OUT or path.is_symlink() or not path.is_file():
            continue
        if path.name.endswith((".part", ".lock", "-wal", "-shm", "-journal", ".loading")):
            continue
        if parts[0] == "run" and not path.name.endswith(".trouble.json"):
            continue
        if parts[0] == "tables":
            last.append(path)
        else:
            yield path
    rank = {name: number for number, name in enumerate(TABLES)}

    def order(path: Path) -> tuple[int, bool, str]:
        parts = path.relative_to(root).parts
        table = parts[2] if len(parts) > 3 else ""
        return rank.get(table, -1), "_delta_log" not in parts, str(path)

    yield from sorted(last, key=order)


def _copy_of_database(path: Path, copy: Path) -> Path:
    """As SQLite itself copies a database that is in use."""
    with closing(sqlite3.connect(path, timeout=60)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def _outside(root: Path, configs: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Configs that lie elsewhere, each with its expectations: name in the backup, path."""
    for config in configs:
        if config.absolute().is_relative_to(root):
            continue
        settings = load_settings(config)
        yield f"{settings.name}/config.yaml", config
        rules = settings.ingest.expectations
        if rules is not None and not rules.is_absolute() and ".." not in rules.parts:
            yield f"{settings.name}/{rules.as_posix()}", settings.beside_config(rules)


def _models(root: Path, configs: Sequence[Path]) -> tuple[list[Settings], list[str]]:
    """The configs as they hold, and a sentence on each that does not: that is no reason to have no backup."""
    models: list[Settings] = []
    notes: list[str] = []
    for config in configs or [path for path in [root / "config.yaml"] if path.exists()]:
        try:
            models.append(load_settings(config))
        except PipelineError:
            notes.append(f"{config} does not hold, so what it names outside the workspace is not known")
    return models, notes


def _without_config(root: Path, models: Sequence[Settings]) -> Iterator[str]:
    """The workspace's models whose configs are neither in it nor named; the workspace's own files are all kept."""
    named = {one.name for one in models} | {name_in(path) for path in root.glob("*.yaml")}
    for name in sorted(models_in(root) - named):
        yield f"{name} has tables here, and its config, which lies elsewhere, is not in this backup: add --config FILE"


def _dumps(root: Path, models: Sequence[Settings], folder: Path) -> tuple[list[Path], list[str]]:
    """What PostgreSQL keeps of MLflow's, and a sentence where a server elsewhere does not give it."""
    in_postgres = [one for one in models if database_backup.in_postgres(one)]
    if (root / "postgres" / "ready").exists():
        # Whether or not a config was named: the workspace's own database is a part of it.
        kept = Secrets.of(in_postgres[0] if in_postgres else None, root)
        return database_backup.dump(root, None, kept, folder), []
    for one in in_postgres:
        if one.services.postgres is None:
            continue  # never started, so there is none
        try:
            return database_backup.dump(root, one.services.postgres, Secrets.of(one, root), folder), []
        except (BadConfig, Unavailable) as error:
            return [], [f"runs and models are not in this backup, PostgreSQL elsewhere keeps them: {error}"]
    return [], []


def _elsewhere(models: Sequence[Settings]) -> Iterator[str]:
    """What belongs to the models and lies neither in the workspace nor in its database."""
    for one in models:
        if one.storage.tables:
            yield f"the tables of {one.name} lie in {one.storage.tables} and are not in this backup"
        if one.tracking.uri:
            yield f"runs and models of {one.name} are kept by a server; back its database up with `pg_dump`"
        if one.tracking.artifacts:
            yield f"the model files of {one.name} lie in {one.tracking.artifacts} and are not in this backup"
        if one.data.images is not None and one.data.images.is_absolute():
            yield f"the images of {one.name} lie in {one.data.images} and are not in this backup"
