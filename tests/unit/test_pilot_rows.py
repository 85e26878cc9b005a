"""Rows of a pilot study: kinds of columns and targets, folds, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softad.pilot_rows import FOLDS, check_rows, cut_round

RNG = np.random.default_rng(0)


def table(rows: int = 100) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {"a": rng.normal(size=rows), "machine": rng.choice(["M1", "M2"], rows), "n": rng.integers(0, 5, rows)}
    )


@given(
    sizes=st.lists(st.integers(1, 80), min_size=2, max_size=5).filter(lambda s: sum(s) >= 50), seed=st.integers(0, 99)
)
@settings(max_examples=40)
def test_folds_hold_classes_in_proportion(sizes: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rows = check_rows(np.zeros((labels.size, 1)), labels)
    folds = rows.folds(seed)
    counts = np.bincount(folds, minlength=FOLDS)
    assert counts.max() - counts.min() <= 1
    for number, size in enumerate(sizes):
        inside = np.bincount(folds[labels == number], minlength=FOLDS)
        assert np.abs(inside - size / FOLDS).max() < 3.0


def test_five_rounds_judge_every_row_once_and_train_on_none_that_they_judge() -> None:
    frame = table()
    frame["a"] = np.arange(100.0)  # tells the rows apart
    rows = check_rows(frame, ["x", "y"] * 50)
    rounds = [cut_round(rows, number, 3) for number in range(FOLDS)]
    assert sorted(np.concatenate([one.rows for one in rounds]).tolist()) == list(range(100))
    for one in rounds:
        parts = [set(part[:, 0].tolist()) for part in (one.split.features, one.split.validation_features, one.features)]
        assert len(set.union(*parts)) == 100 == sum(map(len, parts))
    assert cut_round(rows, FOLDS, 3).rows.tolist() != rounds[0].rows.tolist()


def test_preprocessing_knows_training_rows_only() -> None:
    frame = table()
    rows = check_rows(frame, ["x", "y"] * 50)
    cut = cut_round(rows, 0, 0)
    frame.loc[cut.rows, "a"] = 1e6
    again = cut_round(check_rows(frame, ["x", "y"] * 50), 0, 0)
    assert cut.split.features.equal(again.split.features)


def test_groups_stay_together() -> None:
    groups = np.repeat(np.arange(20), 5)
    rows = check_rows(table(), ["x", "y"] * 50, groups=groups)
    folds = rows.folds(0)
    assert all(len(set(folds[groups == group])) == 1 for group in range(20))
    assert np.bincount(folds).tolist() == [20] * 5
    sample = rows.sample(40, 0)
    assert sample.groups is not None and np.bincount(sample.groups).tolist() == [5] * (len(sample.frame) // 5)
    assert 25 <= len(sample.frame) <= 40


def test_a_sample_keeps_the_shares_of_classes() -> None:
    labels = np.repeat([0, 1], [950, 50])
    rows = check_rows(RNG.normal(size=(1000, 2)), labels).sample(200, 0)
    assert len(rows.frame) == 200
    assert rows.target.sum() == pytest.approx(10, abs=1)


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (np.arange(100) % 3, "classification"),
        (np.arange(100) % 3 == 0, "classification"),
        (np.array([1.0, 2.0] * 50), "classification"),
        (np.array(["a", "b"] * 50, dtype=object), "classification"),
        (pd.Series(["a", "b"] * 50, dtype="category"), "classification"),
        (np.linspace(0, 1, 100), "regression"),
        (np.arange(100).astype(float), "regression"),
    ],
)
def test_the_task_is_found(y: Any, task: str) -> None:
    assert check_rows(table(), y).task == task


def test_classes_of_floats_are_named_as_whole_numbers() -> None:
    assert check_rows(table(), np.array([1.0, 2.0] * 50)).classes == ("1", "2")


def test_regression_is_standardised_on_training_rows() -> None:
    rows = check_rows(table(), np.linspace(100, 300, 100))
    cut = cut_round(rows, 0, 0)
    assert float(cut.split.targets.mean()) == pytest.approx(0, abs=1e-5)
    assert float(cut.split.targets.std(correction=0)) == pytest.approx(1, abs=1e-5)
    assert 40 < cut.unit < 80


def with_inf() -> pd.DataFrame:
    frame = table()
    frame.loc[7, "a"] = np.inf
    return frame


@pytest.mark.parametrize(
    ("X", "y", "options", "message"),
    [
        (table(40), [0, 1] * 20, {}, "X: 40 rows; allowed: at least 50"),
        (with_inf(), [0, 1] * 50, {}, "X: inf in row 7, column 'a'"),
        (table(), ["ok"] * 100, {}, "y: only one class, 'ok'"),
        (table(), [0.5] * 100, {}, "y: only one value"),
        (table(), [0, 1] * 49, {}, "y: 98 values; allowed: 100"),
        (table(), [None, "a"] * 50, {}, "y: missing in row 0"),
        (table(), list(range(100)), {}, "y: 100 classes"),
        (table(), ["a", "b"] * 50, {"task": "regression"}, "y: 'a'; allowed: numbers"),
        (table(), [0, 1] * 50, {"task": "ranking"}, "task: 'ranking'"),
        (table(), [0, 1] * 50, {"groups": [1] * 100}, "groups: 1 different"),
        (table(), [0, 1] * 50, {"groups": [1] * 10}, "groups: 10 values"),
        (np.zeros(100), [0, 1] * 50, {}, "X: float64, shape"),
        (table().assign(t=pd.Timestamp("2024-01-01")), [0, 1] * 50, {}, "column 't' holds times"),
    ],
)
def test_what_is_refused(X: Any, y: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_rows(X, y, **options)


def test_in_order_of_time_only_earlier_rows_train_and_stop() -> None:
    rng = np.random.default_rng(0)
    when = rng.permutation(240) // 3
    rows = check_rows(rng.normal(size=(240, 2)), rng.integers(0, 2, 240), order=when)
    judged = []
    for number in range(5):
        train, held, told = rows.parts(number, random_state=0)
        assert when[train].max() < when[held].min() and when[held].max() < when[told].min()
        judged.append(told)
    assert len(np.unique(np.concatenate(judged))) == len(np.concatenate(judged)) == 150


def test_rows_of_one_time_stay_together_and_too_few_times_are_refused() -> None:
    with pytest.raises(ValueError, match="too few different times"):
        check_rows(np.zeros((80, 1)), [0, 1] * 40, order=[0] * 40 + [1] * 40)
    with pytest.raises(ValueError, match="order"):
        check_rows(np.zeros((80, 1)), [0, 1] * 40, order=[np.nan] * 80)


def test_a_sample_remembers_which_rows_it_is_of() -> None:
    rows = check_rows(np.arange(300.0)[:, None], [0, 1, 0] * 100, order=np.arange(300))
    few = rows.sample(90, seed=1)
    assert few.frame["x0"].to_numpy().tolist() == few.origin.tolist()
    assert few.order is not None and few.order.tolist() == few.origin.tolist()


def test_images_are_rows_too() -> None:
    pictures = np.random.default_rng(0).random((60, 3, 8, 8))
    cut = cut_round(check_rows(pictures, [0, 1, 0] * 20), 0, random_state=0)
    assert tuple(cut.split.features.shape) == (36, 3, 8, 8)
    assert cut.constant_losses(2).mean() == pytest.approx(0.64, abs=0.05)
