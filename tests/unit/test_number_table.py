"""Number columns side by side: what a row becomes depends on nothing but the row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from softad import number_table
from softad.columns import NumericColumn
from softad.number_table import NumberTable, blocks_of

CELLS = st.one_of(st.floats(width=64), st.just(np.nan), st.just(0.0), st.floats(-5, 5))


def table_of(values: np.ndarray) -> tuple[NumberTable, pd.DataFrame]:
    frame = pd.DataFrame(values, columns=[f"x{number}" for number in range(values.shape[1])])
    return NumberTable([NumericColumn.fit(frame[name].to_numpy(), name) for name in frame]), frame


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=CELLS), st.integers(1, 9))
def test_columns_and_rows_apart_are_as_together(values: np.ndarray, block: int) -> None:
    table, frame = table_of(values)
    together, said = table.transform(frame), table.warnings(frame)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(number_table, "BLOCK", block)
        np.testing.assert_array_equal(table.transform(frame), together)
        assert table.warnings(frame) == said
    apart = [NumberTable([column]).transform(frame) for column in table.columns]
    np.testing.assert_array_equal(np.concatenate(apart, axis=1), together)
    rows = [table.transform(frame.iloc[[row]]) for row in range(len(frame))]
    # One row and many take different instructions of the processor, which may round the last bit differently.
    np.testing.assert_allclose(np.concatenate(rows), together, rtol=1e-6, atol=1e-30)
    assert np.isfinite(together).all()


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-1e6, 1e6)))
def test_training_rows_themselves_are_never_warned_about(values: np.ndarray) -> None:
    table, frame = table_of(values)
    assert table.warnings(frame) == []


def test_what_is_odd_is_said_in_the_order_of_the_columns() -> None:
    table, _ = table_of(np.array([[0.0, np.nan, 1.0], [1.0, np.nan, np.nan]]))
    odd = pd.DataFrame({"x0": [np.nan, 2.0], "x1": [3.0, np.nan], "x2": [np.nan, 1.0]})
    assert table.warnings(odd) == [
        (0, "x0: missing, and never missing in training"),
        (0, "x1: had no value in training, not used"),
        (1, "x0: 2 is outside the training range, 0 to 1"),
    ]


def test_kinds_of_columns_are_read_alike() -> None:
    frame = pd.DataFrame(
        {"a": [1, 2], "b": [True, False], "c": ["1.5", None], "d": pd.array([3, None], dtype="Int64"), "e": [0.5, 1]}
    )
    ((start, values),) = blocks_of(frame, ["e", "d", "c", "b", "a"])
    assert start == 0
    np.testing.assert_array_equal(values, [[0.5, 3.0, 1.5, 1.0, 1.0], [1.0, np.nan, np.nan, 0.0, 2.0]])


def test_a_word_is_named_by_its_row_in_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number_table, "BLOCK", 2)
    frame = pd.DataFrame({"x": ["1", "2", "3", "n.a."], "y": range(4)})
    with pytest.raises(ValueError, match=r"x: 'n\.a\.' in row 3; allowed: a number, or nothing"):
        list(blocks_of(frame, ["y", "x"]))
    with pytest.raises(ValueError, match="z: the column is missing; here are x, y"):
        list(blocks_of(frame, ["y", "z"]))
    twice = pd.concat([frame, frame], axis=1)
    with pytest.raises(ValueError, match="y: the column occurs 2 times; allowed: once"):
        list(blocks_of(twice, ["y"]))
