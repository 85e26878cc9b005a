"""A look at a file of any size: up to 200,000 of its rows spread evenly, and the extremes of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from flows import coerce
from flows.columns import Column
from flows.errors import BadInput
from flows.readers import FileFormat, RawChunk, read_chunks, survey

SAMPLE_ROWS = 200_000
_CHUNK = 50_000


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows of a file, as text.

    Attributes
    ----------
    frame: the rows; an empty cell is None.
    form: what the file is.
    rows: rows of the whole file that fit its header.
    ragged: rows that do not.
    """

    frame: pd.DataFrame
    form: FileFormat
    rows: int
    ragged: int

    @property
    def complete(self) -> bool:
        """Whether all rows are in the frame."""
        return len(self.frame) == self.rows


@dataclass
class Extremes:
    """What all rows of a file hold, where only some of them were looked at closely.

    Attributes
    ----------
    low, high: smallest and largest number of a numeric column.
    missing: empty cells of a column.
    labels: the different texts of the label.
    repeated_ids: rows whose id another row has too.
    """

    low: dict[str, float] = field(default_factory=dict)
    high: dict[str, float] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
    repeated_ids: int = 0


def take_sample(path: Path, *, limit: int = SAMPLE_ROWS) -> Sample:
    """Read every k-th row, k as small as the limit allows; memory does not grow with the file.

    Raises
    ------
    BadInput: the file is missing, unreadable, or has a header only.
    """
    if not path.is_file():
        kind = "a folder, no file" if path.is_dir() else "no regular file" if path.exists() else "not there"
        raise BadInput(f"{path} is {kind}; give a CSV or Parquet file with inspection rows")
    form = survey(path)
    parts: list[pd.DataFrame] = []
    stride, held, rows, ragged = 1, 0, 0, 0
    for chunk in read_chunks(path, form, _CHUNK):
        ragged += len(chunk.ragged)
        if chunk.table.num_rows == 0:
            continue
        frame = as_text(chunk).iloc[-rows % stride :: stride]
        rows += chunk.table.num_rows
        parts.append(frame)
        held += len(frame)
        while held > limit:
            # Thinning to every second row keeps the spacing even, whatever the length turns out to be.
            joined = pd.concat(parts, ignore_index=True).iloc[::2]
            parts, held, stride = [joined], len(joined), stride * 2
    if rows == 0:
        raise BadInput(f"{path.name} has a header and no rows; export it again, with data")
    return Sample(pd.concat(parts, ignore_index=True), form, rows, ragged)


def as_text(chunk: RawChunk) -> pd.DataFrame:
    """The rows as text, whatever types the file has; an empty cell is None."""
    return pd.DataFrame({name: text_cells(chunk.table.column(name)) for name in chunk.table.column_names})


def text_cells(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """One column as text without blanks around, (n,) of str or None.

    >>> text_cells(pa.chunked_array([[1.0, None, 2.5]])).tolist()
    ['1', None, '2.5']
    """
    return np.asarray(coerce.as_text(column, trim=True).to_numpy(zero_copy_only=False), dtype=object)


def find_extremes(
    path: Path,
    sample: Sample,
    columns: Sequence[Column],
    *,
    numeric: Sequence[str],
    other: Sequence[str],
    label: str | None,
    id: str | None,
) -> Extremes:
    """What must hold of every row: from the sample where it has them all, else by reading the file once more.

    Parameters
    ----------
    columns: the sample's, as they were looked at.
    numeric, other: columns whose empty cells are counted, the first ones also for their range.
    label, id: columns whose different texts, and whose repetitions, are wanted.
    """
    if not sample.complete:
        return _read_extremes(path, sample.form, numeric, other, label=label, id=id)
    found = Extremes(missing={column.name: column.missing for column in columns})
    for column in columns:
        if column.name in numeric and column.numbers is not None and np.isfinite(column.numbers).any():
            found.low[column.name] = float(np.nanmin(column.numbers))
            found.high[column.name] = float(np.nanmax(column.numbers))
    return found


def _read_extremes(
    path: Path, form: FileFormat, numeric: Sequence[str], other: Sequence[str], *, label: str | None, id: str | None
) -> Extremes:
    found = Extremes()
    hashes: list[np.ndarray] = []
    for chunk in read_chunks(path, form, _CHUNK):
        if chunk.table.num_rows == 0:
            continue
        for name in numeric:
            read = coerce.numbers(chunk.table.column(name))
            numbers = read.values[np.isfinite(read.values)]
            # What is no number is held in quarantine, and so is not an empty cell.
            found.missing[name] = found.missing.get(name, 0) + len(read.values) - len(numbers) - len(read.bad)
            if numbers.size:
                found.low[name] = min(found.low.get(name, np.inf), float(numbers.min()))
                found.high[name] = max(found.high.get(name, -np.inf), float(numbers.max()))
        for name in other:
            text = coerce.as_text(chunk.table.column(name), trim=True)
            found.missing[name] = found.missing.get(name, 0) + text.null_count
        if label is not None:
            cells = text_cells(pc.unique(chunk.table.column(label).combine_chunks()))
            found.labels |= {str(cell) for cell in cells if cell is not None}
        if id is not None:
            hashes.append(pd.util.hash_array(text_cells(chunk.table.column(id)).astype(str)))
    if hashes:
        every = np.concatenate(hashes)
        found.repeated_ids = len(every) - len(np.unique(every))
    return found
