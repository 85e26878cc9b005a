"""Where hard cases sit, by two columns at once: how many parts of each machine and line are hard, now and before."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from monitoring.slice_statistics import MISSING

HARD_SHARE = 0.1
"""Hard are the parts whose loss lies above that of all but this share of the reference."""

MOST_ACROSS, MOST_DOWN = 8, 24
"""So many values are on the map, those with the most rows; the table of the window has room for no more either."""


@dataclass(frozen=True)
class Cell:
    """The rows of one value, or of one value of each of two columns.

    Attributes
    ----------
    down, across: the values; `across` is "" where there is one column.
    rows, hard: of the window, and how many of them are hard.
    rows_before, hard_before: the same of the reference.
    """

    down: str
    across: str
    rows: int
    hard: int
    rows_before: int
    hard_before: int

    @property
    def share(self) -> float:
        """Share of the window's rows that are hard."""
        return self.hard / self.rows

    @property
    def share_before(self) -> float | None:
        """The same of the reference; None where it has no such row."""
        return self.hard_before / self.rows_before if self.rows_before else None


@dataclass(frozen=True)
class PlacesMap:
    """Hard rows by one or two columns.

    Attributes
    ----------
    columns: names of the columns, the one with more values first.
    cells: those with rows in the window, in the order of their values.
    left_out: rows of values that are too many to be shown.
    """

    columns: Sequence[str]
    cells: Sequence[Cell]
    left_out: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: each value's name once."""
        down, across = self.down, self.across
        cells = [
            [down.index(one.down), across.index(one.across), one.rows, one.hard, one.rows_before, one.hard_before]
            for one in self.cells
        ]
        return {
            "columns": list(self.columns), "down": down, "across": across, "cells": cells, "left_out": self.left_out,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> PlacesMap:
        """What `to_dict` described."""
        down, across = document["down"], document["across"]
        cells = [Cell(down[i], across[j], *counts) for i, j, *counts in document["cells"]]
        return cls(document["columns"], cells, document["left_out"])

    @property
    def down(self) -> list[str]:
        """Values of the first column, in order."""
        return sorted({one.down for one in self.cells}, key=_natural)

    @property
    def across(self) -> list[str]:
        """Values of the second column, in order."""
        return sorted({one.across for one in self.cells}, key=_natural)


def places_map(
    current: pd.DataFrame, reference: pd.DataFrame, columns: Sequence[str], *, loss: str = "loss"
) -> PlacesMap | None:
    """Count the hard rows of a window and of its reference by the first one or two columns that both have.

    Returns
    -------
    None where there is no such column, or no row.

    >>> rows = pd.DataFrame({"machine": ["M1", "M10", "M2", "M2"], "line": ["A", "A", "A", "B"], "loss": [9, 0, 9, 0]})
    >>> found = places_map(rows, rows.assign(loss=[0, 1, 2, 3]), ["machine", "line"])
    >>> found.columns, [(one.down, one.across, one.hard, one.rows) for one in found.cells]
    (['machine', 'line'], [('M1', 'A', 1, 1), ('M2', 'A', 1, 1), ('M2', 'B', 0, 1), ('M10', 'A', 0, 1)])
    >>> PlacesMap.from_dict(found.to_dict()) == found
    True
    """
    present = [name for name in columns if name in current.columns and name in reference.columns][:2]
    if not present or current.empty or reference.empty:
        return None
    now, before = _named(current, present), _named(reference, present)
    present.sort(key=lambda name: -now[name].nunique())
    limit = float(np.quantile(reference[loss].to_numpy(float), 1.0 - HARD_SHARE))
    now["hard"], before["hard"] = current[loss].to_numpy(float) > limit, reference[loss].to_numpy(float) > limit
    kept = now
    for name, most in zip(present, (MOST_DOWN, MOST_ACROSS), strict=False):
        kept = kept[kept[name].isin(now[name].value_counts().index[:most])]
    counts, earlier = _counts(kept, present), _counts(before, present)
    cells = []
    for place in sorted(counts, key=lambda place: tuple(_natural(value) for value in place)):
        rows_before, hard_before = earlier.get(place, (0, 0))
        cells.append(Cell(place[0], place[1] if len(place) > 1 else "", *counts[place], rows_before, hard_before))
    return PlacesMap(present, cells, len(now) - len(kept))


def _named(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({name: frame[name].astype(object).where(frame[name].notna(), MISSING).astype(str).to_numpy()
                         for name in columns})  # fmt: skip


def _counts(frame: pd.DataFrame, columns: list[str]) -> dict[tuple[str, ...], tuple[int, int]]:
    grouped = frame.groupby(columns)["hard"].agg(["size", "sum"])
    keys = [key if isinstance(key, tuple) else (key,) for key in grouped.index]
    return {key: (int(rows), int(hard)) for key, rows, hard in zip(keys, grouped["size"], grouped["sum"], strict=True)}


def _natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """M2 before M10.

    >>> sorted(["M10", "M2", "L"], key=_natural)
    ['L', 'M2', 'M10']
    """
    parts = re.findall(r"\d+|\D+", text)
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts)
