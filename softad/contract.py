"""The input contract of a model: its columns, their types, ranges and categories, and what batches break it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softad.columns import numbers_of, words_of
from softad.preprocessing import Preprocessor

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 100
"""So many categories of a column are listed; the rest are counted."""


def contract_of(kept: Preprocessor) -> dict[str, Any]:
    """What a row must and should hold, as what JSON can hold.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"x": [1.0, 4.0], "m": ["M1", None]})
    >>> for column in contract_of(Preprocessor.fit(frame, numeric=["x"], categorical=["m"]))["columns"]:
    ...     print(column)
    {'name': 'x', 'type': 'number', 'low': 1.0, 'high': 4.0, 'may_be_missing': False}
    {'name': 'm', 'type': 'category', 'values': ['M1'], 'further_values': 0, 'may_be_missing': True}
    """
    columns: list[dict[str, Any]] = [
        {"name": one.name, "type": "number", "low": one.low, "high": one.high, "may_be_missing": one.indicated}
        for one in kept.numeric
    ]
    for word in kept.categorical:
        known = sorted((*word.values, *word.rest)) if len(word.values) + len(word.rest) <= SHOWN else list(word.values)
        columns.append({
            "name": word.name, "type": "category", "values": known[:SHOWN],
            "further_values": max(0, len(word.values) + len(word.rest) - SHOWN), "may_be_missing": word.missing,
        })  # fmt: skip
    if kept.image is not None:
        columns.append({"name": kept.image, "type": "image", "size": kept.image_size, "may_be_missing": False})
    return {"columns": columns}


def breaches(kept: Preprocessor, frame: pd.DataFrame) -> list[str]:
    """Why a batch cannot be scored at all: missing columns, and words where numbers belong; empty where it can.

    What lies outside ranges or categories is no breach, but a warning on its row (`Preprocessor.warnings`).

    >>> import pandas as pd
    >>> kept = Preprocessor.fit(pd.DataFrame({"x": [1.0, 4.0], "y": [0, 1]}), numeric=["x", "y"], categorical=[])
    >>> breaches(kept, pd.DataFrame({"x": ["wide", "9"]}))
    ["x: 'wide' in row 0; allowed: a number, or nothing", 'y: the column is missing; here are x']
    """
    found = []
    for name in (one.name for one in kept.numeric):
        try:
            numbers_of(frame, name)
        except ValueError as error:
            found.append(str(error))
    for name in (one.name for one in kept.categorical):
        try:
            words_of(frame, name)
        except ValueError as error:
            found.append(str(error))
    if kept.image is not None and kept.image not in frame.columns:
        found.append(f"{kept.image}: the column is missing; here are {', '.join(map(str, frame.columns))}")
    return found
