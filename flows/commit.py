"""The commits of one file: inspections, quarantine, labels, and last its row in the table of files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from flows.findings import Held
from flows.identity import ID_COLUMNS, content_ids, id_texts, match_existing, sequence_numbers
from flows.intake import Intake, Kind, Taken, describe
from flows.label_files import label_stream, match_labels
from flows.rows import hex_text, row_hashes, text_hashes
from flows.schemas import STAGED_NAMES, TABLES, TIME
from flows.staging import HELD, SKIPPED, TAKEN, Staging
from flows.store import Store


@dataclass(frozen=True)
class Counts:
    """Rows of one file by what became of them: read = accepted + quarantined + duplicates.

    Attributes
    ----------
    corrections: of the accepted ones, those that replace an earlier version.
    labels: labels written. labels_stale: labels of accepted rows that were left out, since a label file says otherwise.
    labels_held: labels that went to quarantine while their rows were taken in.
    first_label_held: where the first of them is, and why.
    """

    read: int
    accepted: int
    quarantined: int
    duplicates: int
    corrections: int
    labels: int
    labels_held: int = 0
    first_label_held: str = ""
    labels_stale: int = 0

    def __post_init__(self) -> None:
        if self.read != self.accepted + self.quarantined + self.duplicates:
            raise RuntimeError(f"rows were lost: {self}")


def commit_inspections(intake: Intake, taken: Taken, store: Store) -> Counts:
    """Write the rows, the quarantine and the labels of a file of inspections; each exactly once."""
    staged, sha = taken.staged, intake.form.sha
    occurrences = None if intake.settings.data.id is not None else content_ids(staged)
    before = store.version_before("inspections", sha)
    match = match_existing(store, before, staged, occurrences)
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
        inline=True,
        regression=intake.settings.task.kind == "regression",
    )
    fresh = staged.fate == TAKEN

    def build(part: slice, table: pa.Table) -> pa.Table:
        kept = [name for name in table.column_names if name not in STAGED_NAMES]
        count = table.num_rows
        made = pa.table(
            {
                "_id": id_texts(part, table, occurrences),
                "_time": table["_time"],
                "_at": _repeat(pa.scalar(intake.now, TIME), count),
                "_seq": pa.array(seq[part]),
                "_version": pa.array(match.version[part], pa.int32()),
                "_hash": hex_text(staged.content(table)),
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
    labels_held, first_label_held = _commit_quarantine(intake, taken, store, occurrences)
    if labels.write.any():
        stream = label_stream(staged, labels, occurrences, sha=sha, now=intake.now)
        store.append("labels", stream, key=sha)
    return Counts(
        read=taken.read,
        accepted=int(fresh.sum()),
        quarantined=taken.held.rows,
        duplicates=int((staged.fate == SKIPPED).sum()),
        corrections=int((fresh & (match.version > 1)).sum()),
        labels=int(labels.write.sum()),
        labels_held=labels_held,
        first_label_held=first_label_held,
        labels_stale=int(labels.stale.sum()),
    )


def commit_labels(intake: Intake, taken: Taken, store: Store) -> Counts:
    """Write the labels and the quarantine of a label file; each exactly once."""
    staged, sha = taken.staged, intake.form.sha
    before = store.version_before("labels", sha)
    regression = intake.settings.task.kind == "regression"
    candidates = staged.fate == TAKEN
    match = match_labels(store, before, staged, None, candidates, inline=False, regression=regression)
    staged.fate[candidates & ~match.write] = SKIPPED
    _commit_quarantine(intake, taken, store)
    if match.write.any():
        store.append("labels", label_stream(staged, match, None, sha=sha, now=intake.now), key=sha)
    return Counts(
        read=taken.read,
        accepted=int(match.write.sum()),
        quarantined=taken.held.rows,
        duplicates=int((staged.fate == SKIPPED).sum()),
        corrections=int((match.write & (match.version > 1)).sum()),
        labels=int(match.write.sum()),
    )


def commit_file(
    store: Store,
    key: str,
    *,
    sha: str,
    name: str,
    kind: Kind,
    counts: Counts | None,
    message: str,
    digest: str,
    now: datetime,
) -> None:
    """The file's row in the table of files: accepted with its counts, or refused (`counts` is None).

    Parameters
    ----------
    key: the hash of an accepted file; of a refused one, what makes it the same refusal.
    """
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
    store.append("files", table, key=key)


def _commit_quarantine(
    intake: Intake, taken: Taken, store: Store, occurrences: np.ndarray | None = None
) -> tuple[int, str]:
    """Write the quarantine; how many labels went there while their rows stay, and where the first is."""
    sha = intake.form.sha
    fresh = _new_labels_held(taken, store, sha, occurrences)
    labels = int(sum(mask.sum() for mask in fresh))
    if not taken.held.rows and not labels:
        return 0, ""

    def batches() -> Iterator[pa.RecordBatch]:
        for table in taken.held.tables():
            yield from table.to_batches()
        for table, mask in zip(_named(taken, occurrences), fresh, strict=True):
            yield from table.filter(pa.array(mask)).to_batches()

    store.append("quarantine", pa.RecordBatchReader.from_batches(TABLES["quarantine"], batches()), key=sha)
    return labels, _first(taken, fresh)


def _first(taken: Taken, fresh: list[np.ndarray]) -> str:
    for table, mask in zip(taken.labels.tables(), fresh, strict=True):
        if mask.any():
            row = table.slice(int(mask.argmax()), 1).to_pylist()[0]
            return describe(Held(row["_row"], None, json.loads(row["reasons"]), row["record"]))
    return ""


def _new_labels_held(taken: Taken, store: Store, sha: str, occurrences: np.ndarray | None) -> list[np.ndarray]:
    """For each table of labels put aside: which go to quarantine.

    Not those of rows that are held as a whole, and not those that lie there from an earlier delivery of the row.
    """
    staged = taken.staged
    if not taken.labels.rows:
        return []
    query = "SELECT _id, reasons FROM quarantine WHERE kind = 'labels'"
    seen = _keys(store.arrow(query, versions=_at("quarantine", store.version_before("quarantine", sha))))
    alive: list[np.ndarray] = []
    keys: list[np.ndarray] = []
    for table in _named(taken, occurrences):
        alive.append(staged.fate[np.searchsorted(staged.rows, table["_row"].to_numpy())] != HELD)
        keys.append(_keys(table))
    every = np.concatenate(keys)
    wanted = np.concatenate(alive) & ~np.isin(every, seen)
    places = np.flatnonzero(wanted)
    fresh = np.zeros(len(every), dtype=bool)
    fresh[places[np.unique(every[places], return_index=True)[1]]] = True
    return np.split(fresh, np.cumsum([len(part) for part in keys])[:-1])


def _keys(table: pa.Table) -> np.ndarray:
    columns = [(name, text_hashes(table[name].combine_chunks())) for name in ("_id", "reasons")]
    return row_hashes(table.num_rows, columns)[:, 0]


def _named(taken: Taken, occurrences: np.ndarray | None) -> Iterator[pa.Table]:
    """The labels that were put aside, with the ids that their rows were given where the file has no id column."""
    if occurrences is None:
        yield from taken.labels.tables()
        return
    staged = taken.staged
    rows = [table["_row"].to_numpy() for table in taken.labels.tables()]
    positions = np.searchsorted(staged.rows, np.concatenate(rows)) if rows else np.zeros(0, dtype=np.int64)
    names: list[pa.Array] = []
    for part, table in staged.chunks(ID_COLUMNS):
        # Both are in order of the rows, so each chunk has a run of positions.
        first, last = np.searchsorted(positions, (part.start, part.stop))
        names.append(id_texts(part, table, occurrences).take(pa.array(positions[first:last] - part.start)))
    every = pa.concat_arrays(names)
    start = 0
    for table in taken.labels.tables():
        yield table.set_column(table.column_names.index("_id"), "_id", every.slice(start, table.num_rows))
        start += table.num_rows


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
