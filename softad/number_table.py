"""All number columns of a table at once: one row of many columns is prepared as quickly as many rows of few.

The arithmetic is that of `softad.columns.NumericColumn`, column by column the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from softad.columns import MARGIN, Array, NumericColumn, column_of, deviation, numbers_of, squash

BLOCK = 2_000_000
"""So many cells are worked on at once, which bounds the memory."""


class NumberTable:
    """What was learnt of number columns, side by side.

    Parameters
    ----------
    columns: in the order of their features.

    >>> columns = [NumericColumn.fit(np.array([1.0, 2.0, 3.0, np.nan]), "x"), NumericColumn.fit(np.zeros(3), "y")]
    >>> frame = pd.DataFrame({"x": [3.0, np.nan], "y": [0.0, 7.0]})
    >>> table = NumberTable(columns)
    >>> table.transform(frame).round(1).astype(float).round(1).tolist()
    [[1.2, 0.0, 0.0], [0.0, 1.0, 0.0]]
    >>> table.warnings(frame)
    [(1, 'y: 7 is outside the training range, 0 to 0')]
    """

    def __init__(self, columns: Sequence[NumericColumn]) -> None:
        self.columns = tuple(columns)
        self.names = [column.name for column in columns]

        def each(values: Sequence[float | None]) -> Array:
            return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

        self._median, self._centre, self._scale = (
            each([getattr(column, name) for column in columns]) for name in ("median", "centre", "scale")
        )
        self._spread = each([column.spread or 1.0 for column in columns])
        self._constant = np.array([column.spread == 0.0 for column in columns], dtype=bool)
        low, high = each([column.low for column in columns]), each([column.high for column in columns])
        with np.errstate(over="ignore"):
            room = MARGIN * np.minimum(high - low, 1e308)
            self._lowest, self._highest = low - room, high + room
        self._empty = np.array([column.low is None for column in columns], dtype=bool)
        self._never_missed = np.array([not column.indicated for column in columns], dtype=bool) & ~self._empty
        widths = np.array([column.width for column in columns], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(widths)])
        self._indicated = np.flatnonzero(widths == 2)

    @property
    def width(self) -> int:
        """How many features the columns become."""
        return int(self._starts[-1])

    def transform(self, frame: pd.DataFrame) -> npt.NDArray[np.float32]:
        """The rows' features, shape (n, width).

        Raises
        ------
        ValueError: a column is missing, or holds a word.
        """
        features = np.empty((len(frame), self.width), dtype=np.float32)
        for start, values in blocks_of(frame, self.names):
            missing = ~np.isfinite(values)
            filled = np.where(missing, self._median, values)
            scaled = (squash(deviation(filled, self._median, self._spread)) - self._centre) / self._scale
            scaled[:, self._constant] = 0.0
            part = features[start : start + len(values)]
            part[:, self._starts[:-1]] = scaled
            part[:, self._starts[self._indicated] + 1] = missing[:, self._indicated]
        return features

    def warnings(self, frame: pd.DataFrame) -> list[tuple[int, str]]:
        """Row numbers, with what is unusual about their values; the columns of a row in their order.

        Raises
        ------
        ValueError: a column is missing, or holds a word.
        """
        found: list[tuple[int, str]] = []
        for start, values in blocks_of(frame, self.names):
            missing = np.isnan(values)
            with np.errstate(invalid="ignore"):
                odd = (values < self._lowest) | (values > self._highest)
            odd |= (missing & self._never_missed) | (~missing & self._empty)
            for row, place in np.argwhere(odd).tolist():
                found.append((start + row, self.columns[place].warning(float(values[row, place]))))
        return found


def blocks_of(frame: pd.DataFrame, names: Sequence[str]) -> Iterator[tuple[int, Array]]:
    """The columns as double precision numbers, NaN where missing, some rows at a time: (first row, (rows, columns)).

    Raises
    ------
    ValueError: a column is missing, or holds something that is no number; names the first.

    >>> [values.tolist() for _, values in blocks_of(pd.DataFrame({"x": ["1", None], "y": [2, 3]}), ["y", "x"])]
    [[[2.0, 1.0], [3.0, nan]]]
    """
    if not names:
        return
    kinds = _kinds(frame, names)
    plain = [isinstance(kind, np.dtype) and kind.kind in "fiub" for kind in kinds]
    quick = [name for name, is_plain in zip(names, plain, strict=True) if is_plain]
    # Text and other kinds are read whole, once, so that the first bad cell is named by its row.
    careful = {place: numbers_of(frame, names[place]) for place in range(len(names)) if not plain[place]}
    rows = max(BLOCK // len(names), 1)
    for start in range(0, len(frame), rows):
        part = frame.iloc[start : start + rows]
        values = np.empty((len(part), len(names)), dtype=np.float64)
        values[:, plain] = part[quick].to_numpy(dtype=np.float64)
        for place, numbers in careful.items():
            values[:, place] = numbers[start : start + rows]
        yield start, values


def _kinds(frame: pd.DataFrame, names: Sequence[str]) -> list[object]:
    """The columns' types; as ValueError where one is missing, or is there twice."""
    if frame.columns.is_unique:
        places = frame.columns.get_indexer(pd.Index(names))
        if (places >= 0).all():
            every = frame.dtypes.to_numpy()
            return [every[place] for place in places]
    return [column_of(frame, name).dtype for name in names]
