"""The expectation suite that `init` proposes: generous, so that only what cannot be true is held back.

Today's file passes whole; a person tightens it. Letters in a number column, unknown labels and repeated ids are held
back by `ingest` itself and need no rule here.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from flows.columns import Column
from flows.settings import Data

Expectation = dict[str, Any]

_NEAR_ZERO = 0.05


def build_suite(
    columns: Sequence[Column], data: Data, extremes: Mapping[str, tuple[float, float]]
) -> list[Expectation]:
    """Rules for the columns that the config names.

    Parameters
    ----------
    columns: as found; a column with empty cells today may have them tomorrow.
    extremes: smallest and largest number of each numeric feature.

    >>> from flows.columns import look
    >>> import pandas as pd
    >>> found = look(pd.DataFrame({"x": ["1", "2", "5"], "ok": ["0", "1", "0"]}))
    >>> data = Data(label="ok", numeric=["x"], window={"rows": 50})
    >>> [rule["meta"]["rule"] for rule in build_suite(found, data, {"x": (1.0, 5.0)})]
    ['the file has rows', 'x is filled', 'x is in range']
    """
    by_name = {column.name: column for column in columns}
    suite = [expectation("expect_table_row_count_to_be_between", "the file has rows", min_value=1)]
    named = [data.id, data.time, data.image, *data.numeric, *data.categorical]
    for name in dict.fromkeys(name for name in named if name is not None):
        if by_name[name].missing == 0:
            suite.append(expectation("expect_column_values_to_not_be_null", f"{name} is filled", column=name))
    for name in data.numeric:
        if name in extremes:
            low, high = generous_range(*extremes[name])
            suite.append(
                expectation(
                    "expect_column_values_to_be_between",
                    f"{name} is in range",
                    column=name,
                    min_value=low,
                    max_value=high,
                )
            )
    return suite


def expectation(kind: str, rule: str, **kwargs: Any) -> Expectation:
    """One rule in the form that Great Expectations reads; a row that fails it goes to quarantine."""
    return {"type": kind, "kwargs": kwargs, "meta": {"rule": rule}, "severity": "critical"}


def generous_range(low: float, high: float) -> tuple[float, float]:
    """The range seen, widened by its width on both sides and rounded outwards.

    What was never negative and comes near zero is taken to have its natural end there.

    >>> generous_range(3.8, 76.6), generous_range(295.3, 304.5), generous_range(-1.0, 1.0)
    ((0.0, 150.0), (286.0, 314.0), (-3.0, 3.0))
    """
    width = high - low if high > low else max(abs(high), 1.0)
    below, above = _outwards(low - width, width, down=True), _outwards(high + width, width, down=False)
    if 0.0 <= low <= _NEAR_ZERO * high:
        below = 0.0
    if _NEAR_ZERO * low <= high <= 0.0:
        above = 0.0
    return min(below, low), max(above, high)


def _outwards(bound: float, width: float, *, down: bool) -> float:
    """Round to the size of the width's first digit, away from the data."""
    if not math.isfinite(bound):
        return math.copysign(sys.float_info.max, bound)
    step = 10.0 ** math.floor(math.log10(width))
    rounded = math.floor(bound / step) if down else math.ceil(bound / step)
    return float(f"{rounded * step:.12g}")
