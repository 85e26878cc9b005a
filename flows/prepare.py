"""A chunk of raw rows -> rows that may be taken in, with their hashes, and rows that are held with their reasons."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from flows.coerce import as_text, numbers, times
from flows.findings import Findings, Held, as_json
from flows.images import ImageProblem
from flows.label_values import Labels, one_hot_labels, read_labels
from flows.readers import Ragged, RawChunk
from flows.roles import Roles
from flows.rows import number_hashes, row_hashes, text_hashes, time_hashes
from flows.rules import Rule
from flows.schemas import TIME
from flows.settings import Settings
from flows.validate import Checker, RuleFailures


@dataclass(frozen=True)
class Prepared:
    """A chunk after checking.

    Attributes
    ----------
    table: the n rows without a finding: `_row`, `_id` (null without an id column), `_time`, `_image`, `_label`,
        `_label_value`, then the columns that are kept.
    content: (n, 2) uint64, hash of all that is kept of a row. ids: (n,) uint64; 0 for none.
    held: rows for quarantine, in order, made as they are asked for. labels_held: labels for quarantine, whose rows are
        among the n.
    bad: number of held rows, apart from labels of a class that nobody has added yet. reasons: (rule, column) -> rows.
    broken_ids: (k,) hashes of the ids of held rows.
    deferred: failures of rules that allow a share of failures, as (rule, row numbers, values).
    checked: rule -> number of rows that it looked at, for those rules.
    warned: failures that are only reported, as (rule, row numbers).
    """

    read: int
    table: pa.Table
    content: np.ndarray
    ids: np.ndarray
    held: Iterable[Held]
    bad: int
    reasons: Counter[tuple[str, str]]
    labels_held: Iterable[Held] = ()
    broken_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    deferred: list[tuple[Rule, np.ndarray, Sequence[Any]]] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)
    warned: list[tuple[Rule, np.ndarray]] = field(default_factory=list)


@dataclass(frozen=True)
class Cells:
    """A chunk whose cells are values, before the rules look at it.

    Attributes
    ----------
    table: all rows, as `Prepared.table` describes them; content, ids: their hashes.
    moments: (n,) datetime64[us] in UTC.
    """

    chunk: RawChunk
    table: pa.Table
    content: np.ndarray
    ids: np.ndarray
    moments: np.ndarray
    labels: Labels
    findings: Findings


@dataclass(frozen=True)
class Preparation:
    """What one file's rows go through.

    Attributes
    ----------
    keep_image: path in the manifest -> hash of the image's content; raises `ImageProblem`.
    """

    settings: Settings
    roles: Roles
    checker: Checker
    keep_image: Callable[[str], str] | None = None

    def coerce(self, chunk: RawChunk) -> Cells:
        """Turn cells into values and hash the rows. Safe to run in a thread beside `judge`."""
        data, raw, findings = self.settings.data, chunk.table, Findings()
        add_swallowed(chunk, findings)
        columns, hashes = self._columns(raw, findings)
        ids = as_text(raw[data.id], trim=True) if data.id is not None else pa.nulls(raw.num_rows, pa.string())
        if data.id is not None:
            empty = np.flatnonzero(pc.is_null(ids).to_numpy(zero_copy_only=False))
            message = f"{data.id} is empty, so the row has no id"
            findings.add("id", data.id, empty, [None] * len(empty), [message] * len(empty))
        moments = self._moments(raw, findings)
        labels = self._labels(raw)
        images = self._images(raw, findings)
        hashes += [("_time", time_hashes(moments)), ("_image", text_hashes(images))]
        table = pa.table(
            {
                "_row": pa.array(chunk.rows, pa.int64()),
                "_id": ids,
                "_time": pa.array(moments, pa.timestamp("us")).cast(TIME),
                "_image": images,
                "_label": labels.text,
                "_label_value": pa.array(labels.value, from_pandas=True),
                **{name: columns[name] for name in self.roles.kept},
            }
        )
        content = row_hashes(raw.num_rows, hashes)
        return Cells(chunk, table, content, text_hashes(ids), moments, labels, findings)

    def judge(self, cells: Cells) -> Prepared:
        """Check the values against the rules, and part the rows that hold from those that do not."""
        chunk, findings, ids = cells.chunk, cells.findings, cells.table["_id"].combine_chunks()
        deferred, checked, warned = self._rules(cells)
        bad = findings.positions()
        good = np.ones(cells.table.num_rows, dtype=bool)
        good[bad] = False
        labels = Findings([part for item in cells.labels.findings.items if (part := item.only(good)) is not None])
        return Prepared(
            read=cells.table.num_rows + len(chunk.ragged),
            table=cells.table if not len(bad) else cells.table.filter(pa.array(good)),
            content=cells.content[good],
            ids=cells.ids[good],
            held=all_held(chunk, findings, ids),
            bad=len(bad) + len(chunk.ragged),
            reasons=all_reasons(chunk, findings),
            labels_held=held_rows(chunk, labels, ids),
            broken_ids=cells.ids[bad],
            deferred=deferred,
            checked=checked,
            warned=warned,
        )

    def _columns(self, raw: pa.Table, findings: Findings) -> tuple[dict[str, pa.Array], list[tuple[str, np.ndarray]]]:
        columns: dict[str, pa.Array] = {}
        hashes: list[tuple[str, np.ndarray]] = []
        # The id says who a row is and the time is hashed as a time, so neither counts as content in its spelling.
        apart = {self.settings.data.id, self.settings.data.time}
        for name, kind in self.roles.kept.items():
            if kind == pa.float64():
                coerced = numbers(raw[name])
                cells = _cells(raw[name], coerced.bad)
                findings.add("number", name, coerced.bad, cells, coerced.reasons)
                columns[name] = pa.array(coerced.values, from_pandas=True)
                hashes.append((name, number_hashes(coerced.values)))
            else:
                columns[name] = as_text(raw[name], trim=name in self.roles.trimmed)
                if name not in apart:
                    hashes.append((name, text_hashes(columns[name])))
        return columns, hashes

    def _moments(self, raw: pa.Table, findings: Findings) -> np.ndarray:
        data = self.settings.data
        if data.time is None:
            return np.full(raw.num_rows, np.datetime64("NaT"), dtype="datetime64[us]")
        coerced = times(raw[data.time], data.time_zone, data.date_order)
        findings.add("time", data.time, coerced.bad, _cells(raw[data.time], coerced.bad), coerced.reasons)
        if data.window.period is not None:
            missing = np.setdiff1d(np.flatnonzero(np.isnat(coerced.values)), coerced.bad)
            message = f"{data.time} is empty, so the row belongs to no window"
            findings.add("time", data.time, missing, [None] * len(missing), [message] * len(missing))
        return coerced.values

    def _labels(self, raw: pa.Table) -> Labels:
        if self.roles.one_hot:
            return one_hot_labels(raw, self.roles.one_hot, self.settings)
        if self.roles.label is not None:
            return read_labels(raw[self.roles.label], self.settings)
        return Labels(pa.nulls(raw.num_rows, pa.string()), np.full(raw.num_rows, np.nan), Findings())

    def _images(self, raw: pa.Table, findings: Findings) -> pa.Array:
        name = self.settings.data.image
        if name is None or self.keep_image is None:
            return pa.nulls(raw.num_rows, pa.string())
        kept: dict[str | None, str | None] = {}
        problems: dict[str | None, str] = {None: f"{name} is empty, so the row has no image"}
        paths = as_text(raw[name], trim=True).to_pylist()
        for path in dict.fromkeys(paths):
            if path is None:
                continue
            try:
                kept[path] = self.keep_image(path)
            except ImageProblem as problem:
                problems[path] = f"image {problem}"
        bad = np.array([position for position, path in enumerate(paths) if path not in kept], dtype=np.int64)
        values = [paths[position] for position in bad]
        findings.add("image", name, bad, values, [problems[path] for path in values])
        return pa.array([kept.get(path) for path in paths], pa.string())

    def _rules(
        self, cells: Cells
    ) -> tuple[list[tuple[Rule, np.ndarray, Sequence[Any]]], dict[str, int], list[tuple[Rule, np.ndarray]]]:
        chunk, findings = cells.chunk, cells.findings
        frame = self.frame(cells)
        deferred: list[tuple[Rule, np.ndarray, Sequence[Any]]] = []
        warned: list[tuple[Rule, np.ndarray]] = []
        for failures in self.checker.rows(frame):
            rule = failures.rule
            # A cell that could not be read was emptied for the check; it has its reason already.
            told = findings.cells(rule.columns)
            rest = _without(failures, told) if told else failures
            if rule.severity != "critical":
                warned.append((rule, chunk.rows[rest.rows]))
            elif rule.mostly < 1:
                deferred.append((rule, chunk.rows[rest.rows], rest.values))
            else:
                findings.add(rule.name, ", ".join(rule.columns), rest.rows, rest.values, rule.says)
        tolerant = [rule for rule in self.checker.of("row") if rule.mostly < 1]
        checked = {rule.name: _seen(rule, frame) for rule in tolerant}
        return deferred, checked, warned

    def frame(self, cells: Cells) -> pd.DataFrame:
        """The columns that the rules name, in the types that the rules compare."""
        data, raw = self.settings.data, cells.chunk.table
        names = list(raw.column_names) if self.checker.conditional else self.checker.columns
        kept = set(self.roles.kept)
        shown: dict[str, Any] = {}
        for name in names:
            if name == data.time:
                shown[name] = pd.DatetimeIndex(cells.moments).tz_localize("UTC")
            elif name == data.label and name not in kept:
                regression = self.settings.task.kind == "regression"
                shown[name] = cells.labels.value if regression else self._typed(name, cells.labels.text, cells.findings)
            else:
                source = cells.table[name].combine_chunks() if name in kept else as_text(raw[name])
                shown[name] = self._typed(name, source, cells.findings)
        return pd.DataFrame(shown, index=pd.RangeIndex(raw.num_rows), copy=False)

    def _typed(self, name: str, column: pa.Array, findings: Findings) -> Any:
        if column.type == pa.float64():
            return column.to_numpy(zero_copy_only=False)
        if name in self.checker.only_presence:
            # What the text is does not matter, and numbers are far cheaper to hand over.
            return np.where(column.is_valid().to_numpy(zero_copy_only=False), 1.0, np.nan)
        if name in self.checker.only_membership:
            return column.dictionary_encode().to_pandas()
        if name not in self.checker.numbers:
            return column.to_pandas()
        coerced = numbers(column)
        findings.add("number", name, coerced.bad, _cells(column, coerced.bad), coerced.reasons)
        return coerced.values


def add_swallowed(chunk: RawChunk, findings: Findings) -> None:
    """Hold the rows one of whose cells took in the rows after it."""
    for item in chunk.swallowed:
        findings.add("cells", item.column, np.array([item.position]), [item.text], [item.sentence()])


def all_held(chunk: RawChunk, findings: Findings, ids: pa.Array) -> Iterator[Held]:
    """Every row of a chunk that goes to quarantine, in order: those with findings, and those that are ragged."""
    ragged = (ragged_row(item) for item in chunk.ragged)
    return heapq.merge(held_rows(chunk, findings, ids), ragged, key=lambda item: item.row)


def all_reasons(chunk: RawChunk, findings: Findings) -> Counter[tuple[str, str]]:
    """(rule, column) -> number of rows of a chunk."""
    return findings.counts() + Counter({("cells", ""): len(chunk.ragged)})


def held_rows(chunk: RawChunk, findings: Findings, ids: pa.Array) -> Iterator[Held]:
    """The rows of a chunk that have findings, with their raw record.

    A thousand at a time: as Python objects they take ten times the memory that they take as text.
    """
    positions = findings.positions()
    reasons = findings.reasons()
    for start in range(0, len(positions), 1000):
        some = positions[start : start + 1000]
        records, names = raw_records(chunk.table, some), ids.take(pa.array(some)).to_pylist()
        for row, name, record in zip(chunk.rows[some].tolist(), names, records, strict=True):
            yield Held(row, name, next(reasons)[1], record)


def raw_records(table: pa.Table, positions: np.ndarray) -> list[str]:
    """Rows as they were delivered, as JSON: column -> text; a Parquet file's own values as they would be taken in."""
    some = table.take(pa.array(positions))
    texts = [column if pa.types.is_string(column.type) else as_text(column) for column in some.columns]
    return [as_json(row) for row in pa.table(texts, names=some.column_names).to_pylist()]


def ragged_row(item: Ragged) -> Held:
    """A row whose cells do not fit the header, as a quarantine record: its text stands under the key ``""``."""
    message = f"the row has {item.cells} cells, the header has {item.expected}"
    return Held(
        item.row,
        None,
        [{"rule": "cells", "column": "", "value": item.cells, "message": message}],
        as_json({"": item.text}),
    )


def _cells(column: pa.ChunkedArray | pa.Array, positions: np.ndarray) -> list[Any]:
    return list(column.take(pa.array(positions)).to_pylist()) if len(positions) else []


def _without(failures: RuleFailures, told: set[int]) -> RuleFailures:
    keep = [index for index, row in enumerate(failures.rows.tolist()) if row not in told]
    return RuleFailures(failures.rule, failures.rows[keep], [failures.values[index] for index in keep])


def _seen(rule: Rule, frame: pd.DataFrame) -> int:
    if rule.type == "expect_column_values_to_not_be_null" or not rule.columns:
        return len(frame)
    return int(frame[list(rule.columns)].notna().all(axis=1).sum())
