"""Take inspection and label files into the tables: each file once, each row once, nothing dropped.

`ingest_file` takes one file and leaves it where it is. `ingest_inbox` takes all that lie in the inbox and moves those
that were taken in to the archive; a file that is refused stays where it was put.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

import pyarrow as pa

from flows.bytes import StillWritten, check_settled, check_there, file_sha
from flows.commit import Counts, commit_file, commit_inspections, commit_labels
from flows.errors import BadInput
from flows.images import ImageSource, find_images, keep_image
from flows.intake import Intake, Kind, Taken, describe
from flows.label_files import LabelPreparation
from flows.prepare import Preparation
from flows.readers import FileFormat, missing_columns, survey
from flows.roles import inspection_roles, label_roles
from flows.settings import Settings
from flows.staging import clear_staging, staging
from flows.store import Store
from flows.validate import Checker, load_suite
from flows.workspace import Workspace, shortened

_UNFINISHED = (".tmp", ".part", ".crdownload", ".filepart")


@dataclass(frozen=True)
class IngestReport:
    """What became of one file.

    Attributes
    ----------
    status: "accepted"; "already" (the same bytes were taken in before, nothing was done); "refused" (nothing of it
        was taken in); "waiting" (another program still writes to it).
    read, accepted, quarantined, duplicates: rows; read is the sum of the other three.
    corrections: accepted rows that replace an earlier version. labels: labels that are new or changed.
    sentences: what a person should know, in plain words.
    """

    sha: str
    name: str
    kind: Kind
    status: Literal["accepted", "already", "refused", "waiting"]
    read: int = 0
    accepted: int = 0
    quarantined: int = 0
    duplicates: int = 0
    corrections: int = 0
    labels: int = 0
    sentences: list[str] = field(default_factory=list)


def ingest_file(
    path: Path,
    settings: Settings,
    store: Store,
    workspace: Workspace,
    *,
    now: datetime,
    from_inbox: bool = False,
) -> IngestReport:
    """Take one file in.

    Parameters
    ----------
    now: time of the ingest, aware.
    from_inbox: move the file to the archive once it is taken in.

    Raises
    ------
    BadInput: the file is refused as a whole; it stays as it is, and only the table of files says so.
    BadConfig: the config or the expectations do not fit; nothing was done.
    Unavailable: the disk is full; the same call later completes the work.
    """
    path = Path(path)
    with workspace.lock("ingest"):
        clear_staging(workspace)
        report = _ingest(path, settings, store, workspace, now=now)
        if from_inbox:
            _archive(path, report.sha, settings, workspace)
    return report


def check_file(path: Path, settings: Settings, workspace: Workspace, *, now: datetime) -> None:
    """Read and check a file as `ingest_file` does, and write nothing.

    The first bad row is told, whatever share of them `ingest.max_bad_share` allows.

    Raises
    ------
    BadInput: a row, or a label, would go to quarantine; or the file is refused.
    """
    with workspace.lock("ingest"):
        clear_staging(workspace)
        settings = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"max_bad_share": 1.0})})
        form = survey(path, [*settings.data.features, *settings.data.slices])
        kind: Kind = "labels" if label_roles(form, settings, asked=False) is not None else "inspections"
        with staging(workspace) as staged, _intake(path, form, settings, workspace, kind=kind, now=now) as intake:
            taken = intake.read(staged)
        first = taken.held.first or taken.labels.first
        if first is not None:
            raise BadInput(f"{path.name}: first {describe(first)}")


def ingest_inbox(settings: Settings, store: Store, workspace: Workspace, *, now: datetime) -> list[IngestReport]:
    """Take in all files of the inbox, inspections before labels, each in order of name.

    A file that is refused gives a report with the sentence, once for each configuration: afterwards it lies there
    unread until the config, the expectations or the file change. A file that is still being written gives a
    report each time, and is left for the next.
    """
    reports: list[IngestReport] = []
    digest = intake_digest(settings)
    with workspace.lock("ingest"):
        clear_staging(workspace)
    for path in _waiting(settings, workspace):
        kind: Kind = "labels" if path.parent.name == "labels" else "inspections"
        sha = ""
        try:
            sha = _readable_sha(path)
            if not store.has("files", refusal_key(path, sha, digest)):
                reports.append(ingest_file(path, settings, store, workspace, now=now, from_inbox=True))
        except FileNotFoundError:
            continue  # another process took it meanwhile
        except StillWritten as error:
            reports.append(IngestReport("", path.name, kind, "waiting", sentences=[str(error)]))
        except BadInput as error:
            if path.exists():
                reports.append(IngestReport(sha, printable(path.name), kind, "refused", sentences=[str(error)]))
    return reports


def printable(name: str) -> str:
    """A file's name as it can be shown and kept, whatever bytes the system has for it.

    >>> printable("parts.csv"), printable(os.fsdecode("検査.csv".encode("cp932")))
    ('parts.csv', '検査.csv')
    """
    raw = os.fsencode(name)
    for encoding in ("utf-8", "cp932"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("utf-8", errors="backslashreplace")


def _readable_sha(path: Path, *, settle_seconds: float | None = None) -> str:
    """The file's hash; BadInput where it cannot be read, or where its name could not be told to anybody."""
    shown = printable(path.name)
    if shown != path.name:
        raise BadInput(
            f"{shown}: the name of this file is not in UTF-8; rename it (for example to its date) and try again"
        )
    try:
        if settle_seconds is not None:
            check_settled(path, settle_seconds)
        return file_sha(path)
    except PermissionError as error:
        raise BadInput(f"{path}: the file may not be read; give this user the right to read it") from error


def intake_digest(settings: Settings) -> str:
    """Changes with whatever decides if a file is refused: the config, the expectations, the images."""
    parts = [settings.digest()]
    if settings.ingest.expectations is not None:
        suite = settings.beside_config(settings.ingest.expectations)
        parts.append(suite.read_text(encoding="utf-8", errors="replace") if suite.exists() else "")
    if settings.data.images is not None:
        images = settings.beside_config(settings.data.images)
        parts.append(str(images.stat().st_mtime_ns) if images.exists() else "")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def refusal_key(path: Path, sha: str, digest: str) -> str:
    """Under which a refusal is remembered: these bytes, under this name, with this configuration."""
    return f"refused:{sha}:{digest}:{path.parent.name == 'labels'}:{path.name}"


def _ingest(path: Path, settings: Settings, store: Store, workspace: Workspace, *, now: datetime) -> IngestReport:
    check_there(path)
    sha = _readable_sha(path, settle_seconds=settings.ingest.settle_seconds)
    asked = path.absolute().parent == workspace.inbox / "labels"
    kind: Kind = "labels" if asked else "inspections"
    if store.has("files", sha):
        return _already(path, sha, store)
    try:
        data = settings.data
        expected = [data.id, data.time, data.label, *data.features, *data.slices, *data.label_columns]
        form = survey(path, [name for name in expected if name is not None])
        if form.sha != sha:
            raise BadInput(f"{path.name} changed while it was being read; wait until it is written, and try again")
        roles = label_roles(form, settings, asked=asked)
        kind = "labels" if roles is not None or asked else "inspections"
        known = functools.partial(store.columns, "inspections")
        intake_of = _intake(path, form, settings, workspace, kind=kind, now=now, known=known)
        with staging(workspace) as staged, intake_of as intake:
            taken = intake.read(staged)
            news = _new_columns(path, form, settings, store) if kind == "inspections" else []
            counts = (commit_labels if kind == "labels" else commit_inspections)(intake, taken, store)
            sentences = _sentences(path, counts, taken, kind) + news
            message = " ".join(sentences)
            digest = intake_digest(settings)
            commit_file(
                store, sha, sha=sha, name=path.name, kind=kind, counts=counts, message=message, digest=digest, now=now
            )
    except BadInput as error:
        digest = intake_digest(settings)
        key = refusal_key(path, sha, digest)
        commit_file(
            store, key, sha=sha, name=path.name, kind=kind, counts=None, message=str(error), digest=digest, now=now
        )
        raise
    return IngestReport(
        sha,
        path.name,
        kind,
        "accepted",
        counts.read,
        counts.accepted,
        counts.quarantined,
        counts.duplicates,
        counts.corrections,
        counts.labels,
        sentences,
    )


@contextlib.contextmanager
def _intake(
    path: Path, form: FileFormat, settings: Settings, workspace: Workspace, *, kind: Kind, now: datetime,
    known: Callable[[], pa.Schema] | None = None,
) -> Iterator[Intake]:  # fmt: skip
    """What the file's rows go through, with the archive of images open meanwhile."""
    if kind == "labels":
        labels = label_roles(form, settings, asked=True)
        if labels is None:
            missing_columns(path, form, [settings.data.id or "id", settings.data.label], "a label file needs")
            raise BadInput(f"{path.name}: a label file needs the columns of the id and the label; add them")
        yield Intake(path, form, kind, settings, Checker([]), LabelPreparation(settings, labels), now)
        return
    roles = inspection_roles(path, form, settings, known)
    checker = _checker(path, form, settings)
    with contextlib.ExitStack() as stack:
        keep = None
        if settings.data.image is not None:
            place = find_images(path, settings)
            if place is None:
                stem = path.name.split(".")[0]
                raise BadInput(
                    f"{path.name}, column {settings.data.image!r}: the images are not there; put them beside the file "
                    f"as {stem}.zip or as the folder {stem}, or name them in the config as data.images"
                )
            source = ImageSource.open(place)
            stack.callback(source.close)

            def keep(name: str) -> str:
                return keep_image(source.read(name), name, workspace)

        prepare = Preparation(settings, roles, checker, keep)
        intake = Intake(path, form, kind, settings, checker, prepare, now)
        yield intake


def _checker(path: Path, form: FileFormat, settings: Settings) -> Checker:
    if settings.ingest.expectations is None:
        return Checker([])
    source = settings.beside_config(settings.ingest.expectations)
    load_suite(source)  # says what is wrong with the file, or that it is missing
    zone = None if settings.data.time is None else (settings.data.time, settings.data.time_zone)
    checker = _built_checker(source, source.stat().st_mtime_ns, zone)
    labels = {settings.data.label, *settings.data.label_columns}
    needed = [name for name in checker.needed if name not in labels]
    missing_columns(path, form, needed, f"the expectations in {source.name} check")
    return checker


@functools.lru_cache(maxsize=4)
def _built_checker(source: Path, changed: int, zone: tuple[str, str] | None) -> Checker:  # noqa: ARG001 (a key)
    """Building the rules takes longer than checking a small file: many files in a row share them."""
    return Checker(load_suite(source), source=str(source), time_columns=dict([zone] if zone else []))


def _new_columns(path: Path, form: FileFormat, settings: Settings, store: Store) -> list[str]:
    """A sentence on columns that came for the first time, where there were files before."""
    before = store.columns("inspections").names
    if store.version("inspections") is None:
        return []
    known = {*before, settings.data.label, *settings.data.label_columns}
    fresh = [name for name in form.columns if name not in known]
    spelled = {name.lower(): name for name in before}
    other = next((name for name in fresh if name.lower() in spelled), None)
    if other is not None:
        raise BadInput(
            f"{path.name}, row 1 (header): {other!r} differs from {spelled[other.lower()]!r} of earlier files by case "
            f"only; name the column as before"
        )
    if not fresh:
        return []
    noun, verb = ("column", "is") if len(fresh) == 1 else ("columns", "are")
    return [f"The {noun} {', '.join(map(repr, fresh))} {verb} new; kept, and not used until the config names it."]


def _already(path: Path, sha: str, store: Store) -> IngestReport:
    row = store.read("files", where=f"sha = '{sha}' AND status = 'accepted'").iloc[0]
    when = f"{row['at']:%Y-%m-%d %H:%M} UTC"
    sentence = f"{path.name} was taken in already, as {row['name']} on {when} ({row['read']} rows); nothing was done."
    return IngestReport(sha, path.name, row["kind"], "already", sentences=[sentence])


def _sentences(path: Path, counts: Counts, taken: Taken, kind: Kind) -> list[str]:
    name, noun = path.name, "label" if kind == "labels" else "row"
    said: list[str] = []
    if taken.held.first is not None:
        said.append(
            f"{name}: {_number(counts.quarantined, noun)} of {counts.read} {_is(counts.quarantined)} in quarantine; "
            f"first {describe(taken.held.first)}; see `softad quarantine list`."
        )
    if counts.labels_held:
        said.append(
            f"{name}: {_number(counts.labels_held, 'label')} {_is(counts.labels_held)} in quarantine, while the rows "
            f"were taken in without; first {counts.first_label_held}; see `softad quarantine list`."
        )
    if counts.labels_stale:
        labels = "its label is" if counts.labels_stale == 1 else "their labels are"
        said.append(
            f"{name}: {_number(counts.labels_stale, 'row')} taken in without the label of this file; a label file gave "
            f"another one, and {labels} kept as given there."
        )
    if counts.corrections:
        said.append(f"{name}: {_number(counts.corrections, noun)} corrected; the earlier versions are kept.")
    if counts.duplicates:
        said.append(f"{name}: {_number(counts.duplicates, noun)} skipped, the same content was there already.")
    for rule, rows, first_row in taken.warned.values():
        where = f"{_number(rows, 'row')}, first row {first_row}" if rows else "the file as a whole"
        said.append(f"{name}: warning, the rule {rule.name!r} does not hold ({where}); the rows were taken in.")
    return said


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _waiting(settings: Settings, workspace: Workspace) -> list[Path]:
    """Files of the inbox in order of name, then label files; a zip is images where the model looks at images."""
    found = []
    for folder in (workspace.inbox, workspace.inbox / "labels"):
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            unfinished = path.name.startswith(".") or path.name.endswith(_UNFINISHED)
            images = settings.data.image is not None and path.suffix.lower() == ".zip"
            if path.is_file() and not unfinished and not images:
                found.append(path)
    return found


def _archive(path: Path, sha: str, settings: Settings, workspace: Workspace) -> None:
    """Move a file that was taken in, and the images beside it, to the archive; never over another file."""
    places = [path]
    images = find_images(path, settings) if settings.data.image is not None else None
    if images is not None and images.parent == path.parent and images.stem == path.name.split(".")[0]:
        places.append(images)
    for place in places:
        folder = workspace.archive / ("labels" if path.parent.name == "labels" else "")
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / place.name
        if target.exists():
            endings = shortened("".join(place.suffixes), 100)
            target = folder / f"{shortened(place.name.split('.')[0], 100)}-{sha[:8]}{endings}"
        if target.exists() and target.is_file():
            target.unlink()  # the same file, by its hash: moved before, delivered again
        shutil.move(place, target)
    _sync(workspace.archive)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
