"""Numeric features as slices: which range of the temperature, say, the excess sits in."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from monitoring.slice_statistics import MISSING, Floats, SliceColumn, pooled

CUTS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Quantiles of the reference at which a numeric feature is cut: six ranges, the outermost hold a tenth each."""

_DIGITS = 2


def range_column(now: pd.Series, before: pd.Series, name: str) -> SliceColumn | None:
    """Code a numeric column of the window and of the reference by ranges; a value that is no number is missing.

    The cuts are quantiles of the reference, rounded to what people read; values beyond it belong to the outermost
    ranges. A column without two ranges tells nothing and gives None.

    Parameters
    ----------
    now, before: shapes (n,) and (m,); numbers, or texts of numbers.
    name: of the column.

    >>> before = pd.Series(np.arange(100.0))
    >>> column = range_column(pd.Series([-5.0] * 10 + [55.0] * 20 + [None] * 10), before, "temperature")
    >>> column.names, column.rows.tolist(), column.rows_before.tolist()
    (['< 9', '49 – 69', '(missing)'], [10.0, 20.0, 10.0], [9.0, 20.0, 0.0])
    >>> range_column(before, pd.Series([1.0] * 100), "constant") is None
    True
    """
    here, there = _numbers(now), _numbers(before)
    known = there[~np.isnan(there)]
    if not known.size:
        return None
    edges = np.quantile(known, CUTS, method="inverted_cdf")
    edges = _rounded(edges, float(edges[-1] - edges[0]))
    if np.ptp(known) == 0.0 or not edges.size:
        return None
    shown = [f"{edge:.12g}" for edge in edges]
    names = [
        f"< {shown[0]}",
        *(f"{low} – {high}" for low, high in pairwise(shown)),
        f"≥ {shown[-1]}",
        MISSING,
    ]
    return pooled(name, names, _codes(here, edges), _codes(there, edges))


def _numbers(column: pd.Series) -> Floats:
    values: Floats = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return values


def _codes(values: Floats, edges: Floats) -> np.ndarray:
    codes = np.searchsorted(edges, values, side="right")
    return np.where(np.isnan(values), len(edges) + 1, codes).astype(np.int64)


def _rounded(edges: Floats, spread: float) -> Floats:
    """The edges to so many digits that the ranges keep their places; each once."""
    if spread > 0.0:
        step = 10.0 ** (np.floor(np.log10(spread)) - _DIGITS + 1)
        edges = np.round(edges / step) * step
    unique: Floats = np.unique(edges)
    return unique
