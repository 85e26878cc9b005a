"""What each column of a file holds: numbers, times, few values, free text, or nothing at all.

Everything is read as text, as it was delivered, so that what is found here is what `ingest` will meet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from flows import coerce
from flows.proposal_words import (
    GROUP,
    IDENTIFIER,
    NO_VALUES,
    SLICE,
    TIME,
    YES_VALUES,
    names_any,
    plain,
    strength,
    words_of,
)
from flows.written_numbers import Writing, writing

Kind = Literal["empty", "constant", "number", "time", "text"]

NUMBER_SHARE = 0.98
"""A column is one of numbers when this share of its filled cells are; the rest will be held in quarantine."""

FEW = 50
"""At most so many different values make a category."""

_DATE = re.compile(r"^\s*\d{4}\D{1,2}\d{1,2}\D{1,2}\d{1,2}")
_CLOCK = re.compile(r"^\s*\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?\s*$")
_TWO_WAYS = re.compile(r"^\s*\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})\b")


@dataclass(frozen=True, eq=False)
class Column:
    """One column as it was found.

    Attributes
    ----------
    name, position: header and place in the file, from 0.
    kind: empty, constant (one value, nothing missing), number, time or text.
    missing: empty cells.
    codes: (rows,) integers into `values`, -1 where the cell is empty.
    values: the different texts, in order of first appearance.
    numbers: (rows,) float64 for a number column, NaN where the cell is empty or no number; else None.
    times: (rows,) datetime64[us] in UTC for a time column, NaT where empty; a time without zone is read as UTC.
    unreadable: cells of a number or time column that are neither empty nor what the others are.
    date_order: of a time column whose dates have the year last, as its cells prove it.
    """

    name: str
    position: int
    kind: Kind
    missing: int
    codes: np.ndarray
    values: tuple[str, ...]
    numbers: np.ndarray | None = None
    times: np.ndarray | None = None
    unreadable: tuple[str, ...] = ()
    date_order: coerce.DateOrder = "ymd"

    @property
    def rows(self) -> int:
        """Rows looked at."""
        return len(self.codes)

    @property
    def filled(self) -> int:
        """Cells that hold something."""
        return self.rows - self.missing

    @property
    def distinct(self) -> int:
        """Different values, not counting the empty cell."""
        return len(self.values)

    @property
    def counts(self) -> np.ndarray:
        """Rows of each value, (distinct,)."""
        return np.bincount(self.codes[self.codes >= 0], minlength=self.distinct)

    @property
    def whole(self) -> bool:
        """Whether all numbers are integers."""
        if self.numbers is None:
            return False
        present = self.numbers[np.isfinite(self.numbers)]
        return bool(present.size) and bool(np.all(present == np.round(present)))

    @property
    def near_unique(self) -> bool:
        """Whether nearly every row has a value of its own."""
        return self.distinct > 0.9 * max(self.filled, 1) and self.distinct > 20

    @property
    def unique(self) -> bool:
        """Whether every row has a value of its own and none is empty."""
        return self.missing == 0 and self.distinct == self.rows and self.rows > 1

    @property
    def flag(self) -> np.ndarray | None:
        """(rows,) booleans for a column of 0 and 1, or yes and no, without empty cells; else None."""
        if self.missing or self.distinct != 2:
            return None
        yes = [plain(value) in YES_VALUES for value in self.values]
        no = [plain(value) in NO_VALUES for value in self.values]
        if sum(yes) != 1 or sum(no) != 1 or yes == no:
            return None
        return np.asarray(self.codes == yes.index(True))

    @property
    def few(self) -> bool:
        """Whether the values repeat often enough to be categories."""
        return 2 <= self.distinct <= FEW and self.distinct <= max(2, self.filled / 5)

    @property
    def clock_only(self) -> bool:
        """Whether the cells are times of day without a date."""
        return self.kind == "text" and all(_CLOCK.match(value) for value in self.values[:200])

    @property
    def two_ways(self) -> bool:
        """Whether the cells are dates such as 03/04/2026, which could mean two days."""
        return self.kind == "text" and bool(self.values) and all(_TWO_WAYS.match(value) for value in self.values[:200])

    @property
    def placeholder(self) -> str | None:
        """The one text that stands between numbers where nothing was measured (NA, ?, -), if there is one."""
        if self.kind != "text" or self.distinct < 10:
            return None
        wrong = coerce.numbers(pa.array(list(self.values), pa.string())).bad
        return self.values[wrong[0]] if len(wrong) == 1 else None

    @cached_property
    def writing(self) -> Writing:
        """How numbers are written in it that are not plain ones; "" where it holds none."""
        return writing(self.values) if self.kind == "text" else ""

    def text(self) -> list[str]:
        """The cells as text, "" where empty, (rows,)."""
        table = np.array([*self.values, ""], dtype=object)
        return list(table[self.codes])


def look(frame: pd.DataFrame, *, time: str | None = None) -> list[Column]:
    """Say of each column what it holds.

    Parameters
    ----------
    frame: all text; an empty cell is None, NaN or "".
    time: a column that a person named as the time: it is one even where it could be numbers.

    >>> found = look(pd.DataFrame({"x": ["1", "2.5", ""], "ok": ["yes", "no", "yes"], "at": ["2026-01-05"] * 3}))
    >>> [(column.name, column.kind, column.missing) for column in found]
    [('x', 'number', 1), ('ok', 'text', 0), ('at', 'time', 0)]
    """
    return [_look_at(str(name), place, frame.iloc[:, place], time) for place, name in enumerate(frame.columns)]


def _look_at(name: str, position: int, cells: pd.Series, time: str | None) -> Column:
    raw_codes, raw = pd.factorize(cells.to_numpy(dtype=object), use_na_sentinel=True)
    neat, found = pd.factorize(np.array([str(value).strip() or None for value in raw], dtype=object))
    codes = np.append(neat, -1)[raw_codes]
    values = tuple(str(value) for value in found)
    plainly = Column(name, position, "text", int(np.sum(codes < 0)), codes, values)
    if not values:
        return replace(plainly, kind="empty")
    dated = name == time or strength(name, TIME) >= 50
    if len(values) == 1 and plainly.missing == 0 and len(codes) > 1:
        # The file of one day has one date.
        one_day = _as_times(plainly) if dated and _DATE.match(values[0]) else None
        return one_day or replace(plainly, kind="constant")
    looks_dated = any(_DATE.match(value) or _TWO_WAYS.match(value) for value in values[:100])
    as_time = _as_times(plainly) if dated or looks_dated else None
    as_number = _as_numbers(plainly) if name != time else None
    # 20261124 is a number too, and a date only under a name that says so.
    return (as_time if dated else None) or as_number or as_time or plainly


def _as_numbers(column: Column) -> Column | None:
    read = coerce.numbers(pa.array(list(column.values), pa.string()))
    bad = np.zeros(column.distinct, dtype=bool)
    bad[read.bad] = True
    empty = np.isnan(read.values) & ~bad  # NaN, which `ingest` takes as an empty cell
    if empty.all() or not _nearly_all(column, bad):
        return None
    # The empty ones lose their place among the values, so that they count as missing.
    order = np.where(empty, -1, np.cumsum(~empty) - 1)
    codes = np.append(order, -1)[column.codes]
    values = tuple(value for value, gone in zip(column.values, empty, strict=True) if not gone)
    unreadable = tuple(column.values[place] for place in read.bad)
    numbers = np.append(read.values, np.nan)[column.codes]
    return replace(
        column, kind="number", missing=int(np.sum(codes < 0)), codes=codes, values=values, numbers=numbers,
        unreadable=unreadable,
    )  # fmt: skip


def _as_times(column: Column) -> Column | None:
    order = coerce.proven_order(column.values) or "ymd"
    read = coerce.times(pa.array(list(column.values), pa.string()), "UTC", order)
    bad = np.zeros(column.distinct, dtype=bool)
    bad[read.bad] = True
    if not _nearly_all(column, bad):
        return None
    times = np.append(read.values, np.datetime64("NaT"))[column.codes]
    unreadable = tuple(column.values[place] for place in read.bad)
    return replace(column, kind="time", times=times, unreadable=unreadable, date_order=order)


def _nearly_all(column: Column, bad: np.ndarray) -> bool:
    """Whether so few cells do not fit that they are misprints; one among a handful is rather a category."""
    wrong = int(column.counts[bad].sum())
    return wrong == 0 or (wrong <= (1 - NUMBER_SHARE) * column.filled and column.filled - wrong >= 20)


def looks_like_code(column: Column) -> bool:
    """Whether a column of whole numbers is a list of codes (machine 3, line 12) and no measurement.

    >>> frame = pd.DataFrame({"machine": ["1", "2", "3"] * 20, "torque": ["1", "2", "3"] * 20})
    >>> [looks_like_code(column) for column in look(frame)]
    [True, False]
    """
    if not column.whole or column.numbers is None or np.nanmin(column.numbers) < 0:
        return False
    last = words_of(column.name)[-1:] or [""]
    coded = last[0] in ({"code", "type", "kind", "コード"} | (set(IDENTIFIER) - {"index", "number"}))
    named = last[0] in SLICE or last[0] in GROUP or (not column.name.isascii() and names_any(column.name, SLICE))
    return coded or named
