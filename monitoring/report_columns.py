"""What of a frame can be compared with the reference's: usable columns of a sample, and the others by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

LARGEST_CATEGORIES = 200
"""Categories beyond the most frequent ones are counted together: a column of free text has as many as rows."""

OTHER = "(other)"

LEAST_VALUES = 50
"""With fewer values the distance between two samples of the same law is as large as that of a real change."""


@dataclass(frozen=True)
class Comparable:
    """Two samples with the same clean columns.

    Attributes
    ----------
    current, reference: numeric columns as float64 without infinities, categorical ones as text.
    numeric, categorical: columns that can be compared.
    left_out: every other column that was asked for, and why it cannot.
    """

    current: pd.DataFrame
    reference: pd.DataFrame
    numeric: list[str]
    categorical: list[str]
    left_out: dict[str, str]

    def without(self, reasons: dict[str, str]) -> Comparable:
        """The same without some more columns."""
        return Comparable(
            current=self.current.drop(columns=list(reasons)),
            reference=self.reference.drop(columns=list(reasons)),
            numeric=[name for name in self.numeric if name not in reasons],
            categorical=[name for name in self.categorical if name not in reasons],
            left_out=self.left_out | reasons,
        )


def comparable(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    numeric: Sequence[str],
    categorical: Sequence[str],
    sample_rows: int,
    seed: int,
) -> Comparable:
    """Draw the samples and sort out the columns.

    Parameters
    ----------
    current, reference: rows of the window and of the reference.
    numeric, categorical: columns to compare.
    sample_rows: most rows of each.
    seed: of the samples.

    >>> rows = pd.DataFrame({"x": [1.0, 2.0] * 40, "mixed": [1.0, "two"] * 40, "machine": ["M1", "M2"] * 40})
    >>> clean = comparable(rows, rows, numeric=["x", "mixed"], categorical=["machine"], sample_rows=60, seed=0)
    >>> clean.numeric, clean.categorical, len(clean.current)
    (['x'], ['machine'], 60)
    >>> clean.left_out
    {'mixed': 'this window: 29 of 60 values are no finite numbers, the first is two'}
    """
    now, then = _sample(current, sample_rows, seed), _sample(reference, sample_rows, seed)
    left_out: dict[str, str] = {}
    columns: dict[str, tuple[pd.Series, pd.Series]] = {}
    for name in [*numeric, *categorical]:
        convert = _numbers if name in numeric else _texts
        pair = []
        for frame, where in ((now, "this window"), (then, "the reference")):
            column, reason = (None, "the column is missing") if name not in frame else convert(frame[name])
            if reason is not None:
                left_out.setdefault(name, f"{where}: {reason}")
            elif column is not None:
                pair.append(column)
        if name not in left_out:
            columns[name] = (pair[0], pair[1])
    for name in categorical:
        if name in columns:
            columns[name] = _with_few_categories(*columns[name])
    return Comparable(
        current=pd.DataFrame({name: pair[0] for name, pair in columns.items()}),
        reference=pd.DataFrame({name: pair[1] for name, pair in columns.items()}),
        numeric=[name for name in numeric if name in columns],
        categorical=[name for name in categorical if name in columns],
        left_out=left_out,
    )


def _sample(frame: pd.DataFrame, rows: int, seed: int) -> pd.DataFrame:
    if len(frame) > rows:
        frame = frame.iloc[np.sort(np.random.default_rng(seed).choice(len(frame), size=rows, replace=False))]
    return frame.reset_index(drop=True)


def _numbers(column: pd.Series) -> tuple[pd.Series | None, str | None]:
    given = column.notna()
    values = pd.to_numeric(column, errors="coerce").astype("float64")
    bad = given & ~np.isfinite(values)
    if bad.any():
        count, first = int(bad.sum()), column[bad].iloc[0]
        return None, f"{count} of {len(column)} values are no finite numbers, the first is {first}"
    if given.sum() < LEAST_VALUES:
        return None, _too_few(int(given.sum()), len(column))
    return values, None


def _texts(column: pd.Series) -> tuple[pd.Series | None, str | None]:
    given = column.notna()
    if given.sum() < LEAST_VALUES:
        return None, _too_few(int(given.sum()), len(column))
    return column.astype(object).where(given, None).map(lambda each: each if each is None else str(each)), None


def _too_few(values: int, rows: int) -> str:
    if not values:
        return "there is no value" if rows else "there are no rows"
    return f"there are only {values} values; a comparison needs {LEAST_VALUES}"


def _with_few_categories(now: pd.Series, then: pd.Series) -> tuple[pd.Series, pd.Series]:
    counts = pd.concat([now, then]).value_counts()
    if len(counts) <= LARGEST_CATEGORIES:
        return now, then
    kept = set(counts.index[:LARGEST_CATEGORIES])
    now, then = (column.where(column.isin(kept) | column.isna(), OTHER) for column in (now, then))
    return now, then
