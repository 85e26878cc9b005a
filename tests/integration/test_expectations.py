"""The suite on the real Great Expectations: which rows fail does not depend on how the work is divided."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows import validate
from flows.validate import Checker, RuleFailures


def between(column: str, **limits: Any) -> dict[str, Any]:
    return {"type": "expect_column_values_to_be_between", "kwargs": {"column": column, **limits}}


SUITE: list[dict[str, Any]] = [
    between("a", min_value=-1, max_value=1),
    between("b", max_value=1.5),
    {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "a"}},
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "kind", "value_set": ["x", "y"]}},
    between("c", min_value=-2) | {"meta": {"rule": "c", "severity": "warning"}},
    {
        "type": "expect_column_pair_values_a_to_be_greater_than_b",
        "kwargs": {"column_A": "d", "column_B": "a", "ignore_row_if": "either_value_is_missing"},
    },
    {
        "type": "expect_column_values_to_be_between",
        "kwargs": {
            "column": "e",
            "max_value": 0,
            "row_condition": 'col("kind") == "y"',
            "condition_parser": "great_expectations",
        },
    },
    between("f", min_value=-100, max_value=100),
]


def frame_of(seed: int, rows: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({name: rng.normal(size=rows) for name in "abcdef"})
    frame["d"] += 3
    frame["kind"] = rng.choice(["x", "y", "z"], p=[0.6, 0.35, 0.05], size=rows)
    frame.loc[rng.random(rows) < 0.05, "a"] = np.nan
    frame.loc[rng.random(rows) < 0.05, "kind"] = None
    return frame


def as_told(found: list[RuleFailures]) -> list[tuple[str, list[int], list[Any]]]:
    return [(item.rule.name, item.rows.tolist(), item.values) for item in found]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("few", [1, 2, 4])
def test_rows_that_fail_are_the_same_however_the_columns_are_divided(
    seed: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = frame_of(seed)
    monkeypatch.setattr(validate, "_FEW_COLUMNS", few)
    checker = Checker(SUITE)
    at_once = as_told(checker.rows(frame))
    monkeypatch.setattr(validate, "_MANY_ROWS", 1)
    divided = as_told(checker.rows(frame))
    assert divided == at_once
    assert len(at_once) >= 6
    # Against the rules' plain meaning, so that both cannot be wrong together.
    told = {name: rows for name, rows, _ in divided}
    (outside,) = [rows for name, rows in told.items() if name == checker.plan[0].name]
    assert outside == np.flatnonzero((frame["a"] < -1) | (frame["a"] > 1)).tolist()
    (conditional,) = [rows for name, rows in told.items() if name == checker.plan[6].name]
    assert conditional == np.flatnonzero((frame["kind"] == "y") & (frame["e"] > 0)).tolist()
