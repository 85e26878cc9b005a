"""How single columns become numbers for a network, and what a row's warnings say about them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]

LINEAR = 4.0
"""Within so many robust deviations of the median a measurement enters linearly, beyond it by its logarithm."""
MARGIN = 0.1
"""A measurement is warned about where it lies further outside the training range than this share of it."""


def squash(z: Array) -> Array:
    """Robust deviations, those far out by their logarithm; of the same shape.

    >>> squash(np.array([-1.0, 4.0, 4.0 + np.e - 1])).round(6).tolist()
    [-1.0, 4.0, 5.0]
    """
    size = np.abs(z)
    return np.where(size <= LINEAR, z, np.sign(z) * (LINEAR + np.log1p(np.maximum(size - LINEAR, 0.0))))


@dataclass(frozen=True)
class NumericColumn:
    """A measurement: missing values by the median, scaled so that neither unit nor outliers matter.

    Attributes
    ----------
    name: the column.
    median, spread: of the finite training values; spread 0 where they are all equal, or there are none.
    centre, scale: of the squashed training values, whose mean becomes 0 and deviation 1.
    low, high: training range; None where there was no value.
    indicated: whether training rows missed values, so that missing is a feature of its own.

    `softad.number_table.NumberTable` makes features of them.

    >>> column = NumericColumn.fit(np.array([1.0, 2.0, 3.0, np.nan]), "x")
    >>> column.median, column.low, column.high, column.indicated
    (2.0, 1.0, 3.0, True)
    """

    name: str
    median: float
    spread: float
    centre: float
    scale: float
    low: float | None
    high: float | None
    indicated: bool

    @classmethod
    def fit(cls, values: Array, name: str) -> NumericColumn:
        """Learn from training values, shape (n,); whatever is not finite counts as missing."""
        present = values[np.isfinite(values)]
        indicated = bool(present.size < values.size and present.size > 0)
        if present.size == 0:
            return cls(name, 0.0, 0.0, 0.0, 1.0, None, None, indicated)
        median = 2.0 * float(np.median(present / 2.0))  # halved: the mean of two huge numbers would overflow
        low, high = float(present.min()), float(present.max())
        spread = _spread(present, median)
        if spread == 0.0:
            return cls(name, median, 0.0, 0.0, 1.0, low, high, indicated)
        squashed = squash(deviation(present, median, spread))
        return cls(name, median, spread, float(squashed.mean()), float(squashed.std()) or 1.0, low, high, indicated)

    @property
    def width(self) -> int:
        """How many features the column becomes."""
        return 1 + self.indicated

    def warning(self, value: float) -> str:
        """What is unusual about a value that is.

        >>> NumericColumn.fit(np.array([1.0, 3.0]), "x").warning(9.5)
        'x: 9.5 is outside the training range, 1 to 3'
        """
        if self.low is None or self.high is None:
            return f"{self.name}: had no value in training, not used"
        if math.isnan(value):
            return f"{self.name}: missing, and never missing in training"
        return f"{self.name}: {value:.6g} is outside the training range, {self.low:.6g} to {self.high:.6g}"


def _spread(present: Array, median: float) -> float:
    """Quartile range as a deviation; where half of the values are equal, the mean distance from the median."""
    first, third = np.quantile(present, [0.25, 0.75])
    with np.errstate(over="ignore"):
        spread = float(third / 1.349 - first / 1.349)
        if not spread > 0.0:
            spread = float((np.abs(present / 2.0 - median / 2.0) / present.size).sum() * 2.0)
    # Differences at the edge of floating point are rounding, not a measurement.
    size = max(abs(median), abs(float(present.min())), abs(float(present.max())))
    return min(spread, 1e308) if spread > 1e-12 * size else 0.0


def deviation(values: Array, median: float | Array, spread: float | Array) -> Array:
    """Distance from the median in spreads, never infinite; of the values' shape, the others broadcast against it.

    >>> deviation(np.array([3.0, -1e308]), 1.0, 0.25e-10).tolist()
    [80000000000.0, -1e+300]
    """
    with np.errstate(over="ignore"):
        return np.clip(values / spread - median / spread, -1e300, 1e300)


@dataclass(frozen=True)
class CategoryColumn:
    """A word from a list: one feature each, one for missing where training missed some, one for all others.

    Attributes
    ----------
    name: the column.
    values: the words seen in training, the most frequent first; beyond `LARGEST` of them the rest are others.
    rest: words that were seen, and are counted among the others.
    missing: whether training rows missed values.

    >>> column = CategoryColumn.fit(np.array(["M1", "M1", "M2"], dtype=object), "machine")
    >>> column.transform(np.array(["M2", "M99"], dtype=object)).tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """

    name: str
    values: tuple[str, ...]
    rest: tuple[str, ...]
    missing: bool

    LARGEST = 100

    @classmethod
    def fit(cls, words: npt.NDArray[Any], name: str, *, largest: int = LARGEST) -> CategoryColumn:
        """Learn from training words, shape (n,), None where missing; at most `largest` of them stand for themselves."""
        counts: dict[str, int] = {}
        codes, uniques = pd.factorize(words)
        for word, count in zip(uniques, np.bincount(codes[codes >= 0], minlength=len(uniques)), strict=True):
            counts[str(word)] = int(count)
        ordered = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(name, tuple(ordered[:largest]), tuple(ordered[largest:]), bool((codes < 0).any()))

    @property
    def width(self) -> int:
        """How many features the column becomes."""
        return len(self.values) + self.missing + 1

    def transform(self, words: npt.NDArray[Any]) -> Array:
        """Shape (n,) to (n, width): a single 1 a row."""
        encoded = np.zeros((len(words), self.width))
        encoded[np.arange(len(words)), self.codes(words)] = 1.0
        return encoded

    def codes(self, words: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Shape (n,) to (n,): the place of each word's feature; the last, width - 1, is that of all others.

        >>> column = CategoryColumn("machine", ("M1", "M2"), (), False)
        >>> column.codes(np.array(["M2", None, "M1"], dtype=object)).tolist()
        [1, 2, 0]
        """
        place = {word: number for number, word in enumerate(self.values)}
        codes, uniques = pd.factorize(words)
        other = self.width - 1
        # A missing value where training missed none is like any other word that was never seen.
        places = np.array([*(place.get(str(word), other) for word in uniques), len(place) if self.missing else other])
        return np.asarray(places[codes], dtype=np.int64)

    def warnings(self, words: npt.NDArray[Any]) -> list[tuple[int, str]]:
        """Row numbers, with what was never seen in training."""
        known = {*self.values, *self.rest}
        codes, uniques = pd.factorize(words)
        strange = np.array([str(word) not in known for word in uniques] + [not self.missing], dtype=bool)
        said = [f"{self.name}: {word} was never seen in training" for word in uniques]
        said.append(f"{self.name}: missing, and never missing in training")
        return [(int(row), said[codes[row]]) for row in np.flatnonzero(strange[codes])]


def numbers_of(frame: pd.DataFrame, name: str) -> Array:
    """A column as double precision numbers, NaN where missing.

    >>> numbers_of(pd.DataFrame({"x": [1, None, "2.5"]}, dtype=object), "x").tolist()
    [1.0, nan, 2.5]

    Raises
    ------
    ValueError: the column is missing, or holds something that is no number; names the first.
    """
    column = column_of(frame, name)
    numbers = pd.to_numeric(column, errors="coerce")
    values = np.array(numbers.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)
    bad = np.isnan(values) & column.notna().to_numpy()
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"{name}: {column.iloc[row]!r} in row {row}; allowed: a number, or nothing")
    return values


def words_of(frame: pd.DataFrame, name: str) -> npt.NDArray[Any]:
    """A column as text, None where missing; whole numbers are written without a decimal point.

    >>> words_of(pd.DataFrame({"m": [3.0, None, 4.5]}), "m").tolist()
    ['3', None, '4.5']

    Raises
    ------
    ValueError: the column is missing.
    """
    column = column_of(frame, name)
    codes, uniques = pd.factorize(column)
    texts = np.array([*(_text(value) for value in uniques), None], dtype=object)
    return np.asarray(texts[codes])


def _text(value: object) -> str:
    if isinstance(value, float | np.floating) and math.isfinite(value) and float(value).is_integer():
        return str(int(value))
    return str(value)


def column_of(frame: pd.DataFrame, name: str) -> pd.Series[Any]:
    """A column.

    >>> column_of(pd.DataFrame({"x": [1, 2]}), "x").tolist()
    [1, 2]

    Raises
    ------
    ValueError: it is missing, or there more than once.
    """
    if name not in frame.columns:
        raise ValueError(f"{name}: the column is missing; here are {', '.join(map(str, frame.columns))}")
    column = frame[name]
    if not isinstance(column, pd.Series):
        raise ValueError(f"{name}: the column occurs {column.shape[1]} times; allowed: once")
    return column
