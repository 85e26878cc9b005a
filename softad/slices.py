"""Slices, the rows of each value of a column (machine, line, product, supplier, shift), and their figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from softad.curves import check_level, checked_losses, cvar


class SliceFigures(NamedTuple):
    """The three figures of one slice (a column's value); ``pandas.DataFrame(figures_by_slice(...))`` is a tidy table.

    Attributes
    ----------
    rows: how many rows the slice has, and `row_share` which share of all rows that is.
    mean, tail, stability: mean loss, CVaR and standard deviation of its losses.
    loss_share: share of the total loss of all rows that the slice's rows carry; 0 where there is no loss. Above
        `row_share` the slice is harder than the rest.
    """

    column: str
    value: str
    rows: int
    mean: float
    tail: float
    stability: float
    row_share: float
    loss_share: float


def figures_by_slice(
    losses: npt.ArrayLike,
    slices: Mapping[str, npt.ArrayLike],
    *,
    level: float = 0.9,
    min_rows: int = 1,
) -> tuple[SliceFigures, ...]:
    """The three figures of every slice, column by column, the largest mean loss first.

    Parameters
    ----------
    losses: shape (n,), finite.
    slices: column name to that column's values, shape (n,); missing values belong to no slice.
    level: of the tail, in [0, 1).
    min_rows: smaller slices are left out; at least 1.

    >>> for one in figures_by_slice([0.0, 1.0, 4.0, 5.0], {"machine": ["M1", "M1", "M2", "M2"]}):
    ...     print(one.value, one.rows, one.mean, one.tail, one.stability, one.loss_share)
    M2 2 4.5 5.0 0.5 0.9
    M1 2 0.5 1.0 0.5 0.1

    Raises
    ------
    ValueError: an argument is out of its range; a slice column has another number of rows.
    """
    data = checked_losses(losses)
    check_level(level)
    if min_rows < 1:
        raise ValueError(f"min_rows: {min_rows}; allowed: 1 or more")
    total = float(data.sum())
    found = []
    for column, given in slices.items():
        parts = []
        for value, rows in rows_by_value(column, given, data.size):
            part = data[rows]
            if part.size < min_rows:
                continue
            share = float(part.sum()) / total if total != 0.0 else 0.0
            mean, tail, deviation = float(part.mean()), cvar(part, level), float(part.std())
            parts.append(SliceFigures(column, value, part.size, mean, tail, deviation, part.size / data.size, share))
        found += sorted(parts, key=lambda one: -one.mean)
    return tuple(found)


def rows_by_value(column: str, given: npt.ArrayLike, rows: int) -> Iterator[tuple[str, npt.NDArray[np.intp]]]:
    """Each value of a column, as a string and in the order of strings, with the numbers of its rows, ascending.

    Parameters
    ----------
    column: the column's name, for the error.
    given: shape (n,), the column's values; missing ones (None, NaN, NaT, NA) belong to no slice.
    rows: how many there must be, n.

    >>> [(value, numbers.tolist()) for value, numbers in rows_by_value("machine", ["M2", None, "M1", "M2"], 4)]
    [('M1', [2]), ('M2', [0, 3])]

    Raises
    ------
    ValueError: the column has another number of rows.
    """
    import pandas  # knows every kind of missing value; not needed without slices

    whole_numbers = getattr(getattr(given, "dtype", None), "kind", "") in "iub"
    members = np.asarray(given) if whole_numbers else np.asarray(given, dtype=object)
    if members.shape != (rows,):
        raise ValueError(f"slices: {column!r} has shape {members.shape}; allowed: {(rows,)}, as the losses")
    present = np.flatnonzero(~np.asarray(pandas.isna(members), dtype=bool))
    texts = members[present]
    if not whole_numbers and pandas.api.types.infer_dtype(texts, skipna=False) != "string":
        # As texts before they are compared: True, 1 and 1.0 are equal but three slices.
        texts = texts.astype(str).astype(object)
    codes, values = pandas.factorize(texts)
    names = np.array([str(value) for value in values], dtype=object)
    by_name = np.argsort(names)
    codes, names = np.argsort(by_name)[codes], names[by_name]
    order = np.argsort(codes, kind="stable")
    parts = np.split(present[order], np.searchsorted(codes[order], np.arange(1, len(names))))
    # A column without any value still splits into one part, an empty one.
    yield from ((str(name), part) for name, part in zip(names, parts, strict=False))
