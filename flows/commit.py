"""The commits of one file: inspections, quarantine, labels, and last its row in the table of files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pyarrow as pa

from flows.findings import Held, quarantine_table
from flows.identity import content_ids, id_texts, match_existing, sequence_numbers
from flows.intake import Intake, Kind, Taken
from flows.label_files import label_stream, match_labels
from flows.rows import hex_text
from flows.schemas import TABLES, TIME
from flows.staging import HELD, SKIPPED, TAKEN, Staging
from flows.store import Store


@dataclass(frozen=True)
class Counts:
    """Rows of one file by what became of them: read = accepted + quarantined + duplicates.

    Attributes
    ----------
    corrections: of the accepted ones, those that replace an earlier version.
    labels: labels written.
    """

    read: int
    accepted: int
    quarantined: int
    duplicates: int
    corrections: int
    labels: int

    def __post_init__(self) -> None:
        if self.read != self.accepted + self.quarantined + self.duplicates:
            raise RuntimeError(f"rows were lost: {self}")


def commit_inspections(intake: Intake, taken: Taken, store: Store) -> Counts:
    """Write the rows, the quarantine and the labels of a file of inspections; each exactly once."""
    staged, sha, spill = taken.staged, intake.form.sha, taken.staged.folder
    occurrences = None if intake.settings.data.id is not None else content_ids(staged)
    before = store.version_before("inspections", sha)
    match = match_existing(store, before, staged, occurrences, spill)
    newest = store.sql("SELECT coalesce(max(_seq) + 1, 0) AS n FROM inspections", versions=_at("inspections", before))
    seq = sequence_numbers(match, staged, int(newest["n"].iloc[0]))
    labels_before = store.version_before("labels", sha)
    candidates = _label_candidates(staged)
    labels = match_labels(
        store,
        labels_before,
        staged,
        occurrences,
        candidates,
        regression=intake.settings.task.kind == "regression",
        spill=spill,
    )
    fresh = staged.fate == TAKEN

    def build(part: slice, table: pa.Table) -> pa.Table:
        kept = [
            name
            for name in table.column_names
            if name not in {"_id", "_row", "_time", "_image", "_label", "_label_value"}
        ]
        count = table.num_rows
        made = pa.table(
            {
                "_id": id_texts(part, table, staged, occurrences),
                "_time": table["_time"],
                "_at": _repeat(pa.scalar(intake.now, TIME), count),
                "_seq": pa.array(seq[part]),
                "_version": pa.array(match.version[part], pa.int32()),
                "_hash": hex_text(staged.content[part]),
                "_file": _repeat(pa.scalar(sha), count),
                "_row": table["_row"],
                "_image": table["_image"],
                **{name: table[name] for name in kept},
            }
        )
        chosen = fresh[part]
        return made if chosen.all() else made.filter(pa.array(chosen))

    if fresh.any():
        data = intake.settings.data
        distinct = [name for name in (data.id, data.time, data.image) if name is not None]
        store.append("inspections", staged.stream(build), key=sha, distinct=distinct)
    _commit_quarantine(intake, taken, store, occurrences)
    if labels.write.any():
        stream = label_stream(staged, labels, occurrences, sha=sha, now=intake.now)
        store.append("labels", stream, key=sha)
    return Counts(
        read=taken.read,
        accepted=int(fresh.sum()),
        quarantined=taken.held,
        duplicates=int((staged.fate == SKIPPED).sum()),
        corrections=int((fresh & (match.version > 1)).sum()),
        labels=int(labels.write.sum()),
    )


def commit_labels(intake: Intake, taken: Taken, store: Store) -> Counts:
    """Write the labels and the quarantine of a label file; each exactly once."""
    staged, sha = taken.staged, intake.form.sha
    before = store.version_before("labels", sha)
    regression = intake.settings.task.kind == "regression"
    candidates = staged.fate == TAKEN
    match = match_labels(store, before, staged, None, candidates, regression=regression, spill=staged.folder)
    staged.fate[candidates & ~match.write] = SKIPPED
    _commit_quarantine(intake, taken, store)
    if match.write.any():
        store.append("labels", label_stream(staged, match, None, sha=sha, now=intake.now), key=sha)
    return Counts(
        read=taken.read,
        accepted=int(match.write.sum()),
        quarantined=taken.held,
        duplicates=int((staged.fate == SKIPPED).sum()),
        corrections=int((match.write & (match.version > 1)).sum()),
        labels=int(match.write.sum()),
    )


def commit_file(
    store: Store,
    *,
    sha: str,
    name: str,
    kind: Kind,
    counts: Counts | None,
    message: str,
    digest: str,
    now: datetime,
) -> None:
    """The file's row in the table of files: accepted with its counts, or refused (`counts` is None)."""
    accepted = counts is not None
    shown = counts or Counts(0, 0, 0, 0, 0, 0)
    row = {
        "sha": sha,
        "name": name,
        "kind": kind,
        "status": "accepted" if accepted else "refused",
        "read": shown.read,
        "accepted": shown.accepted,
        "quarantined": shown.quarantined,
        "duplicates": shown.duplicates,
        "corrections": shown.corrections,
        "message": message,
        "config_digest": digest,
        "at": now,
    }
    table = pa.Table.from_pylist([row], schema=TABLES["files"])
    # A refusal is remembered for this configuration; with another one the file is tried again.
    store.append("files", table, key=sha if accepted else f"refused:{sha}:{digest}")


def _commit_quarantine(intake: Intake, taken: Taken, store: Store, occurrences: np.ndarray | None = None) -> None:
    sha = intake.form.sha
    labels = _new_labels_held(taken, store, sha, occurrences)
    if not taken.held and not labels:
        return

    def batches() -> Iterator[pa.RecordBatch]:
        for table in taken.held_tables():
            yield from table.to_batches()
        for start in range(0, len(labels), 10_000):
            part = labels[start : start + 10_000]
            yield from quarantine_table(part, sha=sha, kind="labels", at=intake.now).to_batches()

    store.append("quarantine", pa.RecordBatchReader.from_batches(TABLES["quarantine"], batches()), key=sha)


def _new_labels_held(taken: Taken, store: Store, sha: str, occurrences: np.ndarray | None) -> list[Held]:
    """Labels for quarantine whose rows stay, without those that lie there already from an earlier delivery."""
    staged = taken.staged
    positions = np.searchsorted(staged.rows, np.array([item.row for item in taken.labels_held], dtype=np.int64))
    alive = [
        item if occurrences is None else replace(item, id=f"{_hex(staged.content[place])}-{occurrences[place]}")
        for item, place in zip(taken.labels_held, positions, strict=True)
        if staged.fate[place] != HELD
    ]
    if not alive:
        return []
    before = store.version_before("quarantine", sha)
    query = "SELECT _id, reasons FROM quarantine WHERE kind = 'labels'"
    known = store.sql(query, versions=_at("quarantine", before))
    seen = set(zip(known["_id"], known["reasons"], strict=True))
    fresh: list[Held] = []
    table = quarantine_table(alive, sha=sha, kind="labels", at=None)
    keys = zip(table["_id"].to_pylist(), table["reasons"].to_pylist(), strict=True)
    for item, key in zip(alive, keys, strict=True):
        if key not in seen:
            fresh.append(item)
            seen.add(key)
    return fresh


def _hex(content: np.ndarray) -> str:
    return str(hex_text(content.reshape(1, 2))[0].as_py())


def _label_candidates(staged: Staging) -> np.ndarray:
    """Rows whose label counts: taken or skipped ones that have a label, an id that repeats in the file once."""
    has = np.zeros(len(staged), dtype=bool)
    for part, table in staged.chunks(["_label"]):
        has[part] = table["_label"].is_valid().to_numpy()
    candidates: np.ndarray = has & (staged.fate != HELD)
    skipped = np.flatnonzero(candidates & (staged.fate == SKIPPED))
    # A row that was skipped because its twin in this file is taken says nothing new.
    first = np.unique(staged.ids, return_index=True)[1] if skipped.size and staged.ids.any() else None
    if first is not None:
        leading = np.zeros(len(staged), dtype=bool)
        leading[first] = True
        candidates[skipped] &= leading[skipped]
    return candidates


def _repeat(value: pa.Scalar, count: int) -> pa.Array:
    return pa.repeat(value, count)


def _at(table: str, version: int | None) -> dict[str, int]:
    return {} if version is None else {table: version}
