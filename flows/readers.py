"""Read inspection files: CSV with comma, semicolon or tab, in UTF-8 or CP932, plain or gzip; and Parquet.

`survey` looks at a whole file once, without keeping it: its hash, its encoding, its header. `read_chunks` then
yields its rows in chunks of bounded size, every cell of a text file as the text that stands there.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import io
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from flows.bytes import BLOCK, HEAD, Transcoder, check_text, decoded_head, file_sha, open_hashing
from flows.errors import BadInput
from flows.quotes import Swallowed, is_left_open, swallowed_rows

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}


@dataclass(frozen=True)
class FileFormat:
    """What a file turned out to be.

    Attributes
    ----------
    sha: SHA-256 of the file's bytes, in hex.
    encoding: "utf-8" or "cp932"; of a Parquet file, "utf-8".
    columns: names in the file's order, stripped; a nameless one is called "column N".
    most_rows: the file has no more data rows than this.
    """

    kind: Literal["csv", "parquet"]
    sha: str
    columns: tuple[str, ...]
    most_rows: int
    encoding: str = "utf-8"
    separator: str = ","
    compressed: bool = False


@dataclass(frozen=True)
class Ragged:
    """A row with more or fewer cells than the header.

    Attributes
    ----------
    row: number of the data row, from 1.
    text: the row as it stands in the file.
    """

    row: int
    text: str
    cells: int
    expected: int


@dataclass(frozen=True)
class RawChunk:
    """Some consecutive rows, unparsed.

    Attributes
    ----------
    rows: (n,) numbers of the data rows, from 1; header and blank lines are not counted.
    table: n rows; text columns for a text file (empty cells are null), the file's own types for Parquet.
    ragged: rows in between that do not fit the header. swallowed: cells among the n rows that hold further rows.
    """

    rows: np.ndarray
    table: pa.Table
    ragged: tuple[Ragged, ...] = ()
    swallowed: tuple[Swallowed, ...] = ()


def survey(path: Path, expected: Collection[str] = ()) -> FileFormat:
    """Look through a file once: what it is, and whether it can be read at all.

    Parameters
    ----------
    expected: column names that the file should have; they help to tell the separator.

    Raises
    ------
    BadInput: empty, cut off, binary, in no known encoding, or with two columns of one name.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "parts.csv").write_text("id;x\\n1;2.5\\n")
    ...     found = survey(Path(folder, "parts.csv"))
    >>> found.columns, found.separator, found.encoding
    (('id', 'x'), ';', 'utf-8')
    """
    if path.stat().st_size == 0:
        raise BadInput(f"{path.name} is empty: there is nothing to read; export it again")
    with path.open("rb") as handle:
        start = handle.read(8)
    _refuse_known_others(path, start)
    if start[:4] == b"PAR1":
        return _survey_parquet(path)
    compressed = start[:2] == b"\x1f\x8b"
    facts = check_text(path, compressed=compressed)
    head = decoded_head(path, encoding=facts.encoding, compressed=compressed)
    if not head.strip():
        raise BadInput(f"{path.name} is empty: it holds blank lines only; export it again")
    _refuse_strange_head(path, head)
    try:
        separator, header = _separator(head, expected)
    except csv.Error as error:
        raise BadInput(
            f"{path.name}: its first lines cannot be read as CSV ({error}); look for a quotation mark that is opened "
            f"and never closed, mend it and try again"
        ) from error
    columns = _checked_names(path, header, expected)
    return FileFormat("csv", facts.sha, columns, facts.most_rows, facts.encoding, separator, compressed)


def read_chunks(path: Path, form: FileFormat, chunk_rows: int) -> Iterator[RawChunk]:
    """Yield the rows of a file in chunks of at most `chunk_rows`.

    Raises
    ------
    BadInput: the file cannot be parsed, or is not the one that was surveyed: it changed in between.
    """
    chunks = _csv_chunks(path, form, chunk_rows) if form.kind == "csv" else _parquet_chunks(path, form, chunk_rows)
    yield from chunks


def missing_columns(path: Path, form: FileFormat, needed: Collection[str], why: str = "the config names") -> None:
    """Refuse a file that lacks a needed column, naming the most similar one that it has.

    Raises
    ------
    BadInput: names every column that is missing.
    """
    missing = [name for name in dict.fromkeys(needed) if name not in form.columns]
    if not missing:
        return
    hints = []
    for name in missing:
        near = nearest(name, form.columns)
        hints.append(f"{name!r}" + (f" (did the export rename it to {near!r}?)" if near else ""))
    noun = "column" if len(missing) == 1 else "columns"
    raise BadInput(
        f"{path.name}, row 1 (header): {noun} {', '.join(hints)} that {why} {'is' if len(missing) == 1 else 'are'} "
        f"missing; the file has {_shortened(form.columns)}; export it with the same columns as before, or mend the "
        f"config"
    )


def nearest(name: str, among: Collection[str]) -> str | None:
    """The most similar name, or None where none is similar; upper case, width and spaces count little.

    >>> nearest("torque", ["Torque [Nm]", "speed"]), nearest("torque", ["speed"])
    ('Torque [Nm]', None)
    """
    plain = {_plain(other): other for other in among}
    close = difflib.get_close_matches(_plain(name), list(plain), n=1, cutoff=0.6)
    if close:
        return plain[close[0]]
    inside = [other for key, other in plain.items() if len(_plain(name)) > 2 and _plain(name) in key]
    return inside[0] if inside else None


def _plain(name: str) -> str:
    return "".join(unicodedata.normalize("NFKC", name).lower().split())


def _shortened(names: Collection[str], most: int = 12) -> str:
    shown = [repr(name) for name in list(names)[:most]]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")


def _refuse_known_others(path: Path, start: bytes) -> None:
    if start[:4] == b"PK\x03\x04":
        raise BadInput(f"{path.name} is an Excel workbook or a zip archive, no CSV or Parquet; save the table as CSV")
    if start[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        raise BadInput(f"{path.name}, line 1, byte 1: the file is in UTF-16; save it as UTF-8 (or CP932) and try again")
    if path.suffix.lower() == ".parquet" and start[:4] != b"PAR1":
        raise BadInput(f"{path.name} is named .parquet, but is no Parquet file; export it again")


_OTHER_TEXT = {
    "JSON": re.compile(r"\s*(\[\s*)?\{\s*\""),
    "HTML or XML": re.compile(r"\s*<(\?xml|!doctype|html|table|workbook)\b", re.IGNORECASE),
}
"""What a text that is no table of lines begins with."""


def _refuse_strange_head(path: Path, head: str) -> None:
    first, *rest = head.lstrip().split("\n", 1)
    other = next((name for name, begin in _OTHER_TEXT.items() if begin.match(head)), None)
    if other is not None:
        raise BadInput(f"{path.name} is {other}, no CSV or Parquet; save the table as CSV")
    if re.fullmatch(r"sep=.\s*", first, re.IGNORECASE | re.DOTALL):
        raise BadInput(
            f"{path.name}, row 1: {first.strip()!r} is a line for Excel and not the names of the columns; leave it out"
        )
    if not rest and "\r" not in first and len(head.encode()) >= HEAD - 4:
        raise BadInput(
            f"{path.name}, row 1 (header): the names of the columns take more than {HEAD // 1024} KB; if the file has "
            f"no line ends, export it again, else with fewer columns or shorter names"
        )


def _separator(head: str, expected: Collection[str]) -> tuple[str, list[str]]:
    known = {_plain(name) for name in expected}
    best: tuple[tuple[int, float, int], str, list[str]] | None = None
    for separator in SEPARATORS:
        rows = [row for row in csv.reader(io.StringIO(head, newline=""), delimiter=separator) if row][:21]
        header, data = rows[0], rows[1:]
        # The last row of the head may be cut off in its middle, so it says nothing.
        full = data[:-1] or data
        alike = sum(len(row) == len(header) for row in full) / max(len(full), 1) if len(header) > 1 else 0.0
        score = (sum(_plain(name) in known for name in header), alike, len(header))
        if best is None or score > best[0]:
            best = (score, separator, header)
    if best is None:
        raise ValueError("head must hold at least one line that is not blank")
    return best[1], best[2]


def _checked_names(path: Path, header: list[str], expected: Collection[str]) -> tuple[str, ...]:
    names = [name.strip() or f"column {number}" for number, name in enumerate(header, start=1)]
    seen: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        key = name.lower()
        if key in seen:
            if expected and not set(expected) & set(names):
                raise BadInput(
                    f"{path.name}, row 1 (header): none of the columns that the config names is there, it reads "
                    f"{_shortened(names)}; add a first row with the names of the columns"
                )
            other = names[seen[key] - 1]
            alike = (
                f"two columns are called {name!r}" if other == name else f"{other!r} and {name!r} differ by case only"
            )
            raise BadInput(
                f"{path.name}, row 1 (header), columns {seen[key]} and {number}: {alike}; rename one of them"
            )
        seen[key] = number
    return tuple(names)


def _csv_chunks(path: Path, form: FileFormat, chunk_rows: int) -> Iterator[RawChunk]:
    import pyarrow.csv as pv

    ragged: list[Ragged] = []

    def keep_ragged(row: Any) -> str:
        # The header is row 1 for the parser; blank lines are not counted.
        ragged.append(Ragged(row.number - 1, row.text, row.actual_columns, row.expected_columns))
        return "skip"

    with open_hashing(path) as source:
        stream = Transcoder(source, encoding=form.encoding, compressed=form.compressed)
        # Names by position: the header was checked already, and its names may be blank or padded there.
        raw_names = _raw_header(path, form)
        try:
            reader = pv.open_csv(
                pa.PythonFile(stream, mode="r"),
                # One thread: only then do rows have numbers. The caller overlaps it with other work.
                read_options=pv.ReadOptions(use_threads=False, block_size=_block_size(form)),
                parse_options=pv.ParseOptions(
                    delimiter=form.separator, newlines_in_values=True, invalid_row_handler=keep_ragged
                ),
                convert_options=pv.ConvertOptions(
                    check_utf8=False,
                    column_types={name: pa.string() for name in raw_names},
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
            tables = (pa.Table.from_batches([b]).rename_columns(list(form.columns)) for b in reader)
            chunk = None
            for chunk in _numbered(tables, ragged, chunk_rows, form.columns):
                yield dataclasses.replace(chunk, swallowed=swallowed_rows(chunk.table, form.separator))
            if chunk is not None:
                _refuse_open_quote(path, chunk, stream.tail.decode(errors="replace"))
        except pa.ArrowInvalid as error:
            raise BadInput(_parse_sentence(path, form, str(error))) from error
        source.finish()
        if source.sha() != form.sha:
            raise BadInput(f"{path.name} changed while it was being read; wait until it is written, and try again")


def _refuse_open_quote(path: Path, last: RawChunk, tail: str) -> None:
    """The parser takes a cell that is still open at the file's end as it is, and with it all rows inside it."""
    if last.ragged and (last.table.num_rows == 0 or last.ragged[-1].row > last.rows[-1]):
        row, is_open = last.ragged[-1].row, last.ragged[-1].text.count('"') % 2 == 1
    else:
        row, is_open = int(last.rows[-1]), is_left_open(last.table[-1][-1].as_py() or "", tail=tail)
    if is_open:
        raise BadInput(
            f"{path.name}, row {row}: a quotation mark is opened and never closed, so the rest of the file is one "
            f"cell; mend the row and try again"
        )


def _block_size(form: FileFormat) -> int:
    # A row has to fit into a block, and so does the header.
    return max(BLOCK, 64 * len(form.columns))


def _raw_header(path: Path, form: FileFormat) -> list[str]:
    head = decoded_head(path, encoding=form.encoding, compressed=form.compressed)
    return next(row for row in csv.reader(io.StringIO(head, newline=""), delimiter=form.separator) if row)


def _numbered(
    tables: Iterator[pa.Table], ragged: list[Ragged], chunk_rows: int, columns: Sequence[str]
) -> Iterator[RawChunk]:
    """Cut tables into chunks and number their rows, leaving out the numbers of ragged rows."""
    waiting: list[pa.Table] = []
    count, last = 0, 0

    def chunk(table: pa.Table, *, final: bool) -> RawChunk:
        nonlocal last
        skipped = np.array([item.row for item in ragged], dtype=np.int64)
        numbers = np.arange(last + 1, last + 1 + table.num_rows + len(skipped), dtype=np.int64)
        rows = numbers[~np.isin(numbers, skipped)][: table.num_rows]
        last = int(rows[-1]) if len(rows) else last
        passed = tuple(item for item in ragged if final or item.row < last)
        del ragged[: len(passed)]
        return RawChunk(rows, table, passed)

    for table in tables:
        waiting.append(table)
        count += table.num_rows
        while count >= chunk_rows:
            joined = pa.concat_tables(waiting)
            yield chunk(joined.slice(0, chunk_rows).combine_chunks(), final=False)
            waiting, count = [joined.slice(chunk_rows)], count - chunk_rows
    if count or ragged:
        nothing = pa.table({name: pa.array([], pa.string()) for name in columns})
        yield chunk(pa.concat_tables(waiting).combine_chunks() if waiting else nothing, final=True)


def _parse_sentence(path: Path, form: FileFormat, message: str) -> str:
    if "Empty CSV" in message:
        return f"{path.name} has a header but no rows; export it again"
    if "straddling" in message or "not terminated" in message or "quote" in message.lower():
        return (
            f"{path.name}: a quotation mark is opened and never closed, or a row is longer than "
            f"{_block_size(form):,} bytes; mend the file and try again"
        )
    return f"{path.name}: the table cannot be read as CSV ({message}); export it again"


def _survey_parquet(path: Path) -> FileFormat:
    import pyarrow.parquet as pq

    sha = file_sha(path)
    try:
        with pq.ParquetFile(path) as file:
            names, rows = list(file.schema_arrow.names), file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path.name} is a Parquet file that is cut off or damaged; copy it again") from error
    return FileFormat("parquet", sha, _checked_names(path, names, ()), rows)


def _parquet_chunks(path: Path, form: FileFormat, chunk_rows: int) -> Iterator[RawChunk]:
    import pyarrow.parquet as pq

    done = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=chunk_rows):
                table = pa.Table.from_batches([batch]).rename_columns(list(form.columns))
                yield RawChunk(np.arange(done + 1, done + 1 + batch.num_rows, dtype=np.int64), table)
                done += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise BadInput(
            f"{path.name}: the rows after {done} cannot be read, the file is damaged; copy it again"
        ) from error
    if file_sha(path) != form.sha:
        raise BadInput(f"{path.name} changed while it was being read; wait until it is written, and try again")
