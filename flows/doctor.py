"""Is everything as it must be for the next cycle? Each check looks, changes nothing, and says what to do."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flows import run_files
from flows.agreement import compare
from flows.disk import is_disk_full
from flows.errors import PipelineError
from flows.ledger import read
from flows.promotions import champion_of
from flows.redaction import redacted
from flows.workspace import write_atomically

if TYPE_CHECKING:
    from flows.context import Context
    from flows.settings import Settings
    from flows.store import Store
    from flows.tracking import Tracker

LEAST_FREE = 1_000_000_000
"""Bytes below which the next retraining or report may not fit."""
FEW_FREE = 5_000_000_000
LEAST_FILES = 10_000
"""Free places for files (inodes) below which a cycle may find none."""
CLOCK_OFF = timedelta(minutes=5)
AHEAD = timedelta(days=1)
"""A row may be dated so much after this clock: time zones differ."""
_PROBE = 1_000_000


@dataclass(frozen=True)
class Check:
    """What one look found.

    Attributes
    ----------
    name: what was looked at.
    state: good; note (it works, and somebody should know); act (something must be done).
    sentence: what was found, where, and what to do.
    """

    name: str
    state: Literal["good", "note", "act"]
    sentence: str


def attempted(name: str, look: Callable[[], Iterable[Check]]) -> list[Check]:
    """What a look found; where it fails, that is what was found.

    >>> attempted("tables", lambda: [Check("tables", "good", "all can be read")])[0].state
    'good'
    """
    try:
        return list(look())
    except PipelineError as error:
        return [Check(name, "act", redacted(str(error)))]
    except Exception as error:
        said = str(error).strip().split("\n", maxsplit=1)[0][:200]
        sentence = f"this could not be looked at ({type(error).__name__}: {redacted(said)}); run it with --debug"
        return [Check(name, "act", sentence)]


def disk(folder: Path, *, least: int = LEAST_FREE, few: int = FEW_FREE) -> list[Check]:
    """Room on the disk, and whether something can really be written there."""
    free = shutil.disk_usage(folder).free
    room = f"{free / 1e9:.1f} GB are free where {folder} lies"
    probe = folder / f".doctor-{os.getpid()}"
    try:
        write_atomically(probe, b"\0" * _PROBE)
    except OSError as error:
        if is_disk_full(error):
            return [Check("disk", "act", f"{folder}: the disk is full; free some space, nothing is lost meanwhile")]
        return [Check("disk", "act", f"{folder}: nothing can be written there ({error.strerror}); see who owns it")]
    finally:
        probe.unlink(missing_ok=True)
    if free < least:
        return [Check("disk", "act", f"{room}: free some space, or remove old files with `softad maintain`")]
    places = os.statvfs(folder)
    if places.f_files and places.f_favail < LEAST_FILES:
        return [Check("disk", "act", f"only {places.f_favail} more files fit where {folder} lies; remove small files")]
    if free < few:
        return [Check("disk", "note", f"{room}, which is little; `softad maintain` removes what the config lets go")]
    return [Check("disk", "good", f"{room}; it can be written")]


def permissions(root: Path, secret: Path | None, folder: Path | None = None) -> list[Check]:
    """Whether this user may read and write every folder, and whether others may read what is secret.

    Parameters
    ----------
    secret: the config, where it holds addresses with passwords.
    folder: of the secrets; it need not be there.
    """
    folders = [root, *(path for pattern in ("*/", "*/*/") for path in root.glob(pattern) if path.is_dir())]
    found = []
    for path in folders:
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            sentence = f"{path} cannot be read and written by this user; see who owns it (`ls -ld`), and start"
            found.append(Check("permissions", "act", f"{sentence} everything as one user"))
            break
    owner = root.stat().st_uid
    # PostgreSQL's folder is its user's own where `softad up` is root's.
    for path in (one for one in folders if not one.is_relative_to(root / "postgres")):
        if path.stat().st_uid != owner:
            sentence = f"{path} belongs to user {path.stat().st_uid} and the workspace to {owner}: somebody ran a"
            found.append(Check("permissions", "act", f"{sentence} command as another user; `chown -R` it back"))
            break
    if secret is not None and secret.stat().st_mode & 0o077:
        sentence = f"{secret} holds addresses with passwords, and others may read it: `chmod 600` it"
        found.append(Check("permissions", "note", sentence))
    if folder is not None and folder.is_dir() and folder.stat().st_mode & 0o077:
        found.append(Check("permissions", "act", f"others may look into {folder}: `chmod -R go-rwx` it"))
    return found or [Check("permissions", "good", f"{len(folders)} folders can be read and written")]


def database(tracker: Tracker, store: Store) -> list[Check]:
    """Whether runs and models can be reached, whole, and the model in use is what the ledger says and can be loaded."""
    from flows.database import problem
    from flows.promote import champion_in_use

    local = tracker.uri.removeprefix("sqlite:///") if tracker.uri.startswith("sqlite:///") else None
    if local is not None and not Path(local).exists():
        kept = champion_of(read(store))
        if kept is not None:
            sentence = f"{local} is gone, and with it all runs and models, though version {kept} was put to use"
            return [Check("database", "act", f"{sentence}; restore a backup with `softad restore FILE`")]
        return [Check("database", "good", "there are no runs and models yet; the first cycle makes their database")]
    said = problem(tracker.uri)
    if said is not None:
        return [Check("database", "act", said)]
    if local is not None:
        with sqlite3.connect(f"file:{local}?mode=ro", uri=True) as connection:
            answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if answer != "ok":
            return [Check("database", "act", f"{local} is damaged ({answer}); restore a backup with `softad restore`")]
    champion = champion_in_use(store, tracker)
    if champion is None:
        return [Check("database", "good", "runs and models can be reached; no model is in use yet")]
    before = tracker.previous()
    for version in dict.fromkeys(one for one in (champion, before) if one is not None):
        # As the registry has them: a good copy in the cache would hide what is lost.
        tracker.check(version)
        tracker.check(version, reference=True)
        run_files.check(tracker, tracker.version(version).run_id)
    tracker.load(champion)
    also = f", and so is version {before}, to which `softad rollback` goes" if before not in {None, champion} else ""
    said = f"runs and models can be reached; version {champion}, which is in use, is whole{also}"
    return [Check("database", "good", said)]


def clock(store: Store, folder: Path, *, now: datetime) -> list[Check]:
    """Whether this machine's clock can be right: nothing that was written comes from the future."""
    noted = {
        "the newest ledger entry": store.sql('SELECT max("at") AS t FROM ledger')["t"].iloc[0],
        "the newest row": store.sql('SELECT max("_at") AS t FROM inspections')["t"].iloc[0],
    }
    found = clock_of(noted, now=now)
    probe = folder / f".doctor-clock-{os.getpid()}"
    try:
        probe.touch()
        apart = probe.stat().st_mtime - time.time()
    finally:
        probe.unlink(missing_ok=True)
    if abs(apart) > CLOCK_OFF.total_seconds():
        found.append(Check("clock", "act", f"the file system of {folder} and this machine differ by "
                           f"{abs(apart) / 60:.0f} minutes; set both by the same time server"))  # fmt: skip
    ahead = store.sql(
        f'SELECT count(*) AS n, max("_time") AS t FROM inspections WHERE "_time" > \'{(now + AHEAD).isoformat()}\''  # noqa: S608
    )
    if int(ahead["n"].iloc[0]):
        count, last = int(ahead["n"].iloc[0]), ahead["t"].iloc[0]
        sentence = (
            f"{count:,} rows are dated after today, the last {last:%Y-%m-%d}: a machine's clock is wrong, or a date "
            "was misread; deliver them again with the right time, which corrects them"
        )
        found.append(Check("clock", "note", sentence))
    return found or [Check("clock", "good", f"it is {now:%Y-%m-%d %H:%M} UTC here, after all that was written")]


def clock_of(noted: Mapping[str, datetime | None], *, now: datetime) -> list[Check]:
    """What comes from the future, by this clock.

    >>> from datetime import UTC
    >>> clock_of({"the newest row": datetime(2026, 1, 2, tzinfo=UTC)}, now=datetime(2026, 1, 1, tzinfo=UTC))[0].state
    'act'
    """
    return [
        Check("clock", "act", f"{what} is from {at:%Y-%m-%d %H:%M} UTC and this clock says {now:%Y-%m-%d %H:%M}: set "
              f"the clock (timedatectl), unless the data were replayed with --now")
        for what, at in noted.items()
        if isinstance(at, datetime) and at == at and at - now > CLOCK_OFF  # noqa: PLR0124  (no time is not itself)
    ]  # fmt: skip


def tables(store: Store) -> list[Check]:
    """Whether every table's log and files can be read."""
    from flows.schemas import TABLES

    found, rows = [], 0
    for table in TABLES:
        try:
            rows += store.count(table)
        except PipelineError as error:
            found.append(Check("tables", "act", str(error)))
            continue
        log = Path(store.root, table, "_delta_log")
        torn = [] if store.remote else [path.name for path in log.glob("*.json") if not path.stat().st_size]
        if torn:
            sentence = (
                f"table {table}: {torn[0]} of its log is empty, left by a power failure; keep a copy of the folder"
            )
            found.append(Check("tables", "act", f"{sentence}, then bring a backup back with `softad restore FILE`"))
    return found or [Check("tables", "good", f"all tables can be read; {rows} rows")]


def rows(store: Store) -> list[Check]:
    """Whether the tables agree: each file's rows are where its record says, each scan has its reference."""
    found = compare(store)
    if found.faults:
        more = f" (and {len(found.faults) - 1} more)" if len(found.faults) > 1 else ""
        sentence = (
            f"{found.faults[0]}{more}: part of the tables was lost or put back from another time; keep a copy of the "
            "folder, then bring a backup back with `softad restore FILE`"
        )
        return [Check("rows", "act", sentence)]
    if found.nameless:
        sentence = (
            f"{found.nameless} rows are of files that are not noted as taken in: an ingest runs or was cut off, and "
            "the next cycle ends it; where this stays, a part of the table files was lost: bring a backup back with "
            "`softad restore FILE`"
        )
        return [Check("rows", "note", sentence)]
    kept = f"{found.accepted} accepted, {found.quarantined} in quarantine"
    return [Check("rows", "good", f"the rows of {found.files} files are where they were put: {kept}")]


def ledger(store: Store) -> list[Check]:
    """Whether the ledger is as it was written."""
    from flows.audit import verify

    found = verify(store)
    if found.faults:
        more = f" (and {len(found.faults) - 1} more)" if len(found.faults) > 1 else ""
        return [Check("ledger", "act", f"{found.faults[0]}{more}: keep a copy of the tables, then restore a backup")]
    return [Check("ledger", "good", f"{found.entries} entries, each as it was written")]


def outbox(context: Context) -> list[Check]:
    """Alerts that are not with all their channels, and files of the inbox that wait."""
    from flows.alerting import outbox_of

    found, kept = [], outbox_of(context)
    for path, subject in kept.damaged().items():
        known = (
            "that alert may never have been told: compare with `softad alerts list` and the page"
            if subject is None
            else f"its alert ({subject}) is in alerts.jsonl, and may not have reached the other channels"
        )
        found.append(Check("outbox", "act", f"{path} cannot be read; {known}; then move the file away"))
    if waiting := kept.waiting():
        sentence = (
            f"{waiting} alerts wait for a channel that did not take them; see which with `softad alerts test`, mend "
            "its address in the config; the next cycle sends them"
        )
        found.append(Check("outbox", "act", sentence))
    return found or [Check("outbox", "good", "no alert waits")]


def config(settings: Settings) -> list[Check]:
    """Whether what the config names is there."""
    from flows.validate import load_suite

    if settings.ingest.expectations is not None:
        load_suite(settings.beside_config(settings.ingest.expectations))
    images = settings.data.images
    if images is not None and not settings.beside_config(images).exists():
        return [Check("config", "act", f"data.images: {settings.beside_config(images)} is not there; mend the path")]
    return [Check("config", "good", f"the config of {settings.name} holds")]


def diagnose(config_path: Path | None, workspace: Path, *, now: datetime) -> list[Check]:
    """All checks that can be made, those of the workspace and the config first."""
    from flows.context import Context
    from flows.credentials import apply
    from flows.installation import ports, versions
    from flows.logins import logins
    from flows.settings import load_settings
    from flows.workspace import Workspace, check_format

    found = attempted("versions", versions)
    root = workspace.absolute()
    if not (root / "workspace.json").exists():
        sentence = f"{root} is no workspace; make one with `softad init DATA`, or name one with --workspace DIR"
        return [*found, Check("workspace", "act", sentence)]
    whole = attempted("workspace", lambda: [Check("workspace", "good", f"{root} has format {check_format(root)}")])
    found += whole + attempted("disk", lambda: disk(root)) + attempted("ports", lambda: ports(root))
    path = config_path or root / "config.yaml"
    if whole[0].state == "act":
        return found
    try:
        settings = load_settings(path)
    except PipelineError as error:
        found += attempted("permissions", lambda: permissions(root, None))
        return [*found, Check("config", "act", redacted(str(error)))]
    found += attempted("config", lambda: config(settings))
    secret = path if settings.alerts.channels or settings.alerts.escalate_to else None
    found += attempted("permissions", lambda: permissions(root, secret, root / settings.services.secrets))
    apply(settings, root)

    def opened() -> list[Check]:
        Workspace.open(root, settings=settings)
        return []

    unopened = attempted("registry", opened)
    found += unopened
    context = Context(settings, Workspace.at(root, settings=settings))
    store = context.store
    refused = attempted("logins", lambda: logins(settings, root))
    found += refused
    if all(one.state == "good" for one in [*unopened, *refused]):
        found += attempted("database", lambda: database(context.tracker, store))
    whole = attempted("tables", lambda: tables(store))
    found += whole
    if all(one.state == "good" for one in whole):
        found += attempted("rows", lambda: rows(store))
    found += attempted("ledger", lambda: ledger(store))
    found += attempted("clock", lambda: clock(store, root, now=now)) + attempted("outbox", lambda: outbox(context))
    return found
