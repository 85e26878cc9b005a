"""Stray quotation marks in a CSV file: one that is never closed, and two that swallow the rows between them.

A cell that begins with a quotation mark goes on to the next one, over line ends too. The parser takes what it finds
there as one cell; nobody meant it where the cell holds exactly what rows of this file consist of.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class Swallowed:
    """A cell that holds whole rows.

    Attributes
    ----------
    position: of its row in the chunk. rows: how many rows it holds beside its own. text: the cell.
    """

    position: int
    column: str
    rows: int
    text: str

    def sentence(self) -> str:
        """What a person should know.

        >>> Swallowed(0, "note", 2, "...").sentence()
        'the cell of note holds 2 more rows: a quotation mark opens it and the next one comes rows later; mend the file'
        """
        noun = "row" if self.rows == 1 else "rows"
        return (
            f"the cell of {self.column} holds {self.rows} more {noun}: a quotation mark opens it and the next one "
            f"comes rows later; mend the file"
        )


def swallowed_rows(table: pa.Table, separator: str) -> tuple[Swallowed, ...]:
    r"""Cells with line breaks in which the separators stand as they would in rows of this table.

    Parameters
    ----------
    table: n rows of text columns, all of the file's in its order.

    Notes
    -----
    Of k line breaks in column c of d, the text before the first must have d - 1 - c separators, that after the last c,
    and every line between them d - 1; and prose puts a space after each comma, a table does not.

    >>> table = pa.table({"id": ["A", "D"], "note": ["fine", "b,7\nE,c"], "x": ["1", "2"]})
    >>> swallowed_rows(table, ",")
    (Swallowed(position=1, column='note', rows=1, text='b,7\nE,c'),)
    >>> swallowed_rows(pa.table({"id": ["A"], "note": ["two lines,\nby hand"], "x": ["1"]}), ",")
    ()
    """
    found: list[Swallowed] = []
    for place, name in enumerate(table.column_names):
        column = table[name].combine_chunks()
        if not _has_breaks(column):
            continue
        for position in np.flatnonzero(pc.match_substring_regex(column, "[\r\n]").fill_null(False)).tolist():
            text = column[position].as_py()
            lines = _LINE_END.split(text)
            if _are_rows(lines, separator, place, table.num_columns):
                found.append(Swallowed(position, name, len(lines) - 1, text))
    return tuple(sorted(found, key=lambda item: item.position))


def _are_rows(lines: Sequence[str], separator: str, place: int, columns: int) -> bool:
    counts = [line.count(separator) for line in lines]
    expected = [columns - 1 - place, *[columns - 1] * (len(lines) - 2), place]
    return counts == expected and any(separator in line.replace(f"{separator} ", "") for line in lines)


def _has_breaks(column: pa.StringArray) -> bool:
    """Whether any cell holds a line end; by its bytes, which is far cheaper than by cell."""
    _, offsets, data = column.buffers()
    if data is None or not len(column):
        return False
    start, end = np.frombuffer(offsets, np.int32)[[column.offset, column.offset + len(column)]].tolist()
    cells = data.slice(start, end - start).to_pybytes()
    return b"\n" in cells or b"\r" in cells


def is_left_open(text: str, *, tail: str) -> bool:
    """Whether a file's last cell was opened with a quotation mark that nothing closed.

    Parameters
    ----------
    text: the cell as the parser gave it. tail: the end of the file.

    >>> is_left_open("b\\nc", tail='a,"b\\nc'), is_left_open("b", tail='a,"b"\\n'), is_left_open("b", tail="a,b\\n")
    (True, False, False)
    """
    written = '"' + text.replace('"', '""')
    closed = tail.rstrip("\r\n").endswith('"')
    return bool(text) and not closed and (tail.endswith(written) or written.endswith(tail))
