"""Labels on their way into the table: from label files, and from a column of the inspections themselves.

A label that changes is a new version beside the old one. A label for an id that is not known yet waits in the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows.coerce import as_text, numbers, times
from flows.findings import Findings
from flows.identity import ID_COLUMNS, beside_staged, id_texts
from flows.label_values import read_labels
from flows.prepare import Prepared, add_swallowed, all_held, all_reasons
from flows.readers import RawChunk
from flows.roles import LabelRoles
from flows.rows import number_hashes, row_hashes, text_hashes, time_hashes
from flows.schemas import TIME
from flows.settings import Settings
from flows.staging import SKIPPED, Staging
from flows.store import Store

STAGED = [*ID_COLUMNS, "_label", "_label_value", "_time"]
_INLINE = "SELECT sha FROM files WHERE kind = 'inspections' AND status = 'accepted'"


@dataclass(frozen=True)
class LabelPreparation:
    """What the rows of a label file go through; as `prepare.Preparation` for inspections."""

    settings: Settings
    roles: LabelRoles

    def judge(self, cells: Prepared) -> Prepared:
        """Nothing is left to check."""
        return cells

    def coerce(self, chunk: RawChunk) -> Prepared:
        """Check one chunk."""
        raw, roles, findings = chunk.table, self.roles, Findings()
        add_swallowed(chunk, findings)
        ids = as_text(raw[roles.id], trim=True)
        given = as_text(raw[roles.label], trim=True)
        for name, cells in ((roles.id, ids), (roles.label, given)):
            empty = np.flatnonzero(pc.is_null(cells).to_numpy(zero_copy_only=False))
            findings.add("label", name, empty, [None] * len(empty), [f"{name} is empty"] * len(empty))
        labels = read_labels(raw[roles.label], self.settings)
        findings.items.extend(labels.findings.items)
        moments = self._moments(raw, findings)
        probability = self._probability(raw, findings)
        inspector = as_text(raw[roles.inspector]) if roles.inspector else pa.nulls(raw.num_rows, pa.string())
        table = pa.table(
            {
                "_row": pa.array(chunk.rows, pa.int64()),
                "_id": ids,
                "_label": labels.text,
                "_label_value": pa.array(labels.value, from_pandas=True),
                "_time": pa.array(moments, pa.timestamp("us")).cast(TIME),
                "_inspector": inspector,
                "_probability": pa.array(probability, from_pandas=True),
            }
        )
        content = row_hashes(
            raw.num_rows,
            [
                ("label", text_hashes(labels.text)),
                ("time", time_hashes(moments)),
                ("inspector", text_hashes(inspector)),
                ("probability", number_hashes(probability)),
            ],
        )
        good = np.ones(raw.num_rows, dtype=bool)
        good[findings.positions()] = False
        id_hashes = text_hashes(ids)
        return Prepared(
            read=raw.num_rows + len(chunk.ragged),
            table=table.filter(pa.array(good)),
            content=content[good],
            ids=id_hashes[good],
            held=all_held(chunk, findings, ids),
            # A class that nobody has added yet is no reason to hold the file back.
            bad=len(findings.positions(without="class")) + len(chunk.ragged),
            reasons=all_reasons(chunk, findings),
            broken_ids=id_hashes[~good],
        )

    def _moments(self, raw: pa.Table, findings: Findings) -> np.ndarray:
        name = self.roles.time
        if name is None:
            return np.full(raw.num_rows, np.datetime64("NaT"), dtype="datetime64[us]")
        data = self.settings.data
        coerced = times(raw[name], data.time_zone, data.date_order)
        cells = as_text(raw[name]).take(pa.array(coerced.bad)).to_pylist()
        findings.add("time", name, coerced.bad, cells, coerced.reasons)
        return coerced.values

    def _probability(self, raw: pa.Table, findings: Findings) -> np.ndarray:
        name = self.roles.probability
        if name is None:
            return np.full(raw.num_rows, np.nan)
        coerced = numbers(raw[name])
        cells = as_text(raw[name])
        findings.add("number", name, coerced.bad, cells.take(pa.array(coerced.bad)).to_pylist(), coerced.reasons)
        with np.errstate(invalid="ignore"):
            outside = np.flatnonzero((coerced.values <= 0) | (coerced.values > 1))
        texts = cells.take(pa.array(outside)).to_pylist()
        messages = [f"{name} is {text}, a probability is above 0 and at most 1" for text in texts]
        findings.add("probability", name, outside, texts, messages)
        return coerced.values


@dataclass(frozen=True)
class LabelMatch:
    """How staged labels stand to those in the table.

    Attributes
    ----------
    write: (n,) whether the label is new, or another than the newest. version: (n,) int32 of its own version.
    stale: (n,) rows that are taken in, whose label differs from one of a label file that stands.
    """

    write: np.ndarray
    version: np.ndarray
    stale: np.ndarray


def match_labels(
    store: Store,
    version: int | None,
    staged: Staging,
    occurrences: np.ndarray | None,
    candidates: np.ndarray,
    *,
    inline: bool,
    regression: bool,
) -> LabelMatch:
    """Compare staged labels with the newest of their ids.

    Parameters
    ----------
    version: of the table `labels` as it was before this file; None where there is no table.
    candidates: (n,) rows whose label counts.
    inline: the labels stand in a column of inspections, not in a label file.

    Notes
    -----
    An inspection that is delivered once more, as it was or corrected elsewhere, brings its old label with it. Where a
    label file gave another label in between, or before the inspection came at all, that one must stand. So an inline
    label counts where it differs from the inline label before; where all earlier labels are of label files, it says
    nothing new. Of a skipped row, which is as it was, it counts only where the id never had it.
    """
    count = len(staged)
    match = LabelMatch(candidates.copy(), np.ones(count, dtype=np.int32), np.zeros(count, dtype=bool))
    if version is None or not candidates.any():
        return match

    chances = "_probability" in staged.schema.names

    def keys(part: slice, table: pa.Table) -> pa.Table:
        made = pa.table(
            {
                "n": pa.array(np.arange(part.start, part.stop)),
                "_id": id_texts(part, table, occurrences),
                "label": table["_label"],
                "value": table["_label_value"],
                "chance": table["_probability"] if chances else pa.nulls(table.num_rows, pa.float64()),
            }
        )
        return made.filter(pa.array(candidates[part]))

    same = "l.label_value = staged.value" if regression else "l.label = staged.label"
    # A label sent again with the probability that it lacked is news; one sent again without it is not.
    same += " AND (staged.chance IS NULL OR l.probability IS NOT DISTINCT FROM staged.chance)"
    extra = ["_probability"] if chances else []
    query = f"""
        SELECT n, max(l._version) AS top, coalesce(arg_max({same}, l._version), false) AS same,
            coalesce(bool_or({same}), false) AS ever,
            coalesce(arg_max({same}, l._version) FILTER (l._file IN ({_INLINE})), true) AS repeats
        FROM staged JOIN labels l USING (_id) GROUP BY n
    """  # noqa: S608 (only our own words)
    found = beside_staged(store, query, {"labels": version}, staged, keys, [*STAGED, *extra])
    where = found["n"].to_numpy()
    same, ever, repeats = (found[name].to_numpy() for name in ("same", "ever", "repeats"))
    skipped = staged.fate[where] == SKIPPED
    old = np.where(skipped, ever | repeats, repeats) if inline else np.where(skipped, ever, same)
    match.write[where[old]] = False
    match.version[where] = found["top"].to_numpy() + 1
    match.stale[where] = inline & old & ~same & ~skipped
    return match


def label_stream(
    staged: Staging, match: LabelMatch, occurrences: np.ndarray | None, *, sha: str, now: datetime
) -> pa.RecordBatchReader:
    """Rows of the table `labels` for the labels that are to be written."""

    def build(part: slice, table: pa.Table) -> pa.Table:
        count = table.num_rows
        absent = pa.nulls(count, pa.string())
        has = table.column_names
        made = pa.table(
            {
                "_id": id_texts(part, table, occurrences),
                "label": table["_label"],
                "label_value": table["_label_value"],
                "_time": pc.fill_null(table["_time"], pa.scalar(now, TIME)),
                "inspector": table["_inspector"] if "_inspector" in has else absent,
                "probability": table["_probability"] if "_probability" in has else absent.cast(pa.float64()),
                "_version": pa.array(match.version[part], pa.int32()),
                "_file": pa.array([sha]).take(pa.array(np.zeros(count, dtype=np.int64))),
                "_row": table["_row"],
            }
        )
        return made.filter(pa.array(match.write[part]))

    extra = [name for name in ("_inspector", "_probability") if name in staged.schema.names]
    return staged.stream(build, [*STAGED, "_row", *extra])
