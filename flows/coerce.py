"""From the text of a cell to a value: numbers, times, text. What does not fit is named, never guessed.

Each function takes a whole column and tries Arrow's fast conversion first; only a column in which something does not
fit is looked at more closely, so that a clean file costs nothing extra.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from flows.written_numbers import writing

_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_NUMBER_RE = re.compile(_NUMBER)
MISSING = {"", "nan", "+nan", "-nan", "na", "n/a", "#n/a", "null", "none", "?", "-"}
_INFINITE = {"inf", "infinity", "∞"}

_TIME = (
    r"^\s*(?P<y>\d{4})(?:[-/.]|年)(?P<m>\d{1,2})(?:[-/.]|月)(?P<d>\d{1,2})日?"
    r"(?:[T\s]*(?P<H>\d{1,2})(?:[:：]|時)(?P<M>\d{1,2})(?:(?:[:：]|分)(?P<S>\d{1,2})(?:[.,](?P<f>\d{1,9}))?)?(?:分|秒)?)?"
    r"\s*(?P<z>Z|[+-]\d{2}(?::?\d{2})?)?\s*$"
)
_COMPACT = (
    r"^\s*(?P<y>\d{4})(?P<m>\d{2})(?P<d>\d{2})(?:[T\s]?(?P<H>\d{2})(?P<M>\d{2})(?P<S>\d{2})?(?P<f>))?(?P<z>Z)?\s*$"
)
_LAST_IS_YEAR = r"^\s*(\d{1,2})([-/.])(\d{1,2})[-/.](\d{4})(\D.*)?$"
DateOrder = Literal["ymd", "dmy", "mdy"]
"""How a date is written whose year comes last; "ymd" where no such dates are read."""

_EARLIEST = np.datetime64("1970-01-01", "us")
_LATEST = np.datetime64("2100-01-01", "us")


@dataclass(frozen=True)
class Coerced:
    """A column as values.

    Attributes
    ----------
    values: (n,) float64 with NaN, or datetime64[us] (UTC) with NaT, where a cell is missing or bad.
    bad: (k,) positions of cells that hold something that does not fit, ascending.
    reasons: why, one for each of them.
    """

    values: np.ndarray
    bad: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    reasons: tuple[str, ...] = ()


def numbers(column: pa.ChunkedArray | pa.Array) -> Coerced:
    """Numbers; empty, blank and NaN are missing, infinity and everything else is bad.

    >>> found = numbers(pa.array(["1.5", " +2e3 ", "", "NaN", None, "abc", "-inf", "１２"]))
    >>> found.values.tolist(), found.bad.tolist()
    ([1.5, 2000.0, nan, nan, nan, nan, nan, 12.0], [5, 6])
    >>> found.reasons
    ("'abc' is not a number", "'-inf' is infinite")
    """
    column = _plain_array(column)
    kind = column.type
    if (
        pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
    ):
        values = _float_values(
            pc.cast(pc.cast(column, pa.int8()) if pa.types.is_boolean(kind) else column, pa.float64(), safe=False)
        )
        return _without_infinite(values, column)
    if not pa.types.is_string(kind):
        column = as_text(column)
    try:
        return _without_infinite(_float_values(pc.cast(column, pa.float64())), column)
    except pa.ArrowInvalid:
        return _careful_numbers(column)


def times(column: pa.ChunkedArray | pa.Array, zone: str, order: DateOrder = "ymd") -> Coerced:
    """Times as UTC; those that say no zone are in `zone`.

    Understood are ISO 8601, year-month-day with - / or . between, 20261124, 2026年11月24日 9時05分, each with or
    without a time of day. Anything that could mean two days (03/04/2026) is bad unless `order` says what it means, and
    so is a year outside 1970 to 2099.

    >>> cells = ["2026-11-24 09:00", "2026年11月24日", "03/04/2026", "2026-11-24T00:00Z", None]
    >>> found = times(pa.array(cells), "Asia/Tokyo")
    >>> found.values.astype(str).tolist()
    ['2026-11-24T00:00:00.000000', '2026-11-23T15:00:00.000000', 'NaT', '2026-11-24T00:00:00.000000', 'NaT']
    >>> found.reasons
    ("'03/04/2026' is not a date that can be read; write it as 2026-11-24 09:30:00",)
    >>> times(pa.array(["03/04/2026", "24.11.2026 9:05"]), "UTC", "dmy").values.astype("datetime64[m]").tolist()
    [datetime.datetime(2026, 4, 3, 0, 0), datetime.datetime(2026, 11, 24, 9, 5)]
    """
    column = _plain_array(column)
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        naive = pc.cast(column, pa.timestamp("us", tz=kind.tz if pa.types.is_timestamp(kind) else None), safe=False)
        zoned = pa.types.is_timestamp(kind) and kind.tz is not None
        values = _time_values(naive)
        return _within_years(values if zoned else _to_utc(values, zone), as_text(column))
    given = as_text(column)
    text = _year_first(given, order)
    for parsed_as in (pa.timestamp("us"), pa.timestamp("us", tz="UTC")):
        try:
            values = _time_values(pc.cast(text, parsed_as))
        except pa.ArrowInvalid:
            continue
        return _within_years(_to_utc(values, zone) if parsed_as.tz is None else values, given)
    return _careful_times(text, zone, given)


def proven_order(cells: Iterable[str]) -> DateOrder | None:
    """In which order the dates of a column are written, all with the year last; None where they do not prove it.

    A number above 12 is no month: one such at the first place, and none at the second, proves that days come first.

    >>> proven_order(["03/04/2026", "19/04/2026"]), proven_order(["03/04/2026", "04/19/2026"])
    ('dmy', 'mdy')
    >>> proven_order(["03/04/2026"]), proven_order(["19/04/2026", "04/19/2026"]), proven_order(["2026-04-03"])
    (None, None, None)
    """
    found = [re.match(_LAST_IS_YEAR, cell) for cell in cells]
    matched = [match for match in found if match is not None]
    if not matched or len(matched) < len(found):
        return None
    first, second = (max(int(match[place]) for match in matched) for place in (1, 3))
    if first > 12 >= second:
        return "dmy"
    return "mdy" if second > 12 >= first else None


def _year_first(text: pa.Array, order: DateOrder) -> pa.Array:
    if order == "ymd":
        return text
    return pc.replace_substring_regex(text, _LAST_IS_YEAR, r"\4-\3-\1\5" if order == "dmy" else r"\4-\1-\3\5")


def as_text(column: pa.ChunkedArray | pa.Array, *, trim: bool = False) -> pa.Array:
    """A column as text; blank cells are null. Whole numbers of a Parquet file lose their ``.0``.

    >>> as_text(pa.array([1.0, 2.5, None])).to_pylist(), as_text(pa.array([" a ", "  "]), trim=True).to_pylist()
    (['1', '2.5', None], ['a', None])
    """
    column = _plain_array(column)
    kind = column.type
    if pa.types.is_string(kind):
        text = column
    elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        text = pa.array([_number_text(value) for value in column.to_pylist()], pa.string())
    elif pa.types.is_nested(kind):
        texts = [None if v is None else json.dumps(v, ensure_ascii=False, default=str) for v in column.to_pylist()]
        text = pa.array(texts, pa.string())
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        text = pa.array([None if v is None else v.hex() for v in column.to_pylist()], pa.string())
    else:
        text = pc.cast(column, pa.string())
    if trim:
        text = pc.utf8_trim_whitespace(text)
        return pc.if_else(pc.equal(text, ""), None, text)
    blank = pc.or_(pc.utf8_is_space(text), pc.equal(text, ""))
    # True only for cells of nothing but spaces, so the usual column is passed on as it is.
    return pc.if_else(blank, None, text) if pc.any(blank).as_py() else text


def _plain_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type) or pa.types.is_null(array.type):
        array = pc.cast(array, pa.string())
    return array


def _float_values(array: pa.Array) -> np.ndarray:
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.float64)


def _time_values(array: pa.Array) -> np.ndarray:
    if array.type.tz is not None:
        array = pc.cast(array, pa.timestamp("us", tz="UTC"))
    return np.asarray(pc.cast(array, pa.timestamp("us")).to_numpy(zero_copy_only=False), dtype="datetime64[us]")


def _without_infinite(values: np.ndarray, column: pa.Array) -> Coerced:
    bad = np.flatnonzero(np.isinf(values))
    if not len(bad):
        return Coerced(values)
    values = values.copy()
    values[bad] = np.nan
    given = column.take(pa.array(bad)).to_pylist()
    # A number too large for 64 bits, such as 1e999, reads as infinity too.
    return Coerced(values, bad, tuple(f"{str(value)!r} is infinite" for value in given))


def _careful_numbers(text: pa.Array) -> Coerced:
    trimmed = pc.utf8_trim_whitespace(text)
    plain = pc.fill_null(pc.match_substring_regex(trimmed, _NUMBER), False)
    unsigned = pc.replace_substring_regex(pc.if_else(plain, trimmed, None), r"^\+", "")
    values = _float_values(pc.cast(unsigned, pa.float64())).copy()
    rest = np.flatnonzero(~plain.to_numpy(zero_copy_only=False) & pc.is_valid(text).to_numpy(zero_copy_only=False))
    cells = text.take(pa.array(rest)).to_pylist()
    known: dict[str, float | str] = {}
    reasons: dict[int, str] = {}
    for position, cell in zip(rest.tolist(), cells, strict=True):
        if cell not in known:
            known[cell] = _one_number(cell)
        value = known[cell]
        if isinstance(value, str):
            reasons[position] = value
        else:
            values[position] = value
    infinite = _without_infinite(values, text)
    reasons.update(zip(infinite.bad.tolist(), infinite.reasons, strict=True))
    bad = np.array(sorted(reasons), dtype=np.int64)
    return Coerced(infinite.values, bad, tuple(reasons[position] for position in bad.tolist()))


def _one_number(cell: str) -> float | str:
    # Japanese keyboards write full-width digits; NFKC makes them plain ones.
    plain = unicodedata.normalize("NFKC", cell).strip().lower()
    if plain in MISSING:
        return float("nan")
    if plain.lstrip("+-") in _INFINITE:
        return f"{cell!r} is infinite"
    if _NUMBER_RE.match(plain):
        return float(plain)
    if how := writing([plain]):
        told = "a decimal point" if how == "comma" else "nothing between thousands, and a point before decimals"
        return f"{cell!r} is not a number; write it with {told}"
    return f"{cell!r} is not a number"


def _to_utc(naive: np.ndarray, zone: str) -> np.ndarray:
    if zone == "UTC":
        return naive
    # Where clocks are put back, the first of both hours is meant; where they are put forward, the hour after.
    local = pd.DatetimeIndex(naive).tz_localize(
        zone, ambiguous=np.ones(len(naive), dtype=bool), nonexistent="shift_forward"
    )
    return np.asarray(local.tz_convert("UTC").tz_localize(None).to_numpy(), dtype="datetime64[us]")


def _within_years(values: np.ndarray, text: pa.Array) -> Coerced:
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(~np.isnat(values) & ((values < _EARLIEST) | (values >= _LATEST)))
    if not len(bad):
        return Coerced(values)
    values = values.copy()
    values[bad] = np.datetime64("NaT")
    given = text.take(pa.array(bad)).to_pylist()
    return Coerced(values, bad, tuple(f"{cell!r} is outside the years 1970 to 2099" for cell in given))


def _careful_times(text: pa.Array, zone: str, given: pa.Array) -> Coerced:
    values = np.full(len(text), np.datetime64("NaT"), dtype="datetime64[us]")
    plain = pa.array(
        [None if cell is None else unicodedata.normalize("NFKC", cell) for cell in text.to_pylist()], pa.string()
    )
    for pattern in (_TIME, _COMPACT):
        parts = pc.extract_regex(plain, pattern)
        hit = np.flatnonzero(pc.is_valid(parts).to_numpy(zero_copy_only=False) & np.isnat(values))
        if len(hit):
            values[hit] = _assembled(parts.take(pa.array(hit)), zone)
    unread = np.flatnonzero(np.isnat(values) & pc.is_valid(text).to_numpy(zero_copy_only=False))
    cells = given.take(pa.array(unread)).to_pylist()
    reasons = {
        position: f"{cell!r} is not a date that can be read; write it as 2026-11-24 09:30:00"
        for position, cell in zip(unread.tolist(), cells, strict=True)
    }
    outside = _within_years(values, given)
    reasons.update(zip(outside.bad.tolist(), outside.reasons, strict=True))
    bad = np.array(sorted(reasons), dtype=np.int64)
    return Coerced(outside.values, bad, tuple(reasons[position] for position in bad.tolist()))


def _assembled(parts: pa.StructArray, zone: str) -> np.ndarray:
    """Times from the parts of a match; NaT where there is no such day or time of day."""

    def number(name: str) -> np.ndarray:
        filled = pc.if_else(pc.equal(parts.field(name), ""), "0", parts.field(name))
        return np.asarray(pc.cast(filled, pa.int64()).to_numpy(zero_copy_only=False), dtype=np.int64)

    year, month, day = number("y"), number("m"), number("d")
    hour, minute, second = number("H"), number("M"), number("S")
    fraction = pc.utf8_slice_codeunits(pc.utf8_rpad(parts.field("f"), 6, "0"), 0, 6)
    micro = np.asarray(pc.cast(fraction, pa.int64()).to_numpy(zero_copy_only=False), dtype=np.int64)
    real = (month >= 1) & (month <= 12) & (hour <= 23) & (minute <= 59) & (second <= 59) & (day >= 1)
    months = (year - 1970) * 12 + np.clip(month, 1, 12) - 1
    first = months.astype("datetime64[M]")
    real &= day <= ((first + 1).astype("datetime64[D]") - first.astype("datetime64[D]")).astype(np.int64)
    seconds = ((hour * 60 + minute) * 60 + second) * 1_000_000 + micro
    naive = (
        first.astype("datetime64[us]")
        + (day - 1) * np.timedelta64(86_400_000_000, "us")
        + seconds.astype("timedelta64[us]")
    )
    said = parts.field("z").to_pylist()
    zoned = np.array([bool(text) for text in said], dtype=bool)
    offsets = np.array([_offset(text) for text in said], dtype="timedelta64[m]")
    values = np.where(zoned, naive - offsets, naive)
    if not zoned.all():
        values[~zoned] = _to_utc(naive[~zoned], zone)
    values[~real] = np.datetime64("NaT")
    return np.asarray(values, dtype="datetime64[us]")


def _offset(said: str) -> int:
    if not said or said == "Z":
        return 0
    minutes = int(said[1:3]) * 60 + int(said[3:].lstrip(":") or 0)
    return minutes if said[0] == "+" else -minutes


def _number_text(value: object) -> str | None:
    if value is None:
        return None
    number = float(value)  # type: ignore[arg-type]
    if np.isnan(number):
        return None
    return str(int(number)) if np.isfinite(number) and number == int(number) and abs(number) < 1e15 else str(value)
