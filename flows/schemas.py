"""The tables: their names, and the columns that the system itself keeps in each.

A table may hold more columns than are declared here (the plant's own columns of an inspection); never fewer.
Times are UTC with microseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from deltalake import WriterProperties

TIME = pa.timestamp("us", tz="UTC")
_TEXT, _INT, _INT32, _REAL, _FLAG = pa.string(), pa.int64(), pa.int32(), pa.float64(), pa.bool_()

TABLES: dict[str, pa.Schema] = {
    # one row for each file that was looked at; the last table written at an ingest, so its row says "all is there"
    "files": pa.schema(
        {
            "sha": _TEXT,
            "name": _TEXT,
            "kind": _TEXT,
            "status": _TEXT,
            "read": _INT,
            "accepted": _INT,
            "quarantined": _INT,
            "duplicates": _INT,
            "corrections": _INT,
            "message": _TEXT,
            "config_digest": _TEXT,
            "at": TIME,
        }
    ),
    # _seq counts ids in order of arrival from 0 without a gap; a correction keeps the _seq of the id that it corrects
    "inspections": pa.schema(
        {
            "_id": _TEXT,
            "_time": TIME,
            "_at": TIME,
            "_seq": _INT,
            "_version": _INT32,
            "_hash": _TEXT,
            "_file": _TEXT,
            "_row": _INT,
            "_image": _TEXT,
        }
    ),
    "quarantine": pa.schema(
        {
            "_file": _TEXT,
            "_row": _INT,
            "_id": _TEXT,
            "kind": _TEXT,
            "reasons": _TEXT,
            "record": _TEXT,
            "state": _TEXT,
            "at": TIME,
        }
    ),
    "labels": pa.schema(
        {
            "_id": _TEXT,
            "label": _TEXT,
            "label_value": _REAL,
            "_time": TIME,
            "inspector": _TEXT,
            "probability": _REAL,
            "_version": _INT32,
            "_file": _TEXT,
            "_row": _INT,
        }
    ),
    "predictions": pa.schema(
        {
            "_id": _TEXT,
            "_version": _INT32,
            "model_version": _TEXT,
            "prediction": _TEXT,
            "value": _REAL,
            "probabilities": pa.list_(pa.float32()),
            "warnings": _TEXT,
            "at": TIME,
        }
    ),
    "windows": pa.schema(
        {
            "life": _TEXT,
            "window": _TEXT,
            "start": TIME,
            "end": TIME,
            "rows": _INT,
            "labelled": _INT,
            "model_version": _TEXT,
            "state": _TEXT,
            "alarm": _FLAG,
            "statistic": _REAL,
            "threshold": _REAL,
            "budget_spent": _REAL,
            "verdict": _TEXT,
            "figures": _TEXT,
            "findings": _TEXT,
            "details": _TEXT,
            "scan": _TEXT,
            "report": _TEXT,
            "age": _REAL,
            "at": TIME,
        }
    ),
    # what was told of a window before its labels; `labelled` is how many of its rows had one by then
    "early_warnings": pa.schema(
        {
            "life": _TEXT,
            "window": _TEXT,
            "rows": _INT,
            "labelled": _INT,
            "model_version": _TEXT,
            "warns": _FLAG,
            "predicted_loss": _REAL,
            "reference_loss": _REAL,
            "signs": _TEXT,
            "at": TIME,
        }
    ),
    "references": pa.schema({"life": _TEXT, "_id": _TEXT, "loss": _REAL, "window": _TEXT}),
    "lives": pa.schema(
        {
            "life": _TEXT,
            "model_version": _TEXT,
            "started_at": TIME,
            "after_seq": _INT,
            "scan": _TEXT,
            "reason": _TEXT,
            "cause": _TEXT,
        }
    ),
    # the newest record of a key is its state
    "incidents": pa.schema({"key": _TEXT, "number": _INT, "event": _TEXT, "record": _TEXT, "at": TIME}),
    # a chain: `number` counts from 0 without a gap, `hash` is of the entry with the hash of the one before
    "ledger": pa.schema(
        {
            "key": _TEXT,
            "at": TIME,
            "actor": _TEXT,
            "action": _TEXT,
            "subject": _TEXT,
            "details": _TEXT,
            "number": _INT,
            "previous": _TEXT,
            "hash": _TEXT,
        }
    ),
}
"""Name of each table -> its declared columns (Arrow types)."""

STAGED_NAMES = frozenset({"_id", "_row", "_time", "_image", "_label", "_label_value", "_hash_1", "_hash_2"})
"""Columns that a row has beside the plant's own between its file and the tables; the plant's must not be called so."""


def as_arrow(frame: Any) -> pa.Table:
    """A pandas frame as an Arrow table without pandas' own notes; an Arrow table as it is.

    >>> import pandas as pd
    >>> as_arrow(pd.DataFrame({"n": [1]})).schema.names
    ['n']
    """
    if isinstance(frame, pa.Table):
        return frame
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)


def conform(table: pa.Table, declared: pa.Schema) -> pa.Table:
    """`table` with the declared columns in their types (missing ones as nulls), and its own columns after them.

    Own columns become one of text, float64, int64, bool, time or binary: what a Delta table can keep.

    Raises
    ------
    ValueError: a declared column holds values that its type cannot.

    >>> conform(pa.table({"key": ["a"], "more": [1.5]}), TABLES["incidents"]).column_names
    ['key', 'number', 'event', 'record', 'at', 'more']
    """
    columns: dict[str, pa.ChunkedArray | pa.Array] = {}
    for field in declared:
        if field.name not in table.column_names:
            columns[field.name] = pa.nulls(table.num_rows, field.type)
            continue
        column = table[field.name]
        try:
            columns[field.name] = column if column.type == field.type else column.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ValueError(f"column {field.name!r} must hold {field.type}, not {column.type}: {error}") from error
    for name in table.column_names:
        if name not in columns:
            columns[name] = table[name].cast(plain_type(table[name].type))
    return pa.table(columns)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type in which a column of type `kind` is kept.

    >>> plain_type(pa.large_string()), plain_type(pa.timestamp("ns", "Asia/Tokyo"))
    (DataType(string), TimestampType(timestamp[us, tz=UTC]))
    """
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_null(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_timestamp(kind):
        return TIME
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_unsigned_integer(kind):
        return pa.int64()
    return kind


def conform_stream(reader: pa.RecordBatchReader, declared: pa.Schema) -> pa.RecordBatchReader:
    """As `conform`, batch by batch."""
    schema = conform(reader.schema.empty_table(), declared).schema

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            yield from conform(pa.Table.from_batches([batch]), declared).to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())


def in_words(kind: pa.DataType) -> str:
    """A column's type for people.

    >>> in_words(pa.float64()), in_words(pa.string())
    ('a number', 'text')
    """
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return "a number"
    return "text" if kind == pa.string() else str(kind)


def writing(schema: pa.Schema, distinct: Collection[str]) -> WriterProperties:
    """How a table's file is written: small row groups for little memory; dictionaries only where values repeat.

    Parameters
    ----------
    distinct: text columns that hardly repeat a value.

    >>> writing(TABLES["labels"], ["_file"]).compression
    'ZSTD(1)'
    """
    from deltalake import ColumnProperties, WriterProperties

    plain = ColumnProperties(dictionary_enabled=False)
    hardly_repeat = {"_id", "_hash", *distinct}
    columns = {
        field.name: plain
        for field in schema
        if field.name in hardly_repeat or pa.types.is_floating(field.type) or field.type == pa.int64()
    }
    return WriterProperties(
        compression="ZSTD", compression_level=1, max_row_group_size=131_072, column_properties=columns
    )
